//! The index log: notes of what no longer counts, on their way to the device.

use std::collections::VecDeque;
use std::sync::Arc;

use tranship_transport::memory::HostMemory;

use super::Engine;
use super::device::Purpose;
use super::log_end::LogEnd;
use crate::tier::Span;
use crate::tier::nvme::disk::{Error, PAGE_BYTES};
use crate::tier::nvme::format::log::{NOTES_MAX, Note, Page};
use crate::tier::nvme::format::{PAGE, Uuid};
use crate::tier::nvme::pool::Piece;
use crate::tier::nvme::sabotage::{Defect, is};
use crate::time::Millis;

/// Most pages that are written at once.
const WRITE_PAGES: usize = 16;
/// Most pages of a snapshot in one operation.
const SNAPSHOT_PAGES: usize = 256;

/// The log's end, and what waits to go there.
#[derive(Debug)]
pub(super) struct Notes {
    half: usize,
    epoch: u64,
    session: u64,
    /// Page of the half that is written next.
    next: u32,
    /// Checksum of the page before it.
    chain: u64,
    /// With each note the frame that must be durable before it is true.
    queue: VecDeque<(u64, Note)>,
    queued: u64,
    written: u64,
    flushed: u64,
    /// Notes that are being written, on which pages, from where.
    writing: Option<(u64, u32, Piece)>,
    snapshot: Option<Snapshot>,
    last: Millis,
}

/// A snapshot on its way to the other half.
#[derive(Debug)]
struct Snapshot {
    parts: usize,
    pages: u32,
    chain: u64,
}

impl Notes {
    /// A log that goes on where it was found to end.
    pub(super) fn new(end: &LogEnd, session: u64, now: Millis) -> Self {
        let LogEnd { half, epoch, next, chain } = *end;
        Self {
            half,
            epoch,
            session,
            next,
            chain,
            queue: VecDeque::new(),
            queued: 0,
            written: 0,
            flushed: 0,
            writing: None,
            snapshot: None,
            last: now,
        }
    }

    /// Notes so far.
    pub(super) fn queued(&self) -> u64 {
        self.queued
    }

    /// How many of them are written.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// How many of them are on the device for good.
    pub(super) fn flushed(&self) -> u64 {
        self.flushed
    }

    /// Whether the snapshot becomes the log with the next flush.
    pub(super) fn snapshot_is_written(&self) -> bool {
        self.snapshot.as_ref().is_some_and(|snapshot| snapshot.parts == 0)
    }

    pub(super) fn notes_flushed(&mut self, notes: u64, snapshot: bool) {
        self.flushed = notes;
        if snapshot && let Some(Snapshot { pages, chain, .. }) = self.snapshot.take() {
            (self.half, self.epoch) = (1 - self.half, self.epoch + 1);
            (self.next, self.chain) = (pages, chain);
        }
    }

    /// Whether a snapshot is on its way.
    pub(super) fn is_switching(&self) -> bool {
        self.snapshot.is_some()
    }

    /// Notes that may be written when frames up to this one are durable.
    fn ripe(&self, durable: u64) -> usize {
        self.queue.iter().take_while(|(after, _)| *after <= durable).count()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.writing.is_none() && self.snapshot.is_none()
    }
}

/// Notes as pages, of which the first is like `page` but for its notes; and the last one's checksum.
/// If `page` completes a snapshot, the last one does.
pub(super) fn to_pages(uuid: Uuid, notes: &[Note], mut page: Page) -> (Vec<u8>, u64) {
    let (mut bytes, mut crc) = (Vec::new(), page.chain);
    let (count, complete) = (notes.len().div_ceil(NOTES_MAX).max(1), page.complete);
    for at in 0..count {
        let end = notes.len().min((at + 1) * NOTES_MAX);
        page.notes = notes[at * NOTES_MAX..end].to_vec();
        page.complete = complete && at + 1 == count;
        page.chain = crc;
        let encoded = page.encode(uuid);
        bytes.extend(encoded.0);
        crc = encoded.1;
        page.index += 1;
    }
    (bytes, crc)
}

impl Engine {
    /// Notes something, which is true once the frame `after` is durable.
    pub(super) fn note(&mut self, after: u64, note: Note) {
        if self.refuses_writes().is_some()
            || is(Defect::NoDead) && matches!(note, Note::Dead { .. })
        {
            return;
        }
        self.notes.queue.push_back((after, note));
        self.notes.queued += 1;
    }

    /// Says of a copy in a segment's present life that it does not count.
    pub(super) fn dead(&self, segment: u32, page: u16) -> Note {
        Note::Dead { segment, seq: self.segments.get(segment).seq, page }
    }

    pub(super) fn step_notes(&mut self) {
        if self.notes.writing.is_some()
            || self.notes.snapshot.is_some()
            || self.refuses_writes().is_some()
        {
            return;
        }
        let ripe = self.notes.ripe(self.frames.durable);
        let due = self.now.mono >= self.notes.last + self.options.flush_every;
        let failed = self.frames.has_unsettled(self.notes.written);
        if ripe == 0 || !(due || failed || ripe >= NOTES_MAX || self.presses_notes()) {
            return;
        }
        let room = (self.layout.half_pages - self.notes.next) as usize;
        if room == 0 {
            self.start_snapshot();
            return;
        }
        let pages = ripe.div_ceil(NOTES_MAX).min(WRITE_PAGES).min(room);
        let Some(piece) = self.meta.take((pages * PAGE) as u64) else { return };
        let count = ripe.min(pages * NOTES_MAX);
        let notes: Vec<Note> = self.notes.queue.drain(..count).map(|(_, note)| note).collect();
        notes.iter().for_each(|note| self.segments.noted(note));
        let Notes { half, epoch, session, next, chain, .. } = self.notes;
        let page = Page { epoch, session, index: next, chain, complete: false, notes: Vec::new() };
        let (bytes, chain) = to_pages(self.uuid, &notes, page);
        piece.span.write_at(0, &bytes);
        let from = piece.span.slice(0..bytes.len());
        self.notes.chain = chain;
        self.notes.last = self.now.mono;
        self.notes.writing = Some((count as u64, pages as u32, piece));
        self.budget.spend(bytes.len() as u64);
        self.device.write(Purpose::Log, self.layout.log_byte(half, next), from);
    }

    pub(super) fn log_ended(&mut self, result: Result<(), Error>) {
        let (count, pages, piece) = self.notes.writing.take().expect("notes were being written");
        self.meta.give_back(piece);
        self.again = true;
        match result {
            Ok(()) => {
                self.notes.written += count;
                self.notes.next += pages;
            }
            Err(why) => self.log_failed(&why),
        }
    }

    fn log_failed(&mut self, why: &Error) {
        self.go_read_only(&format!(
            "the index log could not be written: {why}; look at the device's health"
        ));
    }

    /// Says everything again in the other half, which is then the log.
    fn start_snapshot(&mut self) {
        let notes = self.segments.snapshot();
        let (half, epoch) = (1 - self.notes.half, self.notes.epoch + 1);
        let session = self.notes.session;
        let page = Page { epoch, session, index: 0, chain: 0, complete: true, notes: Vec::new() };
        let (bytes, chain) = to_pages(self.uuid, &notes, page);
        let memory = match HostMemory::new(bytes.len()).name("nvme-snapshot").build() {
            Ok(memory) => Span::whole(Arc::new(memory)),
            Err(why) => {
                self.go_read_only(&format!("no memory for a snapshot of the index log: {why}"));
                return;
            }
        };
        memory.write_at(0, &bytes);
        let pages = bytes.len() / PAGE;
        assert!(pages <= self.layout.half_pages as usize, "a half has room for any snapshot");
        let parts = pages.div_ceil(SNAPSHOT_PAGES);
        self.notes.snapshot = Some(Snapshot { parts, pages: pages as u32, chain });
        self.budget.spend(bytes.len() as u64);
        for part in 0..parts {
            let first = part * SNAPSHOT_PAGES;
            let from = memory.slice(first * PAGE..pages.min(first + SNAPSHOT_PAGES) * PAGE);
            let at = self.layout.log_byte(half, 0) + first as u64 * PAGE_BYTES;
            self.device.write(Purpose::Snapshot, at, from);
        }
    }

    pub(super) fn snapshot_ended(&mut self, result: Result<(), Error>) {
        if let Some(snapshot) = &mut self.notes.snapshot {
            snapshot.parts -= 1;
        }
        self.again = true;
        if let Err(why) = result {
            self.log_failed(&why);
        }
    }
}
