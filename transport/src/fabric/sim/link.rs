//! Connections between two ports.

use std::collections::VecDeque;

use super::log::Happened;
use super::port::Inbox;
use super::state::{Happening, State, pair};
use crate::address::Address;
use crate::fabric::{Event, PeerId};
use crate::outcome::Reason;
use crate::time::Time;

/// A connection. End 0 dialled.
pub(super) struct Link {
    /// Who was dialled.
    pub(super) to: Address,
    /// End 1 exists once the call was taken.
    pub(super) ends: Vec<End>,
    /// Nothing passes any more; what is under way vanishes.
    pub(super) broken: bool,
    dialled_at: Time,
}

/// One side of a connection.
pub(super) struct End {
    pub(super) port: usize,
    pub(super) peer: PeerId,
    pub(super) up: bool,
    /// Going down, and why; reported once all its operations have ended.
    pub(super) down: Option<Reason>,
    reported: bool,
    /// Messages from this end in the order of sending, until taken in that order.
    pub(super) messages: VecDeque<Message>,
}

/// A message under way.
pub(super) struct Message {
    pub(super) serial: u64,
    pub(super) state: Way,
}

/// Where a message is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Under way.
    Travelling,
    /// At the target, perhaps before its turn.
    Arrived,
    /// Taken back before it was sent.
    Withdrawn,
}

impl Link {
    /// The port at an end.
    pub(super) fn port_at(&self, end: usize) -> Option<usize> {
        self.ends.get(end).map(|end| end.port)
    }

    /// Whether operations may be posted at an end.
    pub(super) fn is_usable(&self, end: usize) -> bool {
        let end = &self.ends[end];
        !self.broken && end.up && end.down.is_none()
    }
}

impl End {
    fn new(port: usize, peer: PeerId) -> Self {
        let messages = VecDeque::new();
        Self { port, peer, up: false, down: None, reported: false, messages }
    }
}

impl State {
    /// Makes an end of `link` at `port`.
    fn add_end(&mut self, link: usize, port: usize) -> PeerId {
        let end = self.links[link].ends.len();
        let state = &mut self.ports[port];
        let peer = PeerId(state.peers.len() as u32);
        state.peers.push((link, end));
        self.links[link].ends.push(End::new(port, peer));
        peer
    }

    pub(super) fn connect(&mut self, port: usize, to: &Address) -> PeerId {
        let link = self.links.len();
        let (ends, dialled_at) = (Vec::new(), self.now);
        self.links.push(Link { to: to.clone(), ends, broken: false, dialled_at });
        let peer = self.add_end(link, port);
        if self.is_null() {
            self.dialled(link);
        } else {
            let span = self.latency();
            self.after(span, Happening::Dial { link });
        }
        peer
    }

    /// A call reaches the called, if anybody is there.
    pub(super) fn dialled(&mut self, link: usize) {
        if self.links[link].broken {
            return;
        }
        let caller = self.links[link].ends[0].port;
        let to = self.links[link].to.clone();
        if self.is_cut(&self.ports[caller].address, &to) {
            if self.now.since(self.links[link].dialled_at) < self.config.break_after {
                let again = self.config.resend_after;
                self.after(again, Happening::Dial { link });
            } else {
                self.break_end(link, 0, Reason::Unreachable);
            }
            return;
        }
        let called = self.addresses.get(&to).copied().filter(|&port| self.ports[port].is_alive());
        let span = self.latency();
        let Some(called) = called else {
            self.after(span, Happening::Notice { link, end: 0, reason: Reason::Unreachable });
            return;
        };
        self.add_end(link, called);
        self.up(link, 1);
        if !self.ports[caller].is_alive() {
            // The caller died while it called.
            self.after(span, Happening::Notice { link, end: 1, reason: Reason::PeerGone });
        } else if self.is_null() {
            self.up(link, 0);
        } else {
            self.after(span, Happening::Accept { link });
        }
    }

    /// Reports a connection at one end.
    pub(super) fn up(&mut self, link: usize, end: usize) {
        let other = self.links[link].ends[1 - end].port;
        let engine = self.ports[other].engine;
        let this = &mut self.links[link].ends[end];
        if this.up || this.down.is_some() {
            return;
        }
        this.up = true;
        let (port, peer) = (this.port, this.peer);
        self.log(port, Happened::Up, link as u64, end as u64);
        self.ports[port].inbox.push_back(Inbox::free(Event::PeerUp { peer, engine }));
    }

    /// Hangs up at one end; the other learns of it.
    pub(super) fn hang_up(&mut self, link: usize, end: usize, reason: Reason) {
        if self.links[link].ends[end].down.is_some() {
            return;
        }
        self.break_end(link, end, reason);
        if self.links[link].ends.len() == 2 {
            let span = self.latency();
            let reason = Reason::PeerGone;
            self.after(span, Happening::Notice { link, end: 1 - end, reason });
        }
    }

    /// An end learns that the connection is gone. Where the other end is dead, nobody there will
    /// learn of anything: what it had under way ends with the connection.
    pub(super) fn noticed(&mut self, link: usize, end: usize, reason: Reason) {
        self.break_end(link, end, reason);
        let other = self.links[link].port_at(1 - end);
        if other.is_some_and(|port| self.ports[port].dead) {
            self.break_end(link, 1 - end, Reason::Closed);
        }
    }

    /// Ends the connection as one end sees it. Nothing that is under way on it arrives any more.
    pub(super) fn break_end(&mut self, link: usize, end: usize, reason: Reason) {
        if self.links[link].ends.get(end).is_none_or(|end| end.down.is_some()) {
            return;
        }
        self.links[link].broken = true;
        self.links[link].ends[end].down = Some(reason);
        let port = self.links[link].ends[end].port;
        self.log(port, Happened::Down, link as u64, reason as u64);
        for serial in self.operations_of(link, end) {
            self.cut_off(serial, reason);
        }
        self.links[link].ends[end].messages.clear();
        self.report_down(link, end);
    }

    /// Reports that an end is down, once no operation of it is left.
    pub(super) fn report_down(&mut self, link: usize, end: usize) {
        let this = &self.links[link].ends[end];
        let Some(reason) = this.down else { return };
        if this.reported || !self.operations_of(link, end).is_empty() {
            return;
        }
        let (port, peer) = (this.port, this.peer);
        self.links[link].ends[end].reported = true;
        let inbox = &mut self.ports[port].inbox;
        inbox.push_back(Inbox::of(peer, Event::PeerDown { peer, reason }));
    }

    /// Whether a connection runs between two addresses.
    pub(super) fn crosses(&self, link: usize, a: &Address, b: &Address) -> bool {
        let link = &self.links[link];
        let from = &self.ports[link.ends[0].port].address;
        !link.broken && pair(from, &link.to) == pair(a, b)
    }

    /// A connection whose link was cut for long breaks at both ends.
    pub(super) fn cut_too_long(&mut self, link: usize, cut: u64) {
        let from = self.ports[self.links[link].ends[0].port].address.clone();
        let to = self.links[link].to.clone();
        if self.cuts.get(&pair(&from, &to)) == Some(&cut) {
            self.break_end(link, 0, Reason::PeerGone);
            self.break_end(link, 1, Reason::PeerGone);
        }
    }
}
