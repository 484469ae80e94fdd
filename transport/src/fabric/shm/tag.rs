//! What a window's table entry tells about its key: enough to check one, not enough to learn it.
//!
//! Every peer can read the table, but only who holds a descriptor may use the window. The entry
//! therefore holds a keyed hash of the window's name, SipHash-2-4 with the window's key as the key
//! (J.-P. Aumasson, D. J. Bernstein: "SipHash: a fast short-input PRF", 2012).

use crate::window::WindowId;

/// The tag of `window` under `key`.
pub(super) fn tag(key: u64, window: WindowId) -> u64 {
    let name = u64::from(window.slot) << 32 | u64::from(window.generation);
    siphash(key, key.rotate_left(32) ^ 0x7472_616e_7368_6970, name)
}

/// SipHash-2-4 of the eight bytes of `word`, little-endian.
fn siphash(k0: u64, k1: u64, word: u64) -> u64 {
    const WORD_BYTES: u64 = 8;
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    for block in [word, WORD_BYTES << 56] {
        v[3] ^= block;
        round(&mut v);
        round(&mut v);
        v[0] ^= block;
    }
    v[2] ^= 0xff;
    for _ in 0..4 {
        round(&mut v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The paper's test vector of eight bytes: key 00..0f, message 00..07.
    #[test]
    fn siphash_matches_the_reference() {
        let word = |first: u8| u64::from_le_bytes(std::array::from_fn(|i| first + i as u8));
        assert_eq!(siphash(word(0), word(8), word(0)), 0x93f5_f579_9a93_2462);
    }

    #[test]
    fn every_bit_of_the_key_counts() {
        let window = WindowId { slot: 3, generation: 9 };
        let right = tag(77, window);
        for bit in 0..64 {
            assert_ne!(tag(77 ^ 1 << bit, window), right);
        }
    }
}
