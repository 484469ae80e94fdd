//! What is in the bucket, byte by byte: `docs/object-format.md`.
//!
//! Everything here is read back from a service that others write to as well, so decoders never panic,
//! never allocate more than they were given, and check a checksum before they believe a field.

mod entry;
mod head;
mod manifest;
mod pack;
#[cfg(test)]
mod tests;

pub use entry::{ENTRY_BYTES, Listed};
pub use head::{Chunk, Head, chunks_of, head_bytes};
pub use manifest::{Listing, Manifest};
pub use pack::{Footer, PACK_START, TRAILER_BYTES, Trailer};

use crate::wire::Malformed;

/// Original bytes of a chunk; the last one of a block may be shorter.
pub const CHUNK_BYTES: u64 = 64 << 10;

/// Longest name of a node, bytes.
pub const NODE_BYTES_MAX: usize = 64;

/// The version of all of them.
const VERSION: u16 = 1;

/// Why bytes of the bucket are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A field is.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// They are something else.
    #[error("it does not begin or end as {0} does")]
    Magic(&'static str),
    /// They are of a version that is not known here.
    #[error("it is of version {0}, this build reads version {VERSION}; use matching versions")]
    Version(u16),
    /// They changed since they were written.
    #[error("its checksum is wrong")]
    Checksum,
}

/// True for what may name a node: it becomes part of a path.
#[must_use]
pub fn is_node(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty()
        && name.len() <= NODE_BYTES_MAX
        && name.bytes().all(fits)
        && !name.starts_with('.')
}

/// Splits off the checksum at the end and compares it.
fn checked(bytes: &[u8]) -> Result<&[u8], Error> {
    let (body, sum) = bytes.split_last_chunk::<8>().ok_or(Error::Checksum)?;
    match crate::arena::checksum(body) == u64::from_le_bytes(*sum) {
        true => Ok(body),
        false => Err(Error::Checksum),
    }
}
