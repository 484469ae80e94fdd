//! A store on a simulated disk, the jobs that are under way, and what must hold of both.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tranship_cache::tier::Span;
use tranship_cache::tier::cold::{
    Done, Failure, Figures, Found, Health, Job, Lane, Name, Record, Refusal,
};
use tranship_cache::tier::nvme::disk::sim::Device;
use tranship_cache::tier::nvme::testing::{Dice, PAGE};
use tranship_cache::tier::nvme::{Desk, Engine, Hits, Now, Options};
use tranship_cache::time::{Millis, Wall};
use tranship_transport::memory::{HostMemory, Memory};

use crate::names::Block;

/// Steps after which everything that is under way has ended, however slow the disk is.
const STEPS_MAX: usize = 20_000;
/// What is written over memory that the tier must not touch any more; what new memory has.
const POISON: u8 = 0;

/// What kind of bad days a schedule has, beside crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    /// None.
    Fair,
    /// Reads and writes fail now and then.
    Errors,
    /// Bits flip on the device.
    Rot,
    /// The device fills up, goes away, or fails to flush.
    Disaster,
}

/// How often things came to pass, over all schedules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) stored: u64,
    pub(crate) durable: u64,
    pub(crate) loaded: u64,
    pub(crate) parts: u64,
    pub(crate) gone: u64,
    pub(crate) late: u64,
    pub(crate) corrupt: u64,
    pub(crate) failed: u64,
    pub(crate) no_room: u64,
    pub(crate) worn: u64,
    pub(crate) refused: u64,
    pub(crate) evicted: u64,
    pub(crate) moved: u64,
    pub(crate) crashes: u64,
    pub(crate) closes: u64,
    pub(crate) syncs: u64,
    pub(crate) read_only: u64,
    pub(crate) recovered: u64,
}

impl Tally {
    pub(crate) fn counts(&self) -> [u64; 18] {
        [
            self.stored,
            self.durable,
            self.loaded,
            self.parts,
            self.gone,
            self.late,
            self.corrupt,
            self.failed,
            self.no_room,
            self.worn,
            self.refused,
            self.evicted,
            self.moved,
            self.crashes,
            self.closes,
            self.syncs,
            self.read_only,
            self.recovered,
        ]
    }
}

/// A job that is under way.
enum Pending {
    Store { block: usize, version: usize, durable: bool, removed: u64, slot: Slot },
    Load { block: usize, range: Range<u64>, floor: usize, since: Now, slot: Slot },
    Sync { versions: Vec<usize>, removed: Vec<u64> },
}

/// A part of the memory that spans are made of.
#[derive(Clone, Copy)]
struct Slot {
    number: usize,
    shift: usize,
    len: usize,
}

/// See the module's notes.
pub(crate) struct World {
    pub(crate) dice: Dice,
    pub(crate) device: Device,
    pub(crate) options: Options,
    pub(crate) weather: Weather,
    /// Blocks are loaded often.
    pub(crate) hot: bool,
    pub(crate) blocks: Vec<Block>,
    pub(crate) now: Now,
    pub(crate) tally: Tally,
    pub(crate) trace: u64,
    /// Longest block.
    pub(crate) len_max: usize,
    engine: Option<Engine>,
    desk: Arc<Desk>,
    memory: Arc<Memory>,
    slot_bytes: usize,
    poison: Vec<u8>,
    free: Vec<usize>,
    /// Slots that nobody may touch, with what they hold.
    jobs: BTreeMap<u64, Pending>,
    next: u64,
    last: Figures,
    /// Damage was done: what is missing is not missed.
    pub(crate) damaged: bool,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        // Blocks of several chunks, of which parts can be checked.
        let wide = dice.percent(8);
        let weather = match dice.below(20) {
            0..10 if wide => Weather::Rot,
            0..12 => Weather::Fair,
            12..15 => Weather::Errors,
            15..18 => Weather::Rot,
            _ => Weather::Disaster,
        };
        let hot = dice.percent(40);
        let segment_pages = if wide { 64 } else { 8 + dice.below(9) as usize };
        let segments = 4 + dice.below(9) as usize;
        let pages = 64 + segments * segment_pages;
        let options = Options {
            segment_bytes: (segment_pages * PAGE) as u64,
            lane_jobs_max: 4 + dice.below(60) as usize,
            lane_bytes_max: 1 << (16 + dice.below(6)),
            loads_max: 1 + dice.below(12) as usize,
            frames_max: 1 + dice.below(4) as usize,
            flush_bytes: (1 + dice.below(64)) * PAGE as u64,
            flush_every: Millis(1 + dice.below(1000)),
            bounce_bytes: (4 + dice.below(60)) * PAGE as u64,
            reinsert_percent: if hot { 60 } else { (dice.below(7) * 15) as u8 },
            write_budget_per_day: dice
                .percent(7)
                .then(|| 24 * (10 + dice.below(400)) * PAGE as u64),
            full_scan: dice.percent(30),
        };
        let device = Device::new(pages * PAGE, dice.bits());
        let len_max = if wide { 220_000 } else { (segment_pages - 2) * PAGE };
        let slot_bytes = (len_max + 2 * PAGE).next_multiple_of(PAGE);
        let slots = 24;
        let memory = HostMemory::new(slots * slot_bytes).build().expect("a few MiB");
        let count = if hot { 4 + dice.below(10) } else { 4 + dice.below(24) };
        let blocks = (0..count).map(|number| {
            let parent = (number % 4 > 0).then(|| number - 1);
            Block::new(number, (number / 8) as u8, parent)
        });
        let blocks = blocks.collect();
        let now = Now { mono: Millis(0), wall: Wall(1_000_000_000_000) };
        let (engine, desk) = open(&device, &options, now, dice.bits());
        Self {
            dice,
            device,
            options,
            weather,
            hot,
            blocks,
            now,
            tally: Tally::default(),
            trace: 0,
            len_max,
            engine: Some(engine),
            desk,
            memory: Arc::new(memory),
            slot_bytes,
            poison: vec![POISON; slot_bytes],
            free: (0..slots).rev().collect(),
            jobs: BTreeMap::new(),
            next: 1,
            last: Figures::default(),
            damaged: false,
        }
    }

    fn note(&mut self, what: u64) {
        self.trace = (self.trace.rotate_left(7) ^ what).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn slot(&mut self, len: usize) -> Option<Slot> {
        let number = self.free.pop()?;
        let shift = if self.dice.percent(70) { 0 } else { 1 + self.dice.below(4000) as usize };
        Some(Slot { number, shift, len })
    }

    fn span(&self, slot: Slot) -> Span {
        let start = (slot.number * self.slot_bytes + slot.shift) as u64;
        Span::new(Arc::clone(&self.memory), start..start + slot.len as u64)
    }

    /// Takes a slot back; from now on any change of its bytes is a fault.
    fn free(&mut self, slot: Slot) {
        let start = slot.number * self.slot_bytes;
        let end = (slot.shift + slot.len).next_multiple_of(PAGE);
        let poison = &self.poison[..end];
        self.memory.write_at(start, poison).expect("it is writable");
        self.free.push(slot.number);
    }

    fn submit(&mut self, job: Job) -> bool {
        match self.desk.submit(job) {
            Ok(()) => true,
            Err(refused) => {
                assert_eq!(refused.why, Refusal::Full, "the desk is open");
                self.tally.refused += 1;
                false
            }
        }
    }

    pub(crate) fn store(&mut self, block: usize, durable: bool) {
        let replaces = self.dice.percent(25);
        let expires =
            self.dice.percent(6).then(|| self.now.wall.after(Millis(self.dice.below(5000))));
        let again = self.blocks[block].versions.last().filter(|_| !replaces).cloned();
        let (seed, len) = match &again {
            Some(last) => (0, last.bytes.len()),
            None => (self.dice.bits(), self.len()),
        };
        // Without replacement the same content comes again: bytes are a function of the name.
        let version = match again {
            Some(last) if expires.is_none() && last.record.expires.is_none() => {
                self.blocks[block].versions.push(last);
                self.blocks[block].versions.len() - 1
            }
            _ => self.blocks[block].version(seed, len, expires),
        };
        self.blocks[block].versions[version].stored = false;
        let Version { record, len } = self.version(block, version);
        let Some(slot) = self.slot(len) else {
            self.blocks[block].versions.pop();
            return;
        };
        let from = self.span(slot);
        from.write_at(0, &self.blocks[block].versions[version].bytes);
        let token = self.next;
        self.next += 1;
        if self.submit(Job::Store { token, record, from, durable }) {
            let removed = self.blocks[block].removed;
            self.jobs.insert(token, Pending::Store { block, version, durable, removed, slot });
        } else {
            self.blocks[block].versions.pop();
            self.free(slot);
        }
    }

    fn version(&self, block: usize, version: usize) -> Version {
        let version = &self.blocks[block].versions[version];
        Version { record: version.record, len: version.bytes.len() }
    }

    /// Most blocks are short, so that many schedules can be run.
    fn len(&mut self) -> usize {
        let len = match self.dice.below(16) {
            0 => self.dice.below(3),
            1..8 => 1 + self.dice.below(2 * PAGE as u64),
            8..14 if self.len_max > 100_000 => 66_000 + self.dice.below(100_000),
            8..14 => PAGE as u64 * (1 + self.dice.below(3)),
            14 => 1 + self.dice.below(self.len_max as u64 / 3),
            _ => 1 + self.dice.below(self.len_max as u64),
        };
        self.len_max.min(len as usize)
    }

    pub(crate) fn load(&mut self, block: usize, part: bool) {
        let name = self.blocks[block].name;
        let found = self.desk.find(&name, self.now.wall);
        let len = found.map_or(100, |found| found.len);
        let range = if part && len > 0 {
            let start = self.dice.below(len);
            start..start + self.dice.below(len - start + 1)
        } else {
            0..len
        };
        let Some(slot) = self.slot((range.end - range.start) as usize) else { return };
        let into = self.span(slot);
        let within = if self.dice.percent(80) { 60_000 } else { self.dice.below(30) };
        let lane = [Lane::Demand, Lane::Prefetch, Lane::Write][self.dice.below(3) as usize];
        let token = self.next;
        self.next += 1;
        let within = Duration::from_millis(within);
        let job = Job::Load { token, name, range: range.clone(), into, lane, within };
        if self.submit(job) {
            let (floor, since) = (self.blocks[block].floor, self.now);
            self.jobs.insert(token, Pending::Load { block, range, floor, since, slot });
        } else {
            self.free(slot);
        }
    }

    pub(crate) fn remove(&mut self, block: usize) {
        let name = self.blocks[block].name;
        if self.submit(Job::Remove { name }) {
            self.forgotten(block);
        }
    }

    pub(crate) fn clear(&mut self, block: usize) {
        let identity = self.blocks[block].name.identity;
        if self.submit(Job::Clear { identity }) {
            for at in 0..self.blocks.len() {
                if self.blocks[at].name.identity == identity {
                    self.forgotten(at);
                }
            }
        }
    }

    fn forgotten(&mut self, at: usize) {
        let block = &mut self.blocks[at];
        block.floor = block.versions.len();
        block.present = false;
        block.must = false;
        block.removed += 1;
        assert_eq!(self.desk.find(&block.name, self.now.wall), None, "a removed block is found");
    }

    pub(crate) fn sync(&mut self) {
        let token = self.next;
        self.next += 1;
        if self.submit(Job::Sync { token }) {
            let versions = self.blocks.iter().map(|block| block.versions.len()).collect();
            let removed = self.blocks.iter().map(|block| block.removed).collect();
            self.jobs.insert(token, Pending::Sync { versions, removed });
        }
    }

    /// Lets time pass and the log do something.
    pub(crate) fn step(&mut self) {
        let pass = if self.dice.percent(3) { self.dice.below(1500) } else { self.dice.below(4) };
        self.now.mono = self.now.mono + Millis(pass);
        self.now.wall = self.now.wall.after(Millis(pass));
        self.step_now();
    }

    fn step_now(&mut self) {
        let engine = self.engine.as_mut().expect("the store is open");
        engine.step(self.now, &mut false);
        let mut done = Vec::new();
        self.desk.finished(&mut done);
        let mut stored = Vec::new();
        for Done { token, result } in done {
            let pending = self.jobs.remove(&token).expect("a job is answered once");
            self.note(token);
            if let Pending::Store { block, .. } = pending {
                stored.push(block);
            }
            self.ended(pending, &result);
        }
        let engine = self.engine.as_ref().expect("the store is open");
        engine.audit().unwrap_or_else(|why| panic!("the audit fails: {why}"));
        self.look(&stored);
    }

    fn ended(&mut self, pending: Pending, result: &Result<Option<Record>, Failure>) {
        if let Err(why) = result {
            self.failed(why);
        }
        match pending {
            Pending::Store { block, version, durable, removed, slot } => {
                self.free(slot);
                if result.is_err() {
                    return;
                }
                self.tally.stored += 1;
                let block = &mut self.blocks[block];
                block.versions[version].stored = true;
                block.floor = block.floor.max(version);
                if durable {
                    self.tally.durable += 1;
                    block.durable = block.durable.max(version);
                    let found = self.desk.find(&block.name, self.now.wall).is_some();
                    block.must = found && block.removed == removed;
                }
            }
            Pending::Load { block, range, floor, since, slot } => {
                if let Ok(record) = result {
                    let record = record.as_ref().expect("a load tells what was stored");
                    self.check_load(block, &range, floor, since, slot, record);
                }
                self.free(slot);
            }
            Pending::Sync { versions, removed } => {
                if result.is_err() {
                    return;
                }
                self.tally.syncs += 1;
                for (at, block) in self.blocks.iter_mut().enumerate() {
                    let stored = &block.versions[..versions[at]];
                    let Some(last) = stored.iter().rposition(|version| version.stored) else {
                        continue;
                    };
                    block.durable = block.durable.max(last);
                    // What is found may have been stored later, after the older one was evicted.
                    let found = self.desk.find(&block.name, self.now.wall);
                    let found =
                        found.and_then(|found| block.by_checksum(found.checksum, found.len));
                    block.must |= block.removed == removed[at]
                        && found.is_some_and(|found| found < versions[at]);
                }
            }
        }
    }

    fn failed(&mut self, why: &Failure) {
        let fair = self.weather == Weather::Fair;
        match why {
            Failure::Gone => self.tally.gone += 1,
            Failure::Corrupt => {
                self.tally.corrupt += 1;
                assert!(self.damaged, "a block is damaged, though nothing damages any");
            }
            Failure::Deadline => self.tally.late += 1,
            Failure::NoRoom => self.tally.no_room += 1,
            Failure::Endurance => {
                self.tally.worn += 1;
                assert!(self.options.write_budget_per_day.is_some());
            }
            Failure::Unavailable(why) => {
                self.tally.read_only += 1;
                assert!(!fair, "the store is {why}, though nothing fails");
            }
            Failure::Io(why) => {
                self.tally.failed += 1;
                // What the load was asked for may have been replaced by something shorter.
                let outran = why.contains("do not go into");
                assert!(!fair || outran, "the device failed: {why}");
            }
            other => panic!("{other} is none of the failures that a log has"),
        }
    }

    fn check_load(
        &mut self,
        at: usize,
        range: &Range<u64>,
        floor: usize,
        since: Now,
        slot: Slot,
        record: &Record,
    ) {
        let block = &self.blocks[at];
        let version = block.by_checksum(record.checksum, record.len);
        let version = version.unwrap_or_else(|| panic!("{record:?} was never stored"));
        assert!(version >= floor, "version {version} is loaded, after {floor} was stored");
        let real = &block.versions[version];
        let same = Record { expires: real.record.expires, ..*record };
        assert_eq!(same, real.record, "what is told of a block is not what was stored");
        let expired = record.expires.is_some_and(|at| at <= since.wall);
        assert!(!expired, "a block is loaded whose time is over");
        let mut bytes = vec![0; slot.len];
        self.span(slot).read_at(0, &mut bytes);
        let expected = &real.bytes[range.start as usize..range.end as usize];
        assert!(bytes == expected, "bytes {range:?} of {} are wrong", block.name.key);
        let start = slot.number * self.slot_bytes;
        // A whole block owns the rest of its last page; nothing else is touched.
        let whole = *range == (0..record.len) && slot.shift == 0;
        let end = slot.shift + if whole { slot.len.next_multiple_of(PAGE) } else { slot.len };
        let guard = (end + PAGE).min(self.slot_bytes);
        for outside in [0..slot.shift, end..guard] {
            self.is_poison(start + outside.start..start + outside.end);
        }
        self.tally.loaded += 1;
        self.tally.parts += u64::from(*range != (0..record.len));
    }

    fn is_poison(&self, range: Range<usize>) {
        let mut bytes = vec![0; range.len()];
        self.memory.read_at(range.start, &mut bytes).expect("inside");
        assert!(bytes == self.poison[..bytes.len()], "memory is touched that is not the load's");
    }

    /// Looks at all names: who disappears was removed, has expired, or was evicted. Those in `stored`
    /// were stored since it was looked last.
    fn look(&mut self, stored: &[usize]) {
        let figures = self.desk.figures();
        let left = figures.evicted - self.last.evicted + figures.corrupt - self.last.corrupt;
        self.tally.evicted += figures.evicted - self.last.evicted;
        self.tally.moved += figures.reinserted - self.last.reinserted;
        self.last = figures;
        if matches!(self.desk.health(), Health::Off(_)) {
            // Nothing is found, and nothing is lost.
            return;
        }
        let mut missed = 0;
        for block in &mut self.blocks {
            let found = self.desk.find(&block.name, self.now.wall);
            if let Some(found) = found {
                let version = block.by_checksum(found.checksum, found.len);
                let version = version.expect("what is found was stored");
                assert!(version >= block.floor, "version {version} is found of {block:?}");
            }
            let present = found.is_some();
            if block.present && !present && !block.mortal {
                missed += 1;
                block.must = false;
            }
            block.must &= present;
            block.present = present;
        }
        assert!(missed <= left, "{missed} blocks are missed, but {left} left");
        if left > missed {
            // One was evicted, and stored again in the same step: that copy may be lost.
            stored.iter().for_each(|block| self.blocks[*block].must = false);
            for pending in self.jobs.values() {
                if let Pending::Store { block, .. } = pending {
                    self.blocks[*block].must = false;
                }
            }
            self.blocks
                .iter_mut()
                .filter(|block| block.mortal)
                .for_each(|block| block.must = false);
        }
    }

    /// Steps until nothing is under way.
    pub(crate) fn settle(&mut self) {
        for _ in 0..STEPS_MAX {
            if self.jobs.is_empty() {
                return;
            }
            self.step();
        }
        panic!("{} jobs are not answered", self.jobs.len());
    }

    /// What the index has.
    fn dump(desk: &Desk, wall: Wall) -> BTreeMap<Name, (u64, u64)> {
        let (mut all, mut from) = (BTreeMap::new(), Some(0));
        while let Some(at) = from {
            from = desk.visit(at, wall, &mut |name: &Name, found: &Found| {
                let before = all.insert(*name, (found.len, found.checksum));
                assert_eq!(before, None, "a block is visited twice");
            });
        }
        all
    }

    /// The power fails, or the process dies; the store is opened again.
    pub(crate) fn crash(&mut self, power: bool) {
        self.tally.crashes += 1;
        self.look(&[]);
        if power {
            self.device.crash();
        }
        self.engine = None;
        for pending in std::mem::take(&mut self.jobs).into_values() {
            if let Pending::Store { slot, .. } | Pending::Load { slot, .. } = pending {
                self.free(slot);
            }
        }
        self.device.inject(|faults| *faults = Default::default());
        self.note(1);
        let expected = self.reopen();
        for block in &mut self.blocks {
            let (wall, name) = (self.now.wall, block.name);
            let found = self.desk.find(&name, wall);
            let version = found.map(|found| block.by_checksum(found.checksum, found.len));
            let version = version.map(|version| version.expect("what is found was stored"));
            let missing = block.must && found.is_none() && !block.mortal && !self.damaged;
            assert!(!missing, "{name:?} was durable, and is not there after the crash");
            block.versions.iter_mut().for_each(|version| version.stored = false);
            if let Some(version) = version {
                let old = version < block.durable && !self.damaged;
                assert!(
                    !old,
                    "{name:?} {:?} version {version} is back after {} was durable",
                    block
                        .versions
                        .iter()
                        .map(|v| (v.record.checksum, v.stored))
                        .collect::<Vec<_>>(),
                    block.durable
                );
                block.durable = version;
                block.versions[version].stored = true;
            }
            (block.present, block.must) = (found.is_some(), found.is_some());
            block.floor = block.durable;
        }
        self.tally.recovered += expected.len() as u64;
    }

    /// Opens the store again; all ways of doing so come to the same, and doing it twice, too.
    fn reopen(&mut self) -> BTreeMap<Name, (u64, u64)> {
        let mut dumps = Vec::new();
        let full_scan = self.dice.percent(50);
        let twice = self.dice.percent(25);
        let copy = self.device.copy(self.dice.bits());
        let options = Options { full_scan: !full_scan, ..self.options.clone() };
        for _ in 0..1 + u64::from(twice) {
            let (engine, desk) = open(&copy, &options, self.now, 1);
            engine.audit().unwrap_or_else(|why| panic!("the audit fails after opening: {why}"));
            dumps.push(Self::dump(&desk, self.now.wall));
            drop(engine);
            copy.crash();
        }
        let seed = self.dice.bits();
        self.options.full_scan = full_scan;
        let (engine, desk) = open(&self.device, &self.options, self.now, seed);
        engine.audit().unwrap_or_else(|why| panic!("the audit fails after opening: {why}"));
        self.last = desk.figures();
        (self.engine, self.desk) = (Some(engine), desk);
        dumps.push(Self::dump(&self.desk, self.now.wall));
        if !self.damaged {
            let first = &dumps[0];
            for (at, dump) in dumps.iter().enumerate() {
                assert_eq!(dump, first, "recovery {at} came to another index than the first");
            }
        }
        dumps.swap_remove(0)
    }

    /// Closes the store, and opens it again: everything is as it was.
    pub(crate) fn close(&mut self) {
        let within = Millis(1_000_000);
        let engine = self.engine.as_mut().expect("the store is open");
        engine.close(self.now, within);
        let mut steps = 0;
        while !self.engine.as_ref().expect("the store is open").closed() {
            self.step();
            steps += 1;
            assert!(steps < STEPS_MAX, "the store does not close: {:?}", self.engine);
        }
        assert!(self.jobs.is_empty(), "{} jobs are left after the close", self.jobs.len());
        self.tally.closes += 1;
        let health = self.desk.health();
        let whole = matches!(health, Health::Ready | Health::Degraded(_));
        if !whole {
            return self.crash(self.damaged);
        }
        // The clock stands still, so that nothing expires meanwhile.
        let before = Self::dump(&self.desk, self.now.wall);
        if self.dice.percent(50) {
            self.device.crash();
        }
        self.engine = None;
        self.device.inject(|faults| *faults = Default::default());
        self.note(2);
        let after = self.reopen();
        assert!(self.damaged || before == after, "closed with {before:?}, opened with {after:?}");
        for block in &mut self.blocks {
            let found = self.desk.find(&block.name, self.now.wall);
            let version = found.and_then(|found| block.by_checksum(found.checksum, found.len));
            if let Some(version) = version {
                block.durable = block.durable.max(version);
                if self.damaged {
                    // The note that it was removed may be what rotted.
                    block.floor = block.floor.min(version);
                }
            }
            (block.present, block.must) = (found.is_some(), found.is_some());
        }
    }

    /// The clock of the wall jumps.
    pub(crate) fn jump(&mut self) {
        let by = Millis(self.dice.below(20_000));
        self.now.wall = if self.dice.percent(50) {
            self.now.wall.after(by)
        } else {
            Wall(self.now.wall.0 - by.0)
        };
        for block in self.blocks.iter_mut().filter(|block| block.mortal) {
            (block.must, block.present) = (false, false);
        }
        for pending in self.jobs.values_mut() {
            if let Pending::Load { since, .. } = pending {
                since.wall = since.wall.min(self.now.wall);
            }
        }
    }

    /// Everything that is under way ends, and every block that is there can be loaded.
    pub(crate) fn end(&mut self) {
        self.device.inject(|faults| *faults = Default::default());
        self.settle();
        for at in 0..self.blocks.len() {
            self.load(at, false);
            self.settle();
        }
        self.sync();
        self.settle();
        self.close();
        for at in 0..self.blocks.len() {
            self.load(at, false);
            self.load(at, true);
            self.settle();
        }
        for slot in self.free.clone() {
            self.is_poison(slot * self.slot_bytes..(slot + 1) * self.slot_bytes);
        }
    }
}

/// A version, without its bytes.
struct Version {
    record: Record,
    len: usize,
}

fn open(device: &Device, options: &Options, now: Now, seed: u64) -> (Engine, Arc<Desk>) {
    let mut random = [7; 16];
    random[..8].copy_from_slice(&seed.to_le_bytes());
    let engine = Engine::open(device.open(), options, Box::new(Hits), random, &|| now);
    let engine = engine.unwrap_or_else(|why| panic!("the store does not open: {why}"));
    let desk = engine.desk();
    (engine, desk)
}
