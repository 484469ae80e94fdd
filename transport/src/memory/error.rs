//! Why memory could not be had or used.

use std::io;
use std::os::fd::OwnedFd;

use super::backing::Size;

/// Why memory could not be had or used, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// More than the machine, or its control group, has. Nothing was touched.
    #[error(
        "{name} of {} does not fit: {} of memory, {} free; use {} or less",
        Size(*len_bytes),
        Size(*total_bytes),
        Size(*free_bytes),
        Size(*fitting_bytes)
    )]
    DoesNotFit {
        /// What the memory was to be.
        name: String,
        /// Asked for.
        len_bytes: u64,
        /// Memory there is.
        total_bytes: u64,
        /// Memory that is available.
        free_bytes: u64,
        /// A round size that fits.
        fitting_bytes: u64,
    },
    /// The name cannot name a memfd.
    #[error("memory name {name:?} is not usable: at most {max} bytes and no NUL; choose another")]
    BadName {
        /// The name given.
        name: String,
        /// Longest name, in bytes.
        max: usize,
    },
    /// The kernel refused a step of making or mapping the memory.
    #[error("{what} of {len} bytes failed: {source}; {remedy}")]
    Refused {
        /// The step.
        what: &'static str,
        /// Bytes concerned.
        len: usize,
        /// What to do.
        remedy: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Memory ran out while the pages were being filled in.
    #[error(
        "memory ran out {done} bytes into {len}: {source}; \
         ask for less or free some (huge pages: raise vm.nr_hugepages)"
    )]
    Exhausted {
        /// Bytes that were in place.
        done: usize,
        /// Bytes asked for.
        len: usize,
        /// The kernel's answer.
        source: io::Error,
    },
    /// There is no such NUMA node.
    #[error("NUMA node {node} is not there: nodes {online} are; choose one of them")]
    NoSuchNode {
        /// The node asked for.
        node: u32,
        /// The nodes there are, as the kernel lists them.
        online: String,
    },
    /// The kernel would not bind the memory to a NUMA node.
    #[error(
        "binding to NUMA node {node} failed: {source}; \
         in a container grant CAP_SYS_NICE, or do not ask for a node"
    )]
    NotBound {
        /// The node asked for.
        node: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel would not lock the pages.
    #[error(
        "locking {len} bytes failed: {source}; the memlock limit is {limit}: \
         LimitMEMLOCK=infinity in the unit or ulimit -l unlimited in the shell"
    )]
    NotLocked {
        /// Bytes to lock.
        len: usize,
        /// The soft `RLIMIT_MEMLOCK`, spelled out.
        limit: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A received descriptor could be truncated under our feet.
    #[error(
        "descriptor is not a memfd sealed against shrinking; \
         its owner has to add F_SEAL_SHRINK before handing it over"
    )]
    NotSealed,
    /// A received descriptor holds less than it should.
    #[error("descriptor holds {actual} bytes, {len} were promised; its owner sent the wrong one")]
    TooShort {
        /// Bytes promised.
        len: usize,
        /// Bytes there are.
        actual: u64,
    },
    /// An access beyond the end.
    #[error("bytes {offset}..+{len} are outside of a memory of {size} bytes")]
    OutOfBounds {
        /// First byte of the access.
        offset: usize,
        /// Bytes of the access.
        len: usize,
        /// Bytes there are.
        size: usize,
    },
    /// An access to memory of a device by this process.
    #[error(
        "the memory is a device's: this process cannot touch its bytes; let the device copy them from or to \
         host memory, or move them by transfers over rails"
    )]
    OnDevice,
    /// A write into memory that is mapped read-only.
    #[error("memory is mapped read-only; map it with Access::ReadWrite to write")]
    ReadOnly,
}

/// A descriptor that could not be mapped, given back.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct MapRefused {
    /// The descriptor, as it was handed in.
    pub descriptor: OwnedFd,
    /// Why it was refused.
    #[source]
    pub why: MemoryError,
}

impl From<MapRefused> for MemoryError {
    /// Keeps the reason and closes the descriptor.
    fn from(refused: MapRefused) -> MemoryError {
        refused.why
    }
}
