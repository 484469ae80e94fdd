//! What stands in front of a block's bytes: enough to check any part of them alone.

use super::super::super::codec::{Codec, is_width};
use super::super::super::cold::Record;
use super::entry::{read_codec, read_expiry, read_len, read_name, write_expiry};
use super::{CHUNK_BYTES, Error, VERSION, checked};
use crate::key::KEY_BYTES;
use crate::lineage::Link;
use crate::wire::{Malformed, Reader, Writer};

const MAGIC: &[u8; 4] = b"TSBK";
/// What comes before the chunks' part.
const FIXED_BYTES: usize = 88;
/// One chunk's part.
const CHUNK_ENTRY_BYTES: usize = 12;
/// The chunk is stored as it is.
const RAW: u32 = 1 << 31;
/// The block has a parent.
const PARENT: u8 = 1;

/// Bytes of the head of a block of `len` bytes.
#[must_use]
pub fn head_bytes(len: u64) -> u64 {
    FIXED_BYTES as u64 + chunks_of(len) * CHUNK_ENTRY_BYTES as u64 + 8
}

/// Chunks of a block of `len` bytes.
#[must_use]
pub fn chunks_of(len: u64) -> u64 {
    len.div_ceil(CHUNK_BYTES)
}

/// One chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Bytes in the pack.
    pub stored: u32,
    /// They are the original ones.
    pub raw: bool,
    /// CRC-64/NVMe of the original bytes.
    pub checksum: u64,
}

/// The head of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// What was stored.
    pub record: Record,
    /// How chunks that are not raw are coded.
    pub codec: Codec,
    /// Bytes of an element, for the codec.
    pub width: u8,
    /// The chunks, [`CHUNK_BYTES`] original bytes each but for the last.
    pub chunks: Vec<Chunk>,
}

impl Head {
    /// Its bytes: [`head_bytes`] of them.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Record { identity, link, len, checksum, expires } = &self.record;
        let mut to = Writer::with_capacity(head_bytes(*len) as usize);
        to.raw(MAGIC);
        to.u8(VERSION as u8);
        to.u8(self.codec.number());
        to.u8(self.width);
        to.u8(if link.parent.is_some() { PARENT } else { 0 });
        to.raw(identity.as_bytes());
        to.raw(link.key.as_bytes());
        to.raw(link.parent.map_or([0; KEY_BYTES], |parent| *parent.as_bytes()).as_slice());
        to.u64(*len);
        to.u64(*checksum);
        write_expiry(*expires, &mut to);
        to.u32(link.position);
        to.count(self.chunks.len());
        for chunk in &self.chunks {
            to.u32(chunk.stored | if chunk.raw { RAW } else { 0 });
            to.u64(chunk.checksum);
        }
        let mut bytes = to.finish();
        let sum = crate::arena::checksum(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        if !bytes.starts_with(MAGIC) {
            return Err(Error::Magic("a block"));
        }
        let version = bytes.get(4).copied().unwrap_or_default();
        if u16::from(version) != VERSION {
            return Err(Error::Version(version.into()));
        }
        let mut from = Reader::new(checked(bytes)?);
        from.raw(5, "magic and version")?;
        let (codec, width) = (read_codec(&mut from)?, from.u8("width")?);
        if !is_width(width) {
            return Err(Malformed::value("width", width, "1, 2, 4 or 8").into());
        }
        let flags = from.u8("flags")?;
        let name = read_name(&mut from)?;
        let parent = Some(from.key("parent")?).filter(|_| flags & PARENT != 0);
        let (len, checksum) = (read_len(&mut from)?, from.u64("checksum")?);
        let (expires, position) = (read_expiry(&mut from)?, from.u32("position")?);
        let count = from.count("chunks", chunks_of(len) as usize, CHUNK_ENTRY_BYTES)?;
        if count as u64 != chunks_of(len) {
            return Err(Malformed::value("chunks", count, "as many as the block has").into());
        }
        let mut chunks = Vec::with_capacity(count);
        for index in 0..count as u64 {
            let (stored, checksum) = (from.u32("chunk")?, from.u64("chunk checksum")?);
            let chunk = Chunk { stored: stored & !RAW, raw: stored & RAW != 0, checksum };
            let original = (len - index * CHUNK_BYTES).min(CHUNK_BYTES);
            let fits = match chunk.raw {
                true => u64::from(chunk.stored) == original,
                false => u64::from(chunk.stored) < original && codec != Codec::None,
            };
            if !fits {
                return Err(Malformed::value("chunk", stored, "no more than it was made of").into());
            }
            chunks.push(chunk);
        }
        from.end()?;
        let link = Link { key: name.key, parent, position };
        let record = Record { identity: name.identity, link, len, checksum, expires };
        Ok(Self { record, codec, width, chunks })
    }
}
