//! The links of one worker: who is reached, where, and what waits for it.

use std::collections::VecDeque;
use std::ops::Range;

use hashbrown::HashMap;
use slab::Slab;

use crate::address::{Address, EngineId};
use crate::fabric::{Fabric, OpId, PeerId};
use crate::lane::{Class, Lane};
use crate::order::Order;
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
    /// Who is there, while it is up.
    pub(super) engine: Option<EngineId>,
    /// How many connections it has had.
    pub(super) connection: u32,
    /// Operations that wait, class by class, in order.
    pub(super) parked: [VecDeque<OpId>; Class::COUNT],
    /// Operations that are not forgotten.
    pub(super) ops: usize,
    /// What the fabric may still be given.
    pub(super) credits: Credits,
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

/// Transfers in bulk that a fabric has for one peer at once: beyond these they wait in the engine,
/// where they keep their priority and end at once when they are cancelled.
const BULK_OPS_MAX: u32 = 1024;
/// The bytes of these. One transfer is always let through, however long.
const BULK_BYTES_MAX: u64 = 128 << 20;

/// What a fabric has for one peer.
#[derive(Debug, Default)]
pub(super) struct Credits {
    bulk_ops: u32,
    bulk_bytes: u64,
}

impl Credits {
    /// Whether a transfer may be posted.
    pub(super) fn allow(&self, lane: Lane, bytes: u64) -> bool {
        match lane {
            Lane::Latency => true,
            Lane::Bulk => {
                self.bulk_ops == 0
                    || (self.bulk_ops < BULK_OPS_MAX
                        && self.bulk_bytes.saturating_add(bytes) <= BULK_BYTES_MAX)
            }
        }
    }

    /// Whether all have come back.
    pub(super) fn are_whole(&self) -> bool {
        self.bulk_ops == 0 && self.bulk_bytes == 0
    }

    /// One was posted and is under way.
    pub(super) fn take(&mut self, lane: Lane, bytes: u64) {
        if lane == Lane::Bulk {
            self.bulk_ops += 1;
            self.bulk_bytes += bytes;
        }
    }

    /// It has ended.
    pub(super) fn give_back(&mut self, lane: Lane, bytes: u64) {
        if lane == Lane::Bulk {
            self.bulk_ops -= 1;
            self.bulk_bytes -= bytes;
        }
    }
}

impl Link {
    /// Whether nothing that goes before this class waits.
    pub(super) fn goes_now(&self, class: Class) -> bool {
        self.parked[class.first_of_line()..=class.index()].iter().all(VecDeque::is_empty)
    }

    /// What goes next of some queues.
    pub(super) fn first_parked(&self, queues: Range<usize>) -> Option<OpId> {
        self.parked[queues].iter().find_map(VecDeque::front).copied()
    }

    pub(super) fn has_parked(&self) -> bool {
        self.parked.iter().any(|queue| !queue.is_empty())
    }

    /// Whether the engine that is there is not the one that the order is for.
    pub(super) fn is_somebody_else(&self, order: &Order<'_>) -> bool {
        let wanted = order.task.engine();
        wanted.is_some_and(|wanted| self.engine.is_some_and(|there| there != wanted))
    }

    /// Takes an operation out of those that wait. They are in the order of their serial numbers,
    /// which may wrap.
    pub(super) fn unpark(&mut self, class: Class, id: OpId) {
        let serial = |id: OpId| (id.0 >> 32) as u32;
        let queue = &mut self.parked[class.index()];
        let Some(first) = queue.front().map(|first| serial(*first)) else { return };
        let age = |id: &OpId| serial(*id).wrapping_sub(first);
        if let Ok(at) = queue.binary_search_by_key(&age(&id), age) {
            queue.remove(at);
        }
    }
}

#[derive(Debug)]
pub(super) struct Links {
    slots: Slab<Link>,
    next_serial: u32,
    by_address: HashMap<Address, LinkId>,
    pub(super) by_peer: HashMap<PeerId, LinkId>,
}

impl Links {
    /// None yet. Their serial numbers start somewhere else in each engine, so that a peer of one is
    /// nobody in another.
    pub(super) fn of(engine: EngineId) -> Self {
        Self {
            slots: Slab::new(),
            next_serial: (engine.0 >> 32) as u32,
            by_address: HashMap::new(),
            by_peer: HashMap::new(),
        }
    }

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

    /// Whether nothing is under way: all credits came back.
    pub(super) fn are_idle(&self) -> bool {
        self.slots.iter().all(|(_, link)| link.ops == 0 && link.credits.are_whole())
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
        let link = Link {
            serial,
            address,
            state,
            last_end: None,
            engine: None,
            connection: 0,
            parked: Default::default(),
            ops: 0,
            credits: Credits::default(),
            runnable: false,
        };
        let index = self.slots.insert(link);
        LinkId { index: u32::try_from(index).expect("fewer than 2^32 links"), serial }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_found_across_the_wrap_of_serial_numbers() {
        let mut links = Links::of(EngineId(0));
        let id = links.accept(PeerId(0));
        let link = links.get_mut(id).unwrap();
        let op = |serial: u32| OpId(u64::from(serial) << 32 | 7);
        let serials = [u32::MAX - 1, u32::MAX, 0, 3];
        for missing in serials {
            let class = Class::default();
            link.parked[class.index()] = serials.map(op).into();
            link.unpark(class, op(missing));
            link.unpark(class, op(1));
            let left: Vec<_> =
                serials.iter().filter(|it| **it != missing).map(|it| op(*it)).collect();
            assert_eq!(link.parked[class.index()], left);
        }
    }
}
