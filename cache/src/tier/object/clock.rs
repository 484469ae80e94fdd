//! Time and chance, as the tier is given them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::time::Wall;

/// What tells the time; a test brings its own.
pub trait Clock: Send + Sync {
    /// Since an arbitrary start; never goes back, and goes on while the machine sleeps.
    fn now(&self) -> Duration;

    /// Of a clock that may jump.
    fn wall(&self) -> Wall;
}

/// The system's.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        let now = clock_gettime(ClockId::Boottime);
        Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
    }

    fn wall(&self) -> Wall {
        Wall::now()
    }
}

/// Numbers from a seed (splitmix64), for pauses that do not fall together.
#[derive(Debug)]
pub(super) struct Chance(AtomicU64);

impl Chance {
    pub(super) const fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    pub(super) fn draw(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Between half of a span and all of it.
    pub(super) fn about(&self, span: Duration) -> Duration {
        span.mul_f64(0.5 + (self.draw() >> 11) as f64 / (1_u64 << 54) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_spread_and_repeat_with_their_seed() {
        let span = Duration::from_secs(1);
        let draw = |seed| {
            let chance = Chance::new(seed);
            (0..100).map(|_| chance.about(span)).collect::<Vec<_>>()
        };
        let drawn = draw(7);
        assert_eq!(drawn, draw(7));
        assert!(drawn.iter().all(|pause| (span / 2..=span).contains(pause)));
        assert!(drawn.iter().any(|pause| *pause > span * 3 / 4));
        assert!(drawn.iter().any(|pause| *pause < span * 3 / 4));
    }
}
