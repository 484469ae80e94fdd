//! Loads: the bytes of a block, and the header of its frame, which says what they must be.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

use slab::Slab;

use super::Engine;
use super::device::Purpose;
use super::write::whole_pages;
use crate::tier::cold::{Failure, Job, Mark, Name, Record};
use crate::tier::nvme::desk::Weight;
use crate::tier::nvme::disk::{Error, PAGE_BYTES};
use crate::tier::nvme::format::PAGE;
use crate::tier::nvme::format::frame::{self, Block};
use crate::tier::nvme::format::record::{CODEC_NONE, pages};
use crate::tier::nvme::format::sums::{CHUNK_BYTES, stored};
use crate::tier::nvme::index::{Known, Place};
use crate::tier::nvme::pool::Piece;
use crate::tier::nvme::sabotage::{Defect, is};
use crate::tier::{Lane, Span};
use crate::time::Millis;

/// How far a load has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The device was not asked yet.
    Queued,
    /// It was.
    Reading,
}

#[derive(Debug)]
struct Load {
    token: u64,
    weight: Weight,
    name: Name,
    range: Range<u64>,
    /// None once it was answered.
    into: Option<Span>,
    deadline: Millis,
    stage: Stage,
    reading: Option<Reading>,
}

/// What the device was asked for.
#[derive(Debug)]
struct Reading {
    known: Known,
    segment: u32,
    parts: u8,
    header: Piece,
    /// Where the bytes are that are checked, and which of the block's they begin with; none when they
    /// go straight.
    bounced: Option<(Piece, u64)>,
    /// Which bytes of the block are read.
    read: Range<u64>,
    failed: Option<Error>,
    late: bool,
}

impl Reading {
    /// The device does not write to the load's span.
    fn is_apart(&self) -> bool {
        self.bounced.is_some() || self.read.is_empty()
    }
}

/// All loads.
#[derive(Debug, Default)]
pub(super) struct Loads {
    all: Slab<Load>,
    queues: [VecDeque<usize>; 3],
    /// Loads of each lane that the device was asked for.
    reading: [usize; 3],
    /// One waits for memory: what comes back is for it.
    waiting: bool,
    deadlines: BTreeSet<(Millis, usize)>,
}

impl Loads {
    pub(super) fn due(&self) -> Option<Millis> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    pub(super) fn ids(&self) -> Vec<usize> {
        self.all.iter().map(|(id, _)| id).collect()
    }

    pub(super) fn stage(&self, id: usize) -> Stage {
        self.all[id].stage
    }

    /// Whether one waits for memory.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

impl Engine {
    pub(super) fn queue_load(&mut self, job: Job) {
        let weight = Weight::of(&job);
        let Job::Load { token, name, range, into, lane, within } = job else { return };
        let deadline = self.now.mono + Millis::from(within);
        let (into, stage, reading) = (Some(into), Stage::Queued, None);
        let load = Load { token, weight, name, range, into, deadline, stage, reading };
        let id = self.loads.all.insert(load);
        self.loads.queues[lane as usize].push_back(id);
        self.loads.deadlines.insert((deadline, id));
    }

    /// Answers loads whose time is over. Where the device may still write to the span, the answer
    /// waits for it.
    pub(super) fn expire_loads(&mut self) {
        while let Some((_, id)) = self.loads.deadlines.first().copied() {
            if self.loads.all[id].deadline > self.now.mono {
                return;
            }
            self.loads.deadlines.pop_first();
            let load = &mut self.loads.all[id];
            match &mut load.reading {
                None => self.end_load(id, Err(Failure::Deadline)),
                Some(reading) if !reading.is_apart() => reading.late = true,
                Some(_) => {
                    let (token, weight) = (load.token, load.weight);
                    load.into = None;
                    if is(Defect::LostCredit) {
                        self.done.push(crate::tier::cold::Done {
                            token,
                            result: Err(Failure::Deadline),
                        });
                    } else {
                        self.answer(token, weight, Err(Failure::Deadline));
                    }
                }
            }
        }
    }

    /// Answers loads to whose spans the device writes nothing. To the others it may write as long as it
    /// has them: they are not answered before it lets go.
    pub(super) fn answer_bounced_loads(&mut self, why: &Failure) {
        for id in self.loads.ids() {
            let load = &mut self.loads.all[id];
            let apart = load.reading.as_ref().is_some_and(Reading::is_apart);
            if apart && load.into.take().is_some() {
                let (token, weight) = (load.token, load.weight);
                self.loads.deadlines.remove(&(load.deadline, id));
                self.answer(token, weight, Err(why.clone()));
            }
        }
    }

    /// Asks the device for what waits, lane by lane.
    pub(super) fn start_loads(&mut self) {
        self.loads.waiting = false;
        for lane in [Lane::Demand, Lane::Prefetch, Lane::Write] {
            loop {
                let reading: usize = self.loads.reading.iter().sum();
                // A later lane leaves room for an earlier one.
                let share = match lane {
                    Lane::Demand => self.options.loads_max,
                    Lane::Prefetch => self.options.loads_max * 3 / 4,
                    Lane::Write => self.options.loads_max / 2,
                };
                if reading >= share.max(1) {
                    break;
                }
                let Some(id) = self.loads.queues[lane as usize].pop_front() else { break };
                if !self.start_load(id, lane) {
                    self.loads.queues[lane as usize].push_front(id);
                    // Later lanes wait, too, and so do stores.
                    self.loads.waiting = true;
                    return;
                }
            }
        }
    }

    /// Starts a load, or answers it; false when it has to wait for memory.
    fn start_load(&mut self, id: usize, lane: Lane) -> bool {
        let load = &self.loads.all[id];
        let (name, range) = (load.name, load.range.clone());
        let now = if is(Defect::NoExpiry) { crate::time::Wall(0) } else { self.now.wall };
        let Some(known) = self.desk.index.lock().find(&name, now) else {
            self.end_load(id, Err(Failure::Gone));
            return true;
        };
        let into = load.into.as_ref().expect("a load that is not answered has its span");
        let len = known.found.len;
        if range.start > range.end
            || range.end > len
            || range.end - range.start != into.len() as u64
        {
            let span = into.len();
            let why = format!("bytes {range:?} of a block of {len} do not go into {span}");
            self.end_load(id, Err(Failure::Io(why)));
            return true;
        }
        let (read, direct) = plan(&range, len, into);
        let bytes = u64::from(pages(read.end - read.start)) * PAGE_BYTES;
        let header_pages = frame::header_pages(len as usize);
        let Some(header) = self.meta.take(u64::from(header_pages) * PAGE_BYTES) else {
            return false;
        };
        let (target, bounced) = match direct {
            Some(span) => (Some(span), None),
            None if read.is_empty() => (None, None),
            None => {
                let Some(piece) = self.bounce.take(bytes) else {
                    self.meta.give_back(header);
                    return false;
                };
                (Some(piece.span.slice(0..bytes as usize)), Some((piece, read.start)))
            }
        };
        let Place { page, head } = known.place;
        let (segment, _) = self.layout.split(page);
        self.segments.get_mut(segment).readers += 1;
        self.loads.reading[lane as usize] += 1;
        let at = u64::from(page) * PAGE_BYTES + read.start;
        let header_at = u64::from(page - u32::from(head)) * PAGE_BYTES;
        let header_span = header.span.slice(0..header_pages as usize * PAGE);
        let parts = 1 + u8::from(target.is_some());
        let load = &mut self.loads.all[id];
        load.stage = Stage::Reading;
        let late = false;
        load.reading =
            Some(Reading { known, segment, parts, header, bounced, read, failed: None, late });
        self.device.read(Purpose::Load(id), lane, header_at, header_span);
        if let Some(target) = target {
            self.device.read(Purpose::Load(id), lane, at, target);
        }
        true
    }

    pub(super) fn load_part_ended(&mut self, id: usize, result: Result<(), Error>) {
        let load = &mut self.loads.all[id];
        let reading = load.reading.as_mut().expect("the device was asked");
        reading.parts -= 1;
        if let Err(why) = result {
            reading.failed = Some(why);
        }
        if reading.parts > 0 {
            return;
        }
        let reading = load.reading.take().expect("looked at");
        self.loads.reading[load.weight.lane as usize] -= 1;
        self.segments.get_mut(reading.segment).readers -= 1;
        self.again = true;
        let result = match &reading.failed {
            _ if reading.late => Err(Failure::Deadline),
            Some(why) => Err(Failure::Io(why.to_string())),
            None => self.check(id, &reading),
        };
        self.meta.give_back(reading.header);
        if let Some((piece, _)) = reading.bounced {
            self.bounce.give_back(piece);
        }
        let load = &self.loads.all[id];
        if matches!(result, Err(Failure::Corrupt)) {
            let name = load.name;
            self.drop_damaged(&name, reading.known.place);
        } else if let (Ok(Some(_)), Some(into)) = (&result, &load.into) {
            self.figures.loaded += 1;
            self.figures.loaded_bytes += into.len() as u64;
            let name = load.name;
            self.segments.get_mut(reading.segment).hits += 1;
            let mut index = self.desk.index.lock();
            if let Some(known) = index.get(&name) {
                let more = |mark: &mut Mark| mark.hits = (mark.hits + 1).min(Mark::HITS_MAX);
                index.mark(known.slot, more);
            }
        }
        self.end_load(id, result);
    }

    /// Checks what was read against the header and the index, and brings it to the span.
    fn check(&self, id: usize, reading: &Reading) -> Result<Option<Record>, Failure> {
        let Load { name, range, into, .. } = &self.loads.all[id];
        let Some(into) = into else { return Err(Failure::Deadline) };
        let found = &reading.known.found;
        let mut bytes = vec![0; reading.header.span.len()];
        reading.header.span.read_at(0, &mut bytes);
        let header = frame::decode(&bytes, self.uuid).map_err(|_| Failure::Corrupt)?;
        let (_, page) = self.layout.split(reading.known.place.page);
        let mut blocks = header.blocks.iter();
        let block =
            blocks.find(|block| block.entry.page == page && block.entry.record.name() == *name);
        let block = block.ok_or(Failure::Corrupt)?;
        let record = block.entry.record;
        if record.len != found.len || record.checksum != found.checksum {
            return Err(Failure::Corrupt);
        }
        if record.expires.is_some_and(|at| at <= self.now.wall) && !is(Defect::NoExpiry) {
            return Err(Failure::Gone);
        }
        if block.entry.codec != CODEC_NONE {
            let codec = block.entry.codec;
            return Err(Failure::Io(format!(
                "the block is coded in a way ({codec}) not known here"
            )));
        }
        let source = reading.bounced.as_ref();
        let whole = reading.read == (0..found.len);
        let bytes = match source {
            Some((piece, _)) => {
                piece.span.slice(0..(reading.read.end - reading.read.start) as usize)
            }
            None => into.clone(),
        };
        let good = if whole {
            is(Defect::NoCheck) || bytes.checksum() == found.checksum
        } else {
            is(Defect::NoChunkCheck) || chunks_agree(&bytes, reading.read.start, block)
        };
        if !good {
            return Err(Failure::Corrupt);
        }
        if let Some((piece, first)) = source {
            let start = (range.start - first) as usize;
            super::write::copy(&piece.span.slice(start..start + into.len()), into);
        }
        Ok(Some(record))
    }

    /// Takes a block whose bytes are not what they should be out, unless there is another copy.
    pub(super) fn drop_damaged(&mut self, name: &Name, place: Place) {
        let mut index = self.desk.index.lock();
        let known = index.get(name).filter(|known| known.place == place);
        let Some(known) = known else { return };
        index.remove(known.slot);
        drop(index);
        self.figures.corrupt += 1;
        let note = self.segments.sub(place.page, known.found.len);
        self.note(0, note);
    }

    /// Answers a load, and forgets it.
    pub(super) fn end_load(&mut self, id: usize, result: Result<Option<Record>, Failure>) {
        let load = self.loads.all.remove(id);
        self.loads.deadlines.remove(&(load.deadline, id));
        if load.stage == Stage::Queued {
            self.loads.queues[load.weight.lane as usize].retain(|queued| *queued != id);
        }
        if load.into.is_some() {
            self.answer(load.token, load.weight, result);
        }
    }
}

/// Which bytes of a block are read for a range of it, and the span that they can go to directly.
fn plan(range: &Range<u64>, len: u64, into: &Span) -> (Range<u64>, Option<Span>) {
    if range.is_empty() {
        return (range.start..range.start, None);
    }
    if *range == (0..len) {
        return (range.clone(), whole_pages(into));
    }
    let chunk = CHUNK_BYTES as u64;
    let read = range.start / chunk * chunk..range.end.next_multiple_of(chunk).min(len);
    // A part of a block owns no byte beyond it.
    let direct = whole_pages(into).filter(|_| *range == read && into.len().is_multiple_of(PAGE));
    (read, direct)
}

/// Whether bytes that begin at a chunk of a block are those of its chunks.
fn chunks_agree(bytes: &Span, first: u64, block: &Block) -> bool {
    debug_assert!(stored(block.entry.record.len as usize) == block.sums.len());
    let starts = (0..bytes.len()).step_by(CHUNK_BYTES);
    starts.enumerate().all(|(at, start)| {
        let sum = block.sums.get(first as usize / CHUNK_BYTES + at);
        let chunk = bytes.slice(start..bytes.len().min(start + CHUNK_BYTES));
        sum.is_some_and(|sum| chunk.checksum() == *sum)
    })
}
