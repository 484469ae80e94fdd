//! Which parts of an arena are taken: best fit over granules, with coalescing.
//!
//! Two ordered sets hold the free runs, by start and by length, so that taking and giving back are
//! O(log runs). Best fit (the shortest run that is long enough, the lowest among equals) keeps long
//! runs whole; neighbours are joined at once, so after everything came back one run is left.

use std::collections::{BTreeMap, BTreeSet};

use crate::limits::GRANULE_BYTES;

/// A taken run of granules; not `Clone`, so it is given back once.
#[derive(Debug, PartialEq, Eq)]
pub struct Extent {
    start: u64,
    granules: u64,
}

impl Extent {
    /// Where the extent starts in the arena, bytes.
    pub fn offset(&self) -> u64 {
        self.start * GRANULE_BYTES
    }

    /// Space taken, bytes: the length asked for, rounded up to granules.
    pub fn bytes(&self) -> u64 {
        self.granules * GRANULE_BYTES
    }
}

/// Granules that `len` bytes take; an empty block takes one.
fn granules(len: u64) -> u64 {
    len.div_ceil(GRANULE_BYTES).max(1)
}

/// Space that a block of `len` bytes takes in an arena, bytes.
pub fn footprint(len: u64) -> u64 {
    granules(len).saturating_mul(GRANULE_BYTES)
}

/// The free and taken space of one arena.
#[derive(Debug)]
pub struct Extents {
    by_start: BTreeMap<u64, u64>,
    by_length: BTreeSet<(u64, u64)>,
    capacity: u64,
    used: u64,
}

impl Extents {
    /// An empty arena of `capacity_bytes`; what does not fill a granule is left unused.
    pub fn new(capacity_bytes: u64) -> Self {
        let capacity = capacity_bytes / GRANULE_BYTES;
        let mut extents =
            Self { by_start: BTreeMap::new(), by_length: BTreeSet::new(), capacity, used: 0 };
        if capacity > 0 {
            extents.insert(0, capacity);
        }
        extents
    }

    /// Takes room for `len` bytes, or none when no free run is long enough.
    pub fn take(&mut self, len: u64) -> Option<Extent> {
        let need = granules(len);
        let &(length, start) = self.by_length.range((need, 0)..).next()?;
        self.remove(start, length);
        if length > need {
            self.insert(start + need, length - need);
        }
        self.used += need;
        Some(Extent { start, granules: need })
    }

    /// Gives an extent back and joins it with its free neighbours.
    #[expect(clippy::needless_pass_by_value, reason = "an extent ends here; it is not Clone")]
    pub fn give_back(&mut self, extent: Extent) {
        let Extent { mut start, granules: mut length } = extent;
        assert!(start + length <= self.capacity, "an extent of another arena came back");
        self.used -= length;
        if let Some((&before, &size)) = self.by_start.range(..start).next_back() {
            assert!(before + size <= start, "an extent came back that is already free");
            if before + size == start {
                self.remove(before, size);
                start = before;
                length += size;
            }
        }
        if let Some((&after, &size)) = self.by_start.range(start..).next() {
            assert!(start + length <= after, "an extent came back that is already free");
            if start + length == after {
                self.remove(after, size);
                length += size;
            }
        }
        self.insert(start, length);
    }

    /// All the space, bytes.
    pub fn capacity_bytes(&self) -> u64 {
        self.capacity * GRANULE_BYTES
    }

    /// Taken space, bytes.
    pub fn used_bytes(&self) -> u64 {
        self.used * GRANULE_BYTES
    }

    /// The longest free run, bytes: the largest block that fits right now.
    pub fn largest_free_bytes(&self) -> u64 {
        self.by_length.last().map_or(0, |&(length, _)| length * GRANULE_BYTES)
    }

    /// Free runs; 1 when nothing is fragmented.
    pub fn free_runs(&self) -> usize {
        self.by_start.len()
    }

    fn insert(&mut self, start: u64, length: u64) {
        self.by_start.insert(start, length);
        self.by_length.insert((length, start));
    }

    fn remove(&mut self, start: u64, length: u64) {
        self.by_start.remove(&start);
        self.by_length.remove(&(length, start));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CAPACITY: u64 = 64;

    #[derive(Clone, Debug)]
    enum Op {
        Take(u64),
        GiveBack(prop::sample::Index),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            (0..20 * GRANULE_BYTES).prop_map(Op::Take),
            any::<prop::sample::Index>().prop_map(Op::GiveBack),
        ];
        prop::collection::vec(op, 0..200)
    }

    /// The plainest model there is: who owns each granule.
    struct Model([bool; CAPACITY as usize]);

    impl Model {
        fn set(&mut self, extent: &Extent, taken: bool) {
            for granule in extent.start..extent.start + extent.granules {
                assert_ne!(self.0[granule as usize], taken, "granule {granule} overlaps");
                self.0[granule as usize] = taken;
            }
        }

        fn longest_free(&self) -> u64 {
            self.0.split(|taken| *taken).map(|run| run.len() as u64).max().unwrap_or(0)
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_bitmap(ops in ops()) {
            let mut extents = Extents::new(CAPACITY * GRANULE_BYTES + 17);
            let mut model = Model([false; CAPACITY as usize]);
            let mut taken = Vec::new();
            for op in ops {
                match op {
                    Op::Take(len) => match extents.take(len) {
                        Some(extent) => {
                            prop_assert!(extent.bytes() >= len);
                            prop_assert!(extent.bytes() < len.max(1) + GRANULE_BYTES);
                            model.set(&extent, true);
                            taken.push(extent);
                        }
                        None => prop_assert!(model.longest_free() < granules(len)),
                    },
                    Op::GiveBack(at) if !taken.is_empty() => {
                        let extent = taken.swap_remove(at.index(taken.len()));
                        model.set(&extent, false);
                        extents.give_back(extent);
                    }
                    Op::GiveBack(_) => {}
                }
                let used = model.0.iter().filter(|taken| **taken).count() as u64;
                prop_assert_eq!(extents.used_bytes(), used * GRANULE_BYTES);
                prop_assert_eq!(extents.largest_free_bytes(), model.longest_free() * GRANULE_BYTES);
                let runs = model.0.split(|taken| *taken).filter(|run| !run.is_empty()).count();
                prop_assert_eq!(extents.free_runs(), runs);
            }
            for extent in taken {
                extents.give_back(extent);
            }
            prop_assert_eq!(extents.free_runs(), 1);
            prop_assert_eq!(extents.largest_free_bytes(), CAPACITY * GRANULE_BYTES);
        }
    }

    #[test]
    fn takes_the_tightest_run() {
        let mut extents = Extents::new(10 * GRANULE_BYTES);
        let mut take = |granules: u64| extents.take(granules * GRANULE_BYTES).unwrap();
        let (wide, _a, tight, _b) = (take(4), take(1), take(2), take(1));
        extents.give_back(wide);
        extents.give_back(tight);
        assert_eq!(extents.take(2 * GRANULE_BYTES).unwrap().offset(), 5 * GRANULE_BYTES);
        assert_eq!(extents.take(u64::MAX), None);
    }

    #[test]
    #[should_panic(expected = "another arena")]
    fn an_extent_of_another_arena_is_not_taken_back() {
        let far = Extents::new(1 << 20).take(1 << 20).unwrap();
        Extents::new(GRANULE_BYTES).give_back(far);
    }
}
