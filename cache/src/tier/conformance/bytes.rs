//! What is loaded is what was stored, and nothing else is touched.

use std::sync::Arc;

use super::harness::{Harness, skip};
use super::kit::{Kit, PATIENCE, bytes, read, record, span};
use crate::identity::IdentityId;
use crate::tier::Span;
use crate::tier::cold::{Failure, Job, Lane};
use crate::time::Wall;

/// Blocks of every length, from spans anywhere, come back whole to spans anywhere.
pub fn blocks_of_every_length_come_back<H: Harness>(harness: &H) {
    let kit = Kit::open(harness);
    let lens = [0, 1, 511, 4095, 4096, 4097, 65_535, 65_536, 65_537, 131_072, 200_001, 300_000];
    for (number, len) in lens.into_iter().chain([H::BLOCK_BYTES_MAX]).enumerate() {
        let (number, bytes) = (number as u64, bytes(number as u64, len));
        let record = record(number, &bytes);
        for (shift, durable) in [(0, true), (1, false), (4095, true)] {
            let from = span(&bytes, shift);
            kit.submit(Job::Store { token: 1, record, from, durable });
            assert_eq!(kit.wait(1), Ok(None), "{len} bytes, {shift} behind a page");
            for shift in [0, 7] {
                let loaded = kit.load(2, &record, 0..record.len, shift);
                assert!(loaded == Ok(bytes.clone()), "{len} bytes, {shift} behind a page");
            }
        }
    }
    kit.close();
}

/// Any range of a block comes back.
pub fn every_range_comes_back<H: Harness>(harness: &H) {
    let kit = Kit::open(harness);
    let bytes = bytes(1, 300_000);
    let record = record(1, &bytes);
    assert_eq!(kit.store(1, record, &bytes, false), Ok(None));
    let edges = [0, 1, 4096, 65_535, 65_536, 65_537, 131_072, 262_144, 299_999, 300_000];
    for start in edges {
        for end in edges.into_iter().filter(|end| *end >= start) {
            for shift in [0, 13] {
                let loaded = kit.load(2, &record, start..end, shift).expect("it is there");
                let expected = &bytes[start as usize..end as usize];
                assert!(loaded == expected, "bytes {start}..{end}, {shift} behind a page");
            }
        }
    }
    kit.close();
}

/// A load changes its span's bytes and, for a whole block that begins on a page, the rest of its last
/// page; nothing else.
pub fn a_load_touches_nothing_else<H: Harness>(harness: &H) {
    const AROUND: u8 = 0x77;
    let kit = Kit::open(harness);
    let bytes = bytes(1, 70_000);
    let record = record(1, &bytes);
    assert_eq!(kit.store(1, record, &bytes, false), Ok(None));
    for (range, shift) in
        [(0..70_000, 0), (0..70_000, 5), (0..69_999, 0), (4096..70_000, 0), (100..5000, 8)]
    {
        let len = (range.end - range.start) as usize;
        let around = span(&vec![AROUND; 90_000], 0);
        let (memory, start) = (Arc::clone(around.memory()), 4096 + shift);
        let into = Span::new(memory, start as u64..(start + len) as u64);
        let (name, lane, within) = (record.name(), Lane::Demand, PATIENCE);
        kit.submit(Job::Load { token: 2, name, range: range.clone(), into, lane, within });
        kit.wait(2).expect("it is there");
        let all = read(&around);
        let whole = range == (0..70_000) && shift == 0;
        let end = if whole { (start + len).next_multiple_of(4096) } else { start + len };
        let untouched = |bytes: &[u8]| bytes.iter().all(|byte| *byte == AROUND);
        assert!(untouched(&all[..start]) && untouched(&all[end..]), "{range:?} at {shift}");
        assert!(all[start..start + len] == bytes[range.start as usize..range.end as usize]);
    }
    kit.close();
}

/// A load tells the block's place in its chain, its checksum and its end.
pub fn a_load_tells_what_was_stored<H: Harness>(harness: &H) {
    let kit = Kit::open(harness);
    let bytes = bytes(5, 5000);
    let mut record = record(5, &bytes);
    record.expires = Some(Wall(harness.wall().0 + 3_600_123));
    assert_eq!(kit.store(1, record, &bytes, false), Ok(None));
    let (name, lane, into) = (record.name(), Lane::Prefetch, span(&bytes, 0));
    kit.submit(Job::Load { token: 2, name, range: 0..5000, into, lane, within: PATIENCE });
    assert_eq!(kit.wait(2), Ok(Some(record)));
    kit.close();
}

/// What is found of a block is its length, its checksum and its end.
pub fn what_is_found_is_what_was_stored<H: Harness>(harness: &H) {
    let kit = Kit::open(harness);
    let bytes = bytes(5, 5000);
    let mut record = record(5, &bytes);
    assert_eq!(kit.tier.find(&record.name()), None);
    let end = harness.wall().0 + 3_600_123;
    record.expires = Some(Wall(end));
    assert_eq!(kit.store(1, record, &bytes, false), Ok(None));
    let found = kit.tier.find(&record.name()).expect("it was stored");
    assert_eq!((found.len, found.checksum), (record.len, record.checksum));
    let said = found.expires.expect("it has an end").0;
    assert!(said <= end && said + 1000 > end, "{said} is not {end}");
    assert!(kit.tier.contains(&record.name()));
    kit.close();
}

/// A block that was never stored is gone.
pub fn an_unknown_block_is_gone<H: Harness>(harness: &H) {
    let kit = Kit::open(harness);
    let record = record(1, &bytes(1, 100));
    assert_eq!(kit.tier.find(&record.name()), None);
    assert_eq!(kit.load(1, &record, 0..100, 0), Err(Failure::Gone));
    kit.submit(Job::Remove { name: record.name() });
    kit.close();
}

/// Bytes that are not what their record says are not stored.
pub fn a_wrong_checksum_is_not_stored<H: Harness>(harness: &H) {
    let kit = Kit::open(harness);
    let bytes = bytes(1, 100_000);
    let mut record = record(1, &bytes);
    record.checksum ^= 1;
    assert_eq!(kit.store(1, record, &bytes, true), Err(Failure::Corrupt));
    assert_eq!(kit.tier.find(&record.name()), None);
    kit.close();
}

/// A range that leaves the block, or does not fit the span, fails and harms nothing.
pub fn a_wrong_range_is_refused<H: Harness>(harness: &H) {
    let kit = Kit::open(harness);
    let bytes = bytes(1, 1000);
    let record = record(1, &bytes);
    assert_eq!(kit.store(1, record, &bytes, false), Ok(None));
    for (range, len) in
        [(0..1001, 1001), (999..1001, 2), (0..1000, 999), (5..5, 1), (u64::MAX - 1..u64::MAX, 1)]
    {
        let (name, lane, into) = (record.name(), Lane::Demand, span(&vec![0; len], 0));
        let job = Job::Load { token: 2, name, range: range.clone(), into, lane, within: PATIENCE };
        kit.submit(job);
        let end = kit.wait(2);
        assert!(end.is_err() && end != Err(Failure::Corrupt), "{range:?} of 1000 bytes: {end:?}");
    }
    kit.expect(3, &record, &bytes);
    kit.close();
}

/// Of two versions of a block the one stored later is loaded.
pub fn the_newest_version_is_loaded<H: Harness>(harness: &H) {
    let kit = Kit::open(harness);
    for version in 0..10 {
        let bytes = bytes(100 + version, 3000 + version as usize);
        let record = record(1, &bytes);
        assert_eq!(kit.store(1, record, &bytes, version % 2 == 0), Ok(None));
        kit.expect(2, &record, &bytes);
    }
    kit.close();
}

/// One key under two identities is two blocks.
pub fn identities_are_apart<H: Harness>(harness: &H) {
    let kit = Kit::open(harness);
    let (ours, theirs) = (bytes(1, 1000), bytes(2, 2000));
    let first = record(1, &ours);
    let mut second = record(1, &theirs);
    second.identity = IdentityId::from_bytes([8; 16]);
    assert_eq!(kit.store(1, first, &ours, false), Ok(None));
    assert_eq!(kit.load(2, &second, 0..1000, 0), Err(Failure::Gone));
    assert_eq!(kit.store(3, second, &theirs, false), Ok(None));
    kit.expect(4, &first, &ours);
    kit.expect(5, &second, &theirs);
    kit.submit(Job::Clear { identity: second.identity });
    assert_eq!(kit.tier.find(&second.name()), None);
    kit.expect(6, &first, &ours);
    kit.close();
}

/// A block whose bytes are damaged is never loaded: it is dropped, and counted.
pub fn a_damaged_block_is_dropped<H: Harness>(harness: &H) {
    let kit = Kit::open(harness);
    let (ours, others) = (bytes(1, 100_000), bytes(2, 100_000));
    let (first, second) = (record(1, &ours), record(2, &others));
    assert_eq!(kit.store(1, first, &ours, true), Ok(None));
    assert_eq!(kit.store(2, second, &others, true), Ok(None));
    if !harness.damage(&ours[..64]) {
        skip("nothing that is stored can be damaged");
    }
    assert_eq!(kit.load(3, &first, 0..first.len, 0), Err(Failure::Corrupt));
    assert_eq!(kit.tier.find(&first.name()), None);
    assert_eq!(kit.load(4, &first, 0..first.len, 0), Err(Failure::Gone));
    assert_eq!(kit.tier.figures().corrupt, 1);
    kit.expect(5, &second, &others);
    kit.close();
}

/// A range is checked by itself: damage in it is noticed, damage far from it does not matter.
pub fn damage_elsewhere_spoils_no_range<H: Harness>(harness: &H) {
    let kit = Kit::open(harness);
    let bytes = bytes(1, 300_000);
    let record = record(1, &bytes);
    assert_eq!(kit.store(1, record, &bytes, true), Ok(None));
    if !harness.damage(&bytes[290_000..290_064]) {
        skip("nothing that is stored can be damaged");
    }
    for range in [0..100, 0..65_536, 70_000..200_000] {
        let loaded = kit.load(2, &record, range.clone(), 0).expect("that part is whole");
        assert!(loaded == bytes[range.start as usize..range.end as usize]);
    }
    assert_eq!(kit.load(3, &record, 280_000..295_000, 0), Err(Failure::Corrupt));
    assert_eq!(kit.tier.find(&record.name()), None);
    kit.close();
}
