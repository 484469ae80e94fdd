//! A store on a simulated disk, the jobs that are under way, and what must hold of both.

mod nights;
mod oracle;
mod slots;
mod tally;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tranship_cache::tier::cold::{Done, Figures, Health, Job, Lane, Record, Refusal};
use tranship_cache::tier::nvme::disk::sim::Device;
use tranship_cache::tier::nvme::testing::{Dice, PAGE};
use tranship_cache::tier::nvme::{Desk, Engine, Now, Options};
use tranship_cache::time::{Millis, Wall};

use self::nights::open;
use self::slots::{Slot, Slots};
pub(crate) use self::tally::Tally;
use crate::names::Block;

/// Steps after which everything that is under way has ended, however slow the disk is.
const STEPS_MAX: usize = 20_000;

/// What kind of bad days a schedule has, beside crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    /// None.
    Fair,
    /// Reads and writes fail now and then.
    Errors,
    /// Bits flip on the device.
    Rot,
    /// The device fills up, goes away, hangs, or fails to flush.
    Disaster,
}

/// A job that is under way.
enum Pending {
    Store { block: usize, version: usize, durable: bool, removed: u64, slot: Slot },
    Load { block: usize, range: Range<u64>, floor: usize, since: Now, slot: Slot },
    Sync { versions: Vec<usize>, removed: Vec<u64> },
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
    slots: Slots,
    jobs: BTreeMap<u64, Pending>,
    next: u64,
    last: Figures,
    /// The device was given up because it hangs.
    hung: bool,
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
        let slots = Slots::new(24, len_max);
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
            slots,
            jobs: BTreeMap::new(),
            next: 1,
            last: Figures::default(),
            hung: false,
            damaged: false,
        }
    }

    fn note(&mut self, what: u64) {
        self.trace = (self.trace.rotate_left(7) ^ what).wrapping_mul(0x9E37_79B9_7F4A_7C15);
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
        let Some(slot) = self.slots.take(&mut self.dice, len) else {
            self.blocks[block].versions.pop();
            return;
        };
        let from = self.slots.span(slot);
        from.write_at(0, &self.blocks[block].versions[version].bytes);
        let token = self.next;
        self.next += 1;
        if self.submit(Job::Store { token, record, from, durable }) {
            let removed = self.blocks[block].removed;
            self.jobs.insert(token, Pending::Store { block, version, durable, removed, slot });
        } else {
            self.blocks[block].versions.pop();
            self.slots.give_back(slot);
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
        let Some(slot) = self.slots.take(&mut self.dice, (range.end - range.start) as usize) else {
            return;
        };
        let into = self.slots.span(slot);
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
            self.slots.give_back(slot);
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

    /// A device that hangs comes back some time after it was given up.
    fn let_go(&mut self) {
        let health = self.desk.health();
        let hung = matches!(&health, Health::Off(why) if why.contains("hangs"));
        self.tally.hung += u64::from(hung && !self.hung);
        self.hung = hung;
        if matches!(health, Health::Off(_)) && self.dice.percent(2) {
            self.device.inject(|faults| faults.held = false);
        }
    }

    fn step_now(&mut self) {
        let engine = self.engine.as_mut().expect("the store is open");
        engine.step(self.now, &mut false);
        self.let_go();
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
}

/// A version, without its bytes.
struct Version {
    record: Record,
    len: usize,
}
