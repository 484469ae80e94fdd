//! Memory of Rust's that Python uses in place, by the buffer protocol; by DLPack, see `dlpack`.
//!
//! The stable ABI has no slot for exporters before Python 3.11, so that a ctypes array over the bytes is the
//! exporter: whoever uses the bytes holds on to the array, and the array to their owner.

use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyMemoryView;
use tranship_kv::fork::Birth;

use crate::region::let_go;

/// Keeps exported bytes where they are.
#[pyclass(frozen, module = "tranship")]
pub(crate) struct Owner {
    keep: Mutex<Option<Box<dyn std::any::Any + Send>>>,
    birth: Birth,
}

impl Owner {
    pub(crate) fn new(keep: impl std::any::Any + Send, birth: Birth) -> Self {
        Self { keep: Mutex::new(Some(Box::new(keep))), birth }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let keep = self.keep.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let_go(keep, self.birth);
    }
}

/// A view of bytes, which keeps their owner.
pub(crate) fn view<'py>(
    py: Python<'py>,
    (at, len): (*mut u8, usize),
    writable: bool,
    owner: Py<PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let ctypes = py.import("ctypes")?;
    let kind = ctypes.getattr("c_ubyte")?.mul(len)?;
    let array = kind.call_method1("from_address", (at.expose_provenance(),))?;
    array.setattr("owner", owner)?;
    let view = PyMemoryView::from(&array)?.call_method1("cast", ("B",))?;
    if writable { Ok(view) } else { view.call_method0("toreadonly") }
}
