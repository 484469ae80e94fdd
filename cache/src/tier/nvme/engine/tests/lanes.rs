//! Lanes, when memory is short.

use super::{open, options};
use crate::tier::Lane;
use crate::tier::nvme::Options;
use crate::tier::nvme::disk::sim::Device;
use crate::tier::nvme::testing::{PAGE, bytes, record, span_at};

#[test]
fn later_lanes_take_no_memory_that_demand_waits_for() {
    let device = Device::new(1024 * PAGE, 1);
    // The least memory that there can be: 64 pages.
    let segment_bytes = (128 * PAGE) as u64;
    let options = Options { bounce_bytes: 0, segment_bytes, ..options() };
    let mut store = open(&device, &options);
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
