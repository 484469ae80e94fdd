//! What stays, what goes, and what comes back.

use std::collections::BTreeSet;
use std::time::Duration;

use super::harness::{Harness, skip};
use super::kit::{Kit, bytes, record};
use crate::identity::IdentityId;
use crate::tier::cold::{Failure, Job, Name, Record};
use crate::time::Wall;

/// A removed block is not found from the moment on that the removal is taken, even while a store of it is
/// under way.
pub fn a_removed_block_is_gone_at_once<H: Harness>(harness: &H) {
    let kit = Kit::open(harness);
    let bytes = bytes(1, 50_000);
    let record = record(1, &bytes);
    for durable in [true, false] {
        assert_eq!(kit.store(1, record, &bytes, durable), Ok(None));
        let from = super::kit::span(&bytes, 0);
        kit.submit(Job::Store { token: 2, record, from, durable });
        kit.submit(Job::Remove { name: record.name() });
        assert_eq!(kit.tier.find(&record.name()), None);
        assert_eq!(kit.load(3, &record, 0..1, 0), Err(Failure::Gone));
        assert_eq!(kit.wait(2), Ok(None));
        assert_eq!(kit.tier.find(&record.name()), None);
    }
    assert_eq!(kit.store(4, record, &bytes, false), Ok(None));
    kit.expect(5, &record, &bytes);
    kit.close();
}

/// The same for all blocks of an identity.
pub fn a_cleared_identity_is_gone_at_once<H: Harness>(harness: &H) {
    let kit = Kit::open(harness);
    let all: Vec<_> = (0..20).map(|number| bytes(number, 1000)).collect();
    let records: Vec<_> = (0..).zip(&all).map(|(number, bytes)| record(number, bytes)).collect();
    for (record, bytes) in records.iter().zip(&all) {
        assert_eq!(kit.store(1, *record, bytes, false), Ok(None));
    }
    kit.submit(Job::Clear { identity: records[0].identity });
    for record in &records {
        assert_eq!(kit.tier.find(&record.name()), None);
    }
    assert_eq!(kit.store(2, records[7], &all[7], false), Ok(None));
    kit.expect(3, &records[7], &all[7]);
    assert_eq!(kit.load(4, &records[8], 0..1, 0), Err(Failure::Gone));
    kit.close();
}

/// Stores that were taken before a removal, and have not ended, do not bring the block back; those taken
/// after it do. The same for an identity.
pub fn a_removal_voids_stores_before_it<H: Harness>(harness: &H) {
    let kit = Kit::open(harness);
    let of = |number: u64, identity: u8| {
        let bytes = bytes(number, 60_000);
        let mut record = record(number, &bytes);
        record.identity = IdentityId::from_bytes([identity; 16]);
        (record, bytes)
    };
    // As many as fit under way at once, so that some are still waiting when the removals come.
    let all: Vec<_> = (0..8).map(|number| of(number, if number < 4 { 1 } else { 2 })).collect();
    for round in 0..5 {
        let store = |token: u64, (record, bytes): &(Record, Vec<u8>), durable: bool| {
            let (record, from) = (*record, super::kit::span(bytes, 0));
            kit.submit(Job::Store { token, record, from, durable });
        };
        let durable = round % 2 == 0;
        (0..).zip(&all).for_each(|(token, block)| store(token, block, durable));
        kit.submit(Job::Remove { name: all[3].0.name() });
        kit.submit(Job::Clear { identity: all[4].0.identity });
        store(8, &all[7], durable);
        for token in 0..9 {
            assert_eq!(kit.wait(token), Ok(None));
        }
        for (number, (record, bytes)) in all.iter().enumerate() {
            if (3..7).contains(&number) {
                assert_eq!(kit.tier.find(&record.name()), None, "block {number}, round {round}");
                assert_eq!(kit.load(9, record, 0..1, 0), Err(Failure::Gone), "block {number}");
            } else {
                kit.expect(9, record, bytes);
            }
        }
    }
    kit.close();
    drop(kit);
    let after = Kit::open(harness);
    for (number, (record, bytes)) in all.iter().enumerate() {
        if (3..7).contains(&number) {
            assert_eq!(after.tier.find(&record.name()), None, "block {number} after a close");
        } else {
            after.expect(9, record, bytes);
        }
    }
    after.close();
}

/// A block whose time to live is over is neither found nor loaded.
pub fn a_block_expires<H: Harness>(harness: &H) {
    let kit = Kit::open(harness);
    let bytes = bytes(1, 1000);
    let mut record = record(1, &bytes);
    record.expires = Some(Wall(harness.wall().0 + 3_600_000));
    assert_eq!(kit.store(1, record, &bytes, false), Ok(None));
    kit.expect(2, &record, &bytes);
    if !harness.pass(Duration::from_secs(3601)) {
        skip("time does not pass here");
    }
    assert_eq!(kit.tier.find(&record.name()), None);
    assert_eq!(kit.load(3, &record, 0..1000, 0), Err(Failure::Gone));
    kit.close();
}

/// Every block that stays is visited once.
pub fn every_block_is_visited_once<H: Harness>(harness: &H) {
    let kit = Kit::open(harness);
    let all: Vec<_> = (0..100).map(|number| record(number, &bytes(number, 10))).collect();
    for (number, record) in (0..).zip(&all) {
        assert_eq!(kit.store(1, *record, &bytes(number, 10), false), Ok(None));
    }
    let mut seen = BTreeSet::new();
    let mut from = Some(0);
    while let Some(at) = from {
        from = kit.tier.visit(at, &mut |name: &Name, found| {
            assert!(seen.insert(*name), "{name:?} is visited twice");
            assert_eq!(found.len, 10);
        });
    }
    assert_eq!(seen, all.iter().map(crate::tier::cold::Record::name).collect());
    kit.close();
}

/// What was durable is there after a crash, and what is there is right.
pub fn what_was_durable_survives_a_crash<H: Harness>(harness: &H) {
    let kit = Kit::open(harness);
    let all: Vec<_> = (0..30).map(|number| bytes(number, 20_000)).collect();
    let records: Vec<_> = (0..).zip(&all).map(|(number, bytes)| record(number, bytes)).collect();
    for (number, (record, bytes)) in records.iter().zip(&all).enumerate() {
        assert_eq!(kit.store(1, *record, bytes, number % 3 == 0), Ok(None));
    }
    if !harness.crash() {
        skip("the machine does not crash here");
    }
    let after = Kit::open(harness);
    drop(kit);
    for (number, (record, bytes)) in records.iter().zip(&all).enumerate() {
        match after.load(2, record, 0..record.len, 0) {
            Ok(loaded) => assert!(loaded == *bytes, "block {number} is wrong after a crash"),
            Err(why) => assert!(number % 3 != 0 && why == Failure::Gone, "block {number}: {why}"),
        }
    }
    after.close();
}

/// After a sync everything stored before it survives a crash.
pub fn a_sync_makes_durable<H: Harness>(harness: &H) {
    let kit = Kit::open(harness);
    let bytes = bytes(1, 20_000);
    let record = record(1, &bytes);
    assert_eq!(kit.store(1, record, &bytes, false), Ok(None));
    kit.submit(Job::Sync { token: 2 });
    assert_eq!(kit.wait(2), Ok(None));
    if !harness.crash() {
        skip("the machine does not crash here");
    }
    let after = Kit::open(harness);
    drop(kit);
    after.expect(3, &record, &bytes);
    after.close();
}

/// After a close everything is as it was, durable or not.
pub fn a_close_keeps_everything<H: Harness>(harness: &H) {
    let kit = Kit::open(harness);
    let all: Vec<_> = (0..30).map(|number| bytes(number, 10_000)).collect();
    let records: Vec<_> = (0..).zip(&all).map(|(number, bytes)| record(number, bytes)).collect();
    for (record, bytes) in records.iter().zip(&all) {
        assert_eq!(kit.store(1, *record, bytes, false), Ok(None));
    }
    kit.close();
    drop(kit);
    harness.crash();
    let after = Kit::open(harness);
    for (record, bytes) in records.iter().zip(&all) {
        after.expect(2, record, bytes);
    }
    assert_eq!(after.tier.figures().recovered, 30);
    after.close();
}

/// A block that was removed does not come back after a close, and no older version of it does.
pub fn what_was_removed_stays_removed_after_a_close<H: Harness>(harness: &H) {
    let kit = Kit::open(harness);
    let mut last = None;
    for version in 0..3 {
        let bytes = bytes(version, 10_000);
        let record = record(1, &bytes);
        assert_eq!(kit.store(1, record, &bytes, true), Ok(None));
        last = Some(record);
    }
    let record = last.expect("three were stored");
    kit.submit(Job::Remove { name: record.name() });
    kit.close();
    drop(kit);
    let after = Kit::open(harness);
    assert_eq!(after.tier.find(&record.name()), None);
    assert_eq!(after.load(2, &record, 0..1, 0), Err(Failure::Gone));
    after.close();
}

/// The blocks of an identity that was cleared do not come back after a close.
pub fn what_was_cleared_stays_cleared_after_a_close<H: Harness>(harness: &H) {
    let kit = Kit::open(harness);
    let all: Vec<_> = (0..6).map(|number| bytes(number, 10_000)).collect();
    let mut records: Vec<_> =
        (0..).zip(&all).map(|(number, bytes)| record(number, bytes)).collect();
    records[5].identity = IdentityId::from_bytes([8; 16]);
    for (record, bytes) in records.iter().zip(&all) {
        assert_eq!(kit.store(1, *record, bytes, true), Ok(None));
    }
    kit.submit(Job::Clear { identity: records[0].identity });
    kit.close();
    drop(kit);
    let after = Kit::open(harness);
    for record in &records[..5] {
        assert_eq!(after.tier.find(&record.name()), None);
        assert_eq!(after.load(2, record, 0..1, 0), Err(Failure::Gone));
    }
    after.expect(3, &records[5], &all[5]);
    after.close();
}
