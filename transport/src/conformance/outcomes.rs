//! Every transfer ends, by its deadline, in one way, whatever happens.

use std::time::Duration;

use super::harness::{Fault, Harness, skip};
use super::kit::{
    AMPLE, Dice, Pair, SLACK, WATCH, address, bytes_of, engine, fill, inject, is_all, region,
    start, until, wait_all,
};
use crate::engine::PeerError;
use crate::outcome::{Outcome, Reason};
use crate::transfer::Transfer;

/// "A dead peer fails its transfers within the deadline."
pub fn a_dead_peer_fails_its_transfers_in_time<H: Harness>(harness: &H) {
    let mut dice = Dice::new(harness);
    let pair = Pair::new(harness, 100_000);
    let (_window, remote) = pair.offer();
    assert_eq!(pair.write(0..1, &remote, 0).wait(), Outcome::Done);
    let sent: Vec<_> = (0..8)
        .map(|at| {
            if at % 2 == 0 {
                start(pair.write(0..100_000, &remote, 0))
            } else {
                start(pair.read(&remote, 0, 0..100_000))
            }
        })
        .collect();
    harness.pass(Duration::from_nanos(dice.below(60_000)));
    let began = pair.a.now();
    inject(harness, Fault::Kill(address(&pair.b)));
    let outcomes = wait_all(&sent);
    assert!(pair.a.now().since(began) < AMPLE / 2, "noticed, not waited for: {outcomes:?}");
    // What comes later is refused, not hung.
    let late = pair.write(0..1, &remote, 0).wait();
    assert!(matches!(late, Outcome::Rejected(_)), "{late}");
}

/// "…and reconnects without restarting the process."
pub fn a_restarted_peer_is_reached_again<H: Harness>(harness: &H) {
    let pair = Pair::new(harness, 4096);
    fill(&pair.source, 7);
    let (_window, remote) = pair.offer();
    assert_eq!(pair.write(0..4096, &remote, 0).wait(), Outcome::Done);
    let at = address(&pair.b);
    inject(harness, Fault::Kill(at.clone()));
    let Some(builder) = harness.restart(&at) else { skip("this harness cannot restart a peer") };
    let _ = pair.write(0..4096, &remote, 0).wait();
    let reborn = builder.build().unwrap();
    assert_ne!(reborn.id(), pair.b.id());
    let target = region(&reborn, 4096);
    let window = target.window(0..4096).unwrap();
    let remote_again = pair.a.open(&window.descriptor()).unwrap();
    // The old connection may not have been noticed dead yet: the first tries may fail with it.
    until(harness, "a write to the restarted peer", || {
        pair.write(0..4096, &remote_again, 0).wait().is_done()
    });
    assert!(is_all(&bytes_of(&target), 7));
    let stale = pair.write(0..4096, &remote, 0).wait();
    assert!(!stale.is_done(), "the predecessor's window opens nothing: {stale}");
}

/// A peer that is not there is reported, and what waited for it is rejected.
pub fn nobody_there_is_unreachable<H: Harness>(harness: &H) {
    let a = engine(harness);
    let nowhere = harness.nowhere();
    let error = a.connect(&nowhere, AMPLE).unwrap_err();
    assert!(matches!(error, PeerError::Refused { why: Reason::Unreachable, .. }), "{error}");
    let peer = a.peer(&nowhere).unwrap();
    let outcome = a.send(peer, *b"hello").deadline(AMPLE).wait();
    assert_eq!(outcome, Outcome::Rejected(Reason::Unreachable));
}

/// "Every transfer ends, within its deadline": also those to a peer that hangs, which nothing
/// announces.
pub fn a_hung_peer_fails_transfers_by_their_deadline<H: Harness>(harness: &H) {
    const DEADLINE: Duration = Duration::from_millis(200);
    let mut dice = Dice::new(harness);
    let pair = Pair::new(harness, 100_000);
    let (_window, remote) = pair.offer();
    assert_eq!(pair.write(0..1, &remote, 0).wait(), Outcome::Done);
    let send = |at: u64| match at % 3 {
        0 => start(pair.write(0..100_000, &remote, 0).deadline(DEADLINE)),
        1 => start(pair.read(&remote, 0, 0..100_000).deadline(DEADLINE)),
        _ => start(pair.a.send(remote.peer(), *b"hello").deadline(DEADLINE)),
    };
    let mut sent: Vec<Transfer> = (0..6).map(send).collect();
    harness.pass(Duration::from_nanos(dice.below(20_000)));
    let at = address(&pair.b);
    inject(harness, Fault::Pause(at.clone()));
    sent.extend((0..6).map(send));
    let began = pair.a.now();
    let outcomes = wait_all(&sent);
    assert!(pair.a.now().since(began) < DEADLINE + SLACK, "{outcomes:?}");
    let late = outcomes.iter().all(|it| it.is_done() || it.reason() == Some(Reason::Deadline));
    assert!(late, "{outcomes:?}");
    inject(harness, Fault::Resume(at));
    // It is the same peer as before.
    until(harness, "the peer to answer again", || pair.write(0..1, &remote, 0).wait().is_done());
}

/// "A page may be reused only after an outcome that proves no late write can land in it": what ended
/// as `Lost` is proven ended later, when it can be, and only then.
pub fn what_is_lost_is_proven_later<H: Harness>(harness: &H) {
    const DEADLINE: Duration = Duration::from_millis(200);
    let pair = Pair::new(harness, 50_000);
    fill(&pair.source, 7);
    let (_window, remote) = pair.offer();
    assert_eq!(pair.write(0..1, &remote, 0).wait(), Outcome::Done);
    let at = address(&pair.b);
    inject(harness, Fault::Pause(at.clone()));
    let sent: Vec<_> =
        (0..4).map(|_| start(pair.write(0..50_000, &remote, 0).deadline(DEADLINE))).collect();
    let outcomes = wait_all(&sent);
    let lost: Vec<_> = sent
        .iter()
        .filter(|transfer| matches!(transfer.outcome(), Some(Outcome::Lost(_))))
        .collect();
    for (transfer, outcome) in sent.iter().zip(&outcomes) {
        assert_eq!(transfer.fenced(), outcome.pages_are_free(), "{outcome}");
    }
    inject(harness, Fault::Resume(at));
    until(harness, "the proof", || {
        pair.a.progress();
        pair.b.progress();
        lost.iter().all(|transfer| transfer.fenced())
    });
    let before = bytes_of(&pair.target);
    fill(&pair.source, 9);
    harness.pass(WATCH);
    assert!(bytes_of(&pair.target) == before, "what is fenced moves nothing more");
    assert_eq!(pair.a.stats().recovered, lost.len() as u64);
    assert_eq!(pair.source.close(AMPLE).map_err(|error| error.to_string()), Ok(()));
}

/// "Every transfer ends, within its deadline, in exactly one of `Done | Rejected | Fenced | Lost`":
/// with a fabric that is slow to flush, does not flush, or loses completions.
pub fn a_transfer_ends_by_its_deadline_whatever_the_fabric_does<H: Harness>(harness: &H) {
    const DEADLINE: Duration = Duration::from_millis(100);
    let pair = Pair::new(harness, 60_000);
    let (_window, remote) = pair.offer();
    assert_eq!(pair.write(0..1, &remote, 0).wait(), Outcome::Done);
    let mut any = false;
    for fault in [Fault::SlowFlush, Fault::FailedFlush, Fault::LostCompletions] {
        if !harness.inject(fault.clone()) {
            continue;
        }
        any = true;
        let began = pair.a.now();
        let sent: Vec<_> =
            (0..6).map(|_| start(pair.write(0..60_000, &remote, 0).deadline(DEADLINE))).collect();
        harness.pass(Duration::from_micros(3));
        for transfer in sent.iter().step_by(2) {
            transfer.cancel();
        }
        let outcomes = wait_all(&sent);
        assert!(pair.a.now().since(began) < DEADLINE + SLACK, "{fault:?}: {outcomes:?}");
        if fault == Fault::LostCompletions {
            let fine = |it: &Outcome| matches!(it, Outcome::Lost(_) | Outcome::Rejected(_));
            assert!(outcomes.iter().all(fine), "{outcomes:?}");
        }
    }
    if !any {
        skip("this harness cannot inject the faults");
    }
    // Hanging up is the way out: it ends what the fabric itself could not.
    inject(harness, Fault::None);
    pair.a.disconnect(remote.peer());
    until(harness, "the proof that nothing is under way", || {
        pair.a.progress();
        let stats = pair.a.stats();
        stats.lost == stats.recovered
    });
    assert_eq!(pair.source.close(AMPLE).map_err(|error| error.to_string()), Ok(()));
}

/// A transfer can be cancelled before it is connected, while it flies and after it ended.
pub fn cancel_ends_a_transfer_in_any_state<H: Harness>(harness: &H) {
    let mut dice = Dice::new(harness);
    let pair = Pair::new(harness, 100_000);
    let (_window, remote) = pair.offer();
    // Before anybody is connected.
    let early = start(pair.write(0..100_000, &remote, 0));
    early.cancel();
    let outcome = early.wait();
    let fine = |outcome: Outcome| outcome.is_done() || outcome.reason() == Some(Reason::Cancelled);
    assert!(fine(outcome), "{outcome}");
    for _ in 0..10 {
        let flying = match dice.below(3) {
            0 => start(pair.write(0..100_000, &remote, 0)),
            1 => start(pair.read(&remote, 0, 0..100_000)),
            _ => start(pair.a.send(remote.peer(), *b"hello")),
        };
        harness.pass(Duration::from_nanos(dice.below(40_000)));
        flying.cancel();
        flying.cancel();
        let outcome = flying.wait();
        assert!(fine(outcome), "{outcome}");
        flying.cancel();
        assert_eq!(flying.outcome(), Some(outcome), "an end is final");
    }
    assert_eq!(pair.write(0..100_000, &remote, 0).wait(), Outcome::Done);
}

/// "Fenced: aborted, and nothing can land any more: pages are yours"; "Rejected: never left".
pub fn a_stopped_transfer_moves_nothing_more<H: Harness>(harness: &H) {
    let mut dice = Dice::new(harness);
    let pair = Pair::new(harness, 100_000);
    let (_window, remote) = pair.offer();
    assert_eq!(pair.write(0..1, &remote, 0).wait(), Outcome::Done);
    for _ in 0..5 {
        fill(&pair.source, 7);
        fill(&pair.target, 0);
        let flying = start(pair.write(0..100_000, &remote, 0));
        harness.pass(Duration::from_nanos(dice.below(30_000)));
        flying.cancel();
        let outcome = flying.wait();
        if !outcome.pages_are_free() {
            continue;
        }
        let before = bytes_of(&pair.target);
        match outcome {
            Outcome::Done => assert!(is_all(&before, 7)),
            Outcome::Rejected(_) => assert!(is_all(&before, 0), "rejected, but bytes moved"),
            Outcome::Fenced(_) | Outcome::Lost(_) => {}
        }
        // The page is reused at once, on both sides.
        fill(&pair.source, 9);
        fill(&pair.target, 1);
        harness.pass(Duration::from_millis(2));
        assert!(is_all(&bytes_of(&pair.target), 1), "{outcome}, and a late write landed");
    }
}
