//! One block, in the footer of its pack and in manifests.

use super::super::super::codec::Codec;
use super::super::super::cold::Record;
use crate::identity::IdentityId;
use crate::key::{KEY_BYTES, Key};
use crate::limits::BLOCK_BYTES_MAX;
use crate::lineage::Link;
use crate::time::Wall;
use crate::wire::{Malformed, Reader, Writer};

/// Bytes of an entry.
pub const ENTRY_BYTES: usize = 96;

/// The block has a parent.
const PARENT: u8 = 1;

/// A block and where it is in its pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The block.
    pub record: Record,
    /// First byte of its head in the pack.
    pub offset: u64,
    /// Bytes of head and chunks together.
    pub stored: u64,
    /// How its chunks are coded.
    pub codec: Codec,
}

impl Listed {
    pub(super) fn write(&self, to: &mut Writer) {
        let Record { identity, link, len, checksum, expires } = &self.record;
        to.raw(link.key.as_bytes());
        to.raw(identity.as_bytes());
        to.raw(link.parent.map_or([0; KEY_BYTES], |parent| *parent.as_bytes()).as_slice());
        to.u64(*len);
        to.u64(*checksum);
        // A block that expired at the start of 1970 is as gone as one that did a millisecond later.
        to.u64(expires.map_or(0, |at| at.0.max(1)));
        to.u64(self.offset);
        to.u64(self.stored);
        to.u32(link.position);
        to.u8(if link.parent.is_some() { PARENT } else { 0 });
        to.u8(self.codec.number());
        to.u16(0);
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let key = from.key("key")?;
        let identity = IdentityId::from_bytes(*from.key("identity")?.as_bytes());
        let parent = from.key("parent")?;
        let len = from.u64("length")?;
        if len > BLOCK_BYTES_MAX {
            return Err(Malformed::value("length", len, "at most the largest block"));
        }
        let checksum = from.u64("checksum")?;
        let expires = Some(from.u64("expiry")?).filter(|at| *at != 0).map(Wall);
        let (offset, stored) = (from.u64("offset")?, from.u64("stored bytes")?);
        if offset.checked_add(stored).is_none() {
            return Err(Malformed::value("offset", offset, "one inside of the pack"));
        }
        let position = from.u32("position")?;
        let flags = from.u8("flags")?;
        let codec = from.u8("codec")?;
        let codec =
            Codec::of(codec).ok_or_else(|| Malformed::value("codec", codec, "a known codec"))?;
        from.u16("padding")?;
        let parent: Option<Key> = (flags & PARENT != 0).then_some(parent);
        let link = Link { key, parent, position };
        let record = Record { identity, link, len, checksum, expires };
        Ok(Self { record, offset, stored, codec })
    }

    /// As many as `count` says, all inside of a pack of `pack_bytes`.
    pub(super) fn read_all(from: &mut Reader<'_>, pack_bytes: u64) -> Result<Vec<Self>, Malformed> {
        let count = from.count("entries", u32::MAX as usize, ENTRY_BYTES)?;
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            let listed = Self::read(from)?;
            if listed.offset + listed.stored > pack_bytes {
                return Err(Malformed::value("offset", listed.offset, "one inside of the pack"));
            }
            all.push(listed);
        }
        Ok(all)
    }
}
