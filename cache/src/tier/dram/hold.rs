//! Leases and pins: what keeps blocks in place.

use super::{Dram, Due, LeaseRecord, ScopeRef};
use crate::block::{LeaseId, Outcome, SessionId};
use crate::catalog::{Presence, Slot};
use crate::key::Key;
use crate::policy::BlockId;
use crate::tier::cold::Name;
use crate::time::Millis;

/// What a lease is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Somebody wants the bytes: it counts, and the policy hears of it.
    Use,
    /// The bytes are compared with their checksum.
    Check,
}

impl Dram {
    /// Leases the resident ones of `keys`; a lease for a `check` is no use of theirs.
    pub(crate) fn lease(
        &mut self,
        session: SessionId,
        scope: &ScopeRef,
        keys: &[Key],
        deadline: Option<Millis>,
        purpose: Purpose,
        now: Millis,
    ) -> (LeaseId, Vec<Outcome>, Vec<Slot>) {
        let mut results = Vec::with_capacity(keys.len());
        let mut slots = Vec::with_capacity(keys.len());
        for key in keys {
            results.push(self.lease_one(scope, *key, &mut slots));
        }
        if purpose == Purpose::Use {
            self.count_use(&results, &slots, now);
        }
        let id = LeaseId(self.number());
        self.leases.insert(id, LeaseRecord { session, deadline });
        self.holdings(session).leases.insert(id);
        self.due(deadline, Due::Lease(id));
        (id, results, slots)
    }

    fn lease_one(&mut self, scope: &ScopeRef, key: Key, slots: &mut Vec<Slot>) -> Outcome {
        let Some(catalog) = self.catalog(scope) else { return Outcome::Gone };
        let found = catalog.get(key).map(|entry| (entry.presence(), entry.slot()));
        match found {
            Some((Presence::Resident(_), Some(slot))) => {
                let block = self.block_mut(slot);
                block.leases += 1;
                let view = block.view();
                self.weigh(slot);
                slots.push(slot);
                Outcome::Ready(view)
            }
            Some((Presence::InFlight, _)) => Outcome::Late,
            _ if self.stack.holder(&Name { identity: scope.id, key }).is_some() => Outcome::Late,
            _ => Outcome::Gone,
        }
    }

    fn count_use(&mut self, results: &[Outcome], slots: &[Slot], now: Millis) {
        // From the end to the start, so that a chain's root counts as used last, and leaves are
        // the first to be evicted.
        for &slot in slots.iter().rev() {
            let block = self.block_mut(slot);
            block.hits += 1;
            let first = block.hits == 1;
            self.policy.on_hit(BlockId(slot), now);
            if first {
                self.write_hot(slot);
            }
        }
        for outcome in results {
            *match outcome {
                Outcome::Ready(_) => &mut self.counters.leased,
                Outcome::Late => &mut self.counters.late,
                Outcome::Gone | Outcome::Corrupt => &mut self.counters.gone,
            } += 1;
        }
    }

    /// Ends a lease: its holder is gone.
    pub(crate) fn release(&mut self, id: LeaseId, slots: &[Slot]) {
        if let Some(lease) = self.leases.remove(&id) {
            self.close_lease(id, &lease);
        }
        for &slot in slots {
            self.unlease(slot);
        }
    }

    /// Counts a lease as over although its holder has it still; the blocks stay in place for it.
    pub(super) fn lapse(&mut self, id: LeaseId) {
        let lease = self.leases.remove(&id).expect("a lease lapses once");
        self.close_lease(id, &lease);
        self.counters.lapsed += 1;
    }

    /// Lapses all leases of a session; returns how many there were.
    pub(super) fn lapse_session(&mut self, session: SessionId) -> usize {
        let Some(held) = self.sessions.get(&session) else { return 0 };
        let leases: Vec<LeaseId> = held.leases.iter().copied().collect();
        for id in &leases {
            let lease = self.leases.remove(id).expect("a session's lease is known");
            self.close_lease(*id, &lease);
        }
        leases.len()
    }

    fn close_lease(&mut self, id: LeaseId, lease: &LeaseRecord) {
        self.not_due(lease.deadline, Due::Lease(id));
        self.holdings(lease.session).leases.remove(&id);
        self.tidy(lease.session);
    }

    /// Pins or unpins the resident ones of `keys`; returns how many changed.
    pub(crate) fn pin(&mut self, scope: &ScopeRef, keys: &[Key], pinned: bool) -> usize {
        let mut changed = 0;
        for key in keys {
            let Some(slot) = self.resident(scope, *key) else { continue };
            let block = self.block_mut(slot);
            if block.pinned == pinned {
                continue;
            }
            block.pinned = pinned;
            let bytes = block.extent.bytes();
            if pinned {
                self.tally.pinned.add(bytes);
            } else {
                self.tally.pinned.sub(bytes);
            }
            self.weigh(slot);
            changed += 1;
        }
        changed
    }
}
