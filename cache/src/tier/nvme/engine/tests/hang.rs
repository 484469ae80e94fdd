//! A device that does not answer any more.

use super::{device, open, options};
use crate::tier::Lane;
use crate::tier::cold::{Failure, Health, Job};
use crate::tier::nvme::Options;
use crate::tier::nvme::testing::{Stepped, bytes, record, span, span_at};
use crate::time::Millis;

/// Lets so many seconds pass, looking at the device in each.
fn seconds(store: &mut Stepped, count: u64) {
    (0..count).for_each(|_| store.pass(Millis(1000)));
}

#[test]
fn a_device_that_hangs_is_off_after_30_s_and_jobs_are_answered() {
    let device = device();
    let mut store = open(&device, &Options { loads_max: 4, frames_max: 1, ..options() });
    let bytes = bytes(1, 20_000);
    let record = record(1, &bytes);
    assert_eq!(store.store(record, &bytes, true), Ok(None));
    device.inject(|faults| faults.held = true);
    let direct = span(&[0xEE; 20_000]);
    let name = record.name();
    let held = store.submit_load(name, 0..20_000, direct, Lane::Demand);
    let mut answered = Vec::new();
    for _ in 0..8 {
        // The first are with the device, the others wait for it.
        let into = span_at(9, &[0; 100]);
        answered.push(store.submit_load(name, 50..150, into, Lane::Demand));
    }
    for shift in [0, 9, 0, 9] {
        answered.push(store.submit_store(record, span_at(shift, &bytes), shift == 0));
    }
    store.submit(Job::Sync { token: 1000 });
    answered.push(1000);
    store.step();
    seconds(&mut store, 29);
    assert_eq!(store.desk().health(), Health::Ready);
    assert!(answered.iter().all(|token| store.answer(*token).is_none()));
    seconds(&mut store, 2);
    let health = store.desk().health();
    assert!(matches!(&health, Health::Off(why) if why.contains("hangs")), "{health:?}");
    for token in answered {
        let ended = store.answer(token).unwrap_or_else(|| panic!("job {token} is not answered"));
        assert!(matches!(ended, Err(Failure::Unavailable(_))), "{ended:?}");
    }
    assert_eq!(store.desk().find(&name, store.now.wall), None);
    // The next ones are answered at once.
    let late = store.submit_load(name, 0..10, span(&[0; 10]), Lane::Demand);
    let stored = store.submit_store(record, span(&bytes), false);
    store.step();
    for token in [late, stored] {
        assert!(matches!(store.answer(token), Some(Err(Failure::Unavailable(_)))));
    }
    // Only where the device may still write to memory the answer waits for it.
    seconds(&mut store, 100);
    assert_eq!(store.answer(held), None);
    device.inject(|faults| faults.held = false);
    assert_eq!(store.wait(held), Err(Failure::Deadline));
    store.steps(100);
    store.engine.audit().unwrap();
    store.close();
}

#[test]
fn a_device_that_is_gone_and_hangs_keeps_no_job_either() {
    let device = device();
    let mut store = open(&device, &options());
    let bytes = bytes(1, 20_000);
    let record = record(1, &bytes);
    assert_eq!(store.store(record, &bytes, true), Ok(None));
    // One operation ends, which says that the device is gone, and others never do.
    device.inject(|faults| faults.slow = 50);
    let name = record.name();
    let mut tokens: Vec<u64> = (0..20)
        .map(|_| store.submit_load(name, 0..100, span_at(9, &[0; 100]), Lane::Demand))
        .collect();
    tokens.push(store.submit_store(record, span(&bytes), true));
    store.step();
    device.inject(|faults| faults.gone = true);
    while store.desk().health() == Health::Ready {
        store.step();
    }
    device.inject(|faults| faults.held = true);
    assert!(tokens.iter().filter(|token| store.answer(**token).is_some()).count() < tokens.len());
    seconds(&mut store, 40);
    store.engine.audit().unwrap();
    assert_eq!(store.desk().in_hand(), 0, "jobs are not answered");
}

#[test]
fn a_device_that_ends_something_now_and_then_does_not_hang() {
    let device = device();
    let mut store = open(&device, &options());
    let bytes = bytes(1, 60_000);
    let record = record(1, &bytes);
    assert_eq!(store.store(record, &bytes, true), Ok(None));
    let load = |store: &mut Stepped| {
        store.submit_load(record.name(), 0..60_000, span(&bytes), Lane::Demand)
    };
    let mut before = load(&mut store);
    for _ in 0..5 {
        device.inject(|faults| faults.held = true);
        seconds(&mut store, 20);
        // The next one is asked for when this one ends, so that the device always has something.
        let next = load(&mut store);
        device.inject(|faults| faults.held = false);
        store.step();
        assert_eq!(store.answer(before), Some(Ok(Some(record))));
        before = next;
    }
    assert_eq!(store.desk().health(), Health::Ready);
}

#[test]
fn time_in_which_nobody_looked_says_nothing_of_the_device() {
    let device = device();
    let mut store = open(&device, &options());
    let bytes = bytes(1, 5000);
    device.inject(|faults| faults.held = true);
    let token = store.submit_store(record(1, &bytes), span(&bytes), true);
    store.step();
    for _ in 0..10 {
        store.pass(Millis(3_600_000));
    }
    device.inject(|faults| faults.held = false);
    assert_eq!(store.wait(token), Ok(None));
    assert_eq!(store.desk().health(), Health::Ready);
}
