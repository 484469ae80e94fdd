//! Fences: revoking, closing.

use std::time::Duration;

use super::harness::Harness;
use super::kit::{
    AMPLE, Dice, Pair, WATCH, bytes_at, bytes_of, engine, fill, is_all, region, start, wait_all,
};
use crate::outcome::{Outcome, Reason};
use crate::transfer::Transfer;

/// "Revoking a window fences late writes": it never changes afterwards, whoever was writing.
pub fn a_revoked_window_never_changes<H: Harness>(harness: &H) {
    const BYTES: u64 = 60_000;
    let mut dice = Dice::new(harness);
    let owner = engine(harness);
    let target = region(&owner, BYTES as usize);
    let window = target.window(0..BYTES).unwrap();
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let writer = engine(harness);
            let source = region(&writer, BYTES as usize);
            fill(&source, 7);
            let to = writer.open(&window.descriptor()).unwrap();
            (writer, source, to)
        })
        .collect();
    let sent: Vec<Transfer> = (0..12)
        .map(|at| {
            let (writer, source, to) = &writers[at % 4];
            let whole = source.slice(0..BYTES).unwrap();
            start(writer.write(whole, to.slice(0..BYTES).unwrap()).deadline(AMPLE))
        })
        .collect();
    harness.pass(Duration::from_nanos(dice.below(100_000)));
    window.revoke_within(AMPLE).unwrap();
    fill(&target, 1);
    for outcome in wait_all(&sent) {
        let right = outcome.is_done() || outcome.reason() == Some(Reason::Stale);
        assert!(right, "{outcome}");
        assert!(outcome.pages_are_free(), "{outcome}");
    }
    harness.pass(WATCH);
    assert!(is_all(&bytes_of(&target), 1), "a late write landed in a revoked window");
}

/// "Late one-sided writes into reused pages": a page whose window was revoked is granted again at
/// once, to another writer, while the first still writes.
pub fn a_revoked_page_is_reused_at_once<H: Harness>(harness: &H) {
    const BYTES: u64 = 50_000;
    let mut dice = Dice::new(harness);
    let pair = Pair::new(harness, BYTES as usize);
    let other = engine(harness);
    let fresh = region(&other, BYTES as usize);
    fill(&pair.source, 7);
    for round in 10..15u8 {
        let (window, to) = pair.offer();
        let late: Vec<_> = (0..3).map(|_| start(pair.write(0..BYTES, &to, 0))).collect();
        harness.pass(Duration::from_nanos(dice.below(50_000)));
        window.revoke_within(AMPLE).unwrap();
        let window = pair.target.window(0..BYTES).unwrap();
        let to = other.open(&window.descriptor()).unwrap();
        fill(&fresh, round);
        let arrivals = pair.b.counter().unwrap();
        let whole = fresh.slice(0..BYTES).unwrap();
        let write = other.write(whole, to.slice(0..BYTES).unwrap());
        let sent = start(write.immediate(arrivals.slot()).deadline(AMPLE));
        assert_eq!(arrivals.wait(1, AMPLE).unwrap(), 1);
        let _ = wait_all(&late);
        assert!(is_all(&bytes_of(&pair.target), round), "a late write landed in a reused page");
        assert_eq!(sent.wait(), Outcome::Done);
        window.revoke_within(AMPLE).unwrap();
    }
}

/// "Closing a region while transfers fly is safe, and returns only once no DMA can touch the
/// memory": as source, as destination, and as target.
pub fn closing_a_region_fences_it<H: Harness>(harness: &H) {
    let mut dice = Dice::new(harness);
    for role in ["source", "destination", "target"] {
        let pair = Pair::new(harness, 80_000);
        let (_window, remote) = pair.offer();
        fill(&pair.target, 7);
        fill(&pair.source, 7);
        let sent: Vec<_> = (0..6)
            .map(|_| {
                if role == "destination" {
                    start(pair.read(&remote, 0, 0..80_000))
                } else {
                    start(pair.write(0..80_000, &remote, 0))
                }
            })
            .collect();
        harness.pass(Duration::from_nanos(dice.below(60_000)));
        let Pair { source, target, .. } = pair;
        let (closing, other) = if role == "target" { (target, source) } else { (source, target) };
        let memory = std::sync::Arc::clone(closing.memory());
        closing.close(AMPLE).unwrap();
        memory.fill(0..80_000, 1).unwrap();
        let before = bytes_of(&other);
        for outcome in wait_all(&sent) {
            assert!(outcome.pages_are_free(), "{role}: {outcome}");
        }
        harness.pass(WATCH);
        assert!(is_all(&bytes_at(&memory, 0..80_000), 1), "{role}: touched after it was closed");
        if role != "target" {
            assert!(bytes_of(&other) == before, "{role}: read after it was closed");
        }
    }
}

/// "Closing the engine while transfers fly is safe": the side that transfers.
pub fn closing_the_initiator_fences_it<H: Harness>(harness: &H) {
    let mut dice = Dice::new(harness);
    let pair = Pair::new(harness, 80_000);
    let (_window, remote) = pair.offer();
    let sent: Vec<_> = (0..8)
        .map(|at| {
            if at % 2 == 0 {
                start(pair.write(0..80_000, &remote, 0))
            } else {
                start(pair.read(&remote, 0, 0..80_000))
            }
        })
        .collect();
    harness.pass(Duration::from_nanos(dice.below(60_000)));
    pair.a.close(AMPLE).unwrap();
    fill(&pair.source, 1);
    let target = bytes_of(&pair.target);
    for transfer in &sent {
        let outcome = transfer.outcome().expect("a closed engine has no transfers");
        assert!(outcome.pages_are_free(), "{outcome}");
    }
    harness.pass(WATCH);
    assert!(is_all(&bytes_of(&pair.source), 1), "touched after close");
    assert!(bytes_of(&pair.target) == target, "read after close");
    let refused = pair.write(0..1, &remote, 0).wait();
    assert_eq!(refused, Outcome::Rejected(Reason::Closed));
}

/// "Closing the engine while transfers fly is safe": the side that is written to. The other learns.
pub fn closing_the_target_fences_it<H: Harness>(harness: &H) {
    let mut dice = Dice::new(harness);
    let pair = Pair::new(harness, 80_000);
    fill(&pair.source, 7);
    let (_window, remote) = pair.offer();
    let sent: Vec<_> = (0..6).map(|_| start(pair.write(0..80_000, &remote, 0))).collect();
    harness.pass(Duration::from_nanos(dice.below(60_000)));
    pair.b.close(AMPLE).unwrap();
    fill(&pair.target, 1);
    let began = pair.a.now();
    for outcome in wait_all(&sent) {
        assert!(outcome.pages_are_free(), "{outcome}");
    }
    assert!(pair.a.now().since(began) < AMPLE / 2, "the other side learns of it");
    harness.pass(WATCH);
    assert!(is_all(&bytes_of(&pair.target), 1), "written after close");
}
