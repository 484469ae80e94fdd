//! Blocks kept in place for reading.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tranship_cache::client::{self, BlockResult};
use tranship_kv::fork::Birth;

use crate::cache::check;
use crate::error::raise;
use crate::export;
use crate::results::LoadResult;

/// Blocks kept in place; closing it, or leaving its `with`, releases them.
#[pyclass(frozen, module = "tranship")]
pub(crate) struct Lease {
    open: Mutex<Option<Arc<client::Lease>>>,
    birth: Birth,
}

impl Lease {
    pub(crate) fn new(lease: client::Lease) -> Self {
        Self { open: Mutex::new(Some(Arc::new(lease))), birth: Birth::here() }
    }

    fn with<T>(
        &self,
        py: Python<'_>,
        f: impl FnOnce(&Arc<client::Lease>) -> PyResult<T>,
    ) -> PyResult<T> {
        check(py, self.birth)?;
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let lease = open.as_ref();
        f(lease.ok_or_else(|| raise(py, "closed", "the lease was released; take another"))?)
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

    /// A block's memory, checked now and read-only: no copy. The blocks stay in place until all memory of
    /// theirs was let go of too, and no longer than the lease's `ttl`.
    fn __getitem__(&self, py: Python<'_>, index: usize) -> PyResult<Py<PyAny>> {
        self.with(py, |lease| {
            if index >= lease.len() {
                return Err(PyIndexError::new_err(format!("block {index} of {}", lease.len())));
            }
            let failed = |error: client::ReadError| raise(py, "failed", error.to_string());
            let (at, len) = lease.view(index).map_err(failed)?;
            // SAFETY: the memory is mapped, or staged, for as long as the lease is there.
            unsafe { export::memory(py, at.cast_mut(), len, false, Box::new(Arc::clone(lease))) }
        })
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        self.with(py, |lease| Ok(lease.len()))
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
