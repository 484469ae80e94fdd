//! One port of the network: the fabric an engine sees.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::key::Granted;
use super::line::Line;
use super::log::Happened;
use super::network::Shared;
use super::slots::Slots;
use super::state::{Happening, State};
use crate::address::{Address, EngineId, Kind};
use crate::fabric::{
    Event, Fabric, Grant, Limits, OpId, PeerId, Posted, RegionId, RegisterError, RemoteKey, Work,
};
use crate::lane::Lane;
use crate::memory::Memory;
use crate::outcome::Reason;
use crate::time::Time;
use crate::window::WindowId;

/// What the network knows of a port.
pub(super) struct PortState {
    pub(super) address: Address,
    pub(super) engine: EngineId,
    pub(super) regions: Slots<Arc<Memory>>,
    /// A slot keeps its last window.
    pub(super) windows: Slots<Granted>,
    /// The link and the end of each peer.
    pub(super) peers: Vec<(usize, usize)>,
    /// The serial number of each operation under way.
    pub(super) operations: BTreeMap<OpId, u64>,
    pub(super) inbox: VecDeque<Inbox>,
    /// What waits for a hung host to go on.
    pub(super) held: Vec<Happening>,
    pub(super) paused_at: Time,
    pub(super) line: Line,
    /// Its engine was killed.
    pub(super) dead: bool,
    /// Its engine closed it.
    pub(super) closed: bool,
}

impl PortState {
    pub(super) fn new(address: Address, engine: EngineId) -> Self {
        Self {
            address,
            engine,
            regions: Slots::default(),
            windows: Slots::default(),
            peers: Vec::new(),
            operations: BTreeMap::new(),
            inbox: VecDeque::new(),
            held: Vec::new(),
            paused_at: Time::NEVER,
            line: Line::default(),
            dead: false,
            closed: false,
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        !self.dead && !self.closed
    }

    /// Takes events, at most `messages_max` messages. Whatever must not overtake a peer's messages
    /// stays with them.
    fn take(&mut self, mut messages_max: usize, events: &mut Vec<Event>) -> bool {
        let (before, mut behind) = (events.len(), HashSet::new());
        let mut left = VecDeque::new();
        for item in self.inbox.drain(..) {
            let message = matches!(item.event, Event::Message { .. });
            let stays = item.peer.is_some_and(|peer| {
                behind.contains(&peer) || (message && messages_max == 0 && behind.insert(peer))
            });
            if stays {
                left.push_back(item);
            } else {
                messages_max -= usize::from(message);
                events.push(item.event);
            }
        }
        self.inbox = left;
        events.len() > before
    }
}

/// An event on its way to the engine.
pub(super) struct Inbox {
    /// The peer whose messages it must not overtake.
    peer: Option<PeerId>,
    event: Event,
}

impl Inbox {
    /// One that may overtake messages.
    pub(super) fn free(event: Event) -> Self {
        Self { peer: None, event }
    }

    /// One that keeps its place among the messages of a peer.
    pub(super) fn of(peer: PeerId, event: Event) -> Self {
        Self { peer: Some(peer), event }
    }
}

/// A port as its engine drives it.
pub(super) struct Nic {
    pub(super) network: Arc<Shared>,
    pub(super) port: usize,
    pub(super) address: Address,
}

impl Nic {
    fn with<T>(&self, act: impl FnOnce(&mut State, usize) -> T) -> T {
        act(&mut self.network.state(), self.port)
    }

    fn peer(state: &State, port: usize, peer: PeerId) -> Option<(usize, usize)> {
        state.ports[port].peers.get(peer.0 as usize).copied()
    }
}

impl Fabric for Nic {
    fn kind(&self) -> Kind {
        self.address.kind
    }

    fn address(&self) -> Address {
        self.address.clone()
    }

    fn limits(&self) -> Limits {
        self.with(|state, _| Limits {
            message_bytes_max: state.config.message_bytes_max,
            windows_max: state.config.windows_max,
        })
    }

    fn maps(&self) -> bool {
        self.with(|state, _| state.config.maps)
    }

    fn register(&mut self, region: RegionId, memory: &Arc<Memory>) -> Result<(), RegisterError> {
        if !memory.is_host() {
            return Err(RegisterError::on_device(Kind::Sim));
        }
        let memory = Arc::clone(memory);
        let before = self.with(|state, port| state.ports[port].regions.insert(region.0, memory));
        assert!(before.is_none(), "region {} is registered already", region.0);
        Ok(())
    }

    fn deregister(&mut self, region: RegionId) {
        // Freed outside the lock: unmapping is slow.
        let _memory = self.with(|state, port| state.ports[port].regions.remove(region.0));
    }

    fn grant(&mut self, grant: &Grant) -> Result<RemoteKey, RegisterError> {
        self.with(|state, port| state.grant(port, grant))
    }

    fn revoke(&mut self, window: WindowId) {
        self.with(|state, port| state.revoke(port, window));
    }

    fn connect(&mut self, to: &Address) -> PeerId {
        self.with(|state, port| state.connect(port, to))
    }

    fn disconnect(&mut self, peer: PeerId) {
        self.with(|state, port| {
            if let Some((link, end)) = Self::peer(state, port, peer) {
                state.hang_up(link, end, Reason::Closed);
            }
        });
    }

    fn post(&mut self, op: OpId, peer: PeerId, lane: Lane, work: Work<'_>) -> Posted {
        self.with(|state, port| state.post(port, op, peer, lane, work))
    }

    fn cancel(&mut self, op: OpId, reason: Reason) {
        self.with(|state, port| state.cancel(port, op, reason));
    }

    fn poll(&mut self, messages_max: usize, events: &mut Vec<Event>) -> bool {
        self.with(|state, port| {
            // Of a port that was closed nothing is held back: the rest of its events are its proofs.
            let silent = state.ports[port].dead || state.hangs(port);
            let stopped = silent && !state.ports[port].closed;
            !stopped && state.ports[port].take(messages_max, events)
        })
    }

    fn arm(&mut self) -> bool {
        self.with(|state, port| state.ports[port].inbox.is_empty())
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn close(&mut self) {
        self.with(|state, port| {
            if state.ports[port].closed {
                return;
            }
            state.log(port, Happened::Closed, 0, 0);
            let was_alive = state.ports[port].is_alive();
            state.ports[port].closed = true;
            // What a dead engine had sent still lands, and its peers are told by its death.
            if was_alive {
                for serial in state.ports[port].operations.values().copied().collect::<Vec<_>>() {
                    state.forget(serial, Reason::Closed);
                }
                for (link, end) in state.ports[port].peers.clone() {
                    state.hang_up(link, end, Reason::Closed);
                }
            }
            state.fence_all(port);
            state.ports[port].held.clear();
        });
    }
}

impl Drop for Nic {
    fn drop(&mut self) {
        self.close();
        // A dead engine's memory goes with it, what it had sent excepted.
        let _memory = self.with(|state, port| std::mem::take(&mut state.ports[port].regions));
    }
}

impl fmt::Debug for Nic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nic({})", self.address)
    }
}
