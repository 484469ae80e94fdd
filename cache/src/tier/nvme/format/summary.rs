//! The summary at the end of a sealed segment: all blocks of its frames, in one read.

use super::record::ENTRY_BYTES;
use super::{Entry, PAGE, Uuid, seal, sealed};
use crate::time::Wall;
use crate::wire::{Malformed, Reader, Writer};

/// "TRANSSUM", read as a little-endian word.
const MAGIC: u64 = u64::from_le_bytes(*b"TRANSSUM");

/// Bytes at the end of the last page.
const TRAILER_BYTES: usize = 80;

/// What the trailer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) segment: u32,
    /// The life of the segment.
    pub(crate) seq: u64,
    /// Number of its last frame.
    pub(crate) last: u64,
    /// When the segment's life began.
    pub(crate) opened: Wall,
    /// Pages after the last frame begin here.
    pub(crate) end: u32,
    /// Pages of the summary.
    pub(crate) pages: u32,
    /// Blocks in it.
    pub(crate) count: u32,
}

/// Pages that a summary of so many blocks takes.
pub(crate) const fn pages(count: usize) -> u32 {
    (count * ENTRY_BYTES + TRAILER_BYTES).div_ceil(PAGE) as u32
}

/// The pages of a summary.
pub(crate) fn encode(uuid: Uuid, trailer: &Trailer, entries: &[Entry]) -> Vec<u8> {
    let len = trailer.pages as usize * PAGE;
    let mut to = Writer::with_capacity(len);
    entries.iter().for_each(|entry| entry.encode(&mut to));
    let mut bytes = to.finish();
    assert!(bytes.len() + TRAILER_BYTES <= len, "the summary has room for its entries");
    bytes.resize(len - TRAILER_BYTES, 0);
    let mut to = Writer::with_capacity(TRAILER_BYTES);
    to.u64(0);
    to.raw(&uuid.0);
    to.u64(trailer.seq);
    to.u64(trailer.last);
    to.u64(trailer.opened.0);
    to.u32(trailer.segment);
    to.u32(trailer.end);
    to.u32(trailer.pages);
    to.u32(trailer.count);
    to.u64(0);
    to.u64(MAGIC);
    bytes.extend(to.finish());
    seal(&mut bytes, len - TRAILER_BYTES);
    bytes
}

/// What the end of a segment says, unchecked but for what it is: how many pages to read to check it.
pub(crate) fn peek(tail: &[u8], uuid: Uuid) -> Result<Trailer, Malformed> {
    let short = Malformed::Short { field: "trailer", at: 0, need: TRAILER_BYTES, len: tail.len() };
    let at = tail.len().checked_sub(TRAILER_BYTES).ok_or(short)?;
    let mut from = Reader::new(&tail[at..]);
    from.u64("checksum")?;
    let ours = from.raw(16, "uuid")? == uuid.0;
    let (seq, last) = (from.u64("life")?, from.u64("last frame")?);
    let opened = Wall(from.u64("opened")?);
    let (segment, end) = (from.u32("segment")?, from.u32("end")?);
    let (pages, count) = (from.u32("pages")?, from.u32("blocks")?);
    from.u64("reserved")?;
    if from.u64("magic")? != MAGIC || !ours {
        return Err(Malformed::value("magic", "another word", "a summary of this store"));
    }
    let need = u64::from(count) * ENTRY_BYTES as u64 + TRAILER_BYTES as u64;
    if need > u64::from(pages) * PAGE as u64 {
        return Err(Malformed::value("blocks", count, "as many as the summary has room for"));
    }
    Ok(Trailer { segment, seq, last, opened, end, pages, count })
}

/// Reads a summary off the end of a segment; `tail` may begin before it.
pub(crate) fn decode(tail: &[u8], uuid: Uuid) -> Result<(Trailer, Vec<Entry>), Malformed> {
    let trailer = peek(tail, uuid)?;
    let len = (trailer.pages as usize).saturating_mul(PAGE);
    let short = Malformed::Short { field: "summary", at: 0, need: len, len: tail.len() };
    let at = tail.len().checked_sub(len).ok_or(short)?;
    let bytes = &tail[at..];
    if sealed(bytes, len - TRAILER_BYTES).is_none() {
        return Err(Malformed::value("checksum", "wrong", "the checksum of the summary"));
    }
    let mut from = Reader::new(bytes);
    let mut entries = Vec::with_capacity(trailer.count as usize);
    for _ in 0..trailer.count {
        let entry = Entry::decode(&mut from)?;
        if u64::from(entry.page) + u64::from(entry.pages()) > u64::from(trailer.end) {
            return Err(Malformed::value("page", entry.page, "a page before the summary"));
        }
        entries.push(entry);
    }
    Ok((trailer, entries))
}
