//! Memory that blocks come from and go to.

use std::any::Any;
use std::sync::Arc;

use pyo3::prelude::*;
use tranship_kv::Paged;
use tranship_kv::paged::Tensor;
use tranship_transport::memory::Spans;

use crate::buffer::{self, Buffer};
use crate::dlpack::{self, Taken};
use crate::error::invalid;

/// One memory a block, and what keeps them valid.
pub(crate) struct Blocks {
    pub(crate) spans: Vec<Spans>,
    pub(crate) keep: Vec<Box<dyn Any + Send + Sync>>,
}

/// What callers give for memory: `Pages[ids]`, `Segments`, or a sequence of buffers or tensors.
pub(crate) fn blocks(memory: &Bound<'_, PyAny>, count: usize, writable: bool) -> PyResult<Blocks> {
    let py = memory.py();
    let blocks = if let Ok(selected) = memory.cast::<Selected>() {
        let Selected { pages, ids } = selected.get();
        let spans = ids.iter().map(|id| pages.block(*id)).collect::<Result<_, _>>();
        let spans = spans.map_err(|error| invalid(py, error))?;
        Blocks { spans, keep: vec![Box::new(Arc::clone(pages.keep()))] }
    } else if let Ok(segments) = memory.cast::<Segments>() {
        let segments = segments.get();
        let spans = segments.spans.clone();
        Blocks { spans, keep: vec![Box::new(segments.keep.clone_ref(py))] }
    } else {
        let mut blocks = Blocks { spans: Vec::new(), keep: Vec::new() };
        for item in memory.try_iter()? {
            let (tensor, keep) = lent(&item?, writable)?;
            blocks.spans.push(whole(py, &tensor)?);
            blocks.keep.push(keep);
        }
        blocks
    };
    if blocks.spans.len() != count {
        let have = blocks.spans.len();
        return Err(invalid(
            py,
            format!("{count} keys and {have} memories; give one memory a key"),
        ));
    }
    Ok(blocks)
}

/// All bytes of one contiguous buffer or tensor, and what keeps them valid.
pub(crate) fn bytes(
    object: &Bound<'_, PyAny>,
    writable: bool,
) -> PyResult<(*mut u8, usize, Box<dyn Any + Send + Sync>)> {
    let py = object.py();
    let (tensor, keep) = lent(object, writable).map_err(|error| {
        // What the object itself says of it, such as "read-only".
        if error.is_instance_of::<pyo3::exceptions::PyBufferError>(py)
            || error.is_instance_of::<pyo3::exceptions::PyValueError>(py)
        {
            invalid(py, format!("the memory cannot be used: {}", error.value(py)))
        } else {
            error
        }
    })?;
    whole(py, &tensor)?;
    let len = tensor.shape.iter().product::<usize>() * tensor.item_bytes;
    Ok((tensor.base, len, keep))
}

/// The memory of an object: by the buffer protocol where it lends its bytes, else by DLPack.
fn lent(
    object: &Bound<'_, PyAny>,
    writable: bool,
) -> PyResult<(Tensor, Box<dyn Any + Send + Sync>)> {
    let py = object.py();
    if buffer::lends(object) {
        let buffer = Buffer::of(object, writable)?;
        Ok((buffer.tensor(), Box::new(buffer)))
    } else if dlpack::speaks(object) {
        let taken = Taken::of(object)?;
        Ok((taken.tensor(py)?, Box::new(taken)))
    } else {
        let kind = object.get_type();
        Err(invalid(
            py,
            format!("{kind} lends no memory: it has neither the buffer protocol nor DLPack"),
        ))
    }
}

/// All bytes of a contiguous tensor.
fn whole(py: Python<'_>, tensor: &Tensor) -> PyResult<Spans> {
    let Tensor { base, shape, strides, item_bytes } = tensor;
    let mut dense = dlpack::dense(shape).into_iter().zip(strides).zip(shape);
    if !dense.all(|((dense, stride), len)| *len <= 1 || dense == *stride) {
        return Err(invalid(
            py,
            format!(
                "a tensor of shape {shape:?} with strides {strides:?} is not contiguous; use .contiguous(), or Pages"
            ),
        ));
    }
    let mut spans = Spans::new();
    // SAFETY: the object lent as many bytes, and is kept while they are used; that nobody else writes
    // meanwhile is the caller's to see to, as for any array that is shared.
    unsafe { spans.push(*base, shape.iter().product::<usize>() * item_bytes) };
    Ok(spans)
}

/// A paged KV cache: one tensor a layer, whose first dimension counts pages.
#[pyclass(frozen, module = "tranship")]
pub(crate) struct Pages(Paged);

#[pymethods]
impl Pages {
    #[new]
    #[pyo3(signature = (tensors, *, writable=true))]
    fn new(py: Python<'_>, tensors: Vec<Bound<'_, PyAny>>, writable: bool) -> PyResult<Self> {
        let (mut layers, mut keep) = (Vec::new(), Vec::new());
        for tensor in &tensors {
            let (tensor, kept) = lent(tensor, writable)?;
            layers.push(tensor);
            keep.push(kept);
        }
        // SAFETY: the objects lent these tensors, and are kept as long as the pages are used.
        let paged = unsafe { Paged::new(&layers, Arc::new(keep)) };
        paged.map(Self).map_err(|error| invalid(py, error))
    }

    /// How many pages each tensor has.
    #[getter]
    fn count(&self) -> usize {
        self.0.pages()
    }

    /// How many tensors.
    #[getter]
    fn layers(&self) -> usize {
        self.0.layers()
    }

    /// Bytes of a block: of one page of every tensor.
    #[getter]
    fn block_bytes(&self) -> usize {
        self.0.block_bytes()
    }

    /// These pages, one a block.
    fn __getitem__(&self, py: Python<'_>, ids: Vec<u64>) -> PyResult<Selected> {
        for id in &ids {
            self.0.block(*id).map_err(|error| invalid(py, error))?;
        }
        Ok(Selected { pages: self.0.clone(), ids })
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// Pages that were selected, one a block.
#[pyclass(frozen, module = "tranship")]
pub(crate) struct Selected {
    pub(crate) pages: Paged,
    pub(crate) ids: Vec<u64>,
}

#[pymethods]
impl Selected {
    fn __len__(&self) -> usize {
        self.ids.len()
    }
}

/// Memory by address: for each block a list of (address, bytes). Nothing is checked; `keep` is kept
/// while the memory is used.
#[pyclass(frozen, module = "tranship")]
pub(crate) struct Segments {
    spans: Vec<Spans>,
    keep: Py<PyAny>,
}

#[pymethods]
impl Segments {
    #[new]
    fn new(blocks: Vec<Vec<(usize, usize)>>, keep: Py<PyAny>) -> Self {
        let block = |pieces: Vec<(usize, usize)>| {
            let mut spans = Spans::new();
            for (at, len) in pieces {
                // SAFETY: whoever builds segments by address vouches for them, as the documentation says.
                unsafe { spans.push(std::ptr::with_exposed_provenance_mut(at), len) };
            }
            spans
        };
        Self { spans: blocks.into_iter().map(block).collect(), keep }
    }

    fn __len__(&self) -> usize {
        self.spans.len()
    }
}
