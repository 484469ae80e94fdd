//! Tests of the fabric: two or more in one process, polled in turns, or one process each, or one
//! and a raw socket.

mod bounds;
mod death;
mod hostile;
mod lanes;
mod transfers;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::config::Config;
use super::fabric::Tcp;
use crate::address::{Address, EngineId, Kind};
use crate::fabric::kit::{
    self, ALL, PATIENCE, bytes, connect, local, pattern, read, sleep_until, until, wait, write,
};
use crate::fabric::{Event, Fabric, OpId, PeerId, Posted, Remote, Setup, Status, Work};
use crate::immediate::Immediate;
use crate::lane::Lane;
use crate::memory::Memory;
use crate::outcome::Reason;
use crate::time::MonotonicClock;
use crate::window::{Access, WindowId};

type Node = kit::Node<Tcp>;
type Pair = kit::Pair<Tcp>;

impl kit::Subject for Tcp {
    type Config = Config;

    fn open(config: Config, setup: &Setup) -> Result<Self, String> {
        Self::open(config, setup)
    }
}

impl Node {
    /// Whether nothing is left of any operation.
    fn is_idle(&self) -> bool {
        self.fabric.links.values().all(|link| {
            link.ops.is_empty()
                && link.arrivals.is_empty()
                && link.serves.is_empty()
                && link.acks.is_empty()
                && link.jobs.iter().all(std::collections::VecDeque::is_empty)
                && (link.long_asks, link.served_layouts) == (0, 0)
                && link.streams.iter().all(crate::fabric::tcp::stream::Stream::is_idle)
        })
    }
}

impl Pair {
    /// Waits until nothing is left of any operation, on both sides.
    fn settle(&mut self) {
        self.until("everything to be forgotten", |a, b| (a.is_idle() && b.is_idle()).then_some(()));
    }
}

fn tcp(endpoint: impl Into<String>) -> Address {
    Address::new(Kind::Tcp, endpoint)
}
