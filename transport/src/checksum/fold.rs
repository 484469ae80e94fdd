//! CRC-64/NVMe by carry-less multiplication on AVX-512, storing the bytes on the way.
//!
//! Method: V. Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ
//! Instruction", Intel, 2009. A 128-bit piece of the message that lies `d` bits before another is
//! congruent to itself times x^d, so it is multiplied by x^d mod P and added to the other one.
//! Four registers of four pieces each do that side by side, 256 bytes a step; what remains in the
//! end is 16 bytes congruent to the whole message, and Barrett's reduction makes them the register.
//!
//! The loads are not prefetched by software: on Zen 5 no distance tried was faster over all sizes.
//! With four registers the storing pass runs within a few percent of the bare streaming copy.
//!
//! A product of two reflected 64-bit factors comes out one bit low, which is a factor of x: the
//! constants are x^(d-1).

use std::arch::x86_64::*;

use super::table;

/// Store nothing: a checksum only.
pub(crate) const NOWHERE: u8 = 0;
/// Store through the caches.
pub(crate) const CACHED: u8 = 1;
/// Store around the caches; needs an `sfence` afterwards.
pub(crate) const STREAMED: u8 = 2;

const PIECE_BYTES: usize = 16;
const LINE_BYTES: usize = 64;
const STEP_BYTES: usize = 4 * LINE_BYTES;

/// Multipliers that move the first and the second half of a piece `bits` ahead.
const fn multipliers(bits: u32) -> [i64; 2] {
    [table::power_of_x(bits + 64 - 1) as i64, table::power_of_x(bits - 1) as i64]
}

const BY_PIECE: [i64; 2] = multipliers(8 * PIECE_BYTES as u32);
const BY_LINE: [i64; 2] = multipliers(8 * LINE_BYTES as u32);
const BY_STEP: [i64; 2] = multipliers(8 * STEP_BYTES as u32);

const BY_128: i64 = table::power_of_x(128 - 1) as i64;
const BARRETT: u64 = table::barrett();

/// Whether this CPU can run [`advance`].
pub(crate) fn available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("vpclmulqdq")
        && is_x86_feature_detected!("pclmulqdq")
}

/// Advances the bare register over `len` bytes at `src` and stores them to `dst`, as `STORE` says.
/// Each byte is loaded once, so the result is that of the bytes stored, even if `src` changes.
///
/// # Safety
/// The CPU is [`available`]. `src` is valid for reads of `len` bytes; `dst`, unless `STORE` is
/// [`NOWHERE`], is valid for writes of `len` bytes and does not overlap with `src`.
#[target_feature(enable = "avx512f,vpclmulqdq,pclmulqdq")]
pub(crate) unsafe fn advance<const STORE: u8>(
    mut state: u64,
    mut src: *const u8,
    mut dst: *mut u8,
    mut len: usize,
) -> u64 {
    if STORE == STREAMED {
        let head = dst.align_offset(LINE_BYTES).min(len);
        // SAFETY: `head` is at most `len`.
        unsafe {
            state = short::<STORE>(state, src, dst, head);
            src = src.add(head);
            dst = dst.wrapping_add(head);
        }
        len -= head;
    }
    if len < PIECE_BYTES {
        // SAFETY: passed on from the caller.
        return unsafe { short::<STORE>(state, src, dst, len) };
    }

    let mut sum = if len >= STEP_BYTES {
        let by_step = _mm512_broadcast_i32x4(pair(BY_STEP));
        // SAFETY: at least one step is left.
        let mut sums = unsafe { load_step::<STORE>(src, dst) };
        let first = _mm512_zextsi128_si512(_mm_cvtsi64_si128(state as i64));
        sums[0] = _mm512_xor_si512(sums[0], first);
        // Both pointers move, and nothing is counted beside them: with more arithmetic in the loop,
        // fewer lines are on their way from memory at once.
        let end = src.wrapping_add(len - len % STEP_BYTES);
        src = src.wrapping_add(STEP_BYTES);
        dst = dst.wrapping_add(STEP_BYTES);
        while src != end {
            // SAFETY: at least one step is left. `dst` may be null, and is not used then.
            let next = unsafe { load_step::<STORE>(src, dst) };
            for (sum, next) in sums.iter_mut().zip(next) {
                *sum = fold_line(*sum, by_step, next);
            }
            src = src.wrapping_add(STEP_BYTES);
            dst = dst.wrapping_add(STEP_BYTES);
        }
        len %= STEP_BYTES;
        let by_line = _mm512_broadcast_i32x4(pair(BY_LINE));
        let [first, second, third, fourth] = sums;
        let line = fold_line(first, by_line, second);
        let line = fold_line(line, by_line, third);
        let line = fold_line(line, by_line, fourth);
        let piece = fold_piece(_mm512_castsi512_si128(line), _mm512_extracti32x4_epi32(line, 1));
        let piece = fold_piece(piece, _mm512_extracti32x4_epi32(line, 2));
        fold_piece(piece, _mm512_extracti32x4_epi32(line, 3))
    } else {
        // SAFETY: at least one piece is left.
        let piece = unsafe { load_piece::<STORE>(src, dst) };
        // SAFETY: as above.
        src = unsafe { src.add(PIECE_BYTES) };
        dst = dst.wrapping_add(PIECE_BYTES);
        len -= PIECE_BYTES;
        _mm_xor_si128(piece, _mm_cvtsi64_si128(state as i64))
    };

    while len >= PIECE_BYTES {
        // SAFETY: at least one piece is left.
        unsafe {
            sum = fold_piece(sum, load_piece::<STORE>(src, dst));
            src = src.add(PIECE_BYTES);
        }
        dst = dst.wrapping_add(PIECE_BYTES);
        len -= PIECE_BYTES;
    }
    // SAFETY: `len` bytes are left.
    unsafe { short::<STORE>(reduce(sum), src, dst, len) }
}

/// The bare register after the 16 bytes of `sum`: Barrett's reduction, as the paper has it. A
/// table would cost up to 16 cache misses after every cold block.
#[inline]
#[target_feature(enable = "avx512f,vpclmulqdq,pclmulqdq")]
fn reduce(sum: __m128i) -> u64 {
    // The first half times x^128, the second half times x^64.
    let ahead = _mm_clmulepi64_si128::<0x00>(sum, pair([BY_128, 0]));
    let wide = _mm_xor_si128(ahead, _mm_srli_si128::<8>(sum));
    let [high, low] = halves(wide);
    let by_constants = pair([BARRETT as i64, table::POLYNOMIAL as i64]);
    let [product, _] = halves(_mm_clmulepi64_si128::<0x00>(wide, by_constants));
    let quotient = high ^ (product << 1);
    let quotient = _mm_cvtsi64_si128(quotient as i64);
    let [above, below] = halves(_mm_clmulepi64_si128::<0x10>(quotient, by_constants));
    low ^ ((below << 1) | (above >> 63))
}

#[inline]
#[target_feature(enable = "avx512f,vpclmulqdq,pclmulqdq")]
fn halves(piece: __m128i) -> [u64; 2] {
    [_mm_cvtsi128_si64(piece) as u64, _mm_cvtsi128_si64(_mm_unpackhi_epi64(piece, piece)) as u64]
}

/// Less than a line, by table.
///
/// # Safety
/// As for [`advance`]; `len` is less than [`LINE_BYTES`].
unsafe fn short<const STORE: u8>(state: u64, src: *const u8, dst: *mut u8, len: usize) -> u64 {
    let mut bytes = [0; LINE_BYTES];
    let bytes = &mut bytes[..len];
    // SAFETY: `bytes` is ours and `len` long; the rest is the caller's contract.
    unsafe {
        src.copy_to_nonoverlapping(bytes.as_mut_ptr(), len);
        if STORE != NOWHERE {
            dst.copy_from_nonoverlapping(bytes.as_ptr(), len);
        }
    }
    table::advance(state, bytes)
}

/// Loads and stores one step.
///
/// # Safety
/// As for [`advance`], with [`STEP_BYTES`] for `len`; `dst` is aligned to a line if streamed.
#[inline]
#[target_feature(enable = "avx512f,vpclmulqdq,pclmulqdq")]
unsafe fn load_step<const STORE: u8>(src: *const u8, dst: *mut u8) -> [__m512i; 4] {
    let mut lines = [_mm512_setzero_si512(); 4];
    for (index, line) in lines.iter_mut().enumerate() {
        let at = index * LINE_BYTES;
        // SAFETY: `at` plus a line is at most a step.
        unsafe {
            *line = _mm512_loadu_si512(src.add(at).cast());
            match STORE {
                STREAMED => _mm512_stream_si512(dst.add(at).cast(), *line),
                CACHED => _mm512_storeu_si512(dst.add(at).cast(), *line),
                _ => {}
            }
        }
    }
    lines
}

/// Loads and stores one piece.
///
/// # Safety
/// As for [`advance`], with [`PIECE_BYTES`] for `len`.
#[inline]
#[target_feature(enable = "avx512f,vpclmulqdq,pclmulqdq")]
unsafe fn load_piece<const STORE: u8>(src: *const u8, dst: *mut u8) -> __m128i {
    // SAFETY: passed on from the caller.
    unsafe {
        let piece = _mm_loadu_si128(src.cast());
        if STORE != NOWHERE {
            _mm_storeu_si128(dst.cast(), piece);
        }
        piece
    }
}

/// Moves the four pieces of `sum` ahead and adds `next`.
#[inline]
#[target_feature(enable = "avx512f,vpclmulqdq,pclmulqdq")]
fn fold_line(sum: __m512i, by: __m512i, next: __m512i) -> __m512i {
    const XOR3: i32 = 0x96;
    let first = _mm512_clmulepi64_epi128::<0x00>(sum, by);
    let second = _mm512_clmulepi64_epi128::<0x11>(sum, by);
    _mm512_ternarylogic_epi64::<XOR3>(first, second, next)
}

/// Moves `sum` one piece ahead and adds `next`.
#[inline]
#[target_feature(enable = "avx512f,vpclmulqdq,pclmulqdq")]
fn fold_piece(sum: __m128i, next: __m128i) -> __m128i {
    let by = pair(BY_PIECE);
    let first = _mm_clmulepi64_si128::<0x00>(sum, by);
    let second = _mm_clmulepi64_si128::<0x11>(sum, by);
    _mm_xor_si128(_mm_xor_si128(first, second), next)
}

#[inline]
#[target_feature(enable = "avx512f,vpclmulqdq,pclmulqdq")]
fn pair([first, second]: [i64; 2]) -> __m128i {
    _mm_set_epi64x(second, first)
}
