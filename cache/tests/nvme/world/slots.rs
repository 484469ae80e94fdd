//! The memory that jobs lend, and what is written over it when it is nobody's.

use std::ops::Range;
use std::sync::Arc;

use tranship_cache::tier::Span;
use tranship_cache::tier::nvme::testing::PAGE;
use tranship_transport::memory::{HostMemory, Memory};

use super::Dice;

/// What is written over memory that the tier must not touch any more; what new memory has.
const POISON: u8 = 0;

/// A part of the memory that spans are made of.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    pub(super) number: usize,
    pub(super) shift: usize,
    pub(super) len: usize,
}

/// All of the memory, in equal parts.
pub(super) struct Slots {
    memory: Arc<Memory>,
    slot_bytes: usize,
    poison: Vec<u8>,
    /// Parts that nobody may touch.
    free: Vec<usize>,
}

impl Slots {
    /// Parts that a block of so many bytes fits in, wherever on its first page it begins.
    pub(super) fn new(count: usize, len_max: usize) -> Self {
        let slot_bytes = (len_max + 2 * PAGE).next_multiple_of(PAGE);
        let memory = HostMemory::new(count * slot_bytes).build().expect("a few MiB");
        let free = (0..count).rev().collect();
        Self { memory: Arc::new(memory), slot_bytes, poison: vec![POISON; slot_bytes], free }
    }

    pub(super) fn take(&mut self, dice: &mut Dice, len: usize) -> Option<Slot> {
        let number = self.free.pop()?;
        let shift = if dice.percent(70) { 0 } else { 1 + dice.below(4000) as usize };
        Some(Slot { number, shift, len })
    }

    pub(super) fn span(&self, slot: Slot) -> Span {
        let start = (slot.number * self.slot_bytes + slot.shift) as u64;
        Span::new(Arc::clone(&self.memory), start..start + slot.len as u64)
    }

    /// Takes a slot back; from now on any change of its bytes is a fault.
    pub(super) fn give_back(&mut self, slot: Slot) {
        let start = slot.number * self.slot_bytes;
        let end = (slot.shift + slot.len).next_multiple_of(PAGE);
        self.memory.write_at(start, &self.poison[..end]).expect("it is writable");
        self.free.push(slot.number);
    }

    /// Checks that nothing beside a slot's bytes was touched, but the rest of its last page where that
    /// is the job's too.
    pub(super) fn is_alone(&self, slot: Slot, owns_rest: bool) {
        let start = slot.number * self.slot_bytes;
        let end = slot.shift + slot.len;
        let end = if owns_rest { end.next_multiple_of(PAGE) } else { end };
        let guard = (end + PAGE).min(self.slot_bytes);
        for outside in [0..slot.shift, end..guard] {
            self.is_poison(start + outside.start..start + outside.end);
        }
    }

    /// Checks that nothing is touched of what is nobody's.
    pub(super) fn are_left_alone(&self) {
        for slot in &self.free {
            self.is_poison(slot * self.slot_bytes..(slot + 1) * self.slot_bytes);
        }
    }

    fn is_poison(&self, range: Range<usize>) {
        let mut bytes = vec![0; range.len()];
        self.memory.read_at(range.start, &mut bytes).expect("inside");
        assert!(bytes == self.poison[..bytes.len()], "memory is touched that is nobody's");
    }
}
