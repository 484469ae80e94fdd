//! Greedy dual, by size and frequency.

use std::collections::BTreeSet;

use super::queue::Blocks;
use super::{BlockId, Mark, Policy, Removal, Traits, worth};
use crate::time::Millis;

/// Ranks by `clock + uses / size`, where the clock is the rank of the last victim (Cherkasova,
/// "Improving WWW proxies performance with greedy-dual-size-frequency caching policy", HP 1998). With
/// blocks of one size that is frequency with ageing.
#[derive(Debug, Default)]
pub struct Gdsf {
    blocks: Blocks<Block>,
    /// Candidates by rank, oldest use first among equals.
    candidates: BTreeSet<(Rank, u64, BlockId)>,
    clock: u64,
    turns: u64,
}

/// A rank in units of one use of a block of [`UNIT_BYTES`], fixed point.
type Rank = u64;
const ONE: u64 = 1 << 20;
const UNIT_BYTES: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, Default)]
struct Block {
    rank: Rank,
    turn: u64,
    bytes: u64,
    uses: u32,
    held: bool,
}

impl Gdsf {
    /// A policy that knows no block.
    pub fn new() -> Self {
        Self::default()
    }

    fn entry(&self, id: BlockId) -> (Rank, u64, BlockId) {
        let block = &self.blocks[id];
        (block.rank, block.turn, id)
    }

    fn rank(&mut self, id: BlockId) {
        self.turns += 1;
        let block = &mut self.blocks[id];
        let worth = u128::from(block.uses) * u128::from(ONE) * u128::from(UNIT_BYTES)
            / u128::from(block.bytes.max(1));
        block.rank = self.clock.saturating_add(u64::try_from(worth).unwrap_or(u64::MAX));
        block.turn = self.turns;
    }
}

impl Policy for Gdsf {
    fn name(&self) -> &'static str {
        "gdsf"
    }

    fn on_insert(&mut self, id: BlockId, block: &Traits, _now: Millis) {
        self.blocks.put(id, Block { bytes: block.bytes, uses: 1, ..Block::default() });
        self.rank(id);
        self.candidates.insert(self.entry(id));
    }

    fn on_hit(&mut self, id: BlockId, _now: Millis) {
        self.candidates.remove(&self.entry(id));
        let block = &mut self.blocks[id];
        block.uses = block.uses.saturating_add(1);
        self.rank(id);
        if !self.blocks[id].held {
            self.candidates.insert(self.entry(id));
        }
    }

    fn on_hold(&mut self, id: BlockId) {
        self.candidates.remove(&self.entry(id));
        self.blocks[id].held = true;
    }

    fn on_free(&mut self, id: BlockId) {
        self.blocks[id].held = false;
        self.candidates.insert(self.entry(id));
    }

    fn on_remove(&mut self, id: BlockId, why: Removal) {
        // One that others follow has left out of turn.
        if why == Removal::Evicted && !self.blocks[id].held {
            self.clock = self.clock.max(self.blocks[id].rank);
        }
        self.candidates.remove(&self.entry(id));
    }

    fn victim(&mut self, _now: Millis) -> Option<BlockId> {
        self.candidates.first().map(|&(_, _, id)| id)
    }

    fn mark(&self, id: BlockId) -> Mark {
        worth::counted(self.blocks[id].uses)
    }

    fn on_hit_below(&mut self, mark: Mark, _age: Millis, _now: Millis) -> Mark {
        worth::count(mark)
    }

    fn worth(&self, mark: Mark, age: Millis) -> f32 {
        worth::by_uses(mark, age)
    }
}
