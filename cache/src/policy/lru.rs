//! Least recently used.

use std::collections::BTreeSet;

use super::{BlockId, Mark, Policy, Removal, Traits, worth};
use crate::time::Millis;

/// Evicts the candidate that was used longest ago.
///
/// Blocks are ordered by the number of their last use, so a block that was held keeps its place.
/// A chain that is used from its end to its root (as the store does) leaves leaf by leaf.
/// Each call is O(log candidates) or better.
#[derive(Debug, Default)]
pub struct Lru {
    /// Last use of each block, by id.
    used: Vec<u64>,
    /// Candidates, oldest use first; uses are unique.
    candidates: BTreeSet<(u64, BlockId)>,
    uses: u64,
}

impl Lru {
    /// A policy that knows no block.
    pub fn new() -> Self {
        Self::default()
    }

    fn last(&self, id: BlockId) -> u64 {
        self.used[id.0 as usize]
    }

    fn touch(&mut self, id: BlockId) {
        self.uses += 1;
        self.used[id.0 as usize] = self.uses;
    }
}

impl Policy for Lru {
    fn name(&self) -> &'static str {
        "lru"
    }

    fn on_insert(&mut self, id: BlockId, _block: &Traits, _now: Millis) {
        let index = id.0 as usize;
        if index >= self.used.len() {
            self.used.resize(index + 1, 0);
        }
        self.touch(id);
        self.candidates.insert((self.last(id), id));
    }

    fn on_hit(&mut self, id: BlockId, _now: Millis) {
        let free = self.candidates.remove(&(self.last(id), id));
        self.touch(id);
        if free {
            self.candidates.insert((self.last(id), id));
        }
    }

    fn on_hold(&mut self, id: BlockId) {
        self.candidates.remove(&(self.last(id), id));
    }

    fn on_free(&mut self, id: BlockId) {
        self.candidates.insert((self.last(id), id));
    }

    fn on_remove(&mut self, id: BlockId, _why: Removal) {
        self.candidates.remove(&(self.last(id), id));
    }

    fn victim(&mut self, _now: Millis) -> Option<BlockId> {
        self.candidates.first().map(|&(_, id)| id)
    }

    fn mark(&self, _id: BlockId) -> Mark {
        Mark::default()
    }

    fn on_hit_below(&mut self, mark: Mark, _age: Millis, _now: Millis) -> Mark {
        mark
    }

    fn worth(&self, _mark: Mark, age: Millis) -> f32 {
        worth::by_recency(age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    const NOW: Millis = Millis::ZERO;

    fn lru(blocks: u32) -> Lru {
        let mut lru = Lru::new();
        for id in 0..blocks {
            let key = Key::from_bytes([id as u8; 16]);
            let block = Traits { scope: 0, key, parent: None, bytes: 1 };
            lru.on_insert(BlockId(id), &block, NOW);
        }
        lru
    }

    fn drain(mut lru: Lru) -> Vec<u32> {
        let mut order = Vec::new();
        while let Some(id) = lru.victim(NOW) {
            lru.on_remove(id, Removal::Evicted);
            order.push(id.0);
        }
        order
    }

    #[test]
    fn the_oldest_use_leaves_first() {
        let mut lru = lru(4);
        lru.on_hit(BlockId(0), NOW);
        lru.on_hit(BlockId(2), NOW);
        assert_eq!(drain(lru), [1, 3, 0, 2]);
    }

    #[test]
    fn held_blocks_stay_and_keep_their_place() {
        let mut lru = lru(3);
        lru.on_hold(BlockId(0));
        assert_eq!(lru.victim(NOW), Some(BlockId(1)));
        lru.on_hold(BlockId(2));
        lru.on_hit(BlockId(2), NOW);
        lru.on_free(BlockId(0));
        assert_eq!(lru.victim(NOW), Some(BlockId(0)));
        lru.on_free(BlockId(2));
        assert_eq!(drain(lru), [0, 1, 2]);
    }

    #[test]
    fn ids_are_reused() {
        let mut lru = lru(2);
        lru.on_hold(BlockId(0));
        lru.on_remove(BlockId(0), Removal::Removed);
        let block = Traits { scope: 0, key: Key::from_bytes([9; 16]), parent: None, bytes: 1 };
        lru.on_insert(BlockId(0), &block, NOW);
        assert_eq!(drain(lru), [1, 0]);
    }
}
