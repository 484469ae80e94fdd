//! Callers that have to wait, because this side ran out of what a connection needs.

use std::time::Duration;

use rustix::io::Errno;

use super::dial::wait;
use crate::time::Time;

/// How long they wait the first time, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Whether callers wait, and until when.
#[derive(Debug, Default)]
pub(super) struct Deaf {
    until: Option<Time>,
    /// How often in a row accepting failed.
    times: u32,
}

impl Deaf {
    /// Accepting failed: until when not to try again.
    pub(super) fn begin(&mut self, errno: Errno, now: Time) {
        if self.times == 0 {
            let remedy = remedy(errno);
            tracing::warn!("callers have to wait, accepting failed: {errno}; {remedy}");
        }
        self.until = Some(now + wait(self.times, PAUSES));
        self.times += 1;
    }

    /// When to try again, if callers wait.
    pub(super) fn until(&self) -> Option<Time> {
        self.until
    }

    /// Callers are listened to again, but nobody was answered so far.
    pub(super) fn listens(&mut self) {
        self.until = None;
    }

    /// All who called were answered.
    pub(super) fn answered(&mut self) {
        if std::mem::take(&mut self.times) > 0 {
            tracing::info!("callers are answered again");
        }
    }

    #[cfg(all(not(loom), test))]
    pub(super) fn times(&self) -> u32 {
        self.times
    }
}

/// Whether accepting failed for this one caller, who is gone: `accept(2)` has the list.
pub(super) fn is_callers_own(errno: Errno) -> bool {
    const OWN: [Errno; 11] = [
        Errno::INTR,
        Errno::CONNABORTED,
        Errno::PERM,
        Errno::PROTO,
        Errno::NOPROTOOPT,
        Errno::OPNOTSUPP,
        Errno::NETDOWN,
        Errno::NETUNREACH,
        Errno::HOSTDOWN,
        Errno::HOSTUNREACH,
        Errno::TIMEDOUT,
    ];
    OWN.contains(&errno)
}

fn remedy(errno: Errno) -> &'static str {
    match errno {
        Errno::MFILE => "raise the limit of open files (ulimit -n)",
        Errno::NFILE => "raise the machine's limit of open files (sysctl fs.file-max)",
        Errno::NOBUFS | Errno::NOMEM => {
            "free memory, or give sockets more of it (sysctl net.ipv4.tcp_mem)"
        }
        _ => "see accept(2) for what it means",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_somebody_is_answered() {
        let mut deaf = Deaf::default();
        let now = Time::from_nanos(5);
        let mut pause = || {
            deaf.begin(Errno::NOBUFS, now);
            let pause = deaf.until().unwrap().since(now);
            deaf.listens();
            assert_eq!(deaf.until(), None);
            pause
        };
        let pauses: Vec<_> = (0..8).map(|_| pause()).collect();
        for (pause, times) in pauses.iter().zip([1, 2, 4, 8, 16, 20, 20, 20]) {
            let whole = times * PAUSES.0;
            assert!(*pause > whole * 7 / 10 && *pause <= whole, "{pauses:?}");
        }
        deaf.answered();
        deaf.begin(Errno::MFILE, now);
        assert!(deaf.until().unwrap().since(now) <= PAUSES.0);
    }

    #[test]
    fn what_ran_out_here_is_told_from_callers_that_are_gone() {
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::INVAL] {
            assert!(!is_callers_own(errno), "{errno} would be tried again at once");
            assert!(!remedy(errno).is_empty());
        }
        assert!(is_callers_own(Errno::CONNABORTED));
    }
}
