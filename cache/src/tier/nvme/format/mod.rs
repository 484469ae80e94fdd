//! What is on the device, page by page; `docs/nvme-format.md` gives it byte by byte.
//!
//! ```text
//! | head: superblock, its copy | index log: two halves | segment 0 | segment 1 | …
//! segment: | frame | frame | … free … | summary |
//! frame:   | header page(s) | payload | payload | …
//! ```
//!
//! Everything is little-endian. Each header, summary and page of the log carries the store's UUID, the
//! life (sequence) of its segment or log, and a CRC-64; headers and pages of the log are chained to
//! the one before them, so that what an earlier life left behind never counts. Decoders take bytes
//! from strangers: they never panic, and allocate no more than the bytes they are given warrant.

pub(crate) mod frame;
pub(crate) mod layout;
pub(crate) mod log;
pub(crate) mod record;
pub(crate) mod summary;
pub(crate) mod sums;
pub(crate) mod superblock;

#[cfg(test)]
mod tests;

use std::fmt;

pub(crate) use layout::Layout;
pub(crate) use record::Entry;

/// Bytes of a page, for arithmetic in memory.
pub(crate) const PAGE: usize = super::disk::PAGE_BYTES as usize;

/// The version of all that is described here.
pub const FORMAT_VERSION: u16 = 1;

/// Names a store: what belongs to another one is foreign.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Uuid(pub [u8; 16]);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uuid({self})")
    }
}

/// Whether nothing was ever written there.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(PAGE).all(|some| *some == [0; PAGE][..some.len()])
}

/// Puts the CRC-64 of `bytes`, taken with zeroes in its own place, at `at`.
pub(crate) fn seal(bytes: &mut [u8], at: usize) -> u64 {
    bytes[at..at + 8].fill(0);
    let sum = tranship_transport::checksum::crc64(bytes);
    bytes[at..at + 8].copy_from_slice(&sum.to_le_bytes());
    sum
}

/// The CRC-64 at `at`, if it is that of `bytes`.
pub(crate) fn sealed(bytes: &[u8], at: usize) -> Option<u64> {
    let stored = bytes.get(at..at + 8)?;
    let mut digest = tranship_transport::checksum::Crc64::new();
    digest.update(&bytes[..at]);
    digest.update(&[0; 8]);
    digest.update(&bytes[at + 8..]);
    (digest.finish().to_le_bytes() == stored).then_some(digest.finish())
}
