//! Peers that come and go.

use super::{Core, OpId, Stage};
use crate::address::{Address, EngineId};
use crate::engine::links::{Credits, State};
use crate::engine::stats::Tallies;
use crate::fabric::PeerId;
use crate::outcome::{Outcome, Reason};
use crate::peer::{Incoming, Peer};
use crate::rail::Path;

impl Core {
    /// The link to an address; made if there is none, dialled on first use.
    pub(in crate::engine) fn link_to(&mut self, address: &Address) -> Peer {
        Peer { worker: self.index, link: self.links.to(address) }
    }

    /// Begins to dial, unless the link is up or being dialled; returns what it is now.
    pub(in crate::engine) fn dial(&mut self, peer: Peer) -> Option<State> {
        if self.links.get_mut(peer.link)?.state == State::Down {
            self.links.dial(peer.link, &mut *self.fabric);
        }
        self.links.get_mut(peer.link).map(|entry| entry.state)
    }

    /// What a link is now, and why it last went down.
    pub(in crate::engine) fn link(&mut self, peer: Peer) -> Option<(State, Option<Reason>)> {
        self.links.get_mut(peer.link).map(|entry| (entry.state, entry.last_end))
    }

    pub(in crate::engine) fn hang_up(&mut self, peer: Peer) {
        if let Some(entry) = self.links.get_mut(peer.link)
            && let State::Up(id) | State::Connecting(id) = entry.state
        {
            self.fabric.disconnect(id);
        }
    }

    /// The paths to a peer; none to one that is not connected.
    pub(in crate::engine) fn paths(&mut self, peer: Peer) -> Vec<Path> {
        match self.link(peer) {
            Some((State::Up(id), _)) => self.fabric.paths(id),
            _ => Vec::new(),
        }
    }

    /// Sends something over each of them.
    pub(in crate::engine) fn probe(&mut self, peer: Peer) {
        if let Some((State::Up(id), _)) = self.link(peer) {
            self.fabric.probe(id);
        }
    }

    pub(super) fn peer_up(&mut self, peer: PeerId, engine: EngineId) {
        Tallies::add(&self.tallies.connections, 1);
        let link = match self.links.by_peer.get(&peer) {
            Some(link) => *link,
            None => self.links.accept(peer),
        };
        if let Some(entry) = self.links.get_mut(link) {
            entry.state = State::Up(peer);
            entry.engine = Some(engine);
            entry.connection = entry.connection.wrapping_add(1);
            entry.credits = Credits::default();
            tracing::debug!(%engine, fabric = %self.fabric.kind(), "peer up");
            self.shared.inbox.push(Incoming::Connected(Peer { worker: self.index, link }));
        }
    }

    pub(super) fn peer_down(&mut self, peer: PeerId, reason: Reason) {
        let Some(link) = self.links.by_peer.remove(&peer) else { return };
        let Some(entry) = self.links.get_mut(link) else { return };
        let was_up = matches!(entry.state, State::Up(_));
        entry.state = State::Down;
        entry.last_end = Some(reason);
        entry.engine = None;
        let parked = std::mem::take(&mut entry.parked);
        for id in parked.into_iter().flatten() {
            if was_up || reason == Reason::Closed {
                self.finish(id, Outcome::Rejected(reason));
            } else {
                // Nobody is there over this fabric; another may lead there.
                self.give_up_way(id, reason, reason);
            }
        }
        // What the fabric could prove ended has ended before; of the rest nothing is known.
        let unproven: Vec<OpId> = self
            .ops
            .iter()
            .filter(|(_, op)| op.link == link && op.stage != Stage::Lost)
            .map(|(at, _)| OpId(at.pack()))
            .collect();
        for id in unproven {
            self.finish(id, Outcome::Lost(reason));
        }
        if was_up {
            Tallies::add(&self.tallies.disconnections, 1);
            tracing::debug!(%reason, fabric = %self.fabric.kind(), "peer down");
            let peer = Peer { worker: self.index, link };
            self.shared.inbox.push(Incoming::Disconnected { peer, reason });
        }
        self.links.retire(link);
    }
}
