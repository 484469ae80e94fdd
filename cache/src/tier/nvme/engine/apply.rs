//! Frames that were written take effect: in the index, and for who waits.

use super::Engine;
use super::frames::{Origin, Placed};
use crate::tier::cold::{Failure, Found, Mark, Name, Record};
use crate::tier::nvme::disk::Error;
use crate::tier::nvme::index::{Index, Place};
use crate::tier::nvme::sabotage::{Defect, is};
use crate::tier::nvme::segments::State;

impl Engine {
    pub(super) fn frame_part_ended(&mut self, number: u64, result: Result<(), Error>) {
        let frames = &mut self.frames.queue;
        let frame = frames.iter_mut().find(|frame| frame.number == number);
        let frame = frame.expect("a frame waits for its parts");
        frame.parts -= 1;
        if let Err(why) = result {
            frame.failed = Some(why.to_string());
        }
    }

    /// Lets frames take effect, in their order, as soon as they are written.
    pub(super) fn advance_frames(&mut self) {
        loop {
            let mut waiting = self.frames.queue.iter_mut().filter(|frame| !frame.applied);
            let Some(frame) = waiting.next().filter(|frame| frame.parts == 0) else { return };
            frame.applied = true;
            let (number, segment) = (frame.number, frame.segment);
            let (blocks, header) = (std::mem::take(&mut frame.blocks), frame.header.take());
            let mut failed = frame.failed.take();
            header.into_iter().for_each(|header| self.meta.give_back(header));
            if self.segments.get(segment).state == State::Retired && failed.is_none() {
                // It cannot be found again behind a frame that is not whole.
                failed = Some("a frame before it could not be written".to_owned());
            }
            match failed {
                None => self.apply(number, blocks),
                Some(why) => self.undo(number, segment, blocks, &why),
            }
        }
    }

    fn apply(&mut self, number: u64, blocks: Vec<Placed>) {
        self.writes_work();
        let mut waiting = Vec::new();
        for Placed { record, mark, place, origin, piece, doomed } in blocks {
            match origin {
                Origin::Store { token, weight, durable } => {
                    piece.into_iter().for_each(|piece| self.bounce.give_back(piece));
                    let there_is_room = self.put(number, &record, mark, place, doomed);
                    if !there_is_room {
                        self.answer(token, weight, Err(Failure::NoRoom));
                        continue;
                    }
                    self.figures.stored += 1;
                    self.figures.stored_bytes += record.len;
                    if durable && let Some(why) = self.refuses_writes() {
                        self.answer(token, weight, Err(Failure::Unavailable(why)));
                    } else if durable && !is(Defect::NoFlush) {
                        waiting.push((token, weight));
                    } else {
                        self.answer(token, weight, Ok(None));
                    }
                }
                Origin::Answered => {
                    piece.into_iter().for_each(|piece| self.bounce.give_back(piece));
                }
                Origin::Moved { from } => {
                    piece.into_iter().for_each(|piece| self.moved.give_back(piece));
                    self.relocate(number, &record, mark, from, place);
                }
            }
        }
        let frame = self.frames.queue.iter_mut().find(|frame| frame.number == number);
        frame.expect("a frame stays until it is durable").waiting = waiting;
    }

    /// Puts a new block into the index; whether there was room for its identity.
    fn put(
        &mut self,
        number: u64,
        record: &Record,
        mark: Mark,
        place: Place,
        doomed: bool,
    ) -> bool {
        let (name, len) = (record.name(), record.len);
        self.segments.add(place.page, len);
        if doomed {
            let note = self.segments.sub(place.page, len);
            self.note(0, note);
            return true;
        }
        let found = Found { len, checksum: record.checksum, expires: record.expires, mark };
        let mut index = self.desk.index.lock();
        let inserted = index.insert(&name, place, &found);
        let (there_is_room, before) = (inserted.is_some(), inserted.flatten());
        if there_is_room {
            mark_parent(&mut index, record);
        }
        drop(index);
        if !there_is_room {
            let note = self.segments.sub(place.page, len);
            self.note(0, note);
        } else if let Some(before) = before
            && !is(Defect::LostSpace)
        {
            let note = self.segments.sub(before.place.page, before.found.len);
            // The old copy stands in for the new one until that is safe.
            self.note(if is(Defect::EarlyDead) { 0 } else { number }, note);
        }
        there_is_room
    }

    /// Lets the index name the new copy of a block that was written again.
    fn relocate(&mut self, number: u64, record: &Record, mark: Mark, from: Place, to: Place) {
        self.segments.add(to.page, record.len);
        let mut index = self.desk.index.lock();
        let known = index.get(&record.name()).filter(|known| known.place == from);
        if let Some(known) = known {
            let hits = mark.hits.max(known.found.mark.hits / 2);
            index.relocate(known.slot, to, Mark { hits, ..mark });
            mark_parent(&mut index, record);
        }
        drop(index);
        if known.is_some() {
            // Its segment goes as a whole, but maybe later than a newer version of the block.
            let note = self.segments.sub(from.page, record.len);
            self.note(if is(Defect::EarlyFree) { 0 } else { number }, note);
            self.figures.reinserted += 1;
        } else {
            let note = self.segments.sub(to.page, record.len);
            self.note(0, note);
        }
    }

    /// Takes back a frame that could not be written.
    fn undo(&mut self, number: u64, segment: u32, blocks: Vec<Placed>, why: &str) {
        for Placed { place, origin, piece, .. } in blocks {
            let (_, page) = self.layout.split(place.page);
            let note = self.dead(segment, page as u16);
            self.note(0, note);
            match origin {
                Origin::Store { token, weight, .. } => {
                    piece.into_iter().for_each(|piece| self.bounce.give_back(piece));
                    self.answer(token, weight, Err(Failure::Io(why.to_owned())));
                }
                Origin::Answered => {
                    piece.into_iter().for_each(|piece| self.bounce.give_back(piece));
                }
                Origin::Moved { .. } => {
                    piece.into_iter().for_each(|piece| self.moved.give_back(piece));
                }
            }
        }
        let settled_by = self.notes.queued();
        let frame = self.frames.queue.iter_mut().find(|frame| frame.number == number);
        frame.expect("a frame stays until it is durable").settled_by = settled_by;
        self.retire(segment, why);
    }

    /// Takes what is on its way and named so for removed.
    pub(super) fn doom(&mut self, named: &dyn Fn(&Name) -> bool) {
        for block in self.frames.queue.iter_mut().flat_map(|frame| &mut frame.blocks) {
            block.doomed |= named(&block.record.name());
        }
    }

    /// Frames up to `number` are on the device for good.
    pub(super) fn frames_durable(&mut self, number: u64) {
        self.frames.durable = number;
        while self.frames.queue.front().is_some_and(|frame| frame.number <= number) {
            let frame = self.frames.queue.pop_front().expect("looked at");
            self.frames.unflushed_bytes -= frame.bytes;
            for (token, weight) in frame.waiting {
                self.answer(token, weight, Ok(None));
            }
        }
    }
}

/// Remembers that a block which follows was written.
fn mark_parent(index: &mut Index, record: &Record) {
    let Some(key) = record.link.parent else { return };
    if let Some(parent) = index.get(&Name { identity: record.identity, key }) {
        index.mark(parent.slot, |mark| mark.parent = true);
    }
}
