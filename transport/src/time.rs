//! Time as the engine sees it: nanoseconds of a clock that may be simulated.

use std::fmt;
use std::ops::Add;
use std::sync::Weak;
use std::time::{Duration, Instant};

/// A moment: nanoseconds since the clock's own origin. Moments of different clocks do not compare.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u64);

impl Time {
    /// The clock's origin.
    pub const ZERO: Self = Self(0);
    /// A moment that never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// The moment `nanos` nanoseconds after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero when it is not after.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// `span` before this, or the origin.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(span)))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    /// Saturates at [`Time::NEVER`].
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanos(span)))
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NEVER {
            f.write_str("never")
        } else {
            write!(f, "{}.{:09} s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
        }
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Where an engine gets its time from.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Now.
    fn now(&self) -> Time;

    /// Called by a thread that waits and found nothing to do. A simulated clock makes something
    /// happen elsewhere or moves on toward `until` and returns `true`; a real clock returns
    /// `false`, and the caller spins or sleeps.
    fn advance(&self, until: Time) -> bool {
        let _ = until;
        false
    }

    /// Tells the clock of an engine that lives by it. A simulated clock steps its engines; a real
    /// one does not care.
    fn attach(&self, engine: Weak<dyn Steppable>) {
        let _ = engine;
    }
}

/// An engine as a simulated clock sees it.
pub trait Steppable: Send + Sync {
    /// Does a bounded amount of work now, without waiting; returns whether there was any.
    fn step(&self) -> bool;

    /// When it next has something to do by itself; [`Time::NEVER`] when only others can wake it.
    fn next_deadline(&self) -> Time;
}

/// The machine's monotonic clock (`clock_gettime(2)`, `CLOCK_MONOTONIC`).
#[derive(Debug)]
pub struct MonotonicClock {
    origin: Instant,
}

impl MonotonicClock {
    /// A clock whose origin is now.
    #[must_use]
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Default for MonotonicClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for MonotonicClock {
    fn now(&self) -> Time {
        Time(nanos(self.origin.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        let t = Time::from_nanos(10);
        assert_eq!(t + Duration::MAX, Time::NEVER);
        assert_eq!(t.before(Duration::from_secs(1)), Time::ZERO);
        assert_eq!(t.since(Time::from_nanos(40)), Duration::ZERO);
        assert_eq!(format!("{:?}", Time::from_nanos(1_000_000_002)), "1.000000002 s");
    }

    #[test]
    fn monotonic_clock_does_not_go_back() {
        let clock = MonotonicClock::new();
        let a = clock.now();
        assert!(clock.now() >= a);
        assert!(!clock.advance(Time::NEVER));
    }
}
