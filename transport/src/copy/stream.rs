//! Copies with non-temporal stores. The caller ends with `sfence`.
//!
//! Within a piece nothing is prefetched: on Zen 5 no distance or hint tried beat the hardware by more
//! than noise, and interleaving several pages cost a quarter of the speed. From one piece to the next
//! the hardware does not look ahead, so the first lines of the next are fetched meanwhile.

use std::arch::x86_64::*;

use super::Piece;

/// Registers in flight.
const UNROLL: usize = 4;
/// How much of the next piece is fetched ahead. On an Intel Xeon with scattered pages, cold on both
/// sides, this moved 4 KiB pages 13 % faster and 16 KiB pages 4 %, as fast as one stretch or faster;
/// half as much helped less, twice as much no more.
const PREFETCH_BYTES: usize = 1 << 10;
/// A line of each base page of a longer piece is fetched as well, on both sides, which has their
/// addresses translated meanwhile: in a virtual machine each takes two walks of page tables. On an AMD
/// EPYC (Zen 4) a bare loop moved scattered 16 KiB pages at 0.70 of one stretch instead of 0.60 and
/// 64 KiB pages at 1.0 instead of 0.83; pages of 4 KiB stay at 0.6, whatever is fetched and when.
const BASE_PAGE_BYTES: usize = 4 << 10;
/// As many translations as are sure to be kept until they are used.
const TRANSLATED_BYTES_MAX: usize = 64 << 10;
const LINE_BYTES: usize = 64;

/// A streaming copy of pieces with registers of one width: the head up to an aligned destination and
/// what is less than a step in the end go the ordinary way. There is no call between the pieces:
/// what it stores on the stack waits behind the streamed lines, and loads whose addresses look alike
/// wait for it; that took up to a fifth of the speed.
macro_rules! streaming_copy {
    ($(#[$doc:meta])* $name:ident, $feature:literal, $register:ty, $load:ident, $stream:ident) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// The CPU has the feature. Of each piece, `src` is valid for reads and `dst` for writes of
        /// `len` bytes, and they do not overlap. What is `ahead` is only looked for.
        #[target_feature(enable = $feature)]
        pub(super) unsafe fn $name(pieces: &[Piece], ahead: Option<&Piece>) {
            const REGISTER_BYTES: usize = size_of::<$register>();
            const STEP_BYTES: usize = UNROLL * REGISTER_BYTES;
            let mut pieces = pieces.iter();
            let mut next = pieces.next();
            while let Some(&Piece { src, dst, len }) = next {
                next = pieces.next();
                if let Some(next) = next.or(ahead) {
                    prefetch(next);
                }
                let mut at = dst.align_offset(LINE_BYTES).min(len);
                if at > 0 {
                    // SAFETY: `at` is at most `len`.
                    unsafe { ordinary(src, dst, at) };
                }
                while len - at >= STEP_BYTES {
                    // SAFETY: at least one step is left at `at`, and `dst` is aligned there.
                    unsafe {
                        let from = src.add(at).cast::<$register>();
                        let to = dst.add(at).cast::<$register>();
                        let loaded: [$register; UNROLL] = [
                            $load(from),
                            $load(from.add(1)),
                            $load(from.add(2)),
                            $load(from.add(3)),
                        ];
                        for (index, value) in loaded.into_iter().enumerate() {
                            $stream(to.add(index), value);
                        }
                    }
                    at += STEP_BYTES;
                }
                if at < len {
                    // SAFETY: `len - at` bytes are left.
                    unsafe { ordinary(src.add(at), dst.add(at), len - at) };
                }
            }
        }
    };
}

/// Asks for the first lines of a piece, as far as the second-level cache: more of them are on their
/// way at once than the first level takes. And for a line of each base page of both sides.
#[inline]
fn prefetch(piece: &Piece) {
    let Piece { src, dst, len } = *piece;
    for at in (0..len.min(PREFETCH_BYTES)).step_by(LINE_BYTES) {
        prefetch_line(src.wrapping_add(at));
    }
    if len > BASE_PAGE_BYTES {
        for at in (0..len.min(TRANSLATED_BYTES_MAX)).step_by(BASE_PAGE_BYTES) {
            prefetch_line(src.wrapping_add(at));
            prefetch_line(dst.wrapping_add(at));
        }
    }
}

#[inline]
fn prefetch_line(at: *const u8) {
    // SAFETY: SSE is part of x86-64, and a prefetch faults at no address.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) };
}

/// # Safety
/// As for [`std::ptr::copy_nonoverlapping`].
#[cold]
unsafe fn ordinary(src: *const u8, dst: *mut u8, len: usize) {
    // SAFETY: passed on from the caller.
    unsafe { src.copy_to_nonoverlapping(dst, len) };
}

streaming_copy!(
    /// 256 bytes a step.
    avx512, "avx512f", __m512i, _mm512_loadu_si512, _mm512_stream_si512
);
streaming_copy!(
    /// 128 bytes a step.
    avx2, "avx2", __m256i, _mm256_loadu_si256, _mm256_stream_si256
);
