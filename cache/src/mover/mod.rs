//! Moving blocks between memory and the tiers below it.
//!
//! A [`Mover`] belongs to whoever drives the store (the daemon's service thread). It never waits:
//! [`Mover::step`] hands jobs to the tiers and acts on what they have finished, and each tier rings the
//! [`Bell`] when there is something new.
//!
//! | module | what it moves |
//! |---|---|
//! | `up` | promotions: blocks that somebody wants in memory |
//! | `down` | demotions: blocks that the store sends below, and those that shall survive a crash |
//!
//! A promotion is a reservation like any other, filled by a tier in place of a client. So a block that
//! is coming up is in flight, whoever wants it waits for that filling, and many who want it cost one
//! load (single flight). When a tier fails, the next one that has the block is asked.

mod down;
mod up;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tranship_transport::Engine;

use crate::block::SessionId;
use crate::store::Store;
use crate::tier::cold::{Done, Failure, Job, Notify, Refusal};
use crate::tier::{Level, Stack, Tier};
use crate::time::{Millis, Wall};

pub use down::Persisted;
pub(crate) use up::Piece;
pub use up::Wanted;

use self::down::Down;
use self::up::Up;

/// The session that promotions are reserved under.
const SESSION: SessionId = SessionId(u64::MAX);

/// Rung by tiers that have something new to tell; wakes the thread that drives the mover.
#[derive(Clone)]
pub struct Bell {
    rung: Arc<AtomicBool>,
    notify: Notify,
}

impl Bell {
    /// A bell that calls `wake` when it is rung.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        let rung = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&rung);
        let notify = Arc::new(move || {
            flag.store(true, Ordering::Release);
            wake();
        });
        Self { rung, notify }
    }

    /// A bell that wakes whoever drives `engine`.
    pub fn of(engine: &Engine) -> Self {
        let engine = engine.clone();
        Self::new(move || engine.wake())
    }

    /// What a tier calls.
    pub fn notify(&self) -> Notify {
        Arc::clone(&self.notify)
    }

    /// Whether it was rung since it was last answered.
    pub fn is_rung(&self) -> bool {
        self.rung.load(Ordering::Acquire)
    }

    fn answer(&self) -> bool {
        self.rung.swap(false, Ordering::AcqRel)
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").field("rung", &self.rung).finish_non_exhaustive()
    }
}

/// Which way a job goes, by its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

/// Moves blocks between memory and the tiers below.
pub struct Mover {
    store: Store,
    stack: Stack,
    bell: Bell,
    tokens: u64,
    ways: HashMap<u64, Way>,
    up: Up,
    down: Down,
    wall: fn() -> Wall,
    /// Reused for what tiers have finished.
    done: Vec<Done>,
}

impl Mover {
    /// A mover for the tiers of `store`, which ring `bell`. `wall` is the clock that times to live are
    /// kept by below.
    pub fn new(store: Store, bell: Bell, wall: fn() -> Wall) -> Self {
        let stack = store.stack().clone();
        Self {
            store,
            stack,
            bell,
            tokens: 0,
            ways: HashMap::new(),
            up: Up::default(),
            down: Down::default(),
            wall,
            done: Vec::new(),
        }
    }

    /// Whether [`step`](Self::step) has something to do.
    pub fn has_work(&self) -> bool {
        self.bell.is_rung()
    }

    /// Takes what the store sends down, acts on what the tiers have finished, and tries again what
    /// found no room; whether there was anything. Call it after the bell, after the store's, and from
    /// time to time: what waits for room in memory gives up after a while.
    pub fn step(&mut self, now: Millis) -> bool {
        if self.stack.is_empty() {
            return false;
        }
        let mut worked = self.bell.answer();
        let mut done = std::mem::take(&mut self.done);
        for level in self.stack.levels() {
            level.cold.finished(&mut done);
        }
        worked |= !done.is_empty();
        for Done { token, result } in done.drain(..) {
            match self.ways.remove(&token) {
                Some(Way::Up) => self.came_up(token, result, now),
                Some(Way::Down) => self.went_down(token, &result),
                None => tracing::error!(token, "a tier ended a job that nobody gave it"),
            }
        }
        self.done = done;
        worked |= self.send_down(now);
        self.lift(now);
        worked
    }

    /// Looks at the health of the tiers.
    pub fn tick(&mut self) {
        for level in self.stack.levels() {
            level.look();
        }
    }

    /// Jobs that are under way or wait.
    pub fn is_idle(&self) -> bool {
        self.ways.is_empty() && self.up.is_idle() && self.down.is_idle()
    }

    /// Stops the tiers, which finish what is under way, all of them within this time.
    pub fn close(&mut self, within: Duration) {
        std::thread::scope(|scope| {
            for level in self.stack.levels() {
                scope.spawn(|| level.cold.close(within));
            }
        });
    }

    fn token(&mut self, way: Way) -> u64 {
        self.tokens += 1;
        self.ways.insert(self.tokens, way);
        self.tokens
    }
}

impl fmt::Debug for Mover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mover").field("stack", &self.stack).finish_non_exhaustive()
    }
}

/// Hands a job to a tier.
fn submit(level: &Level, job: Job) -> Submitted {
    match level.cold.submit(job) {
        Ok(()) => Submitted::Taken,
        Err(refused) if refused.why == Refusal::Full => Submitted::Full,
        Err(_) => Submitted::Failed(Failure::Unavailable("closed".to_owned())),
    }
}

enum Submitted {
    Taken,
    Full,
    Failed(Failure),
}

/// Tells of a failure that an operator should know of.
fn warn(tier: Tier, doing: &'static str, failure: &Failure) {
    match failure {
        Failure::Corrupt => tracing::error!(%tier, "{doing}: {failure}"),
        Failure::Io(_) => tracing::warn!(%tier, "{doing}: {failure}"),
        _ => tracing::debug!(%tier, "{doing}: {failure}"),
    }
}
