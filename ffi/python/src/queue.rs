//! Jobs on threads that never take the interpreter lock.

use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use tranship_kv::fork::Birth;
use tranship_kv::{self as kv, Ended};

use crate::cache::{Cache, Keep, check, seconds, to_load, to_store};
use crate::error::{invalid, of_client, of_queue, raise};
use crate::keys::links;
use crate::memory::Selected;
use crate::results::{Loaded, Stored};

/// Loads and stores as jobs; their ends are drained in batches and announced on a descriptor.
#[pyclass(frozen, module = "tranship")]
pub(crate) struct Queue {
    queue: Option<kv::Queue>,
    cache: Py<Cache>,
    /// The memory of jobs that were not drained yet.
    kept: Mutex<HashMap<u64, Keep>>,
    birth: Birth,
}

impl Queue {
    fn queue(&self, py: Python<'_>) -> PyResult<&kv::Queue> {
        check(py, self.birth)?;
        self.queue.as_ref().ok_or_else(|| raise(py, "closed", "the queue is closed"))
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<u64, Keep>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn taken(&self, done: kv::Done) -> Done {
        // Let go of after the lock: it may run code of the object that lent the memory.
        let keep = self.kept().remove(&done.job);
        drop(keep);
        Done(done)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let Some(queue) = self.queue.take() else { return };
        if self.birth.is_elsewhere() {
            std::mem::forget(queue);
        } else {
            // Its threads may wait for the daemon, up to their deadlines.
            Python::attach(|py| py.detach(|| drop(queue)));
        }
    }
}

#[pymethods]
impl Queue {
    #[new]
    #[pyo3(signature = (cache, *, threads=2))]
    fn new(py: Python<'_>, cache: Py<Cache>, threads: usize) -> PyResult<Self> {
        cache.get().open(py)?;
        let queue =
            kv::Queue::new(threads).map_err(|error| raise(py, "failed", error.to_string()))?;
        Ok(Self { queue: Some(queue), cache, kept: Mutex::default(), birth: Birth::here() })
    }

    /// Loads blocks; the job's number. `wait` as for Cache.load.
    #[pyo3(signature = (keys, into, *, wait=0.0))]
    fn load(
        &self,
        py: Python<'_>,
        keys: &Bound<'_, PyAny>,
        into: &Bound<'_, PyAny>,
        wait: f64,
    ) -> PyResult<u64> {
        let queue = self.queue(py)?;
        let (wanted, keep) = to_load(keys, into)?;
        let cache = self.cache.get().open(py)?;
        let wait = seconds(py, "wait", wait)?;
        let mut kept = self.kept();
        let job = queue.load(&cache, wanted, wait).map_err(|error| of_queue(py, error))?;
        kept.insert(job, keep);
        Ok(job)
    }

    /// Stores blocks; the job's number.
    #[pyo3(signature = (keys, pages, *, ttl=None))]
    fn store(
        &self,
        py: Python<'_>,
        keys: &Bound<'_, PyAny>,
        pages: &Bound<'_, PyAny>,
        ttl: Option<f64>,
    ) -> PyResult<u64> {
        let queue = self.queue(py)?;
        let (given, keep) = to_store(keys, pages)?;
        let cache = self.cache.get().open(py)?;
        let ttl = ttl.map(|ttl| seconds(py, "ttl", ttl)).transpose()?;
        let mut kept = self.kept();
        let job = queue.store(&cache, given, ttl).map_err(|error| of_queue(py, error))?;
        kept.insert(job, keep);
        Ok(job)
    }

    /// Begins a store whose layers are told one by one, as they are computed.
    fn begin(
        &self,
        py: Python<'_>,
        keys: &Bound<'_, PyAny>,
        pages: &Bound<'_, Selected>,
    ) -> PyResult<Filling> {
        let queue = self.queue(py)?;
        let (links, selected) = (links(keys)?, pages.get());
        if links.len() != selected.ids.len() {
            let (keys, pages) = (links.len(), selected.ids.len());
            return Err(invalid(py, format!("{keys} keys and {pages} pages; give one page a key")));
        }
        let cache = self.cache.get().open(py)?;
        let blocks = links.into_iter().zip(selected.ids.iter().copied()).collect();
        let filling = queue.begin(&cache, &selected.pages, blocks);
        let filling = filling.map_err(|error| invalid(py, error))?;
        let layers = selected.pages.layers();
        Ok(Filling { open: Mutex::new(Some(filling)), layers, birth: self.birth })
    }

    /// The descriptor that is readable when there is something to drain.
    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        Ok(self.queue(py)?.fd().as_raw_fd())
    }

    /// Takes all jobs that have ended.
    fn drain(&self, py: Python<'_>) -> PyResult<Vec<Done>> {
        let ended = self.queue(py)?.drain();
        Ok(ended.into_iter().map(|done| self.taken(done)).collect())
    }

    /// Waits up to `timeout` seconds for one job and takes it; None when it has not ended by then.
    fn wait(&self, py: Python<'_>, job: u64, timeout: f64) -> PyResult<Option<Done>> {
        let queue = self.queue(py)?;
        let timeout = seconds(py, "timeout", timeout)?;
        let done = py.detach(|| queue.wait(job, timeout));
        Ok(done.map(|done| self.taken(done)))
    }

    /// Takes no more jobs and waits for those under way. What has ended can still be drained.
    fn close(&self, py: Python<'_>) {
        if let Some(queue) = &self.queue
            && !self.birth.is_elsewhere()
        {
            py.detach(|| queue.close());
        }
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.queue(py)?.len())
    }

    fn __enter__(this: Py<Self>) -> Py<Self> {
        this
    }

    #[pyo3(signature = (*_args))]
    fn __exit__(&self, py: Python<'_>, _args: &Bound<'_, pyo3::types::PyTuple>) {
        self.close(py);
    }
}

/// A store whose layers are told one by one.
#[pyclass(frozen, module = "tranship")]
pub(crate) struct Filling {
    open: Mutex<Option<kv::Filling>>,
    layers: usize,
    birth: Birth,
}

#[pymethods]
impl Filling {
    /// Copies the bytes of one layer, soon: they must not change before the job was drained.
    fn layer(&self, py: Python<'_>, layer: usize) -> PyResult<()> {
        check(py, self.birth)?;
        if layer >= self.layers {
            return Err(invalid(py, format!("layer {layer} of {}", self.layers)));
        }
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let closed = || raise(py, "closed", "this store was finished");
        open.as_ref().ok_or_else(closed)?.layer(layer);
        Ok(())
    }

    /// All layers were told: the job's number.
    fn finish(&self, py: Python<'_>) -> PyResult<u64> {
        check(py, self.birth)?;
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        let closed = || raise(py, "closed", "this store was finished");
        Ok(open.ok_or_else(closed)?.finish())
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        if self.birth.is_elsewhere() {
            std::mem::forget(self.open.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        }
    }
}

/// A job that has ended.
#[pyclass(frozen, module = "tranship")]
pub(crate) struct Done(kv::Done);

#[pymethods]
impl Done {
    #[getter]
    fn job(&self) -> u64 {
        self.0.job
    }

    /// The results of a load; None for other jobs and for one that failed.
    #[getter]
    fn loaded(&self) -> Option<Loaded> {
        match &self.0.ended {
            Ended::Loaded(results) => Some(Loaded::of(results.clone())),
            _ => None,
        }
    }

    /// The results of a store; None for other jobs and for one that failed.
    #[getter]
    fn stored(&self) -> Option<Stored> {
        match &self.0.ended {
            Ended::Stored(results) => Some(Stored(results.clone())),
            _ => None,
        }
    }

    /// Why the job failed as a whole; None when it did not.
    #[getter]
    fn error(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        match &self.0.ended {
            Ended::Failed(error) => Some(of_client(py, error).into_value(py).into_any()),
            Ended::Closed => {
                let error = raise(py, "closed", "the queue was closed before the job's turn came");
                Some(error.into_value(py).into_any())
            }
            Ended::Panicked(panic) => {
                let text = format!("a defect of tranship, please report it: {panic}");
                Some(raise(py, "failed", text).into_value(py).into_any())
            }
            _ => None,
        }
    }

    /// Bytes of the blocks that are ready or stored.
    #[getter]
    fn nbytes(&self) -> u64 {
        self.0.bytes
    }

    /// From submission to end.
    #[getter]
    fn seconds(&self) -> f64 {
        self.0.elapsed.as_secs_f64()
    }
}
