//! Loading and storing blocks on the calling thread, one result a block.

use std::time::Duration;

use tranship_cache::client::{BlockResult, Cache, Error, ReadError, Stored};
use tranship_cache::{Key, Link};
use tranship_transport::memory::Spans;

/// Blocks kept in place at a time: a lease stands for half a minute, and what one keeps cannot be evicted.
const LEASE_BLOCKS: usize = 256;

/// The longest wait: what the protocol can say. A daemon grants less.
const WAIT_MAX: Duration = Duration::from_millis(u32::MAX as u64);

/// What became of one block that was to be loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadResult {
    /// Its bytes are there, and were checked.
    Ready,
    /// It is being filled, or on its way up from a tier below, and did not come in time: a miss for now.
    Late,
    /// Not there.
    Gone,
    /// Its bytes did not match their checksum: the daemon was told and drops it. The memory it was to go to
    /// holds bytes that must not be used.
    Corrupt,
    /// It has another length than the memory it was to go to, or could not be brought here. The memory may
    /// hold bytes that must not be used.
    Failed,
}

impl LoadResult {
    fn of(error: &ReadError) -> Self {
        match error {
            ReadError::Corrupt { .. } => Self::Corrupt,
            ReadError::NotReady { .. } => Self::Gone,
            _ => Self::Failed,
        }
    }
}

/// Loads blocks, waiting up to `wait` for those that are being filled or come up from a tier below. One
/// result a block, in order.
///
/// # Errors
/// When the daemon cannot be reached or refuses the request as a whole: all are misses then.
pub fn load(
    cache: &Cache,
    blocks: &[(Key, Spans)],
    wait: Duration,
) -> Result<Vec<LoadResult>, Error> {
    let (mut results, wait) = (Vec::with_capacity(blocks.len()), wait.min(WAIT_MAX));
    for blocks in blocks.chunks(LEASE_BLOCKS) {
        let keys: Vec<Key> = blocks.iter().map(|(key, _)| *key).collect();
        let lease = cache.lease(&keys, wait)?;
        for (index, ((_, result), (_, into))) in lease.results().zip(blocks).enumerate() {
            results.push(match result {
                BlockResult::Ready { .. } => match lease.scatter_to(index, into) {
                    Ok(()) => LoadResult::Ready,
                    Err(error) => {
                        tracing::debug!(%error, "a block that was there could not be loaded");
                        LoadResult::of(&error)
                    }
                },
                BlockResult::Late => LoadResult::Late,
                BlockResult::Gone => LoadResult::Gone,
                BlockResult::Corrupt => LoadResult::Corrupt,
            });
        }
    }
    Ok(results)
}

/// Stores blocks; one result a block, in order. Those of one chain come in order. With a `ttl` they live
/// no longer.
///
/// # Errors
/// When the daemon cannot be reached or refuses a request as a whole.
pub fn store(
    cache: &Cache,
    blocks: &[(Link, Spans)],
    ttl: Option<Duration>,
) -> Result<Vec<Stored>, Error> {
    let blocks: Vec<(Link, &Spans)> = blocks.iter().map(|(link, from)| (*link, from)).collect();
    cache.store_spans(&blocks, ttl)
}
