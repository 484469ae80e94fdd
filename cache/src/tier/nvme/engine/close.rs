//! Stopping: what is under way is finished and made durable, within a time.

use super::Engine;
use crate::tier::cold::{Failure, Job};
use crate::tier::nvme::desk::Weight;
use crate::tier::nvme::options::Now;
use crate::time::Millis;

/// How far the end has come.
#[derive(Debug, Default)]
pub(super) struct Closing {
    began: bool,
    pub(super) deadline: Option<Millis>,
    pub(super) finished: bool,
}

impl Closing {
    pub(super) fn began(&self) -> bool {
        self.began
    }
}

impl Engine {
    /// Takes no more jobs, and finishes those that are here within this time. Steps go on until
    /// [`closed`](Self::closed).
    pub fn close(&mut self, now: Now, within: Millis) {
        self.desk.close();
        let deadline = now.mono + within;
        self.closing.deadline = Some(self.closing.deadline.map_or(deadline, |at| at.min(deadline)));
        self.closing.began = true;
    }

    /// Lets go of everything, finished or not; false where the device hangs, and may write to the spans
    /// of loads that it has for ever.
    #[must_use]
    pub fn end(self) -> bool {
        self.device.end()
    }

    pub(super) fn step_close(&mut self) {
        if !self.closing.began || self.closing.finished {
            return;
        }
        let late = self.closing.deadline.is_some_and(|at| at <= self.now.mono);
        if late {
            self.cut_off();
            return;
        }
        let busy = !self.writes.is_empty() || !self.loads.is_empty();
        if self.refuses_writes().is_some() {
            self.closing.finished = !busy && self.device.in_flight() == 0;
        } else if !busy && !self.reclaim.is_busy() && !self.desk.index.lock().has_cleared() {
            self.close_segment();
            self.closing.finished = self.frames.queue.is_empty()
                && self.notes.is_idle()
                && self.notes.flushed() == self.notes.queued()
                && self.settling.is_idle();
        }
        if self.closing.finished {
            self.closing.deadline = None;
        }
    }

    /// Answers what will not be finished; what the device has in hand is answered when it ends.
    fn cut_off(&mut self) {
        let why = "closed before this was done".to_owned();
        for job in std::mem::take(&mut self.writes) {
            let weight = Weight::of(&job);
            match job {
                Job::Store { token, .. } | Job::Sync { token } => {
                    self.answer(token, weight, Err(Failure::Unavailable(why.clone())));
                }
                Job::Load { .. } | Job::Remove { .. } | Job::Clear { .. } => {
                    self.answered.push(weight);
                }
            }
        }
        self.refuse_queued_loads(&Failure::Unavailable(why.clone()));
        self.go_read_only(&why);
        self.closing.finished = true;
        self.closing.deadline = None;
    }
}
