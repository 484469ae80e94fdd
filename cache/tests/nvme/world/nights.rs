//! What lies between two openings: crashes and closes; and the end of a schedule.

use std::collections::BTreeMap;
use std::sync::Arc;

use tranship_cache::tier::cold::{Found, Health, Name};
use tranship_cache::tier::nvme::disk::sim::Device;
use tranship_cache::tier::nvme::{Desk, Engine, Hits, Now, Options};
use tranship_cache::time::{Millis, Wall};

use super::{Pending, STEPS_MAX, World};

impl World {
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
                self.slots.give_back(slot);
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
        self.slots.are_left_alone();
    }
}

pub(super) fn open(device: &Device, options: &Options, now: Now, seed: u64) -> (Engine, Arc<Desk>) {
    let mut random = [7; 16];
    random[..8].copy_from_slice(&seed.to_le_bytes());
    let engine = Engine::open(device.open(), options, Box::new(Hits), random, &|| now);
    let engine = engine.unwrap_or_else(|why| panic!("the store does not open: {why}"));
    let desk = engine.desk();
    (engine, desk)
}
