//! Blocks between the pages of an engine and the cache.
//!
//! | module | what it holds |
//! |---|---|
//! | [`paged`] | where the bytes of a block are in the KV cache of an engine |
//! | [`blocks`] | loading and storing blocks on the calling thread, one result a block |
//! | [`queue`] | the same as jobs on threads of their own, drained in batches, announced by a descriptor |
//! | [`filling`] | a store whose layers come one after the other |
//! | [`guard`] | keeps a daemon that is gone or hangs from slowing an engine down |
//! | [`dial`] | the connection to a daemon, as adapters describe it |
//! | [`fork`] | notices that a handle came along into a forked child |
//!
//! Every error is a clean miss: what is not [`LoadResult::Ready`] is computed by the engine.

pub mod blocks;
pub mod dial;
pub mod filling;
pub mod fork;
pub mod guard;
mod job;
pub mod paged;
pub mod queue;

pub use blocks::{LoadResult, load, store};
pub use dial::Dial;
pub use filling::Filling;
pub use guard::Guard;
pub use paged::Paged;
pub use queue::{Done, Ended, JobId, Queue};
