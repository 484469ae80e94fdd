//! What the tiers below memory have in common: how they are asked, and how they answer.
//!
//! A [`Cold`] tier keeps blocks by identity and key. It has threads of its own and never blocks who
//! asks: a [`Job`] goes in, a [`Done`] with its token comes out later, once. Looking a block up is
//! answered from memory, at once; memory holds what fits in 48 bytes a block ([`Found`]), and the
//! place in the chain comes with the bytes ([`Done`]).
//!
//! # Spans and pages
//! A span that holds (or takes) a whole block and begins on a page of 4096 bytes owns the rest of its
//! last page too: a tier may read and write it, so that the device reaches the span directly. Any other
//! span is touched at its own bytes only.
//!
//! # What every tier promises
//! 1. A load that succeeds has filled its span with the bytes of exactly that block, checked; anything
//!    else (another block, a damaged one, a torn write, one that was reclaimed meanwhile) is an error.
//! 2. Every job is answered exactly once, by its deadline and some time to cancel at the latest. After
//!    the answer nothing reads or writes its span any more.
//! 3. A store that was asked to be durable and succeeded survives a crash of the process and of the
//!    machine, until the tier's own policy or a [`Job::Remove`] ends the block.
//! 4. A job that cannot be taken is refused at once, and comes back whole. Removals are always taken
//!    until the tier is closed, and nobody finds the block from then on until it is stored again: a store
//!    that was taken before the removal is void, wherever it is on its way, and ends as if it had been
//!    done and the block removed after it.
//! 5. A tier that fails goes to [`Health::ReadOnly`] or [`Health::Off`] and says why; it never takes
//!    the cache down.

use std::ops::Range;
use std::time::Duration;

use super::{Span, Tier};
use crate::identity::IdentityId;
use crate::key::Key;
use crate::lineage::Link;
use crate::time::Wall;

/// Names a block in any tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Under which identity.
    pub identity: IdentityId,
    /// The block.
    pub key: Key,
}

/// A block, as a cold tier takes it in and tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Under which identity.
    pub identity: IdentityId,
    /// The block and its place in its chain.
    pub link: Link,
    /// Bytes.
    pub len: u64,
    /// CRC-64/NVMe of the bytes.
    pub checksum: u64,
    /// When its time to live ends.
    pub expires: Option<Wall>,
}

impl Record {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> Name {
        Name { identity: self.identity, key: self.link.key }
    }
}

/// What a tier remembers of a block's use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Loads since it was written, up to [`Mark::HITS_MAX`]; halved when it is written again.
    pub hits: u8,
    /// A block that follows it was written since it was.
    pub parent: bool,
}

impl Mark {
    /// Where hits stop being counted.
    pub const HITS_MAX: u8 = 63;
}

/// What is known of a block without asking the device or the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Bytes.
    pub len: u64,
    /// CRC-64/NVMe of the bytes.
    pub checksum: u64,
    /// When its time to live ends, at most a second early.
    pub expires: Option<Wall>,
    /// How it was used.
    pub mark: Mark,
}

/// How urgent a job is; each lane has its own queue, and a later lane never holds an earlier one up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Somebody waits for the bytes.
    Demand,
    /// Somebody will ask for the bytes soon.
    Prefetch,
    /// Blocks on their way down.
    Write,
}

/// Work for a tier; the token comes back in its [`Done`].
#[derive(Debug)]
pub enum Job {
    /// Keep a block.
    Store {
        /// Chosen by who asks.
        token: u64,
        /// The block.
        record: Record,
        /// Its bytes, which stay unchanged until the answer.
        from: Span,
        /// Answer only once it survives a crash.
        durable: bool,
    },
    /// Fill `into` with bytes of a block.
    Load {
        /// Chosen by who asks.
        token: u64,
        /// The block.
        name: Name,
        /// Which bytes of it; as many as `into` has.
        range: Range<u64>,
        /// Where they go; nobody else uses it until the answer.
        into: Span,
        /// How urgent it is.
        lane: Lane,
        /// How long it may take.
        within: Duration,
    },
    /// Forget a block, and stores of it that were taken before; it is gone when this was taken, but may
    /// come back with a crash.
    Remove {
        /// The block.
        name: Name,
    },
    /// Forget all blocks of an identity, as [`Job::Remove`] does.
    Clear {
        /// Whose.
        identity: IdentityId,
    },
    /// Answer once everything that was stored before survives a crash.
    Sync {
        /// Chosen by who asks.
        token: u64,
    },
}

/// The end of a job.
#[derive(Debug)]
pub struct Done {
    /// The job's.
    pub token: u64,
    /// How it ended: for a load with what was stored beside the bytes, for any other job with nothing.
    pub result: Result<Option<Record>, Failure>,
}

/// Why a job did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The block is not (or no longer) here, or its time to live is over.
    #[error("the block is not there")]
    Gone,
    /// What was read is not what was stored; the block was dropped.
    #[error("the block's bytes are damaged; it was dropped")]
    Corrupt,
    /// The time was up.
    #[error("the deadline passed")]
    Deadline,
    /// The tier does not take the block: there is no room that its policy would give to it.
    #[error("no room")]
    NoRoom,
    /// The budget of bytes written is used up for now.
    #[error("the write budget of the device is used up")]
    Endurance,
    /// The tier takes no writes, or is off.
    #[error("the tier is {0}")]
    Unavailable(String),
    /// The device or the service failed.
    #[error("{0}")]
    Io(String),
}

/// Why a job was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Too much is in flight in its lane; ask again after some answers. This is the tier's
    /// back-pressure.
    Full,
    /// The tier is closed.
    Closed,
}

/// A job that was not taken.
#[derive(Debug)]
pub struct Refused {
    /// The job, unchanged.
    pub job: Job,
    /// Why.
    pub why: Refusal,
}

/// How a tier is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Reads and writes.
    Ready,
    /// Slower or less than asked for, for this reason, but reads and writes.
    Degraded(String),
    /// Reads only, for this reason.
    ReadOnly(String),
    /// Does nothing, for this reason.
    Off(String),
}

/// A tier's figures; counters only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Figures {
    /// Blocks here.
    pub blocks: u64,
    /// Payload bytes of them.
    pub bytes: u64,
    /// Space they and their bookkeeping may take on the device, bytes.
    pub capacity_bytes: u64,
    /// Memory that the index takes, bytes.
    pub index_bytes: u64,
    /// Blocks stored.
    pub stored: u64,
    /// Payload bytes stored.
    pub stored_bytes: u64,
    /// Loads that succeeded.
    pub loaded: u64,
    /// Payload bytes loaded.
    pub loaded_bytes: u64,
    /// Loads and stores that failed.
    pub failed: u64,
    /// Blocks dropped because their bytes were damaged.
    pub corrupt: u64,
    /// Blocks that left because their room was needed.
    pub evicted: u64,
    /// Blocks written again so that their segment (or object) could be reclaimed.
    pub reinserted: u64,
    /// Bytes written to the device or service, everything included; divided by `stored_bytes` it is the
    /// write amplification.
    pub device_written_bytes: u64,
    /// Bytes read from the device or service.
    pub device_read_bytes: u64,
    /// Blocks found at start.
    pub recovered: u64,
    /// Time until they were found, from when the tier began to look, microseconds.
    pub recovery_us: u64,
}

/// As [`Figures`] count time.
pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Called, without any lock held, when [`Cold::finished`] has something new to tell.
pub type Notify = std::sync::Arc<dyn Fn() + Send + Sync>;

/// A tier below memory; see the module's notes for what it promises.
pub trait Cold: Send + Sync {
    /// Which one it is.
    fn tier(&self) -> Tier;

    /// What is known of a block, if it is here and its time is not over. No I/O, no waiting.
    fn find(&self, name: &Name) -> Option<Found>;

    /// Whether [`find`](Self::find) would find it.
    fn contains(&self, name: &Name) -> bool {
        self.find(name).is_some()
    }

    /// Takes a job, or gives it back.
    ///
    /// # Errors
    /// The job, and why it was not taken.
    fn submit(&self, job: Job) -> Result<(), Box<Refused>>;

    /// Moves the ends of jobs to `out`.
    fn finished(&self, out: &mut Vec<Done>);

    /// Calls `visit` for some of the blocks, from `from` on (0 for the first call); where to go on,
    /// or none at the end. A block that stays throughout is visited once, and whoever calls again
    /// with the same `from` is led through the same stretch, whatever came and went in it.
    fn visit(&self, from: u64, visit: &mut dyn FnMut(&Name, &Found)) -> Option<u64>;

    /// How it is.
    fn health(&self) -> Health;

    /// Its figures.
    fn figures(&self) -> Figures;

    /// Finishes what is under way, makes it durable, and stops: within this time, whatever happens.
    fn close(&self, within: Duration);
}
