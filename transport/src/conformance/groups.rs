//! Groups of peers, and words that peers change.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::harness::Harness;
use super::kit::{AMPLE, Dice, Pair, bytes_at, bytes_of, engine, region, until};
use crate::barrier::Barrier;
use crate::batch::Target;
use crate::outcome::Outcome;

/// A scatter gives each peer of a group its part, tells each once, and changes nothing else.
pub fn a_scatter_gives_each_peer_its_part<H: Harness>(harness: &H) {
    const PEERS: usize = 4;
    const LEN: u64 = 20_000;
    let mut dice = Dice::new(harness);
    let sender = engine(harness);
    let source = region(&sender, LEN as usize);
    let expected = dice.fill(&source);
    let engines: Vec<_> = (0..PEERS).map(|_| engine(harness)).collect();
    let peers: Vec<_> = engines
        .iter()
        .map(|engine| {
            let pages = region(engine, LEN as usize);
            let window = pages.window(0..LEN).unwrap();
            (pages, window, engine.counter().unwrap())
        })
        .collect();
    let mut group = Vec::new();
    for (_, window, arrivals) in &peers {
        let (a, b) = (dice.below(LEN + 1), dice.below(LEN + 1));
        let from = a.min(b)..a.max(b);
        let at = dice.below(LEN - (from.end - from.start) + 1);
        let to = sender.open(&window.descriptor()).unwrap();
        let to = to.slice(at..at + from.end - from.start).unwrap();
        group.push((at, Target { from, to, slot: Some(arrivals.slot()) }));
    }
    let targets: Vec<_> = group.iter().map(|(_, target)| target.clone()).collect();
    let all = source.slice(0..LEN).unwrap();
    let outcomes = sender.scatter(&all, &targets).unwrap().deadline(AMPLE).wait();
    assert_eq!(outcomes, [Outcome::Done; PEERS]);
    for ((pages, _, arrivals), (at, target)) in peers.iter().zip(&group) {
        arrivals.wait(1, AMPLE).unwrap();
        let part = &expected[target.from.start as usize..target.from.end as usize];
        let mut whole = vec![0; LEN as usize];
        whole[*at as usize..*at as usize + part.len()].copy_from_slice(part);
        assert_eq!(bytes_of(pages), whole);
        assert_eq!(arrivals.count(), 1);
    }
}

/// Nobody leaves a barrier before all have come, round after round; a call that ended for lack of
/// time is continued by the next.
pub fn a_barrier_waits_for_everybody<H: Harness>(harness: &H) {
    const MEMBERS: usize = 3;
    let short = Duration::from_millis(2);
    let engines: Vec<_> = (0..MEMBERS).map(|_| engine(harness)).collect();
    let mut members: Vec<_> =
        engines.iter().map(|it| Barrier::new(it, MEMBERS - 1).unwrap()).collect();
    let invitations: Vec<_> = members.iter().map(Barrier::invitation).collect();
    for (at, member) in members.iter_mut().enumerate() {
        for (_, other) in invitations.iter().enumerate().filter(|(other, _)| *other != at) {
            member.join(other).unwrap();
        }
    }
    let mut dice = Dice::new(harness);
    for round in 0..4 {
        // All but one come, in any order; none of them gets through.
        let late = dice.below(MEMBERS as u64) as usize;
        for (at, member) in members.iter_mut().enumerate().filter(|(at, _)| *at != late) {
            let error = member.wait(short).unwrap_err();
            assert_eq!(error.round, round, "member {at}");
            assert!(error.missing >= 1, "member {at}: {error}");
        }
        // Until all have been told, the others may have to be asked again, each a little at a time.
        let mut through = [false; MEMBERS];
        until(harness, "everybody gets through the barrier", || {
            for (at, member) in members.iter_mut().enumerate() {
                through[at] = through[at] || member.wait(short).is_ok();
            }
            through == [true; MEMBERS]
        });
    }
}

/// A word that a peer writes is seen by who watches it: the last change always, none twice.
pub fn a_watched_word_shows_a_peers_writes<H: Harness>(harness: &H) {
    const AT: u64 = 24;
    let pair = Pair::new(harness, 4096);
    let (_window, remote) = pair.offer();
    let watcher = pair.b.watch(pair.target.memory(), AT).unwrap();
    let (last, calls) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (heard, called) = (Arc::clone(&last), Arc::clone(&calls));
    watcher.on_change(move |value| {
        let before = heard.swap(value, Ordering::SeqCst);
        assert!(value > before, "{value} after {before}");
        called.fetch_add(1, Ordering::SeqCst);
    });
    for value in 1..=20u64 {
        pair.source.memory().write_at(0, &value.to_ne_bytes()).unwrap();
        assert_eq!(pair.write(0..8, &remote, AT).wait(), Outcome::Done);
        if value % 3 != 0 {
            continue;
        }
        assert_eq!(watcher.wait(value - 1, AMPLE).unwrap(), value);
        until(harness, "the callback hears of the change", || {
            pair.b.progress();
            last.load(Ordering::SeqCst) == value
        });
    }
    drop(watcher);
    assert!(calls.load(Ordering::SeqCst) <= 20);
    assert_eq!(bytes_at(pair.target.memory(), AT..AT + 8), 20u64.to_ne_bytes());
}
