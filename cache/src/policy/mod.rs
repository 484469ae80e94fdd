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
//! A policy hears of requests before it hears of their blocks: [`on_request`](Policy::on_request)
//! comes with a lookup and names the whole chain, present or not. It is a hint: a client may never
//! look up, or do it twice, and calls of different requests interleave.
//!
//! When room is needed, [`victim`](Policy::victim) names the candidate that should leave, and
//! [`admit`](Policy::admit) may answer that the newcomer is worth less than that candidate. Free
//! space is given to whoever asks.
//!
//! For tiers below memory what is known of a block fits into four bytes, a [`Mark`], and
//! [`worth`](Policy::worth) judges it. The simulator's tiers keep the mark with the block; the daemon's, whose
//! index has no room for it, ask what the policy [recalls](Policy::recall).
//!
//! Order of the calls for one block: `on_insert`, then any of `on_hit`, `on_hold` and `on_free`
//! (these two in turn, beginning with `on_hold`), then `on_remove`. An id may be used again after
//! that.

mod gdsf;
mod ghosts;
mod lineage;
mod lru;
mod named;
mod price;
mod queue;
mod s3fifo;
mod sketch;
mod slru;
mod worth;
mod wtinylfu;

#[cfg(test)]
mod tests;

use crate::key::Key;
use crate::time::Millis;

pub use gdsf::Gdsf;
pub use lineage::Lineage;
pub use lru::Lru;
pub use named::Name;
pub use price::Price;
pub use s3fifo::S3Fifo;
pub use slru::Slru;
pub(crate) use worth::by_use_below;
pub use wtinylfu::WTinyLfu;

/// A block as the driver of a policy numbers it: small, dense, reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub u32);

/// What a policy may know of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// Which identity it is of; keys of different scopes have nothing to do with each other.
    pub scope: u32,
    /// Its key, which survives the block: ghosts and predictions remember it.
    pub key: Key,
    /// The block before it.
    pub parent: Option<Key>,
    /// Space that evicting it gives back, bytes.
    pub bytes: u64,
}

impl Traits {
    /// The key and its scope in 64 bits, for tables of what is gone. Keys may collide, by chance or on purpose:
    /// that may cost a wrong guess, and nothing else.
    pub(crate) fn name(&self) -> u64 {
        name(self.scope, self.key)
    }
}

fn name(scope: u32, key: Key) -> u64 {
    let (low, high) = key.words();
    low ^ high.rotate_left(32) ^ u64::from(scope).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Spreads a name over 64 bits: names are hashes already, but an engine may bring bad ones.
const fn spread(name: u64) -> u64 {
    let wide = name as u128 * 0x9e37_79b9_7f4a_7c15;
    wide as u64 ^ (wide >> 64) as u64
}

/// A lookup, as a policy hears of it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Which identity is asked for.
    pub scope: u32,
    /// The blocks of one sequence, from its start.
    pub keys: &'a [Key],
}

/// What a policy remembers of a block that is in no memory of its own: opaque, four bytes.
///
/// [`Mark::default`] stands for a block that nothing is known of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mark(pub u32);

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

/// An order of eviction, and a judgement of worth; see the module's notes for the rules of the calls.
///
/// Each call should cost O(1) or O(log blocks).
pub trait Policy: Send {
    /// The name in configuration, messages and metrics.
    fn name(&self) -> &'static str;

    /// Somebody asks for the blocks of a sequence; those that are leased or stored for it follow.
    fn on_request(&mut self, _request: &Request<'_>, _now: Millis) {}

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

    /// Whether `block` may come in although `victim`, which [`victim`](Self::victim) just named, has
    /// to leave for it.
    fn admit(&mut self, _block: &Traits, _victim: BlockId, _now: Millis) -> bool {
        true
    }

    /// What to remember of a resident block in a tier below.
    fn mark(&self, id: BlockId) -> Mark;

    /// The mark of a block, resident or not, and how long ago it was used or asked for; none if nothing is
    /// remembered of it.
    fn recall(&self, _scope: u32, _key: Key, _now: Millis) -> Option<(Mark, Millis)> {
        None
    }

    /// A block with this mark, last used `age` ago, was used in a tier below: its new mark.
    fn on_hit_below(&mut self, mark: Mark, age: Millis, now: Millis) -> Mark;

    /// Expected uses a second of a block with this mark that was last used `age` ago, if it is kept
    /// for as long as pays best. It compares blocks with each other: to choose among them by
    /// space, divide by their bytes. Never negative, never NaN.
    fn worth(&self, mark: Mark, age: Millis) -> f32;

    /// A block came back from a tier below with this mark; otherwise as
    /// [`on_insert`](Self::on_insert).
    fn on_return(&mut self, id: BlockId, block: &Traits, _mark: Mark, now: Millis) {
        self.on_insert(id, block, now);
    }
}
