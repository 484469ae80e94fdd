//! The log as a state machine: it owns the disk, and does what there is to do whenever it is stepped.
//!
//! It starts no thread and reads no clock. A step takes the jobs that came, what the disk ended, and
//! the time, and starts what follows from them; it never waits.
//!
//! # Rules that the files here keep
//! 1. Blocks are written in *frames*, numbered over the whole store, to the one segment that is open.
//!    A later place in the log is a later version: frames take effect in the order of their numbers.
//! 2. `durable` is the number up to which all frames are on the device for good. A durable store is
//!    answered when it has reached its frame. Each header says it, so recovery knows which frames
//!    need no looking at.
//! 3. A copy that no longer counts gets a note in the index log; notes go there in order, and one about
//!    a copy that was replaced waits until the new one is durable.
//! 4. A segment is opened only when the notes up to the one that frees it are durable, and nothing that
//!    the device may still read lies in it.
//! 5. Numbers may be given out again after a crash, since what bore them may be lost. So headers and
//!    pages of the index log name the opening that wrote them, and the one before them by its
//!    checksum: what an earlier opening left never follows what a later one wrote.
//! 6. What was not written to the end is never read: a segment is written once in a life, from its
//!    start, and after a crash it is closed where its last whole frame ends.

mod apply;
mod audit;
mod close;
mod device;
mod fail;
mod frames;
mod intake;
mod load;
mod log_end;
mod notes;
mod open;
mod reclaim;
mod recovery;
mod scan;
mod settle;
mod sweep;
#[cfg(test)]
mod tests;
mod write;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use self::device::{Device, End, Purpose};
use self::frames::Frames;
use self::load::Loads;
use self::notes::Notes;
use self::reclaim::Reclaim;
use self::settle::Settling;
use super::budget::Budget;
use super::desk::{Desk, Weight};
use super::disk::Waker;
use super::format::{Layout, Uuid};
use super::options::{Judge, Now, Options};
use super::pool::Pool;
use super::segments::Segments;
use crate::tier::cold::{Done, Failure, Figures, Health, Job, Record};
use crate::time::Millis;

pub use open::OpenError;

/// How often the memory of the index is counted.
const COUNT_EVERY: Millis = Millis(1000);

/// The log; see the module's notes.
pub struct Engine {
    desk: Arc<Desk>,
    device: Device,
    layout: Layout,
    uuid: Uuid,
    /// Tells what this opening writes from what an earlier one left.
    session: u64,
    options: Options,
    judge: Box<dyn Judge>,
    now: Now,
    /// Set by what makes more to do in this very moment.
    again: bool,

    segments: Segments,
    notes: Notes,
    frames: Frames,
    settling: Settling,
    loads: Loads,
    reclaim: Reclaim,
    sweep: sweep::Sweep,
    budget: Budget,
    /// Headers, summaries and pages of the index log on their way.
    meta: Pool,
    /// Loads and stores that do not go straight.
    bounce: Pool,
    /// Blocks that are written again.
    moved: Pool,

    writes: VecDeque<Job>,
    inbox: VecDeque<Job>,
    ended: Vec<End>,
    done: Vec<Done>,
    answered: Vec<Weight>,
    health: Health,
    failures: fail::Failures,
    figures: Figures,
    /// When the memory of the index was counted.
    counted: Option<Millis>,
    closing: close::Closing,
}

impl Engine {
    /// What callers hold of it.
    #[must_use]
    pub fn desk(&self) -> Arc<Desk> {
        Arc::clone(&self.desk)
    }

    /// What it runs on, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        let Layout { segments, .. } = self.layout;
        let size = self.layout.segment_bytes();
        format!(
            "{}; {segments} segments of {size} bytes, store {}",
            self.device.describe(),
            self.uuid
        )
    }

    /// The store's name.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// Wakes a thread that waits in [`wait`](Self::wait).
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.device.waker()
    }

    /// Waits until there may be something to do.
    pub fn wait(&mut self, within: Duration) {
        self.device.wait(within);
    }

    /// Does what there is to do, and says when something is due though nothing happens till then.
    /// There is something to tell when `told` has become true.
    pub fn step(&mut self, now: Now, told: &mut bool) -> Option<Millis> {
        self.now = now;
        self.budget.refill(now.wall);
        self.device.watch(now.mono);
        self.again = false;
        self.take_jobs();
        self.take_ends();
        self.notice_hang();
        self.expire_loads();
        self.start_loads();
        self.advance_frames();
        self.step_reclaim();
        self.fill_frames();
        self.step_sweep();
        self.step_close();
        self.step_notes();
        self.step_flush();
        self.device.pump();
        self.publish(told);
        self.due()
    }

    /// Whether everything was finished after [`close`](Self::close), and nothing is in flight.
    #[must_use]
    pub fn closed(&self) -> bool {
        self.closing.finished && self.device.in_flight() == 0
    }

    fn take_ends(&mut self) {
        let mut ended = std::mem::take(&mut self.ended);
        self.device.poll(&mut ended);
        for End { purpose, result } in ended.drain(..) {
            self.observe(&result);
            match purpose {
                Purpose::Load(load) => self.load_part_ended(load, result),
                Purpose::Frame(number) => self.frame_part_ended(number, result),
                Purpose::Summary(segment) => self.summary_ended(segment, result),
                Purpose::Log => self.log_ended(result),
                Purpose::Snapshot => self.snapshot_ended(result),
                Purpose::Flush => self.flush_ended(result),
                Purpose::VictimSummary => self.victim_summary_ended(result.is_ok()),
                Purpose::VictimBlock(moving) => self.victim_block_ended(moving, result.is_ok()),
            }
        }
        self.ended = ended;
    }

    fn answer(&mut self, token: u64, weight: Weight, result: Result<Option<Record>, Failure>) {
        if matches!(&result, Err(why) if !matches!(why, Failure::Gone)) {
            self.figures.failed += 1;
        }
        self.done.push(Done { token, result });
        self.answered.push(weight);
    }

    fn publish(&mut self, told: &mut bool) {
        // Counting the memory goes through all segments.
        let count = self.counted.is_none_or(|at| self.now.mono >= at + COUNT_EVERY);
        let index = self.desk.index.lock();
        self.figures.blocks = index.len();
        self.figures.bytes = index.bytes();
        if count {
            self.counted = Some(self.now.mono);
            self.figures.index_bytes = index.allocated_bytes() + self.segments.allocated_bytes();
        }
        drop(index);
        self.figures.capacity_bytes = u64::from(self.layout.segments) * self.layout.segment_bytes();
        self.figures.device_written_bytes = self.device.written_bytes;
        self.figures.device_read_bytes = self.device.read_bytes;
        let desk = &self.desk;
        *told |= desk.publish(&mut self.done, &mut self.answered, &self.health, &self.figures);
    }

    fn due(&self) -> Option<Millis> {
        if self.again {
            return Some(self.now.mono);
        }
        let due = [
            self.loads.due(),
            self.settling_due(),
            self.sweep_due(),
            self.closing.deadline,
            self.hang_due(),
        ];
        // What is overdue waits for the device, which wakes who waits for it.
        due.into_iter().flatten().filter(|at| *at > self.now.mono).min()
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("health", &self.health)
            .field("frames", &self.frames)
            .field("settling", &self.settling)
            .field("notes", &self.notes)
            .field("reclaim", &self.reclaim)
            .field("loads", &self.loads)
            .field("writes", &self.writes)
            .finish_non_exhaustive()
    }
}
