//! Windows: the right for peers to use a part of a region, on both sides.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tranship_kv::fork::Birth;
use tranship_transport::{Descriptor, RemoteSlice, RemoteWindow};

use crate::cache::{check, seconds};
use crate::error::{invalid, raise};
use crate::region::let_go;

/// Longer ones are nobody's.
const DESCRIPTOR_BYTES_MAX: usize = 64 << 10;

/// The right for peers to use a part of a region. Letting go of it revokes it without waiting.
#[pyclass(frozen, module = "tranship")]
pub(crate) struct Window {
    /// Gone once revoked.
    open: Mutex<Option<tranship_transport::Window>>,
    birth: Birth,
}

impl Window {
    pub(crate) fn new(window: tranship_transport::Window, birth: Birth) -> Self {
        Self { open: Mutex::new(Some(window)), birth }
    }

    fn lock(&self) -> MutexGuard<'_, Option<tranship_transport::Window>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Window {
    /// What a peer needs to use it, to be handed over by any channel. Whoever has it may use the window until it
    /// is revoked.
    #[getter]
    fn descriptor<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        check(py, self.birth)?;
        let descriptor =
            py.detach(|| self.lock().as_ref().map(tranship_transport::Window::descriptor));
        let descriptor = descriptor
            .ok_or_else(|| raise(py, "closed", "the window was revoked; open another"))?;
        let bytes = serde_json::to_vec(&descriptor).map_err(|error| invalid(py, error))?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// Takes the right back and waits until no late write can land: the pages may be used for something else
    /// then. When that cannot be proven in time the error is "not_fenced": revoke it again. Revoking twice is
    /// fine.
    #[pyo3(signature = (timeout=5.0))]
    fn revoke(&self, py: Python<'_>, timeout: f64) -> PyResult<()> {
        if self.birth.is_elsewhere() {
            return Ok(());
        }
        let timeout = seconds(py, "timeout", timeout)?;
        py.detach(|| {
            let Some(window) = self.lock().take() else { return Ok(()) };
            window.revoke_within(timeout).map_err(|error| {
                let text = error.to_string();
                *self.lock() = Some(error.window);
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
        self.revoke(py, 5.0)
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        let open = self.open.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let_go(open, self.birth);
    }
}

/// Reads what `Window.descriptor` gave.
pub(crate) fn descriptor(py: Python<'_>, bytes: &[u8]) -> PyResult<Descriptor> {
    if bytes.len() > DESCRIPTOR_BYTES_MAX {
        let text =
            format!("a descriptor of {} bytes, more than {DESCRIPTOR_BYTES_MAX}", bytes.len());
        return Err(invalid(py, text));
    }
    serde_json::from_slice(bytes)
        .map_err(|error| invalid(py, format!("no descriptor of a window: {error}")))
}

/// A peer's window, as this side uses it.
#[pyclass(frozen, module = "tranship")]
pub(crate) struct Remote {
    /// Gone only while it is dropped.
    window: Option<RemoteWindow>,
    birth: Birth,
}

impl Remote {
    pub(crate) fn new(window: RemoteWindow, birth: Birth) -> Self {
        Self { window: Some(window), birth }
    }

    fn window(&self, py: Python<'_>) -> PyResult<&RemoteWindow> {
        check(py, self.birth)?;
        self.window.as_ref().ok_or_else(|| raise(py, "closed", "the window is gone"))
    }

    pub(crate) fn slice(&self, py: Python<'_>, at: u64, len: u64) -> PyResult<RemoteSlice> {
        let slice = self.window(py)?.slice(at..at.saturating_add(len));
        slice.map_err(|error| invalid(py, format!("the window: {error}")))
    }
}

#[pymethods]
impl Remote {
    /// How long it is, bytes.
    #[getter]
    fn nbytes(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.window(py)?.len())
    }

    /// The address that its transfers go to now: another than before when the best way did not lead there.
    #[getter]
    fn address(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.window(py)?.address().to_string())
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        let_go(self.window.take(), self.birth);
    }
}
