//! What clients ask.

mod decode;
mod encode;

#[cfg(test)]
mod tests;

use tranship_transport::{Descriptor, Slot};

use super::BATCH_MAX;
use crate::key::{KEY_BYTES, Key};
use crate::lineage::Link;
use crate::store::Place;
use crate::tier::Tiers;

/// The first message of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The version the client speaks.
    pub version: u16,
    /// What the client calls itself, for logs.
    pub name: String,
    /// The tenant it works for.
    pub tenant: String,
    /// The tenant's token; empty for none.
    pub token: String,
}

/// Some bytes of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The block.
    pub key: Key,
    /// First byte.
    pub start: u64,
    /// The byte after the last.
    pub end: u64,
}

/// One block to make room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Which block.
    pub link: Link,
    /// How long, bytes.
    pub len: u64,
}

/// Blocks to be written into a window of the caller's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// How long to wait for blocks that are being filled, milliseconds.
    pub wait_ms: u32,
    /// The caller's window.
    pub window: Descriptor,
    /// Counts one arrival a block.
    pub slot: Slot,
    /// Which blocks, and where in the window each goes, bytes.
    pub blocks: Vec<(Key, u64)>,
}

/// One reserved block of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The reservation.
    pub reservation: u64,
    /// CRC-64/NVMe of the bytes.
    pub checksum: u64,
    /// Where in the window they start, bytes.
    pub offset: u64,
}

/// Reserved blocks to be read out of a window of the caller's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// How long the reads may take, milliseconds.
    pub deadline_ms: u32,
    /// The caller's window; it may be read.
    pub window: Descriptor,
    /// Which blocks, and where in the window each is.
    pub blocks: Vec<Source>,
}

/// What a client asks; `scope` is an identity as the daemon numbered it for this connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Opens the session.
    Hello(Hello),
    /// Registers an identity (its canonical encoding) and gets a scope for it.
    Identify {
        /// See [`Identity::encode`](crate::Identity::encode).
        identity: Vec<u8>,
    },
    /// Finds the longest unbroken prefix.
    Lookup {
        /// The identity.
        scope: u32,
        /// The chain, from its start.
        keys: Vec<Key>,
    },
    /// Asks for room.
    Reserve {
        /// The identity.
        scope: u32,
        /// How long the client may take to commit, milliseconds.
        deadline_ms: u32,
        /// How long the blocks may live once committed, milliseconds; 0 for no limit.
        ttl_ms: u64,
        /// The blocks.
        items: Vec<Item>,
    },
    /// Makes filled blocks readable: reservation and CRC-64/NVMe of each.
    Commit {
        /// Reservations and checksums.
        blocks: Vec<(u64, u64)>,
    },
    /// Has reserved blocks read out of the caller's memory, then makes them readable: what a
    /// client does that cannot write to the arena itself.
    Put(Put),
    /// Gives reservations back unfilled.
    Abort {
        /// The reservations.
        reservations: Vec<u64>,
    },
    /// Asks for blocks to be kept in place.
    Lease {
        /// The identity.
        scope: u32,
        /// How long to wait for blocks that are being filled, milliseconds.
        wait_ms: u32,
        /// How long the lease holds without a release, milliseconds.
        ttl_ms: u32,
        /// The blocks.
        keys: Vec<Key>,
    },
    /// Ends leases.
    Release {
        /// The leases.
        leases: Vec<u64>,
    },
    /// Tells that bytes read under a lease did not match their checksum.
    Corrupt {
        /// The identity.
        scope: u32,
        /// The block.
        key: Key,
        /// Which filling of it.
        generation: u64,
    },
    /// Asks for blocks to be written into the caller's memory.
    Fetch {
        /// The identity.
        scope: u32,
        /// What and where to.
        fetch: Fetch,
    },
    /// Keeps blocks from eviction, or stops that.
    Pin {
        /// The identity.
        scope: u32,
        /// Pin or unpin.
        pin: bool,
        /// The blocks.
        keys: Vec<Key>,
    },
    /// Removes blocks.
    Remove {
        /// The identity.
        scope: u32,
        /// The blocks.
        keys: Vec<Key>,
    },
    /// Has blocks of tiers below brought to memory.
    Prefetch {
        /// The identity.
        scope: u32,
        /// The blocks, the most urgent first.
        keys: Vec<Key>,
    },
    /// Has blocks written where they survive a crash, and says when they are.
    Persist {
        /// The identity.
        scope: u32,
        /// How long to wait for that, milliseconds.
        wait_ms: u32,
        /// The blocks.
        keys: Vec<Key>,
    },
    /// [`Lease`](Request::Lease) of some bytes of each block, of which no more is brought to memory.
    LeaseParts {
        /// The identity.
        scope: u32,
        /// How long to wait for what is being filled or brought, milliseconds.
        wait_ms: u32,
        /// How long the lease holds without a release, milliseconds.
        ttl_ms: u32,
        /// The parts.
        parts: Vec<Part>,
    },
    /// Asks for a page of the tenant's blocks, of all its identities.
    List {
        /// Where the page starts.
        start: Place,
        /// What is in these tiers.
        tiers: Tiers,
        /// Only keys whose hex digits start like this.
        prefix: String,
    },
    /// Asks for the tenant's statistics.
    Stats,
    /// Asks for events as they happen, from a sequence number on; `u64::MAX` for "from now".
    Subscribe {
        /// The first event wanted.
        from: u64,
    },
    /// Stops them.
    Unsubscribe,
    /// Asks for a sign of life.
    Ping,
}

/// What a message is, on the wire.
mod kind {
    pub(super) const HELLO: u8 = 1;
    pub(super) const IDENTIFY: u8 = 2;
    pub(super) const LOOKUP: u8 = 3;
    pub(super) const RESERVE: u8 = 4;
    pub(super) const COMMIT: u8 = 5;
    pub(super) const ABORT: u8 = 6;
    pub(super) const LEASE: u8 = 7;
    pub(super) const RELEASE: u8 = 8;
    pub(super) const CORRUPT: u8 = 9;
    pub(super) const FETCH: u8 = 10;
    pub(super) const PIN: u8 = 11;
    pub(super) const REMOVE: u8 = 12;
    pub(super) const STATS: u8 = 13;
    pub(super) const SUBSCRIBE: u8 = 14;
    pub(super) const UNSUBSCRIBE: u8 = 15;
    pub(super) const PING: u8 = 16;
    pub(super) const PUT: u8 = 17;
    pub(super) const LIST: u8 = 18;
    pub(super) const PREFETCH: u8 = 19;
    pub(super) const PERSIST: u8 = 20;
    pub(super) const LEASE_PARTS: u8 = 21;
}

/// Bytes of an [`Item`]: key, flag, parent, position, length.
const ITEM_BYTES: usize = KEY_BYTES + 1 + KEY_BYTES + 4 + 8;
/// Bytes of a [`Source`]: reservation, checksum, offset.
const SOURCE_BYTES: usize = 8 + 8 + 8;
/// Bytes of a [`Part`]: key, start, end.
const PART_BYTES: usize = KEY_BYTES + 8 + 8;

impl Request {
    /// The name in logs and metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Identify { .. } => "identify",
            Self::Lookup { .. } => "lookup",
            Self::Reserve { .. } => "reserve",
            Self::Commit { .. } => "commit",
            Self::Put(_) => "put",
            Self::Abort { .. } => "abort",
            Self::Lease { .. } => "lease",
            Self::Release { .. } => "release",
            Self::Corrupt { .. } => "corrupt",
            Self::Fetch { .. } => "fetch",
            Self::Pin { .. } => "pin",
            Self::Remove { .. } => "remove",
            Self::Prefetch { .. } => "prefetch",
            Self::Persist { .. } => "persist",
            Self::LeaseParts { .. } => "lease_parts",
            Self::List { .. } => "list",
            Self::Stats => "stats",
            Self::Subscribe { .. } => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Ping => "ping",
        }
    }
}
