//! A lock-free ring of records from one process to another.
//!
//! A record is one word, its header, and the message in whole words. Positions count words and only
//! grow. The producer fills in a record and then publishes it by a release store of `tail`, so one
//! that is killed at any instruction leaves no half record behind. The consumer gives the room back
//! by a release store of `head`. Each side keeps its own position privately and a copy of the
//! other's, so that the shared words change hands only when there is news.
//!
//! The other side may be mad: whatever is read from shared memory is read once and checked.
//!
//! ```text
//! header   bits 0..8 kind: 1 message, 2 immediate, 3 message and immediate
//!          bits 8..32 message length, bytes      bits 32..64 the immediate
//! ```

use std::sync::atomic::Ordering;

use super::word::Word;

const MESSAGE: u64 = 1;
const IMMEDIATE: u64 = 2;
const LENGTH_MAX: u64 = (1 << 24) - 1;
const WORD_BYTES: usize = size_of::<u64>();

/// The words a ring consists of.
pub(super) trait Channel {
    /// What they are made of.
    type Word: Word;

    /// The consumer's position.
    fn head(&self) -> &Self::Word;
    /// The producer's position.
    fn tail(&self) -> &Self::Word;
    /// Not 0 while the producer waits for room.
    fn wanted(&self) -> &Self::Word;
    /// The records; their number is a power of two.
    fn words(&self) -> &[Self::Word];
}

/// The other side wrote nonsense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    /// A position that cannot be.
    #[error("ring position {position} with ours at {ours} and {capacity} words")]
    Position {
        /// What was read.
        position: u64,
        /// Our own position.
        ours: u64,
        /// Words in the ring.
        capacity: u64,
    },
    /// A record that cannot be.
    #[error("ring record {header:#x} with {published} words published")]
    Record {
        /// What was read.
        header: u64,
        /// Words up to the producer's position.
        published: u64,
    },
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Pushed {
    /// It is published.
    Done,
    /// There is no room; the consumer will tell when it made some.
    Full,
}

/// The sending end.
#[derive(Debug)]
pub(super) struct Producer<C> {
    channel: C,
    tail: u64,
    head: u64,
    wanting: bool,
}

impl<C: Channel> Producer<C> {
    /// The sending end of an empty ring.
    pub(super) fn new(channel: C) -> Self {
        Self { channel, tail: 0, head: 0, wanting: false }
    }

    /// Publishes a record: a message, an immediate, or both.
    pub(super) fn push(
        &mut self,
        message: Option<&[u8]>,
        immediate: Option<u32>,
    ) -> Result<Pushed, Broken> {
        debug_assert!(message.is_some() || immediate.is_some(), "an empty record");
        let bytes = message.unwrap_or(&[]);
        debug_assert!(bytes.len() as u64 <= LENGTH_MAX, "a message too long for any ring");
        let kind = message.map_or(0, |_| MESSAGE) | immediate.map_or(0, |_| IMMEDIATE);
        if !self.make_room(words_of(bytes.len()))? {
            return Ok(Pushed::Full);
        }
        let words = self.channel.words();
        let mask = words.len() as u64 - 1;
        let header = kind | (bytes.len() as u64) << 8 | u64::from(immediate.unwrap_or(0)) << 32;
        words[(self.tail & mask) as usize].store(header, Ordering::Relaxed);
        self.tail += 1;
        for part in bytes.chunks(WORD_BYTES) {
            let mut word = [0; WORD_BYTES];
            word[..part.len()].copy_from_slice(part);
            words[(self.tail & mask) as usize].store(u64::from_ne_bytes(word), Ordering::Relaxed);
            self.tail += 1;
        }
        self.channel.tail().store(self.tail, Ordering::Release);
        Ok(Pushed::Done)
    }

    /// Whether a record was refused and half of the ring, more than any record, is free since. The
    /// consumer is not asked to tell any more then.
    pub(super) fn has_room_again(&mut self) -> Result<bool, Broken> {
        if !self.wanting {
            return Ok(false);
        }
        self.look()?;
        let room = self.tail - self.head <= self.channel.words().len() as u64 / 2;
        if room {
            self.stop_wanting();
        }
        Ok(room)
    }

    fn make_room(&mut self, need: u64) -> Result<bool, Broken> {
        let capacity = self.channel.words().len() as u64;
        let fits = |producer: &Self| producer.tail - producer.head + need <= capacity;
        if !fits(self) {
            self.look()?;
        }
        if !fits(self) && !self.wanting {
            self.wanting = true;
            self.channel.wanted().store(1, Ordering::Relaxed);
            C::Word::fence();
            self.look()?;
        }
        let room = fits(self);
        if room && self.wanting {
            self.stop_wanting();
        }
        Ok(room)
    }

    fn stop_wanting(&mut self) {
        self.wanting = false;
        self.channel.wanted().store(0, Ordering::Relaxed);
    }

    fn look(&mut self) -> Result<(), Broken> {
        let head = self.channel.head().load(Ordering::Acquire);
        if head < self.head || head > self.tail {
            let capacity = self.channel.words().len() as u64;
            return Err(Broken::Position { position: head, ours: self.tail, capacity });
        }
        self.head = head;
        Ok(())
    }
}

/// A record whose header was read and checked; [`Consumer::take`] gets its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    /// How long the message is, bytes, if there is one.
    pub(super) message: Option<usize>,
    /// The immediate, if there is one.
    pub(super) immediate: Option<u32>,
}

/// The receiving end.
#[derive(Debug)]
pub(super) struct Consumer<C> {
    channel: C,
    head: u64,
    tail: u64,
    released: u64,
}

impl<C: Channel> Consumer<C> {
    /// The receiving end of an empty ring.
    pub(super) fn new(channel: C) -> Self {
        Self { channel, head: 0, tail: 0, released: 0 }
    }

    /// The next record, which stays where it is until it is taken.
    #[inline]
    pub(super) fn peek(&mut self) -> Result<Option<Record>, Broken> {
        if self.head == self.tail {
            let tail = self.channel.tail().load(Ordering::Acquire);
            if tail == self.tail {
                return Ok(None);
            }
            let capacity = self.channel.words().len() as u64;
            if tail < self.tail || tail - self.head > capacity {
                return Err(Broken::Position { position: tail, ours: self.head, capacity });
            }
            self.tail = tail;
        }
        let header = self.word(self.head).load(Ordering::Relaxed);
        let (kind, length) = (header & 0xff, header >> 8 & LENGTH_MAX);
        let published = self.tail - self.head;
        let has_message = kind & MESSAGE != 0;
        if kind == 0
            || kind > (MESSAGE | IMMEDIATE)
            || words_of(length as usize) > published
            || (!has_message && length != 0)
        {
            return Err(Broken::Record { header, published });
        }
        Ok(Some(Record {
            message: has_message.then_some(length as usize),
            immediate: (kind & IMMEDIATE != 0).then_some((header >> 32) as u32),
        }))
    }

    /// Takes the record that [`Consumer::peek`] returned just now, and returns its message.
    pub(super) fn take(&mut self, record: Record) -> Vec<u8> {
        let length = record.message.unwrap_or(0);
        let mut bytes = vec![0; length.next_multiple_of(WORD_BYTES)];
        for (at, part) in (self.head + 1..).zip(bytes.chunks_exact_mut(WORD_BYTES)) {
            part.copy_from_slice(&self.word(at).load(Ordering::Relaxed).to_ne_bytes());
        }
        bytes.truncate(length);
        self.head += words_of(length);
        bytes
    }

    /// Gives the room of the taken records back; whether the producer waits for it and has to be
    /// woken.
    pub(super) fn release(&mut self) -> bool {
        if self.released == self.head {
            return false;
        }
        self.released = self.head;
        self.channel.head().store(self.head, Ordering::Release);
        C::Word::fence();
        self.channel.wanted().load(Ordering::Relaxed) != 0
    }

    fn word(&self, at: u64) -> &C::Word {
        let words = self.channel.words();
        &words[(at & (words.len() as u64 - 1)) as usize]
    }
}

/// The words of a record with a message of `length` bytes.
const fn words_of(length: usize) -> u64 {
    1 + length.div_ceil(WORD_BYTES) as u64
}
