//! The links of one worker: who is reached, where, and what waits for it.

use std::collections::{HashMap, VecDeque};

use slab::Slab;

use crate::address::Address;
use crate::fabric::{Fabric, OpId, PeerId};
use crate::outcome::Reason;
use crate::peer::LinkId;

/// One peer over one fabric.
#[derive(Debug)]
pub(super) struct Link {
    serial: u32,
    /// Where to dial; `None` for a peer that dialled us.
    pub(super) address: Option<Address>,
    pub(super) state: State,
    /// Why it last went down.
    pub(super) last_end: Option<Reason>,
    /// Operations that wait, in order.
    pub(super) parked: VecDeque<OpId>,
    /// Whether it is in the core's list of links to try again.
    pub(super) runnable: bool,
}

/// What a link is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Not connected; dialled on the next use.
    Down,
    /// Being dialled.
    Connecting(PeerId),
    /// Connected.
    Up(PeerId),
}

impl Link {
    /// Takes an operation out of those that wait. They are in the order of their serial numbers,
    /// which may wrap.
    pub(super) fn unpark(&mut self, id: OpId) {
        let serial = |id: OpId| (id.0 >> 32) as u32;
        let Some(first) = self.parked.front().map(|first| serial(*first)) else { return };
        let age = |id: &OpId| serial(*id).wrapping_sub(first);
        if let Ok(at) = self.parked.binary_search_by_key(&age(&id), age) {
            self.parked.remove(at);
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Links {
    slots: Slab<Link>,
    next_serial: u32,
    by_address: HashMap<Address, LinkId>,
    pub(super) by_peer: HashMap<PeerId, LinkId>,
}

impl Links {
    pub(super) fn get_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        self.slots.get_mut(id.index as usize).filter(|link| link.serial == id.serial)
    }

    /// The link to an address; a new one, down, if there is none.
    pub(super) fn to(&mut self, address: &Address) -> LinkId {
        if let Some(id) = self.by_address.get(address) {
            return *id;
        }
        let id = self.insert(Some(address.clone()), State::Down);
        self.by_address.insert(address.clone(), id);
        id
    }

    /// Dials a link that is down, if it can be dialled.
    pub(super) fn dial(&mut self, id: LinkId, fabric: &mut dyn Fabric) {
        let Some(link) = self.get_mut(id) else { return };
        let Some(address) = &link.address else { return };
        let peer = fabric.connect(address);
        link.state = State::Connecting(peer);
        self.by_peer.insert(peer, id);
    }

    /// A link for a peer that dialled us.
    pub(super) fn accept(&mut self, peer: PeerId) -> LinkId {
        let id = self.insert(None, State::Up(peer));
        self.by_peer.insert(peer, id);
        id
    }

    /// Forgets a link that cannot be dialled again.
    pub(super) fn retire(&mut self, id: LinkId) {
        if self.get_mut(id).is_some_and(|link| link.address.is_none()) {
            self.slots.remove(id.index as usize);
        }
    }

    fn insert(&mut self, address: Option<Address>, state: State) -> LinkId {
        let serial = self.next_serial;
        self.next_serial = serial.wrapping_add(1);
        let parked = VecDeque::new();
        let link = Link { serial, address, state, last_end: None, parked, runnable: false };
        let index = self.slots.insert(link);
        LinkId { index: u32::try_from(index).expect("fewer than 2^32 links"), serial }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_found_across_the_wrap_of_serial_numbers() {
        let mut links = Links::default();
        let id = links.accept(PeerId(0));
        let link = links.get_mut(id).unwrap();
        let op = |serial: u32| OpId(u64::from(serial) << 32 | 7);
        let serials = [u32::MAX - 1, u32::MAX, 0, 3];
        for missing in serials {
            link.parked = serials.map(op).into();
            link.unpark(op(missing));
            link.unpark(op(1));
            let left: Vec<_> =
                serials.iter().filter(|it| **it != missing).map(|it| op(*it)).collect();
            assert_eq!(link.parked, left);
        }
    }
}
