//! A connection that is up: what is under way on it, in both directions.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use slab::Slab;

use super::config::HEARTBEAT_MAX;
use super::frame::{ACKS_MAX, Ack, Frame, MESSAGE_BYTES_MAX, Verdict};
use super::hub::Hub;
use super::layout::{Place, Shape};
use super::receive::Arrival;
use super::send::{Job, Serve};
use super::stream::{Owner, Stream};
use crate::address::EngineId;
use crate::fabric::{Event, Local, OpId, PeerId, Posted, Remote, Status, Work, bytes};
use crate::immediate::Immediate;
use crate::lane::Lane;
use crate::outcome::Reason;
use crate::pages::Plan;
use crate::time::Time;

/// The latency stream's place among the streams.
pub(super) const LATENCY: usize = 0;
/// Operations of ours under way on one connection.
const OPS_MAX: usize = 4096;
/// Frames that may wait for a socket before posts are refused.
const BACKLOG_POST_MAX: usize = 256 << 10;
/// Frames that may wait for a peer that does not read what it made us say.
const BACKLOG_MAX: usize = 2 << 20;
/// Bytes of messages that we keep for a peer until the engine takes them.
pub(super) const CREDIT_BYTES: u32 = 1 << 20;
/// What a message costs beside its bytes.
const MESSAGE_COST: u64 = 64;

/// Why a connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// The peer said so, or closed its end: it lands nothing more.
    Gone,
    /// The network or the peer broke it; the peer may still be landing what it got.
    Cut,
    /// The peer speaks nonsense.
    Broken(&'static str),
}

/// A connection that is up.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: PeerId,
    pub(super) engine: EngineId,
    /// The number that both sides know the connection by.
    pub(super) connection: u128,
    /// Where the peer can be asked about it once it broke; empty where it cannot.
    pub(super) endpoint: String,
    /// Whether a loopback address of the peer's is ours as well.
    pub(super) near: bool,
    pub(super) streams: Vec<Stream>,
    pub(super) ops: Slab<Op>,
    ops_ever: u32,
    by_op: HashMap<OpId, u64>,
    /// What has payload to send, by lane.
    pub(super) jobs: [VecDeque<Job>; 2],
    /// Reads that have more to ask for.
    pub(super) asking: VecDeque<u64>,
    /// Long layouts that were asked with and not answered.
    pub(super) long_asks: usize,
    pub(super) serves: Slab<Serve>,
    pub(super) served_layouts: usize,
    pub(super) arrivals: HashMap<u64, Arrival>,
    pub(super) acks: Vec<Ack>,
    /// Messages that the engine has not taken.
    pub(super) inbox: VecDeque<(Vec<u8>, Option<Immediate>)>,
    /// What the peer may still send, and what it will be granted.
    pub(super) their_credit: u64,
    owed_credit: u64,
    pub(super) credit: u64,
    pub(super) heard: Time,
    said: Time,
    /// How long it may be silent.
    patience: Duration,
    /// Why we hang up, and until when the peer's word is awaited.
    pub(super) leaving: Option<(Reason, Time)>,
    /// The bulk stream that is tried first for the next chunk.
    pub(super) next_stream: usize,
    /// Whether a frame cannot be sent to its end.
    pub(super) torn: bool,
}

/// An operation of ours.
#[derive(Debug)]
pub(super) struct Op {
    serial: u32,
    pub(super) op: OpId,
    pub(super) kind: Kind,
    pub(super) local: Local,
    pub(super) remote: Remote,
    /// The two sides' pieces and how far they are sent or asked for.
    pub(super) pages: Option<Paged>,
    pub(super) immediate: Option<Immediate>,
    pub(super) lane: Lane,
    pub(super) total: u64,
    /// Bytes given to a stream, or asked for.
    pub(super) assigned: u64,
    /// Whether anything of it was given to a stream.
    pub(super) started: bool,
    /// Chunks that are not sent whole yet, or asks that are not answered.
    pub(super) due: u32,
    /// Why it is to end early.
    pub(super) cancel: Option<Reason>,
    /// Whether the peer was told.
    pub(super) aborted: bool,
    /// Bytes that landed here.
    pub(super) landed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Write,
    Read,
}

/// The two sides of a plan, and where in them an operation is.
#[derive(Debug)]
pub(super) struct Paged {
    pub(super) local: Shape,
    pub(super) local_place: Place,
    pub(super) remote: Shape,
    pub(super) remote_place: Place,
}

impl Paged {
    fn new(plan: &Plan) -> Self {
        Self {
            local: Shape::Pages(plan.local().clone()),
            local_place: Place::default(),
            remote: Shape::Pages(plan.remote().clone()),
            remote_place: Place::default(),
        }
    }
}

/// What the handshake found out.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) engine: EngineId,
    pub(super) connection: u128,
    pub(super) endpoint: String,
    /// Whether the peer is on this machine, or the endpoint was dialled from here.
    pub(super) near: bool,
    pub(super) heartbeat: Duration,
    pub(super) credit: u32,
}

impl Link {
    pub(super) fn new(id: PeerId, terms: Terms, streams: Vec<Stream>, hub: &Hub) -> Self {
        let Terms { engine, connection, endpoint, near, heartbeat, credit } = terms;
        Self {
            id,
            engine,
            connection,
            endpoint,
            near,
            streams,
            ops: Slab::new(),
            ops_ever: 0,
            by_op: HashMap::new(),
            jobs: Default::default(),
            asking: VecDeque::new(),
            long_asks: 0,
            serves: Slab::new(),
            served_layouts: 0,
            arrivals: HashMap::new(),
            acks: Vec::new(),
            inbox: VecDeque::new(),
            their_credit: CREDIT_BYTES.into(),
            owed_credit: 0,
            credit: credit.into(),
            heard: hub.now,
            said: hub.now,
            // No engine has a longer one, and the dead are not to stay unnoticed.
            patience: heartbeat.min(HEARTBEAT_MAX).saturating_mul(hub.config.missed_max),
            leaving: None,
            next_stream: 0,
            torn: false,
        }
    }

    // ---- operations --------------------------------------------------------------------------

    pub(super) fn post(&mut self, hub: &mut Hub, op: OpId, lane: Lane, work: &Work<'_>) -> Posted {
        if self.leaving.is_some() {
            return Posted::Refused(Reason::PeerGone);
        }
        let (kind, local, remote, pages, immediate) = match *work {
            Work::Signal { immediate } => {
                let urgent = lane == Lane::Latency;
                if urgent {
                    hub.pace.urge();
                }
                return self.say_soon(hub, &Frame::Signal { immediate, urgent }, &[]);
            }
            Work::Send { bytes, immediate } => return self.send(hub, bytes, immediate),
            Work::Map { .. } => return Posted::Refused(Reason::Unsupported),
            Work::Write { local, remote, pages, immediate } => {
                (Kind::Write, local, remote, pages, immediate)
            }
            Work::Read { local, remote, pages, immediate } => {
                (Kind::Read, local, remote, pages, immediate)
            }
        };
        let total = bytes(&local, pages);
        if let Some(plan) = pages
            && (plan.local().end() > local.len || plan.local().bytes() != plan.remote().bytes())
        {
            return Posted::Refused(Reason::OutOfBounds);
        }
        if total > 0
            && let Err(reason) = hub.windows.check_streamed(&local, kind == Kind::Read)
        {
            return Posted::Refused(reason);
        }
        if self.ops.len() >= OPS_MAX || self.streams[LATENCY].backlog() > BACKLOG_POST_MAX {
            return Posted::Busy;
        }
        self.ops_ever = self.ops_ever.wrapping_add(1);
        let serial = self.ops_ever;
        let index = self.ops.insert(Op {
            serial,
            op,
            kind,
            local,
            remote,
            // A plan without bytes is a transfer without bytes: nothing to lay out.
            pages: pages.filter(|_| total > 0).map(Paged::new),
            immediate,
            lane,
            total,
            assigned: 0,
            started: false,
            due: 0,
            cancel: None,
            aborted: false,
            landed: 0,
        });
        let tag = index as u64 | u64::from(serial) << 32;
        self.by_op.insert(op, tag);
        match kind {
            Kind::Write => self.jobs[lane.index()].push_back(Job::Write(tag)),
            Kind::Read => self.asking.push_back(tag),
        }
        hub.eager(self.id);
        if lane == Lane::Latency {
            hub.pace.urge();
            self.speak_along();
        }
        self.pump_urgent(hub);
        if (kind, lane) == (Kind::Write, Lane::Bulk) {
            let mut left = hub.pace.take_post();
            self.pump_bulk(hub, &mut left);
            hub.pace.give_back_post(left);
        }
        Posted::Pending
    }

    fn send(&mut self, hub: &mut Hub, bytes: &[u8], immediate: Option<Immediate>) -> Posted {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Posted::Refused(Reason::TooLong);
        }
        let cost = cost(bytes.len());
        if self.credit < cost {
            return Posted::Busy;
        }
        let payload = bytes.len() as u32;
        let posted = self.say_soon(hub, &Frame::Message { payload, immediate }, bytes);
        if posted == Posted::Done {
            self.credit -= cost;
        }
        posted
    }

    /// Says something that is done once it is on its way.
    fn say_soon(&mut self, hub: &mut Hub, frame: &Frame, follows: &[u8]) -> Posted {
        if self.streams[LATENCY].backlog() > BACKLOG_POST_MAX {
            return Posted::Busy;
        }
        self.speak_along();
        self.streams[LATENCY].say(frame, follows);
        hub.eager(self.id);
        self.pump_urgent(hub);
        Posted::Done
    }

    /// Something leaves at once: what has to be said anyway goes with it.
    fn speak_along(&mut self) {
        // If the connection is over for it, the next poll finds that, too.
        let _ = self.speak();
    }

    pub(super) fn op(&mut self, tag: u64) -> Option<&mut Op> {
        let op = self.ops.get_mut((tag & u64::from(u32::MAX)) as usize)?;
        (u64::from(op.serial) == tag >> 32).then_some(op)
    }

    /// Reports an operation's end and forgets it.
    pub(super) fn finish(&mut self, hub: &mut Hub, tag: u64, status: Status) {
        if self.op(tag).is_none() {
            return;
        }
        let op = self.ops.remove((tag & u64::from(u32::MAX)) as usize);
        self.by_op.remove(&op.op);
        if op.is_long_read() {
            self.long_asks -= op.due as usize;
        }
        if status == Status::Done
            && op.kind == Kind::Read
            && let Some(immediate) = op.immediate
        {
            let urgent = op.lane == Lane::Latency;
            self.streams[LATENCY].say(&Frame::Signal { immediate, urgent }, &[]);
        }
        hub.reports.push(Event::Completed { op: op.op, status });
        hub.eager(self.id);
    }

    /// Asks for the early end of an operation; whether it is one of this connection.
    pub(super) fn cancel(&mut self, hub: &mut Hub, id: OpId, reason: Reason) -> bool {
        let Some(&tag) = self.by_op.get(&id) else { return false };
        let Some(op) = self.op(tag) else { return true };
        if !op.started {
            let lane = op.lane.index();
            self.jobs[lane].retain(|job| *job != Job::Write(tag));
            self.asking.retain(|it| *it != tag);
            self.finish(hub, tag, Status::Refused(reason));
        } else if op.kind == Kind::Read {
            // Only we store what is read: what comes from now on is dropped.
            let status = op.stopped(reason);
            self.streams[LATENCY].say(&Frame::Stop { tag }, &[]);
            self.finish(hub, tag, status);
        } else {
            op.cancel.get_or_insert(reason);
            if self.take_back(tag) {
                self.finish(hub, tag, Status::Refused(reason));
            } else {
                self.abort(tag);
            }
        }
        hub.eager(self.id);
        true
    }

    /// Takes a write of one frame back of which nothing has left; whether there was one.
    fn take_back(&mut self, tag: u64) -> bool {
        let one = self.op(tag).is_some_and(|op| op.assigned == op.total && op.landed_as_one());
        let owner = Owner::Write(tag);
        one && self.streams.iter_mut().any(|stream| {
            let at = stream.chunks.iter().position(|it| it.owner == owner && it.is_unsent());
            at.and_then(|at| stream.chunks.remove(at)).is_some()
        })
    }

    /// Tells the peer that no more of a write comes than it has been given.
    fn abort(&mut self, tag: u64) {
        let Some(op) = self.op(tag) else { return };
        // One frame carries it all: it lands or it does not, and is acknowledged either way.
        let whole = op.assigned == op.total && op.landed_as_one();
        if op.aborted || whole {
            return;
        }
        op.aborted = true;
        let sent = op.assigned;
        self.streams[LATENCY].say(&Frame::Abort { tag, sent }, &[]);
    }

    /// The peer says how an operation of ours ended.
    pub(super) fn acked(&mut self, hub: &mut Hub, ack: Ack) -> Result<(), Over> {
        let Ack { tag, verdict } = ack;
        // What was cancelled here is answered all the same.
        let Some(op) = self.op(tag) else { return Ok(()) };
        if op.kind == Kind::Read {
            return self.answered(hub, tag, verdict);
        }
        if let Verdict::Refusing(reason) = verdict {
            op.cancel.get_or_insert(reason);
            self.abort(tag);
            hub.eager(self.id);
            return Ok(());
        }
        if op.due > 0 || !op.started || (op.assigned < op.total && !op.aborted) {
            return Err(Over::Broken("an end of a write that is still being sent"));
        }
        let cancelled = op.cancel.unwrap_or(Reason::Cancelled);
        let (status, knows) = match verdict {
            Verdict::Done => (Status::Done, false),
            Verdict::Refused(reason) => (Status::Refused(reason), false),
            Verdict::Stopped(reason) => (Status::Stopped(reason), false),
            Verdict::Aborted { moved: false } => (Status::Refused(cancelled), true),
            Verdict::Aborted { moved: true } | Verdict::Refusing(_) => {
                (Status::Stopped(cancelled), true)
            }
        };
        if op.aborted && !knows {
            self.streams[LATENCY].say(&Frame::Forget { tag }, &[]);
        }
        self.finish(hub, tag, status);
        Ok(())
    }

    /// The peer has answered one ask of a read.
    fn answered(&mut self, hub: &mut Hub, tag: u64, verdict: Verdict) -> Result<(), Over> {
        let Some(op) = self.op(tag) else { return Ok(()) };
        if op.due == 0 {
            return Err(Over::Broken("an answer to nothing"));
        }
        let reason = match verdict {
            Verdict::Done => {
                op.due -= 1;
                if op.is_long_read() {
                    self.long_asks -= 1;
                }
                self.read_on(hub, tag);
                return Ok(());
            }
            Verdict::Refused(reason) | Verdict::Stopped(reason) | Verdict::Refusing(reason) => {
                reason
            }
            Verdict::Aborted { .. } => Reason::Failed,
        };
        let status = op.stopped(reason);
        if op.due > 1 {
            self.streams[LATENCY].say(&Frame::Stop { tag }, &[]);
        }
        self.finish(hub, tag, status);
        Ok(())
    }

    /// Ends a read if everything is there.
    pub(super) fn read_on(&mut self, hub: &mut Hub, tag: u64) {
        let Some(op) = self.op(tag) else { return };
        if op.due == 0 && op.assigned == op.total && op.landed >= op.total {
            self.finish(hub, tag, Status::Done);
        } else if op.assigned < op.total {
            hub.eager(self.id);
        }
    }

    // ---- housekeeping ------------------------------------------------------------------------

    /// Puts what is due for the peer's ears into the latency stream.
    pub(super) fn speak(&mut self) -> Result<(), Over> {
        if self.torn {
            return Err(Over::Broken("memory that was to be sent to it cannot be read"));
        }
        if self.leaving.is_some() {
            // Goodbye was the last word.
            self.acks.clear();
        }
        let latency = &mut self.streams[LATENCY];
        for acks in self.acks.chunks(ACKS_MAX) {
            let body: Vec<u8> = acks.iter().flat_map(Ack::encode).collect();
            latency.say(&Frame::Acks { count: acks.len() as u32 }, &body);
        }
        self.acks.clear();
        if self.owed_credit >= u64::from(CREDIT_BYTES) / 4 {
            let bytes = std::mem::take(&mut self.owed_credit);
            self.their_credit += bytes;
            latency.say(&Frame::Credit { bytes }, &[]);
        }
        if latency.backlog() > BACKLOG_MAX {
            return Err(Over::Broken("does not read what it made us say"));
        }
        Ok(())
    }

    /// A message came; whether the peer had the credit for it.
    pub(super) fn keep(&mut self, bytes: Vec<u8>, immediate: Option<Immediate>) -> bool {
        let cost = cost(bytes.len());
        let Some(left) = self.their_credit.checked_sub(cost) else { return false };
        self.their_credit = left;
        self.inbox.push_back((bytes, immediate));
        true
    }

    /// Hands messages to the engine, at most `max` of them; how many.
    pub(super) fn deliver(&mut self, hub: &mut Hub, max: usize) -> usize {
        let count = self.inbox.len().min(max);
        for (bytes, immediate) in self.inbox.drain(..count) {
            self.owed_credit += cost(bytes.len());
            hub.reports.push(Event::Message { peer: self.id, bytes });
            hub.reports.extend(immediate.map(|immediate| Event::Arrived { immediate }));
        }
        if self.owed_credit >= u64::from(CREDIT_BYTES) / 4 {
            hub.eager(self.id);
        }
        count
    }

    /// Something was sent.
    pub(super) fn spoke(&mut self, now: Time) {
        self.said = now;
    }

    /// When it next has to be looked after.
    pub(super) fn next_tick(&self, heartbeat: Duration) -> Time {
        let tick = (self.said + heartbeat).min(self.heard + self.patience);
        self.leaving.map_or(tick, |(_, until)| tick.min(until))
    }

    /// Says that we are here, or finds that the peer is not.
    pub(super) fn tick(&mut self, hub: &mut Hub) -> Result<(), Over> {
        let silent = hub.now.since(self.heard) >= self.patience;
        if silent || self.leaving.is_some_and(|(_, until)| hub.now >= until) {
            return Err(Over::Cut);
        }
        if hub.now.since(self.said) >= hub.config.heartbeat {
            self.said = hub.now;
            // One that still waits says as much as two.
            if self.streams[LATENCY].backlog() == 0 {
                self.streams[LATENCY].say(&Frame::Ping, &[]);
            }
            hub.eager(self.id);
        }
        Ok(())
    }

    /// Hangs up: from now on nothing lands here and nothing but what was begun is sent. The peer's
    /// word that it has hung up, too, proves that nothing lands there.
    pub(super) fn leave(&mut self, hub: &mut Hub, reason: Reason, until: Time) {
        if self.leaving.is_some() {
            return;
        }
        self.leaving = Some((reason, until));
        self.jobs.iter_mut().for_each(VecDeque::clear);
        self.asking.clear();
        self.streams.truncate(1);
        self.streams[LATENCY].say(&Frame::Bye, &[]);
        hub.eager(self.id);
        self.pump_urgent(hub);
    }

    /// Ends all that can be proven ended, and returns the writes that cannot.
    pub(super) fn end_ops(&mut self, hub: &mut Hub, reason: Reason, gone: bool) -> Vec<OpId> {
        let mut unproven = Vec::new();
        for op in self.ops.drain() {
            let status = match op.kind {
                _ if !op.started => Status::Refused(reason),
                Kind::Read => op.stopped(reason),
                Kind::Write if gone => Status::Stopped(reason),
                Kind::Write => {
                    unproven.push(op.op);
                    continue;
                }
            };
            hub.reports.push(Event::Completed { op: op.op, status });
        }
        self.by_op.clear();
        unproven
    }
}

impl Op {
    /// How a read ends that is stopped here.
    fn stopped(&self, reason: Reason) -> Status {
        if self.landed == 0 { Status::Refused(reason) } else { Status::Stopped(reason) }
    }
}

fn cost(bytes: usize) -> u64 {
    bytes as u64 + MESSAGE_COST
}
