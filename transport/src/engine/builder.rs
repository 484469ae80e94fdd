//! Building an engine.

use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::core::Core;
use super::crew::{self, Common, Crew, Drive, Polling};
use super::outlet::{Outlet, Sink};
use super::shared::{Inbox, Shared, Windows};
use super::stats::Tallies;
use super::worker::Worker;
use super::{Engine, Inner};
use crate::address::{EngineId, Kind};
use crate::counter::Counters;
use crate::fabric::{Fabric, OpenError, Provider, Setup};
use crate::notify::Notifier;
use crate::peer::Incoming;
use crate::region::Graveyard;
use crate::time::{Clock, MonotonicClock, Steppable};
use crate::watcher::Watchers;

/// The time transfers have when they name none.
const DEADLINE_DEFAULT: Duration = Duration::from_secs(5);
/// How often watched words are looked at unless told otherwise.
const WATCH_EVERY_DEFAULT: Duration = Duration::from_micros(50);
/// Counters an engine has unless told otherwise.
const COUNTERS_DEFAULT: u16 = 4096;

/// An engine to be built.
#[must_use = "a builder does nothing until it is built"]
pub struct Builder {
    fabrics: Vec<Box<dyn Provider>>,
    clock: Arc<dyn Clock>,
    polling: Polling,
    drive: Drive,
    deadline: Duration,
    counters: u16,
    sink: Option<Sink>,
    watch_every: Duration,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            fabrics: Vec::new(),
            clock: Arc::new(MonotonicClock::new()),
            polling: Polling::default(),
            drive: Drive::default(),
            deadline: DEADLINE_DEFAULT,
            counters: COUNTERS_DEFAULT,
            sink: None,
            watch_every: WATCH_EVERY_DEFAULT,
        }
    }
}

impl Builder {
    /// A fabric to speak; each call adds one, the best first, each kind once. Shared memory of this
    /// host unless told otherwise.
    pub fn fabric(mut self, provider: impl Provider + 'static) -> Self {
        self.fabrics.push(Box::new(provider));
        self
    }

    /// How often watched words are looked at, at least, while somebody waits for a change of them;
    /// 50 µs unless told otherwise. Shorter notices sooner and costs more processor time.
    pub fn watch_every(mut self, span: Duration) -> Self {
        self.watch_every = span;
        self
    }

    /// Where time comes from; the machine's monotonic clock unless told otherwise.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// How waits pass their time.
    pub fn polling(mut self, polling: Polling) -> Self {
        self.polling = polling;
        self
    }

    /// Who moves transfers on.
    pub fn drive(mut self, drive: Drive) -> Self {
        self.drive = drive;
        self
    }

    /// The time transfers have when they name none; 5 s unless told otherwise.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How many counters there can be; 4,096 unless told otherwise.
    pub fn counters(mut self, counters: u16) -> Self {
        self.counters = counters;
        self
    }

    /// Gives what comes in to `sink` instead of [`Engine::recv`]; see [`Sink`] for what it may do.
    pub fn on_incoming(mut self, sink: impl Fn(Incoming) + Send + Sync + 'static) -> Self {
        self.sink = Some(Box::new(sink));
        self
    }

    /// Builds it.
    ///
    /// # Errors
    /// When a fabric cannot be opened, or the process is out of descriptors or threads.
    pub fn build(self) -> Result<Engine, BuildError> {
        let id = EngineId::random();
        let setup = Setup { engine: id, clock: Arc::clone(&self.clock) };
        let mut providers = self.fabrics;
        if providers.is_empty() {
            providers.push(Box::new(crate::fabric::shm::Config::new()));
        }
        for (at, provider) in providers.iter().enumerate() {
            let kind = provider.kind();
            if providers[..at].iter().any(|other| other.kind() == kind) {
                return Err(BuildError::Twice { kind });
            }
        }
        let fabrics: Vec<Box<dyn Fabric>> =
            providers.into_iter().map(|it| it.open(&setup)).collect::<Result<_, _>>()?;
        let limits = fabrics.iter().map(|fabric| fabric.limits());
        let windows_max = limits.clone().map(|l| l.windows_max).min().unwrap_or(0);
        let message_bytes_max = limits.map(|l| l.message_bytes_max).min().unwrap_or(0);
        let addresses = fabrics.iter().map(|fabric| fabric.address()).collect();
        let doorbells: Vec<_> = fabrics
            .iter()
            .map(|_| Notifier::new())
            .collect::<Result<_, _>>()
            .map_err(BuildError::System)?;
        let shared = Arc::new(Shared {
            engine: id,
            clock: Arc::clone(&self.clock),
            counters: Arc::new(Counters::new(self.counters, id.0 as u16)),
            outlet: self.sink.map(Outlet::new),
            inbox: Inbox::default(),
            windows: Windows::new(windows_max, fabrics.len()),
            graveyards: doorbells.iter().map(|it| Arc::new(Graveyard::new(it))).collect(),
        });
        let watchers = Arc::new(Watchers::new(self.watch_every));
        let common = Arc::new(Common::new(self.polling, self.drive, watchers, &shared));
        let mut workers = Vec::with_capacity(fabrics.len());
        for (index, (fabric, doorbell)) in fabrics.into_iter().zip(doorbells).enumerate() {
            let tallies = Arc::new(Tallies::default());
            let core = Core::new(index as u16, fabric, Arc::clone(&shared), Arc::clone(&tallies));
            let common = Arc::clone(&common);
            let worker = Worker::new(index as u16, core, tallies, common, doorbell);
            workers.push(Arc::new(worker));
        }
        let mut threads = Vec::new();
        if self.drive == Drive::Thread {
            for worker in &workers {
                let worker = Arc::clone(worker);
                let thread = std::thread::Builder::new()
                    .name("tranship-worker".to_owned())
                    .spawn(move || crew::run(&worker));
                threads.push(thread.map_err(BuildError::System)?);
            }
        }
        let inner = Arc::new(Inner {
            id,
            addresses,
            message_bytes_max,
            shared,
            crew: Crew::new(workers, common),
            threads,
            default_deadline: self.deadline,
            next_region: AtomicU32::new(0),
            closed: AtomicBool::new(false),
        });
        let weak: Weak<Inner> = Arc::downgrade(&inner);
        self.clock.attach(weak as Weak<dyn Steppable>);
        Ok(Engine { inner })
    }
}

/// An engine that could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A fabric could not be opened.
    #[error(transparent)]
    Fabric(#[from] OpenError),
    /// One kind of fabric twice.
    #[error("{kind} fabric: named twice; an engine has one of each kind")]
    Twice {
        /// The kind.
        kind: Kind,
    },
    /// The system refused a descriptor or a thread.
    #[error("engine: {0}; raise the limits on open files or threads (ulimit -n, ulimit -u)")]
    System(std::io::Error),
}
