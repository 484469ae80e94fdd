//! An alarm that a fabric's epoll can watch.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// Becomes readable when its time has come (`timerfd_create(2)`).
#[derive(Debug)]
pub(super) struct Alarm {
    timer: OwnedFd,
    set: bool,
}

impl Alarm {
    /// One that is not set.
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self { timer, set: false })
    }

    /// Lets it go off after `span`, or never; one that went off is readable no more.
    pub(super) fn set(&mut self, span: Option<Duration>) {
        if span.is_none() && !self.set {
            return;
        }
        self.set = span.is_some();
        // A zero would disarm the timer.
        let span = span.map_or(Duration::ZERO, |span| span.max(Duration::from_micros(1)));
        let it_value = Timespec {
            tv_sec: span.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: span.subsec_nanos().into(),
        };
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        let times = Itimerspec { it_interval, it_value };
        // Fails only for a descriptor or a time that is none.
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &times);
    }

    /// It went off: setting it anew makes it unreadable.
    pub(super) fn rang(&mut self) {
        self.set = true;
        self.set(None);
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}
