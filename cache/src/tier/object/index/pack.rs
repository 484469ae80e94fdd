//! A pack, as the index knows it.

use bytes::Bytes;

use super::super::paths::PackId;
use super::entry::Entry;
use crate::time::Wall;

/// Names a pack in this index; never used again.
pub(in super::super) type Serial = u32;

/// Where a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Place {
    pub(in super::super) pack: Serial,
    pub(in super::super) entry: u32,
}

/// Where the bytes of a pack are.
#[derive(Debug)]
pub(in super::super) enum Body {
    /// Here, block by block, not in the bucket yet.
    Memory(Vec<Bytes>),
    /// In the bucket.
    Stored(PackId),
}

/// A pack.
#[derive(Debug)]
pub(in super::super) struct Pack {
    pub(in super::super) body: Body,
    /// This node made it, and answers for the room it takes.
    pub(in super::super) ours: bool,
    /// Bytes in the bucket.
    pub(in super::super) size: u64,
    /// When it was made.
    pub(in super::super) created: Wall,
    /// Last use, in the order of the index's ticks.
    pub(in super::super) used: u64,
    /// Manifests that name it.
    pub(in super::super) named: u32,
    pub(super) entries: Vec<Entry>,
    pub(super) live: u32,
    pub(super) live_stored_bytes: u64,
}

impl Pack {
    pub(in super::super) fn new(body: Body, ours: bool, created: Wall) -> Self {
        let (size, used, named, live, live_stored_bytes) = (0, 0, 0, 0, 0);
        Self {
            body,
            ours,
            size,
            created,
            used,
            named,
            entries: Vec::new(),
            live,
            live_stored_bytes,
        }
    }

    /// Its name in the bucket.
    pub(in super::super) fn id(&self) -> Option<PackId> {
        match &self.body {
            Body::Stored(id) => Some(*id),
            Body::Memory(_) => None,
        }
    }

    /// Blocks of it that can be found, or could were they not in another pack too.
    pub(in super::super) fn live(&self) -> u32 {
        self.live
    }

    /// Blocks of it that were removed, or replaced, or are over.
    pub(in super::super) fn dead(&self) -> u32 {
        self.entries.len() as u32 - self.live
    }

    /// Bytes the live ones take in the pack.
    pub(in super::super) fn live_stored_bytes(&self) -> u64 {
        self.live_stored_bytes
    }
}
