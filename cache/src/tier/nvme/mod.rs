//! The NVMe tier: blocks in a log of segments on a local device.
//!
//! | module | what it holds |
//! |---|---|
//! | [`disk`] | the device: a flat run of pages |
//! | `format` | what is on it, byte by byte |
//! | `index`, `segments` | what is known of it in memory |
//! | `engine` | the log: a state machine without threads and clocks |
//! | `desk`, `front` | the tier: jobs in, answers out, and the thread between |
//!
//! [`Engine`] keeps the rules that the log lives by; they are written down there. Decision 21 says why
//! it is laid out so, `docs/nvme-format.md` how, and `docs/nvme.md` how to run it.

mod budget;
mod desk;
pub mod disk;
mod engine;
mod format;
mod front;
mod index;
mod options;
mod pool;
#[doc(hidden)]
pub mod sabotage;
mod segments;
#[cfg(any(test, feature = "conformance"))]
pub mod testing;

pub use desk::Desk;
pub use engine::{Engine, OpenError};
pub use format::layout::{SEGMENT_BYTES, least_bytes};
pub use format::{FORMAT_VERSION, Uuid};
pub use front::{Clock, Nvme};
pub use options::{Hits, Judge, Now, Options};

/// Whether the first bytes of a file or device are those of a log, of any version.
#[must_use]
pub fn is_ours(first: &[u8]) -> bool {
    first.starts_with(&format::superblock::MAGIC.to_le_bytes())
}
