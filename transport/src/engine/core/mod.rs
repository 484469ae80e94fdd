//! The state of one worker: a fabric, the operations on it, and who waits for what.
//!
//! Only the holder of the worker's lock touches it. It never blocks and never calls into user code:
//! wakers of futures are handed to whoever releases the lock, and what came in waits in the inbox.

mod deadlines;
mod fences;
mod peers;
mod submit;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, PoisonError};
use std::task::Waker;

use slab::Slab;

use self::deadlines::Deadlines;

use super::links::Links;
use super::shared::{INBOX_MAX, Shared};
use super::stats::Tallies;
use super::worker::Queued;
use crate::fabric::{Event, Fabric, OpId, Status};
use crate::immediate::Immediate;
use crate::lane::Class;
use crate::order::{Order, What};
use crate::outcome::Outcome;
use crate::peer::{Incoming, LinkId, Peer};
use crate::region::Registered;
use crate::remote::Mapping;
use crate::sabotage::{self, Defect};
use crate::time::Time;
use crate::transfer::Completion;
use crate::window::WindowId;

/// Messages taken from the fabric in one step.
const MESSAGES_PER_STEP: usize = 64;

/// An operation that did not end at once.
struct Op {
    serial: u32,
    link: LinkId,
    /// Which of the link's connections it was posted on.
    connection: u32,
    stage: Stage,
    what: What,
    class: Class,
    bytes: u64,
    deadline: Time,
    /// The region of this side, which stays where it is.
    region: Option<Arc<Registered>>,
    /// All of the order while it waits: what a fabric has is not given to another.
    order: Option<Box<Order<'static>>>,
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
    deadlines: Deadlines,
    /// Windows on their way out (in order, so that a simulated run repeats itself), with the memory
    /// that must stay until they are fenced.
    revoking: BTreeMap<WindowId, Arc<Registered>>,
    /// Windows in use, for fencing a region as a whole.
    granted: BTreeMap<WindowId, Arc<Registered>>,
    /// What the fabric reports; empty between steps, keeps its room.
    events: Vec<Event>,
    /// Tasks to be woken once the lock is released: a waker is somebody else's code.
    pub(super) wakers: Vec<Waker>,
    /// Tasks for other workers, handed over once the lock is released.
    pub(super) detours: Vec<(u16, Queued)>,
    /// The last step had no room for messages.
    starved: bool,
    closed: bool,
}

impl Core {
    pub(super) fn new(
        index: u16,
        fabric: Box<dyn Fabric>,
        shared: Arc<Shared>,
        tallies: Arc<Tallies>,
    ) -> Self {
        let links = Links::of(shared.engine);
        Self {
            index,
            fabric,
            shared,
            tallies,
            ops: Slab::new(),
            next_serial: 0,
            links,
            runnable: VecDeque::new(),
            deadlines: Deadlines::default(),
            revoking: BTreeMap::new(),
            granted: BTreeMap::new(),
            events: Vec::new(),
            wakers: Vec::new(),
            detours: Vec::new(),
            starved: false,
            closed: false,
        }
    }

    // ---- progress ----------------------------------------------------------------------------

    /// Moves everything on by a bounded amount.
    pub(super) fn step(&mut self) -> Progress {
        let mut progress = Progress::default();
        let room = INBOX_MAX.saturating_sub(self.shared.inbox.len()).min(MESSAGES_PER_STEP);
        self.starved = room == 0;
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

    /// Prepares for sleep; see [`Fabric::arm`]. There is work, too, when messages for which there
    /// was no room find some, and when something waits for the sink.
    pub(super) fn arm(&mut self) -> bool {
        // Whoever makes room or leaves something to deliver looks for sleepers afterwards; here it is
        // the other way round.
        fence(Ordering::SeqCst);
        let finds_room = self.starved && self.shared.inbox.len() < INBOX_MAX;
        !finds_room && !self.is_unattended() && self.fabric.arm()
    }

    /// Whether something waits for the sink, and nobody is about to deliver it.
    pub(super) fn is_unattended(&self) -> bool {
        self.shared.is_unattended()
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Completed { op, status } => self.completed(op, status),
            Event::Mapped { op, memory, offset, len } => {
                if let Some(entry) = self.op_mut(op) {
                    let (offset, len) = (offset as usize, len as usize);
                    let mapping = Box::new(Mapping::new(memory, offset, len));
                    let place = entry.completion.mapping.lock();
                    *place.unwrap_or_else(PoisonError::into_inner) = Some(mapping);
                }
                self.completed(op, Status::Done);
            }
            Event::Arrived { immediate } => self.arrived(immediate),
            Event::Message { peer, bytes } => {
                if let Some(link) = self.links.by_peer.get(&peer) {
                    Tallies::add(&self.tallies.messages_received, 1);
                    let from = Peer { worker: self.index, link: *link };
                    self.shared.inbox.push(Incoming::Message { from, bytes });
                }
            }
            Event::PeerUp { peer, engine } => self.peer_up(peer, engine),
            Event::PeerDown { peer, reason } => self.peer_down(peer, reason),
            // Whoever waits for it is woken by any event.
            Event::Path { .. } => {}
            Event::Fallback { .. } => Tallies::add(&self.tallies.fallbacks, 1),
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
            if sabotage::is(Defect::NoRecovery) {
                return;
            }
            op.completion.prove();
            Tallies::add(&self.tallies.recovered, 1);
            drop(self.forget(id));
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
        let Op { what, bytes, .. } = self.ops[index];
        self.count(outcome, what, bytes);
        if outcome.pages_are_free() {
            // What it holds is let go of before anybody hears of the end.
            let Op { completion, order, region, .. } = self.forget(id);
            drop((order, region));
            self.wakers.extend(completion.end(outcome));
        } else {
            let op = &mut self.ops[index];
            op.stage = Stage::Lost;
            self.wakers.extend(op.completion.end(outcome));
        }
    }

    /// Takes an operation out, with all that it holds.
    fn forget(&mut self, id: OpId) -> Op {
        let op = self.ops.remove((id.0 & u64::from(u32::MAX)) as usize);
        if let Some(entry) = self.links.get_mut(op.link) {
            entry.ops -= 1;
            let keeps = sabotage::is(Defect::LostCredit) && op.stage == Stage::Cancelled;
            if op.stage != Stage::Parked && op.connection == entry.connection && !keeps {
                entry.credits.give_back(op.class.lane(), op.bytes);
            }
            if entry.has_parked() && !std::mem::replace(&mut entry.runnable, true) {
                self.runnable.push_back(op.link);
            }
        }
        op
    }

    fn op_mut(&mut self, id: OpId) -> Option<&mut Op> {
        let op = self.ops.get_mut((id.0 & u64::from(u32::MAX)) as usize)?;
        (u64::from(op.serial) == id.0 >> 32).then_some(op)
    }
}
