//! One worker: who drives a fabric, when, and how everyone else sleeps.
//!
//! Whoever waits drives. A waiting thread takes the worker's lock if it is free and steps the core;
//! if another thread holds it, that thread's steps serve both. The background thread
//! ([`Drive::Thread`]) drives only what nobody waits for. When nothing happens for the spin time,
//! one thread, the *sleeper*, sleeps on the fabric's descriptor, with the fabric armed to wake it;
//! the others sleep on the event count, woken by whoever drives.
//!
//! # Invariants
//! 1. A command in the queue is taken by the lock's holder: whoever pushes tries the lock after
//!    pushing, and whoever releases the lock looks at the queue after releasing.
//! 2. While a sleeper sleeps, the fabric is armed and its sleep ends by the earliest deadline.
//!    Whoever disarms it by driving re-arms it, or wakes the sleeper, before going away.
//!
//! Lock order: the core's lock, then (inside it) inbox, windows, completions. Nothing is called
//! with the core's lock held that takes it again.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use crossbeam_queue::{ArrayQueue, SegQueue};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::core::{Core, Progress};
use super::stats::Tallies;
use crate::notify::{EventCount, Notifier};
use crate::time::{Clock, Time};
use crate::transfer::{Completion, Started, Task};

/// Commands that wait for the lock's holder.
const QUEUE_MAX: usize = 1024;
/// How often a leaving driver steps again because the fabric would not arm, before it leaves the
/// rest to the sleeper.
const LEAVE_STEPS_MAX: usize = 16;
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

/// A task for the holder of the lock.
struct Queued {
    task: Task,
    deadline: Time,
    timeout: Duration,
    completion: Arc<Completion>,
}

pub(super) struct Worker {
    core: Mutex<Core>,
    queue: ArrayQueue<Queued>,
    /// Transfers to be cancelled, each once: bounded by the transfers there are, so that a sink that
    /// cancels under the lock never waits for room.
    cancels: SegQueue<Arc<Completion>>,
    pub(super) tallies: Arc<Tallies>,
    clock: Arc<dyn Clock>,
    polling: Polling,
    drive: Drive,
    /// Threads that wait and are not asleep: they drive.
    drivers: AtomicU32,
    news: EventCount,
    /// Held by the thread that may sleep on the fabric's descriptor.
    sleeper: Mutex<()>,
    doorbell: Notifier,
    /// Whether the sleeper sleeps or is about to.
    asleep: AtomicBool,
    /// Until when, in the clock's nanoseconds.
    sleeps_until: AtomicU64,
    stop: AtomicBool,
}

impl Worker {
    pub(super) fn new(
        core: Core,
        tallies: Arc<Tallies>,
        clock: Arc<dyn Clock>,
        polling: Polling,
        drive: Drive,
        doorbell: Notifier,
    ) -> Self {
        Self {
            core: Mutex::new(core),
            queue: ArrayQueue::new(QUEUE_MAX),
            cancels: SegQueue::new(),
            tallies,
            clock,
            polling,
            drive,
            drivers: AtomicU32::new(0),
            news: EventCount::new(),
            sleeper: Mutex::new(()),
            doorbell,
            asleep: AtomicBool::new(false),
            sleeps_until: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        }
    }

    /// Runs `f` on the core, after the commands that were queued before.
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut Core) -> T) -> T {
        let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        let drained = self.drain(&mut core);
        let result = f(&mut core);
        self.release(core, drained);
        result
    }

    /// The lock, if it is free.
    fn try_core(&self) -> Option<MutexGuard<'_, Core>> {
        match self.core.try_lock() {
            Ok(core) => Some(core),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Takes all queued commands.
    fn drain(&self, core: &mut Core) -> bool {
        let mut any = false;
        // Counted first: what these cancel was queued before them, so it is taken below.
        let cancels = self.cancels.len();
        // Bounded, so that a flood of submissions cannot keep the fabric from being polled.
        for _ in 0..QUEUE_MAX {
            let Some(Queued { task, deadline, timeout, completion }) = self.queue.pop() else {
                break;
            };
            let place = Arc::clone(&completion);
            if let Started::Ended(outcome) = core.submit(task, deadline, timeout, move || place) {
                core.wakers.extend(completion.end(outcome));
            }
            any = true;
        }
        for _ in 0..cancels {
            let Some(completion) = self.cancels.pop() else { break };
            core.cancel(&completion);
            any = true;
        }
        any
    }

    /// Whether no command waits for the lock's holder.
    fn is_drained(&self) -> bool {
        self.queue.is_empty() && self.cancels.is_empty()
    }

    /// Gives the lock back, and takes it again for what was queued meanwhile. `drained`: whether
    /// the caller took commands of others, which nobody may be driving.
    fn release<'a>(&'a self, mut core: MutexGuard<'a, Core>, mut drained: bool) {
        loop {
            let wakers = std::mem::take(&mut core.wakers);
            drop(core);
            for waker in wakers {
                waker.wake();
            }
            fence(Ordering::SeqCst);
            if self.is_drained() {
                break;
            }
            match self.try_core() {
                Some(again) => core = again,
                None => break,
            }
            drained |= self.drain(&mut core);
        }
        if drained {
            self.tell();
            self.wake_sleeper();
        }
    }

    /// Wakes whoever may wait for what just happened: the threads that sleep on the event count and,
    /// where waiting threads take turns to sleep on the fabric, the one that does.
    pub(super) fn tell(&self) {
        self.news.wake_all();
        if self.drive == Drive::Caller && self.asleep.load(Ordering::SeqCst) {
            self.doorbell.ring();
        }
    }

    /// One step, if nobody else is at it. `None`: somebody is.
    fn try_step(&self) -> Option<Progress> {
        let mut core = self.try_core()?;
        let drained = self.drain(&mut core);
        let mut progress = core.step();
        progress.worked |= drained;
        self.release(core, drained);
        if progress.news {
            self.tell();
        }
        Some(progress)
    }

    /// One step; whether there was work.
    pub(super) fn step(&self) -> bool {
        self.try_step().is_some_and(|progress| progress.worked)
    }

    pub(super) fn next_deadline(&self) -> Time {
        self.with(Core::next_deadline)
    }

    // ---- submitting --------------------------------------------------------------------------

    /// Takes on a task: at once if the lock is free, through the queue otherwise. `wake` when the
    /// caller will not drive it.
    pub(super) fn submit(
        &self,
        task: Task,
        deadline: Time,
        timeout: Duration,
        notifier: &Option<Notifier>,
        tally: &Option<Arc<AtomicU64>>,
        wake: bool,
    ) -> Result<Started, Task> {
        let place = || Arc::new(Completion::new(notifier, tally));
        let Some(mut core) = self.try_core() else {
            let completion = place();
            let started = Started::Running(Arc::clone(&completion));
            return match self.queue.push(Queued { task, deadline, timeout, completion }) {
                Ok(()) => {
                    self.drain_if_free();
                    Ok(started)
                }
                Err(back) => Err(back.task),
            };
        };
        let drained = self.drain(&mut core);
        let started = core.submit(task, deadline, timeout, place);
        self.release(core, drained);
        if wake && matches!(started, Started::Running(_)) {
            self.wake_sleeper();
        }
        Ok(started)
    }

    pub(super) fn cancel(&self, completion: &Arc<Completion>) {
        if completion.cancelled.swap(true, Ordering::AcqRel) {
            return;
        }
        self.cancels.push(Arc::clone(completion));
        self.drain_if_free();
    }

    /// Takes what was just queued, unless the lock's holder will.
    fn drain_if_free(&self) {
        fence(Ordering::SeqCst);
        if let Some(mut core) = self.try_core() {
            let drained = self.drain(&mut core);
            self.release(core, drained);
        }
    }

    /// Wakes the sleeper, if there is one, to drive or to reckon with a new deadline.
    pub(super) fn wake_sleeper(&self) {
        if self.drivers.load(Ordering::SeqCst) == 0 && self.asleep.load(Ordering::SeqCst) {
            self.doorbell.ring();
        }
    }

    // ---- waiting -----------------------------------------------------------------------------

    /// Drives until `done` or `until`; whether it was `done`. Once `done` has said so it is not
    /// asked again: it may have taken what it waited for.
    pub(super) fn wait(&self, until: Time, mut done: impl FnMut() -> bool) -> bool {
        let mut held = false;
        let mut done = || {
            held = held || done();
            held
        };
        if done() {
            return true;
        }
        self.drivers.fetch_add(1, Ordering::SeqCst);
        let finished = self.drive_until(until, &mut done);
        self.leave();
        finished
    }

    fn drive_until(&self, until: Time, done: &mut dyn FnMut() -> bool) -> bool {
        let mut idle_since = None;
        loop {
            let progress = self.try_step();
            if done() {
                return true;
            }
            let now = self.clock.now();
            if now >= until {
                return false;
            }
            match progress {
                Some(Progress { worked: true, .. }) => {
                    idle_since = None;
                    continue;
                }
                Some(_) if self.clock.advance(until) => continue,
                Some(_) | None => {}
            }
            let since = *idle_since.get_or_insert(now);
            match self.polling {
                Polling::Adaptive { spin } if now.since(since) >= spin => {
                    self.drivers.fetch_sub(1, Ordering::SeqCst);
                    self.sleep(until, done);
                    self.drivers.fetch_add(1, Ordering::SeqCst);
                    idle_since = None;
                }
                Polling::Adaptive { .. } => pause(now.since(since)),
                Polling::Busy => std::hint::spin_loop(),
            }
        }
    }

    /// Sleeps until something may have happened or `until`.
    fn sleep(&self, until: Time, done: &mut dyn FnMut() -> bool) {
        if self.drive == Drive::Caller
            && let Ok(sleeper) = self.sleeper.try_lock()
        {
            self.sleep_on_fabric(until, done);
            // Another waiting thread may have to take over: let go first, then wake it, or it could
            // take this one for a sleeper still and sleep on with nobody watching.
            drop(sleeper);
            self.news.wake_all();
            return;
        }
        // Somebody else sleeps on the fabric, or drives; make sure of it.
        if self.rearm() {
            let timeout = until.since(self.clock.now()).min(SLEEP_MAX);
            let unwatched = || self.drive == Drive::Caller && self.unwatched();
            self.news.sleep(timeout, || done() || unwatched());
        }
    }

    /// Whether nobody sleeps on the fabric's descriptor.
    fn unwatched(&self) -> bool {
        !self.asleep.load(Ordering::SeqCst) && self.sleeper.try_lock().is_ok()
    }

    /// Sleeps on the fabric's descriptor and the doorbell, unless `done` is true already. The caller
    /// is the sleeper.
    fn sleep_on_fabric(&self, until: Time, done: &mut dyn FnMut() -> bool) {
        let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        let until = until.min(core.next_deadline());
        self.sleeps_until.store(until.as_nanos(), Ordering::SeqCst);
        self.asleep.store(true, Ordering::SeqCst);
        let ready = core.fabric.arm();
        // The descriptor lives as long as the fabric, which lives as long as this worker; the lock
        // need not be held to sleep on it, so a duplicate is not needed either.
        let fd = core.fabric.wait_fd().map(|fd| std::os::fd::AsRawFd::as_raw_fd(&fd));
        self.release(core, false);
        // What came before `asleep` was set rang no bell: look for it once more.
        fence(Ordering::SeqCst);
        if ready && self.is_drained() && !done() {
            let now = self.clock.now();
            let timeout = until.since(now).min(SLEEP_MAX);
            let timeout = Timespec::try_from(timeout).expect("at most an hour");
            // SAFETY: the fabric is not replaced or dropped while the worker exists, and the
            // worker exists while this method borrows it.
            let fd = fd.map(|fd| unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) });
            let mut fds = vec![PollFd::new(&self.doorbell, PollFlags::IN)];
            if let Some(fd) = &fd {
                fds.push(PollFd::new(fd, PollFlags::IN));
            }
            // Interrupted or not, the caller looks again.
            let _ = poll(&mut fds, Some(&timeout));
        }
        self.asleep.store(false, Ordering::SeqCst);
        let _ = self.doorbell.take();
    }

    /// Stops driving.
    fn leave(&self) {
        if self.drivers.fetch_sub(1, Ordering::SeqCst) == 1 {
            match self.polling {
                Polling::Adaptive { .. } => {
                    self.rearm();
                }
                // The background thread spins again.
                Polling::Busy => self.wake_sleeper(),
            }
        }
    }

    /// Makes sure that the sleeper, if there is one, wakes when something happens; `false` when
    /// something happened already and the caller should look again.
    fn rearm(&self) -> bool {
        for _ in 0..LEAVE_STEPS_MAX {
            if !self.asleep.load(Ordering::SeqCst) {
                // Awake (it will look by itself), or there is none.
                return self.drive == Drive::Thread;
            }
            let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
            let drained = self.drain(&mut core);
            if core.fabric.arm() {
                let deadline = core.next_deadline();
                self.release(core, drained);
                if deadline.as_nanos() < self.sleeps_until.load(Ordering::SeqCst) {
                    self.doorbell.ring();
                }
                return true;
            }
            let progress = core.step();
            self.release(core, drained);
            if progress.news {
                self.tell();
                return false;
            }
        }
        self.doorbell.ring();
        false
    }

    // ---- the background thread -----------------------------------------------------------------

    /// Drives what nobody waits for, until [`Worker::stop`].
    pub(super) fn run(&self) {
        let _sleeper = self.sleeper.lock().unwrap_or_else(PoisonError::into_inner);
        let mut idle_since = None;
        let mut stopped = || self.stop.load(Ordering::SeqCst);
        while !stopped() {
            let worked = self.step();
            if worked {
                idle_since = None;
                continue;
            }
            let waited_for = self.drivers.load(Ordering::SeqCst) != 0;
            match self.polling {
                Polling::Busy if !waited_for => std::hint::spin_loop(),
                Polling::Adaptive { spin } if !waited_for => {
                    let now = self.clock.now();
                    let since = *idle_since.get_or_insert(now);
                    if now.since(since) < spin {
                        pause(now.since(since));
                    } else {
                        self.sleep_on_fabric(Time::NEVER, &mut stopped);
                        idle_since = None;
                    }
                }
                // Others drive; they wake this thread when they leave.
                Polling::Busy | Polling::Adaptive { .. } => {
                    self.sleep_on_fabric(Time::NEVER, &mut stopped);
                    idle_since = None;
                }
            }
        }
    }

    /// Closes the fabric and ends what is left.
    pub(super) fn close(&self) {
        self.with(Core::close);
        self.tell();
    }

    /// Ends the background thread.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.doorbell.ring();
    }
}
