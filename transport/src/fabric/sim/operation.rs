//! Operations from post to end.

use std::time::Duration;

use super::config::Mode;
use super::link::{Message, Way};
use super::log::Happened;
use super::payload::Payload;
use super::port::Inbox;
use super::state::{Happening, State};
use crate::fabric::{Event, Local, OpId, PeerId, Posted, Remote, Status, Work};
use crate::immediate::Immediate;
use crate::lane::Lane;
use crate::memory::Memory;
use crate::outcome::Reason;
use crate::time::Time;
use crate::window::Access;

/// How many packets an operation has at most, the one for a read's immediate aside.
const PACKETS_MAX: u64 = 63;

/// An operation under way.
pub(super) struct Operation {
    pub(super) port: usize,
    pub(super) link: usize,
    /// The initiator's end of the link.
    pub(super) end: usize,
    pub(super) id: OpId,
    lane: Lane,
    pub(super) task: Task,
    pub(super) immediate: Option<Immediate>,
    pub(super) packet_bytes: u64,
    /// All packets, that of a read's immediate included.
    pub(super) packets: u32,
    /// One bit for each packet that was taken, refused or lost for good.
    pub(super) resolved: u64,
    /// Packets whose fate is not settled yet.
    pub(super) outstanding: u32,
    /// Packets that arrived well.
    pub(super) arrived: u32,
    /// Packets being put into memory right now.
    pub(super) landing: u32,
    /// Bytes moved, or the immediate was delivered.
    pub(super) moved: bool,
    pub(super) announced: bool,
    pub(super) verdict: Option<Reason>,
    pub(super) cancelled: Option<Reason>,
    /// Packets that were to be sent later are not sent.
    pub(super) stops_at: Time,
    pub(super) flushed: bool,
    pub(super) mapped: Option<(Memory, u64, u64)>,
    sends_from: Time,
    packet_takes: Duration,
    /// Its completion never comes.
    mute: bool,
    pub(super) overtakes: bool,
}

/// What it does.
pub(super) enum Task {
    Write(Payload),
    Read(Payload),
    Send { bytes: Vec<u8> },
    Signal,
    Map { remote: Remote },
}

impl Operation {
    /// When a packet leaves the initiator.
    pub(super) fn sent_at(&self, packet: u32) -> Time {
        self.sends_from + self.packet_takes * packet
    }

    /// The bytes of a packet: from where on, and how many.
    pub(super) fn bytes_of(&self, packet: u32) -> (u64, u64) {
        let len = self.task.bytes();
        let from = (self.packet_bytes * u64::from(packet)).min(len);
        (from, self.packet_bytes.min(len - from))
    }

    /// How it ends when it is stopped for a reason.
    pub(super) fn stopped(&self, reason: Reason) -> Status {
        if self.moved { Status::Stopped(reason) } else { Status::Refused(reason) }
    }

    /// Whether its last packet carries nothing but the immediate, sent once all others arrived.
    pub(super) fn tells(&self) -> bool {
        matches!(self.task, Task::Read(_)) && self.immediate.is_some()
    }

    pub(super) fn is_delivered(&self) -> bool {
        self.arrived == self.packets
    }
}

impl State {
    pub(super) fn is_null(&self) -> bool {
        self.config.mode == Mode::Null
    }

    /// The operations of one end of a link, in the order in which they were posted.
    pub(super) fn operations_of(&self, link: usize, end: usize) -> Vec<u64> {
        let of = |operation: &Operation| (operation.link, operation.end) == (link, end);
        self.operations.iter().filter(|(_, op)| of(op)).map(|(serial, _)| *serial).collect()
    }

    pub(super) fn post(
        &mut self,
        port: usize,
        id: OpId,
        peer: PeerId,
        lane: Lane,
        work: Work<'_>,
    ) -> Posted {
        let Some(&(link, end)) = self.ports[port].peers.get(peer.0 as usize) else {
            return Posted::Refused(Reason::Unreachable);
        };
        if !self.ports[port].is_alive() {
            return Posted::Refused(Reason::Closed);
        }
        if !self.links[link].is_usable(end) {
            return Posted::Refused(Reason::PeerGone);
        }
        if let Work::Send { bytes, .. } = work
            && bytes.len() > self.config.message_bytes_max
        {
            return Posted::Refused(Reason::TooLong);
        }
        if self.is_null() {
            return self.post_null(link, end, work);
        }
        let full = self.ports[port].operations.len() >= self.config.queue_depth;
        if full || self.hangs(port) {
            return Posted::Busy;
        }
        if self.chance(self.config.faults.busy) {
            // Without an event of its own, time might jump to the operation's deadline.
            let span = self.latency();
            self.after(span, Happening::Room);
            return Posted::Busy;
        }
        match self.operation(port, id, (link, end), lane, work) {
            Ok(operation) => self.begin(operation),
            Err(why) => Posted::Refused(why),
        }
    }

    /// An operation that has not begun.
    fn operation(
        &mut self,
        port: usize,
        id: OpId,
        (link, end): (usize, usize),
        lane: Lane,
        work: Work<'_>,
    ) -> Result<Operation, Reason> {
        let payload = |local: Local, remote, pages| {
            let memory = self.ports[port].regions.get(local.region.0).ok_or(Reason::Closed)?;
            Ok(Payload::new(memory, local, remote, pages))
        };
        let (mut task, immediate) = match work {
            Work::Write { local, remote, pages, immediate } => {
                (Task::Write(payload(local, remote, pages)?), immediate)
            }
            Work::Read { local, remote, pages, immediate } => {
                (Task::Read(payload(local, remote, pages)?), immediate)
            }
            Work::Send { bytes, immediate } => (Task::Send { bytes: bytes.to_vec() }, immediate),
            Work::Signal { immediate } => (Task::Signal, Some(immediate)),
            Work::Map { .. } if !self.config.maps => return Err(Reason::Unsupported),
            Work::Map { remote } => (Task::Map { remote }, None),
        };
        let len = task.bytes();
        let packet_bytes = match &mut task {
            Task::Write(payload) | Task::Read(payload) => {
                let bytes = self.config.packet_bytes.max(len.div_ceil(PACKETS_MAX)).max(1);
                payload.cut(bytes);
                bytes
            }
            Task::Send { .. } | Task::Signal | Task::Map { .. } => len.max(1),
        };
        let tells = u64::from(matches!(task, Task::Read(_)) && immediate.is_some());
        let packets = (len.div_ceil(packet_bytes).max(1) + tells) as u32;
        let nanos = u128::from(packet_bytes.min(len)) * 1_000_000_000
            / u128::from(self.config.bytes_per_second.max(1));
        Ok(Operation {
            port,
            link,
            end,
            id,
            lane,
            task,
            immediate,
            packet_bytes,
            packets,
            resolved: 0,
            outstanding: packets,
            arrived: 0,
            landing: 0,
            moved: false,
            announced: false,
            verdict: None,
            cancelled: None,
            stops_at: Time::NEVER,
            flushed: false,
            mapped: None,
            sends_from: self.ports[port].line.starts(lane, self.now),
            packet_takes: Duration::from_nanos(nanos as u64),
            mute: self.chance(self.config.faults.lost_completion),
            overtakes: self.chance(self.config.faults.overtaking_immediate),
        })
    }

    fn begin(&mut self, operation: Operation) -> Posted {
        self.serial += 1;
        let (serial, port, id) = (self.serial, operation.port, operation.id);
        self.log(port, Happened::Posted, serial, operation.packets.into());
        self.ports[port].operations.insert(id, serial);
        if matches!(operation.task, Task::Send { .. }) {
            let message = Message { serial, state: Way::Travelling };
            self.links[operation.link].ends[operation.end].messages.push_back(message);
        }
        for packet in 0..operation.packets - u32::from(operation.tells()) {
            let span = self.latency() + self.lateness(self.config.faults.late);
            let at = operation.sent_at(packet) + span;
            self.queue.push(at, Happening::Land { serial, packet });
        }
        let Operation { lane, sends_from, packet_takes, packets, .. } = operation;
        self.ports[port].line.take(lane, sends_from, packet_takes, packets);
        self.operations.insert(serial, operation);
        Posted::Pending
    }

    /// Asks a port to flush an operation out of its queue.
    pub(super) fn cancel(&mut self, port: usize, id: OpId, reason: Reason) {
        let Some(&serial) = self.ports[port].operations.get(&id) else { return };
        let operation = self.operations.get_mut(&serial).expect("the port knows only live ones");
        if operation.cancelled.is_some() {
            return;
        }
        operation.cancelled = Some(reason);
        let mute = operation.mute;
        self.log(port, Happened::Cancelled, serial, reason as u64);
        if mute || self.chance(self.config.faults.failed_flush) {
            return;
        }
        let range = self.config.flush.clone();
        let mut span = self.span(&range);
        if self.chance(self.config.faults.slow_flush) {
            span += self.config.faults.slow_flush_takes;
        }
        let stops_at = self.now + span;
        self.operations.get_mut(&serial).expect("still there").stops_at = stops_at;
        self.after(span, Happening::Flushed { serial });
    }

    /// The queue is flushed: what has not been sent will not be. The operation ends once nothing of
    /// it is under way.
    pub(super) fn flushed(&mut self, serial: u64) {
        let Some(operation) = self.operations.get_mut(&serial) else { return };
        operation.flushed = true;
        let (port, outstanding) = (operation.port, operation.outstanding);
        self.log(port, Happened::Flushed, serial, outstanding.into());
        if outstanding == 0 {
            self.settle(serial);
        }
    }

    /// The fate of one packet is settled.
    pub(super) fn resolve(&mut self, serial: u64, packet: u32) {
        let operation = self.operations.get_mut(&serial).expect("looked up by the caller");
        operation.resolved |= 1 << packet;
        operation.outstanding -= 1;
        if operation.outstanding == 0 {
            self.settle(serial);
        }
    }

    /// Nothing of the operation is under way any more: its end is told, or the flush waited for.
    fn settle(&mut self, serial: u64) {
        let operation = &self.operations[&serial];
        let (port, link, end) = (operation.port, operation.link, operation.end);
        let (flushed, cancelled) = (operation.flushed, operation.cancelled);
        let answered = operation.is_delivered() || operation.verdict.is_some();
        let mute = operation.mute;
        if let Some(reason) = self.links[link].ends[end].down {
            let status = operation.stopped(reason);
            self.end(serial, status);
        } else if flushed {
            let status = operation.stopped(cancelled.expect("only the cancelled are flushed"));
            self.end(serial, status);
        } else if answered && !mute {
            self.log(port, Happened::Delivered, serial, 0);
            let span = self.latency() + self.lateness(self.config.faults.late_completion);
            self.after(span, Happening::Answered { serial });
        }
    }

    /// The target's word arrives.
    pub(super) fn answered(&mut self, serial: u64) {
        let Some(operation) = self.operations.get(&serial) else { return };
        let status = match operation.verdict {
            None => Status::Done,
            Some(reason) => operation.stopped(reason),
        };
        self.end(serial, status);
    }

    /// The connection is gone: what is under way vanishes, what is being landed is waited for.
    pub(super) fn cut_off(&mut self, serial: u64, reason: Reason) {
        let operation = self.operations.get_mut(&serial).expect("looked up by the caller");
        operation.verdict.get_or_insert(reason);
        operation.resolved = u64::MAX;
        operation.outstanding = operation.landing;
        if operation.landing == 0 {
            let status = operation.stopped(reason);
            self.end(serial, status);
        }
    }

    /// The end of an operation.
    fn end(&mut self, serial: u64, status: Status) {
        let operation = self.operations.remove(&serial).expect("an operation ends once");
        let Operation { port, link, end, id, .. } = operation;
        let code = match status {
            Status::Done => 0,
            Status::Refused(why) => 0x100 | why as u64,
            Status::Stopped(why) => 0x200 | why as u64,
        };
        self.log(port, Happened::Ended, serial, code);
        self.ports[port].operations.remove(&id);
        let event = match (status, operation.mapped) {
            (Status::Done, Some((memory, offset, len))) => {
                Event::Mapped { op: id, memory, offset, len }
            }
            _ => Event::Completed { op: id, status },
        };
        self.ports[port].inbox.push_back(Inbox::free(event));
        self.report_down(link, end);
    }

    /// Forgets an operation whose initiator is closing: what is being landed is not.
    pub(super) fn forget(&mut self, serial: u64, reason: Reason) {
        let status = self.operations[&serial].stopped(reason);
        self.end(serial, status);
    }
}

impl Task {
    /// How many bytes move.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Write(payload) | Self::Read(payload) => payload.bytes(),
            Self::Send { bytes } => bytes.len() as u64,
            Self::Signal | Self::Map { .. } => 0,
        }
    }

    /// What it asks of a window: which, how far it reaches there, and what for.
    pub(super) fn access(&self) -> Option<(Remote, u64, Access)> {
        match self {
            Self::Write(payload) => Some((payload.remote, payload.reach(), Access::WRITE)),
            Self::Read(payload) => Some((payload.remote, payload.reach(), Access::READ)),
            Self::Map { remote } => Some((*remote, 0, Access::MAP)),
            Self::Send { .. } | Self::Signal => None,
        }
    }
}
