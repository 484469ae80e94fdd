//! Following what happens to a tenant's blocks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use tranship_cache::client::{Event, Subscription};
use tranship_cache::tier::Tier;
use tranship_kv::fork::Birth;

use crate::cache::{check, seconds};
use crate::error::{of_client, raise};

/// How often a wait looks whether the subscription was closed or a signal came.
const LOOK: Duration = Duration::from_millis(200);

/// What happens to the tenant's blocks, as it does: an iterator that ends when it is closed.
#[pyclass(frozen, module = "tranship")]
pub(crate) struct Events {
    open: Mutex<Option<Arc<Subscription>>>,
    birth: Birth,
}

impl Events {
    pub(crate) fn new(subscription: Subscription) -> Self {
        Self { open: Mutex::new(Some(Arc::new(subscription))), birth: Birth::here() }
    }

    fn open(&self, py: Python<'_>) -> PyResult<Option<Arc<Subscription>>> {
        check(py, self.birth)?;
        Ok(self.open.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// The next event; none when the time is over or the subscription was closed.
    fn wait<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<Duration>,
    ) -> PyResult<Option<Bound<'py, PyDict>>> {
        let began = Instant::now();
        loop {
            let Some(subscription) = self.open(py)? else { return Ok(None) };
            let left = timeout.map_or(LOOK, |timeout| timeout.saturating_sub(began.elapsed()));
            let event = py
                .detach(move || subscription.next(left.min(LOOK)))
                .map_err(|error| of_client(py, &error))?;
            if let Some(event) = event {
                return describe(py, &event).map(Some);
            }
            py.check_signals()?;
            if timeout.is_some_and(|timeout| began.elapsed() >= timeout) {
                return Ok(None);
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if self.birth.is_elsewhere() {
            std::mem::forget(self.open.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        }
    }
}

#[pymethods]
impl Events {
    /// The next event, waiting up to `timeout` seconds; None when none came.
    fn next<'py>(&self, py: Python<'py>, timeout: f64) -> PyResult<Option<Bound<'py, PyDict>>> {
        let timeout = seconds(py, "timeout", timeout)?;
        if self.open(py)?.is_none() {
            return Err(raise(py, "closed", "the subscription was closed; subscribe again"));
        }
        self.wait(py, Some(timeout))
    }

    fn __iter__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        self.wait(py, None)
    }

    /// Ends it; who iterates in another thread is through soon after. Closing twice is fine.
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

fn describe<'py>(py: Python<'py>, event: &Event) -> PyResult<Bound<'py, PyDict>> {
    let told = PyDict::new(py);
    let bytes = |bytes: &[u8]| PyBytes::new(py, bytes);
    let tier = |tier: u8| Tier::ALL.get(usize::from(tier)).map(ToString::to_string);
    match event {
        Event::Gap { from, to } => {
            told.set_item("event", "gap")?;
            told.set_item("sequence", from)?;
            told.set_item("last", to)?;
        }
        Event::Stored { sequence, identity, key, parent, position, len, tier: place } => {
            told.set_item("event", "stored")?;
            told.set_item("sequence", sequence)?;
            told.set_item("identity", bytes(identity))?;
            told.set_item("key", bytes(key.as_bytes()))?;
            told.set_item("parent", parent.as_ref().map(|parent| bytes(parent.as_bytes())))?;
            told.set_item("position", position)?;
            told.set_item("nbytes", len)?;
            told.set_item("tier", tier(*place))?;
        }
        Event::Removed { sequence, identity, key, tier: place } => {
            told.set_item("event", "removed")?;
            told.set_item("sequence", sequence)?;
            told.set_item("identity", bytes(identity))?;
            told.set_item("key", bytes(key.as_bytes()))?;
            told.set_item("tier", tier(*place))?;
        }
        Event::Cleared { sequence, identity } => {
            told.set_item("event", "cleared")?;
            told.set_item("sequence", sequence)?;
            told.set_item("identity", bytes(identity))?;
        }
    }
    Ok(told)
}
