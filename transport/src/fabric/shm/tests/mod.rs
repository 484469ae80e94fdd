//! Tests of the fabric: two or more in one process, polled in turns, or one process each.

mod death;
mod handshake;
mod hostile;
mod lanes;
mod lifecycle;
mod paged;
mod transfers;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::config::Config;
use super::fabric::Shm;
use crate::address::{Address, EngineId, Kind};
use crate::fabric::kit::{
    self, ALL, PATIENCE, bytes, connect, local, pattern, read, sleep_until, until, wait, write,
};
use crate::fabric::{
    Event, Fabric, Grant, Local, OpId, PeerId, Posted, RegionId, Remote, Setup, Status, Work,
};
use crate::immediate::Immediate;
use crate::lane::Lane;
use crate::memory::Memory;
use crate::outcome::Reason;
use crate::time::{Clock, Time};
use crate::window::{Access, WindowId};

type Node = kit::Node<Shm>;
type Pair = kit::Pair<Shm>;

impl kit::Subject for Shm {
    type Config = Config;

    fn open(config: Config, setup: &Setup) -> Result<Self, String> {
        Self::open(config, setup)
    }
}

/// A clock that a test moves.
#[derive(Debug, Default)]
struct Hands(AtomicU64);

impl Clock for Hands {
    fn now(&self) -> Time {
        Time::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

impl Hands {
    fn turn(&self, span: Duration) {
        self.0.fetch_add(span.as_nanos() as u64, Ordering::Relaxed);
    }
}

impl Pair {
    /// Takes the window that an operation of `a` fills back, whether that is under way or not, and
    /// uses the memory again; whether that stopped the operation.
    fn fence(&mut self, op: OpId, window: WindowId, there: &Memory) -> bool {
        self.b.fabric.revoke(window);
        self.until("a fence", |_, b| b.revoked(window));
        there.fill(0..there.len(), 0xee).unwrap();
        let stopped = match self.end(op) {
            Status::Done => false,
            Status::Refused(reason) | Status::Stopped(reason) => {
                assert_eq!(reason, Reason::Stale);
                true
            }
        };
        assert!(bytes(there, 0..there.len()).iter().all(|&byte| byte == 0xee), "a late write");
        stopped
    }
}

fn shm(endpoint: impl Into<String>) -> Address {
    Address::new(Kind::Shm, endpoint)
}
