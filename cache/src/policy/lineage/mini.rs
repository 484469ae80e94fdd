//! A miniature of the cache: a sample of all blocks, in a sampled part of the space, under one order
//! of eviction. Its hits tell what that order would make of the whole (Waldspurger, Saemundsson,
//! Ahmad and Park, "Cache modeling and optimization using miniature simulations", ATC 2017).
//!
//! A block is in the sample by its name, so chains shrink to shorter chains, and leaves leave first
//! here as everywhere.

use std::collections::HashMap;

use super::order::{Order, Rank};
use crate::key::Key;
use crate::policy::ghosts::Plain;
use crate::policy::{BlockId, Policy, Removal, Traits};
use crate::time::Millis;

/// Who ranks the blocks of a miniature.
pub(super) enum Ranking {
    /// The worth that lineage sees in them.
    Worth(Order),
    /// Another policy.
    Policy(Box<dyn Policy>),
}

/// The miniature.
pub(super) struct Mini {
    ranking: Ranking,
    at: HashMap<u64, BlockId, Plain>,
    blocks: Vec<Block>,
    free: Vec<BlockId>,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    name: u64,
    parent: Option<BlockId>,
    children: u32,
}

impl Mini {
    pub(super) fn new(ranking: Ranking) -> Self {
        Self { ranking, at: HashMap::default(), blocks: Vec::new(), free: Vec::new() }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.at.len()
    }

    /// Asks for the sampled blocks of a request and stores what is missing; returns the hits.
    pub(super) fn request(
        &mut self,
        names: &[u64],
        capacity: usize,
        worth: &impl Fn(u64) -> Rank,
        now: Millis,
    ) -> usize {
        let hits = names.iter().take_while(|name| self.at.contains_key(name)).count();
        let mut parent = None;
        for (index, name) in names[..hits].iter().enumerate().rev() {
            let id = self.at[name];
            if index + 1 == hits {
                parent = Some(id);
            }
            if let Ranking::Policy(policy) = &mut self.ranking {
                policy.on_hit(id, now);
            }
        }
        for name in &names[hits..] {
            match self.insert(*name, parent, capacity, worth, now) {
                Some(id) => parent = Some(id),
                None => break,
            }
        }
        hits
    }

    fn insert(
        &mut self,
        name: u64,
        parent: Option<BlockId>,
        capacity: usize,
        worth: &impl Fn(u64) -> Rank,
        now: Millis,
    ) -> Option<BlockId> {
        self.adopt(parent);
        while self.at.len() >= capacity {
            let Some(victim) = self.victim(name, worth, now) else {
                self.orphan(parent);
                return None;
            };
            self.evict(victim);
        }
        let block = Block { name, parent, children: 0 };
        let id = self.free.pop().unwrap_or_else(|| {
            self.blocks.push(block);
            BlockId(self.blocks.len() as u32 - 1)
        });
        self.blocks[id.0 as usize] = block;
        self.at.insert(name, id);
        match &mut self.ranking {
            Ranking::Worth(order) => order.insert(id),
            Ranking::Policy(policy) => policy.on_insert(id, &traits(name), now),
        }
        Some(id)
    }

    /// What leaves for `name`; none if that should not be stored.
    fn victim(&mut self, name: u64, worth: &impl Fn(u64) -> Rank, now: Millis) -> Option<BlockId> {
        match &mut self.ranking {
            Ranking::Worth(order) => {
                let blocks = &self.blocks;
                let victim = order.least(|id| worth(blocks[id.0 as usize].name))?;
                let least = worth(blocks[victim.0 as usize].name);
                (worth(name).0 >= least.0).then_some(victim)
            }
            Ranking::Policy(policy) => policy.victim(now),
        }
    }

    fn evict(&mut self, id: BlockId) {
        let Block { name, parent, .. } = self.blocks[id.0 as usize];
        self.remove(id, name, Removal::Evicted);
        self.orphan(parent);
    }

    fn remove(&mut self, id: BlockId, name: u64, why: Removal) {
        match &mut self.ranking {
            Ranking::Worth(order) => order.remove(id),
            Ranking::Policy(policy) => policy.on_remove(id, why),
        }
        self.at.remove(&name);
        self.free.push(id);
    }

    fn hold(&mut self, id: BlockId) {
        match &mut self.ranking {
            Ranking::Worth(order) => order.remove(id),
            Ranking::Policy(policy) => policy.on_hold(id),
        }
    }

    fn release(&mut self, id: BlockId) {
        match &mut self.ranking {
            Ranking::Worth(order) => order.insert(id),
            Ranking::Policy(policy) => policy.on_free(id),
        }
    }

    fn adopt(&mut self, parent: Option<BlockId>) {
        let Some(id) = parent else { return };
        self.blocks[id.0 as usize].children += 1;
        if self.blocks[id.0 as usize].children == 1 {
            self.hold(id);
        }
    }

    fn orphan(&mut self, parent: Option<BlockId>) {
        let Some(id) = parent else { return };
        self.blocks[id.0 as usize].children -= 1;
        if self.blocks[id.0 as usize].children == 0 {
            self.release(id);
        }
    }

    /// Keeps a smaller sample: chains close over what is left out.
    pub(super) fn thin(&mut self, kept: impl Fn(u64) -> bool) {
        let mut out: Vec<(u64, BlockId)> = self
            .at
            .iter()
            .map(|(name, id)| (*name, *id))
            .filter(|(name, _)| !kept(*name))
            .collect();
        out.sort_unstable();
        for id in self.at.values() {
            let mut parent = self.blocks[id.0 as usize].parent;
            while let Some(above) = parent.map(|above| self.blocks[above.0 as usize])
                && !kept(above.name)
            {
                parent = above.parent;
            }
            self.blocks[id.0 as usize].parent = parent;
        }
        let mut children = vec![0; self.blocks.len()];
        for (_, id) in self.at.iter().filter(|(name, _)| kept(**name)) {
            if let Some(parent) = self.blocks[id.0 as usize].parent {
                children[parent.0 as usize] += 1;
            }
        }
        for (name, id) in out {
            self.remove(id, name, Removal::Removed);
        }
        let mut left: Vec<BlockId> = self.at.values().copied().collect();
        left.sort_unstable();
        for id in left {
            let before = std::mem::replace(
                &mut self.blocks[id.0 as usize].children,
                children[id.0 as usize],
            );
            match (before, children[id.0 as usize]) {
                (0, 0) => {}
                (0, _) => self.hold(id),
                (_, 0) => self.release(id),
                _ => {}
            }
        }
    }
}

fn traits(name: u64) -> Traits {
    let key = Key::from_bytes(u128::from(name).to_le_bytes());
    Traits { scope: 0, key, parent: None, bytes: 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Name;

    const NOW: Millis = Millis(1);

    fn ask(mini: &mut Mini, names: &[u64], capacity: usize) -> usize {
        mini.request(names, capacity, &|name| (name as f32, 0), NOW)
    }

    #[test]
    fn it_is_a_cache_of_chains() {
        for name in Name::ALL {
            let mut mini = Mini::new(Ranking::Policy(name.policy()));
            assert_eq!(ask(&mut mini, &[1, 2, 3], 4), 0);
            assert_eq!(ask(&mut mini, &[1, 2, 3], 4), 3);
            assert_eq!(ask(&mut mini, &[7, 8], 4), 0);
            assert!(mini.len() <= 4 && ask(&mut mini, &[1], 4) == 1);
        }
    }

    #[test]
    fn what_is_worth_less_stays_out() {
        let mut mini = Mini::new(Ranking::Worth(Order::new()));
        ask(&mut mini, &[10, 20, 30], 3);
        assert_eq!(ask(&mut mini, &[5], 3), 0);
        assert_eq!(ask(&mut mini, &[10, 20, 30], 3), 3);
        assert_eq!(ask(&mut mini, &[40], 3), 0);
        assert_eq!(ask(&mut mini, &[10, 20, 30], 3), 2);
    }

    #[test]
    fn a_thinner_sample_is_whole_in_itself() {
        for name in Name::ALL {
            let mut mini = Mini::new(Ranking::Policy(name.policy()));
            ask(&mut mini, &[1, 2, 3, 4], usize::MAX);
            ask(&mut mini, &[1, 2, 5, 6], usize::MAX);
            mini.thin(|name| name % 2 == 0);
            assert_eq!(mini.len(), 3);
            assert_eq!(ask(&mut mini, &[2, 4], usize::MAX), 2);
            assert_eq!(ask(&mut mini, &[2, 6], usize::MAX), 2);
            // Down to nothing, leaf by leaf: who is a candidate was kept right.
            for capacity in [2, 1] {
                ask(&mut mini, &[100 + capacity as u64], capacity);
                assert!(mini.len() <= capacity, "{name}");
            }
        }
    }
}
