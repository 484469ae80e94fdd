use std::io::{self, Write as _};

use proptest::prelude::*;

use super::*;
use crate::checksum::crc64;
use crate::checksum::tests::{noise, reference};

const FENCE: u8 = 0xA5;
const MARGIN_BYTES: usize = 256;

/// Runs `copier` between chosen alignments, and checks every byte of the destination and around.
fn check<T>(
    len: usize,
    src_shift: usize,
    dst_shift: usize,
    copier: impl FnOnce(*const u8, *mut u8) -> T,
) -> T {
    let src = noise(len + src_shift);
    let src = &src[src_shift..];
    let mut room = vec![FENCE; len + 2 * MARGIN_BYTES + 128];
    let at = MARGIN_BYTES + room[MARGIN_BYTES..].as_ptr().align_offset(64) + dst_shift;
    let answer = copier(src.as_ptr(), room[at..at + len].as_mut_ptr());
    assert!(room[at..at + len] == *src, "length {len}, shifts {src_shift} and {dst_shift}");
    let around = room[..at].iter().chain(&room[at + len..]);
    assert!(around.into_iter().all(|byte| *byte == FENCE), "wrote outside of {len} bytes");
    answer
}

/// The paths this CPU has; says loudly which ones it lacks.
fn paths() -> Vec<Path> {
    let (here, absent): (Vec<_>, Vec<_>) = Path::ALL.iter().partition(|path| path.available());
    for path in absent {
        let _ = writeln!(io::stderr(), "skipped: this CPU has no {path:?}");
    }
    here
}

fn can_fuse() -> bool {
    #[cfg(target_arch = "x86_64")]
    let able = fold::available();
    #[cfg(not(target_arch = "x86_64"))]
    let able = false;
    if !able {
        let _ = writeln!(io::stderr(), "skipped: this CPU has no AVX-512 with VPCLMULQDQ");
    }
    able
}

/// Every way to copy and sum, forced.
fn check_all(paths: &[Path], fuse: bool, len: usize, src_shift: usize, dst_shift: usize) {
    for path in paths {
        // SAFETY: `check` hands over separate ranges of `len` bytes; the path is available.
        check(len, src_shift, dst_shift, |src, dst| unsafe {
            path.stream(&[Piece { src, dst, len }], None);
            path.fence();
        });
    }
    let expected = reference(&noise(len + src_shift)[src_shift..]);
    assert_eq!(crc64(&noise(len + src_shift)[src_shift..]), expected);
    for streamed in [false, true] {
        for path in paths {
            // SAFETY: as above.
            let sum = check(len, src_shift, dst_shift, |src, dst| unsafe {
                let state = in_blocks(*path, !0, src, dst, len, streamed);
                path.fence();
                !state
            });
            assert_eq!(sum, expected, "{path:?}, streamed {streamed}, length {len}");
        }
        #[cfg(target_arch = "x86_64")]
        if fuse {
            // SAFETY: as above.
            let sum = check(len, src_shift, dst_shift, |src, dst| unsafe {
                let mut digest = CopyDigest { state: !0, streamed };
                digest.copy(src, dst, len);
                digest.finish()
            });
            assert_eq!(sum, expected, "fused, streamed {streamed}, length {len}");
        }
    }
}

#[test]
fn every_short_length_on_every_path() {
    let (paths, fuse) = (paths(), can_fuse());
    for len in 0..700 {
        check_all(&paths, fuse, len, len % 7, len % 64);
    }
}

#[test]
fn both_sides_of_the_threshold() {
    for len in [STREAM_BYTES_MIN - 1, STREAM_BYTES_MIN, STREAM_BYTES_MIN + 4097] {
        // SAFETY: `check` hands over separate ranges of `len` bytes.
        check(len, 1, 3, |src, dst| unsafe { copy(src, dst, len) });
        // SAFETY: as above.
        let sum = check(len, 5, 0, |src, dst| unsafe { copy_checksum(src, dst, len) });
        assert_eq!(sum, reference(&noise(len + 5)[5..]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Pieces one after the other in a source and, with gaps, in a destination.
    #[test]
    fn a_batch_copies_every_piece_and_nothing_else(
        pieces in prop::collection::vec((0usize..3000, 0usize..200), 0..30),
        total in prop_oneof![Just(0), Just(u64::MAX)],
    ) {
        let src = noise(pieces.iter().map(|piece| piece.0).sum());
        let room = pieces.iter().map(|piece| piece.0 + piece.1).sum();
        let (mut expected, mut dst) = (vec![FENCE; room], vec![FENCE; room]);
        let mut batch = Batch::new(total);
        let (mut from, mut to) = (0, 0);
        for &(len, gap) in &pieces {
            to += gap;
            expected[to..to + len].copy_from_slice(&src[from..from + len]);
            // SAFETY: the ranges lie in the two vectors, which outlive the batch.
            unsafe { batch.add(src.as_ptr().add(from), dst.as_mut_ptr().add(to), len) };
            from += len;
            to += len;
        }
        drop(batch);
        prop_assert!(dst == expected);
    }

    #[test]
    fn any_length_and_alignment(len in 0usize..5000, src in 0usize..64, dst in 0usize..64) {
        check_all(&paths(), can_fuse(), len, src, dst);
    }
}
