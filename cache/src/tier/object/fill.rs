//! From the bytes of a block in its pack to the span that asked for some of them, checked.

use std::ops::Range;

use tranship_transport::checksum::Crc64;

use super::super::Span;
use super::super::codec::{Codec, Decoder};
use super::super::cold::Record;
use super::format::{CHUNK_BYTES, Head, Listed, head_bytes};

/// What was read is not what was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wrong;

/// Fills a span from the image of a block (its head and its chunks) that comes piece by piece.
///
/// A whole block is checked by its own checksum, a part of one by those of the chunks it touches, and
/// the head by what the index knows. The span is written to as bytes come: what it holds means nothing
/// before [`is_full`](Self::is_full).
pub(super) struct Filler {
    listed: Listed,
    range: Range<u64>,
    into: Span,
    head: Vec<u8>,
    parsed: Option<Head>,
    /// The chunk that is being read, and how much of what is stored of it has been.
    chunk: usize,
    taken: u64,
    checksum: Crc64,
    coded: Vec<u8>,
    plain: Vec<u8>,
    decoder: Decoder,
}

impl Filler {
    /// For bytes `range` of a block.
    pub(super) fn new(listed: Listed, range: Range<u64>, into: Span) -> Self {
        Self {
            listed,
            range,
            into,
            head: Vec::new(),
            parsed: None,
            chunk: 0,
            taken: 0,
            checksum: Crc64::new(),
            coded: Vec::new(),
            plain: Vec::new(),
            decoder: Decoder::new(),
        }
    }

    /// Starts over.
    pub(super) fn restart(&mut self) {
        self.head.clear();
        self.parsed = None;
        (self.chunk, self.taken) = (0, 0);
        self.checksum = Crc64::new();
        self.coded.clear();
    }

    pub(super) fn bytes(&self) -> u64 {
        self.range.end - self.range.start
    }

    fn is_whole(&self) -> bool {
        self.range == (0..self.listed.len)
    }

    /// The first chunk that has a byte of the range, and the one after the last; an empty range, wherever
    /// it begins, needs no chunk to be read before it is full.
    fn chunks(&self) -> Range<usize> {
        if self.range.is_empty() {
            return 0..0;
        }
        let first = (self.range.start / CHUNK_BYTES) as usize;
        first..self.range.end.div_ceil(CHUNK_BYTES) as usize
    }

    /// What was stored beside the bytes, once they are here.
    pub(super) fn record(&self) -> Option<Record> {
        self.parsed.as_ref().map(|head| head.record)
    }

    /// The bytes of the head, in the image.
    pub(super) fn head_range(&self) -> Range<u64> {
        0..head_bytes(self.listed.len)
    }

    /// The bytes behind the head that are needed, in the image, if that can be told.
    pub(super) fn body_range(&self) -> Option<Range<u64>> {
        let head = head_bytes(self.listed.len);
        if self.is_whole() {
            return Some(head..self.listed.stored);
        }
        if self.range.is_empty() {
            return Some(head..head);
        }
        let chunks = self.chunks();
        if self.listed.codec == Codec::None {
            let end = (chunks.end as u64 * CHUNK_BYTES).min(self.listed.len);
            return Some(head + chunks.start as u64 * CHUNK_BYTES..head + end);
        }
        let stored = &self.parsed.as_ref()?.chunks;
        let before = |chunk: usize| {
            head + stored[..chunk].iter().map(|chunk| u64::from(chunk.stored)).sum::<u64>()
        };
        Some(before(chunks.start)..before(chunks.end))
    }

    /// The next bytes come from where [`body_range`](Self::body_range) begins.
    pub(super) fn skip(&mut self) {
        if !self.is_whole() {
            (self.chunk, self.taken) = (self.chunks().start, 0);
        }
    }

    /// Takes the next bytes of the image, from its start on.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Wrong> {
        let head = head_bytes(self.listed.len) as usize;
        if self.parsed.is_none() {
            let some = bytes.len().min(head - self.head.len());
            self.head.extend_from_slice(&bytes[..some]);
            bytes = &bytes[some..];
            if self.head.len() < head {
                return Ok(());
            }
            self.parse()?;
        }
        while !bytes.is_empty() && !self.is_full() {
            let taken = self.feed_chunk(bytes)?;
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// True once the span holds what was asked for, and it is right.
    pub(super) fn is_full(&self) -> bool {
        self.parsed.is_some() && self.chunk >= self.chunks().end
    }

    fn parse(&mut self) -> Result<(), Wrong> {
        let head = Head::decode(&self.head).map_err(|_| Wrong)?;
        let record = &head.record;
        let right = record.name() == self.listed.name
            && record.len == self.listed.len
            && record.checksum == self.listed.checksum
            && head.codec == self.listed.codec;
        let stored: u64 = head.chunks.iter().map(|chunk| u64::from(chunk.stored)).sum();
        if !right || head_bytes(record.len) + stored != self.listed.stored {
            return Err(Wrong);
        }
        self.parsed = Some(head);
        // An empty block has nothing more to come.
        let empty = self.listed.len == 0;
        match empty && self.listed.checksum != self.checksum.finish() {
            true => Err(Wrong),
            false => Ok(()),
        }
    }

    /// Takes bytes of the current chunk; how many.
    fn feed_chunk(&mut self, bytes: &[u8]) -> Result<usize, Wrong> {
        let chunk = self.parsed.as_ref().expect("the head came first").chunks[self.chunk];
        let some = bytes.len().min((u64::from(chunk.stored) - self.taken) as usize);
        let bytes = &bytes[..some];
        let start = self.chunk as u64 * CHUNK_BYTES;
        if chunk.raw {
            self.checksum.update(bytes);
            self.put(start + self.taken, bytes);
        } else if self.chunks().contains(&self.chunk) {
            self.coded.extend_from_slice(bytes);
        }
        self.taken += some as u64;
        if self.taken == u64::from(chunk.stored) {
            self.end_chunk(start)?;
        }
        Ok(some)
    }

    fn end_chunk(&mut self, start: u64) -> Result<(), Wrong> {
        let head = self.parsed.as_ref().expect("the head came first");
        let chunk = head.chunks[self.chunk];
        if !chunk.raw && self.chunks().contains(&self.chunk) {
            let len = (self.listed.len - start).min(CHUNK_BYTES) as usize;
            let mut plain = std::mem::take(&mut self.plain);
            plain.resize(len, 0);
            let decoded = self.decoder.decode(head.codec, head.width, &self.coded, &mut plain);
            self.coded.clear();
            decoded.map_err(|_| Wrong)?;
            self.checksum.update(&plain);
            self.put(start, &plain);
            self.plain = plain;
        }
        let whole = self.is_whole();
        let touched = self.chunks().contains(&self.chunk);
        if !whole && touched && self.checksum.finish() != chunk.checksum {
            return Err(Wrong);
        }
        (self.chunk, self.taken) = (self.chunk + 1, 0);
        if whole {
            if self.is_full() && self.checksum.finish() != self.listed.checksum {
                return Err(Wrong);
            }
        } else {
            self.checksum = Crc64::new();
        }
        Ok(())
    }

    /// Puts those bytes of the block from `at` on into the span that it is to have.
    fn put(&self, at: u64, bytes: &[u8]) {
        let from = at.max(self.range.start);
        let to = (at + bytes.len() as u64).min(self.range.end);
        if from >= to {
            return;
        }
        let bytes = &bytes[(from - at) as usize..(to - at) as usize];
        let part = (from - self.range.start) as usize;
        let part = self.into.slice(part..part + bytes.len());
        part.memory()
            .copy_in(part.offset(), bytes)
            .expect("a span lies inside its writable memory");
    }
}
