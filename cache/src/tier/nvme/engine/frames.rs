//! Frames that are not durable yet, and the segment that they go to.

use std::collections::VecDeque;

use crate::tier::cold::{Mark, Record};
use crate::tier::nvme::desk::Weight;
use crate::tier::nvme::format::{Entry, summary};
use crate::tier::nvme::index::Place;
use crate::tier::nvme::pool::Piece;
use crate::time::Wall;

/// The segment that frames are added to.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) segment: u32,
    pub(super) seq: u64,
    pub(super) opened: Wall,
    /// First page that is free.
    pub(super) next: u32,
    /// Checksum of the last header.
    pub(super) chain: u64,
    /// Number of the last frame.
    pub(super) last: u64,
    pub(super) entries: Vec<Entry>,
}

impl Open {
    /// Whether so many more pages, with so many more blocks, leave room for the summary.
    pub(super) fn fits(&self, more: u32, blocks: usize, segment_pages: u32) -> bool {
        let summary = summary::pages(self.entries.len() + blocks);
        u64::from(self.next) + u64::from(more) + u64::from(summary) <= u64::from(segment_pages)
    }
}

/// A segment to which no more frames are added, and what its summary will say.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) segment: u32,
    pub(super) seq: u64,
    pub(super) opened: Wall,
    pub(super) end: u32,
    pub(super) last: u64,
    pub(super) entries: Vec<Entry>,
}

/// Whose block it is.
#[derive(Debug)]
pub(super) enum Origin {
    /// A store's.
    Store { token: u64, weight: Weight, durable: bool },
    /// That of a store that was answered before the device was done with it.
    Answered,
    /// One from here, written again.
    Moved { from: Place },
}

#[derive(Debug)]
pub(super) struct Placed {
    pub(super) record: Record,
    pub(super) mark: Mark,
    pub(super) place: Place,
    pub(super) origin: Origin,
    /// What the device reads from; the store's span is kept by the operation.
    pub(super) piece: Option<Piece>,
    /// Removed while on its way.
    pub(super) doomed: bool,
}

/// A frame on its way.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) number: u64,
    pub(super) segment: u32,
    /// Operations that have not ended.
    pub(super) parts: usize,
    pub(super) failed: Option<String>,
    pub(super) applied: bool,
    /// Notes that must be in the log before this frame counts as durable, if it failed.
    pub(super) settled_by: u64,
    pub(super) blocks: Vec<Placed>,
    pub(super) header: Option<Piece>,
    /// Durable stores that wait for the flush.
    pub(super) waiting: Vec<(u64, Weight)>,
    pub(super) bytes: u64,
}

/// All frames that are not durable.
#[derive(Debug, Default)]
pub(super) struct Frames {
    pub(super) open: Option<Open>,
    pub(super) queue: VecDeque<Frame>,
    /// Number of the last frame.
    pub(super) last: u64,
    /// All frames up to this number are on the device for good.
    pub(super) durable: u64,
    /// Bytes of frames that are not.
    pub(super) unflushed_bytes: u64,
}

impl Frames {
    pub(super) fn starting_at(last: u64) -> Self {
        Self { last, durable: last, ..Self::default() }
    }

    /// No more frames go to the segment.
    pub(super) fn retired(&mut self, segment: u32) {
        if self.open.as_ref().is_some_and(|open| open.segment == segment) {
            self.open = None;
        }
    }

    /// Number up to which frames would be durable if what was written were flushed, with so many notes
    /// in the log.
    pub(super) fn would_cover(&self, notes: u64) -> u64 {
        let done = |frame: &&Frame| frame.applied && frame.settled_by <= notes;
        self.queue.iter().take_while(done).last().map_or(self.durable, |frame| frame.number)
    }

    /// Whether a frame that failed waits for notes before it counts as durable.
    pub(super) fn has_unsettled(&self, notes: u64) -> bool {
        self.queue.iter().any(|frame| frame.settled_by > notes)
    }

    /// Whether frames up to this one have taken effect, durable or not.
    pub(super) fn written_to(&self, number: u64) -> bool {
        self.queue.iter().all(|frame| frame.number > number || frame.applied)
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Frames that the device is writing.
    pub(super) fn writing(&self) -> usize {
        self.queue.iter().filter(|frame| frame.parts > 0).count()
    }
}
