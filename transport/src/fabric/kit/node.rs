//! A fabric in the hands of a test.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

use super::PATIENCE;
use crate::address::{Address, EngineId};
use crate::fabric::{
    Event, Fabric, Grant, OpId, PeerId, Posted, RegionId, Remote, RemoteKey, Setup, Status, Work,
};
use crate::immediate::Immediate;
use crate::lane::Lane;
use crate::memory::{HostMemory, Memory};
use crate::outcome::Reason;
use crate::time::{Clock, MonotonicClock};
use crate::window::{Access, WindowId};

/// A fabric that tests open, with all its parts in their reach.
pub(crate) trait Subject: Fabric + Sized {
    type Config: Default;

    fn open(config: Self::Config, setup: &Setup) -> Result<Self, String>;
}

/// A fabric, what it reported, and counters for names.
pub(crate) struct Node<F> {
    pub(crate) fabric: F,
    pub(crate) events: Vec<Event>,
    pub(crate) messages_max: usize,
    regions: u32,
    windows: u32,
    ops: u64,
}

impl<F: Subject> Node<F> {
    pub(crate) fn new(config: F::Config) -> Self {
        Self::with_clock(config, Arc::new(MonotonicClock::new()))
    }

    pub(crate) fn with_clock(config: F::Config, clock: Arc<dyn Clock>) -> Self {
        let setup = Setup { engine: EngineId::random(), clock };
        let fabric = F::open(config, &setup).unwrap();
        Self { fabric, events: Vec::new(), messages_max: 64, regions: 0, windows: 0, ops: 0 }
    }

    pub(crate) fn address(&self) -> Address {
        self.fabric.address()
    }

    pub(crate) fn poll(&mut self) {
        self.fabric.poll(self.messages_max, &mut self.events);
    }

    /// Takes the first report that `want` wants.
    pub(crate) fn take<T>(&mut self, mut want: impl FnMut(&Event) -> Option<T>) -> Option<T> {
        let (at, found) =
            self.events.iter().enumerate().find_map(|(at, event)| Some((at, want(event)?)))?;
        self.events.remove(at);
        Some(found)
    }

    pub(crate) fn status(&mut self, wanted: OpId) -> Option<Status> {
        self.take(|event| match event {
            Event::Completed { op, status } if *op == wanted => Some(*status),
            _ => None,
        })
    }

    pub(crate) fn arrived(&mut self) -> Option<Immediate> {
        self.take(|event| match event {
            Event::Arrived { immediate } => Some(*immediate),
            _ => None,
        })
    }

    pub(crate) fn message(&mut self) -> Option<Vec<u8>> {
        self.take(|event| match event {
            Event::Message { bytes, .. } => Some(bytes.clone()),
            _ => None,
        })
    }

    pub(crate) fn down(&mut self, wanted: PeerId) -> Option<Reason> {
        self.take(|event| match event {
            Event::PeerDown { peer, reason } if *peer == wanted => Some(*reason),
            _ => None,
        })
    }

    pub(crate) fn up(&mut self) -> Option<PeerId> {
        self.take(|event| match event {
            Event::PeerUp { peer, .. } => Some(*peer),
            _ => None,
        })
    }

    pub(crate) fn revoked(&mut self, wanted: WindowId) -> Option<()> {
        self.take(|event| match event {
            Event::Revoked { window } if *window == wanted => Some(()),
            _ => None,
        })
    }

    /// A registered region.
    pub(crate) fn region(&mut self, len: usize) -> (RegionId, Arc<Memory>) {
        let memory = Arc::new(HostMemory::new(len).sparse().build().unwrap());
        (self.register(&memory), memory)
    }

    pub(crate) fn register(&mut self, memory: &Arc<Memory>) -> RegionId {
        self.regions += 1;
        let region = RegionId(self.regions);
        self.fabric.register(region, memory).unwrap();
        region
    }

    pub(crate) fn grant(&mut self, region: RegionId, range: Range<u64>, access: Access) -> Remote {
        let window = WindowId { slot: self.windows, generation: 5 };
        self.windows += 1;
        let (offset, len) = (range.start, range.end - range.start);
        let grant = Grant { window, region, offset, len, access };
        Remote { window, key: self.fabric.grant(&grant).unwrap(), offset: 0 }
    }

    pub(crate) fn post(&mut self, peer: PeerId, work: Work<'_>) -> (OpId, Posted) {
        self.post_in(Lane::Bulk, peer, work)
    }

    pub(crate) fn post_in(&mut self, lane: Lane, peer: PeerId, work: Work<'_>) -> (OpId, Posted) {
        self.ops += 1;
        let op = OpId(self.ops);
        (op, self.fabric.post(op, peer, lane, work))
    }

    /// Begins an operation that does not end at once.
    pub(crate) fn begin(&mut self, peer: PeerId, work: Work<'_>) -> OpId {
        let (op, posted) = self.post(peer, work);
        assert_eq!(posted, Posted::Pending);
        op
    }

    /// Sends a peer what opens a window.
    pub(crate) fn tell(&mut self, peer: PeerId, remote: &Remote) {
        let Remote { window, key, .. } = *remote;
        let words = [u64::from(window.slot), u64::from(window.generation), key.key];
        let message = words.map(u64::to_le_bytes).concat();
        let work = Work::Send { bytes: &message, immediate: None };
        assert_eq!(self.post(peer, work).1, Posted::Done);
    }

    /// Whether the descriptor to wait for becomes readable within a span.
    pub(crate) fn is_readable(&self, within: Duration) -> bool {
        let fd = self.fabric.wait_fd().unwrap();
        let timeout = Timespec::try_from(within).unwrap();
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap() > 0
    }
}

/// The window that [`Node::tell`] told of.
pub(crate) fn told(message: &[u8]) -> Remote {
    let word = |at: usize| u64::from_le_bytes(message[at..at + 8].try_into().unwrap());
    let window = WindowId { slot: word(0) as u32, generation: word(8) as u32 };
    Remote { window, key: RemoteKey { key: word(16), base: 0 }, offset: 0 }
}

/// Polls one until `done`.
pub(crate) fn wait<F: Subject, T>(
    node: &mut Node<F>,
    what: &str,
    mut done: impl FnMut(&mut Node<F>) -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        node.poll();
        if let Some(result) = done(node) {
            return result;
        }
        assert!(start.elapsed() < PATIENCE, "hangs: {what}; reports {:?}", node.events);
    }
}

/// Polls one as who sleeps whenever he may, until `done`; each time something has to wake him.
pub(crate) fn sleep_until<F: Subject, T>(
    node: &mut Node<F>,
    within: Duration,
    mut done: impl FnMut(&mut Node<F>) -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        node.poll();
        if let Some(result) = done(node) {
            return result;
        }
        assert!(start.elapsed() < within, "hangs; reports {:?}", node.events);
        if node.fabric.arm() {
            assert!(node.is_readable(within), "nothing wakes it; reports {:?}", node.events);
        }
    }
}
