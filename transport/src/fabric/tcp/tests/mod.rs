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
use crate::fabric::{
    Event, Fabric, Grant, Local, OpId, PeerId, Posted, RegionId, Remote, Setup, Status, Work,
};
use crate::immediate::Immediate;
use crate::lane::Lane;
use crate::memory::{HostMemory, Memory};
use crate::outcome::Reason;
use crate::time::MonotonicClock;
use crate::window::{Access, WindowId};

const ALL: fn() -> Access = || Access::WRITE | Access::READ;
/// How long a test waits before it calls that a hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// A fabric, what it reported, and counters for names.
struct Node {
    fabric: Tcp,
    events: Vec<Event>,
    regions: u32,
    windows: u32,
    ops: u64,
    messages_max: usize,
}

impl Node {
    fn new(config: Config) -> Self {
        let clock = Arc::new(MonotonicClock::new());
        let setup = Setup { engine: EngineId::random(), clock };
        let fabric = Tcp::open(config, &setup).unwrap();
        Self { fabric, events: Vec::new(), regions: 0, windows: 0, ops: 0, messages_max: 64 }
    }

    fn poll(&mut self) {
        self.fabric.poll(self.messages_max, &mut self.events);
    }

    /// Takes the first report that `want` wants.
    fn take<T>(&mut self, mut want: impl FnMut(&Event) -> Option<T>) -> Option<T> {
        let (at, found) =
            self.events.iter().enumerate().find_map(|(at, event)| Some((at, want(event)?)))?;
        self.events.remove(at);
        Some(found)
    }

    fn status(&mut self, wanted: OpId) -> Option<Status> {
        self.take(|event| match event {
            Event::Completed { op, status } if *op == wanted => Some(*status),
            _ => None,
        })
    }

    fn arrived(&mut self) -> Option<Immediate> {
        self.take(|event| match event {
            Event::Arrived { immediate } => Some(*immediate),
            _ => None,
        })
    }

    fn message(&mut self) -> Option<Vec<u8>> {
        self.take(|event| match event {
            Event::Message { bytes, .. } => Some(bytes.clone()),
            _ => None,
        })
    }

    fn down(&mut self, wanted: PeerId) -> Option<Reason> {
        self.take(|event| match event {
            Event::PeerDown { peer, reason } if *peer == wanted => Some(*reason),
            _ => None,
        })
    }

    fn up(&mut self) -> Option<PeerId> {
        self.take(|event| match event {
            Event::PeerUp { peer, .. } => Some(*peer),
            _ => None,
        })
    }

    /// A registered region.
    fn region(&mut self, len: usize) -> (RegionId, Arc<Memory>) {
        let memory = Arc::new(HostMemory::new(len).sparse().build().unwrap());
        self.regions += 1;
        let region = RegionId(self.regions);
        self.fabric.register(region, &memory).unwrap();
        (region, memory)
    }

    fn grant(&mut self, region: RegionId, range: Range<u64>, access: Access) -> Remote {
        let window = WindowId { slot: self.windows, generation: 5 };
        self.windows += 1;
        let (offset, len) = (range.start, range.end - range.start);
        let grant = Grant { window, region, offset, len, access };
        Remote { window, key: self.fabric.grant(&grant).unwrap(), offset: 0 }
    }

    fn post(&mut self, peer: PeerId, work: Work<'_>) -> (OpId, Posted) {
        self.post_in(Lane::Bulk, peer, work)
    }

    fn post_in(&mut self, lane: Lane, peer: PeerId, work: Work<'_>) -> (OpId, Posted) {
        self.ops += 1;
        let op = OpId(self.ops);
        (op, self.fabric.post(op, peer, lane, work))
    }

    /// Begins an operation that does not end at once.
    fn begin(&mut self, peer: PeerId, work: Work<'_>) -> OpId {
        let (op, posted) = self.post(peer, work);
        assert_eq!(posted, Posted::Pending);
        op
    }

    fn address(&self) -> Address {
        self.fabric.address()
    }

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

/// Local bytes.
fn local(region: RegionId, memory: &Memory, range: Range<u64>) -> Local {
    assert!(range.end <= memory.len() as u64);
    // SAFETY: inside of the memory.
    let ptr = unsafe { memory.as_ptr().add(range.start as usize) };
    Local { region, ptr, len: range.end - range.start }
}

fn write(local: Local, remote: Remote, immediate: Option<u32>) -> Work<'static> {
    Work::Write { local, remote, pages: None, immediate: immediate.map(Immediate) }
}

fn read(local: Local, remote: Remote) -> Work<'static> {
    Work::Read { local, remote, pages: None, immediate: None }
}

/// Polls both until `done`.
fn until<T>(
    a: &mut Node,
    b: &mut Node,
    what: &str,
    mut done: impl FnMut(&mut Node, &mut Node) -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        a.poll();
        b.poll();
        if let Some(result) = done(a, b) {
            return result;
        }
        if start.elapsed() > PATIENCE {
            panic!("hangs: {what}; reports {:?} and {:?}", a.events, b.events);
        }
    }
}

/// Polls one until `done`.
fn wait<T>(node: &mut Node, what: &str, mut done: impl FnMut(&mut Node) -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        node.poll();
        if let Some(result) = done(node) {
            return result;
        }
        assert!(start.elapsed() < PATIENCE, "hangs: {what}; reports {:?}", node.events);
    }
}

/// Two connected fabrics: `a` dialled `b`.
struct Pair {
    a: Node,
    b: Node,
    /// What `a` calls `b`.
    to_b: PeerId,
    /// What `b` calls `a`.
    to_a: PeerId,
}

impl Pair {
    fn new() -> Self {
        Self::of(Config::new(), Config::new())
    }

    fn of(a: Config, b: Config) -> Self {
        let (mut a, mut b) = (Node::new(a), Node::new(b));
        let (to_b, to_a) = connect(&mut a, &mut b);
        Self { a, b, to_b, to_a }
    }

    fn until<T>(&mut self, what: &str, done: impl FnMut(&mut Node, &mut Node) -> Option<T>) -> T {
        until(&mut self.a, &mut self.b, what, done)
    }

    /// Waits for the end of an operation of `a`.
    fn end(&mut self, op: OpId) -> Status {
        self.until("an operation", |a, _| a.status(op))
    }

    /// Does an operation of `a` on `b` and says how it ended.
    fn run(&mut self, work: Work<'_>) -> Status {
        match self.a.post(self.to_b, work) {
            (_, Posted::Done) => Status::Done,
            (_, Posted::Refused(reason)) => Status::Refused(reason),
            (_, Posted::Busy) => panic!("busy"),
            (op, Posted::Pending) => self.end(op),
        }
    }

    /// Waits until nothing is left of any operation, on both sides.
    fn settle(&mut self) {
        self.until("everything to be forgotten", |a, b| (a.is_idle() && b.is_idle()).then_some(()));
    }
}

/// Connects `a` to `b`; what each calls the other.
fn connect(a: &mut Node, b: &mut Node) -> (PeerId, PeerId) {
    let dialled = a.fabric.connect(&b.address());
    let (mut to_b, mut to_a) = (None, None);
    let pair = until(a, b, "connecting", |a, b| {
        to_b = to_b.or_else(|| a.up());
        to_a = to_a.or_else(|| b.up());
        Some((to_b?, to_a?))
    });
    assert_eq!(pair.0, dialled);
    pair
}

fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn bytes(memory: &Memory, range: Range<usize>) -> Vec<u8> {
    let mut bytes = vec![0; range.len()];
    memory.read_at(range.start, &mut bytes).unwrap();
    bytes
}

fn tcp(endpoint: impl Into<String>) -> Address {
    Address::new(Kind::Tcp, endpoint)
}
