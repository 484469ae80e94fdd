//! How much is written for what is stored: the write amplification, everything included.
//!
//! Blocks of 256 KiB, four at a time, five times as many as there is room for; either nobody ever loads
//! one, or everybody loads all of them, so that each is worth being written again.

use std::io::Write;

use tranship_cache::tier::Lane;
use tranship_cache::tier::nvme::Options;
use tranship_cache::tier::nvme::disk::sim::Device;
use tranship_cache::tier::nvme::testing::{Stepped, bytes, record, span};
use tranship_cache::time::Millis;

const SEGMENT_BYTES: usize = 4 << 20;
const SEGMENTS: usize = 12;
const BLOCK_BYTES: usize = 256 << 10;
const BATCH: u64 = 4;

fn say(text: &str) {
    // Past the capture of a test that passes; nothing is lost when nobody listens.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Bytes written to the device for each that is stored.
fn amplification(reinsert_percent: u8, loaded: bool) -> f64 {
    let device = Device::new(SEGMENT_BYTES * (SEGMENTS + 1), 1);
    let segment_bytes = SEGMENT_BYTES as u64;
    let options = Options { segment_bytes, reinsert_percent, ..Options::default() };
    let mut store = Stepped::open(device.open(), &options, 1).expect("an empty device");
    let content = bytes(1, BLOCK_BYTES);
    let (from, into) = (span(&content), span(&content));
    let batches = (5 * SEGMENTS * SEGMENT_BYTES / BLOCK_BYTES) as u64 / BATCH;
    for batch in 0..batches {
        let numbers = batch * BATCH..(batch + 1) * BATCH;
        let records = numbers.map(|number| record(number, &content));
        let tokens: Vec<u64> =
            records.clone().map(|record| store.submit_store(record, from.clone(), false)).collect();
        for token in tokens {
            assert_eq!(store.wait(token), Ok(None));
        }
        for record in records.filter(|_| loaded) {
            let range = 0..record.len;
            let token = store.submit_load(record.name(), range, into.clone(), Lane::Demand);
            assert!(store.wait(token).is_ok());
        }
        store.pass(Millis(2));
    }
    let figures = store.desk().figures();
    let amplification = figures.device_written_bytes as f64 / figures.stored_bytes as f64;
    let loaded = if loaded { "all loaded" } else { "none loaded" };
    say(&format!(
        "reinsert {reinsert_percent:2} %, {loaded}: {amplification:.3} bytes written for each stored; \
         {} blocks stored, {} written again, {} evicted",
        figures.stored, figures.reinserted, figures.evicted
    ));
    amplification
}

#[test]
fn reinsertion_bounds_what_is_written() {
    /// Headers, summaries and the index log.
    const OVERHEAD: f64 = 1.02;
    for percent in [0, 25, 50, 75] {
        let bound = 100.0 / f64::from(100 - percent);
        let (none, all) = (amplification(percent, false), amplification(percent, true));
        assert!((1.0..OVERHEAD).contains(&none), "{none} times though nothing is worth it");
        assert!(all < bound * OVERHEAD, "{all} times with {percent} %, more than {bound}");
        assert!(percent == 0 || all > 1.0 + f64::from(percent) / 200.0, "nothing is kept: {all}");
    }
}
