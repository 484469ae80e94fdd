//! The object tier: blocks in large objects of a bucket (S3, Google Cloud Storage, Azure) or of a local
//! directory, which several daemons may share without speaking to each other.
//!
//! # How it works
//! - Blocks are copied into a *pack* in memory. When it is full, or old, or somebody waits for it, it is
//!   uploaded under the hash of its bytes, and never changed again.
//! - Right after that a *manifest* tells of it: a small object with the pack's index. Whoever opens the
//!   bucket reads the manifests of all nodes and knows every block, without listing packs; who has it
//!   open looks for new ones from time to time.
//! - A load is a ranged read of the pack, which is checked, and copied into the span as it comes.
//! - Nothing is decided by a conditional write: many services ignore the condition. All objects are
//!   named by their contents, so whoever writes last changes nothing.
//!
//! # Invariants
//! 1. A pack is named by a manifest for the first time within half of the grace after its upload, or
//!    never. Nobody deletes a pack of somebody else's that is younger than the grace, or that a manifest
//!    names.
//! 2. A durable store is answered after its pack and its manifest are in the bucket.
//! 3. A span is written to only while its load is not answered: all copies are made by the task that
//!    answers.
//! 4. What was removed comes into the index again only with a store that was taken after the removal, or
//!    in a pack of another node that was made long enough after it: whatever adds a block looks, under
//!    the lock under which it adds it.
//! 5. A manifest of this node is merged, written again or deleted only while all that it names is known.
//!
//! Threads: `tranship-pack` copies, checks, codes and hashes blocks; `tranship-object` (a runtime) makes
//! requests. [`Bucket`] itself never waits but in `open` and `close`. One lock guards the index and the
//! bookkeeping; no request is made and no code of others runs under it.

mod breaker;
mod bucket;
mod clock;
mod collect;
mod ended;
mod error;
mod fault;
mod fill;
pub mod format;
mod gates;
mod image;
mod index;
mod load;
mod manifests;
mod options;
mod packer;
mod paths;
mod pieces;
mod place;
mod refresh;
mod removed;
mod service;
mod shared;
mod stray;
mod tasks;
mod upload;

pub use breaker::BreakerOptions;
pub use bucket::Bucket;
pub use clock::{Clock, SystemClock};
pub use collect::Collected;
pub use error::OpenError;
pub use options::{Options, Retries};
pub use paths::PackId;
pub use place::client;
