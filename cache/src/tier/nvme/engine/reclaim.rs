//! Making room: the segment that is worth least goes, and what is worth it is written again.

use std::collections::{HashMap, VecDeque};

use slab::Slab;

use super::Engine;
use super::device::Purpose;
use crate::identity::IdentityId;
use crate::key::Key;
use crate::tier::Lane;
use crate::tier::cold::{Mark, Name};
use crate::tier::nvme::disk::PAGE_BYTES;
use crate::tier::nvme::format::log::Note;
use crate::tier::nvme::format::record::pages;
use crate::tier::nvme::format::{Entry, Layout, PAGE, summary};
use crate::tier::nvme::index::{Index, Known, Place};
use crate::tier::nvme::pool::Piece;
use crate::tier::nvme::sabotage::{Defect, is};
use crate::tier::nvme::segments::State;

/// Pages of a summary that are read at first: enough for blocks of a MiB.
pub(super) fn tail_pages(layout: &Layout) -> u32 {
    (layout.segment_pages / 4096).clamp(1, 4)
}

/// Slots of the index that are looked through in a step.
const SLOTS: u32 = 4096;
/// Blocks of a chain that are kept for the sake of one.
const CHAIN_MAX: usize = 64;

/// A block that was read to be written again.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) entry: Entry,
    pub(super) place: Place,
    pub(super) piece: Piece,
}

/// The segment whose blocks are looked through.
#[derive(Debug)]
struct Victim {
    segment: u32,
    seq: u64,
    /// Its summary, while it is read.
    tail: Option<Piece>,
    /// Blocks that are to be written again.
    keep: VecDeque<(Entry, Place)>,
    /// All of them.
    names: Vec<(Name, Place)>,
}

/// A segment that goes as soon as nothing holds it.
#[derive(Debug)]
struct Leaving {
    segment: u32,
    seq: u64,
    /// When this frame is durable, what was worth it is safe.
    after: u64,
    names: Vec<(Name, Place)>,
    /// The slot from which on the index is looked through for what has no name here.
    next: u32,
}

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Reclaim {
    victim: Option<Victim>,
    moving: Slab<(Entry, Place, Piece)>,
    pub(super) ready: VecDeque<Ready>,
    pub(super) ready_bytes: u64,
    leaving: Vec<Leaving>,
}

impl Reclaim {
    pub(super) fn is_busy(&self) -> bool {
        self.victim.is_some() || !self.leaving.is_empty()
    }

    pub(super) fn waits_for_flush(&self) -> bool {
        !self.leaving.is_empty()
    }
}

impl Engine {
    pub(super) fn step_reclaim(&mut self) {
        if self.refuses_writes().is_some() {
            return;
        }
        self.free_leaving();
        if self.reclaim.victim.is_none() && self.needs_room() {
            self.choose_victim();
        }
        self.read_blocks();
        let over = self
            .reclaim
            .victim
            .as_ref()
            .is_some_and(|victim| victim.tail.is_none() && victim.keep.is_empty());
        if over && self.reclaim.moving.is_empty() && self.reclaim.ready.is_empty() {
            let Victim { segment, seq, names, .. } = self.reclaim.victim.take().expect("looked at");
            let after = self.frames.last;
            self.reclaim.leaving.push(Leaving { segment, seq, after, names, next: 0 });
            self.again = true;
        }
    }

    /// Whether too few segments are free, or about to be.
    fn needs_room(&self) -> bool {
        let coming = self.segments.freeing() + self.reclaim.leaving.len();
        let low = (self.layout.segments as usize / 32).clamp(2, 32);
        let wanted = !self.closing.began() || !self.writes.is_empty();
        wanted && self.segments.free() + coming < low
    }

    fn choose_victim(&mut self) {
        let Some(segment) = self.segments.victim() else { return };
        let tail_pages = tail_pages(&self.layout);
        let empty = self.segments.get(segment).blocks == 0;
        let tail = if empty { None } else { self.meta.take(u64::from(tail_pages) * PAGE_BYTES) };
        if tail.is_none() && !empty {
            return;
        }
        let inside = self.segments.get_mut(segment);
        inside.state = State::Leaving;
        let seq = inside.seq;
        if let Some(tail) = &tail {
            let into = tail.span.slice(0..tail_pages as usize * PAGE);
            self.read_tail(segment, tail_pages, into);
        }
        let (keep, names) = (VecDeque::new(), Vec::new());
        self.reclaim.victim = Some(Victim { segment, seq, tail, keep, names });
    }

    fn read_tail(&mut self, segment: u32, pages: u32, into: crate::tier::Span) {
        let at = self.layout.byte(segment, self.layout.segment_pages - pages);
        self.device.read(Purpose::VictimSummary, Lane::Write, at, into);
    }

    pub(super) fn victim_summary_ended(&mut self, read: bool) {
        self.again = true;
        let Some(victim) = &mut self.reclaim.victim else { return };
        let tail = victim.tail.take().expect("its summary was being read");
        let (segment, seq) = (victim.segment, victim.seq);
        if self.refuses_writes().is_some() {
            self.meta.give_back(tail);
            self.stop_reclaim();
            return;
        }
        let mut bytes = vec![0; tail.span.len()];
        tail.span.read_at(0, &mut bytes);
        self.meta.give_back(tail);
        let trailer = summary::peek(&bytes, self.uuid).ok().filter(|_| read);
        let trailer = trailer.filter(|trailer| trailer.pages <= self.layout.segment_pages);
        if let Some(trailer) = trailer
            && trailer.pages as usize * PAGE > bytes.len()
        {
            let Some(tail) = self.meta.take(u64::from(trailer.pages) * PAGE_BYTES) else {
                // It is chosen again, it or another, when there is memory.
                self.reclaim.victim = None;
                self.segments.get_mut(segment).state = State::Sealed;
                return;
            };
            let into = tail.span.slice(0..trailer.pages as usize * PAGE);
            self.read_tail(segment, trailer.pages, into);
            self.reclaim.victim.as_mut().expect("looked at").tail = Some(tail);
            return;
        }
        let entries = match summary::decode(&bytes, self.uuid) {
            Ok((trailer, entries)) if trailer.seq == seq && read => entries,
            // Nobody knows what is in it: everything goes.
            _ => Vec::new(),
        };
        self.sort_out(segment, &entries);
    }

    /// Decides what of a segment is written again; the rest leaves the index now.
    fn sort_out(&mut self, segment: u32, entries: &[Entry]) {
        let age = self.now.wall.since(self.segments.get(segment).opened);
        let percent = u64::from(self.options.reinsert_percent.min(90));
        let budget = u64::from(self.layout.segment_pages) * percent / 100;
        let index = self.desk.index.lock();
        let known: Vec<(&Entry, Known)> = entries
            .iter()
            .filter_map(|entry| {
                let page = self.layout.page(segment, entry.page);
                let known = index.get(&entry.record.name())?;
                (known.place.page == page).then_some((entry, known))
            })
            .collect();
        drop(index);
        // The judge is somebody else's code, and takes its time: nobody waits for it. Only this thread
        // takes blocks out, so what is known stays true.
        let blocks: Vec<(Name, Mark)> =
            known.iter().map(|(entry, known)| (entry.record.name(), known.found.mark)).collect();
        let worth = self.judge.worth(&blocks, age);
        let candidate = |((entry, Known { place, slot, found }), worth): ((&Entry, _), f32)| {
            let expired = found.expires.is_some_and(|at| at <= self.now.wall);
            let worth = if expired { 0.0 } else { worth };
            Candidate { entry: *entry, place, slot, worth }
        };
        let alive: Vec<Candidate> = known.into_iter().zip(worth).map(candidate).collect();
        debug_assert_eq!(alive.len(), blocks.len(), "each was judged");
        let kept = choose(&alive, budget);
        let mut stays = vec![false; alive.len()];
        kept.iter().for_each(|at| stays[*at] = true);
        let mut gone = Vec::new();
        let mut index = self.desk.index.lock();
        for (candidate, _) in alive.iter().zip(&stays).filter(|(_, stays)| !**stays) {
            evict(&mut index, candidate.slot, &mut gone);
        }
        drop(index);
        let notes = self.count_evicted(&gone);
        // What leaves is noted now: the segment may be held up, and a newer version of a block come and
        // go meanwhile.
        if kept.is_empty() && self.segments.get(segment).blocks == 0 {
            let seq = self.segments.get(segment).seq;
            self.note(0, Note::Freed { segment, seq });
        } else {
            notes.into_iter().for_each(|note| self.note(0, note));
        }
        let victim = self.reclaim.victim.as_mut().expect("its summary was read");
        victim.names = alive.iter().map(|some| (some.entry.record.name(), some.place)).collect();
        victim.keep = kept.iter().map(|at| (alive[*at].entry, alive[*at].place)).collect();
    }

    fn count_evicted(&mut self, gone: &[(Place, u64)]) -> Vec<Note> {
        self.figures.evicted += gone.len() as u64;
        gone.iter().map(|(place, len)| self.segments.sub(place.page, *len)).collect()
    }

    /// Reads blocks that are to be written again, as far as memory reaches.
    fn read_blocks(&mut self) {
        loop {
            let Some(victim) = &mut self.reclaim.victim else { return };
            let Some((entry, place)) = victim.keep.front().copied() else { return };
            let bytes = u64::from(pages(entry.record.len)) * PAGE_BYTES;
            let Some(piece) = self.moved.take(bytes) else { return };
            victim.keep.pop_front();
            let into = piece.span.slice(0..bytes as usize);
            let at = u64::from(place.page) * PAGE_BYTES;
            let moving = self.reclaim.moving.insert((entry, place, piece));
            self.device.read(Purpose::VictimBlock(moving), Lane::Write, at, into);
        }
    }

    pub(super) fn victim_block_ended(&mut self, moving: usize, read: bool) {
        self.again = true;
        let (entry, place, piece) = self.reclaim.moving.remove(moving);
        if !read || self.reclaim.victim.is_none() {
            // It is taken out with its segment.
            self.moved.give_back(piece);
            return;
        }
        self.reclaim.ready_bytes += entry.record.len;
        self.reclaim.ready.push_back(Ready { entry, place, piece });
    }

    /// Frees segments that nothing holds any more.
    fn free_leaving(&mut self) {
        let mut at = 0;
        while at < self.reclaim.leaving.len() {
            let Leaving { segment, seq, after, .. } = self.reclaim.leaving[at];
            let early = is(Defect::EarlyFree) && self.frames.written_to(after);
            let safe = after <= self.frames.durable || early;
            // A load may begin as long as there is something left to read.
            let unread = self.segments.get(segment).readers == 0 || is(Defect::EarlyReuse);
            if !safe || !unread || !self.empty(at) {
                at += 1;
                continue;
            }
            self.reclaim.leaving.remove(at);
            self.note(0, Note::Freed { segment, seq });
            if is(Defect::LostSegment) {
                continue;
            }
            let notes = if is(Defect::EarlyOpen) { 0 } else { self.notes.queued() };
            self.segments.free_after(notes, segment);
            self.again = true;
        }
    }

    /// Takes out what is left of a segment that leaves; whether that is all. What its summary did not
    /// name, or whose identity was cleared, is looked for in all slots, some in each step.
    fn empty(&mut self, at: usize) -> bool {
        let leaving = &mut self.reclaim.leaving[at];
        let segment = leaving.segment;
        let mut gone = Vec::new();
        let mut index = self.desk.index.lock();
        for (name, place) in leaving.names.drain(..) {
            if let Some(known) = index.get(&name).filter(|known| known.place == place) {
                evict(&mut index, known.slot, &mut gone);
            }
        }
        let blocks = self.segments.get(segment).blocks as usize;
        if blocks > gone.len() {
            let first = if leaving.next >= index.slots() { 0 } else { leaving.next };
            let end = first.saturating_add(SLOTS).min(index.slots());
            leaving.next = end;
            for slot in first..end {
                let inside = index.inside(slot);
                if inside.is_some_and(|known| self.layout.split(known.place.page).0 == segment) {
                    evict(&mut index, slot, &mut gone);
                }
            }
        }
        drop(index);
        let over = blocks == gone.len();
        let notes = self.count_evicted(&gone);
        if !over {
            // Newer versions may come and go before the segment is free.
            notes.into_iter().for_each(|note| self.note(0, note));
            self.again = true;
        }
        over
    }

    /// Gives up what is under way; the segments stay as they are.
    pub(super) fn stop_reclaim(&mut self) {
        for Ready { piece, .. } in std::mem::take(&mut self.reclaim.ready) {
            self.moved.give_back(piece);
        }
        self.reclaim.ready_bytes = 0;
        self.reclaim.leaving.clear();
        if self.reclaim.victim.as_ref().is_some_and(|victim| victim.tail.is_none()) {
            self.reclaim.victim = None;
        }
    }
}

/// A block of a segment that is reclaimed.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    entry: Entry,
    place: Place,
    slot: u32,
    worth: f32,
}

/// Which blocks are written again, in this order: the worthiest that there is room for, each after
/// those that it follows.
fn choose(alive: &[Candidate], budget: u64) -> Vec<usize> {
    let by_key: HashMap<(IdentityId, Key), usize> = alive
        .iter()
        .enumerate()
        .map(|(at, some)| ((some.entry.record.identity, some.entry.record.link.key), at))
        .collect();
    let mut order: Vec<usize> = (0..alive.len()).filter(|at| alive[*at].worth >= 1.0).collect();
    order.sort_by(|a, b| {
        let position = |at: usize| alive[at].entry.record.link.position;
        alive[*b].worth.total_cmp(&alive[*a].worth).then(position(*a).cmp(&position(*b)))
    });
    let (mut left, mut taken, mut chosen) = (budget, vec![false; alive.len()], Vec::new());
    for at in order {
        let (mut chain, mut next) = (Vec::new(), Some(at));
        while let Some(at) = next.filter(|at| !taken[*at] && !chain.contains(at)) {
            chain.push(at);
            if chain.len() == CHAIN_MAX {
                break;
            }
            let record = &alive[at].entry.record;
            let parent = record.link.parent.map(|parent| (record.identity, parent));
            next = parent.and_then(|parent| by_key.get(&parent).copied());
        }
        let pages: u64 = chain.iter().map(|at| u64::from(alive[*at].entry.pages())).sum();
        if pages > left {
            continue;
        }
        left -= pages;
        for at in chain.into_iter().rev() {
            taken[at] = true;
            chosen.push(at);
        }
    }
    chosen
}

fn evict(index: &mut Index, slot: u32, gone: &mut Vec<(Place, u64)>) {
    let known = index.remove(slot);
    gone.push((known.place, known.found.len));
}

#[cfg(test)]
mod tests;
