//! One socket of a connection: what goes out, in which order, and how far the incoming frame is.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use super::frame::{Frame, HEAD_BYTES};
use super::layout::{Place, Shape};
use super::receive::Reading;
use super::socket::{self, Moved, Pieces};
use super::watch::{Ready, Watch};
use super::windows::Windows;
use crate::window::WindowId;

/// Read ahead on the latency stream, where frames are small; on others a head alone, so that
/// payload is read straight to where it belongs.
const AHEAD_BYTES: usize = 8 << 10;
/// Sent frames that are kept until it is worth the trouble to move the rest.
const CONTROL_SENT_MAX: usize = 256 << 10;
static FILLER: [u8; 16 << 10] = [0; 16 << 10];

/// One socket of a connection.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) socket: OwnedFd,
    pub(super) ready: Ready,
    /// Frames without payload from memory, encoded.
    control: Vec<u8>,
    /// How much of it is sent.
    control_sent: usize,
    /// Up to where it goes before chunks have their turn: the end of a frame.
    control_turn: usize,
    /// Whether it is the chunks' turn.
    chunks_next: bool,
    /// Frames with payload, the first perhaps partly sent.
    pub(super) chunks: VecDeque<Chunk>,
    /// Whether the socket took less than it was given.
    pub(super) clogged: bool,
    watched_for_room: bool,
    pub(super) ahead: Ahead,
    pub(super) reading: Reading,
}

impl Stream {
    pub(super) fn new(socket: OwnedFd, ready: Ready, latency: bool) -> Self {
        let bytes = if latency { AHEAD_BYTES } else { HEAD_BYTES };
        Self {
            socket,
            ready,
            control: Vec::new(),
            control_sent: 0,
            control_turn: 0,
            chunks_next: false,
            chunks: VecDeque::new(),
            clogged: false,
            watched_for_room: false,
            ahead: Ahead { bytes: vec![0; bytes].into(), from: 0, to: 0 },
            reading: Reading::Head,
        }
    }

    /// Queues a frame, and what follows its head.
    pub(super) fn say(&mut self, frame: &Frame, follows: &[u8]) {
        self.control.extend(frame.encode());
        self.control.extend(follows);
    }

    /// Bytes of frames that wait.
    pub(super) fn backlog(&self) -> usize {
        self.control.len() - self.control_sent
    }

    pub(super) fn is_idle(&self) -> bool {
        self.chunks.is_empty() && self.backlog() == 0
    }

    /// Sends about `most` bytes of what waits, and hands over the chunks that are through. How many
    /// bytes were sent.
    pub(super) fn flush(
        &mut self,
        most: usize,
        windows: &Windows,
        pieces: &mut Pieces,
        through: &mut Vec<Chunk>,
    ) -> Result<usize, Errno> {
        let mut moved = 0;
        while !self.clogged && !self.is_idle() && moved < most {
            let left = most - moved;
            let begun = self.chunks.front().is_some_and(|chunk| chunk.sent > 0);
            let said = self.control_sent == self.control_turn;
            if said && !begun && (!self.chunks_next || self.chunks.is_empty()) {
                // In turns: there may always be something more to say.
                self.control_turn = self.control.len();
            }
            pieces.clear();
            let control = self.control_turn - self.control_sent;
            if control > 0 {
                let rest = &self.control[self.control_sent..self.control_turn];
                pieces.push(rest.as_ptr().cast_mut(), rest.len());
            }
            for chunk in &self.chunks {
                if pieces.is_full() || !chunk.gather(left, windows, pieces) {
                    break;
                }
            }
            // SAFETY: control bytes are ours; of chunks see `Chunk::gather`.
            let sent = match unsafe { socket::send(self.socket.as_fd(), pieces) }? {
                Moved::Bytes(sent) => sent,
                Moved::Nothing | Moved::End => 0,
            };
            self.clogged = sent < pieces.bytes();
            moved += sent;
            let control = sent.min(control);
            self.control_sent += control;
            self.chunks_next |= control > 0 && self.control_sent == self.control_turn;
            self.chunks_next &= sent == control;
            // What is always busy is never empty: what was sent must not pile up.
            if self.backlog() == 0 || self.control_sent >= CONTROL_SENT_MAX {
                self.control.drain(..self.control_sent);
                self.control_turn -= self.control_sent;
                self.control_sent = 0;
            }
            self.take_sent((sent - control) as u64, through);
        }
        Ok(moved)
    }

    fn take_sent(&mut self, mut sent: u64, through: &mut Vec<Chunk>) {
        while let Some(chunk) = self.chunks.front_mut() {
            sent -= chunk.advance(sent);
            if chunk.left() > 0 {
                break;
            }
            through.extend(self.chunks.pop_front());
        }
    }

    /// Watches the socket for room while it is clogged.
    pub(super) fn watch(&mut self, watch: &Watch) {
        // One that is only not clogged any more stays watched until it has nothing to send: while
        // it is busy it will be clogged again.
        let wanted = self.clogged || (self.watched_for_room && !self.is_idle());
        if wanted != self.watched_for_room {
            self.watched_for_room = wanted;
            watch.change(&self.socket, self.ready, wanted);
        }
    }
}

/// Bytes that were received and not looked at.
#[derive(Debug)]
pub(super) struct Ahead {
    pub(super) bytes: Box<[u8]>,
    pub(super) from: usize,
    pub(super) to: usize,
}

impl Ahead {
    pub(super) fn unread(&self) -> &[u8] {
        &self.bytes[self.from..self.to]
    }

    /// Up to `max` bytes, taken.
    pub(super) fn take(&mut self, max: usize) -> &[u8] {
        let from = self.from;
        self.from += max.min(self.to - from);
        &self.bytes[from..self.from]
    }

    /// Where more can be received: what is unread is moved to the front.
    pub(super) fn room(&mut self) -> &mut [u8] {
        self.bytes.copy_within(self.from..self.to, 0);
        (self.from, self.to) = (0, self.to - self.from);
        &mut self.bytes[self.to..]
    }
}

/// Whose payload a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// Our write.
    Write(u64),
    /// A peer's read that we serve.
    Serve(usize),
}

/// A frame with payload from memory.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) owner: Owner,
    /// Head and body.
    head: Vec<u8>,
    payload: u64,
    source: Source,
    /// Of head and payload together.
    sent: u64,
}

/// Where a chunk's payload lies.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// In a window, which may be shut before everything is sent: then zeros are sent, for the frame
    /// has promised so many bytes, and the read is answered as stopped.
    pub(super) window: Option<WindowId>,
    /// The first byte for what has no window; not used otherwise.
    pub(super) base: *const u8,
    /// From the base or the start of the window to the payload or, if there is a shape, to what its
    /// offsets count from.
    pub(super) offset: u64,
    pub(super) shape: Option<(Shape, Place)>,
}

// SAFETY: `base` points into memory that the engine keeps until the operation ends, and is only
// used for system calls.
unsafe impl Send for Source {}

impl Chunk {
    pub(super) fn new(owner: Owner, frame: &Frame, body: &[u8], source: Source) -> Self {
        let mut head = Vec::with_capacity(HEAD_BYTES + body.len());
        head.extend(frame.encode());
        head.extend(body);
        let payload = frame.follows().1.into();
        Self { owner, head, payload, source, sent: 0 }
    }

    pub(super) fn is_unsent(&self) -> bool {
        self.sent == 0
    }

    pub(super) fn left(&self) -> u64 {
        self.head.len() as u64 + self.payload - self.sent
    }

    /// Adds what is left of it to `pieces`, as far as they have room and until they have `most`
    /// bytes; whether that was all. What it adds is readable: windows are looked up anew each time,
    /// and other memory is kept by the engine.
    fn gather(&self, most: usize, windows: &Windows, pieces: &mut Pieces) -> bool {
        let head = self.head.len() as u64;
        if self.sent < head {
            let rest = &self.head[self.sent as usize..];
            pieces.push(rest.as_ptr().cast_mut(), rest.len());
        }
        let mut left = self.left().min(self.payload);
        let base = match self.source.window {
            Some(window) => windows.start(window),
            None => Some(self.source.base.cast_mut()),
        };
        let mut place = self.source.shape.as_ref().map(|(_, place)| *place);
        let mut behind = self.payload - left;
        while left > 0 && !pieces.is_full() && pieces.bytes() < most {
            let room = (most - pieces.bytes()) as u64;
            let (offset, here) = match (&self.source.shape, &mut place) {
                (Some((shape, _)), Some(place)) => {
                    let Some((offset, here)) = place.look(shape) else { break };
                    let here = here.min(left);
                    place.advance(shape, here);
                    (offset, here)
                }
                _ => (behind, left),
            };
            let len = here.min(room) as usize;
            if let Some(base) = base {
                // SAFETY: inside of the memory or window, which was checked for the operation.
                let start = unsafe { base.add((self.source.offset + offset) as usize) };
                pieces.push(start, len);
            } else {
                pieces.push(FILLER.as_ptr().cast_mut(), len.min(FILLER.len()));
            }
            if (len as u64) < here || (base.is_none() && len > FILLER.len()) {
                break;
            }
            left -= here;
            behind += here;
        }
        left == 0 && pieces.bytes() < most
    }

    /// So many bytes were sent, perhaps more than are left of it; how many of them are its own.
    fn advance(&mut self, sent: u64) -> u64 {
        let head = self.head.len() as u64;
        let own = sent.min(self.left());
        let payload = |sent: u64| sent.saturating_sub(head);
        let moved = payload(self.sent + own) - payload(self.sent);
        self.sent += own;
        if let Some((shape, place)) = &mut self.source.shape {
            place.advance(shape, moved);
        }
        own
    }
}

#[cfg(all(not(loom), test))]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::fabric::PeerId;

    const SLICE_BYTES: usize = 256 << 10;

    #[test]
    fn what_was_sent_is_not_kept_though_there_is_always_more() {
        const WAITING: usize = 400 << 10;
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut stream = Stream::new(ours.into(), Ready::Stream(PeerId(1), 0), true);
        let (windows, mut pieces, mut through) = Default::default();
        let mut said = 0;
        while said < 64 * WAITING {
            while stream.backlog() < WAITING {
                stream.say(&Frame::Ping, &[]);
                said += HEAD_BYTES;
            }
            stream.clogged = false;
            stream.flush(SLICE_BYTES, &windows, &mut pieces, &mut through).unwrap();
            assert!(stream.backlog() > 0, "the socket takes it all: nothing is shown");
            let mut some = [0; 64 << 10];
            assert!(theirs.read(&mut some).unwrap() > 0);
            assert!(stream.control.capacity() <= 8 * WAITING, "grows without bound");
        }
    }

    #[test]
    fn chunks_have_their_turn_though_there_is_always_something_to_say() {
        const WAITING: usize = 400 << 10;
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut stream = Stream::new(ours.into(), Ready::Stream(PeerId(1), 0), true);
        let (windows, mut pieces, mut through) = Default::default();
        let bytes = [7; 64];
        let source = Source { window: None, base: bytes.as_ptr(), offset: 0, shape: None };
        let frame = Frame::Data { tag: 1, at: 0, payload: 64 };
        let mut sent = Vec::new();
        for round in 0..64 {
            while stream.backlog() < WAITING {
                stream.say(&Frame::Ping, &[]);
            }
            if round == 2 {
                stream.chunks.push_back(Chunk::new(Owner::Serve(0), &frame, &[], source.clone()));
            }
            stream.clogged = false;
            stream.flush(SLICE_BYTES, &windows, &mut pieces, &mut through).unwrap();
            let mut some = [0; 64 << 10];
            let got = theirs.read(&mut some).unwrap();
            sent.extend(&some[..got]);
        }
        assert_eq!(through.len(), 1, "the chunk is never sent");
        drop(stream);
        theirs.read_to_end(&mut sent).unwrap();
        // Frames are whole, wherever the chunk went.
        let (mut at, mut data) = (0, 0);
        while let Some(head) = sent[at..].first_chunk() {
            let frame = Frame::decode(head).unwrap();
            at += HEAD_BYTES + frame.follows().1 as usize;
            data += usize::from(frame.follows().1 > 0);
        }
        assert_eq!(data, 1);
    }
}
