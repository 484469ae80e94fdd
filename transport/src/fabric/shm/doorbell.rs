//! What wakes a sleeper: an `eventfd(2)`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{OFlags, fcntl_getfl};

/// A doorbell that nobody has rung.
pub(super) fn new() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// Checks that ringing a doorbell of a peer cannot block.
pub(super) fn check(bell: impl AsFd) -> io::Result<()> {
    if fcntl_getfl(bell)?.contains(OFlags::NONBLOCK) {
        return Ok(());
    }
    Err(io::Error::other("the doorbell could block who rings it"))
}

/// Rings. A counter that is full rings already.
pub(super) fn ring(bell: impl AsFd) {
    let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
}

/// Clears it, a timer just as well.
pub(super) fn clear(bell: impl AsFd) {
    let _ = rustix::io::read(bell, &mut [0; 8]);
}
