//! Virtual time.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError, Weak};
use std::thread::{self, ThreadId};

use super::network::Shared;
use crate::time::{Clock, Steppable, Time};

/// The clock of a simulated network: moves only when somebody waits.
pub(super) struct VirtualClock {
    pub(super) network: Arc<Shared>,
}

/// What the clock steps.
#[derive(Default)]
pub(super) struct Steps {
    engines: Mutex<Vec<Weak<dyn Steppable>>>,
    /// Held by the thread that steps; one at a time, so that a run has one order.
    turn: Mutex<()>,
    /// The thread that holds the turn.
    stepper: Mutex<Option<ThreadId>>,
    now: AtomicU64,
}

impl Steps {
    pub(super) fn now(&self) -> Time {
        Time::from_nanos(self.now.load(Ordering::Acquire))
    }

    pub(super) fn set(&self, now: Time) {
        debug_assert!(now >= self.now(), "time does not go back");
        self.now.store(now.as_nanos(), Ordering::Release);
    }

    /// The engines that still live, in the order in which they came.
    fn living(&self) -> Vec<Arc<dyn Steppable>> {
        let mut engines = self.engines.lock().unwrap_or_else(PoisonError::into_inner);
        engines.retain(|engine| engine.strong_count() > 0);
        engines.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Time {
        self.network.steps.now()
    }

    /// Steps every engine; when none did anything, lets the next thing happen: an event of the
    /// network, an engine's deadline, or `until`. Returns `false` when there is no such thing. Sinks
    /// and callbacks that wait call it from within a step: no lock of an engine is held there, so
    /// that things happen as ever.
    fn advance(&self, until: Time) -> bool {
        let steps = &self.network.steps;
        let me = thread::current().id();
        let stepper = || steps.stepper.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = match steps.turn.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) if *stepper() == Some(me) => {
                return self.turn(&steps.living(), until);
            }
            Err(TryLockError::WouldBlock) => {
                // Another thread makes things happen; what it does is as good.
                thread::yield_now();
                return true;
            }
        };
        let stepping = Stepping::begin(steps, me);
        // Dropped after the turn: the last handle of an engine may be among them, and an engine
        // that ends waits on this clock.
        let engines = steps.living();
        let moved = self.turn(&engines, until);
        drop((stepping, turn));
        moved
    }

    fn attach(&self, engine: Weak<dyn Steppable>) {
        let mut engines = self.network.steps.engines.lock().unwrap_or_else(PoisonError::into_inner);
        engines.push(engine);
    }
}

/// The thread that steps; also the end of a step in which somebody's code panicked.
struct Stepping<'a>(&'a Steps);

impl<'a> Stepping<'a> {
    fn begin(steps: &'a Steps, me: ThreadId) -> Self {
        *steps.stepper.lock().unwrap_or_else(PoisonError::into_inner) = Some(me);
        Self(steps)
    }
}

impl Drop for Stepping<'_> {
    fn drop(&mut self) {
        *self.0.stepper.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl VirtualClock {
    fn turn(&self, engines: &[Arc<dyn Steppable>], until: Time) -> bool {
        // All of them: whoever is asked first must not starve the rest.
        let worked = engines.iter().fold(false, |worked, engine| engine.step() | worked);
        if worked {
            return true;
        }
        let now = self.now();
        // A deadline that has passed and found its engine idle does not hold time up.
        let deadline = engines
            .iter()
            .map(|engine| engine.next_deadline())
            .filter(|deadline| *deadline > now)
            .min()
            .unwrap_or(Time::NEVER);
        self.network.move_on(until.min(deadline))
    }
}

impl fmt::Debug for VirtualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VirtualClock({:?})", self.now())
    }
}
