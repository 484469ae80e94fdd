//! A stretch of memory, named so that it stays mapped while a tier reads or fills it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use tranship_transport::memory::Memory;

/// Some bytes of a [`Memory`], which stays mapped for as long as the span lives.
///
/// A span says nothing of who may write to the bytes: whoever makes one for a tier to fill holds the
/// block's [`Reserved`](crate::Reserved), and whoever makes one for a tier to read its
/// [`Lease`](crate::Lease), until the tier has answered.
#[derive(Clone)]
pub struct Span {
    memory: Arc<Memory>,
    offset: usize,
    len: usize,
}

impl Span {
    /// The bytes `range` of `memory`.
    ///
    /// # Panics
    /// When the range leaves the memory, or that is a device's.
    #[must_use]
    pub fn new(memory: Arc<Memory>, range: Range<u64>) -> Self {
        let fits = range.start <= range.end && range.end <= memory.len() as u64;
        assert!(fits, "bytes {range:?} leave a memory of {} bytes", memory.len());
        assert!(memory.is_host(), "tiers copy to and from host memory, and this is a device's");
        let (offset, len) = (range.start as usize, (range.end - range.start) as usize);
        Self { memory, offset, len }
    }

    /// The whole of `memory`.
    #[must_use]
    pub fn whole(memory: Arc<Memory>) -> Self {
        let len = memory.len() as u64;
        Self::new(memory, 0..len)
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True for a span without bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The memory.
    #[must_use]
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// First byte in the memory.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Where the bytes are. What is behind the pointer may change at any time: others map it too.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.memory.as_ptr().wrapping_add(self.offset)
    }

    /// The bytes `range` of this span.
    ///
    /// # Panics
    /// When the range leaves the span.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        let fits = range.start <= range.end && range.end <= self.len;
        assert!(fits, "bytes {range:?} leave a span of {} bytes", self.len);
        let (offset, len) = (self.offset + range.start, range.end - range.start);
        Self { memory: Arc::clone(&self.memory), offset, len }
    }

    /// Copies `bytes` in, at byte `at` of the span.
    ///
    /// # Panics
    /// When they leave the span, or the memory is not writable.
    pub fn write_at(&self, at: usize, bytes: &[u8]) {
        let to = self.slice(at..at + bytes.len());
        to.memory.write_at(to.offset, bytes).expect("a span lies inside its writable memory");
    }

    /// Copies bytes out, from byte `at` of the span on.
    ///
    /// # Panics
    /// When they leave the span.
    pub fn read_at(&self, at: usize, bytes: &mut [u8]) {
        let from = self.slice(at..at + bytes.len());
        from.memory.read_at(from.offset, bytes).expect("a span lies inside its memory");
    }

    /// CRC-64/NVMe of the bytes as they are right now.
    #[must_use]
    pub fn checksum(&self) -> u64 {
        crate::arena::Arena::new(Arc::clone(&self.memory))
            .checksum(self.offset as u64, self.len as u64)
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Span").field("offset", &self.offset).field("len", &self.len).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tranship_transport::memory::HostMemory;

    #[test]
    fn slices_of_slices_stay_inside() {
        let memory = Arc::new(HostMemory::new(8192).build().unwrap());
        let span = Span::new(Arc::clone(&memory), 4096..4196);
        span.write_at(10, b"123456789");
        let part = span.slice(10..19);
        assert_eq!(part.checksum(), crate::arena::checksum(b"123456789"));
        assert_eq!((part.offset(), part.len()), (4106, 9));
        let mut bytes = [0; 3];
        part.slice(3..9).read_at(1, &mut bytes);
        assert_eq!(&bytes, b"567");
        let out = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| part.slice(3..10)));
        assert!(out.is_err());
    }
}
