//! Memory of the caller's own in several pieces: where bulk moves gather from and scatter to.

use std::fmt;

use super::{Memory, MemoryError};
use crate::copy::CopyDigest;

/// One piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    at: *mut u8,
    len: usize,
}

/// Pieces of memory in the order of their bytes, such as the pages that one block has in the layers of a
/// KV cache. Pieces that touch are one.
///
/// Built by [`Spans::push`], whose caller vouches for the memory as long as the `Spans` are used.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Spans {
    pieces: Vec<Span>,
    len: usize,
}

// SAFETY: whoever pushed a piece vouched for its use from any thread.
unsafe impl Send for Spans {}
// SAFETY: as for `Send`.
unsafe impl Sync for Spans {}

impl Spans {
    /// No pieces yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { pieces: Vec::new(), len: 0 }
    }

    /// Adds `len` bytes at `at`.
    ///
    /// # Safety
    /// The bytes are valid for reads, and for writes if anything is scattered to them, from any thread, for
    /// as long as these spans or clones of them are used; and nobody holds Rust references to them while
    /// they are.
    pub unsafe fn push(&mut self, at: *mut u8, len: usize) {
        self.len += len;
        match self.pieces.last_mut() {
            Some(last) if last.at.wrapping_add(last.len) == at => last.len += len,
            _ if len == 0 => {}
            _ => self.pieces.push(Span { at, len }),
        }
    }

    /// All bytes together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many pieces.
    #[must_use]
    pub fn pieces(&self) -> usize {
        self.pieces.len()
    }
}

impl fmt::Debug for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spans({} bytes in {} pieces)", self.len, self.pieces.len())
    }
}

impl Memory {
    /// Gathers all bytes of `from` to `offset` and returns their CRC-64/NVMe, in one pass.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`], [`MemoryError::ReadOnly`], [`MemoryError::OnDevice`]; nothing was written.
    pub fn gather(&self, offset: usize, from: &Spans) -> Result<u64, MemoryError> {
        let at = self.writable(offset, from.len)?;
        let mut digest = CopyDigest::new(from.len);
        let mut done = 0;
        for span in &from.pieces {
            // SAFETY: the pieces are no longer than the `len` that was checked; whoever pushed the span
            // vouched for its bytes, which are the caller's own and no shared memory.
            unsafe { digest.copy(span.at, at.add(done), span.len) };
            done += span.len;
        }
        Ok(digest.finish())
    }

    /// Scatters the bytes at `offset` to all pieces of `to` and returns the CRC-64/NVMe of what was copied,
    /// in one pass; see [`Memory::copy_out`] for what a concurrent write means.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`], [`MemoryError::OnDevice`]; nothing was written.
    pub fn scatter(&self, offset: usize, to: &Spans) -> Result<u64, MemoryError> {
        let at = self.at(offset, to.len)?;
        let mut digest = CopyDigest::new(to.len);
        let mut done = 0;
        for span in &to.pieces {
            // SAFETY: as in `gather`, the other way round.
            unsafe { digest.copy(at.add(done), span.at, span.len) };
            done += span.len;
        }
        Ok(digest.finish())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::checksum::crc64;
    use crate::memory::HostMemory;

    /// Pieces of these lengths with a gap of `gap` bytes behind each.
    fn spans(bytes: &mut [u8], lens: &[usize], gap: usize) -> (Spans, Vec<std::ops::Range<usize>>) {
        let (mut spans, mut ranges, mut at) = (Spans::new(), Vec::new(), 0);
        for len in lens {
            // SAFETY: the tests use the bytes through the spans only while nobody else does.
            unsafe { spans.push(bytes.as_mut_ptr().add(at), *len) };
            ranges.push(at..at + len);
            at += len + gap;
        }
        (spans, ranges)
    }

    proptest! {
        #[test]
        fn gathered_and_scattered_bytes_are_those_of_the_pieces(
            lens in prop::collection::vec(0..40_000_usize, 0..8),
            gap in 0..3_usize,
        ) {
            let total: usize = lens.iter().sum();
            let room = total + lens.len() * gap + 1;
            let mut bytes: Vec<u8> = (0..room).map(|i| ((i * 131) >> 3) as u8).collect();
            let (from, ranges) = spans(&mut bytes, &lens, gap);
            let whole: Vec<u8> = ranges.iter().flat_map(|r| bytes[r.clone()].to_vec()).collect();
            let memory = HostMemory::new(total + 64).build().unwrap();
            prop_assert_eq!(from.len(), total);
            prop_assert_eq!(memory.gather(17, &from).unwrap(), crc64(&whole));
            prop_assert_eq!(memory.checksum(17, total).unwrap(), crc64(&whole));

            let mut back = vec![0xAA; room];
            let (to, ranges) = spans(&mut back, &lens, gap);
            prop_assert_eq!(memory.scatter(17, &to).unwrap(), crc64(&whole));
            let mut expected = vec![0xAA; room];
            for range in ranges {
                expected[range.clone()].copy_from_slice(&bytes[range]);
            }
            prop_assert_eq!(back, expected);
        }
    }

    #[test]
    fn pieces_that_touch_are_one_and_bounds_hold() {
        let mut bytes = vec![1; 100];
        let (spans, _) = spans(&mut bytes, &[10, 0, 20, 30], 0);
        assert_eq!((spans.pieces(), spans.len()), (1, 60));
        let memory = HostMemory::new(64).build().unwrap();
        assert!(memory.gather(5, &spans).is_err());
        assert!(memory.scatter(5, &spans).is_err());
        assert!(memory.gather(4, &spans).is_ok());
    }
}
