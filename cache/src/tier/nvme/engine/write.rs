//! Frames: from the jobs that wait to the device, and into the index.

use super::Engine;
use super::device::Purpose;
use super::frames::{Closed, Frame, Open, Origin, Placed};
use super::reclaim::Ready;
use crate::tier::Span;
use crate::tier::cold::{Failure, Job, Mark, Record};
use crate::tier::nvme::desk::Weight;
use crate::tier::nvme::disk::PAGE_BYTES;
use crate::tier::nvme::format::frame::{self, Block, Head, REACH_PAGES, ROOM_BYTES};
use crate::tier::nvme::format::record::{CODEC_NONE, pages};
use crate::tier::nvme::format::{Entry, PAGE, summary, sums};
use crate::tier::nvme::index::Place;
use crate::tier::nvme::pool::Piece;
use crate::tier::nvme::sabotage::{Defect, is};
use crate::tier::nvme::segments::State;

/// Free segments that only blocks which are written again may open.
const RESERVE: usize = 1;
/// Payload of a frame after which no block is added to it, pages.
const FRAME_PAGES: u32 = 2048;

impl Engine {
    pub(super) fn fill_frames(&mut self) {
        loop {
            while self.carry_out_next() {}
            if self.refuses_writes().is_some() || !self.build_frame() {
                return;
            }
        }
    }

    /// Makes a frame of what waits, as far as there is room; whether anything came of it.
    fn build_frame(&mut self) -> bool {
        let crowded = self.frames.writing() >= self.options.frames_max
            || self.frames.unflushed_bytes >= 2 * self.options.flush_bytes;
        if crowded || !self.has_candidate() {
            return false;
        }
        let before = self.writes.len() + self.reclaim.ready.len();
        let Some(mut header) = self.meta.take(PAGE_BYTES) else { return false };
        let mut blocks: Vec<Block> = Vec::new();
        let mut placed: Vec<Placed> = Vec::new();
        let (mut used, mut payload) = (0, 0);
        let mut sources: Vec<(u32, Span)> = Vec::new();
        let mut head_pages = 1;
        while let Some(len) = self.candidate_len() {
            let room = frame::header_bytes(len as usize);
            let alone = frame::header_pages(len as usize);
            if blocks.is_empty() {
                if !self.can_ever_fit(len) {
                    self.refuse_candidate(Failure::NoRoom);
                    continue;
                }
                if !self.make_room(alone + pages(len)) {
                    break;
                }
                if alone > 1 {
                    let Some(longer) = self.meta.take(u64::from(alone) * PAGE_BYTES) else { break };
                    self.meta.give_back(std::mem::replace(&mut header, longer));
                }
                head_pages = alone;
            } else {
                let open = self.frames.open.as_ref().expect("room was made for the first");
                let more = head_pages + payload + pages(len);
                let fits = open.fits(more, blocks.len() + 1, self.layout.segment_pages);
                let full = used + room > ROOM_BYTES
                    || head_pages > 1
                    || alone > 1
                    || self.reserved_for_moved();
                if full || !fits || payload >= FRAME_PAGES || head_pages + payload > REACH_PAGES {
                    break;
                }
            }
            let open = self.frames.open.as_ref().expect("room was made");
            let (segment, frame) = (open.segment, open.next);
            let page = frame + head_pages + payload;
            let taken = match self.take_candidate() {
                Take::Block(taken) => taken,
                Take::Refused => continue,
                Take::Wait => break,
            };
            let Taken { record, mark, origin, source, piece, sums } = *taken;
            let stored = record.len as u32;
            let entry = Entry { record, mark, codec: CODEC_NONE, stored, page, frame };
            let place =
                Place { page: self.layout.page(segment, page), head: (page - frame) as u16 };
            blocks.push(Block { entry, sums });
            placed.push(Placed { record, mark, place, origin, piece, doomed: false });
            if let Some(source) = source {
                sources.push((page, source));
            }
            used += room;
            payload += pages(len);
        }
        if blocks.is_empty() {
            self.meta.give_back(header);
            return self.writes.len() + self.reclaim.ready.len() != before;
        }
        self.send_frame(head_pages, payload, &blocks, placed, sources, header);
        true
    }

    fn send_frame(
        &mut self,
        pages: u32,
        payload_pages: u32,
        blocks: &[Block],
        placed: Vec<Placed>,
        sources: Vec<(u32, Span)>,
        header: Piece,
    ) {
        let (durable, session) = (self.frames.durable, self.session);
        let number = self.frames.last + 1;
        self.frames.last = number;
        let open = self.frames.open.as_mut().expect("blocks were placed in it");
        let Open { segment, seq, opened, next: page, chain, .. } = *open;
        let head = Head {
            segment,
            seq,
            session,
            number,
            durable,
            chain,
            page,
            opened,
            pages,
            payload_pages,
        };
        let (bytes, crc) = frame::encode(self.uuid, &head, blocks);
        header.span.write_at(0, &bytes);
        open.next += head.span();
        open.chain = crc;
        open.last = number;
        open.entries.extend(blocks.iter().map(|block| block.entry));
        let header_span = header.span.slice(0..bytes.len());
        let bytes = u64::from(head.span()) * PAGE_BYTES;
        self.budget.spend(bytes);
        self.frames.unflushed_bytes += bytes;
        self.frames.queue.push_back(Frame {
            number,
            segment,
            parts: 1 + sources.len(),
            failed: None,
            applied: false,
            settled_by: 0,
            blocks: placed,
            header: Some(header),
            waiting: Vec::new(),
            bytes,
        });
        self.device.write(Purpose::Frame(number), self.layout.byte(segment, page), header_span);
        for (page, source) in sources {
            self.device.write(Purpose::Frame(number), self.layout.byte(segment, page), source);
        }
    }

    /// Opens another segment if the open one has no room for so many pages with one more block; whether
    /// there is room now.
    fn make_room(&mut self, more: u32) -> bool {
        if self.reserved_for_moved() {
            self.refuse_for_room();
            return false;
        }
        if let Some(open) = &self.frames.open {
            if open.fits(more, 1, self.layout.segment_pages) {
                return true;
            }
            self.close_segment();
        }
        let reserve = if self.reclaim.ready.is_empty() { RESERVE } else { 0 };
        if self.segments.free() <= reserve {
            self.refuse_for_room();
            return false;
        }
        let Some(segment) = self.segments.open(self.now.wall) else { return false };
        let seq = self.segments.get(segment).seq;
        let opened = self.now.wall;
        let entries = Vec::new();
        self.frames.open = Some(Open { segment, seq, opened, next: 0, chain: 0, last: 0, entries });
        true
    }

    /// Adds no more frames to the open segment.
    pub(super) fn close_segment(&mut self) {
        let Some(open) = self.frames.open.take() else { return };
        let Open { segment, seq, opened, next: end, last, entries, .. } = open;
        if entries.is_empty() {
            // Nothing was written: its life, which may be given to another segment after a crash, must
            // leave no summary behind.
            self.segments.set_free(segment);
            return;
        }
        self.segments.get_mut(segment).state = State::Closing;
        self.settling.closed.push(Closed { segment, seq, opened, end, last, entries });
    }

    fn can_ever_fit(&self, len: u64) -> bool {
        let alone = u64::from(frame::header_pages(len as usize)) + u64::from(pages(len));
        alone + u64::from(summary::pages(1)) <= u64::from(self.layout.segment_pages)
    }

    /// Whether what room is left is for the blocks of segments that are being reclaimed: without them
    /// none would ever be free again.
    fn reserved_for_moved(&self) -> bool {
        self.reclaim.ready.is_empty() && self.segments.free() < RESERVE
    }

    /// Refuses the block that is next when no segment will become free without it.
    fn refuse_for_room(&mut self) {
        let hope = if self.reclaim.ready.is_empty() {
            self.reclaim.is_busy()
                || !self.settling.closed.is_empty()
                || self.segments.victim().is_some()
        } else {
            false
        };
        if !hope && self.segments.freeing() == 0 {
            self.refuse_candidate(Failure::NoRoom);
        }
    }

    fn has_candidate(&self) -> bool {
        self.candidate_len().is_some()
    }

    /// Bytes of the block that is written next: first what makes room for others.
    fn candidate_len(&self) -> Option<u64> {
        if let Some(ready) = self.reclaim.ready.front() {
            return Some(ready.entry.record.len);
        }
        match self.writes.front() {
            Some(Job::Store { from, .. }) => Some(from.len() as u64),
            _ => None,
        }
    }

    fn refuse_candidate(&mut self, why: Failure) {
        if let Some(ready) = self.reclaim.ready.pop_front() {
            self.moved.give_back(ready.piece);
            self.reclaim.ready_bytes -= ready.entry.record.len;
            return;
        }
        if let Some(job) = self.writes.pop_front() {
            let weight = Weight::of(&job);
            if let Job::Store { token, .. } = job {
                self.answer(token, weight, Err(why));
            }
        }
    }

    /// Takes the block that is written next.
    fn take_candidate(&mut self) -> Take {
        if let Some(ready) = self.reclaim.ready.pop_front() {
            self.reclaim.ready_bytes -= ready.entry.record.len;
            return self.take_moved(ready);
        }
        let Some(Job::Store { record, from, .. }) = self.writes.front() else { return Take::Wait };
        let record = *record;
        let bytes = u64::from(pages(record.len)) * PAGE_BYTES;
        if record.len != from.len() as u64 {
            let why = format!("a block of {} bytes came with {}", record.len, from.len());
            self.refuse_candidate(Failure::Io(why));
            return Take::Refused;
        }
        if !self.budget.allows(bytes) {
            self.refuse_candidate(Failure::Endurance);
            return Take::Refused;
        }
        let (source, piece) = if record.len == 0 {
            (None, None)
        } else if let Some(direct) = whole_pages(from) {
            (Some(direct), None)
        } else {
            let piece = if self.loads.is_waiting() { None } else { self.bounce.take(bytes) };
            let Some(piece) = piece else { return Take::Wait };
            copy(from, &piece.span);
            // What others left in the memory is nothing for the device.
            let rest = bytes as usize - from.len();
            piece.span.write_at(from.len(), &[0; PAGE][..rest]);
            (Some(piece.span.slice(0..bytes as usize)), Some(piece))
        };
        let sums = sums::of_chunks(from);
        if sums::of_whole(&sums, from.len()) != record.checksum {
            piece.into_iter().for_each(|piece| self.bounce.give_back(piece));
            self.refuse_candidate(Failure::Corrupt);
            return Take::Refused;
        }
        let job = self.writes.pop_front().expect("looked at");
        let weight = Weight::of(&job);
        let Job::Store { token, durable, .. } = job else { unreachable!("looked at") };
        let origin = Origin::Store { token, weight, durable };
        let sums = if sums.len() > 1 { sums } else { Vec::new() };
        Take::Block(Box::new(Taken { record, mark: Mark::default(), origin, source, piece, sums }))
    }

    /// The block that is to be written again, if it is still what its name stands for, and whole.
    fn take_moved(&mut self, ready: Ready) -> Take {
        let Ready { entry, place, piece } = ready;
        let record = entry.record;
        let name = record.name();
        let known = self.desk.index.lock().get(&name);
        let known = known.filter(|known| known.place == place);
        let newer = self.frames.queue.iter().filter(|frame| !frame.applied).any(|frame| {
            let store = |block: &&Placed| matches!(block.origin, Origin::Store { .. });
            frame.blocks.iter().filter(store).any(|block| block.record.name() == name)
        });
        let newer = newer && !is(Defect::LateCopy);
        let Some(known) = known.filter(|_| !newer) else {
            self.moved.give_back(piece);
            return Take::Refused;
        };
        let bytes = piece.span.slice(0..record.len as usize);
        let sums = sums::of_chunks(&bytes);
        if sums::of_whole(&sums, bytes.len()) != record.checksum {
            self.moved.give_back(piece);
            self.drop_damaged(&name, place);
            return Take::Refused;
        }
        let mark = Mark { hits: known.found.mark.hits / 2, parent: false };
        let padded = pages(record.len) as usize * PAGE;
        let source = (record.len > 0).then(|| piece.span.slice(0..padded));
        let sums = if sums.len() > 1 { sums } else { Vec::new() };
        let origin = Origin::Moved { from: place };
        Take::Block(Box::new(Taken { record, mark, origin, source, piece: Some(piece), sums }))
    }
}

/// What came of the block that is next.
enum Take {
    Block(Box<Taken>),
    /// It was refused, or is not wanted any more.
    Refused,
    /// It has to wait for memory.
    Wait,
}

/// A block on its way into a frame.
struct Taken {
    record: Record,
    mark: Mark,
    origin: Origin,
    source: Option<Span>,
    piece: Option<Piece>,
    sums: Vec<u64>,
}

/// The pages of a span that begins on one and may be used to the end of its last.
pub(super) fn whole_pages(span: &Span) -> Option<Span> {
    let start = span.offset() as u64;
    let end = start + (span.len() as u64).next_multiple_of(PAGE_BYTES);
    let aligned = (span.as_ptr() as usize).is_multiple_of(PAGE);
    (aligned && end <= span.memory().len() as u64)
        .then(|| Span::new(std::sync::Arc::clone(span.memory()), start..end))
}

/// Copies a span to the start of another.
pub(super) fn copy(from: &Span, to: &Span) {
    let mut some = [0; PAGE];
    for at in (0..from.len()).step_by(PAGE) {
        let len = PAGE.min(from.len() - at);
        from.read_at(at, &mut some[..len]);
        to.write_at(at, &some[..len]);
    }
}
