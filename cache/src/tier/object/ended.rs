//! Jobs that were taken, and how they ended: each exactly once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::super::cold::{Done, Failure, Lane, Notify, Record};
use crate::sync::{OBJECT_ENDED, Ranked};

/// What ended and was not yet told, and what is under way.
pub(super) struct Ended {
    done: Ranked<Vec<Done>, OBJECT_ENDED>,
    notify: Notify,
    in_flight: [AtomicUsize; 3],
    /// Loads and stores that failed.
    failed: AtomicU64,
}

impl Ended {
    pub(super) fn new(notify: Notify) -> Self {
        Self {
            done: Ranked::new(Vec::new()),
            notify,
            in_flight: std::array::from_fn(|_| AtomicUsize::new(0)),
            failed: AtomicU64::new(0),
        }
    }

    pub(super) fn take(&self, out: &mut Vec<Done>) {
        out.append(&mut self.done.lock());
    }

    pub(super) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Jobs of a lane that were taken and have not ended.
    pub(super) fn in_flight(&self, lane: Lane) -> usize {
        self.in_flight[lane as usize].load(Ordering::Relaxed)
    }
}

/// A job that was taken. Whatever becomes of it, it is answered: dropped without a word, it failed.
pub(super) struct Ask {
    ended: Arc<Ended>,
    token: u64,
    lane: Lane,
    answered: bool,
}

impl Ask {
    pub(super) fn new(ended: &Arc<Ended>, token: u64, lane: Lane) -> Self {
        ended.in_flight[lane as usize].fetch_add(1, Ordering::Relaxed);
        Self { ended: Arc::clone(ended), token, lane, answered: false }
    }

    pub(super) fn answer(mut self, result: Result<Option<Record>, Failure>) {
        self.end(result);
    }

    fn end(&mut self, result: Result<Option<Record>, Failure>) {
        self.answered = true;
        if result.is_err() {
            self.ended.failed.fetch_add(1, Ordering::Relaxed);
        }
        self.ended.in_flight[self.lane as usize].fetch_sub(1, Ordering::Relaxed);
        self.ended.done.lock().push(Done { token: self.token, result });
        (self.ended.notify)();
    }
}

impl Drop for Ask {
    fn drop(&mut self) {
        if !self.answered {
            self.end(Err(Failure::Unavailable("closed".to_owned())));
        }
    }
}
