//! Static limits. What exceeds one is refused with a message that names it.

use crate::time::Millis;

/// Longest string in an identity (model, revision, …), bytes.
pub const IDENTITY_STRING_BYTES_MAX: usize = 512;

/// Longest canonical encoding of an identity, bytes: version, six strings with lengths, eight integers.
pub const IDENTITY_BYTES_MAX: usize = 1 + 6 * (2 + IDENTITY_STRING_BYTES_MAX) + 8 * 4;

/// Unit of arena space, bytes; every extent starts and ends on a multiple of it.
pub const GRANULE_BYTES: u64 = 4096;

/// Largest block, bytes.
pub const BLOCK_BYTES_MAX: u64 = 4 << 30;

/// Identities that one tenant may have registered at the same time.
pub const SCOPES_MAX: usize = 1024;

/// Tenants that one store may have open.
pub const TENANTS_MAX: usize = 1024;

/// Requests that may wait for one block to be filled.
pub const WAITERS_MAX: usize = 1024;

/// Room for one block is made by evicting at most this many times its size; beyond that the space
/// is too fragmented, and the request is refused rather than the cache emptied.
pub const EVICT_FACTOR_MAX: u64 = 8;

/// Blocks that an admin operation visits before it lets go of the lock.
pub const SCAN_BLOCKS: usize = 1024;

/// Advice to a refused client when nothing with a deadline stands in its way.
pub const RETRY_DEFAULT: Millis = Millis(10);

/// Advice to a client whose space is freed by blocks that are on their way to a tier below.
pub const RETRY_DEMOTING: Millis = Millis(2);

/// Longest advice to a refused client.
pub const RETRY_MAX: Millis = Millis(1000);
