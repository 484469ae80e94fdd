//! Stops asking a service that does not work.

use std::time::Duration;

/// When it opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerOptions {
    /// So many requests in a row that failed…
    pub failures: u32,
    /// …over at least this time open it.
    pub over: Duration,
    /// Time until it is tried whether the service works again; doubles each time it does not.
    pub pause: Duration,
    /// Longest time between two tries.
    pub pause_max: Duration,
}

impl Default for BreakerOptions {
    fn default() -> Self {
        Self {
            failures: 8,
            over: Duration::from_secs(2),
            pause: Duration::from_secs(1),
            pause_max: Duration::from_secs(30),
        }
    }
}

/// Counts failures in a row. The time is passed in.
#[derive(Debug)]
pub(super) struct Breaker {
    options: BreakerOptions,
    failures: u32,
    first: Duration,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    why: String,
    pause: Duration,
    until: Duration,
    trying: bool,
}

impl Breaker {
    pub(super) fn new(options: BreakerOptions) -> Self {
        Self { options, failures: 0, first: Duration::ZERO, open: None }
    }

    /// Why nothing is asked, if so.
    pub(super) fn open(&self) -> Option<&str> {
        self.open.as_ref().map(|open| open.why.as_str())
    }

    /// The service answered; true when that closes it.
    pub(super) fn worked(&mut self) -> bool {
        self.failures = 0;
        self.open.take().is_some()
    }

    /// A request failed; true when that opens it.
    pub(super) fn failed(&mut self, now: Duration, why: &str) -> bool {
        if let Some(open) = &mut self.open {
            if open.trying {
                open.trying = false;
                open.pause = (open.pause * 2).min(self.options.pause_max);
                open.until = now + open.pause;
                open.why = why.to_owned();
            }
            return false;
        }
        if self.failures == 0 {
            self.first = now;
        }
        self.failures += 1;
        let opens = self.failures >= self.options.failures
            && now.saturating_sub(self.first) >= self.options.over;
        if opens {
            let (why, pause) = (why.to_owned(), self.options.pause);
            self.open = Some(Open { why, pause, until: now + pause, trying: false });
        }
        opens
    }

    /// A try ended and showed nothing: there is another after the same pause.
    pub(super) fn tried(&mut self, now: Duration) {
        if let Some(open) = self.open.as_mut().filter(|open| open.trying) {
            open.trying = false;
            open.until = now + open.pause;
        }
    }

    /// True once for each pause that is over: it is time for one try.
    pub(super) fn may_try(&mut self, now: Duration) -> bool {
        match &mut self.open {
            Some(open) if !open.trying && now >= open.until => {
                open.trying = true;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn breaker() -> Breaker {
        Breaker::new(BreakerOptions {
            failures: 3,
            over: at(100),
            pause: at(50),
            pause_max: at(150),
        })
    }

    #[test]
    fn only_failures_in_a_row_and_over_some_time_open_it() {
        let mut breaker = breaker();
        assert!(!breaker.failed(at(0), "a") && !breaker.failed(at(1), "a"));
        assert!(!breaker.failed(at(2), "a"), "a burst alone does not");
        breaker.worked();
        assert!(!breaker.failed(at(200), "a") && !breaker.failed(at(250), "a"));
        assert!(breaker.failed(at(300), "b"));
        assert_eq!(breaker.open(), Some("b"));
    }

    #[test]
    fn tries_become_rarer_until_one_works() {
        let mut breaker = breaker();
        for ms in [0, 50, 100] {
            breaker.failed(at(ms), "down");
        }
        assert!(!breaker.may_try(at(149)));
        let mut now = 150;
        for pause in [100, 150, 150] {
            assert!(breaker.may_try(at(now)) && !breaker.may_try(at(now)), "one at a time");
            breaker.failed(at(now), "down");
            assert!(!breaker.may_try(at(now + pause - 1)), "{pause}");
            now += pause;
        }
        assert!(breaker.may_try(at(now)) && breaker.worked());
        assert_eq!(breaker.open(), None);
        assert!(!breaker.worked());
    }
}
