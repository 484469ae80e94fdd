//! What the server counts, readable from any thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tranship_transport::Time;

/// Upper bounds of the latency buckets, seconds.
pub const BUCKET_BOUNDS_SECONDS: [f64; 12] =
    [1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0];

/// What is counted apart.
const NAMES: [&str; 22] = [
    "hello",
    "identify",
    "lookup",
    "reserve",
    "commit",
    "put",
    "abort",
    "lease",
    "release",
    "corrupt",
    "fetch",
    "pin",
    "remove",
    "prefetch",
    "persist",
    "lease_parts",
    "list",
    "stats",
    "subscribe",
    "unsubscribe",
    "ping",
    "malformed",
];

/// Figures of one kind of request.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestStats {
    /// The request's name.
    pub name: &'static str,
    /// Requests handled.
    pub count: u64,
    /// Of these, how many ended in a fault.
    pub errors: u64,
    /// Time the service thread spent on them, seconds.
    pub seconds_sum: f64,
    /// Upper bound in seconds, and how many took no longer.
    pub buckets: Vec<(f64, u64)>,
}

/// Figures of a server.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerStats {
    /// Sessions open.
    pub sessions: u64,
    /// Connections since the start.
    pub sessions_total: u64,
    /// One entry a kind of request.
    pub requests: Vec<RequestStats>,
}

/// One session, for lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// Its number.
    pub id: u64,
    /// What the client calls itself.
    pub name: String,
    /// Its tenant.
    pub tenant: String,
    /// When it connected, on the engine's clock.
    pub since: Time,
    /// Leases it holds.
    pub leases: usize,
    /// Reservations it holds.
    pub reservations: usize,
}

#[derive(Default)]
struct Kind {
    count: AtomicU64,
    errors: AtomicU64,
    nanos_sum: AtomicU64,
    buckets: [AtomicU64; BUCKET_BOUNDS_SECONDS.len()],
}

#[derive(Default)]
pub(super) struct Observed {
    kinds: [Kind; NAMES.len()],
    connected: AtomicU64,
    sessions: Mutex<Vec<SessionInfo>>,
}

/// Only the service thread counts, so a load and a store will do.
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed);
}

impl Observed {
    pub(super) fn request(&self, name: &str, failed: bool, took: Duration) {
        let kind = NAMES.iter().position(|known| *known == name);
        debug_assert!(kind.is_some(), "requests {name:?} are not counted");
        let Some(kind) = kind else { return };
        let kind = &self.kinds[kind];
        add(&kind.count, 1);
        add(&kind.errors, u64::from(failed));
        add(&kind.nanos_sum, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        let seconds = took.as_secs_f64();
        if let Some(bucket) = BUCKET_BOUNDS_SECONDS.iter().position(|bound| seconds <= *bound) {
            add(&kind.buckets[bucket], 1);
        }
    }

    pub(super) fn connected(&self) {
        add(&self.connected, 1);
    }

    pub(super) fn set_sessions(&self, sessions: Vec<SessionInfo>) {
        *self.sessions.lock().unwrap_or_else(PoisonError::into_inner) = sessions;
    }

    pub(super) fn sessions(&self) -> Vec<SessionInfo> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn stats(&self) -> ServerStats {
        let requests = NAMES.iter().zip(&self.kinds).map(|(name, kind)| {
            let mut below = 0;
            let buckets = BUCKET_BOUNDS_SECONDS.iter().zip(&kind.buckets).map(|(bound, bucket)| {
                below += bucket.load(Ordering::Relaxed);
                (*bound, below)
            });
            RequestStats {
                name,
                count: kind.count.load(Ordering::Relaxed),
                errors: kind.errors.load(Ordering::Relaxed),
                seconds_sum: kind.nanos_sum.load(Ordering::Relaxed) as f64 / 1e9,
                buckets: buckets.collect(),
            }
        });
        ServerStats {
            sessions: self.sessions.lock().unwrap_or_else(PoisonError::into_inner).len() as u64,
            sessions_total: self.connected.load(Ordering::Relaxed),
            requests: requests.collect(),
        }
    }
}
