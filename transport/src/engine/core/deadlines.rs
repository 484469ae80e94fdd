//! Deadlines: what nears one is cancelled, what passed one is lost.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use super::{Core, Progress, Stage};
use crate::fabric::OpId;
use crate::outcome::{Outcome, Reason};
use crate::sabotage::{self, Defect};
use crate::slots::At;
use crate::time::Time;

/// Deadlines of ended operations that are kept at least, before they are looked through.
const DEADLINES_SPARE: usize = 64;

/// Deadlines, the earliest first.
#[derive(Default)]
pub(super) struct Deadlines {
    /// Those that came in order, as most do: all with the same timeout.
    line: VecDeque<(Time, OpId)>,
    /// The others.
    heap: BinaryHeap<Reverse<(Time, OpId)>>,
}

impl Deadlines {
    pub(super) fn push(&mut self, when: Time, id: OpId) {
        if self.line.back().is_none_or(|(last, _)| *last <= when) {
            self.line.push_back((when, id));
        } else {
            self.heap.push(Reverse((when, id)));
        }
    }

    fn first(&self) -> Option<(Time, OpId)> {
        match (self.line.front(), self.heap.peek()) {
            (Some(line), Some(Reverse(heap))) => Some(*line.min(heap)),
            (line, heap) => line.or(heap.map(|Reverse(it)| it)).copied(),
        }
    }

    fn pop(&mut self) {
        let first = self.first();
        if self.line.front().copied() == first {
            self.line.pop_front();
        } else {
            self.heap.pop();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty() && self.heap.is_empty()
    }

    fn len(&self) -> usize {
        self.line.len() + self.heap.len()
    }

    fn clear(&mut self) {
        self.line.clear();
        self.heap.clear();
    }

    fn retain(&mut self, keep: impl Fn(OpId) -> bool) {
        self.line.retain(|(_, id)| keep(*id));
        self.heap.retain(|Reverse((_, id))| keep(*id));
    }
}

impl Core {
    /// Cancels what nears its deadline and declares lost what passed it.
    pub(super) fn expire(&mut self, progress: &mut Progress) {
        if sabotage::is(Defect::NoDeadline) {
            return;
        }
        if self.ops.is_empty() {
            return self.deadlines.clear();
        }
        let mut now = None;
        while let Some((when, id)) = self.deadlines.first() {
            let Some(op) = self.op_mut(id).filter(|op| op.stage != Stage::Lost) else {
                self.deadlines.pop();
                continue;
            };
            // A look at the clock is not free: not for those that have ended.
            let (deadline, stage) = (op.deadline, op.stage);
            let now = *now.get_or_insert_with(|| self.shared.clock.now());
            if when > now {
                break;
            }
            self.deadlines.pop();
            *progress = Progress { worked: true, news: true };
            if deadline <= now && stage == Stage::Cancelled {
                self.finish(id, Outcome::Lost(Reason::Deadline));
            } else {
                // Whoever drives may be late, too: the fabric is polled at least once between the
                // cancelling and the loss.
                let lost = deadline.max(now + Duration::from_nanos(1));
                self.deadlines.push(lost, id);
                self.stop(id, Reason::Deadline);
            }
        }
    }

    /// Forgets the deadlines of operations that have ended, when they are most of what is kept.
    pub(super) fn trim_deadlines(&mut self) {
        if self.deadlines.len() > DEADLINES_SPARE + 2 * self.ops.len() {
            let ops = &self.ops;
            self.deadlines
                .retain(|id| ops.get(At::unpack(id.0)).is_some_and(|op| op.stage != Stage::Lost));
        }
    }

    /// When the next deadline falls.
    pub(in crate::engine) fn next_deadline(&mut self) -> Time {
        while let Some((when, id)) = self.deadlines.first() {
            if self.op_mut(id).is_some_and(|op| op.stage != Stage::Lost) {
                return when;
            }
            self.deadlines.pop();
        }
        Time::NEVER
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_earliest_comes_first(spans in prop::collection::vec(0u64..20, 0..60), gone in 0u64..4) {
            let mut deadlines = Deadlines::default();
            let mut all = Vec::new();
            for (at, span) in spans.into_iter().enumerate() {
                // Time goes on, and most timeouts are alike.
                let when = Time::from_nanos(at as u64 + if span < 15 { 20 } else { span });
                deadlines.push(when, OpId(at as u64));
                all.push((when, OpId(at as u64)));
            }
            deadlines.retain(|id| id.0 % 5 >= gone);
            all.retain(|(_, id)| id.0 % 5 >= gone);
            all.sort();
            prop_assert_eq!(deadlines.len(), all.len());
            for next in all {
                prop_assert_eq!(deadlines.first(), Some(next));
                deadlines.pop();
            }
            prop_assert!(deadlines.is_empty());
        }
    }
}
