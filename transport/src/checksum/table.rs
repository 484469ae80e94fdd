//! CRC-64/NVMe by table, eight bytes at a time, and the constants computed from the polynomial.
//!
//! A register holds a polynomial over GF(2) reflected: bit 63 is the coefficient of x⁰.

/// The polynomial without its leading term, reflected.
pub(crate) const POLYNOMIAL: u64 = 0x9A6C_9329_AC4B_C9B5;

/// `TABLES[k][b]`: byte `b` followed by `k` zero bytes, from an empty register.
static TABLES: [[u64; 256]; 8] = tables();

/// `value` times x, modulo the polynomial.
const fn times_x(value: u64) -> u64 {
    (value >> 1) ^ if value & 1 == 1 { POLYNOMIAL } else { 0 }
}

/// x to the power of `exponent`, modulo the polynomial.
pub(crate) const fn power_of_x(exponent: u32) -> u64 {
    let mut value = 1 << 63;
    let mut done = 0;
    while done < exponent {
        value = times_x(value);
        done += 1;
    }
    value
}

/// x^128 divided by the polynomial, without the leading term x^64: Barrett's constant.
pub(crate) const fn barrett() -> u64 {
    let mut quotient = 0;
    let mut remainder = POLYNOMIAL;
    let mut digit = 0;
    while digit < 64 {
        quotient |= (remainder & 1) << digit;
        remainder = times_x(remainder);
        digit += 1;
    }
    quotient
}

const fn tables() -> [[u64; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut value = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            value = times_x(value);
            bit += 1;
        }
        tables[0][byte] = value;
        byte += 1;
    }
    let mut zeros = 1;
    while zeros < 8 {
        let mut byte = 0;
        while byte < 256 {
            let shorter = tables[zeros - 1][byte];
            tables[zeros][byte] = (shorter >> 8) ^ tables[0][(shorter & 0xFF) as usize];
            byte += 1;
        }
        zeros += 1;
    }
    tables
}

/// Advances the bare register over `bytes`.
pub(crate) fn advance(state: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let state = words.iter().fold(state, |state, word| {
        let mixed = (state ^ u64::from_le_bytes(*word)).to_le_bytes();
        (0..8).fold(0, |sum, at| sum ^ TABLES[7 - at][usize::from(mixed[at])])
    });
    rest.iter().fold(state, |state, byte| (state >> 8) ^ TABLES[0][usize::from(state as u8 ^ byte)])
}
