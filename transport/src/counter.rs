//! Counters: how a receiver learns that payloads arrived, without any order among them.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::engine::Engine;
use crate::immediate::{Immediate, Slot};
use crate::sabotage::{self, Defect};
use crate::sync::AtomicU64;

/// How many bits of a word count; the rest is the generation.
const COUNT_BITS: u32 = 48;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// All counters of an engine. One word each: generation in the high 16 bits, count in the low 48,
/// so that "is it still mine" and "count it" are one compare-and-swap.
#[derive(Debug)]
pub(crate) struct Counters {
    words: Box<[AtomicU64]>,
    free: Mutex<Vec<u16>>,
}

impl Counters {
    /// All begin with the generation `first`. It differs from engine to engine: what was meant for
    /// the engine that was at an address before counts for nobody in the one that is there now.
    pub(crate) fn new(slots: u16, first: u16) -> Self {
        let word = u64::from(first) << COUNT_BITS;
        Self {
            words: (0..slots).map(|_| AtomicU64::new(word)).collect(),
            free: Mutex::new((0..slots).rev().collect()),
        }
    }

    fn take(&self) -> Option<Slot> {
        let index = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        let word = self.words[usize::from(index)].load(Ordering::Acquire);
        Some(Slot { index, generation: (word >> COUNT_BITS) as u16 })
    }

    /// Ends the slot's generation: stragglers that carry it count for nobody.
    fn give_back(&self, slot: Slot) {
        renew(&self.words[usize::from(slot.index)], slot.generation);
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(slot.index);
    }

    /// Counts an arrival; `false` for a straggler or an unknown slot. Release: whoever reads the
    /// new count with acquire sees the payload.
    pub(crate) fn arrived(&self, immediate: Immediate) -> bool {
        let slot = Slot::from(immediate);
        let Some(word) = self.words.get(usize::from(slot.index)) else { return false };
        count(word, slot.generation)
    }

    fn read(&self, slot: Slot) -> u64 {
        self.words[usize::from(slot.index)].load(Ordering::Acquire) & COUNT_MASK
    }
}

/// Ends `generation`: the word belongs to the next one, with nothing counted.
fn renew(word: &AtomicU64, generation: u16) {
    word.swap(u64::from(generation.wrapping_add(1)) << COUNT_BITS, Ordering::AcqRel);
}

/// Adds one to `word` if it still belongs to `generation`.
fn count(word: &AtomicU64, generation: u16) -> bool {
    let mut now = word.load(Ordering::Relaxed);
    loop {
        let stale = (now >> COUNT_BITS) as u16 != generation;
        if stale && !sabotage::is(Defect::StaleCounter) || now & COUNT_MASK == COUNT_MASK {
            return false;
        }
        match word.compare_exchange_weak(now, now + 1, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return true,
            Err(seen) => now = seen,
        }
    }
}

/// Counts the immediates that carry its slot, from the moment it is made: those that arrive before
/// anyone waits are kept. Dropping it ends the slot's generation, so that a late arrival never
/// counts for the next owner.
///
/// Generations are 16 bits: a straggler would have to survive 65,536 owners of one slot to be
/// taken for a current one, and its window would have been revoked long before.
pub struct Counter {
    engine: Engine,
    table: Arc<Counters>,
    slot: Slot,
}

impl Counter {
    pub(crate) fn new(engine: Engine, table: Arc<Counters>) -> Option<Self> {
        let slot = table.take()?;
        Some(Self { engine, table, slot })
    }

    /// What writers put into [`Submission::immediate`](crate::Submission::immediate).
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// Arrivals so far. Acquire: the payloads of all of them are visible.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.table.read(self.slot)
    }

    /// Ends its generation and goes on with the next, of which nothing has been counted: what carries
    /// the slot as it was counts no more.
    pub(crate) fn begin_next(&mut self) {
        renew(&self.table.words[usize::from(self.slot.index)], self.slot.generation);
        self.slot.generation = self.slot.generation.wrapping_add(1);
    }

    /// Waits until at least `target` have arrived.
    ///
    /// # Errors
    /// When `timeout` passes first; the error tells how many there are.
    pub fn wait(&self, target: u64, timeout: Duration) -> Result<u64, CountError> {
        let until = self.engine.now() + timeout;
        self.engine.wait(until, || self.count() >= target);
        match self.count() {
            count if count >= target => Ok(count),
            count => Err(CountError { slot: self.slot, count, target, timeout }),
        }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.table.give_back(self.slot);
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Counter({:?}: {})", self.slot, self.count())
    }
}

/// Arrivals that did not come in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{slot:?}: {count} of {target} arrivals within {timeout:?}")]
pub struct CountError {
    /// The counter.
    pub slot: Slot,
    /// How many arrived.
    pub count: u64,
    /// How many were waited for.
    pub target: u64,
    /// How long.
    pub timeout: Duration,
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_straggler_of_an_earlier_owner_is_not_counted() {
        let counters = Counters::new(1, 0);
        let first = counters.take().unwrap();
        assert!(counters.arrived(first.into()));
        assert_eq!(counters.read(first), 1);
        counters.give_back(first);
        let second = counters.take().unwrap();
        assert_ne!(first, second);
        assert!(!counters.arrived(first.into()));
        assert!(counters.arrived(second.into()));
        assert_eq!(counters.read(second), 1);
    }

    #[test]
    fn unknown_slots_and_exhaustion_are_refused() {
        let counters = Counters::new(2, 0);
        assert!(!counters.arrived(Slot { index: 2, generation: 0 }.into()));
        let _a = counters.take().unwrap();
        let _b = counters.take().unwrap();
        assert!(counters.take().is_none());
    }

    #[test]
    fn engines_begin_with_generations_of_their_own() {
        let counters = Counters::new(2, 0xfffe);
        let first = counters.take().unwrap();
        assert_eq!((first.generation, counters.read(first)), (0xfffe, 0));
        assert!(!counters.arrived(Slot { generation: 0, ..first }.into()));
        assert!(counters.arrived(first.into()));
        assert_eq!(counters.read(first), 1);
        counters.give_back(first);
        assert_eq!(counters.take().unwrap().generation, 0xffff);
    }

    #[test]
    fn generations_wrap() {
        let counters = Counters::new(1, 0);
        for _ in 0..=u16::MAX {
            let slot = counters.take().unwrap();
            counters.give_back(slot);
        }
        assert_eq!(counters.take().unwrap().generation, 0);
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU64 as Word, Ordering};
    use loom::thread;

    use super::*;

    #[test]
    fn loom_payload_is_visible_once_counted() {
        loom::model(|| {
            let shared = Arc::new((Word::new(0), AtomicU64::new(0)));
            let writer = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    shared.0.store(7, Ordering::Relaxed);
                    assert!(count(&shared.1, 0));
                })
            };
            if shared.1.load(Ordering::Acquire) & COUNT_MASK == 1 {
                assert_eq!(shared.0.load(Ordering::Relaxed), 7);
            }
            writer.join().unwrap();
        });
    }

    #[test]
    fn loom_no_arrival_is_lost_or_counted_for_the_next_owner() {
        loom::model(|| {
            let word = Arc::new(AtomicU64::new(0));
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    let word = Arc::clone(&word);
                    thread::spawn(move || count(&word, 0))
                })
                .collect();
            // The owner goes away at any point in between.
            renew(&word, 0);
            for thread in threads {
                thread.join().unwrap();
            }
            assert_eq!(word.load(Ordering::Acquire), 1 << COUNT_BITS);
        });
    }
}
