//! The states of a block, as types.
//!
//! ```text
//!            reserve                commit(checksum)             lease
//! (nothing) ─────────▶ Reserved ──────────────────▶ (resident) ◀───────▶ Lease
//!     ▲                  │ drop, disconnect,            │ evict, remove,   drop
//!     └──────────────────┴─ deadline                    ▼ expire, corrupt
//!     ▲                                             (gone, or doomed until the last lease ends)
//!     └──────────────────────────────────────────────────┘
//! ```
//! Only a [`Reserved`] can write, and it ends by committing, so nobody reads a half-filled block.
//! Only a [`Lease`] can read, and eviction takes blocks without leases only, so nobody reads space
//! that was given to another block. Neither is `Clone`.
//!
//! Disconnects and deadlines *revoke* a reservation and let a lease *lapse*: the key is free for
//! others and waiters are woken at once, but the bytes are given to somebody else only after the
//! value itself was dropped. So whoever moves bytes on behalf of a client keeps the value until no
//! late access can happen any more.
//!
//! A half-filled block cannot be read:
//! ```compile_fail,E0599
//! fn peek(reserved: &tranship_cache::Reserved) {
//!     let mut bytes = [0; 8];
//!     reserved.read_at(0, 0, &mut bytes);
//! }
//! ```
//! a committed one cannot be written:
//! ```compile_fail,E0382
//! use tranship_cache::{Millis, Reserved};
//! fn scribble(mut reserved: Reserved) {
//!     let _ = reserved.commit(0, Millis(1));
//!     let _ = reserved.write_at(0, b"late");
//! }
//! ```
//! a reservation cannot be filled twice, or by two:
//! ```compile_fail,E0277
//! fn shared<T: Clone>() {}
//! shared::<tranship_cache::Reserved>();
//! ```
//! a released lease cannot be read:
//! ```compile_fail,E0382
//! use tranship_cache::Lease;
//! fn late(lease: Lease) {
//!     drop(lease);
//!     let _ = lease.results();
//! }
//! ```
//! and a lease cannot be written through:
//! ```compile_fail,E0599
//! fn scribble(lease: &mut tranship_cache::Lease) {
//!     lease.write_at(0, b"no");
//! }
//! ```

mod lease;
mod reserved;

use std::fmt;

use crate::key::Key;
use crate::time::Millis;

pub use lease::{Lease, OutOfBlock, Outcome};
pub use reserved::{CommitError, Committed, Reserved};

/// Who holds reservations and leases; the server numbers its connections, never reusing a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// Number of one filling of one block, unique in a store: two blocks that had the same key or the
/// same space at different times differ in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

/// Number of a lease, unique in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

/// Where a readable block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// The block.
    pub key: Key,
    /// First byte in the tenant's arena.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// CRC-64/NVMe of the bytes, as committed.
    pub checksum: u64,
    /// Which filling this is.
    pub generation: Generation,
}

/// Why a reservation was taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// Its deadline passed.
    Deadline,
    /// Its session disconnected.
    Disconnected,
    /// Its identity was removed.
    Closed,
    /// The block, which was coming up from a tier below, was removed.
    Removed,
    /// The block came up from a tier below, and its place in its chain contradicts what is known.
    Lineage,
}

impl fmt::Display for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deadline => "its deadline passed",
            Self::Disconnected => "its session disconnected",
            Self::Closed => "its identity was removed",
            Self::Removed => "the block was removed",
            Self::Lineage => "its place in its chain contradicts what is known",
        })
    }
}

/// A request parked until a block that is in flight is filled or given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// Whose request; waiters of a session that disconnects are forgotten.
    pub session: SessionId,
    /// What the server knows the request by.
    pub token: u64,
}

/// A waiter whose wait is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Woken {
    /// Who waited.
    pub waiter: Waiter,
    /// For which block.
    pub key: Key,
    /// True when the block was committed; false when its filling was given up.
    pub filled: bool,
}

/// What is known of one resident block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Where it is.
    pub view: View,
    /// The block before it.
    pub parent: Option<Key>,
    /// Blocks before it in its sequence.
    pub position: u32,
    /// When it was committed.
    pub committed: Millis,
    /// When its time to live ends.
    pub expires: Option<Millis>,
    /// Times it was leased.
    pub hits: u64,
    /// Leases on it now.
    pub leases: u32,
    /// True when it is pinned.
    pub pinned: bool,
}
