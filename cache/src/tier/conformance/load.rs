//! Many at once, and what is counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::harness::Harness;
use super::kit::{Kit, PATIENCE, bytes, read, record, span};
use crate::tier::cold::{Job, Lane};

/// Threads that store and load at the same time each get their own bytes.
pub fn many_threads_get_their_own_bytes<H: Harness>(harness: &H) {
    const THREADS: u64 = 4;
    const ROUNDS: u64 = 40;
    let kit = Kit::open(harness);
    let tokens = AtomicU64::new(0);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (kit, tokens) = (&kit, &tokens);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let number = thread * ROUNDS + round;
                    let bytes = bytes(number, 1 + (number as usize * 977) % 20_000);
                    let record = record(number, &bytes);
                    let token = tokens.fetch_add(2, Ordering::Relaxed);
                    assert_eq!(kit.store(token, record, &bytes, round % 7 == 0), Ok(None));
                    let into = span(&vec![0; bytes.len()], (number % 3) as usize);
                    let (name, lane, range) = (record.name(), Lane::Demand, 0..record.len);
                    let (token, into_too) = (token + 1, into.clone());
                    kit.submit(Job::Load {
                        token,
                        name,
                        range,
                        into: into_too,
                        lane,
                        within: PATIENCE,
                    });
                    assert_eq!(kit.wait(token), Ok(Some(record)));
                    assert!(read(&into) == bytes, "block {number} is wrong");
                }
            });
        }
    });
    kit.close();
}

/// Figures say what was stored, loaded and failed, and what is here.
pub fn figures_add_up<H: Harness>(harness: &H) {
    let kit = Kit::open(harness);
    let all: Vec<_> = (0..10).map(|number| bytes(number, 1000 * number as usize)).collect();
    for (number, bytes) in (0..).zip(&all) {
        assert_eq!(kit.store(1, record(number, bytes), bytes, true), Ok(None));
        kit.expect(2, &record(number, bytes), bytes);
    }
    let figures = kit.tier.figures();
    assert_eq!((figures.blocks, figures.bytes), (10, 45_000));
    assert_eq!((figures.stored, figures.stored_bytes), (10, 45_000));
    assert_eq!((figures.loaded, figures.loaded_bytes), (10, 45_000));
    assert_eq!((figures.failed, figures.corrupt, figures.evicted), (0, 0, 0));
    assert!(figures.device_written_bytes >= 45_000 && figures.capacity_bytes >= 45_000);
    kit.submit(Job::Remove { name: record(9, &all[9]).name() });
    kit.submit(Job::Sync { token: 3 });
    assert_eq!(kit.wait(3), Ok(None));
    assert_eq!(kit.tier.figures().blocks, 9);
    assert_eq!(kit.tier.figures().bytes, 36_000);
    kit.close();
}
