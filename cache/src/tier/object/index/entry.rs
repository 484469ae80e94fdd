//! What is known of one block.

use super::super::super::codec::Codec;
use super::super::super::cold::{Found, Mark, Name};
use super::Listed;
use crate::identity::IdentityId;
use crate::key::Key;
use crate::time::Wall;

/// What an entry takes in memory, bytes.
pub(super) const ENTRY_MEMORY_BYTES: u64 = size_of::<Entry>() as u64;

/// It was removed, or its pack is to be written again without it.
const DEAD: u8 = 1;
/// A block that follows it was stored since it was.
const PARENT: u8 = 2;
/// Of all places of its block this is the one that is counted.
const COUNTED: u8 = 4;

const MS: u64 = 1000;

#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) len: u64,
    checksum: u64,
    pub(super) stored: u64,
    /// Whole seconds, at most one early, so that nothing is found after its time; 0 for never.
    expires: u32,
    offset: u32,
    /// Its slot in the list of identities.
    pub(super) identity: u16,
    codec: u8,
    flags: u8,
    hits: u8,
}

const _: () = assert!(ENTRY_MEMORY_BYTES == 56);

impl Entry {
    pub(super) fn new(listed: &Listed, identity: u16) -> Self {
        let seconds = |at: Wall| u32::try_from(at.0 / MS).unwrap_or(u32::MAX).max(1);
        Self {
            key: listed.name.key,
            len: listed.len,
            checksum: listed.checksum,
            stored: listed.stored,
            expires: listed.expires.map_or(0, seconds),
            offset: listed.offset,
            identity,
            codec: listed.codec.number(),
            flags: 0,
            hits: 0,
        }
    }

    pub(super) fn listed(&self, identity: IdentityId) -> Listed {
        Listed {
            name: Name { identity, key: self.key },
            len: self.len,
            checksum: self.checksum,
            expires: self.expires(),
            offset: self.offset,
            stored: self.stored,
            codec: Codec::of(self.codec).expect("it was made from a codec"),
        }
    }

    pub(super) fn found(&self) -> Found {
        let mark = Mark { hits: self.hits, parent: self.flags & PARENT != 0 };
        Found { len: self.len, checksum: self.checksum, expires: self.expires(), mark }
    }

    fn expires(&self) -> Option<Wall> {
        (self.expires != 0).then(|| Wall(u64::from(self.expires) * MS))
    }

    /// It was loaded.
    pub(super) fn hit(&mut self) {
        self.hits = (self.hits + 1).min(Mark::HITS_MAX);
    }

    pub(super) fn hits(&self) -> u8 {
        self.hits
    }

    /// It has so many hits from before.
    pub(super) fn set_hits(&mut self, hits: u8) {
        self.hits = hits;
    }

    pub(super) fn has_child(&mut self) {
        self.flags |= PARENT;
    }

    pub(super) fn is_counted(&self) -> bool {
        self.flags & COUNTED != 0
    }

    pub(super) fn count(&mut self) {
        self.flags |= COUNTED;
    }

    pub(super) fn is_live(&self) -> bool {
        self.flags & DEAD == 0
    }

    pub(super) fn kill(&mut self) {
        self.flags |= DEAD;
    }

    /// Its time to live is over.
    pub(super) fn is_over(&self, now: Wall) -> bool {
        self.expires().is_some_and(|at| at <= now)
    }

    pub(super) fn expires_or_never(&self) -> u32 {
        if self.expires == 0 { u32::MAX } else { self.expires }
    }
}
