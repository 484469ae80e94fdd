//! Worth of a block by what any policy knows: how long ago and how often it was used.

use crate::time::Millis;

/// Ages below count as this: a block just used is not worth infinitely much.
const AGE_MIN_SECONDS: f32 = 1.0;

/// Uses a second, if the next use is as far ahead as the last one is back.
pub(super) fn by_recency(age: Millis) -> f32 {
    1.0 / (AGE_MIN_SECONDS + age.0 as f32 / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_is_worth_more() {
        assert!(by_recency(Millis(1_000)) > by_recency(Millis(60_000)));
        assert!(by_recency(Millis(u64::MAX)) >= 0.0);
    }
}
