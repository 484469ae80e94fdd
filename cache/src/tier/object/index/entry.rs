//! What is known of one block.

use super::super::super::codec::Codec;
use super::super::super::cold::Record;
use super::Listed;
use crate::identity::IdentityId;
use crate::key::{KEY_BYTES, Key};
use crate::lineage::Link;
use crate::time::Wall;

/// What an entry takes in memory, bytes.
pub(in super::super) const ENTRY_MEMORY_BYTES: u64 = size_of::<Entry>() as u64;

const PARENT: u8 = 1;
/// It was removed, or its pack is to be written again without it.
const DEAD: u8 = 2;

#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) key: Key,
    parent: Key,
    pub(super) len: u64,
    checksum: u64,
    /// 0 for never.
    expires: u64,
    offset: u64,
    pub(super) stored: u64,
    position: u32,
    /// Its slot in the list of identities.
    pub(super) identity: u16,
    codec: u8,
    flags: u8,
}

const _: () = assert!(ENTRY_MEMORY_BYTES == 80);

impl Entry {
    pub(super) fn new(listed: &Listed, identity: u16) -> Self {
        let Record { link, len, checksum, expires, .. } = listed.record;
        Self {
            key: link.key,
            parent: link.parent.unwrap_or(Key::from_bytes([0; KEY_BYTES])),
            len,
            checksum,
            expires: expires.map_or(0, |at| at.0.max(1)),
            offset: listed.offset,
            stored: listed.stored,
            position: link.position,
            identity,
            codec: listed.codec.number(),
            flags: if link.parent.is_some() { PARENT } else { 0 },
        }
    }

    pub(super) fn listed(&self, identity: IdentityId) -> Listed {
        let parent = (self.flags & PARENT != 0).then_some(self.parent);
        let expires = (self.expires != 0).then_some(Wall(self.expires));
        Listed {
            record: Record {
                identity,
                link: Link { key: self.key, parent, position: self.position },
                len: self.len,
                checksum: self.checksum,
                expires,
            },
            offset: self.offset,
            stored: self.stored,
            codec: Codec::of(self.codec).expect("it was made from a codec"),
        }
    }

    pub(super) fn is_live(&self) -> bool {
        self.flags & DEAD == 0
    }

    pub(super) fn kill(&mut self) {
        self.flags |= DEAD;
    }

    /// Its time to live is over.
    pub(super) fn is_over(&self, now: Wall) -> bool {
        self.expires != 0 && self.expires <= now.0
    }

    pub(super) fn expires_or_never(&self) -> u64 {
        if self.expires == 0 { u64::MAX } else { self.expires }
    }
}
