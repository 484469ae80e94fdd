//! What can be chosen of the tier, and the time it is driven by.

use crate::tier::cold::{Mark, Name};
use crate::time::{Millis, Wall};

/// The two clocks that a step is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For deadlines: only goes on.
    pub mono: Millis,
    /// For times to live and the write budget: may jump.
    pub wall: Wall,
}

/// Says what blocks are worth when the segment that they are in is reclaimed.
pub trait Judge: Send {
    /// For each of these blocks, with its use here, how much keeping it is worth; their segment was begun
    /// `age` ago. From 1 on a block is written again while there is room for that, the worthiest first;
    /// below, it goes, unless one that follows it stays.
    fn worth(&mut self, blocks: &[(Name, Mark)], age: Millis) -> Vec<f32>;
}

/// Keeps what was loaded since it was written, what was loaded more often first; a block that others follow
/// counts as one that was loaded once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hits;

impl Judge for Hits {
    fn worth(&mut self, blocks: &[(Name, Mark)], _age: Millis) -> Vec<f32> {
        let worth = |(_, mark): &(Name, Mark)| f32::from(mark.hits.max(mark.parent.into()));
        blocks.iter().map(worth).collect()
    }
}

/// A tier's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Bytes of a segment, for a store that is made now; one that is there keeps its own.
    pub segment_bytes: u64,
    /// Jobs of a lane that may be in flight.
    pub lane_jobs_max: usize,
    /// Payload bytes of a lane that may be in flight; a single job may be longer.
    pub lane_bytes_max: u64,
    /// Loads that the device is asked for at the same time.
    pub loads_max: usize,
    /// Frames that are written at the same time; what waits meanwhile makes the next one longer.
    pub frames_max: usize,
    /// Bytes written after which a flush is asked for though nobody waits for it.
    pub flush_bytes: u64,
    /// Time after which removals, and what was stored without being durable, are made durable.
    pub flush_every: Millis,
    /// Memory for loads and stores that cannot go straight between span and device, and again as
    /// much for blocks that are written again.
    pub bounce_bytes: u64,
    /// Share of a segment that may be written again when it is reclaimed, percent, at most 90; bounds
    /// what is written for each byte that is stored by 100 / (100 - share), headers aside.
    pub reinsert_percent: u8,
    /// Bytes that may be written to the device in a day; none for no limit.
    pub write_budget_per_day: Option<u64>,
    /// Whether the index is rebuilt from the headers of all frames though summaries are there.
    pub full_scan: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            lane_jobs_max: 4096,
            lane_bytes_max: 1 << 30,
            loads_max: 128,
            frames_max: 4,
            flush_bytes: 64 << 20,
            flush_every: Millis(1000),
            bounce_bytes: 32 << 20,
            reinsert_percent: 50,
            write_budget_per_day: None,
            full_scan: false,
        }
    }
}
