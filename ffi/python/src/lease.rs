//! Blocks kept in place for reading.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tranship_cache::client::{self, BlockResult};
use tranship_kv::fork::Birth;

use crate::cache::check;
use crate::dlpack;
use crate::error::raise;
use crate::export::{self, Owner};
use crate::results::LoadResult;

/// The lease, which buffers of its blocks hold on to.
type Shared = Arc<Mutex<client::Lease>>;

/// Blocks kept in place; closing it, or leaving its `with`, releases them, once no buffer of theirs is in use.
#[pyclass(frozen, module = "tranship")]
pub(crate) struct Lease {
    open: Mutex<Option<Shared>>,
    birth: Birth,
}

impl Lease {
    pub(crate) fn new(lease: client::Lease) -> Self {
        Self { open: Mutex::new(Some(Arc::new(Mutex::new(lease)))), birth: Birth::here() }
    }

    fn with<T>(
        &self,
        py: Python<'_>,
        f: impl FnOnce(&client::Lease) -> PyResult<T>,
    ) -> PyResult<T> {
        f(&self.shared(py)?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn shared(&self, py: Python<'_>) -> PyResult<Shared> {
        check(py, self.birth)?;
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).clone();
        open.ok_or_else(|| raise(py, "closed", "the lease was released; take another"))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.birth.is_elsewhere() {
            std::mem::forget(self.open.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        }
    }
}

#[pymethods]
impl Lease {
    /// What is known of each block.
    #[getter]
    fn results(&self, py: Python<'_>) -> PyResult<Vec<LoadResult>> {
        let result = |(_, result)| match result {
            BlockResult::Ready { .. } => LoadResult::Ready,
            BlockResult::Late => LoadResult::Late,
            BlockResult::Gone => LoadResult::Gone,
            BlockResult::Corrupt => LoadResult::Corrupt,
        };
        self.with(py, |lease| Ok(lease.results().map(result).collect()))
    }

    /// A copy of a block's bytes, checked.
    fn read<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Bound<'py, PyBytes>> {
        self.with(py, |lease| {
            let failed = |error: client::ReadError| raise(py, "failed", error.to_string());
            let len = match lease.results().nth(index) {
                Some((_, BlockResult::Ready { len })) => usize::try_from(len)?,
                _ => return Err(failed(client::ReadError::NotReady { index })),
            };
            PyBytes::new_with(py, len, |into| lease.copy_to(index, into).map_err(failed))
        })
    }

    /// Checks a block and tells where its bytes are, address and length: good until the lease ends.
    fn view(&self, py: Python<'_>, index: usize) -> PyResult<(usize, usize)> {
        self.with(py, |lease| {
            let failed = |error: client::ReadError| raise(py, "failed", error.to_string());
            let (at, len) = lease.view(index).map_err(failed)?;
            Ok((at.expose_provenance(), len))
        })
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        self.with(py, |lease| Ok(lease.len()))
    }

    /// A block, to be read in place.
    fn __getitem__(this: Py<Self>, py: Python<'_>, index: usize) -> PyResult<Block> {
        let len = this.get().with(py, |lease| Ok(lease.len()))?;
        if index >= len {
            return Err(PyIndexError::new_err(format!("block {index} of {len}")));
        }
        Ok(Block { lease: this, index })
    }

    /// Releases the blocks. Closing twice is fine.
    fn close(&self) {
        if !self.birth.is_elsewhere() {
            drop(self.open.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
    }

    fn __enter__(this: Py<Self>) -> Py<Self> {
        this
    }

    #[pyo3(signature = (*_args))]
    fn __exit__(&self, _args: &Bound<'_, pyo3::types::PyTuple>) {
        self.close();
    }
}

/// A block that is kept in place.
#[pyclass(frozen, module = "tranship")]
pub(crate) struct Block {
    lease: Py<Lease>,
    index: usize,
}

impl Block {
    /// Checks the block and tells where it is, and what keeps it there.
    fn place(&self, py: Python<'_>) -> PyResult<((*mut u8, usize), Py<PyAny>)> {
        let lease = self.lease.get();
        let shared = lease.shared(py)?;
        let view = py.detach(|| {
            let lease = shared.lock().unwrap_or_else(PoisonError::into_inner);
            lease.view(self.index).map(|(at, len)| (at.expose_provenance(), len))
        });
        let (at, len) = view.map_err(|error| raise(py, "failed", error.to_string()))?;
        let owner = Py::new(py, Owner::new(shared, lease.birth))?.into_any();
        Ok(((std::ptr::with_exposed_provenance_mut(at), len), owner))
    }
}

#[pymethods]
impl Block {
    /// How long it is, bytes.
    #[getter]
    fn nbytes(&self, py: Python<'_>) -> PyResult<u64> {
        self.lease.get().with(py, |lease| match lease.results().nth(self.index) {
            Some((_, BlockResult::Ready { len })) => Ok(len),
            _ => {
                let error = client::ReadError::NotReady { index: self.index };
                Err(raise(py, "failed", error.to_string()))
            }
        })
    }

    /// Its bytes, checked, in place and read-only. The lease is released only once no view of them is in use.
    #[getter]
    fn buffer<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (place, owner) = self.place(py)?;
        export::view(py, place, false, owner)
    }

    /// The same as a tensor of bytes, read-only: for those who speak DLPack 1.0, which can say so.
    #[pyo3(signature = (**wishes))]
    fn __dlpack__<'py>(
        &self,
        py: Python<'py>,
        wishes: Option<&Bound<'py, pyo3::types::PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let ((at, len), owner) = self.place(py)?;
        dlpack::give(py, (at.cast(), len), false, owner, wishes)
    }

    fn __dlpack_device__(&self) -> (i32, i32) {
        (1, 0)
    }
}
