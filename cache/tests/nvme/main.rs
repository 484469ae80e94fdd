//! The log of the NVMe tier on a simulated disk: thousands of seeded programs, each a bad day.
//!
//! A schedule stores, loads, removes and clears blocks, durable or not, whole or in parts, in a store
//! so small that segments are reclaimed all the time, while the power fails between any two steps,
//! writes that were not flushed are lost, torn and reordered, reads and writes fail, bits rot, the
//! device fills up, hangs or goes away, and clocks jump. After each step, and after each opening:
//! - what is loaded is what was stored under that name, and no version that was replaced;
//! - every job is answered once, and its span is not touched after that, nor any other byte before;
//! - what was durable is there after a crash, unless it was removed, evicted or has expired;
//! - after a close everything is exactly as it was;
//! - the index from summaries is the one from a walk of all frames, and opening twice changes nothing;
//! - the bookkeeping of segments, space and memory adds up.
//!
//! `TRANSHIP_NVME_SCHEDULES` says how many to run, `TRANSHIP_NVME_FROM` from which seed on, and
//! `TRANSHIP_SIM_SEED` which one alone.

#[cfg(feature = "sabotage")]
mod defects;
mod names;
mod run;
mod splice;
mod world;

use std::io::Write;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use crate::run::run;
use crate::world::Tally;

/// Schedules in each run of the tests.
const SCHEDULES: u64 = 5_000;
/// From how many on progress is told, and how often.
const TOLD_EVERY: u64 = 20_000;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

fn say(text: &str) {
    // Past the capture of a test that passes; nothing is lost when nobody listens.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Runs a schedule; tells how to run it again when it does not hold.
fn holds(seed: u64) -> Option<Tally> {
    let report = catch_unwind(|| run(seed));
    if report.is_err() {
        say(&format!("schedule {seed} does not hold; run it again with"));
        say(&format!(
            "  TRANSHIP_SIM_SEED={seed} cargo test -p tranship-cache --features conformance --test nvme"
        ));
    }
    report.ok().map(|report| report.tally)
}

/// Five thousand bad days, all of them survived.
#[test]
fn every_schedule_holds() {
    if let Some(seed) = number("TRANSHIP_SIM_SEED") {
        say(&format!("{:?}", run(seed)));
        return;
    }
    let schedules = number("TRANSHIP_NVME_SCHEDULES").unwrap_or(SCHEDULES);
    let from = number("TRANSHIP_NVME_FROM").unwrap_or(0);
    let began = Instant::now();
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let counts: [AtomicU64; 19] = Default::default();
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= schedules {
                return;
            }
            match holds(from + at) {
                Some(tally) => counts.iter().zip(tally.counts()).for_each(|(to, count)| {
                    to.fetch_add(count, Ordering::Relaxed);
                }),
                None => failed.store(true, Ordering::Relaxed),
            }
            if at > 0 && at.is_multiple_of(TOLD_EVERY) {
                let rate = at as f64 / began.elapsed().as_secs_f64();
                say(&format!("{at} of {schedules} schedules, {rate:.0} in a second"));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    assert!(!failed.load(Ordering::Relaxed), "a schedule does not hold; it is named above");
    let counts = counts.map(AtomicU64::into_inner);
    say(&format!(
        "{schedules} schedules hold, {:.0} in a second; stored, durable, loaded, parts, gone, late, \
         corrupt, failed, no room, worn, refused, evicted, moved, crashes, closes, syncs, read-only, \
         recovered, hung: {counts:?}",
        schedules as f64 / began.elapsed().as_secs_f64()
    ));
    let rare = schedules.min(100) / 100;
    assert!(counts.iter().all(|count| *count >= rare), "schedules reach everything: {counts:?}");
}

/// One seed is one run: what failed once fails again.
#[test]
fn one_seed_is_one_schedule() {
    for seed in (0..20).map(|at| at * 37) {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
    assert_ne!(run(1).trace, run(2).trace);
}
