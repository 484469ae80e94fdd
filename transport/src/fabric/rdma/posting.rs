//! Taking on operations.

use std::collections::VecDeque;

use super::hub::Hub;
use super::link::{Given, Link, OpRef};
use super::op::{Asked, Kind, NOTHING, NOWHERE, Op};
use super::opening::Opening;
use super::path::RATE_BYTES_MIN;
use crate::fabric::{self, OpId, Posted, Work};
use crate::lane::Lane;
use crate::outcome::Reason;
use crate::pages::Plan;

/// Operations of ours that one peer has at once.
const OPS_MAX: usize = 4096;

impl Link {
    /// Whether it has to be known when this was posted.
    pub(super) fn is_timed(&self, work: &Work<'_>) -> bool {
        match *work {
            Work::Write { local, pages, .. } | Work::Read { local, pages, .. } => {
                self.pending.is_some() || fabric::bytes(&local, pages) >= RATE_BYTES_MIN
            }
            Work::Send { .. } | Work::Signal { .. } | Work::Map { .. } => false,
        }
    }

    /// Takes on a write, a read or a signal.
    pub(super) fn post(&mut self, hub: &mut Hub, id: OpId, lane: Lane, work: &Work<'_>) -> Posted {
        if !self.has_ways() {
            return self.fall_back(hub, id, lane, *work);
        }
        if self.ops.len() >= OPS_MAX {
            return Posted::Busy;
        }
        let (kind, local, remote, pages, immediate) = match *work {
            Work::Write { local, remote, pages, immediate } => {
                (Kind::Write, local, remote, pages, immediate)
            }
            Work::Read { local, remote, pages, immediate } => {
                (Kind::Read, local, remote, pages, immediate)
            }
            Work::Signal { immediate } => (Kind::Signal, NOTHING, NOWHERE, None, Some(immediate)),
            Work::Send { .. } | Work::Map { .. } => return Posted::Refused(Reason::Unsupported),
        };
        let total = fabric::bytes(&local, pages);
        if let Err(reason) = self.check(hub, kind, &local, pages) {
            return Posted::Refused(reason);
        }
        let mut counted = false;
        if kind != Kind::Signal
            && let Some(opened) = self.opened.get_mut(remote.window)
            && opened.is_open()
        {
            let reach = if total == 0 { 0 } else { fabric::reach(&local, pages) };
            if let Err(reason) = opened.admit(remote.key.key, kind.access(), remote.offset, reach) {
                return Posted::Refused(reason);
            }
            opened.under_way += 1;
            counted = true;
        }
        let (at, op) = self.ops.take();
        op.fill(&Asked { id, kind, lane, local, remote, immediate, total, counted });
        op.plan = pages.filter(|_| total > 0).cloned();
        if kind == Kind::Signal || counted {
            self.start(hub, at);
            return Posted::Pending;
        }
        if let Opening::Wait = self.open(hub, remote.window, remote.key.key, at) {
            return Posted::Pending;
        }
        match self.begin(at) {
            Ok(()) => {
                self.pump(hub);
                Posted::Pending
            }
            Err(reason) => {
                self.forget(hub, at);
                Posted::Refused(reason)
            }
        }
    }

    /// Whether this side can do what is wanted.
    #[inline]
    fn check(
        &self,
        hub: &mut Hub,
        kind: Kind,
        local: &fabric::Local,
        pages: Option<&Plan>,
    ) -> Result<(), Reason> {
        if let Some(plan) = pages
            && (plan.local().end() > local.len || plan.local().bytes() != plan.remote().bytes())
        {
            return Err(Reason::OutOfBounds);
        }
        if fabric::bytes(local, pages) > 0 {
            hub.control.windows().check(local, kind == Kind::Read)?;
        }
        if kind == Kind::Write && !hub.control.allows(self.engine, self.ops.len()) {
            return Err(Reason::Unproven);
        }
        Ok(())
    }

    /// Posts an operation that may begin, at once where nothing waits before it.
    fn start(&mut self, hub: &mut Hub, at: OpRef) {
        if self.queues.iter().all(VecDeque::is_empty) {
            while self.ops.get(at).is_some_and(Op::is_due) && self.give(hub, at) == Given::Yes {}
            if self.ops.get(at).is_some_and(|op| !op.is_due() && !op.is_over()) {
                return;
            }
        }
        self.queue(at);
        self.pump(hub);
    }
}
