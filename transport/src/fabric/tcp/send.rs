//! What goes out: chunks of writes and of answers to reads, and asks.

use rustix::io::Errno;

use super::frame::{Ack, CHUNK_BYTES_MAX, Frame, Place as Target, Verdict};
use super::hub::Hub;
use super::layout::{Place, Shape, encode, encoded_bytes};
use super::link::{Kind, LATENCY, Link, Op, Paged};
use super::stream::{Chunk, Owner, Source};
use crate::lane::Lane;
use crate::outcome::Reason;
use crate::window::WindowId;

/// The longest chunk in the latency stream: what follows waits for it.
const URGENT_CHUNK_BYTES: u64 = 64 << 10;
/// So much of it is sent at once, in slices: what is received meanwhile, and others, wait as well.
const URGENT_SLICES: usize = 4;
const URGENT_SLICE_BYTES: usize = 256 << 10;
/// Layouts up to this long travel whole with every chunk; of longer ones what the chunk needs.
const WHOLE_LAYOUT_BYTES: usize = 2 << 10;
/// Given to a stream at once: it is sent in one system call, if it fits.
const BATCH_BYTES: u64 = 256 << 10;
const BATCH_CHUNKS: usize = 64;
/// Asks of one read that are not answered yet, and long ones of a connection.
const ASKS_MAX: u32 = 4;
pub(super) const LONG_ASKS_MAX: usize = 64;

/// Something with payload to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Job {
    /// A write of ours.
    Write(u64),
    /// A peer's read.
    Serve(usize),
}

/// A peer's read, or a part of it.
#[derive(Debug)]
pub(super) struct Serve {
    pub(super) tag: u64,
    pub(super) window: WindowId,
    /// Where it starts in the window; what the shape's offsets count from if it has one.
    pub(super) offset: u64,
    pub(super) shape: Option<(Shape, Place)>,
    pub(super) layout_bytes: usize,
    /// Which byte of the peer's operation it starts with.
    pub(super) base: u64,
    pub(super) len: u64,
    pub(super) assigned: u64,
    pub(super) due: u32,
    pub(super) stopped: Option<Reason>,
}

impl Op {
    /// Whether its only frame has to land whole or not at all.
    pub(super) fn landed_as_one(&self) -> bool {
        let long = match self.lane {
            Lane::Latency => URGENT_CHUNK_BYTES,
            Lane::Bulk => CHUNK_BYTES_MAX.into(),
        };
        self.total <= long && !self.is_long()
    }

    /// Whether its layout is too long to travel whole.
    fn is_long(&self) -> bool {
        self.pages.as_ref().is_some_and(|pages| {
            let runs = pages.remote.runs().len();
            encoded_bytes(runs, pages.remote.layers().len()) > WHOLE_LAYOUT_BYTES
        })
    }

    pub(super) fn is_long_read(&self) -> bool {
        self.kind == Kind::Read && self.is_long()
    }

    fn target(&self, skip: u64, body: &[u8]) -> Target {
        let (window, key, offset) = (self.remote.window, self.remote.key.key, self.remote.offset);
        Target { window, key, offset, skip, layout: body.len() as u32 }
    }

    /// The next `len` bytes of the peer's side, perhaps fewer: the layout, what to skip of it, and
    /// how many.
    fn lay_out(&mut self, len: u64) -> (Vec<u8>, u64, u64) {
        let (long, assigned) = (self.is_long(), self.assigned);
        match &mut self.pages {
            None => (Vec::new(), assigned, len),
            Some(Paged { remote, .. }) if !long => {
                (encode(remote.runs(), remote.layers()), assigned, len)
            }
            Some(Paged { remote, remote_place, .. }) => {
                let (runs, took) = remote_place.cut(remote, len);
                (encode(&runs, &[0]), 0, took)
            }
        }
    }
}

impl Link {
    /// Gives the latency stream what it has room for and sends it.
    pub(super) fn pump_urgent(&mut self, hub: &mut Hub) -> bool {
        let sent = self.try_urgent(hub);
        self.pumped(hub, sent)
    }

    /// The same for the bulk streams, in turns: at most about `left` bytes, which are taken off.
    pub(super) fn pump_bulk(&mut self, hub: &mut Hub, left: &mut usize) -> bool {
        let sent = self.try_bulk(hub, left);
        self.pumped(hub, sent)
    }

    fn pumped(&mut self, hub: &mut Hub, sent: Result<bool, Errno>) -> bool {
        match sent {
            Ok(worked) => {
                if worked {
                    self.spoke(hub.now);
                }
                if !self.wants_to_send() {
                    hub.eager.remove(&self.id);
                }
                worked
            }
            Err(errno) => {
                // Receiving finds the same out, with what the peer said before.
                tracing::debug!(peer = self.id.0, "sending failed: {errno}");
                // Except of this, which is ours.
                self.torn |= errno == Errno::FAULT;
                false
            }
        }
    }

    fn try_urgent(&mut self, hub: &mut Hub) -> Result<bool, Errno> {
        self.ask();
        let mut worked = false;
        for _ in 0..URGENT_SLICES {
            if self.streams[LATENCY].clogged {
                break;
            }
            if self.streams[LATENCY].chunks.is_empty() {
                self.load(hub, LATENCY);
            }
            if self.streams[LATENCY].is_idle() {
                break;
            }
            worked |= self.flush(hub, LATENCY, URGENT_SLICE_BYTES)? > 0;
        }
        self.streams[LATENCY].watch(&hub.watch);
        Ok(worked)
    }

    fn try_bulk(&mut self, hub: &mut Hub, left: &mut usize) -> Result<bool, Errno> {
        let mut worked = false;
        let bulk = self.streams.len() - 1;
        let first = self.next_stream;
        for turn in 0..bulk {
            if *left == 0 {
                break;
            }
            let at = 1 + (first + turn) % bulk;
            if !self.streams[at].clogged {
                if self.streams[at].chunks.is_empty() {
                    self.load(hub, at);
                }
                let sent = self.flush(hub, at, *left)?;
                if sent > 0 {
                    (worked, self.next_stream) = (true, at % bulk);
                    *left = left.saturating_sub(sent);
                }
            }
            self.streams[at].watch(&hub.watch);
        }
        Ok(worked)
    }

    /// Whether there is something to send that no socket holds up.
    fn wants_to_send(&self) -> bool {
        let jobs = |lane: Lane| !self.jobs[lane.index()].is_empty();
        self.streams.iter().enumerate().any(|(at, stream)| {
            let lane = if at == LATENCY { Lane::Latency } else { Lane::Bulk };
            !stream.clogged && (!stream.is_idle() || jobs(lane))
        }) || !self.acks.is_empty()
    }

    fn flush(&mut self, hub: &mut Hub, at: usize, most: usize) -> Result<usize, Errno> {
        let Hub { windows, pieces, through, .. } = hub;
        let sent = self.streams[at].flush(most, windows, pieces, through)?;
        while let Some(chunk) = hub.through.pop() {
            match chunk.owner {
                Owner::Write(tag) => {
                    if let Some(op) = self.op(tag) {
                        op.due -= 1;
                    }
                }
                Owner::Serve(key) => {
                    if let Some(serve) = self.serves.get_mut(key) {
                        serve.due -= 1;
                    }
                    self.serve_on(hub, key);
                }
            }
        }
        Ok(sent)
    }

    /// Gives a stream its next chunks.
    fn load(&mut self, hub: &mut Hub, at: usize) {
        let (lane, most) = match at {
            LATENCY => (Lane::Latency, URGENT_CHUNK_BYTES),
            _ => (Lane::Bulk, CHUNK_BYTES_MAX.into()),
        };
        let mut loaded = 0;
        while loaded < BATCH_BYTES
            && self.streams[at].chunks.len() < BATCH_CHUNKS
            && let Some(job) = self.jobs[lane.index()].pop_front()
        {
            let (chunk, more) = match job {
                Job::Write(tag) => self.next_of_write(tag, most),
                Job::Serve(key) => self.next_of_serve(hub, key, most),
            };
            if more {
                // In turns, so that what is short does not wait for all of what is long.
                self.jobs[lane.index()].push_back(job);
            }
            if let Some(chunk) = chunk {
                loaded += chunk.left();
                self.streams[at].chunks.push_back(chunk);
            }
        }
    }

    /// The next chunk of a write, and whether another one follows.
    fn next_of_write(&mut self, tag: u64, most: u64) -> (Option<Chunk>, bool) {
        let Some(op) = self.op(tag).filter(|op| op.cancel.is_none()) else { return (None, false) };
        let (body, skip, len) = op.lay_out(most.min(op.total - op.assigned));
        let frame = Frame::Write {
            tag,
            place: op.target(skip, &body),
            total: op.total,
            payload: len as u32,
            immediate: op.immediate,
        };
        let base = op.local.ptr.cast_const();
        let source = match &mut op.pages {
            None => Source { window: None, base, offset: op.assigned, shape: None },
            Some(Paged { local, local_place, .. }) => {
                let shape = Some((local.clone(), *local_place));
                local_place.advance(local, len);
                Source { window: None, base, offset: 0, shape }
            }
        };
        op.assigned += len;
        op.started = true;
        op.due += 1;
        let more = op.assigned < op.total;
        (Some(Chunk::new(Owner::Write(tag), &frame, &body, source)), more)
    }

    /// The next chunk of an answer, and whether another one follows.
    fn next_of_serve(&mut self, hub: &mut Hub, key: usize, most: u64) -> (Option<Chunk>, bool) {
        let Some(serve) = self.serves.get_mut(key) else { return (None, false) };
        if hub.windows.start(serve.window).is_none() {
            serve.stopped.get_or_insert(Reason::Stale);
        }
        if serve.stopped.is_some() {
            self.serve_on(hub, key);
            return (None, false);
        }
        let len = most.min(serve.len - serve.assigned);
        let (tag, at) = (serve.tag, serve.base + serve.assigned);
        let frame = Frame::Data { tag, at, payload: len as u32 };
        let offset = match serve.shape {
            Some(_) => serve.offset,
            None => serve.offset + serve.assigned,
        };
        let (window, base) = (Some(serve.window), std::ptr::null());
        let source = Source { window, base, offset, shape: serve.shape.clone() };
        if let Some((shape, place)) = &mut serve.shape {
            place.advance(shape, len);
        }
        serve.assigned += len;
        serve.due += 1;
        let more = serve.assigned < serve.len;
        (Some(Chunk::new(Owner::Serve(key), &frame, &[], source)), more)
    }

    /// Answers a peer's read that is through or stopped.
    pub(super) fn serve_on(&mut self, hub: &mut Hub, key: usize) {
        let Some(serve) = self.serves.get_mut(key) else { return };
        if hub.windows.start(serve.window).is_none() {
            // What was not sent before was sent as zeros.
            serve.stopped.get_or_insert(Reason::Stale);
        }
        if serve.due > 0 || (serve.assigned < serve.len && serve.stopped.is_none()) {
            return;
        }
        let serve = self.serves.remove(key);
        if serve.stopped.is_some() {
            self.jobs.iter_mut().for_each(|jobs| jobs.retain(|job| *job != Job::Serve(key)));
        }
        self.served_layouts -= serve.layout_bytes;
        let verdict = match serve.stopped {
            None => Verdict::Done,
            Some(reason) => Verdict::Stopped(reason),
        };
        self.acks.push(Ack { tag: serve.tag, verdict });
        hub.eager(self.id);
    }

    /// Asks for more of the reads that want it.
    fn ask(&mut self) {
        for _ in 0..self.asking.len() {
            let Some(tag) = self.asking.pop_front() else { break };
            if self.ask_for(tag) {
                self.asking.push_back(tag);
            }
        }
    }

    /// Asks for more of a read; whether there is still more to ask for.
    fn ask_for(&mut self, tag: u64) -> bool {
        let room = LONG_ASKS_MAX - self.long_asks.min(LONG_ASKS_MAX);
        let Some(op) = self.op(tag) else { return false };
        let long = op.is_long();
        let asks = if long { ASKS_MAX.min(op.due + room as u32) } else { 1 };
        let mut said = Vec::new();
        while op.due < asks && (op.assigned < op.total || !op.started) {
            let (body, skip, len) = op.lay_out(op.total - op.assigned);
            let place = op.target(skip, &body);
            let urgent = op.lane == Lane::Latency;
            said.push((Frame::Read { tag, place, len, base: op.assigned, urgent }, body));
            op.assigned += len;
            op.started = true;
            op.due += 1;
        }
        let more = op.assigned < op.total;
        for (frame, body) in said {
            self.long_asks += usize::from(long);
            self.streams[LATENCY].say(&frame, &body);
        }
        more
    }

    /// The answer to a read that is not wanted any more.
    pub(super) fn stop_serving(&mut self, hub: &mut Hub, tag: u64) {
        let stopped: Vec<_> =
            self.serves.iter().filter(|(_, it)| it.tag == tag).map(|(key, _)| key).collect();
        for key in stopped {
            self.serves[key].stopped.get_or_insert(Reason::Cancelled);
            self.serve_on(hub, key);
        }
    }
}
