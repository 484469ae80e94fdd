//! One worker: a fabric, the operations on it, and the queues that lead to it. See
//! [`crew`](super::crew) for who drives it and when.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::Waker;

use crossbeam_queue::{ArrayQueue, SegQueue};

use super::core::{Core, Progress};
use super::crew::{Common, Drive, Polling};
use super::stats::Tallies;
use crate::completion::{End, Ends, Told};
use crate::lane::Lane;
use crate::notify::Notifier;
use crate::order::Order;
use crate::outcome::{Outcome, Reason};
use crate::time::Time;
use crate::transfer::Started;

/// Commands of one lane that wait for the lock's holder.
const QUEUE_MAX: usize = 1024;
/// How often a leaving driver steps again because the fabric would not arm, before it leaves the
/// rest to the sleeper.
const LEAVE_STEPS_MAX: usize = 16;

/// A task for the holder of the lock.
pub(super) struct Queued {
    pub(super) order: Order<'static>,
    pub(super) end: End,
}

pub(super) struct Worker {
    /// The first of an engine looks at the watchers.
    pub(super) index: u16,
    core: Mutex<Core>,
    /// One a lane, so that a flood in bulk leaves room for what is urgent.
    queues: [ArrayQueue<Queued>; 2],
    /// Tasks that another worker could not carry; bounded by the operations there are.
    detours: SegQueue<Queued>,
    /// Transfers to be cancelled, each once: bounded by the transfers there are, so that whoever
    /// cancels never waits for room.
    cancels: SegQueue<End>,
    pub(super) tallies: Arc<Tallies>,
    pub(super) common: Arc<Common>,
    /// Threads that wait and are not asleep: they drive.
    pub(super) drivers: AtomicU32,
    pub(super) doorbell: Notifier,
    /// Whether the sleeper sleeps or is about to.
    pub(super) asleep: AtomicBool,
    /// Until when, in the clock's nanoseconds.
    pub(super) sleeps_until: AtomicU64,
    /// Whether it only naps, for the words that are watched.
    pub(super) naps: AtomicBool,
    pub(super) stop: AtomicBool,
}

impl Worker {
    pub(super) fn new(
        index: u16,
        core: Core,
        tallies: Arc<Tallies>,
        common: Arc<Common>,
        doorbell: Notifier,
    ) -> Self {
        Self {
            index,
            core: Mutex::new(core),
            queues: Lane::ALL.map(|_| ArrayQueue::new(QUEUE_MAX)),
            detours: SegQueue::new(),
            cancels: SegQueue::new(),
            tallies,
            common,
            drivers: AtomicU32::new(0),
            doorbell,
            asleep: AtomicBool::new(false),
            sleeps_until: AtomicU64::new(0),
            naps: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        }
    }

    /// Runs `f` on the core, after the commands that were queued before.
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut Core) -> T) -> T {
        let mut core = self.lock();
        let drained = self.drain(&mut core);
        let result = f(&mut core);
        self.release(core, drained);
        result
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
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
        let cancels = if self.cancels.is_empty() { 0 } else { self.cancels.len() };
        while !self.detours.is_empty()
            && let Some(queued) = self.detours.pop()
        {
            core.admit(queued);
            any = true;
        }
        for queue in self.queues.iter().filter(|queue| !queue.is_empty()) {
            // Bounded, so that a flood of submissions cannot keep the fabric from being polled.
            for _ in 0..QUEUE_MAX {
                let Some(queued) = queue.pop() else { break };
                core.admit(queued);
                any = true;
            }
        }
        for _ in 0..cancels {
            let Some(end) = self.cancels.pop() else { break };
            core.cancel(&end);
            any = true;
        }
        any
    }

    /// Whether no command waits for the lock's holder.
    pub(super) fn is_drained(&self) -> bool {
        self.queues.iter().all(ArrayQueue::is_empty)
            && self.cancels.is_empty()
            && self.detours.is_empty()
    }

    /// Gives the lock back, and takes it again for what was queued meanwhile. `drained`: whether
    /// the caller took commands of others, which nobody may be driving.
    pub(super) fn release<'a>(&'a self, mut core: MutexGuard<'a, Core>, mut drained: bool) {
        loop {
            let wakers = std::mem::take(&mut core.wakers);
            let detours = std::mem::take(&mut core.detours);
            drop(core);
            if !(wakers.is_empty() && detours.is_empty()) {
                // First, so that a waker that panics loses none of them.
                let others = detours.into_iter().filter_map(|it| self.hand_over(it));
                let others: Vec<_> = others.collect();
                wake_all(wakers);
                others.iter().for_each(|worker| worker.drain_if_free());
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
        self.common.news.wake_all();
        if self.common.drive == Drive::Caller && self.asleep.load(Ordering::SeqCst) {
            self.doorbell.ring();
        }
    }

    /// One step, if nobody else is at it. `None`: somebody is.
    pub(super) fn try_step(&self) -> Option<Progress> {
        Some(self.step_with(self.try_core()?))
    }

    fn step_with(&self, mut core: MutexGuard<'_, Core>) -> Progress {
        /// Tells those who wait, even if a sink, a callback or a waker panics: what came before
        /// may be what they wait for.
        struct Telling<'a>(&'a Worker, bool);
        impl Drop for Telling<'_> {
            fn drop(&mut self) {
                if self.1 {
                    self.0.tell();
                }
            }
        }
        let mut telling = Telling(self, true);
        let drained = self.drain(&mut core);
        let mut progress = core.step();
        progress.worked |= drained;
        self.release(core, drained);
        let delivered = self.common.deliver();
        if delivered | (self.index == 0 && self.common.watchers.look()) {
            progress = Progress { worked: true, news: true };
        }
        telling.1 = progress.news;
        progress
    }

    /// One step; whether there was work.
    pub(super) fn step(&self) -> bool {
        self.try_step().is_some_and(|progress| progress.worked)
    }

    /// One step of a thread that does not wait; whether there was work. It leaves the fabric as it
    /// found it, even if a sink or a callback panics.
    pub(super) fn step_once(&self) -> bool {
        struct Passing<'a>(&'a Worker);
        impl Drop for Passing<'_> {
            fn drop(&mut self) {
                // Otherwise the last of those that drive does it.
                if self.0.drivers.load(Ordering::SeqCst) == 0 {
                    self.0.hand_back();
                }
            }
        }
        let Some(core) = self.try_core() else { return false };
        let _passing = Passing(self);
        self.step_with(core).worked
    }

    pub(super) fn next_deadline(&self) -> Time {
        self.with(Core::next_deadline)
    }

    // ---- submitting --------------------------------------------------------------------------

    /// Takes on a task: at once if the lock is free, through the queue of its lane otherwise; `None`
    /// when that is full. `wake` when the caller will not drive it.
    pub(super) fn submit(&self, order: &mut Order<'_>, told: &Told, wake: bool) -> Option<Started> {
        let Some(mut core) = self.try_core() else {
            let end = told.end();
            if !self.enqueue(order, end.clone()) {
                return None;
            }
            self.drain_if_free();
            return Some(Started::Running(end));
        };
        let drained = self.drain(&mut core);
        let mut kept = None;
        let ended = core.submit(order, || kept.insert(told.end()).clone());
        self.release(core, drained);
        Some(match (ended, kept) {
            (None, Some(end)) => {
                if wake {
                    self.wake_sleeper();
                }
                Started::Running(end)
            }
            (ended, _) => Started::Ended(ended.expect("it ended or goes on")),
        })
    }

    /// Takes on many under one lock. Their ends are written to `ends`, from the `first` on.
    pub(super) fn submit_all(&self, orders: &mut [Order<'_>], ends: &Ends, first: usize) {
        let Some(mut core) = self.try_core() else {
            for (at, order) in orders.iter_mut().enumerate() {
                if !self.enqueue(order, ends.end(first + at)) {
                    // Nobody can wait for it yet.
                    let _ = ends[first + at].end(Outcome::Rejected(Reason::Full));
                }
            }
            self.drain_if_free();
            return;
        };
        let drained = self.drain(&mut core);
        core.submit_all(orders, ends, first);
        self.release(core, drained);
        self.wake_sleeper();
    }

    /// Leaves a task for the lock's holder; `false` when there is no room.
    fn enqueue(&self, order: &mut Order<'_>, end: End) -> bool {
        end.worker.store(self.index, Ordering::Relaxed);
        let queue = &self.queues[order.class.lane().index()];
        let refused = queue.push(Queued { order: order.keep(), end }).err();
        refused.map(|back| *order = back.order).is_none()
    }

    /// Hands over what this worker could not carry; to whom.
    fn hand_over(&self, (worker, queued): (u16, Queued)) -> Option<Arc<Self>> {
        let worker = self.common.worker(worker)?;
        worker.detours.push(queued);
        fence(Ordering::SeqCst);
        worker.wake_sleeper();
        Some(worker)
    }

    /// Takes a cancellation on; the caller has marked it as cancelled.
    pub(super) fn cancel(&self, end: &End) {
        self.cancels.push(end.clone());
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

    /// Wakes the sleeper, if there is one, though somebody may be driving.
    pub(super) fn disturb(&self) {
        if self.asleep.load(Ordering::SeqCst) {
            self.doorbell.ring();
        }
    }

    // ---- sleeping ----------------------------------------------------------------------------

    /// Makes sure that the sleeper, if there is one, wakes when something happens; `false` when
    /// something happened already and the caller should look again.
    pub(super) fn rearm(&self) -> bool {
        for _ in 0..LEAVE_STEPS_MAX {
            if !self.asleep.load(Ordering::SeqCst) {
                // Awake (it will look by itself), or there is none.
                return self.common.drive == Drive::Thread;
            }
            let mut core = self.lock();
            let drained = self.drain(&mut core);
            if core.arm() {
                let deadline = core.next_deadline();
                self.release(core, drained);
                let oversleeps = deadline.as_nanos() < self.sleeps_until.load(Ordering::SeqCst);
                if oversleeps || self.overlooks() {
                    self.doorbell.ring();
                }
                return true;
            }
            if core.is_unattended() {
                // The sink is somebody else's code, and not for destructors to call.
                self.release(core, drained);
                break;
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

    /// Whether the sleeper sleeps on though there are words to be looked at by now.
    fn overlooks(&self) -> bool {
        self.index == 0 && self.common.watchers.are_armed() && !self.naps.load(Ordering::SeqCst)
    }

    /// Stops driving.
    pub(super) fn leave(&self) {
        if self.drivers.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.hand_back();
        }
    }

    /// Leaves the fabric to the sleeper.
    fn hand_back(&self) {
        if std::thread::panicking() {
            // Nobody's code is called on the way out of a panic. The sleeper looks after the rest.
            self.tell();
            return self.disturb();
        }
        let armed = match self.common.polling {
            Polling::Adaptive { .. } => self.rearm(),
            // The background thread spins again.
            Polling::Busy => false,
        };
        if !armed {
            self.wake_sleeper();
        }
    }

    // ---- the end -----------------------------------------------------------------------------

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

/// Wakes all of them, also those behind one that panics.
fn wake_all(wakers: Vec<Waker>) {
    struct Rest(std::vec::IntoIter<Waker>);
    impl Drop for Rest {
        fn drop(&mut self) {
            for waker in self.0.by_ref() {
                // The first panic is the one that goes on.
                let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
            }
        }
    }
    let mut rest = Rest(wakers.into_iter());
    for waker in rest.0.by_ref() {
        waker.wake();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            assert!(self.0.fetch_add(1, Ordering::SeqCst) != 1, "the second panics");
        }
    }

    #[test]
    fn a_waker_that_panics_keeps_nobody_asleep() {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let wakers = (0..4).map(|_| Waker::from(Arc::clone(&count))).collect();
        assert!(catch_unwind(AssertUnwindSafe(|| wake_all(wakers))).is_err());
        assert_eq!(count.0.load(Ordering::SeqCst), 4);
    }
}
