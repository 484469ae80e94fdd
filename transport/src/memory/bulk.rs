//! Bulk moves between shared memory and memory of the caller's own, checked on the way.

use super::{Memory, MemoryError};
use crate::checksum::crc64_raw;
use crate::copy::copy_checksum;

impl Memory {
    /// Copies `bytes` to `offset` and returns their CRC-64/NVMe, in one pass.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`], [`MemoryError::ReadOnly`], [`MemoryError::OnDevice`]; nothing was written.
    pub fn copy_in(&self, offset: usize, bytes: &[u8]) -> Result<u64, MemoryError> {
        let at = self.writable(offset, bytes.len())?;
        // SAFETY: `at` is in bounds and writable for as many bytes; `bytes` is the caller's own, so
        // it does not overlap shared memory.
        Ok(unsafe { copy_checksum(bytes.as_ptr(), at, bytes.len()) })
    }

    /// Copies the bytes at `offset` to `bytes` and returns the CRC-64/NVMe of what was copied, in
    /// one pass. If somebody writes meanwhile the copy is torn, and the checksum is that of the
    /// copy or of some other mix of old and new: comparing it with the right one tells.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`], [`MemoryError::OnDevice`]; `bytes` is unchanged.
    pub fn copy_out(&self, offset: usize, bytes: &mut [u8]) -> Result<u64, MemoryError> {
        let at = self.at(offset, bytes.len())?;
        // SAFETY: `at` is in bounds for as many bytes; `bytes` is the caller's own.
        Ok(unsafe { copy_checksum(at, bytes.as_mut_ptr(), bytes.len()) })
    }

    /// CRC-64/NVMe of `len` bytes at `offset`, as they are now.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`], [`MemoryError::OnDevice`].
    pub fn checksum(&self, offset: usize, len: usize) -> Result<u64, MemoryError> {
        let at = self.at(offset, len)?;
        // SAFETY: `at` is in bounds for `len` bytes.
        Ok(unsafe { crc64_raw(at, len) })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::checksum::crc64;
    use crate::memory::HostMemory;

    #[test]
    fn bulk_moves_carry_their_checksum() {
        let memory = HostMemory::new(300_000).build().unwrap();
        let bytes: Vec<u8> = (0..200_001u32).map(|i| (i * 31) as u8).collect();
        let sum = crc64(&bytes);
        assert_eq!(memory.copy_in(777, &bytes).unwrap(), sum);
        assert_eq!(memory.checksum(777, bytes.len()).unwrap(), sum);
        let mut back = vec![0; bytes.len()];
        assert_eq!(memory.copy_out(777, &mut back).unwrap(), sum);
        assert_eq!(back, bytes);
        assert!(memory.copy_in(100_000, &bytes).is_err());
        assert!(memory.copy_out(100_000, &mut back).is_err());
        assert!(memory.checksum(300_000, 1).is_err());
    }
}
