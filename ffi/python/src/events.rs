//! Following what happens to a tenant's blocks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use tranship_cache::Key;
use tranship_cache::client::{Event, Subscription};
use tranship_kv::fork::Birth;

use crate::cache::{check, seconds};
use crate::error::{of_client, raise};
use crate::region::let_go;

/// How long a wait goes without a look at signals and at `close`.
const STEP: Duration = Duration::from_millis(100);

/// What happens to the blocks of the client's tenant, as it does. A client has one at a time: a new one replaces the
/// old.
#[pyclass(frozen, module = "tranship")]
pub(crate) struct Events {
    /// Gone once closed.
    open: Mutex<Option<Arc<Subscription>>>,
    timeout: Option<Duration>,
    birth: Birth,
}

impl Events {
    pub(crate) fn new(events: Subscription, timeout: Option<Duration>) -> Self {
        Self { open: Mutex::new(Some(Arc::new(events))), timeout, birth: Birth::here() }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Subscription>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next event by then; none when none came, or when it was closed meanwhile.
    fn wait<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<Duration>,
    ) -> PyResult<Option<Bound<'py, PyDict>>> {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let Some(events) = self.lock().clone() else { return Ok(None) };
            let left = until.map_or(STEP, |it| it.saturating_duration_since(Instant::now()));
            let next = py.detach(move || {
                let next = events.next(left.min(STEP));
                drop(events);
                next
            });
            match next.map_err(|error| of_client(py, &error))? {
                Some(event) => return describe(py, &event).map(Some),
                None if left.is_zero() => return Ok(None),
                None => py.check_signals()?,
            }
        }
    }
}

#[pymethods]
impl Events {
    /// The next event, waiting up to `timeout` seconds; None when none came.
    fn next<'py>(&self, py: Python<'py>, timeout: f64) -> PyResult<Option<Bound<'py, PyDict>>> {
        check(py, self.birth)?;
        let timeout = seconds(py, "timeout", timeout)?;
        if self.lock().is_none() {
            return Err(raise(py, "closed", "the events were closed; follow them again"));
        }
        self.wait(py, Some(timeout))
    }

    fn __iter__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        check(py, self.birth)?;
        self.wait(py, self.timeout)
    }

    /// Ends it; who waits for an event is told. Closing twice is fine.
    fn close(&self, py: Python<'_>) {
        if !self.birth.is_elsewhere() {
            let open = self.lock().take();
            py.detach(|| drop(open));
        }
    }

    fn __enter__(this: Py<Self>) -> Py<Self> {
        this
    }

    #[pyo3(signature = (*_args))]
    fn __exit__(&self, py: Python<'_>, _args: &Bound<'_, pyo3::types::PyTuple>) {
        self.close(py);
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let open = self.open.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let_go(open, self.birth);
    }
}

fn tier(number: u8) -> &'static str {
    ["dram", "nvme", "object"].get(usize::from(number)).copied().unwrap_or("unknown")
}

fn describe<'py>(py: Python<'py>, event: &Event) -> PyResult<Bound<'py, PyDict>> {
    let said = PyDict::new(py);
    let bytes = |key: &Key| PyBytes::new(py, key.as_bytes());
    let of = |kind: &str, sequence: u64| {
        said.set_item("kind", kind)?;
        said.set_item("sequence", sequence)
    };
    let identity = |id: &[u8]| {
        let text: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        said.set_item("identity", text)
    };
    match event {
        Event::Gap { from, to } => {
            of("gap", *from)?;
            said.set_item("sequence_last", to)?;
        }
        Event::Stored { sequence, identity: id, key, parent, position, len, tier: place } => {
            of("stored", *sequence)?;
            identity(id)?;
            said.set_item("key", bytes(key))?;
            said.set_item("parent", parent.as_ref().map(bytes))?;
            said.set_item("position", position)?;
            said.set_item("nbytes", len)?;
            said.set_item("tier", tier(*place))?;
        }
        Event::Removed { sequence, identity: id, key, tier: place } => {
            of("removed", *sequence)?;
            identity(id)?;
            said.set_item("key", bytes(key))?;
            said.set_item("tier", tier(*place))?;
        }
        Event::Cleared { sequence, identity: id } => {
            of("cleared", *sequence)?;
            identity(id)?;
        }
    }
    Ok(said)
}
