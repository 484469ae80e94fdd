//! S3-FIFO.

use super::ghosts::Ghosts;
use super::queue::{Blocks, Place, Queue};
use super::{BlockId, Mark, Policy, Removal, Traits, worth};
use crate::limits::SCAN_BLOCKS;
use crate::time::Millis;

/// The small queue's share of the space, as a divisor.
const SMALL_SHARE: u64 = 10;
/// Uses are counted up to here.
const USES_MAX: u8 = 3;

/// A small and a main queue, first in first out, and the names of what left the small one unused
/// (Yang, Zhang, Qiu, Yue and Rashmi, "FIFO queues are all you need for cache eviction", SOSP 2023).
/// Names are as many as blocks are resident.
#[derive(Debug, Default)]
pub struct S3Fifo {
    blocks: Blocks<Block>,
    small: Queue,
    main: Queue,
    ghosts: Ghosts,
    resident: usize,
    arrivals: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Block {
    name: u64,
    place: Place,
    uses: u8,
    main: bool,
}

impl S3Fifo {
    /// A policy that knows no block.
    pub fn new() -> Self {
        Self::default()
    }

    fn queue(&mut self, main: bool) -> &mut Queue {
        if main { &mut self.main } else { &mut self.small }
    }

    /// Moves a block to the end of the main queue.
    fn move_to_main(&mut self, id: BlockId, uses: u8) {
        let Block { place, main, .. } = self.blocks[id];
        self.queue(main).remove(id, place);
        self.arrivals += 1;
        let place = Place { at: self.arrivals, ..place };
        self.main.insert(id, place);
        let block = &mut self.blocks[id];
        (block.place, block.main, block.uses) = (place, true, uses);
    }
}

impl Policy for S3Fifo {
    fn name(&self) -> &'static str {
        "s3fifo"
    }

    fn on_insert(&mut self, id: BlockId, block: &Traits, _now: Millis) {
        self.arrivals += 1;
        self.resident += 1;
        let name = block.name();
        let main = self.ghosts.knows(name);
        let place = Place { at: self.arrivals, bytes: block.bytes, held: false };
        self.blocks.put(id, Block { name, place, uses: 0, main });
        self.queue(main).insert(id, place);
    }

    fn on_hit(&mut self, id: BlockId, _now: Millis) {
        let block = &mut self.blocks[id];
        block.uses = USES_MAX.min(block.uses + 1);
    }

    fn on_hold(&mut self, id: BlockId) {
        let Block { place, main, .. } = self.blocks[id];
        self.queue(main).hold(id, place);
        self.blocks[id].place.held = true;
    }

    fn on_free(&mut self, id: BlockId) {
        self.blocks[id].place.held = false;
        let Block { place, main, .. } = self.blocks[id];
        self.queue(main).free(id, place);
    }

    fn on_remove(&mut self, id: BlockId, why: Removal) {
        let Block { name, place, main, .. } = self.blocks[id];
        self.queue(main).remove(id, place);
        self.resident -= 1;
        if why == Removal::Evicted && !main {
            self.ghosts.remember(name, self.resident + 1);
        }
    }

    fn victim(&mut self, _now: Millis) -> Option<BlockId> {
        // Each turn moves a block to the main queue or takes a use off, so it ends; but not in one go, for a
        // lock is held meanwhile.
        for _ in 0..SCAN_BLOCKS {
            let most = (self.small.bytes() + self.main.bytes()) / SMALL_SHARE;
            let (small, main) = (self.small.first(), self.main.first());
            let from_small = self.small.bytes() >= most || main.is_none();
            match (small, main) {
                (Some(id), _) if from_small => match self.blocks[id].uses {
                    0 | 1 => return Some(id),
                    _ => self.move_to_main(id, 0),
                },
                (_, Some(id)) => match self.blocks[id].uses {
                    0 => return Some(id),
                    uses => self.move_to_main(id, uses - 1),
                },
                _ => return None,
            }
        }
        self.small.first().or_else(|| self.main.first())
    }

    fn mark(&self, id: BlockId) -> Mark {
        let block = &self.blocks[id];
        worth::counted(1 + u32::from(block.uses) + u32::from(block.main))
    }

    fn on_hit_below(&mut self, mark: Mark, _age: Millis, _now: Millis) -> Mark {
        worth::count(mark)
    }

    fn worth(&self, mark: Mark, age: Millis) -> f32 {
        worth::by_uses(mark, age)
    }
}
