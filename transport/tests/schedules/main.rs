//! Fault schedules: thousands of seeded programs on the simulated network, each a different bad day.
//!
//! A schedule is a program made from a seed: engines write, read, send and signal, in pieces, in
//! batches and in both lanes, meet at barriers and write into words that others watch, while
//! transfers are cancelled, windows revoked and granted again on the same pages, regions, engines
//! and counters closed and made again, hosts hang, die and come back at the same addresses, and
//! links are cut and healed; in half of them over two fabrics, of which one is cut while the other
//! works. Between all steps the oracles look:
//! - no byte changes but by a transfer that may touch it and has not provably ended;
//! - every transfer ends by its deadline, once; `Done` means that all bytes are there, `Rejected`
//!   that none moved;
//! - counters count what carried their own generation, at most once each, after its payload;
//! - messages arrive in order, once, unless they were rejected;
//! - nobody passes a barrier before all have come; words are heard in order, as they were written;
//! - whatever takes another way than the best is announced;
//! - at the end everything is proven, everybody reaches everybody, and nothing is left behind.
//!
//! `TRANSHIP_SCHEDULES` says how many to run, `TRANSHIP_SCHEDULES_FROM` from which seed on, and
//! `TRANSHIP_SCHEDULE` which one alone.

#[cfg(feature = "sabotage")]
mod defects;
mod dice;
mod end;
mod flight;
mod meeting;
mod moves;
mod oracle;
mod pieces;
mod program;
mod run;
mod shadow;
mod word;
mod world;

use std::io::Write;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use crate::program::Program;
use crate::run::run;
use crate::world::Tally;

/// Schedules in each run of the tests.
const SCHEDULES: u64 = 10_000;
/// From how many on progress is told, and how often.
const TOLD_EVERY: u64 = 20_000;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

/// The only schedule to run, if one is asked for.
fn alone() -> Option<u64> {
    number("TRANSHIP_SCHEDULE")
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
            "  TRANSHIP_SCHEDULE={seed} cargo test -p tranship-transport --test schedules"
        ));
    }
    report.ok().map(|report| report.tally)
}

/// Ten thousand bad days, all of them survived.
#[test]
fn every_schedule_holds() {
    if let Some(seed) = alone() {
        for (at, step) in Program::new(seed).steps.iter().enumerate() {
            say(&format!("{at:3} {step:?}"));
        }
        say(&format!("{:?}", run(seed)));
        return;
    }
    let schedules = number("TRANSHIP_SCHEDULES").unwrap_or(SCHEDULES);
    let began = Instant::now();
    let from = number("TRANSHIP_SCHEDULES_FROM").unwrap_or(0);
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let (ends, reached): ([AtomicU64; 4], [AtomicU64; 3]) = Default::default();
    let add = |to: &[AtomicU64], counts: &[u64]| {
        for (to, count) in to.iter().zip(counts) {
            to.fetch_add(*count, Ordering::Relaxed);
        }
    };
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= schedules {
                return;
            }
            match holds(from + at) {
                Some(tally) => {
                    add(&ends, &tally.ends);
                    add(&reached, &tally.reached);
                }
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
    let (ends, reached) = (ends.map(AtomicU64::into_inner), reached.map(AtomicU64::into_inner));
    say(&format!(
        "{schedules} schedules hold, {:.0} in a second; transfers done, rejected, fenced, lost: {ends:?}; \
         rounds of barriers passed, words heard, detours: {reached:?}",
        schedules as f64 / began.elapsed().as_secs_f64()
    ));
    let rare = schedules.min(100) / 100;
    let often = |counts: &[u64]| counts.iter().all(|count| *count >= rare);
    assert!(often(&ends) && often(&reached), "schedules reach everything: {ends:?}, {reached:?}");
}

/// One seed is one run: what failed once fails again.
#[test]
fn one_seed_is_one_schedule() {
    for seed in (0..40).map(|at| at * 37) {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
    assert_ne!(run(1).trace, run(2).trace);
}
