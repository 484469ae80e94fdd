//! Opening a store, or making one on an empty device.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Engine;
use super::close::Closing;
use super::device::Device;
use super::fail::Failures;
use super::frames::Frames;
use super::load::Loads;
use super::notes::Notes;
use super::reclaim::Reclaim;
use super::recovery::{Recovered, recover};
use super::scan::Port;
use super::settle::Settling;
use super::sweep::Sweep;

use crate::tier::cold::{Figures, Health};
use crate::tier::nvme::budget::Budget;
use crate::tier::nvme::desk::Desk;
use crate::tier::nvme::disk::{Disk, PAGE_BYTES};
use crate::tier::nvme::format::layout::{
    HEAD_PAGES, SEGMENT_PAGES_MAX, SEGMENT_PAGES_MIN, SEGMENTS_MIN,
};
use crate::tier::nvme::format::log::Page;
use crate::tier::nvme::format::superblock::{Seen, Superblock};
use crate::tier::nvme::format::{FORMAT_VERSION, Layout, Uuid, is_zero, summary};
use crate::tier::nvme::options::{Judge, Now, Options};
use crate::tier::nvme::pool::Pool;
use crate::time::{Millis, Wall};

/// Bytes at both ends of a device that must be zeroes before a store is made on it.
const EMPTY_BYTES: u64 = 512 << 10;
/// Where the superblock is, and its copy.
const COPIES: [u64; 2] = [0, (HEAD_PAGES - 1) * PAGE_BYTES];
/// Least memory for headers, summaries and pages of the log.
const META_BYTES_MIN: u64 = 256 << 10;

/// Why a store cannot be opened or made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is something else on the device.
    #[error(
        "the device holds something that is no store of tranship; erase its first and last MiB \
         (or give another path) if it may be overwritten"
    )]
    Foreign,
    /// A later version made the store.
    #[error(
        "the store has format {version}, and this build knows {FORMAT_VERSION}; use a newer tranship"
    )]
    Newer {
        /// Its format.
        version: u16,
    },
    /// Both superblocks are damaged, or numbers in it are not possible.
    #[error("the store is damaged beyond use; erase the device to begin anew")]
    Damaged,
    /// The superblocks are of two stores.
    #[error("the superblocks name two stores, {first} and {second}; are its files mixed up?")]
    Mixed {
        /// The first one's.
        first: Uuid,
        /// The copy's.
        second: Uuid,
    },
    /// The device is smaller than it was.
    #[error(
        "the store was made on {need} bytes, and {have} are given to it; set nvme.capacity to {need} or auto, or \
         give the device back its size"
    )]
    Truncated {
        /// Bytes when it was made.
        need: u64,
        /// Bytes now.
        have: u64,
    },
    /// The store lies over several files, and is not looked for where it is.
    #[error(
        "segments of the store have {segment_bytes} bytes, and its files are read by stripes of \
         {stripe_bytes}, as nvme.segment says; set nvme.segment to {segment_bytes}"
    )]
    Stripes {
        /// Bytes of a segment.
        segment_bytes: u64,
        /// Bytes of a stripe.
        stripe_bytes: u64,
    },
    /// Its files are in another order than they were.
    #[error(
        "{misplaced} segments of the store lie where others belong; are its paths in the order in which they \
         were when it was made?"
    )]
    Shuffled {
        /// Segments found elsewhere.
        misplaced: u32,
    },
    /// The device cannot be divided so.
    #[error(
        "{bytes} bytes cannot be divided into {SEGMENTS_MIN} or more segments of {segment_bytes}: \
         a segment has {} to {} bytes in whole pages of {PAGE_BYTES}",
        SEGMENT_PAGES_MIN * PAGE_BYTES,
        SEGMENT_PAGES_MAX * PAGE_BYTES
    )]
    Segments {
        /// Bytes of the device.
        bytes: u64,
        /// Bytes of a segment.
        segment_bytes: u64,
    },
    /// The device failed.
    #[error("the device failed: {0}")]
    Io(String),
    /// The device does not answer.
    #[error("the device ended nothing for {0}")]
    Stalled(Millis),
    /// There is no memory.
    #[error("no memory: {0}")]
    Memory(String),
}

impl Engine {
    /// Opens the store on a disk, or makes one if the disk is empty. `random` must differ at each
    /// opening: it names a new store, and tells what this opening writes from what others left.
    ///
    /// # Errors
    /// Why not; nothing was written then, unless a device failed while it was.
    pub fn open(
        disk: Box<dyn Disk>,
        options: &Options,
        judge: Box<dyn Judge>,
        random: [u8; 16],
        clock: &dyn Fn() -> Now,
    ) -> Result<Self, OpenError> {
        let mut port = Port::new(disk, options.bounce_bytes.max(META_BYTES_MIN), clock)?;
        let (superblock, layout) = match find_superblock(&mut port)? {
            Some(found) => found,
            None => make(&mut port, options, Uuid(random))?,
        };
        let uuid = superblock.uuid;
        let recovered = recover(&mut port, uuid, &layout, options.full_scan)?;
        heal(&mut port, &superblock);
        let now = port.now();
        let session = u64::from_le_bytes(*random.first_chunk().expect("16 bytes are more than 8"));
        let store = Store { disk: port.disk, bounce: port.pool, layout, uuid, session };
        Self::with(store, recovered, options, judge, now)
    }

    fn with(
        store: Store,
        recovered: Recovered,
        options: &Options,
        judge: Box<dyn Judge>,
        now: Now,
    ) -> Result<Self, OpenError> {
        let Store { disk, bounce, layout, uuid, session } = store;
        let Recovered { index, segments, log, last, closed, stale, health } = recovered;
        let figures = Figures { recovered: index.len(), ..Figures::default() };
        // Two summaries of the smallest blocks fit beside headers and pages of the log.
        let summary = u64::from(summary::pages(layout.segment_pages as usize)) * PAGE_BYTES;
        let pool = |name, bytes| Pool::new(name, bytes).map_err(OpenError::Memory);
        let mut settling = Settling::starting_at(now.mono);
        settling.closed = closed;
        let mut engine = Self {
            desk: Arc::new(Desk::new(options, index)),
            device: Device::new(disk, now.mono),
            layout,
            uuid,
            session,
            options: options.clone(),
            judge,
            now,
            again: false,
            segments,
            notes: Notes::new(&log, session, now.mono),
            frames: Frames::starting_at(last),
            settling,
            loads: Loads::default(),
            reclaim: Reclaim::default(),
            sweep: Sweep::default(),
            budget: Budget::new(options.write_budget_per_day, now.wall),
            meta: pool("nvme-meta", META_BYTES_MIN + 3 * summary)?,
            bounce,
            moved: pool("nvme-moved", options.bounce_bytes)?,
            writes: VecDeque::new(),
            inbox: VecDeque::new(),
            ended: Vec::new(),
            done: Vec::new(),
            answered: Vec::new(),
            health: Health::Ready,
            failures: Failures::default(),
            figures,
            counted: None,
            closing: Closing::default(),
        };
        stale.into_iter().for_each(|note| engine.note(0, note));
        if let Some(why) = health {
            engine.go_read_only(&why);
        }
        engine.publish(&mut false);
        Ok(engine)
    }
}

/// What was opened.
struct Store {
    disk: Box<dyn Disk>,
    bounce: Pool,
    layout: Layout,
    uuid: Uuid,
    session: u64,
}

fn find_superblock(port: &mut Port<'_>) -> Result<Option<(Superblock, Layout)>, OpenError> {
    let have = port.disk.bytes();
    if have < HEAD_PAGES * PAGE_BYTES {
        return Err(OpenError::Segments { bytes: have, segment_bytes: PAGE_BYTES });
    }
    let [first, second] =
        COPIES.map(|at| port.read(at, PAGE_BYTES).map(|page| Superblock::decode(&page)));
    let superblock = match (first, second) {
        (Ok(Seen::Valid(first)), Ok(Seen::Valid(second))) if first.uuid != second.uuid => {
            return Err(OpenError::Mixed { first: first.uuid, second: second.uuid });
        }
        // A version that is not known may be one that rotted: where the other copy is whole, it says.
        (Ok(Seen::Valid(valid)), _) | (_, Ok(Seen::Valid(valid))) => valid,
        (Ok(Seen::Version(version)), _) | (_, Ok(Seen::Version(version))) => {
            return Err(OpenError::Newer { version });
        }
        (Err(why), _) | (_, Err(why)) => return Err(why),
        (Ok(Seen::Damaged), _) | (_, Ok(Seen::Damaged)) => return Err(OpenError::Damaged),
        (Ok(Seen::Foreign), _) | (_, Ok(Seen::Foreign)) => return Err(OpenError::Foreign),
        (Ok(Seen::Empty), Ok(Seen::Empty)) => {
            let ends = EMPTY_BYTES.min(have);
            let tail = (have - ends).max(ends);
            let empty = is_zero(&port.read(0, ends)?) && is_zero(&port.read(tail, have - tail)?);
            return if empty { Ok(None) } else { Err(OpenError::Foreign) };
        }
    };
    let Superblock { bytes, segment_bytes, .. } = superblock;
    // The first page is where it is however long the stripes are; little else is.
    check_stripes(port, segment_bytes)?;
    if bytes > have {
        return Err(OpenError::Truncated { need: bytes, have });
    }
    let layout = Layout::new(bytes, segment_bytes);
    layout.map_or(Err(OpenError::Segments { bytes, segment_bytes }), |layout| {
        Ok(Some((superblock, layout)))
    })
}

/// Writes a copy of the superblock again that is not what it should be: the next bit that rots may be in
/// the other. One that cannot be written is no reason to go without the store.
fn heal(port: &mut Port<'_>, superblock: &Superblock) {
    for at in COPIES {
        let page = port.read(at, PAGE_BYTES);
        if page.is_ok_and(|page| Superblock::decode(&page) == Seen::Valid(*superblock)) {
            continue;
        }
        match port.write(at, &superblock.encode()).and_then(|()| port.flush()) {
            Ok(()) => {
                tracing::warn!("the superblock at byte {at} was damaged, and is written again");
            }
            Err(why) => tracing::warn!("the superblock at byte {at} is damaged: {why}"),
        }
    }
}

fn check_stripes(port: &Port<'_>, segment_bytes: u64) -> Result<(), OpenError> {
    match port.disk.stripe_bytes() {
        Some(stripe_bytes) if stripe_bytes != segment_bytes => {
            Err(OpenError::Stripes { segment_bytes, stripe_bytes })
        }
        _ => Ok(()),
    }
}

/// Makes a store on an empty device. The superblock comes first: without it what follows would be
/// somebody else's.
fn make(
    port: &mut Port<'_>,
    options: &Options,
    uuid: Uuid,
) -> Result<(Superblock, Layout), OpenError> {
    let (bytes, segment_bytes) = (port.disk.bytes(), options.segment_bytes);
    let layout = Layout::new(bytes, segment_bytes);
    let layout = layout.ok_or(OpenError::Segments { bytes, segment_bytes })?;
    check_stripes(port, segment_bytes)?;
    let Now { wall: created, .. } = port.now();
    let superblock = Superblock { uuid, created: created.max(Wall(1)), bytes, segment_bytes };
    port.write(COPIES[0], &superblock.encode())?;
    port.flush()?;
    port.write(COPIES[1], &superblock.encode())?;
    let first =
        Page { epoch: 1, session: 0, index: 0, chain: 0, complete: true, notes: Vec::new() };
    let (page, _) = first.encode(uuid);
    port.write(layout.log_byte(0, 0), &page)?;
    port.flush()?;
    Ok((superblock, layout))
}
