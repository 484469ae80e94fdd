//! Lanes and signals.

use super::harness::Harness;
use super::kit::{
    AMPLE, Dice, Pair, WATCH, address, all_done, bytes_at, engine, fill, start, until,
};
use crate::lane::Lane;
use crate::outcome::{Outcome, Reason};
use crate::transfer::Transfer;

/// A signal delivers its immediate without payload and without a window, once, in either lane; one
/// that carries the slot of an earlier owner counts for nobody.
pub fn a_signal_needs_no_window<H: Harness>(harness: &H) {
    let (a, b) = (engine(harness), engine(harness));
    let peer = a.connect(&address(&b), AMPLE).unwrap();
    let (first, counter) = (b.counter().unwrap(), b.counter().unwrap());
    let old = first.slot();
    drop(first);
    let sent: Vec<_> = (0..40)
        .map(|at| {
            let slot = if at % 4 == 3 { old } else { counter.slot() };
            start(a.signal(peer, slot).lane(Lane::ALL[at % 2]).deadline(AMPLE))
        })
        .collect();
    all_done(&sent);
    assert_eq!(counter.wait(30, AMPLE).unwrap(), 30);
    harness.pass(WATCH);
    until(harness, "the strays", || {
        b.progress();
        b.stats().stray_immediates == 10
    });
    assert_eq!(counter.count(), 30, "once each");
    assert_eq!(b.stats().immediates, 30);
    // To whoever answers at an address, without having dialled.
    let peer = b.peer(&harness.nowhere()).unwrap();
    let outcome = b.signal(peer, counter.slot()).deadline(AMPLE).wait();
    assert_eq!(outcome, Outcome::Rejected(Reason::Unreachable));
}

/// A signal is no way around a fence: what is cancelled before it left is not delivered.
pub fn a_signal_is_delivered_or_rejected<H: Harness>(harness: &H) {
    let mut dice = Dice::new(harness);
    let (a, b) = (engine(harness), engine(harness));
    let peer = a.connect(&address(&b), AMPLE).unwrap();
    let counter = b.counter().unwrap();
    let sent: Vec<Transfer> = (0..30)
        .map(|at| {
            let signal = start(a.signal(peer, counter.slot()).deadline(AMPLE));
            if dice.below(2) == 0 {
                harness.pass(std::time::Duration::from_nanos(dice.below(3000)));
                signal.cancel();
            } else if at % 5 == 0 {
                a.progress();
            }
            signal
        })
        .collect();
    let outcomes: Vec<_> = sent.iter().map(Transfer::wait).collect();
    let count = |is: fn(&Outcome) -> bool| outcomes.iter().filter(|it| is(it)).count() as u64;
    let done = count(|outcome| outcome.is_done());
    let unknown = count(|outcome| matches!(outcome, Outcome::Fenced(_) | Outcome::Lost(_)));
    harness.pass(WATCH);
    let counted = counter.wait(done, AMPLE).unwrap();
    assert!(counted <= done + unknown, "{counted} of {done} and {unknown}: {outcomes:?}");
}

/// "Two lanes, latency and bulk, that do not block each other": what is urgent arrives while bulk
/// posted before it is still on its way. A lane that waits for bulk never gets there first, however
/// often it tries; a busy machine may look too late, so one success in several tries proves it.
pub fn the_latency_lane_does_not_wait_for_bulk<H: Harness>(harness: &H) {
    const BULK_BYTES: u64 = 8 << 20;
    const BULK: u64 = 8;
    const TRIES: usize = 10;
    let pair = Pair::new(harness, BULK_BYTES as usize + 64);
    fill(&pair.source, 7);
    let (_window, to) = pair.offer();
    assert_eq!(pair.write(0..1, &to, 0).wait(), Outcome::Done);
    let mut seen = Vec::new();
    let overtook = (0..TRIES).any(|_| {
        fill(&pair.target, 0);
        let (bulk, urgent) = (pair.b.counter().unwrap(), pair.b.counter().unwrap());
        let mut sent: Vec<_> = (0..BULK)
            .map(|_| start(pair.write(0..BULK_BYTES, &to, 0).immediate(bulk.slot())))
            .collect();
        let urgently = pair.write(0..64, &to, BULK_BYTES).lane(Lane::Latency);
        sent.push(start(urgently.immediate(urgent.slot())));
        let signal = pair.a.signal(to.peer(), urgent.slot()).lane(Lane::Latency);
        sent.push(start(signal.deadline(AMPLE)));
        until(harness, "what is urgent", || urgent.count() == 2);
        let before = bulk.count();
        let payload = bytes_at(pair.target.memory(), BULK_BYTES..BULK_BYTES + 64);
        assert_eq!(payload, [7; 64], "visible before it was announced");
        all_done(&sent);
        assert_eq!(bulk.wait(BULK, AMPLE).unwrap(), BULK);
        seen.push(before);
        before < BULK
    });
    assert!(overtook, "what is urgent came after all bulk, every time: {seen:?} of {BULK}");
}
