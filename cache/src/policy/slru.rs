//! Segmented least recently used.

use super::queue::{Blocks, Place, Queue};
use super::{BlockId, Mark, Policy, Removal, Traits, worth};
use crate::time::Millis;

/// Share of the space that blocks used twice may take, in fifths.
const PROTECTED_FIFTHS: u64 = 4;

/// Two queues by last use: blocks enter on probation, a second use protects them (Karedla, Love and
/// Wherry, "Caching strategies to improve disk system performance", IEEE Computer 1994). When
/// protected blocks take more than four fifths, the oldest of them go back on probation.
#[derive(Debug, Default)]
pub struct Slru {
    blocks: Blocks<Block>,
    probation: Queue,
    protected: Queue,
    uses: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Block {
    place: Place,
    protected: bool,
}

impl Slru {
    /// A policy that knows no block.
    pub fn new() -> Self {
        Self::default()
    }

    fn queue(&mut self, protected: bool) -> &mut Queue {
        if protected { &mut self.protected } else { &mut self.probation }
    }

    fn turn(&mut self, id: BlockId, protected: bool) {
        let block = self.blocks[id];
        self.queue(block.protected).remove(id, block.place);
        self.uses += 1;
        let place = Place { at: self.uses, ..block.place };
        self.queue(protected).insert(id, place);
        self.blocks[id] = Block { place, protected };
    }

    fn balance(&mut self) {
        let most = (self.probation.bytes() + self.protected.bytes()) / 5 * PROTECTED_FIFTHS;
        while self.protected.bytes() > most
            && let Some(oldest) = self.protected.first()
        {
            self.turn(oldest, false);
        }
    }

    /// Inserts a block on probation.
    pub(super) fn enter(&mut self, id: BlockId, bytes: u64) {
        self.uses += 1;
        let place = Place { at: self.uses, bytes, held: false };
        self.blocks.put(id, Block { place, protected: false });
        self.probation.insert(id, place);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.probation.bytes() + self.protected.bytes()
    }

    pub(super) fn first(&self) -> Option<BlockId> {
        self.probation.first().or_else(|| self.protected.first())
    }
}

impl Policy for Slru {
    fn name(&self) -> &'static str {
        "slru"
    }

    fn on_insert(&mut self, id: BlockId, block: &Traits, _now: Millis) {
        self.enter(id, block.bytes);
    }

    fn on_hit(&mut self, id: BlockId, _now: Millis) {
        self.turn(id, true);
        self.balance();
    }

    fn on_hold(&mut self, id: BlockId) {
        let Block { place, protected } = self.blocks[id];
        self.queue(protected).hold(id, place);
        self.blocks[id].place.held = true;
    }

    fn on_free(&mut self, id: BlockId) {
        self.blocks[id].place.held = false;
        let Block { place, protected } = self.blocks[id];
        self.queue(protected).free(id, place);
    }

    fn on_remove(&mut self, id: BlockId, _why: Removal) {
        let Block { place, protected } = self.blocks[id];
        self.queue(protected).remove(id, place);
    }

    fn victim(&mut self, _now: Millis) -> Option<BlockId> {
        self.first()
    }

    fn mark(&self, id: BlockId) -> Mark {
        worth::counted(1 + u32::from(self.blocks[id].protected))
    }

    fn on_hit_below(&mut self, _mark: Mark, _age: Millis, _now: Millis) -> Mark {
        worth::counted(2)
    }

    fn worth(&self, mark: Mark, age: Millis) -> f32 {
        worth::by_uses(mark, age)
    }
}
