//! The header of a frame: which blocks follow it.

use super::record::{CODEC_NONE, ENTRY_BYTES};
use super::{Entry, PAGE, Uuid, seal, sealed, sums};
use crate::tier::nvme::sabotage::{Defect, is};
use crate::time::Wall;
use crate::wire::{Malformed, Reader, Writer};

/// "TRANSFRM", read as a little-endian word.
const MAGIC: u64 = u64::from_le_bytes(*b"TRANSFRM");

/// Bytes in front of the entries.
const FIXED_BYTES: usize = 112;
const CRC_AT: usize = 8;

/// Most pages of a header; more than one only when a single block needs them.
pub(crate) const HEADER_PAGES_MAX: u32 = 16;
/// Furthest a payload begins from its header, pages.
pub(crate) const REACH_PAGES: u32 = (1 << 12) - 1;

/// Bytes that a block adds to its frame's header.
pub(crate) const fn header_bytes(stored: usize) -> usize {
    ENTRY_BYTES + 8 * sums::stored(stored)
}

/// Pages of the header of a frame with this block alone.
pub(crate) const fn header_pages(stored: usize) -> u32 {
    (FIXED_BYTES + header_bytes(stored)).div_ceil(PAGE) as u32
}

/// Bytes for blocks in a header of one page.
pub(crate) const ROOM_BYTES: usize = PAGE - FIXED_BYTES;

/// What a header says beside its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) segment: u32,
    /// The life of the segment; higher is later, over the whole store.
    pub(crate) seq: u64,
    /// Which opening of the store wrote it.
    pub(crate) session: u64,
    /// Counts the store's frames.
    pub(crate) number: u64,
    /// When this was written, all frames up to this number were on the device for good.
    pub(crate) durable: u64,
    /// Checksum of the header before this one in the segment; of none, 0.
    pub(crate) chain: u64,
    /// First page of the header, from the segment's start.
    pub(crate) page: u32,
    /// When the segment's life began.
    pub(crate) opened: Wall,
    /// Pages of the header.
    pub(crate) pages: u32,
    /// Pages of the payloads.
    pub(crate) payload_pages: u32,
}

impl Head {
    /// Pages from the header to where the next one is.
    pub(crate) fn span(&self) -> u32 {
        self.pages + self.payload_pages
    }
}

/// A header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) head: Head,
    pub(crate) blocks: Vec<Block>,
    /// Its checksum, the chain of the next one.
    pub(crate) crc: u64,
}

/// A block of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) entry: Entry,
    /// Checksums of its chunks; none for a block of one.
    pub(crate) sums: Vec<u64>,
}

/// The pages of a header, and its checksum.
pub(crate) fn encode(uuid: Uuid, head: &Head, blocks: &[Block]) -> (Vec<u8>, u64) {
    let mut to = Writer::with_capacity(head.pages as usize * PAGE);
    to.u64(MAGIC);
    to.u64(0);
    to.raw(&uuid.0);
    to.u64(head.seq);
    to.u64(head.number);
    to.u64(head.durable);
    to.u64(head.chain);
    to.u64(head.opened.0);
    to.u64(head.session);
    to.u32(head.segment);
    to.u32(head.page);
    to.u32(head.pages);
    to.u32(head.payload_pages);
    to.u32(u32::try_from(blocks.len()).expect("a header holds a few blocks"));
    to.raw(&[0; FIXED_BYTES - 100]);
    for block in blocks {
        block.entry.encode(&mut to);
        block.sums.iter().for_each(|sum| to.u64(*sum));
    }
    let mut bytes = to.finish();
    assert!(bytes.len() <= head.pages as usize * PAGE, "the header has room for its blocks");
    bytes.resize(head.pages as usize * PAGE, 0);
    let crc = seal(&mut bytes, CRC_AT);
    (bytes, crc)
}

/// What the first page of a header says, unchecked but for what it is: how many pages to read to
/// check it.
pub(crate) fn peek(page: &[u8], uuid: Uuid) -> Option<Head> {
    let (_, head, _) = fields(&mut Reader::new(page), uuid).ok()?;
    Some(head)
}

fn fields(from: &mut Reader<'_>, uuid: Uuid) -> Result<(u64, Head, usize), Malformed> {
    if from.u64("magic")? != MAGIC {
        return Err(Malformed::value("magic", "another word", "a frame's header"));
    }
    let crc = from.u64("checksum")?;
    if from.raw(16, "uuid")? != uuid.0 {
        return Err(Malformed::value("uuid", "another store's", "this store's"));
    }
    let (seq, number) = (from.u64("life")?, from.u64("number")?);
    let (durable, chain) = (from.u64("durable")?, from.u64("chain")?);
    let (opened, session) = (Wall(from.u64("opened")?), from.u64("session")?);
    let (segment, page) = (from.u32("segment")?, from.u32("page")?);
    let (pages, payload_pages) = (from.u32("pages")?, from.u32("payload pages")?);
    let count = from.u32("blocks")? as usize;
    from.raw(FIXED_BYTES - 100, "reserved")?;
    if !(1..=HEADER_PAGES_MAX).contains(&pages) {
        return Err(Malformed::value("pages", pages, "a header's pages"));
    }
    let head =
        Head { segment, seq, session, number, durable, chain, page, opened, pages, payload_pages };
    Ok((crc, head, count))
}

/// Reads a header off its pages; `bytes` may go on after them.
pub(crate) fn decode(bytes: &[u8], uuid: Uuid) -> Result<Header, Malformed> {
    let (said, head, _) = fields(&mut Reader::new(bytes), uuid)?;
    let need = head.pages as usize * PAGE;
    let short = Malformed::Short { field: "header", at: 0, need, len: bytes.len() };
    let bytes = bytes.get(..need).ok_or(short)?;
    let crc = match sealed(bytes, CRC_AT) {
        Some(crc) => crc,
        None if is(Defect::TornHeader) => said,
        None => return Err(Malformed::value("checksum", "wrong", "the checksum of the header")),
    };
    let mut from = Reader::new(bytes);
    let (_, head, count) = fields(&mut from, uuid)?;
    if count > need / ENTRY_BYTES {
        return Err(Malformed::value("blocks", count, "as many as the header has room for"));
    }
    let mut blocks = Vec::with_capacity(count);
    let mut next = u64::from(head.page) + u64::from(head.pages);
    for _ in 0..count {
        let entry = Entry::decode(&mut from)?;
        if entry.frame != head.page || u64::from(entry.page) != next {
            return Err(Malformed::value("page", entry.page, "the page after the block before"));
        }
        next += u64::from(entry.pages());
        let sums = match entry.codec {
            CODEC_NONE => sums::stored(entry.stored as usize),
            // What a codec that is not known puts here is skipped with the rest of the frame.
            _ => 0,
        };
        let sums = (0..sums).map(|_| from.u64("checksum of a chunk")).collect::<Result<_, _>>()?;
        blocks.push(Block { entry, sums });
    }
    let end = u64::from(head.page) + u64::from(head.pages) + u64::from(head.payload_pages);
    if next != end {
        return Err(Malformed::value("payload pages", head.payload_pages, "the blocks' pages"));
    }
    Ok(Header { head, blocks, crc })
}
