//! W-TinyLFU.

use super::queue::{Blocks, Place, Queue};
use super::sketch::Sketch;
use super::slru::Slru;
use super::{BlockId, Mark, Policy, Removal, Traits, worth};
use crate::time::Millis;

/// The window's share of the space, as a divisor.
const WINDOW_SHARE: u64 = 100;

/// A small window by last use before a segmented main part; what leaves the window gets in only when
/// it was used more often than what would leave for it (Einziger, Friedman and Manes, 2017).
#[derive(Debug, Default)]
pub struct WTinyLfu {
    blocks: Blocks<Block>,
    window: Queue,
    main: Slru,
    sketch: Sketch,
    resident: usize,
    uses: u64,
    /// Room was needed once; until then the main part takes what the window cannot hold.
    full: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Block {
    name: u64,
    /// While it is in the window.
    place: Place,
    main: bool,
}

impl WTinyLfu {
    /// A policy that knows no block.
    pub fn new() -> Self {
        Self::default()
    }

    fn window_is_large(&self) -> bool {
        self.window.bytes() * WINDOW_SHARE > self.window.bytes() + self.main.bytes()
    }

    fn leave_window(&mut self, id: BlockId) {
        let Block { place, .. } = self.blocks[id];
        self.window.remove(id, place);
        self.main.enter(id, place.bytes);
        self.blocks[id].main = true;
    }
}

impl Policy for WTinyLfu {
    fn name(&self) -> &'static str {
        "wtinylfu"
    }

    fn on_insert(&mut self, id: BlockId, block: &Traits, _now: Millis) {
        self.uses += 1;
        self.resident += 1;
        self.sketch.fit(self.resident);
        let name = block.name();
        self.sketch.add(name);
        let place = Place { at: self.uses, bytes: block.bytes, held: false };
        self.blocks.put(id, Block { name, place, main: false });
        self.window.insert(id, place);
        while !self.full
            && self.window_is_large()
            && let Some(oldest) = self.window.first()
        {
            self.leave_window(oldest);
        }
    }

    fn on_hit(&mut self, id: BlockId, now: Millis) {
        self.sketch.add(self.blocks[id].name);
        if self.blocks[id].main {
            return self.main.on_hit(id, now);
        }
        self.uses += 1;
        let place = self.blocks[id].place;
        self.window.remove(id, place);
        let place = Place { at: self.uses, ..place };
        self.window.insert(id, place);
        self.blocks[id].place = place;
    }

    fn on_hold(&mut self, id: BlockId) {
        if self.blocks[id].main {
            return self.main.on_hold(id);
        }
        self.window.hold(id, self.blocks[id].place);
        self.blocks[id].place.held = true;
    }

    fn on_free(&mut self, id: BlockId) {
        if self.blocks[id].main {
            return self.main.on_free(id);
        }
        self.blocks[id].place.held = false;
        self.window.free(id, self.blocks[id].place);
    }

    fn on_remove(&mut self, id: BlockId, why: Removal) {
        self.resident -= 1;
        if self.blocks[id].main {
            return self.main.on_remove(id, why);
        }
        self.window.remove(id, self.blocks[id].place);
    }

    fn victim(&mut self, _now: Millis) -> Option<BlockId> {
        self.full = true;
        let (entrant, old) = (self.window.first(), self.main.first());
        let (Some(entrant), Some(old)) = (entrant, old) else { return entrant.or(old) };
        let count = |id: BlockId| self.sketch.count(self.blocks[id].name);
        if self.window_is_large() {
            if count(entrant) <= count(old) {
                return Some(entrant);
            }
            self.leave_window(entrant);
        }
        Some(old)
    }

    fn mark(&self, id: BlockId) -> Mark {
        worth::counted(u32::from(self.sketch.count(self.blocks[id].name)))
    }

    fn on_hit_below(&mut self, mark: Mark, _age: Millis, _now: Millis) -> Mark {
        worth::count(mark)
    }

    fn worth(&self, mark: Mark, age: Millis) -> f32 {
        worth::by_uses(mark, age)
    }
}
