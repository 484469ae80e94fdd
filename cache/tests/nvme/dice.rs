//! Randomness that a seed repeats.

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// A source of random choices.
pub(crate) struct Dice(Pcg64Mcg);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        // Seeds that differ in a bit give streams that have nothing in common.
        Self(Pcg64Mcg::seed_from_u64(seed ^ 0x109_0f5e_93e4_7500))
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `limit`, which is not 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.bits() % limit
    }

    /// Whether something happens that does `times` times in a hundred.
    pub(crate) fn percent(&mut self, times: u64) -> bool {
        self.below(100) < times
    }
}
