//! Flushes, and what waits for them: durable stores, summaries, segments that become free.

use super::Engine;
use super::device::Purpose;
use super::frames::Closed;
use crate::tier::cold::{Failure, Job};
use crate::tier::nvme::desk::Weight;
use crate::tier::nvme::disk::{Error, PAGE_BYTES};
use crate::tier::nvme::format::summary::{self, Trailer};
use crate::tier::nvme::pool::Piece;
use crate::tier::nvme::segments::State;
use crate::time::Millis;

/// What is under way between a write and a flush.
#[derive(Debug, Default)]
pub(super) struct Settling {
    /// What the flush in flight makes durable.
    flush: Option<Covers>,
    /// Segments that wait for their summary, in the order in which they were closed.
    pub(super) closed: Vec<Closed>,
    /// Summaries that are being written.
    summaries: Vec<(u32, Piece)>,
    syncs: Vec<Sync>,
    /// A summary was written since the last flush began.
    summary_written: bool,
    /// When something was last made durable.
    last: Millis,
    /// A flush that failed says nothing of what came before it: there is no other.
    broken: bool,
}

#[derive(Clone, Copy, Debug)]
struct Covers {
    frames: u64,
    notes: u64,
    snapshot: bool,
}

#[derive(Debug)]
struct Sync {
    token: u64,
    frames: u64,
    notes: u64,
}

impl Settling {
    /// The segment gets no summary.
    pub(super) fn retired(&mut self, segment: u32) {
        self.closed.retain(|closed| closed.segment != segment);
    }

    /// Segments that wait for a summary, or have one on its way.
    pub(super) fn is_sealing(&self) -> bool {
        !self.closed.is_empty() || !self.summaries.is_empty()
    }

    pub(super) fn has_syncs(&self) -> bool {
        !self.syncs.is_empty()
    }

    /// Nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.flush.is_none() && !self.is_sealing() && !self.summary_written && !self.has_syncs()
    }

    pub(super) fn starting_at(now: Millis) -> Self {
        Self { last: now, ..Self::default() }
    }
}

impl Engine {
    pub(super) fn queue_sync(&mut self, token: u64) {
        let (frames, notes) = (self.frames.last, self.notes.queued());
        self.settling.syncs.push(Sync { token, frames, notes });
    }

    /// Starts a flush when one would bring on something that is waited for, or is due.
    pub(super) fn step_flush(&mut self) {
        self.write_summaries();
        self.end_syncs();
        if self.settling.flush.is_some() || self.settling.broken || self.refuses_writes().is_some()
        {
            return;
        }
        let notes = self.notes.written();
        let frames = self.frames.would_cover(notes);
        let snapshot = self.notes.snapshot_is_written();
        let gains = frames > self.frames.durable
            || notes > self.notes.flushed()
            || snapshot
            || self.settling.summary_written && self.closing.began();
        if !gains {
            return;
        }
        let wanted = self.is_pressed()
            || self.frames.unflushed_bytes >= self.options.flush_bytes
            || self.now.mono >= self.settling.last + self.options.flush_every;
        if wanted {
            self.settling.summary_written = false;
            self.settling.flush = Some(Covers { frames, notes, snapshot });
            self.device.flush();
        }
    }

    /// Whether somebody waits for what was written to be durable.
    pub(super) fn is_pressed(&self) -> bool {
        let mut frames = self.frames.queue.iter().filter(|frame| frame.applied);
        frames.any(|frame| !frame.waiting.is_empty())
            || self.settling.is_sealing()
            || self.presses_notes()
            || self.reclaim.waits_for_flush()
    }

    /// Whether somebody waits for notes to be in the log.
    pub(super) fn presses_notes(&self) -> bool {
        self.settling.has_syncs()
            || self.segments.freeing() > 0
            || self.notes.is_switching()
            || self.closing.began()
    }

    pub(super) fn settling_due(&self) -> Option<Millis> {
        let open = self.frames.unflushed_bytes > 0 || self.notes.flushed() < self.notes.queued();
        (open && self.refuses_writes().is_none())
            .then(|| self.settling.last + self.options.flush_every)
    }

    pub(super) fn flush_ended(&mut self, result: Result<(), Error>) {
        let covers = self.settling.flush.take().expect("a flush was in flight");
        if let Err(why) = result {
            // What was written before it may be gone, and a second flush would not say so.
            self.settling.broken = true;
            self.go_read_only(&format!("a flush failed: {why}; look at the device's health"));
            return;
        }
        self.settling.last = self.now.mono;
        self.frames_durable(covers.frames);
        self.notes.notes_flushed(covers.notes, covers.snapshot);
        self.segments.notes_flushed(covers.notes);
        self.again = true;
    }

    fn write_summaries(&mut self) {
        let mut at = 0;
        while at < self.settling.closed.len() {
            let closed = &self.settling.closed[at];
            let pages = summary::pages(closed.entries.len());
            let bytes = u64::from(pages) * PAGE_BYTES;
            if closed.last > self.frames.durable || self.refuses_writes().is_some() {
                at += 1;
                continue;
            }
            let Some(piece) = self.meta.take(bytes) else { return };
            let Closed { segment, seq, opened, end, last, entries } =
                self.settling.closed.remove(at);
            let count = entries.len() as u32;
            let trailer = Trailer { segment, seq, last, opened, end, pages, count };
            piece.span.write_at(0, &summary::encode(self.uuid, &trailer, &entries));
            let from = piece.span.slice(0..bytes as usize);
            let page = self.layout.segment_pages - pages;
            self.budget.spend(bytes);
            self.settling.summaries.push((segment, piece));
            self.device.write(Purpose::Summary(segment), self.layout.byte(segment, page), from);
        }
    }

    pub(super) fn summary_ended(&mut self, segment: u32, result: Result<(), Error>) {
        let mut summaries = self.settling.summaries.iter();
        let at = summaries.position(|(number, _)| *number == segment);
        let (_, piece) = self.settling.summaries.swap_remove(at.expect("a summary was in flight"));
        self.meta.give_back(piece);
        self.again = true;
        match result {
            Ok(()) => {
                self.settling.summary_written = true;
                self.segments.get_mut(segment).state = State::Sealed;
            }
            Err(why) => self.retire(segment, &why.to_string()),
        }
    }

    fn end_syncs(&mut self) {
        let (frames, notes) = (self.frames.durable, self.notes.flushed());
        let reached = |sync: &Sync| sync.frames <= frames && sync.notes <= notes;
        let (over, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.settling.syncs).into_iter().partition(reached);
        self.settling.syncs = waiting;
        for Sync { token, .. } in over {
            self.answer(token, Weight::of(&Job::Sync { token }), Ok(None));
        }
    }

    /// Answers what waits for a flush that will not come.
    pub(super) fn stop_settling(&mut self, why: &str) {
        let frames = self.frames.queue.iter_mut();
        let waiting: Vec<_> = frames.flat_map(|frame| std::mem::take(&mut frame.waiting)).collect();
        for (token, weight) in waiting {
            self.answer(token, weight, Err(Failure::Unavailable(why.to_owned())));
        }
        for Sync { token, .. } in std::mem::take(&mut self.settling.syncs) {
            let weight = Weight::of(&Job::Sync { token });
            self.answer(token, weight, Err(Failure::Unavailable(why.to_owned())));
        }
    }
}
