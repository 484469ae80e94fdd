//! The workers of one engine, and the threads that wait for them.
//!
//! Whoever waits drives. A waiting thread takes the lock of each worker it waits for, if it is free,
//! and steps that worker's core; if another thread holds it, that thread's steps serve both. The
//! background threads ([`Drive::Thread`], one a worker) drive only what nobody waits for. When
//! nothing happens for the spin time, a thread, the *sleeper*, sleeps on the fabric's descriptor,
//! with the fabric armed to wake it; the others sleep on the event count, woken by whoever drives.
//! Where only callers drive, one sleeper watches all fabrics of the engine.
//!
//! # Invariants
//! 1. A command in a queue is taken by the lock's holder: whoever pushes tries the lock after
//!    pushing, and whoever releases the lock looks at the queues after releasing.
//! 2. While a sleeper sleeps, its fabrics are armed and its sleep ends by the earliest deadline.
//!    Whoever disarms one by driving re-arms it, or wakes the sleeper, before going away.
//!
//! Lock order: the sink's turn, then a core's lock, then (inside it) inbox, windows, completions. No
//! code of others (sinks, wakers, callbacks of watchers) is called with a core's lock held. Sinks and
//! callbacks may wait, which drives; wakers may not, as with any executor.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, TryLockError, Weak};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::shared::Shared;
use super::worker::Worker;
use crate::notify::EventCount;
use crate::time::{Clock, Time};
use crate::watcher::Watchers;

/// How long adaptive spinning keeps the core to itself: longer than a small transfer takes there and
/// back.
const YIELD_AFTER: Duration = Duration::from_micros(4);
/// The longest sleep; deadlines further away are looked at again then.
const SLEEP_MAX: Duration = Duration::from_secs(3600);

/// How waits pass their time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Polling {
    /// Spin for a while after the last progress, then sleep until woken. An idle process uses no
    /// processor time.
    Adaptive {
        /// How long to spin.
        spin: Duration,
    },
    /// Never sleep: the lowest latency, for a whole core.
    Busy,
}

impl Default for Polling {
    fn default() -> Self {
        Self::Adaptive { spin: Duration::from_micros(50) }
    }
}

/// How long a wait may take.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    /// Until then.
    At(Time),
    /// So long from the first look at the clock, which a wait that ends at once does without.
    After(Duration),
}

impl Until {
    fn at(&mut self, now: Time) -> Time {
        if let Self::After(timeout) = *self {
            *self = Self::At(now + timeout);
        }
        match *self {
            Self::At(until) => until,
            Self::After(_) => unreachable!("just set"),
        }
    }
}

impl From<Time> for Until {
    fn from(until: Time) -> Self {
        Self::At(until)
    }
}

/// Who moves transfers on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Drive {
    /// Waiting threads, and a background thread for what nobody waits for.
    #[default]
    Thread,
    /// Only threads that wait, receive or call [`Engine::progress`](crate::Engine::progress).
    Caller,
}

/// One turn of adaptive spinning, `idle` after the last progress. Where threads outnumber cores, the
/// peer that is waited for may be waiting for this very core.
fn pause(idle: Duration) {
    if idle < YIELD_AFTER {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

/// What all waiting threads of an engine share.
pub(super) struct Common {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) polling: Polling,
    pub(super) drive: Drive,
    pub(super) news: EventCount,
    pub(super) watchers: Arc<Watchers>,
    shared: Arc<Shared>,
    /// Held by the thread that may sleep on the fabrics' descriptors, where only callers drive.
    sleeper: Mutex<()>,
    workers: OnceLock<Vec<Weak<Worker>>>,
}

impl Common {
    pub(super) fn new(
        polling: Polling,
        drive: Drive,
        watchers: Arc<Watchers>,
        shared: &Arc<Shared>,
    ) -> Self {
        let (clock, shared) = (Arc::clone(&shared.clock), Arc::clone(shared));
        let (news, sleeper) = (EventCount::new(), Mutex::new(()));
        Self { clock, polling, drive, news, watchers, shared, sleeper, workers: OnceLock::new() }
    }

    /// Gives the sink, if there is one, what came in; whether there was any.
    pub(super) fn deliver(&self) -> bool {
        self.shared.deliver(|| self.disturb())
    }

    /// Gives the sink what is left at the end.
    pub(super) fn deliver_rest(&self) {
        let mut left = self.shared.inbox.len();
        while left > 0 && self.deliver() {
            left = self.shared.inbox.len().min(left - 1);
        }
    }

    /// Wakes all sleepers, though somebody may be driving: messages that stayed with a fabric for
    /// want of room ring no bell. See `Core::arm` for the other side.
    pub(super) fn disturb(&self) {
        fence(Ordering::SeqCst);
        for worker in self.workers.get().into_iter().flatten().filter_map(Weak::upgrade) {
            worker.disturb();
        }
    }

    /// A worker, while the engine exists.
    pub(super) fn worker(&self, index: u16) -> Option<Arc<Worker>> {
        self.workers.get()?.get(usize::from(index))?.upgrade()
    }
}

/// The workers of one engine, one a fabric.
pub(super) struct Crew {
    pub(super) workers: Vec<Arc<Worker>>,
    pub(super) common: Arc<Common>,
}

impl Crew {
    pub(super) fn new(workers: Vec<Arc<Worker>>, common: Arc<Common>) -> Self {
        let known = common.workers.set(workers.iter().map(Arc::downgrade).collect());
        assert!(known.is_ok(), "an engine has one crew");
        Self { workers, common }
    }

    /// Drives all workers until `done` or `until`; whether it was `done`. Once `done` has said so it
    /// is not asked again: it may have taken what it waited for.
    pub(super) fn wait(&self, until: impl Into<Until>, done: impl FnMut() -> bool) -> bool {
        self.wait_for(&self.workers, until.into(), done)
    }

    /// The same for what one worker does. Where only callers drive, the others are driven, too.
    pub(super) fn wait_on(
        &self,
        worker: u16,
        until: impl Into<Until>,
        done: impl FnMut() -> bool,
    ) -> bool {
        let workers = match self.common.drive {
            Drive::Thread => std::slice::from_ref(&self.workers[usize::from(worker)]),
            Drive::Caller => &self.workers[..],
        };
        self.wait_for(workers, until.into(), done)
    }

    fn wait_for(
        &self,
        workers: &[Arc<Worker>],
        until: Until,
        mut done: impl FnMut() -> bool,
    ) -> bool {
        let mut held = false;
        let mut done = || {
            held = held || done();
            held
        };
        if done() {
            return true;
        }
        let _driving = Driving::begin(workers);
        self.drive_until(workers, until, &mut done)
    }

    fn drive_until(
        &self,
        workers: &[Arc<Worker>],
        mut until: Until,
        done: &mut dyn FnMut() -> bool,
    ) -> bool {
        let clock = &*self.common.clock;
        let mut idle_since = None;
        loop {
            let (mut worked, mut all_mine) = (false, true);
            for worker in workers {
                match worker.try_step() {
                    Some(progress) => worked |= progress.worked,
                    None => all_mine = false,
                }
            }
            if done() {
                return true;
            }
            let now = clock.now();
            let until = until.at(now);
            if now >= until {
                return false;
            }
            if worked {
                idle_since = None;
                continue;
            }
            if all_mine && clock.advance(until) {
                continue;
            }
            let since = *idle_since.get_or_insert(now);
            match self.common.polling {
                Polling::Adaptive { spin } if now.since(since) >= spin => {
                    let _asleep = Asleep::begin(workers);
                    self.sleep(workers, until, done);
                    idle_since = None;
                }
                Polling::Adaptive { .. } => pause(now.since(since)),
                Polling::Busy => std::hint::spin_loop(),
            }
        }
    }

    /// Sleeps until something may have happened or `until`.
    fn sleep(&self, workers: &[Arc<Worker>], until: Time, done: &mut dyn FnMut() -> bool) {
        let Common { clock, drive, news, sleeper, .. } = &*self.common;
        if *drive == Drive::Caller
            && let Some(guard) = free(sleeper)
        {
            let _bed = Bed(Some(guard), news);
            sleep_on_fabrics(workers, until, done);
            return;
        }
        // Somebody else sleeps on the fabrics, or drives; make sure of it.
        if workers.iter().all(|worker| worker.rearm()) {
            let timeout = until.since(clock.now()).min(SLEEP_MAX);
            let unwatched = || *drive == Drive::Caller && self.unwatched();
            news.sleep(timeout, || done() || unwatched());
        }
    }

    /// Whether nobody sleeps on the fabrics' descriptors, where only callers drive.
    fn unwatched(&self) -> bool {
        let asleep = |worker: &Arc<Worker>| worker.asleep.load(Ordering::SeqCst);
        !self.workers.iter().any(asleep) && free(&self.common.sleeper).is_some()
    }
}

/// The sleeper's place, if it is free: also after somebody's condition panicked there.
fn free(sleeper: &Mutex<()>) -> Option<MutexGuard<'_, ()>> {
    match sleeper.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// The sleeper's place while it is taken. Another waiting thread may have to take over: it is let go
/// first, then that one is woken, or it could take this one for a sleeper still and sleep on with
/// nobody watching.
struct Bed<'a>(Option<MutexGuard<'a, ()>>, &'a EventCount);

impl Drop for Bed<'_> {
    fn drop(&mut self) {
        drop(self.0.take());
        self.1.wake_all();
    }
}

/// A thread that drives workers. The end of it is also the end of a wait whose condition, or
/// somebody's sink, panicked.
struct Driving<'a>(&'a [Arc<Worker>]);

impl<'a> Driving<'a> {
    fn begin(workers: &'a [Arc<Worker>]) -> Self {
        for worker in workers {
            worker.drivers.fetch_add(1, Ordering::SeqCst);
        }
        Self(workers)
    }
}

impl Drop for Driving<'_> {
    fn drop(&mut self) {
        let mut panicked = None;
        for worker in self.0 {
            // A waker may panic there; the other workers are left all the same.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| worker.leave())) {
                worker.tell();
                worker.disturb();
                panicked.get_or_insert(panic);
            }
        }
        if let Some(panic) = panicked {
            resume_unwind(panic);
        }
    }
}

/// One of them while it sleeps.
struct Asleep<'a>(&'a [Arc<Worker>]);

impl<'a> Asleep<'a> {
    fn begin(workers: &'a [Arc<Worker>]) -> Self {
        for worker in workers {
            worker.drivers.fetch_sub(1, Ordering::SeqCst);
        }
        Self(workers)
    }
}

impl Drop for Asleep<'_> {
    fn drop(&mut self) {
        for worker in self.0 {
            worker.drivers.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Drives what nobody waits for, until [`Worker::stop`]: the background thread of a worker. A sink or
/// a callback that panics there takes nothing down with it.
pub(super) fn run(worker: &Arc<Worker>) {
    while catch_unwind(AssertUnwindSafe(|| drive(worker))).is_err() {
        tracing::error!("a sink, callback or waker panicked on an engine's thread; it goes on");
    }
}

fn drive(worker: &Arc<Worker>) {
    let only = std::slice::from_ref(worker);
    let mut idle_since = None;
    let mut stopped = || worker.stop.load(Ordering::SeqCst);
    while !stopped() {
        if worker.step() {
            idle_since = None;
            continue;
        }
        let waited_for = worker.drivers.load(Ordering::SeqCst) != 0;
        match worker.common.polling {
            Polling::Busy if !waited_for => std::hint::spin_loop(),
            Polling::Adaptive { spin } if !waited_for => {
                let now = worker.common.clock.now();
                let since = *idle_since.get_or_insert(now);
                if now.since(since) < spin {
                    pause(now.since(since));
                } else {
                    sleep_on_fabrics(only, Time::NEVER, &mut stopped);
                    idle_since = None;
                }
            }
            // Others drive; they wake this thread when they leave.
            Polling::Busy | Polling::Adaptive { .. } => {
                sleep_on_fabrics(only, Time::NEVER, &mut stopped);
                idle_since = None;
            }
        }
    }
}

/// Sleeps on the descriptors and the doorbells of these workers, unless `done` is true already. The
/// caller is their sleeper.
fn sleep_on_fabrics(workers: &[Arc<Worker>], until: Time, done: &mut dyn FnMut() -> bool) {
    let _sleeping = Sleeping(workers);
    let (mut ready, mut until) = (true, until);
    let mut descriptors: Vec<RawFd> = Vec::with_capacity(workers.len());
    for worker in workers {
        let mut core = worker.lock();
        until = until.min(core.next_deadline());
        worker.sleeps_until.store(until.as_nanos(), Ordering::SeqCst);
        worker.asleep.store(true, Ordering::SeqCst);
        ready &= core.arm();
        descriptors.extend(core.fabric.wait_fd().map(|fd| fd.as_raw_fd()));
        worker.release(core, false);
    }
    // What came before `asleep` was set rang no bell: look for it once more.
    fence(Ordering::SeqCst);
    let common = &workers[0].common;
    let nap = if workers[0].index == 0 { common.watchers.nap() } else { Duration::MAX };
    workers[0].naps.store(nap != Duration::MAX, Ordering::SeqCst);
    if ready && workers.iter().all(|worker| worker.is_drained()) && !done() {
        let now = common.clock.now();
        let timeout = until.since(now).min(SLEEP_MAX).min(nap);
        let timeout = Timespec::try_from(timeout).expect("at most an hour");
        // SAFETY: the fabrics are not replaced or dropped while their workers exist, and the
        // workers exist while this function borrows them.
        let fabrics: Vec<_> =
            descriptors.iter().map(|fd| unsafe { BorrowedFd::borrow_raw(*fd) }).collect();
        let doorbells = workers.iter().map(|worker| PollFd::new(&worker.doorbell, PollFlags::IN));
        let mut fds: Vec<_> =
            doorbells.chain(fabrics.iter().map(|fd| PollFd::new(fd, PollFlags::IN))).collect();
        // Interrupted or not, the caller looks again.
        let _ = poll(&mut fds, Some(&timeout));
    }
}

/// The sleeper of workers; the end of it is also the end of a sleep whose condition panicked.
struct Sleeping<'a>(&'a [Arc<Worker>]);

impl Drop for Sleeping<'_> {
    fn drop(&mut self) {
        for worker in self.0 {
            worker.asleep.store(false, Ordering::SeqCst);
            worker.naps.store(false, Ordering::SeqCst);
            let _ = worker.doorbell.take();
        }
    }
}
