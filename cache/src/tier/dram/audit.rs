//! The invariants of the bookkeeping, checked the slow and plain way.

use std::collections::HashMap;

use super::{Block, Dram, Due, State};
use crate::catalog::{Presence, Slot};
use crate::key::Key;
use crate::stats::Amount;

/// Fails with a message unless the condition holds.
macro_rules! ensure {
    ($holds:expr, $($told:tt)+) => {
        if !$holds {
            return Err(format!($($told)+));
        }
    };
}

impl Dram {
    /// Recounts everything; O(blocks).
    pub(crate) fn audit(&self) -> Result<(), String> {
        self.audit_space()?;
        self.audit_catalogs()?;
        self.audit_blocks()?;
        self.audit_sessions()
    }

    /// Extents are disjoint and their sum is what is used.
    fn audit_space(&self) -> Result<(), String> {
        let extents = self.blocks.iter().map(|(_, b)| (b.extent.offset(), b.extent.bytes()));
        let mut extents: Vec<_> = extents.collect();
        extents.sort_unstable();
        for pair in extents.windows(2) {
            ensure!(pair[0].0 + pair[0].1 <= pair[1].0, "extents overlap: {pair:?}");
        }
        let used: u64 = extents.iter().map(|(_, bytes)| bytes).sum();
        ensure!(used == self.extents.used_bytes(), "{used} bytes are owned, not as counted");
        Ok(())
    }

    /// Catalogs and blocks name each other, and children are counted right.
    fn audit_catalogs(&self) -> Result<(), String> {
        let mut children: HashMap<(u32, Key), u32> = HashMap::new();
        let mut present = 0;
        for (slot, block) in &self.blocks {
            if matches!(block.state, State::Revoked(_) | State::Doomed) {
                continue;
            }
            present += 1;
            let key = block.link.key;
            let entry = self.scopes[block.scope as usize].catalog.get(key);
            let entry = entry.ok_or_else(|| format!("block {key} is not in its catalog"))?;
            ensure!(entry.slot() == Some(slot as Slot), "the catalog has another block for {key}");
            let resident = matches!(entry.presence(), Presence::Resident(_));
            ensure!(resident == block.is_resident(), "the catalog is wrong about {key}");
            if let Some(parent) = block.link.parent {
                *children.entry((block.scope, parent)).or_default() += 1;
            }
        }
        let mut named = 0;
        for (index, scope) in &self.scopes {
            for (key, entry) in scope.catalog.iter() {
                named += usize::from(entry.slot().is_some());
                let real = children.get(&(index as u32, key)).copied().unwrap_or(0);
                ensure!(entry.children() == real, "{key} has {real} children, not as counted");
                ensure!(entry.slot().is_some() || real > 0, "{key} is remembered for nothing");
            }
        }
        ensure!(named == present, "{named} blocks in catalogs, {present} present");
        Ok(())
    }

    /// Flags and amounts follow from the blocks' states.
    fn audit_blocks(&self) -> Result<(), String> {
        let (mut filling, mut revoking, mut resident) = <(Amount, Amount, Amount)>::default();
        let (mut doomed, mut held, mut pinned) = <(Amount, Amount, Amount)>::default();
        let (mut moving, mut leaving) = (Amount::default(), 0);
        for (slot, block) in &self.blocks {
            let (key, bytes) = (block.link.key, block.extent.bytes());
            ensure!(block.leases >= block.moves.len(), "block {key} moves unprotected");
            ensure!(
                block.leaving.is_none() || !block.moves.is_empty(),
                "block {key} leaves for nowhere"
            );
            if !block.moves.is_empty() {
                moving.add(bytes);
            }
            leaving += if block.leaving.is_some() { bytes } else { 0 };
            match block.state {
                State::Filling(_) => filling.add(bytes),
                State::Revoked(_) => revoking.add(bytes),
                State::Doomed => {
                    ensure!(block.leases > 0, "doomed block {key} has no lease to wait for");
                    doomed.add(bytes);
                }
                State::Resident => {
                    resident.add(bytes);
                    let is_held = block.leases > 0 || block.pinned;
                    ensure!(block.held == is_held, "block {key} is held: {is_held}");
                    let idle = !is_held && self.children(slot as Slot) == 0;
                    ensure!(block.candidate == idle, "block {key} may leave: {idle}");
                    if is_held {
                        held.add(bytes);
                    }
                    if block.pinned {
                        pinned.add(bytes);
                    }
                }
            }
        }
        let real = [filling, revoking, resident, doomed, held, pinned, moving];
        let t = &self.tally;
        let counted = [t.filling, t.revoking, t.resident, t.doomed, t.held, t.pinned, t.moving];
        ensure!(leaving == self.leaving_bytes, "{leaving} bytes leave, not as counted");
        ensure!(real == counted, "amounts are {real:?}, but {counted:?} are counted");
        Ok(())
    }

    /// Sessions, leases and deadlines name what exists.
    fn audit_sessions(&self) -> Result<(), String> {
        let (mut fills, mut leases) = (0, 0);
        for (session, held) in &self.sessions {
            ensure!(held.fills.len() + held.leases.len() > 0, "{session:?} is kept for nothing");
            fills += held.fills.len() as u64;
            leases += held.leases.len();
            for slot in &held.fills {
                let owner = match &self.block(*slot).state {
                    State::Filling(filling) => Some(filling.session),
                    _ => None,
                };
                ensure!(owner == Some(*session), "{session:?} lists a slot of {owner:?}");
            }
        }
        ensure!(fills == self.tally.filling.blocks, "sessions fill {fills} blocks");
        ensure!(leases == self.leases.len(), "sessions have {leases} leases");
        for (at, due) in &self.deadlines {
            let real = match due {
                Due::Fill(slot) => match &self.block(*slot).state {
                    State::Filling(filling) => filling.deadline,
                    _ => None,
                },
                Due::Lease(id) => self.leases.get(id).and_then(|lease| lease.deadline),
                Due::Block(slot) => Some(self.block(*slot))
                    .filter(|block| block.is_resident())
                    .and_then(Block::expires),
            };
            ensure!(real == Some(*at), "a deadline at {at} belongs to nothing");
        }
        Ok(())
    }
}
