//! The connection segment: what two connected engines share.
//!
//! ```text
//! 0      hazards of the dialler, then of the other side: 64 each, 64 bytes apart
//! 8192   positions of the rings, 256 bytes each: head at 0, tail at 128, wanted at 136
//! 12288  rings: immediates of the dialler, of the other; messages of the dialler, of the other
//! ```
//! Messages and immediates have rings of their own, so that messages nobody takes hold no immediate
//! up.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::ring::{Channel, Consumer, Producer};
use super::segment::{Segment, Sharing};

/// Threads of one engine that can copy at once, the one that polls included.
pub(super) const COPIERS: usize = 64;
/// The smallest ring for messages: twice the longest message and more.
pub(super) const RING_BYTES_MIN: u64 = 256 << 10;
/// The largest ring for messages.
pub(super) const RING_BYTES_MAX: u64 = 64 << 20;

const IMMEDIATES_BYTES: usize = 64 << 10;
const LINE_BYTES: usize = 64;
const WORD_BYTES: usize = size_of::<u64>();
const POSITIONS_AT: usize = 2 * COPIERS * LINE_BYTES;
const POSITIONS_BYTES: usize = 256;
const TAIL_AT: usize = 128;
const RINGS_AT: usize = 12288;

/// Which end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Dialler,
    Other,
}

impl Side {
    fn index(self) -> usize {
        self as usize
    }

    fn opposite(self) -> Self {
        match self {
            Self::Dialler => Self::Other,
            Self::Other => Self::Dialler,
        }
    }
}

/// A mapped connection segment.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    segment: Arc<Segment>,
    side: Side,
    ring_bytes: usize,
}

/// The four ends of the rings.
#[derive(Debug)]
pub(super) struct Rings {
    pub(super) messages_out: Producer<Words>,
    pub(super) immediates_out: Producer<Words>,
    pub(super) messages_in: Consumer<Words>,
    pub(super) immediates_in: Consumer<Words>,
}

impl Connection {
    /// The dialler makes one. `ring_bytes` is a power of two between the limits.
    pub(super) fn create(ring_bytes: u64) -> io::Result<(Self, OwnedFd)> {
        let bytes = segment_bytes(ring_bytes)?;
        let (segment, memfd) = Segment::create("tranship-connection", bytes, Sharing::BothWrite)?;
        let ring_bytes = ring_bytes as usize;
        Ok((Self { segment: Arc::new(segment), side: Side::Dialler, ring_bytes }, memfd))
    }

    /// The other side maps it.
    pub(super) fn map(memfd: BorrowedFd<'_>, ring_bytes: u64) -> io::Result<Self> {
        let segment = Segment::map(memfd, segment_bytes(ring_bytes)?, Sharing::BothWrite)?;
        let ring_bytes = ring_bytes as usize;
        Ok(Self { segment: Arc::new(segment), side: Side::Other, ring_bytes })
    }

    /// The hazard of our copying thread number `copier`.
    #[inline]
    pub(super) fn hazard(&self, copier: usize) -> &AtomicU64 {
        self.hazard_of(self.side, copier)
    }

    /// The hazards of the other side's.
    pub(super) fn their_hazards(&self) -> impl Iterator<Item = &AtomicU64> {
        (0..COPIERS).map(|copier| self.hazard_of(self.side.opposite(), copier))
    }

    #[inline]
    fn hazard_of(&self, side: Side, copier: usize) -> &AtomicU64 {
        assert!(copier < COPIERS, "copying thread {copier}");
        &self.segment.words((side.index() * COPIERS + copier) * LINE_BYTES, 1)[0]
    }

    /// Our ends of the rings; to be asked for once.
    pub(super) fn rings(&self) -> Rings {
        let (out, back) = (self.side, self.side.opposite());
        Rings {
            messages_out: Producer::new(self.messages(out)),
            immediates_out: Producer::new(self.immediates(out)),
            messages_in: Consumer::new(self.messages(back)),
            immediates_in: Consumer::new(self.immediates(back)),
        }
    }

    /// The words of our outgoing rings, for messages and for immediates: to be mad with.
    #[cfg(all(not(loom), any(test, feature = "fuzzing")))]
    pub(super) fn outgoing(&self) -> [Words; 2] {
        [self.messages(self.side), self.immediates(self.side)]
    }

    /// The words of our incoming rings.
    #[cfg(all(not(loom), any(test, feature = "fuzzing")))]
    pub(super) fn incoming(&self) -> [Words; 2] {
        let from = self.side.opposite();
        [self.messages(from), self.immediates(from)]
    }

    fn immediates(&self, from: Side) -> Words {
        self.channel(from.index(), RINGS_AT + from.index() * IMMEDIATES_BYTES, IMMEDIATES_BYTES)
    }

    fn messages(&self, from: Side) -> Words {
        let at = RINGS_AT + 2 * IMMEDIATES_BYTES + from.index() * self.ring_bytes;
        self.channel(2 + from.index(), at, self.ring_bytes)
    }

    fn channel(&self, index: usize, at: usize, bytes: usize) -> Words {
        let position = POSITIONS_AT + index * POSITIONS_BYTES;
        Words {
            head: NonNull::from(&self.segment.words(position, 1)[0]),
            tail: NonNull::from(&self.segment.words(position + TAIL_AT, 1)[0]),
            wanted: NonNull::from(&self.segment.words(position + TAIL_AT + WORD_BYTES, 1)[0]),
            words: NonNull::from(self.segment.words(at, bytes / WORD_BYTES)),
            _keep: Arc::clone(&self.segment),
        }
    }
}

fn segment_bytes(ring_bytes: u64) -> io::Result<usize> {
    if !ring_bytes.is_power_of_two() || !(RING_BYTES_MIN..=RING_BYTES_MAX).contains(&ring_bytes) {
        return Err(io::Error::other(format!("a ring of {ring_bytes} bytes")));
    }
    Ok(RINGS_AT + 2 * IMMEDIATES_BYTES + 2 * ring_bytes as usize)
}

/// The words of one ring, found once.
#[derive(Debug)]
pub(super) struct Words {
    head: NonNull<AtomicU64>,
    tail: NonNull<AtomicU64>,
    wanted: NonNull<AtomicU64>,
    words: NonNull<[AtomicU64]>,
    _keep: Arc<Segment>,
}

// SAFETY: the pointers are to atomics in a segment that is kept.
unsafe impl Send for Words {}

impl Channel for Words {
    type Word = AtomicU64;

    #[inline]
    fn head(&self) -> &AtomicU64 {
        // SAFETY: points into the segment that `_keep` keeps.
        unsafe { self.head.as_ref() }
    }

    #[inline]
    fn tail(&self) -> &AtomicU64 {
        // SAFETY: as above.
        unsafe { self.tail.as_ref() }
    }

    #[inline]
    fn wanted(&self) -> &AtomicU64 {
        // SAFETY: as above.
        unsafe { self.wanted.as_ref() }
    }

    #[inline]
    fn words(&self) -> &[AtomicU64] {
        // SAFETY: as above.
        unsafe { self.words.as_ref() }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::fabric::shm::hazard;
    use crate::fabric::shm::ring::Pushed;

    #[test]
    fn the_two_sides_meet() {
        let (here, memfd) = Connection::create(RING_BYTES_MIN).unwrap();
        let there = Connection::map(memfd.as_fd(), RING_BYTES_MIN).unwrap();
        let (mut a, mut b) = (here.rings(), there.rings());
        assert_eq!(a.messages_out.push(Some(b"to b"), None), Ok(Pushed::Done));
        assert_eq!(b.messages_out.push(Some(b"to a"), Some(4)), Ok(Pushed::Done));
        assert_eq!(b.immediates_out.push(None, Some(5)), Ok(Pushed::Done));
        let record = b.messages_in.peek().unwrap().unwrap();
        assert_eq!(b.messages_in.take(record), b"to b");
        let record = a.messages_in.peek().unwrap().unwrap();
        assert_eq!(record.immediate, Some(4));
        assert_eq!(a.messages_in.take(record), b"to a");
        assert_eq!(a.immediates_in.peek().unwrap().unwrap().immediate, Some(5));
        assert_eq!(b.immediates_in.peek(), Ok(None));

        here.hazard(63).store(9, std::sync::atomic::Ordering::Relaxed);
        assert!(hazard::claimed(there.their_hazards(), 9));
        assert!(!hazard::claimed(here.their_hazards(), 9));
    }

    #[test]
    fn mad_sizes_are_refused() {
        let (_, memfd) = Connection::create(RING_BYTES_MIN).unwrap();
        for ring_bytes in [0, 1, RING_BYTES_MIN - 1, RING_BYTES_MIN * 2, u64::MAX, 1 << 63] {
            Connection::map(memfd.as_fd(), ring_bytes).unwrap_err();
        }
    }
}
