//! What is kept, and what happens when it cannot be.

use std::sync::{Arc, OnceLock};

use super::*;
use crate::lineage::Link;
use crate::tier::cold::{Job, Mark, Record};
use crate::tier::nvme::desk::Desk;
use crate::tier::nvme::disk::sim::Device;
use crate::tier::nvme::testing::{Stepped, clock, record, span};
use crate::tier::nvme::{Hits, Judge, Options};
use crate::time::Millis;

fn candidate(key: u8, parent: Option<u8>, pages: u32, worth: f32) -> Candidate {
    let named = |key: u8| Key::from_bytes([key; 16]);
    let link = Link { key: named(key), parent: parent.map(named), position: u32::from(key) };
    let identity = IdentityId::from_bytes([0; 16]);
    let len = u64::from(pages) * PAGE_BYTES;
    let record = Record { identity, link, len, checksum: 0, expires: None };
    let stored = len as u32;
    let entry = Entry { record, mark: Mark::default(), codec: 0, stored, page: 1, frame: 0 };
    Candidate { entry, place: Place { page: 1, head: 1 }, slot: 0, worth }
}

#[test]
fn the_worthiest_are_kept_within_the_budget() {
    let alive = [
        candidate(1, None, 4, 1.0),
        candidate(2, None, 4, 0.5),
        candidate(3, None, 4, 3.0),
        candidate(4, None, 2, 2.0),
    ];
    assert_eq!(choose(&alive, 100), [2, 3, 0]);
    assert_eq!(choose(&alive, 7), [2, 3]);
    assert_eq!(choose(&alive, 3), [3]);
    assert!(choose(&alive, 1).is_empty());
}

#[test]
fn a_block_is_kept_after_those_that_it_follows_or_not_at_all() {
    let alive = [
        candidate(3, Some(2), 1, 9.0),
        candidate(2, Some(1), 1, 0.0),
        candidate(1, Some(7), 1, 0.0),
        candidate(5, None, 1, 1.0),
    ];
    assert_eq!(choose(&alive, 4), [2, 1, 0, 3]);
    assert_eq!(choose(&alive, 2), [3]);
}

#[test]
fn a_ring_of_parents_ends() {
    let alive = [candidate(1, Some(2), 1, 1.0), candidate(2, Some(1), 1, 1.0)];
    assert_eq!(choose(&alive, 9).len(), 2);
}

/// Pages of a segment; a block without bytes takes one.
const PAGES: usize = 64;

fn options() -> Options {
    let segment_bytes = (PAGES * PAGE) as u64;
    Options { segment_bytes, bounce_bytes: 1 << 20, flush_every: Millis(0), ..Options::default() }
}

fn device(segments: usize) -> Device {
    Device::new((64 + segments * PAGES) * PAGE, 1)
}

/// Stores blocks, and loads each so that it is worth something, until the summary of a segment is read,
/// which is longer than what is read of it at first.
fn until_reclaimed(store: &mut Stepped) {
    for batch in 0.. {
        let numbers = batch * 40..(batch + 1) * 40;
        let tokens: Vec<u64> = numbers
            .clone()
            .map(|number| store.submit_store(record(number, &[]), span(&[]), false))
            .collect();
        for token in tokens {
            while store.answer(token).is_none() {
                store.step();
                if store.engine.reclaim.victim.as_ref().is_some_and(|victim| victim.tail.is_some())
                {
                    return;
                }
            }
        }
        for number in numbers {
            assert!(store.load(record(number, &[]).name(), 0).is_ok());
        }
    }
}

#[test]
fn a_segment_stays_when_there_is_no_memory_for_its_summary() {
    let device = device(8);
    let mut store = Stepped::open(device.open(), &options(), 1).unwrap();
    until_reclaimed(&mut store);
    let segment = store.engine.reclaim.victim.as_ref().unwrap().segment;
    let mut hog = Vec::new();
    while let Some(piece) = store.engine.meta.take(PAGE_BYTES) {
        hog.push(piece);
    }
    // Two pages are needed, and the first read has one.
    for _ in 0..1000 {
        store.step();
        hog.extend(store.engine.meta.take(PAGE_BYTES));
    }
    assert_eq!(store.desk().figures().evicted, 0, "blocks are given up for want of memory");
    // It is tried again and again.
    let state = store.engine.segments.get(segment).state;
    assert!(matches!(state, State::Sealed | State::Leaving), "{state:?}");
    hog.into_iter().for_each(|piece| store.engine.meta.give_back(piece));
    store.steps(1000);
    let figures = store.desk().figures();
    assert!(figures.reinserted > 0 && figures.evicted > 0, "{figures:?}");
    store.engine.audit().unwrap();
    store.close();
}

/// Asks the tier itself, as no code can that runs under its lock.
struct Asks(Arc<OnceLock<Arc<Desk>>>);

impl Judge for Asks {
    fn worth(&mut self, blocks: &[(Name, Mark)], age: Millis) -> Vec<f32> {
        let desk = self.0.get().expect("the store is open");
        desk.find(&record(0, &[]).name(), clock().wall);
        Hits.worth(blocks, age)
    }
}

#[test]
fn a_judge_is_asked_without_any_lock() {
    let device = device(8);
    let desk = Arc::new(OnceLock::new());
    let judge = Box::new(Asks(Arc::clone(&desk)));
    let engine = Engine::open(device.open(), &options(), judge, [1; 16], &clock).unwrap();
    assert!(desk.set(engine.desk()).is_ok());
    let mut store = Stepped::new(engine);
    until_reclaimed(&mut store);
    store.steps(1000);
    assert!(store.desk().figures().reinserted > 0);
    store.close();
}

#[test]
fn what_has_no_name_is_looked_for_some_slots_at_a_time() {
    let device = device(2 * SLOTS as usize / 50);
    let mut store = Stepped::open(device.open(), &options(), 1).unwrap();
    until_reclaimed(&mut store);
    let slots = store.desk().index.lock().slots();
    assert!(slots > SLOTS, "{slots} slots");
    // Nobody knows what is in the segment.
    let segment = store.engine.reclaim.victim.as_ref().unwrap().segment;
    let blocks = u64::from(store.engine.segments.get(segment).blocks);
    device.inject(|faults| faults.reads_one_in = Some(1));
    while store.engine.reclaim.leaving.is_empty() {
        store.step();
    }
    device.inject(|faults| faults.reads_one_in = None);
    // As if the blocks of the oldest segment had come last.
    store.engine.reclaim.leaving[0].next = SLOTS;
    let mut looked = Vec::new();
    while let Some(leaving) =
        store.engine.reclaim.leaving.iter().find(|some| some.segment == segment)
    {
        looked.push(leaving.next);
        store.step();
        store.engine.audit().unwrap();
    }
    looked.dedup();
    assert!(
        looked.len() > 1 && looked.windows(2).all(|two| two[1] - two[0] <= SLOTS),
        "{looked:?}"
    );
    let figures = store.desk().figures();
    assert!(figures.evicted >= blocks, "{figures:?}");
    store.submit(Job::Sync { token: u64::MAX });
    assert_eq!(store.wait(u64::MAX), Ok(None));
    let mut before = store.names();
    device.crash();
    let mut after = Stepped::open(device.open(), &options(), 2).unwrap().names();
    before.sort_unstable();
    after.sort_unstable();
    assert!(after.iter().all(|name| before.binary_search(name).is_ok()), "a block is back");
}
