//! Engines: what moves bytes between memories of this process and of its peers.

use std::sync::{PoisonError, RwLock};

use pyo3::prelude::*;
use tranship_kv::fork::Birth;
use tranship_transport::fabric::{shm, tcp};
use tranship_transport::{Builder, HostMemory, Memory, Submission};

use crate::cache::{check, seconds};
use crate::error::{invalid, of_peer, raise};
use crate::memory;
use crate::region::{self, Region};
use crate::transfer::{Outcome, Transfer};
use crate::window::{self, Remote};

/// Moves bytes between memories of this process and of its peers. Safe to share between threads.
#[pyclass(frozen, module = "tranship")]
pub(crate) struct Engine {
    /// Gone once closed.
    open: RwLock<Option<tranship_transport::Engine>>,
    birth: Birth,
}

impl Engine {
    /// The engine, in the process it was opened in and until it is closed.
    fn open(&self, py: Python<'_>) -> PyResult<tranship_transport::Engine> {
        check(py, self.birth)?;
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.clone().ok_or_else(|| raise(py, "closed", "the engine was closed; open another"))
    }

    /// A transfer between a local slice and the bytes of a window from `at` on.
    fn describe<'a>(
        py: Python<'_>,
        engine: &'a tranship_transport::Engine,
        way: Way,
        local: &Bound<'_, PyAny>,
        (remote, at): (&Remote, u64),
        timeout: Option<f64>,
    ) -> PyResult<Submission<'a>> {
        let local = region::slice(local, way == Way::Read)?;
        let remote = remote.slice(py, at, local.len())?;
        let submission = match way {
            Way::Read => engine.read(remote, local),
            Way::Write => engine.write(local, remote),
        };
        Ok(match timeout {
            Some(timeout) => submission.deadline(seconds(py, "timeout", timeout)?),
            None => submission,
        })
    }

    fn wait(
        &self,
        py: Python<'_>,
        way: Way,
        local: &Bound<'_, PyAny>,
        remote: (&Remote, u64),
        timeout: Option<f64>,
    ) -> PyResult<Outcome> {
        let engine = self.open(py)?;
        let submission = Self::describe(py, &engine, way, local, remote, timeout)?;
        Ok(Outcome(py.detach(|| submission.wait())))
    }

    fn submit(
        &self,
        py: Python<'_>,
        way: Way,
        local: &Bound<'_, PyAny>,
        remote: (&Remote, u64),
        timeout: Option<f64>,
    ) -> PyResult<Transfer> {
        let engine = self.open(py)?;
        let submission = Self::describe(py, &engine, way, local, remote, timeout)?;
        let submitted = py.detach(|| submission.submit());
        let transfer = submitted.map_err(|error| raise(py, "full", error.to_string()))?;
        Ok(Transfer::new(transfer, self.birth))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Read,
    Write,
}

fn builder(
    py: Python<'_>,
    fabrics: &str,
    shm_path: Option<&str>,
    tcp_listen: Option<&str>,
    tcp_advertise: Option<&str>,
    tcp_secret: Option<&str>,
    deadline: Option<f64>,
) -> PyResult<Builder> {
    let mut builder = tranship_transport::Engine::builder();
    for fabric in fabrics.split(',').map(str::trim) {
        builder = match fabric {
            "shm" => {
                let config = shm::Config::new();
                builder.fabric(match shm_path {
                    Some(path) => config.listen_at(path),
                    None => config,
                })
            }
            "tcp" => {
                let mut config = tcp::Config::new();
                if let Some(endpoint) = tcp_listen {
                    config = config.listen(endpoint);
                }
                if let Some(endpoint) = tcp_advertise {
                    config = config.advertise(endpoint);
                }
                if let Some(secret) = tcp_secret {
                    config = config.token(secret);
                }
                builder.fabric(config)
            }
            other => {
                let text = format!("fabric {other:?}: there are shm and tcp");
                return Err(raise(py, "unsupported", text));
            }
        };
    }
    match deadline {
        Some(deadline) => Ok(builder.deadline(seconds(py, "deadline", deadline)?)),
        None => Ok(builder),
    }
}

#[pymethods]
impl Engine {
    /// Opens an engine; `fabrics` names the best first.
    #[new]
    #[pyo3(signature = (fabrics="shm,tcp", *, shm_path=None, tcp_listen=None, tcp_advertise=None,
        tcp_secret=None, deadline=None))]
    fn new(
        py: Python<'_>,
        fabrics: &str,
        shm_path: Option<&str>,
        tcp_listen: Option<&str>,
        tcp_advertise: Option<&str>,
        tcp_secret: Option<&str>,
        deadline: Option<f64>,
    ) -> PyResult<Self> {
        let builder =
            builder(py, fabrics, shm_path, tcp_listen, tcp_advertise, tcp_secret, deadline)?;
        let built = py.detach(|| builder.build());
        let engine = built.map_err(|error| raise(py, "failed", error.to_string()))?;
        Ok(Self { open: RwLock::new(Some(engine)), birth: Birth::here() })
    }

    /// Where peers reach it, one address a fabric, the best first.
    #[getter]
    fn addresses(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        Ok(self.open(py)?.addresses().iter().map(ToString::to_string).collect())
    }

    /// Allocates memory that peers of this host reach too, and registers it.
    #[pyo3(signature = (nbytes, *, name=None, huge_pages=false, prefault=false))]
    fn alloc(
        &self,
        py: Python<'_>,
        nbytes: usize,
        name: Option<&str>,
        huge_pages: bool,
        prefault: bool,
    ) -> PyResult<Region> {
        let engine = self.open(py)?;
        let mut memory = HostMemory::new(nbytes);
        if let Some(name) = name {
            memory = memory.name(name);
        }
        if huge_pages {
            memory = memory.huge_pages();
        }
        if prefault {
            memory = memory.prefault();
        }
        let region = py.detach(|| engine.alloc(memory));
        let region = region.map_err(|error| raise(py, "failed", error.to_string()))?;
        Ok(Region::new(region, self.birth, true))
    }

    /// Registers the memory of a contiguous buffer or tensor, which is held on to. With `writable=False` it is
    /// only read.
    #[pyo3(signature = (memory, *, writable=true))]
    fn register(
        &self,
        py: Python<'_>,
        memory: &Bound<'_, PyAny>,
        writable: bool,
    ) -> PyResult<Region> {
        let engine = self.open(py)?;
        let (at, len, keep) = memory::bytes(memory, writable)?;
        let at = if at.is_null() { std::ptr::dangling_mut() } else { at };
        // SAFETY: the object lent as many bytes and is kept until the memory is dropped. Memory that was lent
        // for reading alone is never the destination of a transfer, nor open to writes of peers: `Region` sees
        // to it. Python has no references of Rust's to them.
        let memory = unsafe { Memory::foreign(at, len, Box::new(region::Kept::new(keep))) };
        let region = py.detach(|| engine.register(memory));
        let region = region.map_err(|error| raise(py, "failed", error.to_string()))?;
        Ok(Region::new(region, self.birth, writable))
    }

    /// Makes the window that a descriptor is of usable here; connects with the first transfer.
    #[pyo3(name = "open")]
    fn open_window(&self, py: Python<'_>, descriptor: &[u8]) -> PyResult<Remote> {
        let engine = self.open(py)?;
        let descriptor = window::descriptor(py, descriptor)?;
        let opened = py.detach(|| engine.open(&descriptor));
        Ok(Remote::new(opened.map_err(|error| of_peer(py, &error))?, self.birth))
    }

    /// Gets the bytes of a window, from `at` on, into a region, and waits for the end.
    #[pyo3(signature = (into, remote, *, at=0, timeout=None))]
    fn read(
        &self,
        py: Python<'_>,
        into: &Bound<'_, PyAny>,
        remote: &Remote,
        at: u64,
        timeout: Option<f64>,
    ) -> PyResult<Outcome> {
        self.wait(py, Way::Read, into, (remote, at), timeout)
    }

    /// Puts the bytes of a region into a window, from `at` on, and waits for the end.
    #[pyo3(signature = (from_, remote, *, at=0, timeout=None))]
    fn write(
        &self,
        py: Python<'_>,
        from_: &Bound<'_, PyAny>,
        remote: &Remote,
        at: u64,
        timeout: Option<f64>,
    ) -> PyResult<Outcome> {
        self.wait(py, Way::Write, from_, (remote, at), timeout)
    }

    /// Starts what `read` does.
    #[pyo3(signature = (into, remote, *, at=0, timeout=None))]
    fn submit_read(
        &self,
        py: Python<'_>,
        into: &Bound<'_, PyAny>,
        remote: &Remote,
        at: u64,
        timeout: Option<f64>,
    ) -> PyResult<Transfer> {
        self.submit(py, Way::Read, into, (remote, at), timeout)
    }

    /// Starts what `write` does.
    #[pyo3(signature = (from_, remote, *, at=0, timeout=None))]
    fn submit_write(
        &self,
        py: Python<'_>,
        from_: &Bound<'_, PyAny>,
        remote: &Remote,
        at: u64,
        timeout: Option<f64>,
    ) -> PyResult<Transfer> {
        self.submit(py, Way::Write, from_, (remote, at), timeout)
    }

    /// Refuses new work, ends what is in flight, revokes its windows, and returns once no transfer can touch
    /// its memory. Closing twice is fine.
    #[pyo3(signature = (timeout=5.0))]
    fn close(&self, py: Python<'_>, timeout: f64) -> PyResult<()> {
        if self.birth.is_elsewhere() {
            return Ok(());
        }
        let timeout = seconds(py, "timeout", timeout)?;
        let open = self.open.write().unwrap_or_else(PoisonError::into_inner).take();
        let Some(engine) = open else { return Ok(()) };
        let closed = py.detach(move || engine.close(timeout));
        closed.map_err(|error| raise(py, "not_fenced", error.to_string()))
    }

    fn __enter__(this: Py<Self>) -> Py<Self> {
        this
    }

    #[pyo3(signature = (*_args))]
    fn __exit__(&self, py: Python<'_>, _args: &Bound<'_, pyo3::types::PyTuple>) -> PyResult<()> {
        self.close(py, 5.0)
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        match self.open(py) {
            Ok(engine) => format!("{engine:?}"),
            Err(error) => format!("Engine({})", error.value(py)),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let open = self.open.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        region::let_go(open, self.birth);
    }
}

/// What callers give that is no region.
pub(crate) fn unregistered(py: Python<'_>, object: &Bound<'_, PyAny>) -> PyErr {
    let kind = object.get_type();
    invalid(
        py,
        format!("{kind} is no memory of an engine; use engine.register(…) or engine.alloc(…)"),
    )
}
