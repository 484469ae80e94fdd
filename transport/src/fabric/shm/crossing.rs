//! A copy from or into a peer's window, one bounded chunk at a time, under the fence of `hazard`.

use std::sync::Arc;

use super::connection::Connection;
use super::control::Theirs;
use super::hazard;
use crate::copy;
use crate::memory::Memory;
use crate::window::WindowId;

/// What one claim of a window covers at most; the last chunk takes half as much with it. Larger
/// than where copies begin to stream, small enough that a fence or a deadline waits some 100 µs.
pub(super) const CHUNK_BYTES: u64 = 512 << 10;

/// Copies `len` bytes as copying thread `copier`, unless the window was shut: then `false`.
///
/// # Safety
/// `src` is valid for reads and `dst` for writes of `len` bytes, one of them in the window's
/// mapping, and they do not overlap. No other thread is `copier`.
#[inline]
pub(super) unsafe fn copy_chunk(
    connection: &Connection,
    control: &Theirs,
    window: WindowId,
    copier: usize,
    (src, dst, len): (*const u8, *mut u8, usize),
) -> bool {
    let hazard = connection.hazard(copier);
    let open = hazard::enter(
        hazard,
        hazard::claim(window),
        control.stamp(window.slot),
        hazard::stamp(window),
    );
    if open {
        // SAFETY: passed on from the caller.
        unsafe { copy::copy(src, dst, len) };
        hazard::leave(hazard);
    }
    open
}

/// A window being crossed by a large copy, and what has to stay mapped meanwhile.
#[derive(Debug)]
pub(super) struct Crossing {
    pub(super) connection: Connection,
    pub(super) control: Arc<Theirs>,
    pub(super) window: WindowId,
    /// The mapping of the peer's region.
    pub(super) _mapping: Arc<Memory>,
}

/// A part of a large copy.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Which job's.
    pub(super) job: u64,
    pub(super) crossing: Arc<Crossing>,
    pub(super) src: *const u8,
    pub(super) dst: *mut u8,
    pub(super) len: u64,
}

// SAFETY: the job that a chunk belongs to keeps both memories alive until the chunk has come back.
unsafe impl Send for Chunk {}

impl Chunk {
    /// Does it; `false`, and nothing was copied, if the window was shut.
    ///
    /// # Safety
    /// As for [`copy_chunk`].
    pub(super) unsafe fn copy(&self, copier: usize) -> bool {
        let Crossing { connection, control, window, .. } = &*self.crossing;
        // SAFETY: passed on from the caller.
        unsafe {
            copy_chunk(
                connection,
                control,
                *window,
                copier,
                (self.src, self.dst, self.len as usize),
            )
        }
    }
}
