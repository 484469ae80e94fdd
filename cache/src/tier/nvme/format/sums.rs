//! Checksums of the chunks of a block, and how they make that of the whole.

use tranship_transport::checksum::crc64;

use crate::tier::Span;

/// Bytes of a block that are checked on their own.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;

/// The polynomial of CRC-64/NVMe, reflected.
const POLYNOMIAL: u64 = 0x9A6C_9329_AC4B_C9B5;

/// Chunks of a block.
pub(crate) const fn chunks(len: usize) -> usize {
    len.div_ceil(CHUNK_BYTES)
}

/// Chunk checksums that are stored: none for a block of one chunk, whose own says it.
pub(crate) const fn stored(len: usize) -> usize {
    let chunks = chunks(len);
    if chunks > 1 { chunks } else { 0 }
}

/// The checksum of each chunk.
pub(crate) fn of_chunks(span: &Span) -> Vec<u64> {
    let ends = (0..span.len()).step_by(CHUNK_BYTES);
    ends.map(|at| span.slice(at..span.len().min(at + CHUNK_BYTES)).checksum()).collect()
}

/// The checksum of a block of `len` bytes whose chunks have these.
pub(crate) fn of_whole(chunks: &[u64], len: usize) -> u64 {
    let Some((first, others)) = chunks.split_first() else { return crc64(&[]) };
    let full = power(CHUNK_BYTES as u64);
    let last = power((len - (chunks.len() - 1) * CHUNK_BYTES) as u64);
    let mut whole = *first;
    for (at, chunk) in others.iter().enumerate() {
        let by = if at + 1 == others.len() { last } else { full };
        whole = times(whole, by) ^ chunk;
    }
    whole
}

/// x to the power of `8 * bytes`, modulo the polynomial; the highest power is the lowest bit.
fn power(bytes: u64) -> u64 {
    let (mut result, mut square, mut left) = (1 << 63, 1 << 55, bytes);
    while left > 0 {
        if left & 1 == 1 {
            result = times(result, square);
        }
        square = times(square, square);
        left >>= 1;
    }
    result
}

/// The product of two polynomials, modulo the polynomial.
fn times(a: u64, mut b: u64) -> u64 {
    let mut product = 0;
    for bit in (0..64).rev() {
        if a >> bit & 1 == 1 {
            product ^= b;
        }
        b = b >> 1 ^ if b & 1 == 1 { POLYNOMIAL } else { 0 };
    }
    product
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tranship_transport::memory::HostMemory;

    use super::*;

    #[test]
    fn chunks_make_the_whole() {
        for len in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, 200_001] {
            let bytes: Vec<u8> = (0..len).map(|at| (at * 7 + at / 251) as u8).collect();
            let span = Span::whole(Arc::new(HostMemory::new(len).build().unwrap()));
            span.write_at(0, &bytes);
            let sums = of_chunks(&span);
            assert_eq!(sums.len(), chunks(len));
            assert_eq!(of_whole(&sums, len), crc64(&bytes), "{len} bytes");
        }
    }
}
