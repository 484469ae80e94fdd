//! Host memory that other processes can map: sealed memfds, huge pages, NUMA placement, pinning.
//!
//! ```
//! use tranship_transport::memory::{Access, HostMemory, Memory};
//!
//! let here = HostMemory::new(1 << 20).prefault().build()?;
//! // The descriptor travels to another process (`SCM_RIGHTS`), which maps the same bytes.
//! let descriptor = here.fd().expect("built memory has one").try_clone_to_owned()?;
//! let there = Memory::map(descriptor, here.len(), Access::ReadOnly)?;
//!
//! here.write_at(4096, b"block")?;
//! let mut bytes = [0; 5];
//! there.read_at(4096, &mut bytes)?;
//! assert_eq!(&bytes, b"block");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Invariants:
//! - a memfd made or accepted here is sealed against shrinking, so a peer that owns the same
//!   descriptor cannot turn our loads into `SIGBUS` by truncating it;
//! - a mapping lives exactly as long as its [`Memory`], and a forked child does not inherit it;
//! - what was obtained (huge pages or not, and why not) is in [`Memory::backing`];
//! - no byte of a device's memory ([`Memory::device`]) is touched, and no pointer to it handed out.

mod atomic;
mod backing;
mod budget;
mod bulk;
mod error;
mod host;
mod mapping;
mod numa;
mod spans;

pub use backing::{Backing, Pages};
pub use error::{MapRefused, MemoryError};
pub use host::HostMemory;
pub use mapping::{Access, Memory};
pub use spans::Spans;
