//! Which block leaves when room is needed.
//!
//! A [`Policy`] only ranks *candidates*. Who is one is decided outside and told to the policy: a
//! block that is leased, pinned, or the parent of a present block is *held*; the others are free to
//! go. So every policy evicts leaves first, a prefix chain never gets a hole by eviction, and
//! finding a victim never searches through blocks that cannot leave.
//!
//! Policies read no clock and draw no hidden randomness: whoever drives one, the daemon or a trace
//! simulator, passes the time and gets the same decisions for the same calls.
//!
//! Order of the calls for one block: `on_insert`, then any of `on_hit`, `on_hold` and `on_free`
//! (these two in turn, beginning with `on_hold`), then `on_remove`. An id may be used again after
//! that.

mod lru;

use crate::key::Key;
use crate::time::Millis;

pub use lru::Lru;

/// A block as the driver of a policy numbers it: small, dense, reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub u32);

/// What a policy may know of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// Its key, which survives the block: ghosts and predictions remember it.
    pub key: Key,
    /// The block before it.
    pub parent: Option<Key>,
    /// Blocks before it in its sequence.
    pub position: u32,
    /// Space that evicting it gives back, bytes.
    pub bytes: u64,
}

/// Why a block left a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Removal {
    /// The policy chose it to make room.
    Evicted,
    /// Somebody asked for it.
    Removed,
    /// Its time to live ended.
    Expired,
    /// Its bytes no longer match their checksum.
    Corrupt,
    /// Its whole scope was cleared.
    Cleared,
}

impl Removal {
    /// The name in messages and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::Removed => "removed",
            Self::Expired => "expired",
            Self::Corrupt => "corrupt",
            Self::Cleared => "cleared",
        }
    }
}

/// An order of eviction; see the module's notes for the rules of the calls.
///
/// Each call should cost O(1) or O(log blocks).
pub trait Policy: Send {
    /// The name in configuration, messages and metrics.
    fn name(&self) -> &'static str;

    /// A block became resident; it is a candidate until it is held.
    fn on_insert(&mut self, id: BlockId, block: &Traits, now: Millis);

    /// The block was used.
    fn on_hit(&mut self, id: BlockId, now: Millis);

    /// The block cannot leave for now.
    fn on_hold(&mut self, id: BlockId);

    /// The block may leave again.
    fn on_free(&mut self, id: BlockId);

    /// The block is gone.
    fn on_remove(&mut self, id: BlockId, why: Removal);

    /// The candidate that should leave next; the driver then evicts it and says so by
    /// [`on_remove`](Self::on_remove). None when there is no candidate.
    fn victim(&mut self, now: Millis) -> Option<BlockId>;
}
