//! Tasks from submission to the fabric.

use std::ops::Range;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use super::groups::Place;
use super::{Core, Op, Progress, Stage};
use crate::completion::{Completion, End, Ends, Told};
use crate::engine::links::State;
use crate::engine::stats::Tallies;
use crate::engine::worker::Queued;
use crate::fabric::{OpId, PeerId, Posted};
use crate::lane::{Class, Lane};
use crate::order::{Move, Order, Task, What};
use crate::outcome::{Outcome, Reason};
use crate::pages::{Pages, Plan};
use crate::peer::LinkId;
use crate::sabotage::{self, Defect};
use crate::slots::At;

/// How long before its deadline an operation is cancelled, so that the proof can still come in
/// time: an eighth of its whole time, at most this.
const CANCEL_MARGIN_MAX: Duration = Duration::from_millis(20);
/// Operations under way at once, parked ones included.
const OPS_MAX: usize = 1 << 16;
/// Of these, and of those to one peer, what bulk leaves to the latency lane.
const OPS_URGENT: usize = 1 << 12;
/// Of these, what one peer can have, so that one that does not answer leaves room for the others.
const OPS_PER_PEER: usize = OPS_MAX / 2;

/// Why an operation has its order.
const PARKED: &str = "what is parked has its order";

/// How far a task got at once.
enum Begun {
    Ended(Outcome),
    /// It goes on.
    Under(Stage),
    /// Somebody else is at the peer's address: another way may lead there.
    Elsewhere,
}

impl Core {
    /// Takes on what waited in a queue.
    pub(in crate::engine) fn admit(&mut self, queued: Queued) {
        let Queued { mut order, end } = queued;
        // Whoever cancels sets its mark and then looks which worker has it; here it is the other
        // way round, so one of the two sees the other.
        end.worker.store(self.index, Ordering::Release);
        fence(Ordering::SeqCst);
        let ended = if end.cancelled.load(Ordering::Acquire) {
            Tallies::add(&self.tallies.submitted, 1);
            // As if it had not waited here: what could not be taken on anyway says why.
            let why = self.refusal(&order).unwrap_or(Reason::Cancelled);
            Some(self.ended(Outcome::Rejected(why), &order.task))
        } else {
            self.submit(&mut order, || end.clone())
        };
        if let Some(outcome) = ended {
            self.wakers.extend(end.end(outcome));
        }
    }

    /// Takes on a task. It ends at once if the fabric can do it at once; otherwise its end will be
    /// written to `end`, and what `order` borrows is kept.
    pub(in crate::engine) fn submit(
        &mut self,
        order: &mut Order<'_>,
        end: impl FnOnce() -> End,
    ) -> Option<Outcome> {
        self.take_on(order, |core| core.groups.one(end()))
    }

    /// Takes on tasks, each as [`Core::submit`] does; those that ended at once have their ends written.
    pub(in crate::engine) fn submit_all(
        &mut self,
        orders: &mut [Order<'_>],
        ends: &Ends,
        first: usize,
    ) {
        let many = self.groups.many(ends);
        for (at, order) in orders.iter_mut().enumerate() {
            let at = first + at;
            if let Some(outcome) = self.take_on(order, |core| core.groups.of(many, at)) {
                self.wakers.extend(ends[at].end(outcome));
            }
        }
        self.groups.give_back(many);
    }

    #[inline]
    fn take_on(
        &mut self,
        order: &mut Order<'_>,
        place: impl FnOnce(&mut Self) -> Place,
    ) -> Option<Outcome> {
        Tallies::add(&self.tallies.submitted, 1);
        let id = OpId(self.ops.next().pack());
        match self.begin(id, order) {
            Begun::Ended(outcome) => Some(self.ended(outcome, &order.task)),
            Begun::Under(stage) => {
                let place = place(self);
                self.keep(id, order, stage, place);
                None
            }
            Begun::Elsewhere => {
                let diverted = self.divert(order.keep(), place, Reason::Unreachable);
                let order = diverted.err()?;
                Some(self.ended(Outcome::Rejected(Reason::Stale), &order.task))
            }
        }
    }

    /// Gives a task to the fabric, if that is possible right now.
    fn begin(&mut self, id: OpId, order: &Order<'_>) -> Begun {
        if let Some(why) = self.refusal(order) {
            return Begun::Ended(Outcome::Rejected(why));
        }
        let (link, lane) = (order.peer().link, order.class.lane());
        let Some(entry) = self.links.get_mut(link) else {
            return Begun::Ended(Outcome::Rejected(Reason::PeerGone));
        };
        let limit = match lane {
            Lane::Latency => OPS_PER_PEER,
            Lane::Bulk => OPS_PER_PEER - OPS_URGENT,
        };
        if entry.ops >= limit {
            return Begun::Ended(Outcome::Rejected(Reason::Full));
        }
        match entry.state {
            State::Up(_) if entry.is_somebody_else(order) => return Begun::Elsewhere,
            // What waits goes first, so that messages stay in order.
            State::Up(peer) if entry.goes_now(order.class) => {
                let bytes = order.task.bytes();
                if entry.credits.allow(lane, bytes) {
                    match self.fabric.post(id, peer, lane, order.work()) {
                        Posted::Done => return Begun::Ended(Outcome::Done),
                        Posted::Refused(why) => return Begun::Ended(Outcome::Rejected(why)),
                        Posted::Pending => {
                            entry.credits.take(lane, bytes);
                            return Begun::Under(Stage::Posted);
                        }
                        Posted::Busy => {}
                    }
                }
            }
            State::Down => self.links.dial(link, &mut *self.fabric),
            State::Up(_) | State::Connecting(_) => {}
        }
        Begun::Under(Stage::Parked)
    }

    /// Keeps an operation that did not end at once.
    fn keep(&mut self, id: OpId, order: &mut Order<'_>, stage: Stage, place: Place) {
        let link = order.peer().link;
        let entry = self.links.get_mut(link).expect("it was there when the operation began");
        entry.ops += 1;
        let connection = entry.connection;
        if stage == Stage::Parked {
            Tallies::add(&self.tallies.parked, 1);
            entry.parked[order.class.index()].push_back(id);
            if !std::mem::replace(&mut entry.runnable, true) {
                self.runnable.push_back(link);
            }
        }
        // Nobody else has it yet, or `admit` has stored the same.
        let end = self.groups.get(place);
        end.worker.store(self.index, Ordering::Relaxed);
        end.op.store(id.0, Ordering::Release);
        let margin = (order.timeout / 8).min(CANCEL_MARGIN_MAX);
        self.trim_deadlines();
        self.deadlines.push(order.deadline.before(margin), id);
        let (at, op) = self.ops.take();
        debug_assert_eq!(at.pack(), id.0, "nobody came between");
        // Each field by its name: one that is forgotten would be its predecessor's.
        let Op {
            link: to,
            connection: over,
            stage: now,
            what,
            class,
            bytes,
            deadline,
            region,
            order: kept,
            place: end,
        } = op;
        (*to, *over, *now) = (link, connection, stage);
        (*what, *class, *bytes) = (order.task.what(), order.class, order.task.bytes());
        (*deadline, *end) = (order.deadline, place);
        *region = order.task.local().map(|it| it.region.id);
        *kept = (stage == Stage::Parked).then(|| Box::new(order.keep()));
    }

    /// Sends a task over the next way to its window, if there is one, and announces it.
    pub(super) fn divert(
        &mut self,
        mut order: Order<'static>,
        place: impl FnOnce(&mut Self) -> Place,
        why: Reason,
    ) -> Result<(), Order<'static>> {
        let Some(opened) = order.task.window() else { return Err(order) };
        let Some((way, first)) = opened.detour(order.way, |peer| order.task.may_go_to(peer)) else {
            return Err(order);
        };
        if first {
            let (from, to) = (&opened.route(order.way).address, &opened.route(way).address);
            tracing::warn!(%from, %to, %why, "fallback: a slower way to the peer is taken");
            Tallies::add(&self.tallies.fallbacks, 1);
        }
        order.way = way;
        let worker = order.peer().worker;
        let place = place(self);
        let end = self.groups.end(place);
        self.groups.give_back(place);
        Tallies::take_back(&self.tallies.submitted);
        if sabotage::is(Defect::DoubleDetour) {
            let (order, end) = (order.keep(), Told::default().end());
            self.detours.push((worker, Queued { order, end }));
        }
        self.detours.push((worker, Queued { order, end }));
        Ok(())
    }

    /// Why a task cannot be taken on at all.
    fn refusal(&self, order: &Order<'_>) -> Option<Reason> {
        if self.closed {
            return Some(Reason::Closed);
        }
        let limit = match order.class.lane() {
            Lane::Latency => OPS_MAX,
            Lane::Bulk => OPS_MAX - OPS_URGENT,
        };
        if self.ops.len() >= limit {
            return Some(Reason::Full);
        }
        if let Some(local) = order.task.local() {
            if local.region.engine != self.shared.engine {
                return Some(Reason::OtherEngine);
            }
            if local.region.closing.load(Ordering::Acquire) {
                return Some(Reason::Closed);
            }
            if !local.region.is_with(self.index) {
                return Some(Reason::Unsupported);
            }
        }
        if order.task.window().is_some_and(|opened| opened.by != self.shared.engine) {
            return Some(Reason::OtherEngine);
        }
        match &order.task {
            Task::Write(it) => match &it.pages {
                None => uneven(it),
                Some(plan) => misfit(plan, it, plan.remote()),
            },
            Task::Read(it) => match &it.pages {
                None => uneven(it),
                Some(plan) => misfit(plan, it, plan.local()),
            },
            Task::Send { bytes, .. } => {
                (bytes.len() > self.fabric.limits().message_bytes_max).then_some(Reason::TooLong)
            }
            Task::Signal { .. } | Task::Map { .. } => None,
        }
    }

    /// Counts a task that ended on the spot.
    fn ended(&self, outcome: Outcome, task: &Task<'_>) -> Outcome {
        self.count(outcome, task.what(), task.bytes());
        outcome
    }

    pub(super) fn count(&self, outcome: Outcome, what: What, bytes: u64) {
        self.tallies.ended(outcome);
        if outcome.is_done() {
            match what {
                What::Write => Tallies::add(&self.tallies.written_bytes, bytes),
                What::Read => Tallies::add(&self.tallies.read_bytes, bytes),
                What::Send => Tallies::add(&self.tallies.messages_sent, 1),
                What::Other => {}
            }
        }
    }

    /// Asks for an early end of the operation that ends there.
    pub(in crate::engine) fn cancel(&mut self, end: &Completion) {
        let id = OpId(end.op.load(Ordering::Acquire));
        // It may have gone to another worker, where the same number means another operation.
        let place = self.op_mut(id).map(|op| op.place);
        let here = place.is_some_and(|place| std::ptr::eq(self.groups.get(place), end));
        if end.outcome().is_none() && here {
            self.stop(id, Reason::Cancelled);
        }
    }

    /// Ends a parked operation, or asks the fabric to end a posted one.
    pub(super) fn stop(&mut self, id: OpId, why: Reason) {
        let Some(op) = self.op_mut(id) else { return };
        match op.stage {
            Stage::Parked => {
                let (link, class) = (op.link, op.class);
                if let Some(entry) = self.links.get_mut(link) {
                    entry.unpark(class, id);
                }
                self.finish(id, Outcome::Rejected(why));
            }
            Stage::Posted => {
                op.stage = Stage::Cancelled;
                self.fabric.cancel(id, why);
                if sabotage::is(Defect::EarlyEnd) {
                    self.finish(id, Outcome::Fenced(why));
                }
            }
            Stage::Cancelled | Stage::Lost => {}
        }
    }

    /// Gives parked operations another try, link by link, the urgent ones first.
    pub(super) fn run_parked(&mut self, progress: &mut Progress) {
        for _ in 0..self.runnable.len() {
            let Some(link) = self.runnable.pop_front() else { break };
            let Some(entry) = self.links.get_mut(link) else { continue };
            entry.runnable = false;
            let again = match entry.state {
                // Each, whatever becomes of those before.
                State::Up(peer) => Class::LINES
                    .into_iter()
                    .fold(false, |busy, line| self.run_line(link, peer, line, progress) | busy),
                State::Connecting(_) | State::Down => entry.has_parked(),
            };
            if again
                && let Some(entry) = self.links.get_mut(link)
                && !std::mem::replace(&mut entry.runnable, true)
            {
                self.runnable.push_back(link);
            }
        }
    }

    /// Posts what is parked in some queues of a link; whether the fabric had no room for some of it.
    fn run_line(
        &mut self,
        link: LinkId,
        peer: PeerId,
        (lane, queues): (Lane, Range<usize>),
        progress: &mut Progress,
    ) -> bool {
        while let Some(entry) = self.links.get_mut(link)
            && let Some(id) = entry.first_parked(queues.clone())
        {
            let op = self.ops.get(At::unpack(id.0)).expect(PARKED);
            let order = op.order.as_deref().expect(PARKED);
            if entry.is_somebody_else(order) {
                entry.unpark(order.class, id);
                self.give_up_way(id, Reason::Unreachable, Reason::Stale);
                continue;
            }
            let (class, bytes) = (op.class, op.bytes);
            if !entry.credits.allow(lane, bytes) {
                // Whatever gives credits back makes the link runnable.
                return false;
            }
            let posted = self.fabric.post(id, peer, lane, order.work());
            if posted == Posted::Busy {
                return true;
            }
            entry.unpark(class, id);
            progress.worked = true;
            match posted {
                Posted::Pending => {
                    entry.credits.take(lane, bytes);
                    let op = self.ops.get_mut(At::unpack(id.0)).expect(PARKED);
                    (op.stage, op.connection) = (Stage::Posted, entry.connection);
                    op.order = None;
                }
                Posted::Done => {
                    progress.news = true;
                    self.finish(id, Outcome::Done);
                }
                Posted::Refused(why) => {
                    progress.news = true;
                    self.finish(id, Outcome::Rejected(why));
                }
                Posted::Busy => unreachable!("handled above"),
            }
        }
        false
    }

    /// Takes a parked operation, out of its queue already, to the next way to its window; without
    /// one it ends as rejected.
    pub(super) fn give_up_way(&mut self, id: OpId, why: Reason, rejected: Reason) {
        let op = self.ops.get(At::unpack(id.0)).expect(PARKED);
        let (order, place) = (op.order.as_deref().expect(PARKED), op.place);
        let next = order.next_way();
        if next.is_none() {
            self.finish(id, Outcome::Rejected(rejected));
            return;
        }
        let order = self.forget(id).expect(PARKED);
        let diverted = self.divert(*order, |_| place, why);
        debug_assert!(diverted.is_ok(), "there is a next way");
    }
}

fn uneven(it: &Move<'_>) -> Option<Reason> {
    (it.local.len() != it.remote.len()).then_some(Reason::Uneven)
}

/// What is wrong with a plan between two slices; `destination` is the side that is written.
fn misfit(plan: &Plan, it: &Move<'_>, destination: &Pages) -> Option<Reason> {
    if plan.local().end() > it.local.len() || plan.remote().end() > it.remote.len() {
        return Some(Reason::OutOfBounds);
    }
    destination.overlaps().then_some(Reason::Overlapping)
}
