//! Races between threads in real time. On a simulated fabric, where everything happens on one
//! thread in an order of its own choosing, the other rules find what these look for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::harness::{Harness, skip};
use super::kit::{AMPLE, Dice, bytes_of, engine, fill, is_all, region};
use crate::engine::Polling;
use crate::outcome::{Outcome, Reason};

fn needs_threads<H: Harness>() {
    if !H::THREADS {
        skip("engines of this harness run on one thread");
    }
}

/// "Revoking a window fences late writes", of writers on threads of their own that never pause.
pub fn a_window_is_fenced_against_writers_on_threads<H: Harness>(harness: &H) {
    const BYTES: u64 = 200_000;
    needs_threads::<H>();
    let mut dice = Dice::new(harness);
    let owner = engine(harness);
    let target = region(&owner, BYTES as usize);
    let writers: Vec<_> = (0..3)
        .map(|_| {
            let writer = engine(harness);
            let source = region(&writer, BYTES as usize);
            fill(&source, 7);
            (writer, source)
        })
        .collect();
    for _ in 0..10 {
        let window = target.window(0..BYTES).unwrap();
        let descriptor = window.descriptor();
        let arrivals = owner.counter().unwrap();
        thread::scope(|scope| {
            let running: Vec<_> = writers
                .iter()
                .map(|(writer, source)| {
                    let to = writer.open(&descriptor).unwrap();
                    let slot = arrivals.slot();
                    scope.spawn(move || {
                        loop {
                            let whole = source.slice(0..BYTES).unwrap();
                            let write = writer.write(whole, to.slice(0..BYTES).unwrap());
                            let outcome = write.immediate(slot).deadline(AMPLE).wait();
                            if !outcome.is_done() {
                                return outcome;
                            }
                        }
                    })
                })
                .collect();
            arrivals.wait(3 + dice.below(30), AMPLE).unwrap();
            window.revoke_within(AMPLE).unwrap();
            fill(&target, 1);
            for writer in running {
                let outcome = writer.join().unwrap();
                assert_eq!(outcome.reason(), Some(Reason::Stale), "{outcome}");
                assert!(outcome.pages_are_free(), "{outcome}");
            }
        });
        assert!(is_all(&bytes_of(&target), 1), "a late write landed in a revoked window");
    }
}

/// "A counter reads with acquire semantics": a thread that only looks at the counter sees the
/// payloads that another made visible.
pub fn a_count_shows_its_payloads_to_any_thread<H: Harness>(harness: &H) {
    const BYTES: u64 = 5000;
    const ROUNDS: u64 = 200;
    needs_threads::<H>();
    let (a, b) = (engine(harness), engine(harness));
    let (source, target) = (region(&a, BYTES as usize), region(&b, BYTES as usize));
    // Two halves, written in turn: one is read while the other is written.
    let half = BYTES / 2;
    let window = target.window(0..BYTES).unwrap();
    let to = a.open(&window.descriptor()).unwrap();
    let (arrivals, taken) = (b.counter().unwrap(), a.counter().unwrap());
    let (slot, back) = (arrivals.slot(), taken.slot());
    let answer = b.connect(&a.addresses()[0], AMPLE).unwrap();
    let failed = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=ROUNDS {
                while arrivals.count() < round {
                    std::hint::spin_loop();
                    b.progress();
                }
                let from = (round % 2 * half) as usize;
                let mut bytes = vec![0; half as usize];
                target.memory().read_at(from, &mut bytes).unwrap();
                if !is_all(&bytes, round as u8) {
                    failed.store(true, Ordering::Relaxed);
                }
                assert_eq!(b.send(answer, []).immediate(back).wait(), Outcome::Done);
            }
        });
        for round in 1..=ROUNDS {
            // At most one round ahead, so that the half being looked at stays as it is.
            taken.wait(round.saturating_sub(2), AMPLE).unwrap();
            let from = round % 2 * half;
            let bytes = vec![round as u8; half as usize];
            source.memory().write_at(from as usize, &bytes).unwrap();
            let range = from..from + half;
            let write = a.write(source.slice(range.clone()).unwrap(), to.slice(range).unwrap());
            assert_eq!(write.immediate(slot).deadline(AMPLE).wait(), Outcome::Done);
        }
    });
    assert!(!failed.load(Ordering::Relaxed), "a payload was announced before it was visible");
}

/// A wait that held has held, at whichever look: what was taken by it, going to sleep, say, is not
/// lost.
pub fn what_a_wait_took_is_kept<H: Harness>(harness: &H) {
    needs_threads::<H>();
    let polling = Polling::Adaptive { spin: Duration::ZERO };
    let engine = harness.builder().polling(polling).build().unwrap();
    // Looked at on entry, after a step, and on the way to sleep.
    for look in 1..=3 {
        let mut looks = 0;
        let held = engine.wait_until(AMPLE / 20, || {
            looks += 1;
            looks == look
        });
        assert!(held, "what look {look} found was lost");
    }
}

/// "Closing the engine while transfers fly is safe": with threads that go on transferring, to it
/// and from it.
pub fn closing_is_safe_under_threads<H: Harness>(harness: &H) {
    const BYTES: u64 = 200_000;
    needs_threads::<H>();
    for close_target in [true, false] {
        let (a, b) = (engine(harness), engine(harness));
        let (source, target) = (region(&a, BYTES as usize), region(&b, BYTES as usize));
        fill(&source, 7);
        let window = target.window(0..BYTES).unwrap();
        let to = a.open(&window.descriptor()).unwrap();
        let arrivals = b.counter().unwrap();
        let slot = arrivals.slot();
        thread::scope(|scope| {
            let (a, source, to) = (&a, &source, &to);
            let running: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(move || {
                        loop {
                            let whole = source.slice(0..BYTES).unwrap();
                            let write = a.write(whole, to.slice(0..BYTES).unwrap());
                            let outcome = write.immediate(slot).deadline(AMPLE).wait();
                            if !outcome.is_done() {
                                return outcome;
                            }
                        }
                    })
                })
                .collect();
            arrivals.wait(5, AMPLE).unwrap();
            let (closing, left) = if close_target { (&b, &target) } else { (a, source) };
            closing.close(AMPLE).unwrap();
            fill(left, 1);
            for writer in running {
                let outcome = writer.join().unwrap();
                assert!(outcome.pages_are_free(), "{outcome}");
            }
            assert!(is_all(&bytes_of(left), 1), "touched after close");
        });
    }
}
