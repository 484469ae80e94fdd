//! Taking on operations.

use std::collections::VecDeque;

use super::fabric::Hub;
use super::link::{Given, Link, OpRef};
use super::op::{Kind, News, Op, Position};
use super::opening::Opening;
use super::path::RATE_BYTES_MIN;
use crate::fabric::{self, OpId, Posted, Remote, Work};
use crate::lane::Lane;
use crate::outcome::Reason;
use crate::pages::Plan;
use crate::window::WindowId;

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
            && let Some(opened) = self.opened.get_mut(&remote.window)
            && opened.is_open()
        {
            let reach = if total == 0 { 0 } else { fabric::reach(&local, pages) };
            if let Err(reason) = opened.admit(remote.key.key, kind.access(), remote.offset, reach) {
                return Posted::Refused(reason);
            }
            opened.under_way += 1;
            counted = true;
        }
        self.ops_ever = self.ops_ever.wrapping_add(1);
        let serial = self.ops_ever;
        // Written in place: what is made here and then moved is waited for.
        let index = self.ops.insert(Op {
            serial,
            id,
            kind,
            lane,
            local,
            remote,
            plan: pages.filter(|_| total > 0).cloned(),
            immediate,
            total,
            next: Position::default(),
            again: Vec::new(),
            flying: 0,
            landed: 0,
            path: None,
            spread: false,
            news: if immediate.is_some() { News::Due } else { News::None },
            cancel: None,
            queued: false,
            counted,
        });
        let at = (index as u32, serial);
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
                self.ops.remove(index);
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
            while self.ops[at.0 as usize].is_due() {
                if self.give(hub, at) != Given::Yes {
                    break;
                }
            }
            let op = &self.ops[at.0 as usize];
            if !op.is_due() && !op.is_over() {
                return;
            }
        }
        self.queue(at);
        self.pump(hub);
    }
}

const NOTHING: fabric::Local =
    fabric::Local { region: fabric::RegionId(u32::MAX), ptr: std::ptr::null_mut(), len: 0 };
const NOWHERE: Remote = Remote {
    window: WindowId { slot: u32::MAX, generation: u32::MAX },
    key: fabric::RemoteKey { key: 0, base: 0 },
    offset: 0,
};
