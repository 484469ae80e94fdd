//! Deadlines: what nears one is cancelled, what passed one is lost.

use std::cmp::Reverse;
use std::time::Duration;

use super::{Core, Progress, Stage};
use crate::outcome::{Outcome, Reason};
use crate::sabotage::{self, Defect};
use crate::time::Time;

/// Deadlines of ended operations that are kept at least, before they are looked through.
const DEADLINES_SPARE: usize = 64;

impl Core {
    /// Cancels what nears its deadline and declares lost what passed it.
    pub(super) fn expire(&mut self, progress: &mut Progress) {
        if sabotage::is(Defect::NoDeadline) {
            return;
        }
        let now = self.shared.clock.now();
        while let Some(&Reverse((when, id))) = self.deadlines.peek() {
            let Some(op) = self.op_mut(id).filter(|op| op.stage != Stage::Lost) else {
                self.deadlines.pop();
                continue;
            };
            if when > now {
                break;
            }
            let (deadline, stage) = (op.order.deadline, op.stage);
            self.deadlines.pop();
            *progress = Progress { worked: true, news: true };
            if deadline <= now && stage == Stage::Cancelled {
                self.finish(id, Outcome::Lost(Reason::Deadline));
            } else {
                // Whoever drives may be late, too: the fabric is polled at least once between the
                // cancelling and the loss.
                let lost = deadline.max(now + Duration::from_nanos(1));
                self.deadlines.push(Reverse((lost, id)));
                self.stop(id, Reason::Deadline);
            }
        }
    }

    /// Forgets the deadlines of operations that have ended, when they are most of what is kept.
    pub(super) fn trim_deadlines(&mut self) {
        if self.deadlines.len() > DEADLINES_SPARE + 2 * self.ops.len() {
            let ops = &self.ops;
            self.deadlines.retain(|Reverse((_, id))| {
                let op = ops.get((id.0 & u64::from(u32::MAX)) as usize);
                op.is_some_and(|op| u64::from(op.serial) == id.0 >> 32 && op.stage != Stage::Lost)
            });
        }
    }

    /// When the next deadline falls.
    pub(in crate::engine) fn next_deadline(&mut self) -> Time {
        while let Some(&Reverse((when, id))) = self.deadlines.peek() {
            if self.op_mut(id).is_some_and(|op| op.stage != Stage::Lost) {
                return when;
            }
            self.deadlines.pop();
        }
        Time::NEVER
    }
}
