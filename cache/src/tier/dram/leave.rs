//! How blocks leave: eviction, removal, expiry.

use super::moves::Victim;
use super::{Dram, Due, Filling, ScopeRef, Source, State, TIER};
use crate::arena::{Extent, footprint};
use crate::block::{Generation, LeaseId, Revocation};
use crate::catalog::Slot;
use crate::error::{Refusal, Why};
use crate::events::Change;
use crate::identity::IdentityId;
use crate::key::Key;
use crate::limits::{EVICT_FACTOR_MAX, RETRY_DEFAULT, RETRY_DEMOTING, RETRY_MAX, SCAN_BLOCKS};
use crate::lineage::Link;
use crate::policy::{BlockId, Removal, Traits};
use crate::store::Item;
use crate::tier::Tier;
use crate::time::Millis;

/// How far an operation over all blocks got; see [`Dram::clear_some`].
pub(crate) struct Sweep {
    next: usize,
    before: u64,
}

impl Dram {
    /// Space for a block, evicting in the policy's order if need be and if the policy finds it worth
    /// that.
    pub(super) fn make_room(
        &mut self,
        (scope, source): (&ScopeRef, Source),
        item: &Item,
        now: Millis,
    ) -> Result<Extent, Refusal> {
        // What somebody asks for comes up whatever it displaces, and what a tier below takes passes
        // through here.
        let choosy = source == Source::Put && !self.stack.takes_new();
        let need = footprint(item.len);
        let Link { key, parent, .. } = item.link;
        let newcomer = Traits { scope: scope.index, key, parent, bytes: need };
        // What stays whatever is evicted. Without this check a request that cannot succeed would
        // empty the cache first.
        let tally = &self.tally;
        let stuck =
            tally.filling.bytes + tally.revoking.bytes + tally.doomed.bytes + tally.held.bytes;
        if stuck.saturating_add(need) > self.quota.min(self.extents.capacity_bytes()) {
            return Err(self.full(need, stuck, now));
        }
        let mut budget = need.saturating_mul(EVICT_FACTOR_MAX);
        let leaving_max = need.saturating_mul(2);
        loop {
            let used = self.extents.used_bytes();
            if used + need <= self.quota
                && let Some(extent) = self.extents.take(item.len)
            {
                return Ok(extent);
            }
            // A quota that was lowered may take more than one block's worth of evictions.
            let more = budget > 0 || used + need > self.quota;
            let leaf = if more { self.next_victim(now) } else { None };
            if let Some(leaf) = leaf
                && choosy
                && !self.policy.admit(&newcomer, BlockId(leaf), now)
            {
                self.counters.not_admitted += 1;
                return Err(Refusal { why: Why::NotAdmitted(key), retry_after: None });
            }
            let inner = |dram: &mut Self| if more { dram.inner_victim() } else { None };
            let Some(victim) = leaf.or_else(|| inner(self)) else {
                return Err(self.full(need, used, now));
            };
            match self.send_off(victim, leaving_max) {
                Victim::Gone(evicted) => budget = budget.saturating_sub(evicted),
                Victim::Leaving(_) => {}
                Victim::Waits => return Err(self.full(need, used, now)),
            }
        }
    }

    fn full(&self, need: u64, held: u64, now: Millis) -> Refusal {
        let moving = self.tally.moving.bytes;
        if moving > 0 && (held - moving.min(held)).saturating_add(need) <= self.quota {
            return Refusal {
                why: Why::Demoting { need, moving },
                retry_after: Some(RETRY_DEMOTING),
            };
        }
        let why = if held.saturating_add(need) > self.quota {
            Why::OverQuota { need, held, quota: self.quota }
        } else {
            let largest = self.extents.largest_free_bytes();
            Why::NoRoom { need, largest, capacity: self.extents.capacity_bytes() }
        };
        let next = self.deadlines.iter().find(|(_, due)| !matches!(due, Due::Block(_)));
        let wait = next.map_or(RETRY_DEFAULT, |(at, _)| *at - now);
        Refusal { why, retry_after: Some(wait.clamp(Millis(1), RETRY_MAX)) }
    }

    /// The policy's next victim, which may leave: nothing holds it.
    fn next_victim(&mut self, now: Millis) -> Option<Slot> {
        let BlockId(slot) = self.policy.victim(now)?;
        let idle = self.is_idle(slot);
        if !idle {
            self.counters.policy_faults += 1;
        }
        idle.then_some(slot)
    }

    /// A block that may leave memory although others follow it, because a tier below has it or takes
    /// it, so that its chain gets no hole. Chains longer than memory pass through it that way; it is
    /// asked for when no leaf is left, and looks at some of the blocks in turn.
    fn inner_victim(&mut self) -> Option<Slot> {
        if self.stack.is_empty() {
            return None;
        }
        let slots = self.blocks.capacity();
        for _ in 0..slots.min(SCAN_BLOCKS) {
            self.hand = if self.hand + 1 < slots { self.hand + 1 } else { 0 };
            let slot = self.hand as Slot;
            if self.blocks.contains(self.hand) && self.is_free(slot) && self.has_a_way_down(slot) {
                return Some(slot);
            }
        }
        None
    }

    /// Whether nobody holds a block in place: resident, not leased and not pinned.
    pub(super) fn is_free(&self, slot: Slot) -> bool {
        let block = self.block(slot);
        block.is_resident() && block.leases == 0 && !block.pinned
    }

    /// Whether a block may be evicted: resident, not leased, not pinned, and nothing follows it.
    pub(super) fn is_idle(&self, slot: Slot) -> bool {
        self.blocks.contains(slot as usize) && self.is_free(slot) && self.children(slot) == 0
    }

    /// Evicts until `bytes` came back or no candidate is left; returns what came back. Stops after
    /// some blocks, so that the lock is held shortly: done when less than asked for came back and
    /// the second value is false.
    pub(crate) fn evict_some(&mut self, bytes: u64, now: Millis) -> (u64, bool) {
        let mut freed = 0;
        for _ in 0..SCAN_BLOCKS {
            if freed >= bytes {
                return (freed, false);
            }
            let Some(victim) = self.next_victim(now) else { return (freed, false) };
            match self.send_off(victim, 0) {
                Victim::Gone(some) | Victim::Leaving(some) => freed += some,
                Victim::Waits => return (freed, false),
            }
        }
        (freed, freed < bytes)
    }

    /// What must be evicted to get from above the high watermark to the low one, bytes.
    pub(crate) fn excess(&self) -> u64 {
        let limit = self.quota.min(self.extents.capacity_bytes());
        let mark = |percent: u8| (u128::from(limit) * u128::from(percent) / 100) as u64;
        let used = self.extents.used_bytes() - self.leaving_bytes;
        if used > mark(self.watermarks.high) {
            used - mark(self.watermarks.low).min(used)
        } else {
            0
        }
    }

    /// A resident block leaves: lookups miss it from now on. Its space is free at once, or on the
    /// last release.
    pub(super) fn leave(&mut self, slot: Slot, why: Removal) {
        let block = self.block_mut(slot);
        debug_assert!(block.is_resident());
        let (link, scope, bytes, expires) =
            (block.link, block.scope, block.extent.bytes(), block.expires());
        let (held, pinned, leased) = (block.held, block.pinned, block.leases > 0);
        let part = block.part;
        block.state = State::Doomed;
        block.candidate = false;
        block.held = false;
        block.pinned = false;

        self.policy.on_remove(BlockId(slot), why);
        self.not_due(expires, Due::Block(slot));
        self.tally.resident.sub(bytes);
        if held {
            self.tally.held.sub(bytes);
        }
        if pinned {
            self.tally.pinned.sub(bytes);
        }
        self.counters.left(why);
        self.scopes[scope as usize].catalog.unlink(link.key);
        self.orphan(scope, link);
        if why != Removal::Cleared && !part {
            self.tell(scope, Change::Removed { key: link.key, tier: TIER, why });
        }
        if leased {
            self.tally.doomed.add(bytes);
        } else {
            self.free(slot);
        }
    }

    /// Removes the resident ones of `keys`, pinned or not, and stops those that are coming up; tells of
    /// those that are removed from the tiers `below`.
    pub(crate) fn remove(&mut self, scope: &ScopeRef, keys: &[Key], below: &[(Key, Tier)]) {
        if self.catalog(scope).is_none() {
            return;
        }
        for key in keys {
            if let Some(slot) = self.resident(scope, *key) {
                self.leave(slot, Removal::Removed);
            } else if let Some(slot) = self.coming_up(scope, *key) {
                self.revoke(slot, Revocation::Removed);
            }
        }
        for &(key, tier) in below {
            self.tell(scope.index, Change::Removed { key, tier, why: Removal::Removed });
        }
    }

    /// The block of `key`, if it is coming up from a tier below.
    fn coming_up(&self, scope: &ScopeRef, key: Key) -> Option<Slot> {
        let slot = self.catalog(scope)?.get(key)?.slot()?;
        self.is_coming_up(slot).then_some(slot)
    }

    fn is_coming_up(&self, slot: Slot) -> bool {
        let source = |filling: &Filling| filling.source != Source::Put;
        matches!(&self.block(slot).state, State::Filling(filling) if source(filling))
    }

    /// Drops the block if it still is the one that a reader found wrong.
    pub(crate) fn mark_corrupt(&mut self, scope: IdentityId, key: Key, found: Generation) -> bool {
        let Some((_, state)) = self.scopes.iter().find(|(_, state)| state.id == scope) else {
            return false;
        };
        let Some(slot) = state.catalog.resident(key) else { return false };
        let same = self.block(slot).generation == found;
        if same {
            self.leave(slot, Removal::Corrupt);
        }
        same
    }

    /// Begins to clear a scope: blocks stored before this call will go.
    pub(crate) fn begin_clear(&mut self, scope: &ScopeRef) -> Option<Sweep> {
        self.catalog(scope)?;
        self.tell(scope.index, Change::Cleared);
        Some(Sweep { next: 0, before: self.number() })
    }

    /// Clears some blocks of a scope; returns how many, and whether more may be left.
    pub(crate) fn clear_some(&mut self, scope: &ScopeRef, sweep: &mut Sweep) -> (usize, bool) {
        if self.catalog(scope).is_none() {
            return (0, false);
        }
        let end = (sweep.next + SCAN_BLOCKS).min(self.blocks.capacity());
        let mut cleared = 0;
        for slot in sweep.next..end {
            let Some(block) = self.blocks.get(slot) else { continue };
            let old = block.stored < sweep.before && block.scope == scope.index;
            if old && block.is_resident() {
                self.leave(slot as Slot, Removal::Cleared);
                cleared += 1;
            } else if block.scope == scope.index
                && block.generation.0 < sweep.before
                && self.is_coming_up(slot as Slot)
            {
                self.revoke(slot as Slot, Revocation::Removed);
            }
        }
        sweep.next = end;
        (cleared, end < self.blocks.capacity())
    }

    /// Removes an identity with all its blocks; revokes what is being filled under it. Returns how
    /// many blocks were readable.
    pub(crate) fn close_scope(&mut self, scope: &ScopeRef) -> Option<usize> {
        self.catalog(scope)?;
        self.tell(scope.index, Change::Cleared);
        let catalog = &self.scopes[scope.index as usize].catalog;
        let slots: Vec<Slot> = catalog.iter().filter_map(|(_, entry)| entry.slot()).collect();
        let mut cleared = 0;
        for slot in slots {
            if self.block(slot).is_resident() {
                self.leave(slot, Removal::Cleared);
                cleared += 1;
            } else {
                self.revoke(slot, Revocation::Closed);
            }
        }
        self.scopes.remove(scope.index as usize);
        Some(cleared)
    }

    /// Acts on some of the deadlines up to `now`. Reservations and leases that are due are reported
    /// once, so that whoever holds them lets go. Returns how many blocks left, and whether more is
    /// due.
    pub(crate) fn expire_some(
        &mut self,
        now: Millis,
        reservations: &mut Vec<Generation>,
        leases: &mut Vec<LeaseId>,
    ) -> (usize, bool) {
        self.now = self.now.max(now);
        let mut blocks = 0;
        for _ in 0..SCAN_BLOCKS {
            let Some(&(at, due)) = self.deadlines.first() else { break };
            if at > now {
                break;
            }
            match due {
                Due::Fill(slot) => {
                    reservations.push(self.block(slot).generation);
                    self.revoke(slot, Revocation::Deadline);
                }
                Due::Lease(id) => {
                    leases.push(id);
                    self.lapse(id);
                }
                Due::Block(slot) => {
                    self.leave(slot, Removal::Expired);
                    blocks += 1;
                }
            }
        }
        (blocks, self.next_deadline().is_some_and(|at| at <= now))
    }

    /// When [`expire_some`](Self::expire_some) has something to do next.
    pub(crate) fn next_deadline(&self) -> Option<Millis> {
        self.deadlines.first().map(|(at, _)| *at)
    }
}
