//! Lanes, when memory is short.

use super::{open, options};
use crate::tier::Lane;
use crate::tier::nvme::Options;
use crate::tier::nvme::disk::sim::Device;
use crate::tier::nvme::testing::{PAGE, bytes, record, span_at};

/// The least memory that there can be: 64 pages.
fn narrow() -> Options {
    Options { bounce_bytes: 0, segment_bytes: (128 * PAGE) as u64, ..options() }
}

#[test]
fn later_lanes_take_no_memory_that_demand_waits_for() {
    let device = Device::new(1024 * PAGE, 1);
    let mut store = open(&device, &narrow());
    let bytes = bytes(1, 250_000);
    let record = record(1, &bytes);
    assert_eq!(store.store(record, &bytes, true), Ok(None));
    device.inject(|faults| faults.slow = 5);
    let name = record.name();
    // A chunk of each, with nowhere to go but the tier's own memory, which has room for four.
    let others: Vec<u64> = [Lane::Prefetch, Lane::Write]
        .into_iter()
        .flat_map(|lane| [lane; 20])
        .map(|lane| store.submit_load(name, 0..60_000, span_at(9, &[0; 60_000]), lane))
        .collect();
    store.step();
    let demand = store.submit_load(name, 0..250_000, span_at(9, &vec![0; 250_000]), Lane::Demand);
    assert_eq!(store.wait(demand), Ok(Some(record)));
    let before = others.iter().filter(|token| store.answer(**token).is_some()).count();
    assert!(before <= 4, "{before} loads of later lanes came first");
}

#[test]
fn stores_take_no_memory_that_a_load_waits_for() {
    (0..10).for_each(stores_wait_too);
}

fn stores_wait_too(seed: u64) {
    let device = Device::new(1024 * PAGE, seed);
    let mut store = open(&device, &narrow());
    let (long, short) = (bytes(1, 250_000), bytes(2, 60_000));
    let (wanted, other) = (record(1, &long), record(2, &short));
    assert_eq!(store.store(wanted, &long, true), Ok(None));
    device.inject(|faults| faults.slow = 20);
    let mut stores = Vec::new();
    for _ in 0..4 {
        stores.push(store.submit_store(other, span_at(9, &short), false));
        store.step();
    }
    let into = span_at(9, &vec![0; 250_000]);
    let load = store.submit_load(wanted.name(), 0..250_000, into, Lane::Demand);
    store.step();
    assert!(store.engine.loads.is_waiting());
    let mut ended = 0;
    while store.engine.loads.is_waiting() {
        // Where one store ends another comes.
        stores.retain(|token| store.answer(*token).is_none());
        ended += 4 - stores.len();
        while stores.len() < 4 {
            stores.push(store.submit_store(other, span_at(9, &short), false));
        }
        assert!(store.engine.bounce.lent() + ended <= 4, "a store takes memory");
        store.step();
    }
    assert_eq!(store.wait(load), Ok(Some(wanted)));
}
