//! Blocks on their way to the tiers below, kept in place until they are there.
//!
//! A block that departs counts one lease for each tier it goes to, so it stays where it is, whatever
//! happens, until the tier has answered. One that was chosen to leave memory leaves when all of them
//! have, unless it was used meanwhile.

use super::{Dram, ScopeRef, State};
use crate::catalog::Slot;
use crate::events::Change;
use crate::identity::IdentityId;
use crate::key::Key;
use crate::limits::SCAN_BLOCKS;
use crate::lineage::Link;
use crate::policy::Removal;
use crate::tier::cold::Name;
use crate::tier::{Ingest, Tier};
use crate::time::Millis;

/// Of the quota, this part may be on its way out at once.
const LEAVING_SHARE: u64 = 8;
/// Of the quota, this part may be kept in place by blocks that are only copied.
const MOVING_SHARE: u64 = 4;

/// A block that was chosen for a tier below, and is kept in place for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Departing {
    pub(crate) slot: Slot,
    pub(crate) to: Tier,
    pub(crate) identity: IdentityId,
    pub(crate) link: Link,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) checksum: u64,
    pub(crate) expires: Option<Millis>,
}

/// What became of a victim.
pub(super) enum Victim {
    /// It is gone; its space, bytes.
    Gone(u64),
    /// It leaves once the tiers below have it; its space, bytes.
    Leaving(u64),
    /// It may not leave now: enough is on its way already.
    Waits,
}

/// Whether a tier takes a block that was used so often, and leaves memory.
fn takes_evicted(ingest: Ingest, hits: u64) -> bool {
    match ingest {
        Ingest::All | Ingest::Evicted => true,
        Ingest::Hot => hits > 0,
    }
}

impl Dram {
    /// The name of a block in the tiers below.
    pub(super) fn name(&self, slot: Slot) -> Name {
        let block = self.block(slot);
        Name { identity: self.scopes[block.scope as usize].id, key: block.link.key }
    }

    /// Offers a block that became readable to the tiers that take every block.
    pub(super) fn write_through(&mut self, slot: Slot) {
        self.offer(slot, |ingest| ingest == Ingest::All);
    }

    /// Offers a block that is used for the first time to the tiers that take those.
    pub(super) fn write_hot(&mut self, slot: Slot) {
        self.offer(slot, |ingest| ingest == Ingest::Hot);
    }

    /// A tier that is slower than what is put must not hold all of memory in place: beyond some share
    /// blocks are passed over, and offered again when they are evicted.
    fn offer(&mut self, slot: Slot, wanted: impl Fn(Ingest) -> bool) {
        if self.tally.moving.bytes >= self.quota / MOVING_SHARE {
            return;
        }
        for tier in self.wanting(slot, wanted) {
            self.depart(slot, tier);
        }
    }

    /// Tiers that take the block in and do not have it.
    fn wanting(&self, slot: Slot, wanted: impl Fn(Ingest) -> bool) -> Vec<Tier> {
        if self.stack.is_empty() || self.block(slot).part {
            return Vec::new();
        }
        let name = self.name(slot);
        let levels = self.stack.levels().iter();
        let wanting = levels.filter(|level| level.is_open() && wanted(level.ingest));
        wanting.filter(|level| !level.cold.contains(&name)).map(|level| level.cold.tier()).collect()
    }

    /// Whether a tier below has the block.
    fn is_below(&self, slot: Slot) -> bool {
        self.stack.holder(&self.name(slot)).is_some()
    }

    /// Whether a tier below has the block, or takes it.
    pub(super) fn has_a_way_down(&self, slot: Slot) -> bool {
        let hits = self.block(slot).hits;
        self.is_below(slot) || !self.wanting(slot, |ingest| takes_evicted(ingest, hits)).is_empty()
    }

    /// Asks a resident block, which nothing holds, to leave: at once, or by way of the tiers that
    /// want it.
    pub(super) fn send_off(&mut self, slot: Slot, limit: u64) -> Victim {
        let block = self.block(slot);
        let (bytes, hits) = (block.extent.bytes(), block.hits);
        let wanting = self.wanting(slot, |ingest| takes_evicted(ingest, hits));
        if wanting.is_empty() {
            self.leave(slot, Removal::Evicted);
            return Victim::Gone(bytes);
        }
        if self.leaving_bytes >= limit.max(self.quota / LEAVING_SHARE) {
            return Victim::Waits;
        }
        self.leaving_bytes += bytes;
        self.block_mut(slot).leaving = Some(hits);
        for tier in wanting {
            self.depart(slot, tier);
        }
        Victim::Leaving(bytes)
    }

    /// Keeps a resident block in place until a tier below has answered for it.
    fn depart(&mut self, slot: Slot, to: Tier) {
        let identity = self.name(slot).identity;
        let block = self.block_mut(slot);
        if block.moves.contains(to) {
            return;
        }
        block.leases += 1;
        let first = block.moves.is_empty();
        block.moves.insert(to);
        let departing = Departing {
            slot,
            to,
            identity,
            link: block.link,
            offset: block.extent.offset(),
            len: block.len,
            checksum: block.checksum,
            expires: block.expires(),
        };
        let bytes = block.extent.bytes();
        if first {
            self.tally.moving.add(bytes);
        }
        self.weigh(slot);
        self.effects.departing.push(departing);
    }

    /// Sends the resident ones of `keys` to a tier that does not have them. Returns those that are on
    /// their way there, each once.
    pub(crate) fn persist(&mut self, scope: &ScopeRef, keys: &[Key], to: Tier) -> Vec<Key> {
        let mut coming = Vec::new();
        for key in keys {
            let Some(slot) = self.resident(scope, *key) else { continue };
            let name = self.name(slot);
            let there = self.stack.level(to).is_none_or(|level| level.cold.contains(&name));
            if self.block(slot).part || there && !self.block(slot).moves.contains(to) {
                continue;
            }
            self.depart(slot, to);
            coming.push(*key);
        }
        coming.sort_unstable();
        coming.dedup();
        coming
    }

    /// Sends blocks, from the place `from` on, to the tiers that would get them when they are evicted,
    /// until `bytes` are on their way. Returns where to go on, if blocks may be left.
    pub(crate) fn evacuate_some(&mut self, from: usize, bytes: u64) -> Option<usize> {
        let places = self.blocks.capacity();
        for place in from..places.min(from.saturating_add(SCAN_BLOCKS)) {
            if self.tally.moving.bytes >= bytes {
                return Some(place);
            }
            let Some(block) = self.blocks.get(place) else { continue };
            if block.is_resident() && block.moves.is_empty() {
                let hits = block.hits;
                for tier in self.wanting(place as Slot, |ingest| takes_evicted(ingest, hits)) {
                    self.depart(place as Slot, tier);
                }
            }
        }
        Some(from.saturating_add(SCAN_BLOCKS)).filter(|next| *next < places)
    }

    /// Whether a block that departs is still wanted: it was not removed meanwhile.
    pub(crate) fn is_wanted(&self, slot: Slot) -> bool {
        self.block(slot).is_resident()
    }

    /// A tier below has answered for a block: it has it (`stored`), or could not take it. Returns
    /// whether the block is still wanted.
    pub(crate) fn arrived(&mut self, slot: Slot, tier: Tier, stored: bool) -> bool {
        let block = self.block_mut(slot);
        block.moves.remove(tier);
        let (last, wanted) = (block.moves.is_empty(), block.is_resident());
        let (bytes, scope) = (block.extent.bytes(), block.scope);
        let (link, len) = (block.link, block.len);
        if last {
            self.tally.moving.sub(bytes);
        }
        if stored && wanted {
            self.counters.demoted[tier as usize] += 1;
            self.tell(scope, Change::Stored { link, len, tier });
        } else {
            self.counters.undemoted[tier as usize] += 1;
        }
        let leaves = last.then(|| self.block_mut(slot).leaving.take()).flatten();
        if leaves.is_some() {
            self.leaving_bytes -= bytes;
        }
        self.unlease(slot);
        if let Some(hits) = leaves
            && wanted
            && self.block(slot).hits == hits
            && self.is_free(slot)
            && (self.children(slot) == 0 || self.is_below(slot))
        {
            self.leave(slot, Removal::Evicted);
        }
        wanted
    }

    /// Ends one lease on a block.
    pub(super) fn unlease(&mut self, slot: Slot) {
        let block = self.block_mut(slot);
        block.leases -= 1;
        if block.leases > 0 {
            return;
        }
        if matches!(block.state, State::Doomed) {
            let bytes = block.extent.bytes();
            self.tally.doomed.sub(bytes);
            self.free(slot);
        } else {
            self.weigh(slot);
        }
    }
}
