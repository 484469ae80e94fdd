//! The state of one worker: a fabric, the operations on it, and who waits for what.
//!
//! Only the holder of the worker's lock touches it. It never blocks and never calls into user code:
//! wakers of futures are handed to whoever releases the lock, and what came in waits in the inbox.

mod deadlines;
mod fences;
mod groups;
mod peers;
mod submit;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::task::Waker;

use self::deadlines::Deadlines;
use self::groups::{Groups, Place};

use super::links::Links;
use super::shared::{INBOX_MAX, Shared};
use super::stats::Tallies;
use super::worker::Queued;
use crate::fabric::{Event, Fabric, OpId, RegionId, Status};
use crate::immediate::Immediate;
use crate::lane::Class;
use crate::memory::Memory;
use crate::order::{Order, What};
use crate::outcome::Outcome;
use crate::peer::{Incoming, LinkId, Peer};
use crate::region::Registered;
use crate::remote::Mapping;
use crate::sabotage::{self, Defect};
use crate::slots::{At, Slots};
use crate::time::Time;
use crate::window::WindowId;

/// Messages taken from the fabric in one step.
const MESSAGES_PER_STEP: usize = 64;

/// An operation that did not end at once.
struct Op {
    link: LinkId,
    /// Which of the link's connections it was posted on.
    connection: u32,
    stage: Stage,
    what: What,
    class: Class,
    bytes: u64,
    deadline: Time,
    /// The region of this side, which stays registered until the operation is forgotten.
    region: Option<RegionId>,
    /// All of the order while it waits: what a fabric has is not given to another.
    order: Option<Box<Order<'static>>>,
    place: Place,
}

impl Default for Op {
    fn default() -> Self {
        Self {
            link: LinkId { index: 0, serial: 0 },
            connection: 0,
            stage: Stage::Parked,
            what: What::Other,
            class: Class::default(),
            bytes: 0,
            deadline: Time::ZERO,
            region: None,
            order: None,
            place: Place::default(),
        }
    }
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
    ops: Slots<Op>,
    groups: Groups,
    links: Links,
    /// Links with parked operations that may go on.
    runnable: VecDeque<LinkId>,
    deadlines: Deadlines,
    /// Windows on their way out (in order, so that a simulated run repeats itself), with the memory
    /// that must stay until they are fenced.
    revoking: BTreeMap<WindowId, Arc<Registered>>,
    /// Windows in use, for fencing a region as a whole.
    granted: BTreeMap<WindowId, Arc<Registered>>,
    /// Regions that nobody can reach any more, but operations may be on.
    dying: Vec<(RegionId, Arc<Memory>)>,
    /// Whether an operation on one of these ended since they were looked at.
    some_ended: bool,
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
            ops: Slots::default(),
            groups: Groups::default(),
            links,
            runnable: VecDeque::new(),
            deadlines: Deadlines::default(),
            revoking: BTreeMap::new(),
            granted: BTreeMap::new(),
            dying: Vec::new(),
            some_ended: false,
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
        progress.worked |= self.bury();
        progress
    }

    /// Deregisters regions that nobody can reach and nothing moves on; whether there were any.
    fn bury(&mut self) -> bool {
        let graveyard = &self.shared.graveyards[usize::from(self.index)];
        if graveyard.is_empty() && !std::mem::take(&mut self.some_ended) {
            return false;
        }
        self.dying.append(&mut graveyard.take());
        let mut any = false;
        for (region, memory) in std::mem::take(&mut self.dying) {
            if self.ops_on(region) > 0 {
                self.dying.push((region, memory));
            } else {
                self.fabric.deregister(region);
                any = true;
            }
        }
        any
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
                    let place = entry.place;
                    let mapping = Mapping::new(memory, offset as usize, len as usize);
                    self.groups.get(place).put(mapping);
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
            let place = op.place;
            self.groups.get(place).prove();
            Tallies::add(&self.tallies.recovered, 1);
            self.forget(id);
            self.groups.give_back(place);
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
        let Some(op) = self.ops.get_mut(At::unpack(id.0)) else { return };
        let (what, bytes, place) = (op.what, op.bytes, op.place);
        if !outcome.pages_are_free() {
            op.stage = Stage::Lost;
        }
        self.count(outcome, what, bytes);
        if outcome.pages_are_free() {
            // What it holds is let go of before anybody hears of the end.
            drop(self.forget(id));
            self.wakers.extend(self.groups.get(place).end(outcome));
            self.groups.give_back(place);
        } else {
            self.wakers.extend(self.groups.get(place).end(outcome));
        }
    }

    /// Takes an operation out, and its order, if it still had one. Its place is to be given back.
    fn forget(&mut self, id: OpId) -> Option<Box<Order<'static>>> {
        let op = self.ops.get_mut(At::unpack(id.0))?;
        let order = op.order.take();
        let region = op.region;
        self.some_ended |= self.dying.iter().any(|(dying, _)| Some(*dying) == region);
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
        self.ops.free(At::unpack(id.0));
        order
    }

    fn op_mut(&mut self, id: OpId) -> Option<&mut Op> {
        self.ops.get_mut(At::unpack(id.0))
    }
}
