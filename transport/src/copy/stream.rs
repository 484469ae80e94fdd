//! Copies with non-temporal stores. The caller ends with `sfence`.
//!
//! Nothing is prefetched: on Zen 5 no distance or hint tried beat the hardware by more than noise,
//! and interleaving several pages cost a quarter of the speed.

use std::arch::x86_64::*;

/// Registers in flight.
const UNROLL: usize = 4;

/// A streaming copy with registers of one width: the head up to an aligned destination and what is
/// less than a step in the end go the ordinary way.
macro_rules! streaming_copy {
    ($(#[$doc:meta])* $name:ident, $feature:literal, $register:ty, $load:ident, $stream:ident) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// The CPU has the feature. `src` is valid for reads and `dst` for writes of `len` bytes,
        /// and they do not overlap.
        #[target_feature(enable = $feature)]
        pub(super) unsafe fn $name(src: *const u8, dst: *mut u8, len: usize) {
            const REGISTER_BYTES: usize = size_of::<$register>();
            const STEP_BYTES: usize = UNROLL * REGISTER_BYTES;
            let mut at = dst.align_offset(64).min(len);
            // SAFETY: `at` is at most `len`.
            unsafe { src.copy_to_nonoverlapping(dst, at) };
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
            // SAFETY: `len - at` bytes are left.
            unsafe { src.add(at).copy_to_nonoverlapping(dst.add(at), len - at) };
        }
    };
}

streaming_copy!(
    /// 256 bytes a step.
    avx512, "avx512f", __m512i, _mm512_loadu_si512, _mm512_stream_si512
);
streaming_copy!(
    /// 128 bytes a step.
    avx2, "avx2", __m256i, _mm256_loadu_si256, _mm256_stream_si256
);
