//! CRC-64/NVMe, the checksum that every block carries.
//!
//! The polynomial and conventions are those of the NVM Command Set Specification (64b Guard):
//! reflected, preset and inverted, check value of `123456789` = `0xAE8B14860A799888`.
//!
//! ```
//! use tranship_transport::checksum::{Crc64, crc64};
//!
//! assert_eq!(crc64(b"123456789"), 0xAE8B_1486_0A79_9888);
//! let mut digest = Crc64::new();
//! digest.update(b"12345");
//! digest.update(b"6789");
//! assert_eq!(digest.finish(), crc64(b"123456789"));
//! ```

#[cfg(target_arch = "x86_64")]
pub(crate) mod fold;
pub(crate) mod table;

use crc_fast::{CrcAlgorithm, Digest};

/// The checksum of `bytes`.
pub fn crc64(bytes: &[u8]) -> u64 {
    let mut digest = Crc64::new();
    digest.update(bytes);
    digest.finish()
}

/// The checksum of `len` bytes at `ptr`, which may be shared with other processes: if one of them
/// writes meanwhile, the result is some number that fails verification.
///
/// # Safety
/// `ptr` is valid for reads of `len` bytes.
pub unsafe fn crc64_raw(ptr: *const u8, len: usize) -> u64 {
    // SAFETY: passed on from the caller.
    !unsafe { advance(!0, ptr, len) }
}

/// A checksum taken piece by piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crc64 {
    state: u64,
}

impl Crc64 {
    /// The checksum of nothing yet.
    pub const fn new() -> Crc64 {
        Crc64 { state: !0 }
    }

    /// Appends `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        // SAFETY: a slice is valid for reads of its length.
        unsafe { self.update_raw(bytes.as_ptr(), bytes.len()) };
    }

    /// Appends `len` bytes at `ptr`; see [`crc64_raw`].
    ///
    /// # Safety
    /// `ptr` is valid for reads of `len` bytes.
    pub unsafe fn update_raw(&mut self, ptr: *const u8, len: usize) {
        // SAFETY: passed on from the caller.
        self.state = unsafe { advance(self.state, ptr, len) };
    }

    /// The checksum of what was appended so far; more may follow.
    pub const fn finish(&self) -> u64 {
        !self.state
    }
}

impl Default for Crc64 {
    fn default() -> Self {
        Self::new()
    }
}

/// Advances the bare register (neither preset nor inverted) over `len` bytes.
///
/// # Safety
/// `ptr` is valid for reads of `len` bytes.
pub(crate) unsafe fn advance(state: u64, ptr: *const u8, len: usize) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if fold::available() {
        // SAFETY: the CPU has what the kernel needs; it stores nothing, so it needs no destination.
        return unsafe {
            fold::advance::<{ fold::NOWHERE }>(state, ptr, std::ptr::null_mut(), len)
        };
    }
    // SAFETY: passed on from the caller.
    unsafe { advance_portable(state, ptr, len) }
}

/// [`advance`] on any CPU.
///
/// # Safety
/// `ptr` is valid for reads of `len` bytes.
pub(crate) unsafe fn advance_portable(state: u64, ptr: *const u8, len: usize) -> u64 {
    if len == 0 {
        return state;
    }
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc64Nvme, state);
    // SAFETY: valid for reads by the caller's contract. The bytes may change meanwhile; the
    // checksum only ever does arithmetic on what it loads.
    digest.update(unsafe { std::slice::from_raw_parts(ptr, len) });
    digest.get_state()
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, bit by bit.
    pub(crate) fn reference(bytes: &[u8]) -> u64 {
        !bytes.iter().fold(!0u64, |state, byte| {
            (0..8).fold(state ^ u64::from(*byte), |state, _| {
                (state >> 1) ^ if state & 1 == 1 { 0x9A6C_9329_AC4B_C9B5 } else { 0 }
            })
        })
    }

    /// Bytes without a pattern that a wrong fold could hide behind.
    pub(crate) fn noise(len: usize) -> Vec<u8> {
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        let next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        std::iter::repeat_with(next).take(len).collect()
    }

    #[test]
    fn standard_check_value() {
        assert_eq!(crc64(b"123456789"), 0xAE8B_1486_0A79_9888);
        assert_eq!(reference(b"123456789"), 0xAE8B_1486_0A79_9888);
        assert_eq!(crc64(b""), 0);
    }

    #[test]
    fn every_length_agrees_with_the_definition() {
        let bytes = noise(1300);
        for len in 0..bytes.len() {
            let expected = reference(&bytes[..len]);
            assert_eq!(crc64(&bytes[..len]), expected, "length {len}");
            // SAFETY: a slice is valid for reads of its length.
            let portable = unsafe { advance_portable(!0, bytes.as_ptr(), len) };
            assert_eq!(!portable, expected, "portable, length {len}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn pieces_make_the_whole(len in 0usize..5000, cut in 0usize..5000, shift in 0usize..64) {
            let bytes = noise(len + shift);
            let bytes = &bytes[shift..];
            let (head, tail) = bytes.split_at(cut.min(len));
            let mut digest = Crc64::new();
            digest.update(head);
            digest.update(tail);
            prop_assert_eq!(digest.finish(), reference(bytes));
        }

        #[test]
        fn any_flipped_bit_is_seen(len in 1usize..5000, at: proptest::sample::Index, bit in 0u8..8) {
            let mut bytes = noise(len);
            let before = crc64(&bytes);
            bytes[at.index(len)] ^= 1 << bit;
            prop_assert_ne!(crc64(&bytes), before);
        }
    }
}
