//! What can go wrong while measuring.

use std::io;
use std::time::Duration;

use tranship_cache::client;
use tranship_cache::tier::cold::Failure;
use tranship_cache::tier::nvme::disk;
use tranship_cache::tier::object::OpenError;
use tranship_transport::memory::MemoryError;
use tranship_transport::{
    BuildError, CountError, CountersExhausted, MapError, Outcome, PagesError, PeerError, PlanError,
    RangeError, RegionError, SubmitError, WindowError,
};

use crate::units::human;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The other process did not start or went away.
    #[error("the second process {what}: {source}")]
    Child {
        /// What it did not do.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The other process said something else than expected, or nothing.
    #[error("the second process did not answer {question} with what was expected")]
    Answer {
        /// The question.
        question: &'static str,
    },
    /// No engine.
    #[error(transparent)]
    Engine(#[from] BuildError),
    /// No memory, or none that can be registered.
    #[error("{0}; a smaller --working-set needs less")]
    Region(#[from] RegionError),
    /// No memory.
    #[error("{0}; a smaller --working-set needs less")]
    Memory(#[from] MemoryError),
    /// No memory for the daemon's arena.
    #[error(
        "an arena of {} does not fit: {} free; a smaller --working-set needs less",
        human::size(*arena_bytes),
        human::size(*free_bytes)
    )]
    Room {
        /// What the measurement takes.
        arena_bytes: u64,
        /// What there is.
        free_bytes: u64,
    },
    /// No window.
    #[error(transparent)]
    Window(#[from] WindowError),
    /// No connection.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// No mapping of the other side's memory.
    #[error(transparent)]
    Map(#[from] MapError),
    /// No counter.
    #[error(transparent)]
    Counters(#[from] CountersExhausted),
    /// An answer that did not come.
    #[error(transparent)]
    Count(#[from] CountError),
    /// A piece outside of its memory.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// Plain sockets, the limit of `tcp`.
    #[error("a plain socket of the loopback interface: {source}")]
    Sockets {
        /// What failed.
        source: io::Error,
    },
    /// Pages that cannot be described.
    #[error(transparent)]
    Pages(#[from] PagesError),
    /// Pages that do not match.
    #[error(transparent)]
    PagesPlan(#[from] PlanError),
    /// A transfer that did not end well.
    #[error("a transfer ended: {0}")]
    Transfer(Outcome),
    /// A transfer that did not begin.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The C library cannot be loaded, or refused a call.
    #[error("{why}")]
    Library {
        /// What it or the loader said.
        why: String,
    },
    /// The cache refused a call.
    #[error(transparent)]
    Cache(#[from] client::Error),
    /// A block could not be read.
    #[error(transparent)]
    Read(#[from] client::ReadError),
    /// A block could not be stored.
    #[error("the cache did not store a block: {0:?}; a smaller --working-set needs less room")]
    NotStored(client::Stored),
    /// Blocks that were stored and are gone.
    #[error(
        "{missing} of {asked} blocks are gone; give the daemon more capacity, or a smaller --working-set"
    )]
    Evicted {
        /// How many are gone.
        missing: usize,
        /// How many were asked for.
        asked: usize,
    },
    /// No disk.
    #[error(transparent)]
    Open(#[from] disk::OpenError),
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// No memory for what is in flight.
    #[error("{0}; smaller --sizes or --depths need less")]
    Buffers(MemoryError),
    /// A disk that is too short to tell anything.
    #[error(
        "a disk of {} is too short for what is in flight; --size {} or more",
        human::size(*bytes),
        human::size(*needed_bytes)
    )]
    Small {
        /// What was asked for.
        bytes: u64,
        /// What is needed.
        needed_bytes: u64,
    },
    /// What was read is not what was written.
    #[error("byte {at} of the disk, or one soon after, is not what was written there")]
    Wrong {
        /// First byte of what was checked.
        at: u64,
    },
    /// No thread.
    #[error("no thread for checksums: {source}; --checksums inline needs none")]
    Thread {
        /// Why not.
        source: io::Error,
    },
    /// Nothing ends.
    #[error("no operation has ended for {}; the device hangs", human::time(*within))]
    Hangs {
        /// How long.
        within: Duration,
    },
    /// Blocks that were stored are not there.
    #[error(
        "{missing} blocks that were stored were not found, or not in time; see the daemon's log"
    )]
    Missing {
        /// How many.
        missing: u64,
    },
    /// The peer failed.
    #[error("fio: {why}")]
    Fio {
        /// What it said.
        why: String,
    },
    /// The bucket cannot be opened.
    #[error(transparent)]
    Bucket(#[from] OpenError),
    /// A job of the object tier did not succeed.
    #[error("the object tier did not {what} a block: {why}")]
    Tier {
        /// To load or to store.
        what: &'static str,
        /// Why not.
        why: Failure,
    },
    /// A request of the bare client did not succeed.
    #[error("a bare request to the object store did not succeed; look at the service's own log")]
    Request,
    /// A server of the measurement's own.
    #[error("{program} did not start: {source}")]
    Server {
        /// Which.
        program: String,
        /// Why not.
        source: io::Error,
    },
}
