//! One tenant's memory, and the extents handed out of it.

pub mod extents;

use std::sync::Arc;

use tranship_transport::checksum::{crc64, crc64_raw};
use tranship_transport::memory::Memory;

pub use extents::{Extent, Extents, footprint};

/// CRC-64/NVMe of bytes in private memory.
pub fn checksum(bytes: &[u8]) -> u64 {
    crc64(bytes)
}

/// The bytes of an arena, shared by the store and everything that holds blocks of it in place.
///
/// Engines map the same memory, so no reference to its bytes is ever made: they are copied in and
/// out.
#[derive(Clone)]
pub struct Arena(Arc<Memory>);

impl Arena {
    /// An arena over `memory`.
    pub fn new(memory: impl Into<Arc<Memory>>) -> Self {
        Self(memory.into())
    }

    /// The memory, to be passed to the processes that may map it.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.0
    }

    /// Bytes of the arena.
    pub fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// True for an arena without bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// CRC-64/NVMe of `len` bytes at `offset`, as they are right now.
    ///
    /// # Panics
    /// When the range leaves the arena.
    pub fn checksum(&self, offset: u64, len: u64) -> u64 {
        let end = offset.checked_add(len);
        assert!(
            end.is_some_and(|end| end <= self.len()),
            "{len} bytes at {offset} leave the arena"
        );
        #[expect(unsafe_code, reason = "checked where they lie, at the speed of memory")]
        // SAFETY: the range is inside the memory, which lives as long as `self`.
        unsafe {
            crc64_raw(self.0.as_ptr().add(offset as usize), len as usize)
        }
    }

    /// Copies bytes out; the range is inside the arena because a block's extent is.
    pub(crate) fn read(&self, offset: u64, bytes: &mut [u8]) {
        let read = self.0.read_at(offset as usize, bytes);
        read.expect("an extent lies inside its arena");
    }

    /// Copies bytes in; the range is inside the arena because a block's extent is.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) {
        let written = self.0.write_at(offset as usize, bytes);
        written.expect("an extent lies inside its writable arena");
    }
}

impl std::fmt::Debug for Arena {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arena").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tranship_transport::memory::HostMemory;

    #[test]
    fn the_checksum_is_crc64_nvme_of_the_range() {
        // Check value of the catalogue of parametrised CRC algorithms.
        assert_eq!(checksum(b"123456789"), 0xae8b_1486_0a79_9888);
        let arena = Arena::new(HostMemory::new(100_000).build().unwrap());
        let bytes: Vec<u8> = (0..50_000_u32).map(|n| (n * 7) as u8).collect();
        arena.write(11, &bytes);
        assert_eq!(arena.checksum(11, 50_000), checksum(&bytes));
        assert_eq!(arena.checksum(20, 9), checksum(&bytes[9..18]));
        assert_eq!(arena.checksum(20, 0), checksum(b""));
    }
}
