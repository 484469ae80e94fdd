//! Worth of a block by what any policy knows: how long ago and how often it was used.

use super::Mark;
use crate::time::Millis;

/// Ages below count as this: a block just used is not worth infinitely much.
const AGE_MIN_SECONDS: f32 = 1.0;

/// Uses a second, if the next use is as far ahead as the last one is back.
pub(super) fn by_recency(age: Millis) -> f32 {
    1.0 / (AGE_MIN_SECONDS + age.0 as f32 / 1e3)
}

/// The same for a block that was used more than once.
pub(super) fn by_uses(mark: Mark, age: Millis) -> f32 {
    mark.0.max(1) as f32 * by_recency(age)
}

/// The same for a block that was used so often below memory, and of which no policy remembers anything.
pub(crate) fn by_use_below(uses: u32, age: Millis) -> f32 {
    by_uses(Mark(1 + uses), age)
}

/// A mark that counts uses.
pub(super) fn counted(uses: u32) -> Mark {
    Mark(uses)
}

/// One more use.
pub(super) fn count(mark: Mark) -> Mark {
    Mark(mark.0.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_and_frequent_is_worth_more() {
        assert!(by_recency(Millis(1_000)) > by_recency(Millis(60_000)));
        assert!(by_uses(counted(3), Millis(9)) > by_uses(counted(2), Millis(9)));
        assert!(by_recency(Millis(u64::MAX)) >= 0.0);
    }
}
