//! Which candidate is worth least, without ranking them all.
//!
//! Worth changes with time, so no order lasts. Small caches are searched whole. In larger ones each
//! search looks at a few candidates drawn by chance, at those that became candidates lately, and at
//! the least of earlier searches (as Redis does for recency, and LHD for densities: Beckmann, Chen
//! and Cidon, "LHD: improving cache hit rate by maximizing hit density", NSDI 2018). The draws come
//! from a generator with a fixed seed: the same calls make the same choices.

use crate::policy::BlockId;

/// Up to so many candidates are all looked at.
const SEARCHED_WHOLE: usize = 64;
const DRAWN: usize = 8;
/// The least of earlier searches, and lately freed ones.
const POOL_MAX: usize = 32;
const POOL_KEPT: usize = 12;

const NOT: u32 = u32::MAX;

/// The candidates.
#[derive(Debug)]
pub(super) struct Order {
    free: Vec<BlockId>,
    /// Place of each block in `free`.
    places: Vec<u32>,
    pool: Vec<BlockId>,
    draws: u64,
}

/// What is compared: worth, then the time of the last use.
pub(super) type Rank = (f32, u64);

fn below(a: Rank, b: Rank) -> bool {
    a.0 < b.0 || a.0 == b.0 && a.1 < b.1
}

impl Order {
    pub(super) fn new() -> Self {
        Self { free: Vec::new(), places: Vec::new(), pool: Vec::new(), draws: 1 }
    }

    pub(super) fn insert(&mut self, id: BlockId) {
        let index = id.0 as usize;
        if index >= self.places.len() {
            self.places.resize(index + 1, NOT);
        }
        if self.places[index] == NOT {
            self.places[index] = self.free.len() as u32;
            self.free.push(id);
        }
        self.consider(id);
    }

    pub(super) fn remove(&mut self, id: BlockId) {
        let place = std::mem::replace(&mut self.places[id.0 as usize], NOT);
        if place == NOT {
            return;
        }
        self.free.swap_remove(place as usize);
        if let Some(moved) = self.free.get(place as usize) {
            self.places[moved.0 as usize] = place;
        }
    }

    /// Looks at this block in the next search, if it is a candidate then.
    pub(super) fn consider(&mut self, id: BlockId) {
        if self.pool.len() < POOL_MAX {
            self.pool.push(id);
        } else {
            let at = self.draw(POOL_MAX);
            self.pool[at] = id;
        }
    }

    fn draw(&mut self, below: usize) -> usize {
        self.draws = self.draws.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (((self.draws >> 32) * below as u64) >> 32) as usize
    }

    /// The candidate of least rank among those looked at.
    pub(super) fn least(&mut self, rank: impl Fn(BlockId) -> Rank) -> Option<BlockId> {
        if self.free.len() <= SEARCHED_WHOLE {
            self.pool.clear();
            return least(self.free.iter().map(|id| (rank(*id), *id)));
        }
        for _ in 0..DRAWN {
            let at = self.draw(self.free.len());
            self.pool.push(self.free[at]);
        }
        let places = &self.places;
        self.pool.retain(|id| places.get(id.0 as usize).is_some_and(|place| *place != NOT));
        if self.pool.len() > POOL_MAX {
            let mut ranked: Vec<(Rank, BlockId)> =
                self.pool.iter().map(|id| (rank(*id), *id)).collect();
            ranked.select_nth_unstable_by(POOL_KEPT, |((a, s), _), ((b, t), _)| {
                a.total_cmp(b).then(s.cmp(t))
            });
            ranked.truncate(POOL_KEPT);
            self.pool.clear();
            self.pool.extend(ranked.iter().map(|(_, id)| *id));
            return least(ranked.into_iter());
        }
        least(self.pool.iter().map(|id| (rank(*id), *id)))
    }
}

fn least(ranked: impl Iterator<Item = (Rank, BlockId)>) -> Option<BlockId> {
    ranked.reduce(|a, b| if below(b.0, a.0) { b } else { a }).map(|(_, id)| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_candidates_are_searched_whole() {
        let mut order = Order::new();
        (0..SEARCHED_WHOLE as u32).for_each(|id| order.insert(BlockId(id)));
        order.remove(BlockId(0));
        let rank = |id: BlockId| (id.0 as f32, 0);
        assert_eq!(order.least(rank), Some(BlockId(1)));
        assert_eq!(order.least(|id| (1.0, u64::from(100 - id.0))), Some(BlockId(63)));
        (1..64).for_each(|id| order.remove(BlockId(id)));
        assert_eq!(order.least(rank), None);
    }

    #[test]
    fn of_many_candidates_one_of_the_least_is_found() {
        let mut order = Order::new();
        let many = 10_000;
        (0..many).for_each(|id| order.insert(BlockId(id)));
        let rank = |id: BlockId| (id.0.wrapping_mul(2_654_435_761) as f32, 0);
        let mut worst = 0.0_f32;
        for turn in 0..1_000 {
            let id = order.least(rank).unwrap();
            order.remove(id);
            if turn > 100 {
                worst = worst.max(rank(id).0);
            }
        }
        // A tenth of all have left by now; the least of ten draws and what is kept stay near them.
        assert!(worst < 0.25 * u32::MAX as f32, "{worst}");
        assert_eq!(order.free.len(), many as usize - 1_000);
    }

    #[test]
    fn a_block_freed_lately_is_looked_at() {
        let mut order = Order::new();
        (0..1_000).for_each(|id| order.insert(BlockId(id)));
        order.remove(BlockId(500));
        order.insert(BlockId(500));
        assert_eq!(order.least(|id| (f32::from(u8::from(id.0 != 500)), 0)), Some(BlockId(500)));
    }
}
