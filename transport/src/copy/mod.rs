//! The copy behind one-sided writes on one host, alone or with the checksum in the same pass.
//!
//! A large copy goes around the caches with non-temporal stores: the destination is not read
//! first, which saves a third of the memory traffic, and the caches keep what is in use. Such
//! stores are weakly ordered, so each copy that used them ends with `sfence`: a release store that
//! follows publishes the copied bytes like any others.

#[cfg(target_arch = "x86_64")]
mod stream;

use std::mem::{self, MaybeUninit};
use std::sync::LazyLock;

use crate::checksum;
#[cfg(target_arch = "x86_64")]
use crate::checksum::fold;

/// From here on copies stream. Measured on Zen 5, streaming moves cold, scattered blocks 40 %
/// faster from 64 KiB on, while a destination that is still in the second-level cache is written
/// up to five times slower, at the speed of memory. Blocks of a cache larger than any CPU's are
/// cold; what is small and used again, such as rings and staging buffers, stays below.
pub const STREAM_BYTES_MIN: usize = 64 << 10;
/// Shorter pieces of a batch are not streamed: most of their lines would be written in parts.
const STREAM_PIECE_BYTES_MIN: usize = 512;
/// Pieces of a batch that are copied in a row.
const BATCH_PIECES: usize = 32;
/// A block that stays in the first-level cache between its checksum and its copy.
const BLOCK_BYTES: usize = 8 << 10;

/// What is to be copied.
#[derive(Debug, Clone, Copy)]
struct Piece {
    src: *const u8,
    dst: *mut u8,
    len: usize,
}

/// How large copies are done on this CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    /// `memcpy`.
    Plain,
    /// Streaming with AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Streaming with AVX-512.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// The best path of this CPU.
static PATH: LazyLock<Path> = LazyLock::new(|| {
    let best_first = Path::ALL.iter().rev();
    best_first.copied().find(|path| path.available()).unwrap_or(Path::Plain)
});

impl Path {
    /// Worst first.
    const ALL: &[Path] = &[
        Path::Plain,
        #[cfg(target_arch = "x86_64")]
        Path::Avx2,
        #[cfg(target_arch = "x86_64")]
        Path::Avx512,
    ];

    fn available(self) -> bool {
        match self {
            Path::Plain => true,
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 => is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Path::Avx512 => is_x86_feature_detected!("avx512f"),
        }
    }

    /// Copies around the caches, where the path can; `fence` has to follow. What is `ahead` is
    /// copied later.
    ///
    /// # Safety
    /// As for [`copy`], for each piece, and the path is available.
    unsafe fn stream(self, pieces: &[Piece], ahead: Option<&Piece>) {
        // SAFETY: passed on from the caller.
        unsafe {
            match self {
                Path::Plain => {
                    for &Piece { src, dst, len } in pieces {
                        src.copy_to_nonoverlapping(dst, len);
                    }
                }
                #[cfg(target_arch = "x86_64")]
                Path::Avx2 => stream::avx2(pieces, ahead),
                #[cfg(target_arch = "x86_64")]
                Path::Avx512 => stream::avx512(pieces, ahead),
            }
        }
    }

    /// Orders what was streamed before the stores that follow.
    fn fence(self) {
        #[cfg(target_arch = "x86_64")]
        if self != Path::Plain {
            // SAFETY: SSE is part of x86-64.
            unsafe { std::arch::x86_64::_mm_sfence() };
        }
    }
}

/// Copies `len` bytes. Once it returns, a release store publishes them.
///
/// # Safety
/// `src` is valid for reads and `dst` for writes of `len` bytes, and they do not overlap. Either
/// may be memory shared with other processes; bytes that change meanwhile arrive torn.
pub unsafe fn copy(src: *const u8, dst: *mut u8, len: usize) {
    if len < STREAM_BYTES_MIN {
        // SAFETY: passed on from the caller.
        unsafe { src.copy_to_nonoverlapping(dst, len) };
    } else {
        // SAFETY: passed on from the caller; the path was chosen among the available ones.
        unsafe { PATH.stream(&[Piece { src, dst, len }], None) };
        PATH.fence();
    }
}

/// Copies of many pieces that are published together, with one fence for all.
#[derive(Debug)]
pub struct Batch {
    path: Path,
    /// Copied once there are many: see `stream` for why not one by one, and why no more of this is
    /// written than is used.
    waiting: [MaybeUninit<Piece>; BATCH_PIECES],
    /// How many there are, from the first on.
    count: usize,
    /// What comes after them.
    ahead: Option<Piece>,
}

impl Batch {
    /// For pieces of about `total` bytes together: whether they are cold, and worth streaming, is
    /// told by all of them and not by each.
    #[must_use]
    pub fn new(total: u64) -> Self {
        let path = if total < STREAM_BYTES_MIN as u64 { Path::Plain } else { *PATH };
        Self {
            path,
            waiting: [const { MaybeUninit::uninit() }; BATCH_PIECES],
            count: 0,
            ahead: None,
        }
    }

    /// Says what is copied after what was added, by whomever: its first bytes are fetched meanwhile.
    #[inline]
    pub(crate) fn look_ahead(&mut self, src: *const u8, dst: *mut u8, len: usize) {
        self.ahead = Some(Piece { src, dst, len });
    }

    /// Adds a piece. Once the batch is dropped it is copied, and a release store publishes it.
    ///
    /// # Safety
    /// As for [`copy`], until the batch is dropped.
    #[inline]
    pub unsafe fn add(&mut self, src: *const u8, dst: *mut u8, len: usize) {
        if len < STREAM_PIECE_BYTES_MIN {
            // SAFETY: passed on from the caller.
            return unsafe { src.copy_to_nonoverlapping(dst, len) };
        }
        self.waiting[self.count].write(Piece { src, dst, len });
        self.count += 1;
        if self.count == BATCH_PIECES {
            self.copy_waiting();
        }
    }

    /// Copies what was added and waits for its turn. It is not published yet.
    pub(crate) fn copy_waiting(&mut self) {
        let waiting = &self.waiting[..mem::take(&mut self.count)];
        // SAFETY: the first `count` were written.
        let pieces = unsafe { waiting.assume_init_ref() };
        // SAFETY: `add` took them on its caller's word; the path was chosen among the available
        // ones.
        unsafe { self.path.stream(pieces, self.ahead.take().as_ref()) };
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.copy_waiting();
        self.path.fence();
    }
}

/// Copies `len` bytes and returns their [`crc64`](checksum::crc64), in one pass over memory. Once
/// it returns, a release store publishes the bytes.
///
/// # Safety
/// As for [`copy`]. If `src` changes meanwhile, the checksum may not match what arrived.
pub unsafe fn copy_checksum(src: *const u8, dst: *mut u8, len: usize) -> u64 {
    let mut digest = CopyDigest::new(len);
    // SAFETY: passed on from the caller.
    unsafe { digest.copy(src, dst, len) };
    digest.finish()
}

/// [`copy_checksum`] of pieces that lie apart: one checksum of their bytes in the order they are copied.
#[derive(Debug)]
pub(crate) struct CopyDigest {
    state: u64,
    streamed: bool,
}

impl CopyDigest {
    /// For pieces of `total` bytes together; see [`Batch::new`].
    pub(crate) fn new(total: usize) -> Self {
        Self { state: !0, streamed: total >= STREAM_BYTES_MIN }
    }

    /// Copies a piece. It is not published before [`CopyDigest::finish`].
    ///
    /// # Safety
    /// As for [`copy`]. If `src` changes meanwhile, the checksum may not match what arrived.
    pub(crate) unsafe fn copy(&mut self, src: *const u8, dst: *mut u8, len: usize) {
        let streamed = self.streamed && len >= STREAM_PIECE_BYTES_MIN;
        // SAFETY: passed on from the caller, and what the CPU must be able to do is asked before.
        self.state = unsafe {
            #[cfg(target_arch = "x86_64")]
            if fold::available() {
                if streamed {
                    fold::advance::<{ fold::STREAMED }>(self.state, src, dst, len)
                } else {
                    fold::advance::<{ fold::CACHED }>(self.state, src, dst, len)
                }
            } else {
                in_blocks(*PATH, self.state, src, dst, len, streamed)
            }
            #[cfg(not(target_arch = "x86_64"))]
            in_blocks(*PATH, self.state, src, dst, len, streamed)
        };
    }

    /// Orders what was copied before the stores that follow, and tells the checksum.
    pub(crate) fn finish(self) -> u64 {
        #[cfg(target_arch = "x86_64")]
        if self.streamed {
            // SAFETY: SSE is part of x86-64.
            unsafe { std::arch::x86_64::_mm_sfence() };
        }
        !self.state
    }
}

/// Each block is summed, which brings it near, and then copied; the bare register afterwards.
///
/// # Safety
/// As for [`copy`], and the path is available.
unsafe fn in_blocks(
    path: Path,
    mut state: u64,
    src: *const u8,
    dst: *mut u8,
    len: usize,
    streamed: bool,
) -> u64 {
    for at in (0..len).step_by(BLOCK_BYTES) {
        let block = BLOCK_BYTES.min(len - at);
        // SAFETY: the block is within `len`.
        unsafe {
            let (src, dst) = (src.add(at), dst.add(at));
            state = checksum::advance_portable(state, src, block);
            if streamed {
                path.stream(&[Piece { src, dst, len: block }], None);
            } else {
                src.copy_to_nonoverlapping(dst, block);
            }
        }
    }
    state
}

#[cfg(test)]
mod tests;
