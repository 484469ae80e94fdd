//! A copy from or into a peer's window, one bounded chunk at a time, under the fence of `hazard`.

use std::sync::Arc;

use super::connection::Connection;
use super::control::Theirs;
use super::hazard;
use super::route::Route;
use crate::fabric::OpId;
use crate::memory::Memory;
use crate::window::WindowId;

/// What one claim of a window covers when the thread that polls copies; the last chunk takes half
/// as much with it. It bounds how long other threads of this engine wait for it.
pub(super) const POLLER_CHUNK_BYTES: u64 = 128 << 10;
/// After so much of a chunk the thread that polls looks whether something has arrived, and leaves the
/// rest for later if so. It bounds how long a peer's immediate waits.
pub(super) const LOOK_EVERY_BYTES: u64 = 16 << 10;
/// The same of a paged copy. Each look ends a row of pages fetched ahead: after every 16 KiB it cost
/// pages of 4 and of 16 KiB a fifth of their speed.
pub(super) const LOOK_EVERY_PAGED_BYTES: u64 = 64 << 10;
/// The same of the other copying threads: nothing but a fence or a deadline waits for them.
pub(super) const POOL_CHUNK_BYTES: u64 = 512 << 10;
/// The number of the copying thread that polls.
pub(super) const POLLER: usize = 0;

/// Claims a window as copying thread `copier` and copies, unless the window was shut: then `None`,
/// and `copy` was not called. No other thread is `copier`.
#[inline]
pub(super) fn cross<T>(
    connection: &Connection,
    control: &Theirs,
    window: WindowId,
    copier: usize,
    copy: impl FnOnce() -> T,
) -> Option<T> {
    let hazard = connection.hazard(copier);
    let open = hazard::enter(
        hazard,
        hazard::claim(window),
        control.stamp(window.slot),
        hazard::stamp(window),
    );
    open.then(|| {
        let copied = copy();
        hazard::leave(hazard);
        copied
    })
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

impl Crossing {
    /// See [`cross`].
    pub(super) fn cross<T>(&self, copier: usize, copy: impl FnOnce() -> T) -> Option<T> {
        cross(&self.connection, &self.control, self.window, copier, copy)
    }
}

/// A part of a large copy.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Whose.
    pub(super) op: OpId,
    pub(super) crossing: Arc<Crossing>,
    /// From its first byte on.
    pub(super) route: Route,
    pub(super) len: u64,
}

impl Chunk {
    /// Does it; `false`, and nothing was copied, if the window was shut.
    ///
    /// # Safety
    /// Both memories are valid; no other thread is `copier`.
    pub(super) unsafe fn copy(&mut self, copier: usize) -> bool {
        let route = &mut self.route;
        // SAFETY: passed on from the caller.
        let copy = || unsafe { route.feed(&mut route.batch(), POOL_CHUNK_BYTES) };
        let copied = self.crossing.cross(copier, copy);
        debug_assert!(copied.is_none_or(|len| len == self.len), "another chunk than was issued");
        copied.is_some()
    }
}
