//! Transfers under way, and how they end.

use std::future::Future;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::task::{Context, Wake, Waker};
use std::time::Instant;

use pyo3::prelude::*;
use tranship_kv::fork::Birth;
use tranship_transport::{Notifier, Outcome as End};

use crate::cache::{check, seconds};
use crate::error::raise;
use crate::region::let_go;

/// How a transfer ended.
#[pyclass(frozen, eq, module = "tranship")]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome(pub(crate) End);

#[pymethods]
impl Outcome {
    /// Whether all bytes are where they belong.
    #[getter]
    fn done(&self) -> bool {
        self.0.is_done()
    }

    /// "done", "rejected" (no byte moved), "fenced" (some may have moved, no more can) or "lost" (without proof
    /// that no more will).
    #[getter]
    fn end(&self) -> &'static str {
        match self.0 {
            End::Done => "done",
            End::Rejected(_) => "rejected",
            End::Fenced(_) => "fenced",
            End::Lost(_) => "lost",
        }
    }

    /// Why it is not done.
    #[getter]
    fn reason(&self) -> Option<&'static str> {
        self.0.reason().map(tranship_transport::Reason::text)
    }

    /// Whether the memory on this side may be used for something else; for what is lost `Transfer.fenced()`
    /// says when.
    #[getter]
    fn pages_are_free(&self) -> bool {
        self.0.pages_are_free()
    }

    fn __repr__(&self) -> String {
        format!("Outcome({})", self.0)
    }
}

/// Who is told of an end.
#[derive(Default)]
struct Told {
    ended: Mutex<bool>,
    changed: Condvar,
    /// Made for those who ask for it.
    notifier: OnceLock<Notifier>,
}

impl Told {
    fn ended(&self) -> std::sync::MutexGuard<'_, bool> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Told {
    fn wake(self: Arc<Self>) {
        let mut ended = self.ended();
        *ended = true;
        self.changed.notify_all();
        if let Some(notifier) = self.notifier.get() {
            notifier.ring();
        }
    }
}

/// A transfer under way. It goes on when it is let go of.
#[pyclass(frozen, module = "tranship")]
pub(crate) struct Transfer {
    /// Gone only while it is dropped.
    transfer: Option<tranship_transport::Transfer>,
    told: Arc<Told>,
    birth: Birth,
}

impl Transfer {
    pub(crate) fn new(mut transfer: tranship_transport::Transfer, birth: Birth) -> Self {
        let told = Arc::new(Told::default());
        let waker = Waker::from(Arc::clone(&told));
        if Pin::new(&mut transfer).poll(&mut Context::from_waker(&waker)).is_ready() {
            *told.ended() = true;
        }
        Self { transfer: Some(transfer), told, birth }
    }

    fn transfer(&self, py: Python<'_>) -> PyResult<&tranship_transport::Transfer> {
        check(py, self.birth)?;
        self.transfer.as_ref().ok_or_else(|| raise(py, "closed", "the transfer is gone"))
    }
}

#[pymethods]
impl Transfer {
    /// How it ended; None while it is under way.
    #[getter]
    fn outcome(&self, py: Python<'_>) -> PyResult<Option<Outcome>> {
        Ok(self.transfer(py)?.outcome().map(Outcome))
    }

    /// Whether it has ended, well or not.
    fn done(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.transfer(py)?.outcome().is_some())
    }

    /// Waits for its end, which comes by its deadline; None when it has not ended after `timeout` seconds.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Outcome>> {
        let transfer = self.transfer(py)?;
        let Some(timeout) = timeout else {
            return Ok(Some(Outcome(py.detach(|| transfer.wait()))));
        };
        let timeout = seconds(py, "timeout", timeout)?;
        py.detach(|| {
            let until = Instant::now().checked_add(timeout);
            let mut ended = self.told.ended();
            while !*ended {
                let left = until.map_or(timeout, |it| it.saturating_duration_since(Instant::now()));
                if left.is_zero() {
                    break;
                }
                let waited = self.told.changed.wait_timeout(ended, left);
                ended = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        });
        Ok(transfer.outcome().map(Outcome))
    }

    /// Asks that it end now. It has not ended when this returns.
    fn cancel(&self, py: Python<'_>) -> PyResult<()> {
        let transfer = self.transfer(py)?;
        py.detach(|| transfer.cancel());
        Ok(())
    }

    /// Whether the memory on this side may be used for something else.
    fn fenced(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.transfer(py)?.fenced())
    }

    /// The descriptor that is readable once it has ended; good for as long as the transfer is held.
    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        check(py, self.birth)?;
        let ended = self.told.ended();
        let notifier = match self.told.notifier.get() {
            Some(notifier) => notifier,
            None => {
                let made =
                    Notifier::new().map_err(|error| raise(py, "failed", error.to_string()))?;
                if *ended {
                    made.ring();
                }
                self.told.notifier.get_or_init(|| made)
            }
        };
        Ok(notifier.as_fd().as_raw_fd())
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("{:?}", self.transfer(py)?))
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let_go(self.transfer.take(), self.birth);
    }
}
