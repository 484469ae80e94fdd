//! How much may be written to a device that wears.

use crate::time::Wall;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// What may be saved up: this part of a day's bytes.
const BURST_DIVISOR: u64 = 24;

/// A bucket of bytes that fills with time.
///
/// The clock may jump: backward nothing is added until it has come on again, forward no more than
/// what may be saved up anyway.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    per_day: Option<u64>,
    bytes: i128,
    last: Wall,
    /// Parts of a byte that time has brought, in bytes times milliseconds of a day.
    rest: u128,
}

impl Budget {
    pub(crate) fn new(per_day: Option<u64>, now: Wall) -> Self {
        let bytes = i128::from(per_day.unwrap_or(0) / BURST_DIVISOR);
        Self { per_day, bytes, last: now, rest: 0 }
    }

    /// Takes the time.
    pub(crate) fn refill(&mut self, now: Wall) {
        let Some(per_day) = self.per_day else { return };
        let passed = u128::from(now.since(self.last).0);
        self.last = now;
        let gained = passed * u128::from(per_day) + self.rest;
        self.rest = gained % u128::from(DAY_MS);
        let gained = i128::try_from(gained / u128::from(DAY_MS)).unwrap_or(i128::MAX);
        self.bytes = self.bytes.saturating_add(gained).min(i128::from(per_day / BURST_DIVISOR));
    }

    /// Whether a store of so many bytes may be taken.
    pub(crate) fn allows(&self, bytes: u64) -> bool {
        // A block that is longer than what may be saved up is taken from a full bucket.
        let full = i128::from(self.per_day.unwrap_or(0) / BURST_DIVISOR);
        self.per_day.is_none() || self.bytes >= i128::from(bytes).min(full)
    }

    /// Counts bytes that were written, for whatever reason.
    pub(crate) fn spend(&mut self, bytes: u64) {
        if self.per_day.is_some() {
            self.bytes = self.bytes.saturating_sub(i128::from(bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_with_time_and_never_by_a_jump() {
        let mut budget = Budget::new(Some(24 * 1000), Wall(DAY_MS));
        assert!(budget.allows(1000));
        budget.spend(1000);
        assert!(!budget.allows(1));
        // A thousand bytes an hour: one byte takes 3.6 s.
        for step in 1..=4 {
            budget.refill(Wall(DAY_MS + step * 900));
            assert_eq!(budget.allows(1), step == 4, "step {step}");
        }
        budget.refill(Wall(0));
        budget.refill(Wall(3500));
        assert!(!budget.allows(2), "a jump back brings nothing");
        budget.refill(Wall(100 * DAY_MS));
        assert!(budget.allows(1000));
        budget.spend(1000);
        assert!(!budget.allows(1), "a jump forward brings no more than is saved up");
        budget.spend(5000);
        budget.refill(Wall(100 * DAY_MS + DAY_MS / 24));
        assert!(!budget.allows(1), "what was overspent is owed");
    }

    #[test]
    fn without_a_limit_everything_is_allowed() {
        let mut budget = Budget::new(None, Wall(0));
        budget.spend(u64::MAX);
        assert!(budget.allows(u64::MAX));
    }
}
