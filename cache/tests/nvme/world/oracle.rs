//! What must hold of each answer, and of all that is found.

use std::ops::Range;

use tranship_cache::tier::cold::{Failure, Health, Record};
use tranship_cache::tier::nvme::Now;

use super::slots::Slot;
use super::{Pending, Weather, World};

impl World {
    pub(super) fn ended(&mut self, pending: Pending, result: &Result<Option<Record>, Failure>) {
        if let Err(why) = result {
            self.failed(why);
        }
        match pending {
            Pending::Store { block, version, durable, removed, slot } => {
                self.slots.give_back(slot);
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
                self.slots.give_back(slot);
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
        self.slots.span(slot).read_at(0, &mut bytes);
        let expected = &real.bytes[range.start as usize..range.end as usize];
        assert!(bytes == expected, "bytes {range:?} of {} are wrong", block.name.key);
        // A whole block owns the rest of its last page; nothing else is touched.
        self.slots.is_alone(slot, *range == (0..record.len) && slot.shift == 0);
        self.tally.loaded += 1;
        self.tally.parts += u64::from(*range != (0..record.len));
    }

    /// Looks at all names: who disappears was removed, has expired, or was evicted. Those in `stored`
    /// were stored since it was looked last.
    pub(super) fn look(&mut self, stored: &[usize]) {
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
}
