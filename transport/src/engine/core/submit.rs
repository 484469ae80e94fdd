//! Tasks from submission to the fabric.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use super::{Core, Op, Progress, Stage};
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
use crate::transfer::{Completion, Started, Told};

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
        let Queued { mut order, completion } = queued;
        // Whoever cancels sets its mark and then looks which worker has it; here it is the other
        // way round, so one of the two sees the other.
        completion.worker.store(self.index, Ordering::Release);
        fence(Ordering::SeqCst);
        let ended = if completion.cancelled.load(Ordering::Acquire) {
            Tallies::add(&self.tallies.submitted, 1);
            // As if it had not waited here: what could not be taken on anyway says why.
            let why = self.refusal(&order).unwrap_or(Reason::Cancelled);
            self.ended(Outcome::Rejected(why), &order.task)
        } else {
            let place = Arc::clone(&completion);
            self.submit(&mut order, move || place)
        };
        if let Started::Ended(outcome) = ended {
            self.wakers.extend(completion.end(outcome));
        }
    }

    /// Takes on a task. It ends at once if the fabric can do it at once; otherwise `completion`
    /// makes the place where its end will be written, and what `order` borrows is kept.
    pub(in crate::engine) fn submit(
        &mut self,
        order: &mut Order<'_>,
        completion: impl FnOnce() -> Arc<Completion>,
    ) -> Started {
        Tallies::add(&self.tallies.submitted, 1);
        let id = OpId(self.ops.vacant_key() as u64 | u64::from(self.next_serial) << 32);
        match self.begin(id, order) {
            Begun::Ended(outcome) => self.ended(outcome, &order.task),
            Begun::Under(stage) => self.keep(id, order, stage, completion()),
            Begun::Elsewhere => {
                let diverted = self.divert(order.keep(), completion, Reason::Unreachable);
                diverted.unwrap_or_else(|order| {
                    self.ended(Outcome::Rejected(Reason::Stale), &order.task)
                })
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
    fn keep(
        &mut self,
        id: OpId,
        order: &mut Order<'_>,
        stage: Stage,
        completion: Arc<Completion>,
    ) -> Started {
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
        completion.worker.store(self.index, Ordering::Relaxed);
        completion.op.store(id.0, Ordering::Release);
        let margin = (order.timeout / 8).min(CANCEL_MARGIN_MAX);
        self.trim_deadlines();
        self.deadlines.push(order.deadline.before(margin), id);
        let running = Started::Running(Arc::clone(&completion));
        let serial = self.next_serial;
        self.next_serial = serial.wrapping_add(1);
        self.ops.insert(Op {
            serial,
            link,
            connection,
            stage,
            what: order.task.what(),
            class: order.class,
            bytes: order.task.bytes(),
            deadline: order.deadline,
            region: order.task.local().map(|it| Arc::clone(&it.region)),
            order: (stage == Stage::Parked).then(|| Box::new(order.keep())),
            completion,
        });
        running
    }

    /// Sends a task over the next way to its window, if there is one, and announces it.
    pub(super) fn divert(
        &mut self,
        mut order: Order<'static>,
        completion: impl FnOnce() -> Arc<Completion>,
        why: Reason,
    ) -> Result<Started, Order<'static>> {
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
        let completion = completion();
        Tallies::take_back(&self.tallies.submitted);
        if sabotage::is(Defect::DoubleDetour) {
            let (order, completion) = (order.keep(), Told::default().completion());
            self.detours.push((worker, Queued { order, completion }));
        }
        self.detours.push((worker, Queued { order, completion: Arc::clone(&completion) }));
        Ok(Started::Running(completion))
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
    fn ended(&self, outcome: Outcome, task: &Task<'_>) -> Started {
        self.count(outcome, task.what(), task.bytes());
        Started::Ended(outcome)
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

    /// Asks for an early end of the operation behind `completion`.
    pub(in crate::engine) fn cancel(&mut self, completion: &Arc<Completion>) {
        let id = OpId(completion.op.load(Ordering::Acquire));
        // It may have gone to another worker, where the same number means another operation.
        let here = self.op_mut(id).is_some_and(|op| Arc::ptr_eq(&op.completion, completion));
        if completion.outcome().is_none() && here {
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
            let index = (id.0 & u64::from(u32::MAX)) as usize;
            let op = &self.ops[index];
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
                    let op = &mut self.ops[index];
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
        let index = (id.0 & u64::from(u32::MAX)) as usize;
        let op = &self.ops[index];
        let order = op.order.as_deref().expect(PARKED);
        let next = order.next_way();
        if next.is_none() {
            self.finish(id, Outcome::Rejected(rejected));
            return;
        }
        let Op { order, completion, .. } = self.forget(id);
        let diverted = self.divert(*order.expect(PARKED), || completion, why);
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
