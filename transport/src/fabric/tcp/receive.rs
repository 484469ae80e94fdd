//! What comes in: frames, and their payload, which goes straight to where it belongs.

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::io::Errno;

use super::frame::{ACK_BYTES, Ack, Frame, HEAD_BYTES, Malformed, Place as Target, Verdict, word};
use super::hub::Hub;
use super::layout::{Layout, Place, Shape};
use super::link::{Kind, LATENCY, Link, Over};
use super::send::{Job, Serve};
use super::socket::{self, Moved};
use crate::fabric::Event;
use crate::immediate::Immediate;
use crate::lane::Lane;
use crate::outcome::Reason;
use crate::window::{Access, WindowId};

/// Writes of several chunks, and reads, that a peer can have under way here.
const ARRIVALS_MAX: usize = 8192;
const SERVES_MAX: usize = 8192;
/// Bytes of layouts of its reads.
const SERVED_LAYOUT_BYTES_MAX: usize = 16 << 20;

/// How far the incoming frame is.
#[derive(Debug)]
pub(super) enum Reading {
    /// Its head is not here.
    Head,
    /// Its body is not here.
    Body { frame: Frame, body: Vec<u8>, have: usize },
    /// Its payload is not here.
    Payload { left: u64, landing: Landing },
}

/// Where payload goes.
#[derive(Debug)]
pub(super) enum Landing {
    /// Into a window.
    Write {
        tag: u64,
        window: WindowId,
        /// From the start of the window to the next byte, or to what the shape's offsets count from.
        offset: u64,
        shape: Option<(Shape, Place)>,
        payload: u64,
        total: u64,
        immediate: Option<Immediate>,
        refused: Option<Reason>,
        moved: bool,
    },
    /// Into the memory of a read of ours; the next byte of it.
    Data { tag: u64, at: u64, place: Place },
    /// Of an answer to a read that had ended when it began: nowhere, whatever read has the tag by
    /// the time the bytes are here, as nothing was checked against that.
    Unwanted,
    /// To the engine.
    Message { bytes: Vec<u8>, have: usize, immediate: Option<Immediate> },
    /// To the fabric that stands on this one.
    Aside { bytes: Vec<u8>, have: usize },
}

/// A write of several chunks.
#[derive(Debug)]
pub(super) struct Arrival {
    /// Bytes that come.
    total: u64,
    /// Bytes that came, landed or not.
    came: u64,
    refused: Option<Reason>,
    moved: bool,
    aborted: bool,
}

impl From<Malformed> for Over {
    fn from(Malformed(what): Malformed) -> Self {
        Self::Broken(what)
    }
}

impl Link {
    /// Receives from a stream, about `most` bytes at most; how many came.
    pub(super) fn hear(&mut self, hub: &mut Hub, at: usize, most: usize) -> Result<usize, Over> {
        let (mut heard, mut drained) = (0, false);
        loop {
            match std::mem::replace(&mut self.streams[at].reading, Reading::Head) {
                Reading::Head => {
                    let ahead = &mut self.streams[at].ahead;
                    if ahead.unread().len() >= HEAD_BYTES {
                        let head: [u8; HEAD_BYTES] = word(ahead.take(HEAD_BYTES), 0);
                        self.begin(hub, at, Frame::decode(&head)?)?;
                        continue;
                    }
                    if drained || heard >= most {
                        break;
                    }
                    hub.pieces.clear();
                }
                Reading::Body { frame, mut body, mut have } => {
                    let early = self.streams[at].ahead.take(body.len() - have);
                    body[have..have + early.len()].copy_from_slice(early);
                    have += early.len();
                    if have == body.len() {
                        self.with_body(hub, at, &frame, &body)?;
                        continue;
                    }
                    // The rest goes straight into it; a vector's bytes stay where they are.
                    hub.pieces.clear();
                    hub.pieces.push(body[have..].as_mut_ptr(), body.len() - have);
                    self.streams[at].reading = Reading::Body { frame, body, have };
                }
                Reading::Payload { left: 0, landing } => {
                    self.landed(hub, landing)?;
                    continue;
                }
                Reading::Payload { left, mut landing } => {
                    let early = self.streams[at].ahead.unread().len() as u64;
                    let room = most.saturating_sub(heard) as u64;
                    let now = if early > 0 { left.min(early) } else { left.min(room.max(1)) };
                    self.aim(hub, &mut landing, now);
                    if hub.pieces.bytes() == 0 {
                        return Err(Over::Broken("payload for no place"));
                    }
                    if early > 0 {
                        let got = hub.pieces.bytes();
                        let bytes = self.streams[at].ahead.take(got);
                        // SAFETY: `aim` vouches for the pieces.
                        unsafe { hub.pieces.fill(bytes) };
                        self.advance(&mut landing, got as u64);
                        let left = left - got as u64;
                        self.streams[at].reading = Reading::Payload { left, landing };
                        continue;
                    }
                    self.streams[at].reading = Reading::Payload { left, landing };
                }
            }
            if drained || heard >= most {
                break;
            }
            let got = self.receive(hub, at)?;
            (heard, drained) = (heard + got.0, got.1);
        }
        if heard > 0 {
            self.heard = hub.now;
        }
        Ok(heard)
    }

    /// Receives into the pieces, which are what the present frame waits for, and what follows
    /// ahead; how much, and whether there is no more.
    fn receive(&mut self, hub: &mut Hub, at: usize) -> Result<(usize, bool), Over> {
        let stream = &mut self.streams[at];
        let wanted = hub.pieces.bytes();
        let whole = match &stream.reading {
            Reading::Head => true,
            Reading::Body { .. } => false,
            Reading::Payload { left, .. } => *left == wanted as u64,
        };
        if whole {
            let room = stream.ahead.room();
            hub.pieces.push(room.as_mut_ptr(), room.len());
        }
        // SAFETY: `aim` vouches for the first pieces, or they are of the body; the last is ours.
        let got = match unsafe { socket::receive(stream.socket.as_fd(), &hub.pieces) } {
            Ok(Moved::Bytes(got)) => got,
            Ok(Moved::Nothing) => return Ok((0, true)),
            Ok(Moved::End) => return Err(Over::Gone),
            Err(Errno::FAULT) => return Err(Over::Broken("memory that cannot be stored to")),
            Err(errno) => {
                tracing::debug!(peer = self.id.0, "receiving failed: {errno}");
                return Err(Over::Cut);
            }
        };
        let own = got.min(wanted);
        stream.ahead.to += got - own;
        match std::mem::replace(&mut stream.reading, Reading::Head) {
            Reading::Head => {}
            Reading::Body { frame, body, have } => {
                stream.reading = Reading::Body { frame, body, have: have + own };
            }
            Reading::Payload { left, mut landing } => {
                self.advance(&mut landing, own as u64);
                let left = left - own as u64;
                self.streams[at].reading = Reading::Payload { left, landing };
            }
        }
        Ok((got, got < hub.pieces.bytes()))
    }

    /// Begins with a frame whose head is here.
    fn begin(&mut self, hub: &mut Hub, at: usize, frame: Frame) -> Result<(), Over> {
        if at == LATENCY {
            if frame.is_urgent() {
                hub.pace.urge();
            }
            if frame.is_urgent() || matches!(frame, Frame::Message { .. }) {
                hub.pace.came();
            }
        }
        if at != LATENCY && !matches!(frame, Frame::Write { .. } | Frame::Data { .. }) {
            return Err(Over::Broken("a frame without payload in a bulk stream"));
        }
        let (body, payload) = frame.follows();
        if body > 0 {
            let body = vec![0; body as usize];
            self.streams[at].reading = Reading::Body { frame, body, have: 0 };
            return Ok(());
        }
        let landing = match frame {
            Frame::Write { place, .. } => self.begin_write(hub, &frame, &place, None)?,
            Frame::Read { place, .. } => return self.serve(hub, &frame, &place, None),
            Frame::Data { tag, at, .. } => self.begin_data(tag, at, payload.into())?,
            Frame::Message { immediate, .. } => {
                Landing::Message { bytes: vec![0; payload as usize], have: 0, immediate }
            }
            Frame::Aside { .. } if !hub.carries() => {
                return Err(Over::Broken("an aside to a fabric that stands alone"));
            }
            Frame::Aside { .. } => Landing::Aside { bytes: vec![0; payload as usize], have: 0 },
            Frame::Signal { immediate, .. } => {
                hub.reports.push(Event::Arrived { immediate });
                return Ok(());
            }
            Frame::Abort { tag, sent } => return self.abort_arrival(hub, tag, sent),
            Frame::Forget { tag } => {
                self.arrivals.remove(&tag);
                return Ok(());
            }
            Frame::Stop { tag } => {
                self.stop_serving(hub, tag);
                return Ok(());
            }
            Frame::Credit { bytes } => {
                self.credit = self.credit.saturating_add(bytes);
                return Ok(());
            }
            Frame::Acks { .. } | Frame::Ping => return Ok(()),
            Frame::Bye => return Err(Over::Gone),
        };
        self.streams[at].reading = Reading::Payload { left: payload.into(), landing };
        Ok(())
    }

    /// Goes on with a frame whose body is here.
    fn with_body(
        &mut self,
        hub: &mut Hub,
        at: usize,
        frame: &Frame,
        body: &[u8],
    ) -> Result<(), Over> {
        match frame {
            Frame::Acks { .. } => {
                for ack in body.chunks_exact(ACK_BYTES) {
                    self.acked(hub, Ack::decode(&word(ack, 0))?)?;
                }
            }
            Frame::Write { place, payload, .. } => {
                let landing = self.begin_write(hub, frame, place, Some(Layout::decode(body)?))?;
                let left = (*payload).into();
                self.streams[at].reading = Reading::Payload { left, landing };
            }
            Frame::Read { place, .. } => {
                self.serve(hub, frame, place, Some(Layout::decode(body)?))?;
            }
            _ => return Err(Over::Broken("a body where none belongs")),
        }
        Ok(())
    }

    fn begin_write(
        &self,
        hub: &Hub,
        frame: &Frame,
        target: &Target,
        layout: Option<Layout>,
    ) -> Result<Landing, Over> {
        let Frame::Write { tag, total, payload, immediate, .. } = *frame else {
            return Err(Over::Broken("no write"));
        };
        let reach = reach(target, layout.as_ref(), payload.into(), total)?;
        let way = (target.window, target.key);
        let refused = hub.windows.admit(way, Access::WRITE, target.offset, reach).err();
        let (offset, shape) = placed(target, layout, refused.is_some());
        let (window, payload) = (target.window, payload.into());
        let moved = false;
        Ok(Landing::Write { tag, window, offset, shape, payload, total, immediate, refused, moved })
    }

    fn begin_data(&mut self, tag: u64, at: u64, payload: u64) -> Result<Landing, Over> {
        // The answer to what was cancelled comes all the same, and is dropped.
        let Some(op) = self.op(tag) else { return Ok(Landing::Unwanted) };
        let fits = at.checked_add(payload).is_some_and(|end| end <= op.assigned);
        if op.kind != Kind::Read || !fits {
            return Err(Over::Broken("an answer that was not asked for"));
        }
        let place = op.pages.as_ref().map_or_else(Place::default, |it| Place::at(&it.local, at));
        Ok(Landing::Data { tag, at, place })
    }

    fn serve(
        &mut self,
        hub: &mut Hub,
        frame: &Frame,
        target: &Target,
        layout: Option<Layout>,
    ) -> Result<(), Over> {
        let Frame::Read { tag, len, base, urgent, .. } = *frame else {
            return Err(Over::Broken("no read"));
        };
        let total = target.skip.checked_add(len).ok_or(Over::Broken("a read beyond 64 bits"))?;
        let reach = reach(target, layout.as_ref(), len, total)?;
        let way = (target.window, target.key);
        let admitted = hub.windows.admit(way, Access::READ, target.offset, reach);
        hub.eager(self.id);
        let verdict = match admitted {
            Err(reason) => Verdict::Refused(reason),
            Ok(()) if len == 0 => Verdict::Done,
            Ok(()) => {
                let layout_bytes = target.layout as usize;
                self.served_layouts += layout_bytes;
                if self.serves.len() >= SERVES_MAX || self.served_layouts > SERVED_LAYOUT_BYTES_MAX
                {
                    return Err(Over::Broken("more reads at once than engines ask for"));
                }
                let (offset, shape) = placed(target, layout, false);
                let window = target.window;
                let key = self.serves.insert(Serve {
                    tag,
                    window,
                    offset,
                    shape,
                    layout_bytes,
                    base,
                    len,
                    assigned: 0,
                    due: 0,
                    stopped: None,
                });
                let lane = if urgent { Lane::Latency } else { Lane::Bulk };
                self.jobs[lane.index()].push_back(Job::Serve(key));
                return Ok(());
            }
        };
        self.acks.push(Ack { tag, verdict });
        Ok(())
    }

    /// Fills the pieces with where the next bytes go, at most `most` of them: writable memory that
    /// the bytes may be stored to now, or a sink.
    fn aim(&mut self, hub: &mut Hub, landing: &mut Landing, most: u64) {
        hub.pieces.clear();
        let leaving = self.leaving.is_some();
        let (base, shape, place, offset) = match landing {
            Landing::Message { bytes, have, .. } | Landing::Aside { bytes, have } => {
                let len = (bytes.len() - *have).min(most as usize);
                return hub.pieces.push(bytes[*have..].as_mut_ptr(), len);
            }
            Landing::Write { tag, window, offset, shape, refused, .. } => {
                let arrival = self.arrivals.get(tag);
                let ended = arrival.is_some_and(|it| it.aborted || it.refused.is_some());
                let start = hub.windows.start(*window);
                if start.is_none() {
                    refused.get_or_insert(Reason::Stale);
                }
                if leaving {
                    refused.get_or_insert(Reason::PeerGone);
                }
                let start = start.filter(|_| refused.is_none() && !ended);
                let (shape, place) = match shape {
                    Some((shape, place)) => (Some(&*shape), *place),
                    None => (None, Place::default()),
                };
                (start, shape, place, *offset)
            }
            Landing::Data { tag, at, place } => match self.op(*tag).filter(|_| !leaving) {
                Some(op) => {
                    let shape = op.pages.as_ref().map(|pages| &pages.local);
                    let offset = if shape.is_some() { 0 } else { *at };
                    (Some(op.local.ptr), shape, *place, offset)
                }
                None => (None, None, *place, 0),
            },
            Landing::Unwanted => (None, None, Place::default(), 0),
        };
        let Some(base) = base else {
            let len = hub.sink.len().min(most as usize);
            return hub.pieces.push(hub.sink.as_mut_ptr(), len);
        };
        let (mut place, mut left) = (place, most);
        while left > 0 && !hub.pieces.is_full() {
            let (at, here) = match shape {
                None => (0, left),
                Some(shape) => match place.look(shape) {
                    Some((at, here)) => (at, here.min(left)),
                    None => break,
                },
            };
            // SAFETY: the pieces of the write or read lie in the window or the local memory, which
            // was checked when it began; both are there now.
            hub.pieces.push(unsafe { base.add((offset + at) as usize) }, here as usize);
            if let Some(shape) = shape {
                place.advance(shape, here);
            }
            left -= here;
        }
    }

    /// So many bytes went where [`Link::aim`] said.
    fn advance(&mut self, landing: &mut Landing, bytes: u64) {
        match landing {
            Landing::Message { have, .. } | Landing::Aside { have, .. } => {
                *have += bytes as usize;
            }
            Landing::Write { offset, shape, refused, moved, .. } => {
                *moved |= bytes > 0 && refused.is_none();
                match shape {
                    Some((shape, place)) => place.advance(shape, bytes),
                    None => *offset += bytes,
                }
            }
            Landing::Unwanted => {}
            Landing::Data { tag, at, place } => {
                *at += bytes;
                // What came after we hung up went into the sink.
                let leaving = self.leaving.is_some();
                if let Some(op) = self.op(*tag).filter(|_| !leaving) {
                    op.landed += bytes;
                    if let Some(pages) = &op.pages {
                        place.advance(&pages.local, bytes);
                    }
                }
            }
        }
    }

    /// All payload of a frame is here.
    fn landed(&mut self, hub: &mut Hub, landing: Landing) -> Result<(), Over> {
        match landing {
            Landing::Message { bytes, immediate, .. } => {
                if !self.keep(bytes, immediate) {
                    return Err(Over::Broken("more messages than it was granted"));
                }
            }
            Landing::Aside { bytes, .. } => hub.asides.push((self.id, bytes)),
            Landing::Unwanted => {}
            Landing::Data { tag, .. } => self.read_on(hub, tag),
            Landing::Write { tag, payload, total, immediate, refused, moved, .. } => {
                if payload == total && !self.arrivals.contains_key(&tag) {
                    let whole = Arrival { total, came: total, refused, moved, aborted: false };
                    self.arrived(hub, tag, &whole, immediate);
                    return Ok(());
                }
                let arrival = self.arrival(tag, total)?;
                if arrival.total != total && !arrival.aborted {
                    return Err(Over::Broken("a write of two lengths"));
                }
                arrival.came += payload;
                arrival.moved |= moved;
                let news = refused.filter(|_| arrival.refused.is_none() && !arrival.aborted);
                arrival.refused = arrival.refused.or(refused);
                match arrival.came.cmp(&arrival.total) {
                    std::cmp::Ordering::Less => {
                        if let Some(reason) = news {
                            self.acks.push(Ack { tag, verdict: Verdict::Refusing(reason) });
                        }
                    }
                    std::cmp::Ordering::Equal => self.arrived_whole(hub, tag, immediate),
                    std::cmp::Ordering::Greater => {
                        return Err(Over::Broken("more of a write than there is"));
                    }
                }
                hub.eager(self.id);
            }
        }
        Ok(())
    }

    fn arrival(&mut self, tag: u64, total: u64) -> Result<&mut Arrival, Over> {
        if self.arrivals.len() >= ARRIVALS_MAX && !self.arrivals.contains_key(&tag) {
            return Err(Over::Broken("more writes at once than engines send"));
        }
        let new = Arrival { total, came: 0, refused: None, moved: false, aborted: false };
        Ok(self.arrivals.entry(tag).or_insert(new))
    }

    fn arrived_whole(&mut self, hub: &mut Hub, tag: u64, immediate: Option<Immediate>) {
        if let Some(arrival) = self.arrivals.remove(&tag) {
            self.arrived(hub, tag, &arrival, immediate);
        }
    }

    /// Everything of a write has come.
    fn arrived(
        &mut self,
        hub: &mut Hub,
        tag: u64,
        arrival: &Arrival,
        immediate: Option<Immediate>,
    ) {
        let verdict = match arrival.refused {
            Some(reason) if arrival.moved => Verdict::Stopped(reason),
            Some(reason) => Verdict::Refused(reason),
            None if arrival.aborted => Verdict::Aborted { moved: arrival.moved },
            None => {
                hub.reports.extend(immediate.map(|immediate| Event::Arrived { immediate }));
                Verdict::Done
            }
        };
        self.acks.push(Ack { tag, verdict });
        hub.eager(self.id);
    }

    /// A write is to end with what was sent of it.
    fn abort_arrival(&mut self, hub: &mut Hub, tag: u64, sent: u64) -> Result<(), Over> {
        let arrival = self.arrival(tag, sent)?;
        arrival.aborted = true;
        arrival.total = sent;
        match arrival.came.cmp(&sent) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => self.arrived_whole(hub, tag, None),
            std::cmp::Ordering::Greater => {
                return Err(Over::Broken("more of a write than was sent"));
            }
        }
        Ok(())
    }
}

/// How far a part of an operation reaches, counted from where the operation starts.
fn reach(target: &Target, layout: Option<&Layout>, len: u64, total: u64) -> Result<u64, Over> {
    let (limit, reach) = match layout {
        Some(layout) => (layout.bytes(), layout.end()),
        None => (total, total),
    };
    match target.skip.checked_add(len) {
        Some(end) if end <= limit => Ok(reach),
        _ => Err(Over::Broken("a part that is not in its whole")),
    }
}

/// Where it starts; for what is refused anything will do.
fn placed(target: &Target, layout: Option<Layout>, refused: bool) -> (u64, Option<(Shape, Place)>) {
    match layout {
        _ if refused => (0, None),
        None => (target.offset + target.skip, None),
        Some(layout) => {
            let shape = Shape::Layout(Arc::new(layout));
            let place = Place::at(&shape, target.skip);
            (target.offset, Some((shape, place)))
        }
    }
}
