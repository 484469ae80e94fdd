//! A fabric without a network, for tests and benchmarks: all peers are there, no byte moves, and what was
//! posted has ended well when the fabric is polled next, or when it is told so.
//!
//! What is left is what a transfer costs the engine. For rails above devices that do the same, see
//! [`rdma::null`](super::rdma::null).

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{
    Event, Fabric, Grant, Limits, OpId, OpenError, PeerId, Posted, Provider, RegionId,
    RegisterError, RemoteKey, Setup, Status, Work,
};
use crate::address::{Address, EngineId, Kind};
use crate::lane::Lane;
use crate::memory::Memory;
use crate::outcome::Reason;
use crate::window::WindowId;

/// Windows of such a fabric.
const WINDOWS_MAX: usize = 16;

/// Opens one.
#[derive(Debug, Clone, Default)]
pub struct Config {
    held: Option<Held>,
}

impl Config {
    /// One that ends what was posted when it is polled next.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One that ends what was posted when [`Held::end_one`] says so, and stops nothing that it is asked to
    /// stop.
    #[must_use]
    pub fn held(held: &Held) -> Self {
        Self { held: Some(held.clone()) }
    }
}

/// What a fabric that waits to be told was given.
#[derive(Debug, Clone, Default)]
pub struct Held(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    posted: Vec<OpId>,
    ended: Vec<OpId>,
    deregistered: Vec<RegionId>,
}

impl Held {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the oldest transfer, well, at the next poll.
    ///
    /// # Panics
    /// When there is none.
    pub fn end_one(&self) {
        let mut state = self.state();
        let op = state.posted.remove(0);
        state.ended.push(op);
    }

    /// How many transfers it has.
    #[must_use]
    pub fn transfers(&self) -> usize {
        self.state().posted.len()
    }

    /// How many regions it was told to forget.
    #[must_use]
    pub fn deregistered(&self) -> usize {
        self.state().deregistered.len()
    }
}

impl Provider for Config {
    fn kind(&self) -> Kind {
        Kind::Sim
    }

    fn open(self: Box<Self>, setup: &Setup) -> Result<Box<dyn Fabric>, OpenError> {
        let Self { held } = *self;
        Ok(Box::new(Null { engine: setup.engine, held, peers: 0, events: Vec::new() }))
    }
}

struct Null {
    engine: EngineId,
    held: Option<Held>,
    peers: u32,
    events: Vec<Event>,
}

impl Fabric for Null {
    fn kind(&self) -> Kind {
        Kind::Sim
    }

    fn address(&self) -> Address {
        Address::new(Kind::Sim, self.engine.0.to_string())
    }

    fn limits(&self) -> Limits {
        Limits { message_bytes_max: 0, windows_max: WINDOWS_MAX }
    }

    fn maps(&self) -> bool {
        false
    }

    fn register(&mut self, _: RegionId, _: &Arc<Memory>) -> Result<(), RegisterError> {
        Ok(())
    }

    fn deregister(&mut self, region: RegionId) {
        if let Some(held) = &self.held {
            held.state().deregistered.push(region);
        }
    }

    fn grant(&mut self, _: &Grant) -> Result<RemoteKey, RegisterError> {
        Ok(RemoteKey { key: 0, base: 0 })
    }

    fn revoke(&mut self, window: WindowId) {
        self.events.push(Event::Revoked { window });
    }

    fn connect(&mut self, to: &Address) -> PeerId {
        self.peers += 1;
        let peer = PeerId(self.peers);
        self.events.push(match to.endpoint.parse() {
            Ok(engine) => Event::PeerUp { peer, engine: EngineId(engine) },
            Err(_) => Event::PeerDown { peer, reason: Reason::Unreachable },
        });
        peer
    }

    fn disconnect(&mut self, peer: PeerId) {
        self.events.push(Event::PeerDown { peer, reason: Reason::Closed });
    }

    fn post(&mut self, op: OpId, _: PeerId, _: Lane, _: Work<'_>) -> Posted {
        match &self.held {
            None => self.events.push(Event::Completed { op, status: Status::Done }),
            Some(held) => held.state().posted.push(op),
        }
        Posted::Pending
    }

    fn cancel(&mut self, _: OpId, _: Reason) {}

    fn poll(&mut self, _: usize, events: &mut Vec<Event>) -> bool {
        if let Some(held) = &self.held {
            let ended = std::mem::take(&mut held.state().ended);
            let done = |op| Event::Completed { op, status: Status::Done };
            self.events.extend(ended.into_iter().map(done));
        }
        let any = !self.events.is_empty();
        events.append(&mut self.events);
        any
    }

    fn arm(&mut self) -> bool {
        self.events.is_empty()
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn close(&mut self) {}
}
