//! Keeps a daemon that is gone or hangs from slowing an engine down.
//!
//! An engine's scheduler asks the cache in every step. After a failure it is not asked again for a
//! while, twice as long after each further failure: a circuit breaker (M. Nygard, *Release It!*, 2007).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// After the first failure.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// At most.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Lets calls through, or not. Safe to share.
#[derive(Debug, Default)]
pub struct Guard {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Until when nothing is let through, and how long that pause was.
    pause: Option<(Instant, Duration)>,
    failures: u64,
    skipped: u64,
}

/// What a guard has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Calls that failed.
    pub failures: u64,
    /// Calls that were not tried.
    pub skipped: u64,
}

/// A call that did not succeed.
#[derive(Debug, PartialEq, Eq)]
pub enum Miss<E> {
    /// It failed; `first` when the call before it had succeeded, which is when to log it.
    Failed {
        /// Why.
        error: E,
        /// Whether the one before succeeded.
        first: bool,
    },
    /// It was not tried.
    Skipped,
}

impl Guard {
    /// A guard that lets calls through.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls `f`, unless a failure was too short ago.
    ///
    /// # Errors
    /// When it fails or is not tried: a miss, for the caller.
    pub fn call<T, E>(&self, f: impl FnOnce() -> Result<T, E>) -> Result<T, Miss<E>> {
        self.call_at(Instant::now, f)
    }

    fn call_at<T, E>(
        &self,
        now: impl Fn() -> Instant,
        f: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, Miss<E>> {
        {
            let mut state = self.lock();
            if let Some((until, _)) = state.pause
                && now() < until
            {
                state.skipped += 1;
                return Err(Miss::Skipped);
            }
        }
        match f() {
            Ok(answer) => {
                self.lock().pause = None;
                Ok(answer)
            }
            Err(error) => {
                let mut state = self.lock();
                let first = state.pause.is_none();
                let pause = match state.pause {
                    None => PAUSE_FIRST,
                    Some((_, last)) => (last * 2).min(PAUSE_MAX),
                };
                state.pause = Some((now() + pause, pause));
                state.failures += 1;
                Err(Miss::Failed { error, first })
            }
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let state = self.lock();
        Counts { failures: state.failures, skipped: state.skipped }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit_and_end_with_a_success() {
        let (guard, now) = (Guard::new(), Cell::new(Instant::now()));
        let fail = || guard.call_at(|| now.get(), || Err::<(), _>("gone"));
        assert_eq!(fail(), Err(Miss::Failed { error: "gone", first: true }));
        assert_eq!(fail(), Err(Miss::Skipped));
        let mut pause = PAUSE_FIRST;
        for _ in 0..10 {
            now.set(now.get() + pause);
            assert_eq!(fail(), Err(Miss::Failed { error: "gone", first: false }));
            pause = (pause * 2).min(PAUSE_MAX);
            now.set(now.get() + pause - Duration::from_nanos(1));
            assert_eq!(fail(), Err(Miss::Skipped));
            now.set(now.get() - (pause - Duration::from_nanos(1)));
        }
        now.set(now.get() + pause);
        assert_eq!(guard.call_at(|| now.get(), || Ok::<_, &str>(7)), Ok(7));
        assert_eq!(guard.call_at(|| now.get(), || Ok::<_, &str>(8)), Ok(8));
        assert_eq!(fail(), Err(Miss::Failed { error: "gone", first: true }));
        assert_eq!(guard.counts(), Counts { failures: 12, skipped: 11 });
    }
}
