//! The tier: the log on a thread of its own.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::desk::Desk;
use super::disk::{Disk, Waker};
use super::engine::{Engine, OpenError};
use super::format::Uuid;
use super::options::{Judge, Now, Options};
use crate::tier::Tier;
use crate::tier::cold::{Cold, Done, Figures, Found, Health, Job, Name, Notify, Refused, micros};
use crate::time::Millis;

/// Tells the time; the daemon's clock, or a test's.
pub type Clock = Arc<dyn Fn() -> Now + Send + Sync>;

/// Longest wait for a device that has nothing to do.
const IDLE_MAX: Millis = Millis(1000);

/// The NVMe tier. Dropping it closes it within a few seconds.
pub struct Nvme {
    desk: Arc<Desk>,
    control: Arc<Control>,
    wake: Waker,
    clock: Clock,
    describe: String,
    uuid: Uuid,
    recovery: Duration,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread is told beside jobs, and tells beside answers.
#[derive(Default)]
struct Control {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default)]
struct State {
    /// The tier is to be closed within this time.
    close: Option<Millis>,
    finished: bool,
}

impl Control {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Nvme {
    /// Time that dropping the tier gives it to close.
    pub const DROP_WITHIN: Duration = Duration::from_secs(10);

    /// Opens the store on a disk, or makes one on an empty one, and starts the thread. `random` must
    /// differ at each opening.
    ///
    /// # Errors
    /// Why the store cannot be opened.
    pub fn open(
        disk: Box<dyn Disk>,
        options: &Options,
        judge: Box<dyn Judge>,
        random: [u8; 16],
        clock: Clock,
        notify: Notify,
    ) -> Result<Self, OpenError> {
        let began = Instant::now();
        let engine = Engine::open(disk, options, judge, random, &*clock)?;
        let recovery = began.elapsed();
        let (desk, wake) = (engine.desk(), engine.waker());
        let (describe, uuid) = (engine.describe(), engine.uuid());
        let control = Arc::new(Control::default());
        let driver =
            Driver { engine, control: Arc::clone(&control), clock: Arc::clone(&clock), notify };
        let thread = thread::Builder::new().name("tranship-nvme".to_owned());
        let thread = thread.spawn(move || driver.run());
        let thread = Mutex::new(Some(thread.map_err(|why| OpenError::Memory(why.to_string()))?));
        Ok(Self { desk, control, wake, clock, describe, uuid, recovery, thread })
    }

    /// What it runs on, for people.
    #[must_use]
    pub fn describe(&self) -> &str {
        &self.describe
    }

    /// The store's name.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }
}

impl Cold for Nvme {
    fn tier(&self) -> Tier {
        Tier::Nvme
    }

    fn find(&self, name: &Name) -> Option<Found> {
        self.desk.find(name, (self.clock)().wall)
    }

    fn submit(&self, job: Job) -> Result<(), Box<Refused>> {
        self.desk.submit(job)?;
        (self.wake)();
        Ok(())
    }

    fn finished(&self, out: &mut Vec<Done>) {
        self.desk.finished(out);
    }

    fn visit(&self, from: u64, visit: &mut dyn FnMut(&Name, &Found)) -> Option<u64> {
        self.desk.visit(from, (self.clock)().wall, visit)
    }

    fn health(&self) -> Health {
        self.desk.health()
    }

    fn figures(&self) -> Figures {
        let recovery_us = micros(self.recovery);
        Figures { recovery_us, ..self.desk.figures() }
    }

    fn close(&self, within: Duration) {
        let until = Instant::now() + within + Duration::from_secs(1);
        self.desk.close();
        let mut state = self.control.state();
        state.close.get_or_insert(Millis::from(within));
        drop(state);
        (self.wake)();
        let handle = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if handle.as_ref().is_some_and(|handle| handle.thread().id() == thread::current().id()) {
            // Its own thread may be the last to know the tier, by way of whom it asks what blocks are worth.
            return;
        }
        drop(handle);
        let mut state = self.control.state();
        while !state.finished {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // The device holds the thread up; it ends with the device.
                return;
            }
            let waited = self.control.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Drop for Nvme {
    fn drop(&mut self) {
        self.close(Self::DROP_WITHIN);
    }
}

impl fmt::Debug for Nvme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nvme").field("on", &self.describe).finish_non_exhaustive()
    }
}

/// The thread.
struct Driver {
    engine: Engine,
    control: Arc<Control>,
    clock: Clock,
    notify: Notify,
}

impl Driver {
    fn run(self) {
        let Self { mut engine, control, clock, notify } = self;
        let desk = engine.desk();
        // A panic is a bug; who waits for answers must hear of it all the same. Nobody looks at the
        // engine afterwards, and the desk bears it.
        let drive = AssertUnwindSafe(|| drive(&mut engine, &control, &clock, &notify));
        let ended = catch_unwind(drive);
        // Before any job is answered: until it is gone the disk may use what jobs lent.
        let gone = catch_unwind(AssertUnwindSafe(|| engine.end())).unwrap_or(false);
        let why = if ended.is_ok() { "closed" } else { "its thread has ended by a bug" };
        desk.abandon(why, gone);
        control.state().finished = true;
        control.changed.notify_all();
        notify();
    }
}

/// Steps until the log is closed.
fn drive(engine: &mut Engine, control: &Control, clock: &Clock, notify: &Notify) {
    loop {
        let close = control.state().close;
        let now = clock();
        if let Some(within) = close {
            engine.close(now, within);
        }
        let mut told = false;
        let due = engine.step(now, &mut told);
        if told {
            notify();
        }
        if engine.closed() {
            return;
        }
        let left = due.map_or(IDLE_MAX, |due| (due - now.mono).min(IDLE_MAX));
        if left > Millis::ZERO {
            engine.wait(left.into());
        }
    }
}

#[cfg(test)]
mod tests;
