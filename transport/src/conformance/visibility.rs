//! Payloads, immediates and counters.

use std::time::Duration;

use super::harness::Harness;
use super::kit::{AMPLE, Dice, Pair, WATCH, all_done, bytes_at, start, until};
use crate::outcome::Outcome;

/// "Payload is visible before its immediate."
pub fn payload_is_visible_before_its_immediate<H: Harness>(harness: &H) {
    const SHARE_BYTES: u64 = 20_000;
    let mut dice = Dice::new(harness);
    let pair = Pair::new(harness, 8 * SHARE_BYTES as usize);
    let expected = dice.fill(&pair.source);
    let (_window, to) = pair.offer();
    // One counter for each write, so that an arrival tells whose payload must be there.
    let counters: Vec<_> = (0..8).map(|_| pair.b.counter().unwrap()).collect();
    let ranges: Vec<_> = (0..8)
        .map(|at| {
            let from = at * SHARE_BYTES;
            from..from + 1 + dice.below(SHARE_BYTES)
        })
        .collect();
    let sent: Vec<_> = ranges
        .iter()
        .zip(&counters)
        .map(|(range, counter)| {
            start(pair.write(range.clone(), &to, range.start).immediate(counter.slot()))
        })
        .collect();
    let mut open: Vec<usize> = (0..8).collect();
    until(harness, "all arrivals", || {
        pair.b.progress();
        open.retain(|&at| {
            if counters[at].count() == 0 {
                return true;
            }
            let range = ranges[at].clone();
            let came = bytes_at(pair.target.memory(), range.clone());
            assert!(
                came == expected[range.start as usize..range.end as usize],
                "write {at} was announced before it was visible"
            );
            false
        });
        open.is_empty()
    });
    all_done(&sent);
}

/// "Immediates that arrive before anyone waits are kept."
pub fn early_immediates_are_kept<H: Harness>(harness: &H) {
    let pair = Pair::new(harness, 4096);
    let (_window, to) = pair.offer();
    let counter = pair.b.counter().unwrap();
    for _ in 0..5 {
        let sent = start(pair.write(0..4096, &to, 0).immediate(counter.slot()));
        assert_eq!(sent.wait(), Outcome::Done);
    }
    // Everything has been delivered; nobody has looked at the counter yet.
    assert_eq!(counter.wait(5, AMPLE).unwrap(), 5);
    assert_eq!(counter.wait(5, Duration::ZERO).unwrap(), 5, "a count is not used up");
    let error = counter.wait(6, WATCH).unwrap_err();
    assert_eq!((error.count, error.target), (5, 6));
}

/// "A counter reads with acquire semantics": whoever reads a count sees all it counts, without
/// having waited for it.
pub fn a_count_shows_its_payloads<H: Harness>(harness: &H) {
    let pair = Pair::new(harness, 8192);
    let (_window, to) = pair.offer();
    let counter = pair.b.counter().unwrap();
    for round in 1..=10u8 {
        pair.source.memory().fill(0..8192, round).unwrap();
        let sent = start(pair.write(0..8192, &to, 0).immediate(counter.slot()));
        until(harness, "the count", || {
            pair.a.progress();
            pair.b.progress();
            counter.count() == u64::from(round)
        });
        assert!(bytes_at(pair.target.memory(), 0..8192).iter().all(|byte| *byte == round));
        assert_eq!(sent.wait(), Outcome::Done);
    }
}

/// "A straggler of an aborted generation never counts for the next one."
pub fn stragglers_of_an_earlier_generation_never_count<H: Harness>(harness: &H) {
    let pair = Pair::new(harness, 4096);
    let (_window, to) = pair.offer();
    let first = pair.b.counter().unwrap();
    let old = first.slot();
    // Some may arrive before the owner gives up and count for it; of the others, none counts.
    let mut sent: Vec<_> =
        (0..4).map(|_| start(pair.write(0..4096, &to, 0).immediate(old))).collect();
    drop(first);
    let second = pair.b.counter().unwrap();
    sent.extend((0..4).map(|_| start(pair.write(0..4096, &to, 0).immediate(old))));
    all_done(&sent);
    harness.pass(WATCH);
    pair.b.progress();
    assert_eq!(second.slot().index, old.index, "the place is used again");
    assert_ne!(second.slot().generation, old.generation);
    assert_eq!(second.count(), 0, "a straggler was counted");
    let sent = start(pair.write(0..4096, &to, 0).immediate(second.slot()));
    assert_eq!(second.wait(1, AMPLE).unwrap(), 1);
    assert_eq!(sent.wait(), Outcome::Done);
    let stats = pair.b.stats();
    assert!(stats.stray_immediates >= 4, "{stats:?}");
    assert_eq!(stats.immediates + stats.stray_immediates, 9, "{stats:?}");
}

/// Operations are "each with an optional immediate": reads and messages too.
pub fn reads_and_messages_carry_immediates<H: Harness>(harness: &H) {
    let mut dice = Dice::new(harness);
    let pair = Pair::new(harness, 30_000);
    let expected = dice.fill(&pair.target);
    let (_window, from) = pair.offer();
    let (reads, messages) = (pair.b.counter().unwrap(), pair.b.counter().unwrap());
    let read = start(pair.read(&from, 0, 0..30_000).immediate(reads.slot()));
    assert_eq!(read.wait(), Outcome::Done);
    assert!(bytes_at(pair.source.memory(), 0..30_000) == expected);
    assert_eq!(reads.wait(1, AMPLE).unwrap(), 1);
    let sent = start(pair.a.send(from.peer(), *b"hello").immediate(messages.slot()));
    assert_eq!(messages.wait(1, AMPLE).unwrap(), 1);
    assert_eq!(sent.wait(), Outcome::Done);
    assert_eq!(reads.count(), 1);
}

/// Any size from 0: a write of no bytes delivers its immediate, and writes nothing.
pub fn a_write_of_no_bytes_delivers_its_immediate<H: Harness>(harness: &H) {
    let pair = Pair::new(harness, 4096);
    pair.source.memory().fill(0..4096, 9).unwrap();
    let (_window, to) = pair.offer();
    let counter = pair.b.counter().unwrap();
    for at in [0, 17, 4096] {
        assert_eq!(pair.write(at..at, &to, at).immediate(counter.slot()).wait(), Outcome::Done);
        assert_eq!(pair.write(at..at, &to, at).wait(), Outcome::Done);
    }
    assert_eq!(counter.wait(3, AMPLE).unwrap(), 3);
    assert!(bytes_at(pair.target.memory(), 0..4096).iter().all(|byte| *byte == 0));
}
