//! Time as the cache sees it: milliseconds that somebody else counted.
//!
//! No clock is read in this crate outside the daemon ([`Wall::now`] is for it), so a simulator owns
//! time completely.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// Milliseconds: a point in time since an arbitrary start, or a span.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// The start of time, and the empty span.
    pub const ZERO: Self = Self(0);
}

impl Add for Millis {
    type Output = Self;
    /// Saturates: a deadline past the end of time never comes.
    fn add(self, span: Self) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl Sub for Millis {
    type Output = Self;
    /// Saturates: no time is left of a deadline that has passed.
    fn sub(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }
}

impl From<Duration> for Millis {
    /// Rounds down to whole milliseconds.
    fn from(span: Duration) -> Self {
        Self(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
    }
}

impl From<Millis> for Duration {
    fn from(span: Millis) -> Self {
        Self::from_millis(span.0)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

/// Milliseconds since the start of 1970, of a clock that may jump: what times to live are kept in where
/// a block outlives the process. A jump forward makes blocks expire early, a jump backward late;
/// nothing else depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(pub u64);

impl Wall {
    /// The system's clock, now. Only the daemon asks it; tests and simulations make their own.
    #[must_use]
    pub fn now() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self(since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
    }

    /// This long after; saturates.
    #[must_use]
    pub fn after(self, span: Millis) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// How long after `earlier` this is; zero when it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}
