//! What administration and metrics look at. Nothing is counted here: every figure is read from its
//! owner when somebody asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tranship_cache::{Millis, Store};
use tranship_transport::Engine;

/// Reads a value from its owner.
pub(crate) type Source<T> = Arc<dyn Fn() -> T + Send + Sync>;

/// A daemon, as seen by who looks after it. Clones look at the same one.
#[derive(Clone)]
pub(crate) struct Observe {
    /// The blocks.
    pub(crate) store: Store,
    /// What moves them.
    pub(crate) engine: Engine,
    /// Figures of the protocol server.
    pub(crate) server: Source<ServerStats>,
    /// Clients connected now.
    pub(crate) sessions: Source<Vec<SessionInfo>>,
    /// The time that is passed to the store.
    pub(crate) now: Source<Millis>,
    /// Since when the daemon runs.
    pub(crate) since: Instant,
    /// Whether the daemon has finished starting.
    pub(crate) started: Started,
}

impl Observe {
    /// Whether clients should come.
    pub(crate) fn state(&self) -> State {
        match () {
            () if !self.started.get() => State::Starting,
            () if self.store.is_draining() => State::Draining,
            () => State::Serving,
        }
    }
}

/// Turns once, when the daemon is ready for clients.
#[derive(Clone, Default)]
pub(crate) struct Started(Arc<AtomicBool>);

impl Started {
    /// From now on the daemon is ready.
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Whether clients should come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Not ready yet.
    Starting,
    /// Ready.
    Serving,
    /// Takes no new blocks.
    Draining,
}

/// Figures of the protocol server.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServerStats {
    /// Connected now.
    pub(crate) sessions: u64,
    /// Connected since the daemon started.
    pub(crate) sessions_total: u64,
    /// One entry a kind of request.
    pub(crate) requests: Vec<RequestStats>,
}

/// Figures of one kind of request.
#[derive(Clone, Debug)]
pub(crate) struct RequestStats {
    /// Its name in the protocol.
    pub(crate) name: &'static str,
    /// Answered, with success or an error.
    pub(crate) count: u64,
    /// Of them, answered with an error.
    pub(crate) errors: u64,
    /// Time they took, all together, seconds.
    pub(crate) seconds_sum: f64,
    /// Upper bound in seconds, rising, and how many took at most so long. What took longer than the
    /// last bound is in `count` only.
    pub(crate) buckets: Vec<(f64, u64)>,
}

/// A client that is connected.
#[derive(Clone, Debug)]
pub(crate) struct SessionInfo {
    /// Its number.
    pub(crate) id: u64,
    /// What it calls itself.
    pub(crate) name: String,
    /// For whom it acts.
    pub(crate) tenant: String,
    /// When it connected, on the clock of [`Observe::now`].
    pub(crate) since: Millis,
    /// Leases it holds.
    pub(crate) leases: u64,
    /// Reservations it fills.
    pub(crate) reservations: u64,
}
