//! The device under the log: a flat run of bytes, read and written page by page.
//!
//! A [`Disk`] is poll-driven and belongs to one thread, as a fabric does; it may move to another while
//! nothing is in flight, and be dropped anywhere at any time. The log above it
//! is written once, and runs on a real device (io_uring, or a pool of threads where that is denied) as
//! on a simulated one that tears, loses, reorders and flips what is written.
//!
//! # What every disk promises
//! 1. An operation that was taken ends exactly once, in [`Disk::poll`]; its span comes back with it.
//!    Operations in flight have no order among each other.
//! 2. What a write brought is on the device for good only after a flush that was submitted when the
//!    write had ended, and ended well. Before that any of its pages may be old, new or torn.
//! 3. When it has been dropped nothing reads or writes a span any more, and none is held, unless the
//!    device hangs ([`Disk::end`] tells). What was in flight may have happened or not, page by page.
//! 4. Operations that are not aligned or leave the device are refused as a bug of the caller (panic in
//!    debug builds, [`Error::Invalid`] otherwise), never rounded.
//!
//! | module | what it holds |
//! |---|---|
//! | [`open()`] | files, directories and block devices, made, locked and checked |
//! | `files` | one run of bytes over several files |
//! | `schedule` | lanes and their shares, operations cut into pieces |
//! | `uring`, `pool` | the two engines |
//! | [`mod@probe`] | what this machine can do, for `tranship doctor` |
//! | `conformance` | the rules as tests, for every disk |

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod files;
pub mod open;
#[expect(unsafe_code, reason = "reads and writes memory that others share, by address")]
mod pool;
pub mod probe;
mod schedule;
#[cfg(any(test, feature = "conformance"))]
pub mod sim;
#[cfg(test)]
mod tests;
#[expect(unsafe_code, reason = "the kernel reads and writes memory by address")]
mod uring;

use std::sync::Arc;
use std::time::Duration;

use tranship_transport::memory::Memory;

use super::super::{Lane, Span};

#[cfg(test)]
pub(super) use tests::directory;

pub use open::{Engine, OpenError, Options, Target, file_in, open};

/// Everything that is read or written is a multiple of this many bytes, at a multiple of it in the
/// disk and in memory.
pub const PAGE_BYTES: u64 = 4096;

/// One read, write or flush.
#[derive(Debug)]
pub struct Op {
    /// Chosen by who asks, comes back in [`Ended`].
    pub token: u64,
    /// Where it waits while more is asked for than the device takes at once.
    pub lane: Lane,
    /// What to do.
    pub kind: Kind,
}

/// What an [`Op`] does.
#[derive(Debug)]
pub enum Kind {
    /// Fill the span with the bytes from `at` on.
    Read {
        /// First byte on the disk.
        at: u64,
        /// Where the bytes go.
        into: Span,
    },
    /// Put the span's bytes at `at`.
    Write {
        /// First byte on the disk.
        at: u64,
        /// The bytes.
        from: Span,
    },
    /// Make durable what was written by operations that have ended.
    Flush,
}

/// An operation that ended.
#[derive(Debug)]
pub struct Ended {
    /// The operation's.
    pub token: u64,
    /// What it did; its span is the caller's again.
    pub kind: Kind,
    /// How it ended.
    pub result: Result<(), Error>,
}

/// How an operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The device has no room (a sparse file on a full file system).
    #[error("no space left on the device")]
    NoSpace,
    /// The device could not read or write these bytes.
    #[error("input/output error at byte {at}: {text}")]
    Io {
        /// First byte of the operation.
        at: u64,
        /// What the system said.
        text: String,
    },
    /// The device is gone: nothing more will succeed.
    #[error("the device is gone: {0}")]
    Gone(String),
    /// The operation is not aligned or leaves the device.
    #[error("bytes {at}..{end} are not whole pages of {PAGE_BYTES} inside a disk of {bytes}")]
    Invalid {
        /// First byte of the operation.
        at: u64,
        /// The byte after its last.
        end: u64,
        /// The disk's size.
        bytes: u64,
    },
}

/// Wakes the thread that is in [`Disk::wait`], from any thread.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// A device; see the module's notes for what it promises.
pub trait Disk: Send {
    /// What it is, for people: `io_uring, O_DIRECT, registered buffers, /var/lib/tranship/nvme.log`.
    fn describe(&self) -> String;

    /// Bytes, a multiple of [`PAGE_BYTES`].
    fn bytes(&self) -> u64;

    /// How many bytes lie together before another file has its turn; none where there is only one. On
    /// whatever was written with another figure every byte is somewhere else.
    fn stripe_bytes(&self) -> Option<u64> {
        None
    }

    /// Tells of memory that spans will lie in, so that the disk may prepare it, until nobody else has
    /// it any more. A disk that was not told, or cannot, does the same work for more of the processor's
    /// time.
    fn register(&mut self, _memory: &Arc<Memory>) {}

    /// Takes an operation, or gives it back when its lane has no room.
    ///
    /// # Errors
    /// The operation.
    fn submit(&mut self, op: Op) -> Result<(), Op>;

    /// Starts what was submitted, and moves what ended to `ended`. Does not wait.
    fn poll(&mut self, ended: &mut Vec<Ended>);

    /// Waits until an operation may have ended, the waker was called, or the time is over.
    fn wait(&mut self, within: Duration);

    /// Wakes a thread that waits, or the next that will.
    fn waker(&self) -> Waker;

    /// Operations taken and not ended.
    fn in_flight(&self) -> usize;

    /// Ends it, as dropping it does; false where the device hangs, and may go on using the spans of what
    /// it has for ever: they are kept, and nobody else may use their memory.
    fn end(self: Box<Self>) -> bool {
        true
    }
}
