//! Pages of the index log: which copies on the device no longer count.
//!
//! The log says only what summaries and headers cannot: that a copy in a segment is dead (it was
//! removed, replaced or found damaged), and that all earlier lives of a segment are. Both stay true,
//! so records may be repeated. One half of the area begins with a snapshot and grows; when it is
//! full, a snapshot goes to the other half, which is then the log.

use super::{PAGE, Uuid, seal, sealed};
use crate::wire::{Malformed, Reader, Writer};

/// "TRANSIDX", read as a little-endian word.
const MAGIC: u64 = u64::from_le_bytes(*b"TRANSIDX");

const FIXED_BYTES: usize = 64;
const NOTE_BYTES: usize = 16;
const CRC_AT: usize = 8;

/// Most notes on a page.
pub(crate) const NOTES_MAX: usize = (PAGE - FIXED_BYTES) / NOTE_BYTES;
/// Pages of a half that no snapshot takes, at least.
const SLACK_PAGES: u64 = 8;
/// Pages of a segment that one [`Note::Map`] tells of.
pub(crate) const MAP_PAGES: u32 = 64;

const FREED: u8 = 1;
const DEAD: u8 = 2;
const LIFE: u8 = 3;
const MAP: u8 = 4;

/// One fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// All lives of the segment up to this one are over.
    Freed { segment: u32, seq: u64 },
    /// The payload at this page of the segment's life does not count.
    Dead { segment: u32, seq: u64, page: u16 },
    /// The maps that follow are of this life of the segment.
    Life { segment: u32, seq: u64 },
    /// Payloads at `base + n` do not count, for each bit `n`.
    Map { segment: u32, base: u16, bits: u64 },
}

impl Note {
    fn encode(self, to: &mut Writer) {
        let (kind, page, segment, word) = match self {
            Self::Freed { segment, seq } => (FREED, 0, segment, seq),
            Self::Dead { segment, seq, page } => (DEAD, page, segment, seq),
            Self::Life { segment, seq } => (LIFE, 0, segment, seq),
            Self::Map { segment, base, bits } => (MAP, base, segment, bits),
        };
        to.u8(kind);
        to.u8(0);
        to.u16(page);
        to.u32(segment);
        to.u64(word);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (kind, _) = (from.u8("kind")?, from.u8("reserved")?);
        let (page, segment, word) = (from.u16("page")?, from.u32("segment")?, from.u64("word")?);
        match kind {
            FREED => Ok(Self::Freed { segment, seq: word }),
            DEAD => Ok(Self::Dead { segment, seq: word, page }),
            LIFE => Ok(Self::Life { segment, seq: word }),
            MAP => Ok(Self::Map { segment, base: page, bits: word }),
            _ => Err(Malformed::value("kind", kind, "a kind of note")),
        }
    }
}

/// A page of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// Which filling of the half; higher is later.
    pub(crate) epoch: u64,
    /// Which opening of the store wrote it.
    pub(crate) session: u64,
    /// Which page of the half.
    pub(crate) index: u32,
    /// Checksum of the page before; of none, 0.
    pub(crate) chain: u64,
    /// The snapshot ends here.
    pub(crate) complete: bool,
    pub(crate) notes: Vec<Note>,
}

impl Page {
    /// The page's bytes, and its checksum.
    pub(crate) fn encode(&self, uuid: Uuid) -> (Vec<u8>, u64) {
        let mut to = Writer::with_capacity(PAGE);
        to.u64(MAGIC);
        to.u64(0);
        to.raw(&uuid.0);
        to.u64(self.epoch);
        to.u64(self.chain);
        to.u32(self.index);
        to.u16(u16::try_from(self.notes.len()).expect("a page holds a few notes"));
        to.u16(u16::from(self.complete));
        to.u64(self.session);
        self.notes.iter().for_each(|note| note.encode(&mut to));
        let mut bytes = to.finish();
        bytes.resize(PAGE, 0);
        let crc = seal(&mut bytes, CRC_AT);
        (bytes, crc)
    }

    /// Reads a page, and its checksum.
    pub(crate) fn decode(bytes: &[u8], uuid: Uuid) -> Result<(Self, u64), Malformed> {
        let mut from = Reader::new(bytes);
        if from.u64("magic")? != MAGIC {
            return Err(Malformed::value("magic", "another word", "a page of the index log"));
        }
        let Some(crc) = bytes.get(..PAGE).and_then(|page| sealed(page, CRC_AT)) else {
            return Err(Malformed::value("checksum", "wrong", "the checksum of the page"));
        };
        from.u64("checksum")?;
        if from.raw(16, "uuid")? != uuid.0 {
            return Err(Malformed::value("uuid", "another store's", "this store's"));
        }
        let (epoch, chain, index) = (from.u64("epoch")?, from.u64("chain")?, from.u32("index")?);
        let (count, complete) = (from.u16("notes")? as usize, from.u16("flags")? & 1 != 0);
        let session = from.u64("session")?;
        if count > NOTES_MAX {
            return Err(Malformed::value("notes", count, "as many as a page has room for"));
        }
        let notes = (0..count).map(|_| Note::decode(&mut from)).collect::<Result<_, _>>()?;
        Ok((Self { epoch, session, index, chain, complete, notes }, crc))
    }
}

/// Pages of a half that holds the longest snapshot there can be, and some more.
pub(crate) fn half_pages(segments: u64, segment_pages: u64) -> u64 {
    let notes = segments * (2 + segment_pages.div_ceil(u64::from(MAP_PAGES)));
    let snapshot = notes.div_ceil(NOTES_MAX as u64);
    snapshot + SLACK_PAGES.max(snapshot / 4)
}
