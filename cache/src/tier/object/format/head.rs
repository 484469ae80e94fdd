//! What stands in front of a block's bytes: enough to check any part of them alone.

use super::super::super::codec::{Codec, is_width};
use super::super::super::cold::Name;
use super::{CHUNK_BYTES, Error, VERSION, checked};
use crate::identity::IdentityId;
use crate::limits::BLOCK_BYTES_MAX;
use crate::wire::{Malformed, Reader, Writer};

const MAGIC: &[u8; 4] = b"TSBK";
/// What comes before the chunks' part.
const FIXED_BYTES: usize = 64;
/// One chunk's part.
const CHUNK_ENTRY_BYTES: usize = 12;
/// The chunk is stored as it is.
const RAW: u32 = 1 << 31;

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
    /// Which block.
    pub name: Name,
    /// How chunks that are not raw are coded.
    pub codec: Codec,
    /// Bytes of an element, for the codec.
    pub width: u8,
    /// Original bytes.
    pub len: u64,
    /// CRC-64/NVMe of all of them.
    pub checksum: u64,
    /// The chunks, [`CHUNK_BYTES`] original bytes each but for the last.
    pub chunks: Vec<Chunk>,
}

impl Head {
    /// Its bytes: [`head_bytes`] of them.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Writer::with_capacity(head_bytes(self.len) as usize);
        to.raw(MAGIC);
        to.u8(VERSION as u8);
        to.u8(self.codec.number());
        to.u8(self.width);
        to.u8(0);
        to.raw(self.name.identity.as_bytes());
        to.raw(self.name.key.as_bytes());
        to.u64(self.len);
        to.u64(self.checksum);
        to.u32(CHUNK_BYTES as u32);
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
        let codec = from.u8("codec")?;
        let codec =
            Codec::of(codec).ok_or_else(|| Malformed::value("codec", codec, "a known codec"))?;
        let width = from.u8("width")?;
        if !is_width(width) {
            return Err(Malformed::value("width", width, "1, 2, 4 or 8").into());
        }
        from.u8("padding")?;
        let identity = IdentityId::from_bytes(*from.key("identity")?.as_bytes());
        let key = from.key("key")?;
        let (len, checksum) = (from.u64("length")?, from.u64("checksum")?);
        if len > BLOCK_BYTES_MAX {
            return Err(Malformed::value("length", len, "at most the largest block").into());
        }
        let chunk_bytes = from.u32("chunk bytes")?;
        if u64::from(chunk_bytes) != CHUNK_BYTES {
            return Err(Malformed::value("chunk bytes", chunk_bytes, "65536").into());
        }
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
        Ok(Self { name: Name { identity, key }, codec, width, len, checksum, chunks })
    }
}
