//! The connection, and what can be asked about the blocks of one identity.

use std::sync::RwLock;
use std::time::Duration;

use pyo3::prelude::*;
use tranship_cache::client;
use tranship_cache::{Key, Link};
use tranship_kv::fork::Birth;
use tranship_kv::guard::Miss;
use tranship_kv::{Dial, Guard as Breaker};
use tranship_transport::memory::Spans;

use crate::error::{invalid, of_client, of_dial, raise};
use crate::events::Events;
use crate::identity::Identity;
use crate::keys::{Keys, links};
use crate::lease::Lease;
use crate::memory::blocks;
use crate::results::{Hit, Loaded, Stored, present};
use crate::room::{self, Room};

/// Connects to a daemon.
#[pyfunction]
#[pyo3(signature = (address=None, *, identity=None, tenant="default", token="", secret=None, name=None,
    timeout=5.0))]
#[expect(clippy::too_many_arguments, reason = "keywords, in Python")]
pub(crate) fn connect(
    py: Python<'_>,
    address: Option<String>,
    identity: Option<&Bound<'_, Identity>>,
    tenant: &str,
    token: &str,
    secret: Option<String>,
    name: Option<String>,
    timeout: f64,
) -> PyResult<Cache> {
    let dial = Dial {
        address,
        tenant: tenant.into(),
        tenant_token: token.into(),
        secret,
        name,
        timeout: seconds(py, "timeout", timeout)?,
    };
    let client = py.detach(|| dial.connect()).map_err(|error| of_dial(py, &error))?;
    let identity = match identity {
        Some(identity) => identity.get().0.clone(),
        None => Identity::nameless(),
    };
    Ok(Cache::new(client.cache(identity)))
}

/// The blocks of one identity, as one client sees them. Safe to share between threads.
#[pyclass(frozen, module = "tranship")]
pub(crate) struct Cache {
    /// Gone once closed.
    open: RwLock<Option<client::Cache>>,
    birth: Birth,
}

impl Cache {
    fn new(cache: client::Cache) -> Self {
        Self { open: RwLock::new(Some(cache)), birth: Birth::here() }
    }

    /// The cache, in the process it was opened in and until it is closed.
    pub(crate) fn open(&self, py: Python<'_>) -> PyResult<client::Cache> {
        check(py, self.birth)?;
        let open = self.open.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        open.clone().ok_or_else(|| raise(py, "closed", "the cache was closed; connect again"))
    }

    fn ask<T: Send>(
        &self,
        py: Python<'_>,
        f: impl FnOnce(&client::Cache) -> Result<T, client::Error> + Send,
    ) -> PyResult<T> {
        let cache = self.open(py)?;
        py.detach(move || f(&cache)).map_err(|error| of_client(py, &error))
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        if self.birth.is_elsewhere() {
            // The threads and locks behind it belong to the parent.
            let open = self.open.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
            std::mem::forget(open.take());
        }
    }
}

#[pymethods]
impl Cache {
    /// Where the daemon is.
    #[getter]
    fn address(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.open(py)?.client().address().to_string())
    }

    /// The identity of the blocks.
    #[getter]
    fn identity(&self, py: Python<'_>) -> PyResult<Identity> {
        Ok(Identity(self.open(py)?.identity().clone()))
    }

    /// The blocks of another identity, over the same connection.
    fn with_identity(&self, py: Python<'_>, identity: &Bound<'_, Identity>) -> PyResult<Self> {
        Ok(Self::new(self.open(py)?.client().cache(identity.get().0.clone())))
    }

    /// Finds the longest prefix of a chain that can be loaded now. Does not count as a use.
    fn lookup(&self, py: Python<'_>, keys: &Bound<'_, PyAny>) -> PyResult<Hit> {
        let links = links(keys)?;
        let found = self.ask(py, |cache| cache.lookup(&plain(&links)))?;
        Ok(Hit { found, keys: Keys(links) })
    }

    /// Loads blocks, one into each memory, waiting up to `wait` seconds for those that are being filled or
    /// come up from a tier below.
    #[pyo3(signature = (keys, into, *, wait=0.0))]
    fn load(
        &self,
        py: Python<'_>,
        keys: &Bound<'_, PyAny>,
        into: &Bound<'_, PyAny>,
        wait: f64,
    ) -> PyResult<Loaded> {
        let (wanted, _keep) = to_load(keys, into)?;
        let wait = seconds(py, "wait", wait)?;
        let results = self.ask(py, |cache| tranship_kv::load(cache, &wanted, wait))?;
        Ok(Loaded::of(results))
    }

    /// Stores blocks, one from each memory; with `ttl` they live no longer than so many seconds.
    #[pyo3(signature = (keys, pages, *, ttl=None))]
    fn store(
        &self,
        py: Python<'_>,
        keys: &Bound<'_, PyAny>,
        pages: &Bound<'_, PyAny>,
        ttl: Option<f64>,
    ) -> PyResult<Stored> {
        let (given, _keep) = to_store(keys, pages)?;
        let ttl = ttl.map(|ttl| seconds(py, "ttl", ttl)).transpose()?;
        self.ask(py, |cache| tranship_kv::store(cache, &given, ttl)).map(Stored)
    }

    /// Asks for room for blocks of so many bytes each, to be filled in place; with `ttl` they live no longer than so
    /// many seconds once committed. A room a block, or why there is none.
    #[pyo3(signature = (keys, nbytes, *, ttl=None))]
    fn reserve(
        &self,
        py: Python<'_>,
        keys: &Bound<'_, PyAny>,
        nbytes: &Bound<'_, PyAny>,
        ttl: Option<f64>,
    ) -> PyResult<Vec<Py<PyAny>>> {
        let links = links(keys)?;
        let lens: Vec<u64> = match nbytes.extract::<u64>() {
            Ok(len) => vec![len; links.len()],
            Err(_) => nbytes.extract()?,
        };
        if lens.len() != links.len() {
            let (keys, lens) = (links.len(), lens.len());
            return Err(invalid(
                py,
                format!("{keys} keys and {lens} lengths; give one length a key"),
            ));
        }
        let wanted: Vec<_> = links.into_iter().zip(lens).collect();
        let ttl = ttl.map(|ttl| seconds(py, "ttl", ttl)).transpose()?;
        let grants = self.ask(py, |cache| cache.reserve_for(&wanted, ttl))?;
        grants.into_iter().map(|grant| room::answer(py, grant, self.birth)).collect()
    }

    /// Makes filled blocks readable, and closes their rooms; one result a room.
    fn commit(&self, py: Python<'_>, rooms: Vec<Bound<'_, Room>>) -> PyResult<Stored> {
        let cache = self.open(py)?;
        let stored = room::commit(py, &cache, &rooms)?;
        stored.map(Stored).map_err(|error| of_client(py, &error))
    }

    /// Follows what happens to the tenant's blocks, from event number `start` on or from now: an iterator of
    /// dicts, which ends when nothing came for `timeout` seconds.
    #[pyo3(signature = (start=None, *, timeout=None))]
    fn events(&self, py: Python<'_>, start: Option<u64>, timeout: Option<f64>) -> PyResult<Events> {
        let timeout = timeout.map(|timeout| seconds(py, "timeout", timeout)).transpose()?;
        let events = self.ask(py, |cache| cache.subscribe(start))?;
        Ok(Events::new(events, timeout))
    }

    /// Keeps blocks in place for reading, until the lease is closed or `ttl` seconds are over.
    #[pyo3(signature = (keys, *, wait=0.0, ttl=30.0))]
    fn lease(
        &self,
        py: Python<'_>,
        keys: &Bound<'_, PyAny>,
        wait: f64,
        ttl: f64,
    ) -> PyResult<Lease> {
        let keys = plain(&links(keys)?);
        let (wait, ttl) = (seconds(py, "wait", wait)?, seconds(py, "ttl", ttl)?);
        let lease = self.ask(py, |cache| cache.lease_for(&keys, wait, ttl))?;
        Ok(Lease::new(lease))
    }

    /// Keeps blocks from being evicted until they are unpinned; how many were pinned.
    fn pin(&self, py: Python<'_>, keys: &Bound<'_, PyAny>) -> PyResult<u64> {
        let keys = plain(&links(keys)?);
        self.ask(py, |cache| cache.pin(&keys))
    }

    /// Takes pins off; how many.
    fn unpin(&self, py: Python<'_>, keys: &Bound<'_, PyAny>) -> PyResult<u64> {
        let keys = plain(&links(keys)?);
        self.ask(py, |cache| cache.unpin(&keys))
    }

    /// Has blocks of tiers below brought to memory; how many are there or on their way.
    fn prefetch(&self, py: Python<'_>, keys: &Bound<'_, PyAny>) -> PyResult<u64> {
        let keys = plain(&links(keys)?);
        self.ask(py, |cache| cache.prefetch(&keys))
    }

    /// Removes blocks, pinned or not; how many.
    fn remove(&self, py: Python<'_>, keys: &Bound<'_, PyAny>) -> PyResult<u64> {
        let keys = plain(&links(keys)?);
        self.ask(py, |cache| cache.remove(&keys))
    }

    /// Has blocks written to the fastest tier below memory and waits up to `wait` seconds until they are
    /// safe there; one flag a block.
    fn persist(&self, py: Python<'_>, keys: &Bound<'_, PyAny>, wait: f64) -> PyResult<Vec<bool>> {
        let keys = plain(&links(keys)?);
        let wait = seconds(py, "wait", wait)?;
        self.ask(py, |cache| cache.persist(&keys, wait))
    }

    /// The tenant's statistics, a JSON document.
    fn stats_json(&self, py: Python<'_>) -> PyResult<String> {
        self.ask(py, |cache| cache.client().stats())
    }

    /// Asks for a sign of life; how long it took, seconds.
    fn ping(&self, py: Python<'_>) -> PyResult<f64> {
        self.ask(py, |cache| cache.client().ping()).map(|span| span.as_secs_f64())
    }

    /// Whether blocks are read and filled in place, in a mapping of the daemon's memory.
    fn is_mapped(&self, py: Python<'_>) -> PyResult<bool> {
        self.ask(py, |cache| cache.client().is_mapped())
    }

    /// Lets go of the connection. Closing twice is fine.
    fn close(&self, py: Python<'_>) {
        if !self.birth.is_elsewhere() {
            let open = self.open.write().unwrap_or_else(std::sync::PoisonError::into_inner).take();
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

    fn __repr__(&self, py: Python<'_>) -> String {
        match self.open(py) {
            Ok(cache) => format!("{cache:?}"),
            Err(error) => format!("Cache({})", error.value(py)),
        }
    }
}

/// A cache for an engine's hot path: a daemon that is gone or hangs costs misses, not time.
#[pyclass(frozen, module = "tranship")]
pub(crate) struct Guard {
    cache: Py<Cache>,
    breaker: Breaker,
}

#[pymethods]
impl Guard {
    #[new]
    fn new(cache: Py<Cache>) -> Self {
        Self { cache, breaker: Breaker::new() }
    }

    /// How many keys, from the first, can be loaded; 0 when the daemon cannot be asked.
    fn lookup(&self, py: Python<'_>, keys: &Bound<'_, PyAny>) -> PyResult<usize> {
        let keys = plain(&links(keys)?);
        let found = self.ask(py, |cache| cache.lookup(&keys))?;
        Ok(found.map_or(0, |found| found.prefix))
    }

    /// Which keys can be loaded; none when the daemon cannot be asked.
    fn present(&self, py: Python<'_>, keys: &Bound<'_, PyAny>) -> PyResult<Vec<bool>> {
        let keys = plain(&links(keys)?);
        let found = self.ask(py, |cache| cache.lookup(&keys))?;
        Ok(found.map_or_else(|| vec![false; keys.len()], |found| present(&found)))
    }

    /// Loads blocks; None when the daemon cannot be asked: all are misses.
    #[pyo3(signature = (keys, into, *, wait=0.0))]
    fn load(
        &self,
        py: Python<'_>,
        keys: &Bound<'_, PyAny>,
        into: &Bound<'_, PyAny>,
        wait: f64,
    ) -> PyResult<Option<Loaded>> {
        let (wanted, _keep) = to_load(keys, into)?;
        let wait = seconds(py, "wait", wait)?;
        let loaded = self.ask(py, |cache| tranship_kv::load(cache, &wanted, wait))?;
        Ok(loaded.map(Loaded::of))
    }

    /// Stores blocks; None when the daemon cannot be asked: none is there for sure.
    #[pyo3(signature = (keys, pages, *, ttl=None))]
    fn store(
        &self,
        py: Python<'_>,
        keys: &Bound<'_, PyAny>,
        pages: &Bound<'_, PyAny>,
        ttl: Option<f64>,
    ) -> PyResult<Option<Stored>> {
        let (given, _keep) = to_store(keys, pages)?;
        let ttl = ttl.map(|ttl| seconds(py, "ttl", ttl)).transpose()?;
        let stored = self.ask(py, |cache| tranship_kv::store(cache, &given, ttl))?;
        Ok(stored.map(Stored))
    }

    /// Calls that failed, and calls that were not tried.
    #[getter]
    fn counts(&self) -> (u64, u64) {
        let counts = self.breaker.counts();
        (counts.failures, counts.skipped)
    }
}

impl Guard {
    /// Asks unless a failure was too short ago; the first failure after a success is warned of by
    /// Python's own logging.
    fn ask<T: Send>(
        &self,
        py: Python<'_>,
        f: impl FnOnce(&client::Cache) -> Result<T, client::Error> + Send,
    ) -> PyResult<Option<T>> {
        let cache = self.cache.get().open(py)?;
        match py.detach(|| self.breaker.call(|| f(&cache).map_err(Box::new))) {
            Ok(answer) => return Ok(Some(answer)),
            Err(Miss::Failed { error, first: true }) => {
                let logger = py.import("logging")?.call_method1("getLogger", ("tranship",))?;
                let text = format!("{error}; everything is a miss until it is back");
                logger.call_method1("warning", (text,))?;
            }
            Err(_) => {}
        }
        Ok(None)
    }
}

/// Refuses a handle in a forked child.
pub(crate) fn check(py: Python<'_>, birth: Birth) -> PyResult<()> {
    if birth.is_elsewhere() {
        let text = "this handle was opened before the process forked; connect again in the child";
        return Err(raise(py, "forked", text));
    }
    Ok(())
}

pub(crate) fn plain(links: &[Link]) -> Vec<Key> {
    links.iter().map(|link| link.key).collect()
}

/// Kept until the memory is not used any more.
pub(crate) type Keep = Vec<Box<dyn std::any::Any + Send + Sync>>;

pub(crate) fn to_load(
    keys: &Bound<'_, PyAny>,
    into: &Bound<'_, PyAny>,
) -> PyResult<(Vec<(Key, Spans)>, Keep)> {
    let links = links(keys)?;
    let into = blocks(into, links.len(), true)?;
    Ok((links.iter().map(|link| link.key).zip(into.spans).collect(), into.keep))
}

pub(crate) fn to_store(
    keys: &Bound<'_, PyAny>,
    pages: &Bound<'_, PyAny>,
) -> PyResult<(Vec<(Link, Spans)>, Keep)> {
    let links = links(keys)?;
    let pages = blocks(pages, links.len(), false)?;
    Ok((links.into_iter().zip(pages.spans).collect(), pages.keep))
}

pub(crate) fn seconds(py: Python<'_>, name: &str, value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value)
        .map_err(|_| invalid(py, format!("{name} of {value} seconds; give a number from 0 on")))
}
