//! One block, in the footer of its pack and in manifests: what is needed to find it and to read it. Its
//! place in its chain is in its head.

use super::super::super::codec::Codec;
use super::super::super::cold::Name;
use super::head::head_bytes;
use crate::identity::IdentityId;
use crate::limits::BLOCK_BYTES_MAX;
use crate::time::Wall;
use crate::wire::{Malformed, Reader, Writer};

/// Bytes of an entry.
pub const ENTRY_BYTES: usize = 80;

/// A block and where it is in its pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The block.
    pub name: Name,
    /// Its bytes.
    pub len: u64,
    /// CRC-64/NVMe of them.
    pub checksum: u64,
    /// When its time to live ends.
    pub expires: Option<Wall>,
    /// First byte of its head in the pack.
    pub offset: u32,
    /// Bytes of head and chunks together.
    pub stored: u64,
    /// How its chunks are coded.
    pub codec: Codec,
}

impl Listed {
    /// The byte after its last in the pack.
    #[must_use]
    pub fn end(&self) -> u64 {
        u64::from(self.offset).saturating_add(self.stored)
    }

    pub(super) fn write(&self, to: &mut Writer) {
        to.raw(self.name.identity.as_bytes());
        to.raw(self.name.key.as_bytes());
        to.u64(self.len);
        to.u64(self.checksum);
        write_expiry(self.expires, to);
        to.u64(self.stored);
        to.u32(self.offset);
        to.u8(self.codec.number());
        to.raw(&[0; 11]);
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let name = read_name(from)?;
        let (len, checksum) = (read_len(from)?, from.u64("checksum")?);
        let (expires, stored) = (read_expiry(from)?, from.u64("stored bytes")?);
        let (offset, codec) = (from.u32("offset")?, read_codec(from)?);
        from.raw(11, "padding")?;
        // No chunk takes more than it was made of.
        let (head, most) = (head_bytes(len), head_bytes(len) + len);
        if stored < head || stored > most || codec == Codec::None && stored < most {
            return Err(Malformed::value("stored bytes", stored, "what such a block can take"));
        }
        Ok(Self { name, len, checksum, expires, offset, stored, codec })
    }

    /// As many as `count` says, all inside of a pack of `pack_bytes`.
    pub(super) fn read_all(from: &mut Reader<'_>, pack_bytes: u64) -> Result<Vec<Self>, Malformed> {
        let count = from.count("entries", u32::MAX as usize, ENTRY_BYTES)?;
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            let listed = Self::read(from)?;
            if listed.end() > pack_bytes {
                return Err(Malformed::value("offset", listed.offset, "one inside of the pack"));
            }
            all.push(listed);
        }
        Ok(all)
    }
}

pub(super) fn read_name(from: &mut Reader<'_>) -> Result<Name, Malformed> {
    let identity = IdentityId::from_bytes(*from.key("identity")?.as_bytes());
    Ok(Name { identity, key: from.key("key")? })
}

pub(super) fn read_len(from: &mut Reader<'_>) -> Result<u64, Malformed> {
    match from.u64("length")? {
        len if len > BLOCK_BYTES_MAX => {
            Err(Malformed::value("length", len, "at most the largest block"))
        }
        len => Ok(len),
    }
}

pub(super) fn read_codec(from: &mut Reader<'_>) -> Result<Codec, Malformed> {
    let number = from.u8("codec")?;
    Codec::of(number).ok_or_else(|| Malformed::value("codec", number, "a known codec"))
}

/// 0 is never; a block that expired at the start of 1970 is as gone as one that did a millisecond later.
pub(super) fn write_expiry(expires: Option<Wall>, to: &mut Writer) {
    to.u64(expires.map_or(0, |at| at.0.max(1)));
}

pub(super) fn read_expiry(from: &mut Reader<'_>) -> Result<Option<Wall>, Malformed> {
    Ok(Some(from.u64("expiry")?).filter(|at| *at != 0).map(Wall))
}
