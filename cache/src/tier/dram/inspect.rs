//! Looking at the blocks without changing them.

use super::{Dram, ScopeIndex, ScopeRef};
use crate::block::Info;
use crate::catalog::Slot;
use crate::identity::IdentityId;
use crate::key::Key;
use crate::limits::SCAN_BLOCKS;
use crate::stats::{Counters, Gauges};

impl Dram {
    /// What is known of one resident block.
    pub(crate) fn info(&self, scope: &ScopeRef, key: Key) -> Option<Info> {
        self.resident(scope, key).map(|slot| self.describe(slot))
    }

    /// Those of `keys` that are not resident.
    pub(crate) fn not_resident(&self, scope: &ScopeRef, keys: &[Key]) -> Vec<Key> {
        let absent = |key: &&Key| self.resident(scope, **key).is_none();
        keys.iter().filter(absent).copied().collect()
    }

    /// Appends resident blocks of a scope whose key passes `wanted` to `out`, until it has `max`.
    /// Returns where to go on, if more blocks may be left.
    pub(crate) fn list_some(
        &self,
        scope: &ScopeRef,
        from: usize,
        wanted: &dyn Fn(Key) -> bool,
        max: usize,
        out: &mut Vec<Info>,
    ) -> Option<usize> {
        self.catalog(scope)?;
        let end = from.saturating_add(SCAN_BLOCKS);
        for index in from..end {
            if index >= self.blocks.capacity() {
                return None;
            }
            if out.len() >= max {
                return Some(index);
            }
            let Some(block) = self.blocks.get(index) else { continue };
            let shown = block.is_resident() && !block.part;
            if shown && block.scope == scope.index && wanted(block.link.key) {
                out.push(self.describe(index as Slot));
            }
        }
        Some(end)
    }

    fn describe(&self, slot: Slot) -> Info {
        let block = self.block(slot);
        Info {
            view: block.view(),
            parent: block.link.parent,
            position: block.link.position,
            committed: block.committed,
            expires: block.expires(),
            hits: block.hits,
            leases: block.leases,
            pinned: block.pinned,
        }
    }

    /// The scope of an identity, if it is registered.
    pub(crate) fn scope(&self, id: IdentityId) -> Option<ScopeRef> {
        let (index, _) = self.scopes.iter().find(|(_, scope)| scope.id == id)?;
        Some(ScopeRef { index: index as ScopeIndex, id })
    }

    /// What the policy expects of a block, wherever it is; none if it remembers nothing of it.
    pub(crate) fn outlook(&self, scope: &ScopeRef, key: Key) -> Option<f32> {
        let (mark, age) = self.policy.recall(scope.index, key, self.now)?;
        Some(self.policy.worth(mark, age))
    }

    pub(crate) fn policy_name(&self) -> &'static str {
        self.policy.name()
    }

    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    pub(crate) fn gauges(&self) -> Gauges {
        let tally = &self.tally;
        Gauges {
            capacity_bytes: self.extents.capacity_bytes(),
            quota_bytes: self.quota,
            used_bytes: self.extents.used_bytes(),
            largest_free_bytes: self.extents.largest_free_bytes(),
            free_runs: self.extents.free_runs() as u64,
            filling: tally.filling,
            revoking: tally.revoking,
            resident: tally.resident,
            doomed: tally.doomed,
            held: tally.held,
            pinned: tally.pinned,
            moving: tally.moving,
            leases: self.leases.len() as u64,
            scopes: self.scopes.len() as u64,
        }
    }
}
