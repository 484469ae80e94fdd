//! One block, as headers and summaries tell of it.

use crate::identity::IdentityId;
use crate::key::Key;
use crate::lineage::Link;
use crate::tier::cold::{Mark, Record};
use crate::time::Wall;
use crate::wire::{Malformed, Reader, Writer};

/// Bytes of an [`Entry`] on the device.
pub(crate) const ENTRY_BYTES: usize = 88;

const HAS_PARENT: u8 = 1;
const HAS_EXPIRY: u8 = 2;
const IS_PARENT: u8 = 4;

/// The bytes are stored as they are; the only codec so far.
pub(crate) const CODEC_NONE: u8 = 0;

/// A block and where it is in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) record: Record,
    pub(crate) mark: Mark,
    /// How the bytes are coded.
    pub(crate) codec: u8,
    /// Bytes on the device; as many as the block has unless they are coded.
    pub(crate) stored: u32,
    /// First page of the payload, from the segment's start.
    pub(crate) page: u32,
    /// First page of the header of its frame, from the segment's start.
    pub(crate) frame: u32,
}

impl Entry {
    /// Pages of the payload.
    pub(crate) fn pages(&self) -> u32 {
        pages(u64::from(self.stored))
    }

    pub(crate) fn encode(&self, to: &mut Writer) {
        let Record { identity, link, len, checksum, expires } = self.record;
        to.raw(link.key.as_bytes());
        to.raw(identity.as_bytes());
        to.raw(link.parent.map_or([0; 16], |parent| *parent.as_bytes()).as_slice());
        to.u64(checksum);
        to.u64(expires.map_or(0, |at| at.0));
        to.u32(link.position);
        to.u32(u32::try_from(len).expect("a block fits into a segment"));
        to.u32(self.stored);
        to.u32(self.page);
        to.u32(self.frame);
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        to.u8(flag(link.parent.is_some(), HAS_PARENT)
            | flag(expires.is_some(), HAS_EXPIRY)
            | flag(self.mark.parent, IS_PARENT));
        to.u8(self.codec);
        to.u8(self.mark.hits);
        to.u8(0);
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let key = from.key("key")?;
        let identity = IdentityId::from_bytes(*from.key("identity")?.as_bytes());
        let parent: Key = from.key("parent")?;
        let (checksum, expires) = (from.u64("checksum")?, from.u64("expiry")?);
        let (position, len) = (from.u32("position")?, from.u32("length")?);
        let (stored, page) = (from.u32("stored length")?, from.u32("page")?);
        let (frame, flags) = (from.u32("frame")?, from.u8("flags")?);
        let (codec, hits, _) = (from.u8("codec")?, from.u8("hits")?, from.u8("reserved")?);
        if codec == CODEC_NONE && stored != len {
            return Err(Malformed::value("stored length", stored, "the length of the block"));
        }
        if page <= frame {
            return Err(Malformed::value("page", page, "a page after the frame's header"));
        }
        let parent = (flags & HAS_PARENT != 0).then_some(parent);
        let expires = (flags & HAS_EXPIRY != 0).then_some(Wall(expires));
        let link = Link { key, parent, position };
        let record = Record { identity, link, len: u64::from(len), checksum, expires };
        let mark = Mark { hits: hits.min(Mark::HITS_MAX), parent: flags & IS_PARENT != 0 };
        Ok(Self { record, mark, codec, stored, page, frame })
    }
}

/// Pages that so many bytes take; an empty block takes one, so that each has a place of its own.
pub(crate) fn pages(bytes: u64) -> u32 {
    bytes.div_ceil(super::PAGE as u64).max(1) as u32
}
