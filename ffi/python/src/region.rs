//! Memory registered for transfer.

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use tranship_kv::fork::Birth;
use tranship_transport::Access;
use tranship_transport::memory::MemoryError;

use crate::cache::{check, seconds};
use crate::dlpack;
use crate::engine::unregistered;
use crate::error::{invalid, raise};
use crate::export::{self, Owner};
use crate::window::Window;

/// What Python has lent. It goes on whichever thread of the engine's has proof that nothing moves any more;
/// when the interpreter is gone by then it is left alone.
pub(crate) struct Kept(Option<Box<dyn Any + Send + Sync>>);

impl Kept {
    pub(crate) fn new(keep: Box<dyn Any + Send + Sync>) -> Self {
        Self(Some(keep))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut keep = self.0.take();
        if Python::try_attach(|_| drop(keep.take())).is_none() {
            std::mem::forget(keep);
        }
    }
}

/// Drops what may wait for threads of the engine, without the interpreter lock, which they may wait for.
pub(crate) fn let_go<T: Send>(held: Option<T>, birth: Birth) {
    let Some(held) = held else { return };
    if birth.is_elsewhere() {
        // The threads and locks behind it belong to the parent.
        std::mem::forget(held);
        return;
    }
    let mut held = Some(held);
    if Python::try_attach(|py| py.detach(|| drop(held.take()))).is_none() {
        std::mem::forget(held);
    }
}

/// Memory registered with every fabric of an engine.
#[pyclass(frozen, module = "tranship")]
pub(crate) struct Region {
    /// Gone once closed.
    open: Mutex<Option<tranship_transport::Region>>,
    writable: bool,
    birth: Birth,
}

impl Region {
    pub(crate) fn new(region: tranship_transport::Region, birth: Birth, writable: bool) -> Self {
        Self { open: Mutex::new(Some(region)), writable, birth }
    }

    fn lock(&self) -> MutexGuard<'_, Option<tranship_transport::Region>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T: Send>(
        &self,
        py: Python<'_>,
        f: impl FnOnce(&tranship_transport::Region) -> T + Send,
    ) -> PyResult<T> {
        check(py, self.birth)?;
        py.detach(|| self.lock().as_ref().map(f)).ok_or_else(|| {
            raise(py, "closed", "the region was closed; allocate or register another")
        })
    }

    fn cut(&self, py: Python<'_>, start: u64, end: Option<u64>) -> PyResult<Slice> {
        let slice = self.with(py, |region| region.slice(start..end.unwrap_or(region.len())))?;
        let slice = slice.map_err(|error| invalid(py, error))?;
        Ok(Slice { slice: Some(slice), writable: self.writable, birth: self.birth })
    }

    /// Where its bytes are, and what keeps them there.
    fn place(&self, py: Python<'_>) -> PyResult<((*mut u8, usize), Py<PyAny>)> {
        let memory = self.with(py, |region| Arc::clone(region.memory()))?;
        if !memory.is_host() {
            return Err(invalid(py, MemoryError::OnDevice));
        }
        let place = (memory.as_ptr(), memory.len());
        Ok((place, Py::new(py, Owner::new(memory, self.birth))?.into_any()))
    }
}

#[pymethods]
impl Region {
    /// How long it is, bytes.
    #[getter]
    fn nbytes(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, tranship_transport::Region::len)
    }

    /// Its bytes, in place: what numpy, torch and everything that takes buffers can use. They stay where they
    /// are for as long as somebody has the view.
    #[getter]
    fn buffer<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (place, owner) = self.place(py)?;
        export::view(py, place, self.writable, owner)
    }

    #[pyo3(signature = (**wishes))]
    fn __dlpack__<'py>(
        &self,
        py: Python<'py>,
        wishes: Option<&Bound<'py, pyo3::types::PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let ((at, len), owner) = self.place(py)?;
        dlpack::give(py, (at.cast(), len), self.writable, owner, wishes)
    }

    fn __dlpack_device__(&self) -> (i32, i32) {
        (1, 0)
    }

    /// A part of it, to transfer from or to.
    #[pyo3(signature = (start=0, end=None))]
    fn slice(&self, py: Python<'_>, start: u64, end: Option<u64>) -> PyResult<Slice> {
        self.cut(py, start, end)
    }

    /// The right for peers to use a part of it: `access` is "read", "write" or "read,write".
    #[pyo3(signature = (start=0, end=None, *, access="read"))]
    fn window(
        &self,
        py: Python<'_>,
        start: u64,
        end: Option<u64>,
        access: &str,
    ) -> PyResult<Window> {
        let access = match access {
            "read" => Access::READ,
            "write" => Access::WRITE,
            "read,write" => Access::READ | Access::WRITE,
            other => {
                let text = format!("access {other:?}: use \"read\", \"write\" or \"read,write\"");
                return Err(invalid(py, text));
            }
        };
        if access.allows(Access::WRITE) && !self.writable {
            return Err(invalid(
                py,
                "the region was registered with writable=False; grant \"read\"",
            ));
        }
        let window =
            self.with(py, |region| region.window_with(start..end.unwrap_or(region.len()), access))?;
        let window = window.map_err(|error| {
            use tranship_transport::WindowError as W;
            let kind = match error {
                W::Full { .. } => "full",
                W::Closed => "closed",
                W::Fabric(_) => "unsupported",
                _ => "invalid",
            };
            raise(py, kind, error.to_string())
        })?;
        Ok(Window::new(window, self.birth))
    }

    /// Refuses new transfers, ends those in flight, revokes its windows, and returns once no transfer can touch
    /// its memory. When that cannot be proven in time the error is "not_fenced": close it again. Closing twice
    /// is fine.
    #[pyo3(signature = (timeout=5.0))]
    fn close(&self, py: Python<'_>, timeout: f64) -> PyResult<()> {
        if self.birth.is_elsewhere() {
            return Ok(());
        }
        let timeout = seconds(py, "timeout", timeout)?;
        py.detach(|| {
            let Some(region) = self.lock().take() else { return Ok(()) };
            region.close(timeout).map_err(|error| {
                let text = error.to_string();
                *self.lock() = Some(error.region);
                text
            })
        })
        .map_err(|text| raise(py, "not_fenced", text))
    }

    fn __enter__(this: Py<Self>) -> Py<Self> {
        this
    }

    #[pyo3(signature = (*_args))]
    fn __exit__(&self, py: Python<'_>, _args: &Bound<'_, pyo3::types::PyTuple>) -> PyResult<()> {
        self.close(py, 5.0)
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        match self.with(py, |region| format!("{region:?}")) {
            Ok(text) => text,
            Err(error) => format!("Region({})", error.value(py)),
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let open = self.open.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let_go(open, self.birth);
    }
}

/// A part of a region. Holds the region's memory in place.
#[pyclass(frozen, module = "tranship")]
pub(crate) struct Slice {
    /// Gone only while it is dropped.
    slice: Option<tranship_transport::Slice>,
    writable: bool,
    birth: Birth,
}

#[pymethods]
impl Slice {
    /// How long it is, bytes.
    #[getter]
    fn nbytes(&self) -> u64 {
        self.slice.as_ref().map_or(0, tranship_transport::Slice::len)
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        let_go(self.slice.take(), self.birth);
    }
}

/// The bytes of a region or of a part of one; a destination has to be writable.
pub(crate) fn slice(
    object: &Bound<'_, PyAny>,
    destination: bool,
) -> PyResult<tranship_transport::Slice> {
    let py = object.py();
    let whole;
    let slice = if let Ok(region) = object.cast::<Region>() {
        whole = region.get().cut(py, 0, None)?;
        &whole
    } else if let Ok(slice) = object.cast::<Slice>() {
        slice.get()
    } else {
        return Err(unregistered(py, object));
    };
    check(py, slice.birth)?;
    if destination && !slice.writable {
        let text = "the region was registered with writable=False; nothing can be read into it";
        return Err(invalid(py, text));
    }
    slice.slice.clone().ok_or_else(|| raise(py, "closed", "the slice is gone"))
}
