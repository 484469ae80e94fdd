//! Ways to be told: an eventfd for event loops, an event count for threads of this process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use crate::sync::{AtomicU32, Condvar, Mutex, MutexGuard, fence};

/// A descriptor that becomes readable when a transfer it was given to ends
/// ([`eventfd(2)`](https://man7.org/linux/man-pages/man2/eventfd.2.html), non-blocking).
#[derive(Debug, Clone)]
pub struct Notifier(Arc<OwnedFd>);

impl Notifier {
    /// A new one.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Makes it readable.
    pub fn ring(&self) {
        // Fails only when the count is at its maximum, and then it is readable already.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    /// How often it was rung since the last call; makes it unreadable.
    #[must_use]
    pub fn take(&self) -> u64 {
        let mut count = [0; 8];
        match rustix::io::read(&*self.0, &mut count) {
            Ok(8) => u64::from_ne_bytes(count),
            _ => 0,
        }
    }
}

impl AsFd for Notifier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Lets threads sleep until something happened, at the price of one fence and one load for the
/// side that makes it happen while nobody sleeps.
///
/// Either the sleeper, which counts itself, fences and looks, sees what happened, or the other side,
/// which made it happen, fences and looks, sees the sleeper; then the epoch it changes, which the
/// sleeper had read before it looked, ends the sleep.
#[derive(Debug)]
pub(crate) struct EventCount {
    sleepers: AtomicU32,
    epoch: Mutex<u64>,
    changed: Condvar,
}

impl EventCount {
    pub(crate) fn new() -> Self {
        Self { sleepers: AtomicU32::new(0), epoch: Mutex::new(0), changed: Condvar::new() }
    }

    /// Wakes all sleepers. What they wait for must have been stored before.
    pub(crate) fn wake_all(&self) {
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::Relaxed) != 0 {
            *self.lock() += 1;
            self.changed.notify_all();
        }
    }

    /// Sleeps until woken or `timeout` passed, unless `ready` is true already. No lock is held while
    /// `ready` is asked: it may wake sleepers itself.
    pub(crate) fn sleep(&self, timeout: Duration, ready: impl FnOnce() -> bool) {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let seen = *self.lock();
        if !ready() {
            let began = Instant::now();
            let mut epoch = self.lock();
            while *epoch == seen {
                let left = timeout.saturating_sub(began.elapsed());
                if left.is_zero() {
                    break;
                }
                let woken = self.changed.wait_timeout(epoch, left);
                (epoch, _) = woken.unwrap_or_else(PoisonError::into_inner);
            }
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.epoch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn notifier_counts() {
        let notifier = Notifier::new().unwrap();
        assert_eq!(notifier.take(), 0);
        notifier.ring();
        notifier.clone().ring();
        assert_eq!(notifier.take(), 2);
        assert_eq!(notifier.take(), 0);
    }

    #[test]
    fn whoever_looks_before_sleeping_may_wake_others() {
        let count = EventCount::new();
        // Its own wake-up ends the sleep at once, and nothing is locked twice.
        count.sleep(Duration::from_secs(3600), || {
            count.wake_all();
            false
        });
    }

    #[test]
    fn no_wake_up_is_lost() {
        let shared = Arc::new((EventCount::new(), AtomicBool::new(false)));
        for _ in 0..200 {
            shared.1.store(false, Ordering::SeqCst);
            let waker = {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || {
                    shared.1.store(true, Ordering::SeqCst);
                    shared.0.wake_all();
                })
            };
            // A lost wake-up shows as a hang of an hour.
            while !shared.1.load(Ordering::SeqCst) {
                shared.0.sleep(Duration::from_secs(3600), || shared.1.load(Ordering::SeqCst));
            }
            waker.join().unwrap();
        }
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    #[test]
    fn loom_no_wake_up_is_lost() {
        loom::model(|| {
            let shared = Arc::new((EventCount::new(), AtomicU32::new(0)));
            let waker = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    shared.1.store(1, Ordering::Relaxed);
                    shared.0.wake_all();
                })
            };
            // loom's condition variables know no time: a lost wake-up is a deadlock, which it finds.
            shared.0.sleep(Duration::from_secs(3600), || shared.1.load(Ordering::Relaxed) == 1);
            waker.join().unwrap();
        });
    }
}
