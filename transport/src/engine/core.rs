//! The state of one worker: a fabric, the operations on it, and who waits for what.
//!
//! Only the holder of the worker's lock touches it. It never blocks and never calls into user code
//! except the sink for incoming messages, which may submit: that queues. Wakers of futures are handed
//! to whoever releases the lock.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

use slab::Slab;

use super::links::{Links, State};
use super::shared::{INBOX_MAX, Shared};
use super::stats::Tallies;
use crate::address::Address;
use crate::fabric::{Event, Fabric, Grant, OpId, PeerId, Posted, RegionId, Status};
use crate::immediate::Immediate;
use crate::lane::Lane;
use crate::outcome::{Outcome, Reason};
use crate::pages::{Pages, Plan};
use crate::peer::{Incoming, LinkId, Peer};
use crate::region::{Registered, Slice};
use crate::remote::{Mapping, RemoteSlice};
use crate::time::Time;
use crate::transfer::{Completion, Started, Task};
use crate::window::WindowId;

/// How long before its deadline an operation is cancelled, so that the proof can still come in
/// time: an eighth of its whole time, at most this.
const CANCEL_MARGIN_MAX: Duration = Duration::from_millis(20);
/// Operations under way at once, parked ones included.
const OPS_MAX: usize = 1 << 16;
/// Deadlines of ended operations that are kept at least, before they are looked through.
const DEADLINES_SPARE: usize = 64;
/// Messages taken from the fabric in one step.
const MESSAGES_PER_STEP: usize = 64;

/// An operation that did not end at once.
struct Op {
    serial: u32,
    link: LinkId,
    task: Task,
    deadline: Time,
    stage: Stage,
    completion: Arc<Completion>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Waits for a connection or for room; the fabric has not seen it.
    Parked,
    /// The fabric has it.
    Posted,
    /// The fabric was asked to end it.
    Cancelled,
    /// It ended as `Lost`; kept until the fabric proves that nothing moves any more.
    Lost,
}

/// What a step found out that somebody may wait for.
#[derive(Clone, Copy, Default)]
pub(super) struct Progress {
    /// Some work was done: look again before going to sleep.
    pub(super) worked: bool,
    /// Something ended or arrived: wake those who wait.
    pub(super) news: bool,
}

pub(super) struct Core {
    index: u16,
    pub(super) fabric: Box<dyn Fabric>,
    shared: Arc<Shared>,
    tallies: Arc<Tallies>,
    ops: Slab<Op>,
    next_serial: u32,
    links: Links,
    /// Links with parked operations that may go on.
    runnable: VecDeque<LinkId>,
    deadlines: BinaryHeap<Reverse<(Time, OpId)>>,
    /// Windows on their way out (in order, so that a simulated run repeats itself), with the memory
    /// that must stay until they are fenced.
    revoking: BTreeMap<WindowId, Arc<Registered>>,
    /// Windows in use, for fencing a region as a whole.
    granted: BTreeMap<WindowId, Arc<Registered>>,
    events: Vec<Event>,
    /// Tasks to be woken once the lock is released: a waker is somebody else's code.
    pub(super) wakers: Vec<Waker>,
    closed: bool,
}

impl Core {
    pub(super) fn new(
        index: u16,
        fabric: Box<dyn Fabric>,
        shared: Arc<Shared>,
        tallies: Arc<Tallies>,
    ) -> Self {
        Self {
            index,
            fabric,
            shared,
            tallies,
            ops: Slab::new(),
            next_serial: 0,
            links: Links::default(),
            runnable: VecDeque::new(),
            deadlines: BinaryHeap::new(),
            revoking: BTreeMap::new(),
            granted: BTreeMap::new(),
            events: Vec::new(),
            wakers: Vec::new(),
            closed: false,
        }
    }

    // ---- submissions -------------------------------------------------------------------------

    /// Takes on a task. It ends at once if the fabric can do it at once; otherwise `completion`
    /// makes the place where its end will be written.
    pub(super) fn submit(
        &mut self,
        task: Task,
        deadline: Time,
        timeout: Duration,
        completion: impl FnOnce() -> Arc<Completion>,
    ) -> Started {
        Tallies::add(&self.tallies.submitted, 1);
        let link = task.peer().link;
        if let Some(why) = self.refusal(&task) {
            return self.ended(Outcome::Rejected(why), &task);
        }
        let Some(entry) = self.links.get_mut(link) else {
            return self.ended(Outcome::Rejected(Reason::PeerGone), &task);
        };
        let serial = self.next_serial;
        self.next_serial = serial.wrapping_add(1);
        let id = OpId(self.ops.vacant_key() as u64 | u64::from(serial) << 32);
        let mut stage = Stage::Parked;
        match entry.state {
            // What waits goes first, so that messages stay in order.
            State::Up(peer) if entry.parked.is_empty() => {
                match self.fabric.post(id, peer, Lane::Bulk, task.work()) {
                    Posted::Done => return self.ended(Outcome::Done, &task),
                    Posted::Refused(why) => return self.ended(Outcome::Rejected(why), &task),
                    Posted::Pending => stage = Stage::Posted,
                    Posted::Busy => {}
                }
            }
            State::Down => self.links.dial(link, &mut *self.fabric),
            State::Up(_) | State::Connecting(_) => {}
        }
        if stage == Stage::Parked {
            Tallies::add(&self.tallies.parked, 1);
            let entry = self.links.get_mut(link).expect("looked up above");
            entry.parked.push_back(id);
            if !std::mem::replace(&mut entry.runnable, true) {
                self.runnable.push_back(link);
            }
        }
        if let Some(local) = task.local() {
            local.region.busy.fetch_add(1, Ordering::AcqRel);
        }
        let completion = completion();
        completion.op.store(id.0, Ordering::Release);
        let margin = (timeout / 8).min(CANCEL_MARGIN_MAX);
        self.trim_deadlines();
        self.deadlines.push(Reverse((deadline.before(margin), id)));
        let running = Started::Running(Arc::clone(&completion));
        self.ops.insert(Op { serial, link, task, deadline, stage, completion });
        running
    }

    /// Why a task cannot be taken on at all.
    fn refusal(&self, task: &Task) -> Option<Reason> {
        if self.closed {
            return Some(Reason::Closed);
        }
        if self.ops.len() >= OPS_MAX {
            return Some(Reason::Full);
        }
        if let Some(local) = task.local()
            && local.region.closing.load(Ordering::Acquire)
        {
            return Some(Reason::Closed);
        }
        match task {
            Task::Write { local, remote, pages: None, .. }
            | Task::Read { local, remote, pages: None, .. } => {
                (local.len() != remote.len()).then_some(Reason::Uneven)
            }
            Task::Write { local, remote, pages: Some(plan), .. } => {
                misfit(plan, local, remote, plan.remote())
            }
            Task::Read { local, remote, pages: Some(plan), .. } => {
                misfit(plan, local, remote, plan.local())
            }
            Task::Send { bytes, .. } => {
                (bytes.len() > self.fabric.limits().message_bytes_max).then_some(Reason::TooLong)
            }
            Task::Signal { .. } | Task::Map { .. } => None,
        }
    }

    /// Counts a task that ended on the spot.
    fn ended(&self, outcome: Outcome, task: &Task) -> Started {
        self.count(outcome, task);
        Started::Ended(outcome)
    }

    fn count(&self, outcome: Outcome, task: &Task) {
        self.tallies.ended(outcome);
        if outcome.is_done() {
            match task {
                Task::Write { .. } => {
                    Tallies::add(&self.tallies.written_bytes, task.bytes());
                }
                Task::Read { .. } => Tallies::add(&self.tallies.read_bytes, task.bytes()),
                Task::Send { .. } => Tallies::add(&self.tallies.messages_sent, 1),
                Task::Signal { .. } | Task::Map { .. } => {}
            }
        }
    }

    /// Asks for an early end of the operation behind `completion`.
    pub(super) fn cancel(&mut self, completion: &Completion) {
        let id = OpId(completion.op.load(Ordering::Acquire));
        if completion.outcome().is_none() && id.0 != Completion::NO_OP {
            self.stop(id, Reason::Cancelled);
        }
    }

    /// Ends a parked operation, or asks the fabric to end a posted one.
    fn stop(&mut self, id: OpId, why: Reason) {
        let Some(op) = self.op_mut(id) else { return };
        match op.stage {
            Stage::Parked => {
                let link = op.link;
                if let Some(entry) = self.links.get_mut(link) {
                    entry.unpark(id);
                }
                self.finish(id, Outcome::Rejected(why));
            }
            Stage::Posted => {
                op.stage = Stage::Cancelled;
                self.fabric.cancel(id, why);
            }
            Stage::Cancelled | Stage::Lost => {}
        }
    }

    // ---- progress ----------------------------------------------------------------------------

    /// Moves everything on by a bounded amount.
    pub(super) fn step(&mut self) -> Progress {
        let mut progress = Progress::default();
        let room = match &self.shared.sink {
            Some(_) => MESSAGES_PER_STEP,
            None => INBOX_MAX.saturating_sub(self.shared.inbox.len()).min(MESSAGES_PER_STEP),
        };
        let mut events = std::mem::take(&mut self.events);
        progress.worked |= self.fabric.poll(room, &mut events);
        progress.news |= !events.is_empty();
        for event in events.drain(..) {
            self.handle(event);
        }
        self.events = events;
        self.run_parked(&mut progress);
        if !self.deadlines.is_empty() {
            self.expire(&mut progress);
        }
        for (region, memory) in self.shared.graveyards[usize::from(self.index)].take() {
            self.fabric.deregister(region);
            drop(memory);
            progress.worked = true;
        }
        progress
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Completed { op, status } => self.completed(op, status),
            Event::Mapped { op, memory, offset, len } => {
                if let Some(entry) = self.op_mut(op) {
                    let (offset, len) = (offset as usize, len as usize);
                    let mapping = Mapping::new(memory, offset, len);
                    let _ = entry.completion.mapping.set(std::sync::Mutex::new(Some(mapping)));
                }
                self.completed(op, Status::Done);
            }
            Event::Arrived { immediate } => self.arrived(immediate),
            Event::Message { peer, bytes } => {
                if let Some(link) = self.links.by_peer.get(&peer) {
                    Tallies::add(&self.tallies.messages_received, 1);
                    let from = Peer { worker: self.index, link: *link };
                    self.shared.incoming(Incoming::Message { from, bytes });
                }
            }
            Event::PeerUp { peer, engine } => self.peer_up(peer, engine),
            Event::PeerDown { peer, reason } => self.peer_down(peer, reason),
            Event::Revoked { window } => {
                if self.revoking.remove(&window).is_some() {
                    Tallies::add(&self.tallies.windows_fenced, 1);
                    self.shared.windows.release(window, self.index);
                }
            }
        }
    }

    fn arrived(&self, immediate: Immediate) {
        let tally = if self.shared.counters.arrived(immediate) {
            &self.tallies.immediates
        } else {
            &self.tallies.stray_immediates
        };
        Tallies::add(tally, 1);
    }

    fn completed(&mut self, id: OpId, status: Status) {
        let Some(op) = self.op_mut(id) else { return };
        if op.stage == Stage::Lost {
            op.completion.prove();
            Tallies::add(&self.tallies.recovered, 1);
            self.forget(id);
            return;
        }
        self.finish(
            id,
            match status {
                Status::Done => Outcome::Done,
                Status::Refused(why) => Outcome::Rejected(why),
                Status::Stopped(why) => Outcome::Fenced(why),
            },
        );
    }

    /// Writes an operation's end and forgets it, unless it is `Lost`.
    fn finish(&mut self, id: OpId, outcome: Outcome) {
        let index = (id.0 & u64::from(u32::MAX)) as usize;
        let op = &mut self.ops[index];
        let completion = Arc::clone(&op.completion);
        if let Outcome::Lost(_) = outcome {
            op.stage = Stage::Lost;
        }
        let op = &self.ops[index];
        self.count(outcome, &op.task);
        if outcome.pages_are_free() {
            self.forget(id);
        }
        self.wakers.extend(completion.end(outcome));
    }

    fn forget(&mut self, id: OpId) {
        let op = self.ops.remove((id.0 & u64::from(u32::MAX)) as usize);
        if let Some(local) = op.task.local() {
            local.region.busy.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn op_mut(&mut self, id: OpId) -> Option<&mut Op> {
        let op = self.ops.get_mut((id.0 & u64::from(u32::MAX)) as usize)?;
        (u64::from(op.serial) == id.0 >> 32).then_some(op)
    }

    /// Gives parked operations another try, link by link, in their order.
    fn run_parked(&mut self, progress: &mut Progress) {
        for _ in 0..self.runnable.len() {
            let Some(link) = self.runnable.pop_front() else { break };
            let Some(entry) = self.links.get_mut(link) else { continue };
            entry.runnable = false;
            let State::Up(peer) = entry.state else {
                if !entry.parked.is_empty() {
                    entry.runnable = true;
                    self.runnable.push_back(link);
                }
                continue;
            };
            while let Some(entry) = self.links.get_mut(link)
                && let Some(&id) = entry.parked.front()
            {
                let index = (id.0 & u64::from(u32::MAX)) as usize;
                let posted = self.fabric.post(id, peer, Lane::Bulk, self.ops[index].task.work());
                if posted == Posted::Busy {
                    entry.runnable = true;
                    self.runnable.push_back(link);
                    break;
                }
                entry.parked.pop_front();
                progress.worked = true;
                match posted {
                    Posted::Pending => self.ops[index].stage = Stage::Posted,
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
        }
    }

    /// Cancels what nears its deadline and declares lost what passed it.
    fn expire(&mut self, progress: &mut Progress) {
        let now = self.shared.clock.now();
        while let Some(&Reverse((when, id))) = self.deadlines.peek() {
            let Some(op) = self.op_mut(id).filter(|op| op.stage != Stage::Lost) else {
                self.deadlines.pop();
                continue;
            };
            if when > now {
                break;
            }
            let (deadline, stage) = (op.deadline, op.stage);
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
    fn trim_deadlines(&mut self) {
        if self.deadlines.len() > DEADLINES_SPARE + 2 * self.ops.len() {
            let ops = &self.ops;
            self.deadlines.retain(|Reverse((_, id))| {
                let op = ops.get((id.0 & u64::from(u32::MAX)) as usize);
                op.is_some_and(|op| u64::from(op.serial) == id.0 >> 32 && op.stage != Stage::Lost)
            });
        }
    }

    /// When the next deadline falls.
    pub(super) fn next_deadline(&mut self) -> Time {
        while let Some(&Reverse((when, id))) = self.deadlines.peek() {
            if self.op_mut(id).is_some_and(|op| op.stage != Stage::Lost) {
                return when;
            }
            self.deadlines.pop();
        }
        Time::NEVER
    }

    // ---- peers -------------------------------------------------------------------------------

    /// The link to an address; made if there is none, dialled on first use.
    pub(super) fn link_to(&mut self, address: &Address) -> Peer {
        Peer { worker: self.index, link: self.links.to(address) }
    }

    /// Begins to dial, unless the link is up or being dialled; returns what it is now.
    pub(super) fn dial(&mut self, peer: Peer) -> Option<State> {
        if self.links.get_mut(peer.link)?.state == State::Down {
            self.links.dial(peer.link, &mut *self.fabric);
        }
        self.links.get_mut(peer.link).map(|entry| entry.state)
    }

    /// What a link is now, and why it last went down.
    pub(super) fn link(&mut self, peer: Peer) -> Option<(State, Option<Reason>)> {
        self.links.get_mut(peer.link).map(|entry| (entry.state, entry.last_end))
    }

    pub(super) fn hang_up(&mut self, peer: Peer) {
        if let Some(entry) = self.links.get_mut(peer.link)
            && let State::Up(id) | State::Connecting(id) = entry.state
        {
            self.fabric.disconnect(id);
        }
    }

    fn peer_up(&mut self, peer: PeerId, engine: crate::address::EngineId) {
        Tallies::add(&self.tallies.connections, 1);
        let link = match self.links.by_peer.get(&peer) {
            Some(link) => *link,
            None => self.links.accept(peer),
        };
        if let Some(entry) = self.links.get_mut(link) {
            entry.state = State::Up(peer);
            tracing::debug!(%engine, fabric = %self.fabric.kind(), "peer up");
            self.shared.incoming(Incoming::Connected(Peer { worker: self.index, link }));
        }
    }

    fn peer_down(&mut self, peer: PeerId, reason: Reason) {
        let Some(link) = self.links.by_peer.remove(&peer) else { return };
        let Some(entry) = self.links.get_mut(link) else { return };
        let was_up = matches!(entry.state, State::Up(_));
        entry.state = State::Down;
        entry.last_end = Some(reason);
        for id in std::mem::take(&mut entry.parked) {
            self.finish(id, Outcome::Rejected(reason));
        }
        // What the fabric could prove ended has ended before; of the rest nothing is known.
        let unproven: Vec<OpId> = self
            .ops
            .iter()
            .filter(|(_, op)| op.link == link && op.stage != Stage::Lost)
            .map(|(index, op)| OpId(index as u64 | u64::from(op.serial) << 32))
            .collect();
        for id in unproven {
            self.finish(id, Outcome::Lost(reason));
        }
        if was_up {
            Tallies::add(&self.tallies.disconnections, 1);
            tracing::debug!(%reason, fabric = %self.fabric.kind(), "peer down");
            let peer = Peer { worker: self.index, link };
            self.shared.incoming(Incoming::Disconnected { peer, reason });
        }
        self.links.retire(link);
    }

    // ---- memory ------------------------------------------------------------------------------

    pub(super) fn granted(&mut self, grant: &Grant, region: &Arc<Registered>) {
        self.granted.insert(grant.window, Arc::clone(region));
    }

    pub(super) fn revoke(&mut self, window: WindowId) {
        if let Some(region) = self.granted.remove(&window) {
            self.revoking.insert(window, region);
            self.fabric.revoke(window);
        }
    }

    pub(super) fn is_fenced(&self, window: WindowId) -> bool {
        !self.revoking.contains_key(&window) && !self.granted.contains_key(&window)
    }

    /// Ends everything that touches a region, or everything at all.
    pub(super) fn begin_fence(&mut self, region: Option<RegionId>) {
        let concerns = |id: RegionId| region.is_none_or(|only| only == id);
        let windows: Vec<WindowId> = self
            .granted
            .iter()
            .filter(|(_, holder)| concerns(holder.id))
            .map(|(window, _)| *window)
            .collect();
        for window in windows {
            self.revoke(window);
        }
        let ops: Vec<OpId> = self
            .ops
            .iter()
            .filter(|(_, op)| match op.task.local() {
                Some(local) => concerns(local.region.id),
                None => region.is_none(),
            })
            .map(|(index, op)| OpId(index as u64 | u64::from(op.serial) << 32))
            .collect();
        for id in ops {
            self.stop(id, Reason::Closed);
        }
    }

    /// Whether nothing touches a region (or, for `None`, any) any more.
    pub(super) fn fence_is_complete(&self, region: Option<RegionId>) -> bool {
        match region {
            Some(id) => {
                self.revoking.values().all(|holder| holder.id != id)
                    && self
                        .ops
                        .iter()
                        .all(|(_, op)| op.task.local().is_none_or(|local| local.region.id != id))
            }
            None => self.revoking.is_empty() && self.ops.is_empty(),
        }
    }

    // ---- the end -----------------------------------------------------------------------------

    /// Refuses new work.
    pub(super) fn refuse_new(&mut self) {
        self.closed = true;
    }

    /// Closes the fabric and ends what is left. Memory whose fence was not proven stays mapped for
    /// the rest of the process.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.fabric.close();
        let mut events = std::mem::take(&mut self.events);
        while self.fabric.poll(usize::MAX, &mut events) {}
        for event in events.drain(..) {
            self.handle(event);
        }
        let left: Vec<OpId> = self
            .ops
            .iter()
            .map(|(index, op)| OpId(index as u64 | u64::from(op.serial) << 32))
            .collect();
        for id in left {
            let Some(op) = self.op_mut(id) else { continue };
            match op.stage {
                // `close` returned: nothing of ours moves any more.
                Stage::Lost => {
                    op.completion.prove();
                    self.forget(id);
                }
                Stage::Parked => self.finish(id, Outcome::Rejected(Reason::Closed)),
                Stage::Posted | Stage::Cancelled => {
                    self.finish(id, Outcome::Fenced(Reason::Closed));
                }
            }
        }
        for (window, region) in std::mem::take(&mut self.revoking) {
            tracing::warn!(?window, "window not fenced at close; its memory stays mapped");
            std::mem::forget(region);
        }
        self.granted.clear();
    }
}

/// What is wrong with a plan between two slices; `destination` is the side that is written.
fn misfit(plan: &Plan, local: &Slice, remote: &RemoteSlice, destination: &Pages) -> Option<Reason> {
    if plan.local().end() > local.len() || plan.remote().end() > remote.len() {
        return Some(Reason::OutOfBounds);
    }
    destination.overlaps().then_some(Reason::Overlapping)
}
