//! Paged transfers: any pieces of one side to any pieces of the other.

use std::time::Duration;

use super::harness::{Fault, Harness, skip};
use super::kit::{
    AMPLE, Dice, Pair, WATCH, address, all_done, bytes_at, bytes_of, engine, fill, inject, is_all,
    start, until, wait_all,
};
use crate::lane::Lane;
use crate::memory::HostMemory;
use crate::outcome::{Outcome, Reason};
use crate::pages::model::places;
use crate::pages::{Pages, Plan};
use crate::region::Slice;
use crate::remote::{RemoteSlice, RemoteWindow};
use crate::transfer::Transfer;
use crate::window::Access;

/// What each random plan moves: a number with many divisors.
const BYTES: u64 = 10_080;
/// What its pieces are spread over.
const SPREAD: u64 = 4 * BYTES;
const REGION_BYTES: u64 = SPREAD + 2000;

/// The offsets of all bytes of a list, in their order.
fn offsets(pages: &Pages) -> Vec<usize> {
    let places = places(pages.layer_starts(), pages.layer_runs());
    places.into_iter().map(|place| place as usize).collect()
}

fn shuffle<T>(dice: &mut Dice, items: &mut [T]) {
    for at in (1..items.len()).rev() {
        items.swap(at, dice.below(at as u64 + 1) as usize);
    }
}

/// `BYTES` bytes within `SPREAD`, in pieces of a random kind that do not overlap.
fn pieces(dice: &mut Dice) -> Pages {
    let counts = [1, 2, 3, 5, 7, 12, 30, 63, 144, 420];
    let count = counts[dice.below(counts.len() as u64) as usize];
    let bytes = BYTES / count;
    match dice.below(4) {
        0 => {
            let stride = bytes + dice.below(SPREAD / count - bytes + 1);
            Pages::strided(0, bytes, stride, count as u32)
        }
        1 => {
            let mut table: Vec<u64> = (0..SPREAD / bytes).collect();
            shuffle(dice, &mut table);
            table.truncate(count as usize);
            Pages::table(bytes, table)
        }
        2 => {
            let mut cuts: Vec<u64> = (1..count).map(|_| dice.below(BYTES + 1)).collect();
            cuts.extend([0, BYTES]);
            cuts.sort_unstable();
            let gap = (SPREAD - BYTES) / count;
            let mut at = 0;
            let mut ranges: Vec<_> = cuts
                .windows(2)
                .map(|cut| {
                    let from = at + dice.below(gap + 1);
                    at = from + cut[1] - cut[0];
                    from..at
                })
                .collect();
            shuffle(dice, &mut ranges);
            Pages::ranges(ranges)
        }
        _ => {
            // Layers that interleave, or lie one behind the other.
            let layers = [2, 3, 4, 6][dice.below(4) as usize];
            let (bytes, count) = (BYTES / layers / 30, 30);
            let (stride, next) = match dice.below(2) {
                0 => (bytes * (layers + 1), bytes),
                _ => (bytes + 3, (bytes + 3) * count + dice.below(50)),
            };
            Pages::strided(0, bytes, stride, count as u32)
                .and_then(|pages| pages.layers((0..layers).map(|layer| layer * next)))
        }
    }
    .expect("small and without overlaps")
}

/// The same bytes more than once: a source only.
fn repeated(dice: &mut Dice) -> Pages {
    let count = [2, 12, 144][dice.below(3) as usize];
    Pages::strided(dice.below(100), BYTES / count, 0, count as u32).expect("small")
}

fn source(dice: &mut Dice) -> Pages {
    if dice.below(4) == 0 { repeated(dice) } else { pieces(dice) }
}

fn lane(dice: &mut Dice) -> Lane {
    Lane::ALL[dice.below(2) as usize]
}

/// A slice of the source region, and how far in it starts.
fn local(pair: &Pair, dice: &mut Dice) -> (Slice, usize) {
    let at = dice.below(1000);
    (pair.source.slice(at..at + SPREAD).unwrap(), at as usize)
}

fn remote(window: &RemoteWindow, dice: &mut Dice) -> (RemoteSlice, usize) {
    let at = dice.below(window.len() - SPREAD + 1);
    (window.slice(at..at + SPREAD).unwrap(), at as usize)
}

fn one(bytes: u64) -> Pages {
    Pages::strided(0, bytes, bytes, 1).unwrap()
}

/// "`write_paged` (strided / run-length on both sides)": bytes pair in order, whatever the pieces of
/// the two sides; nothing between them changes; the immediate comes once, after all of them.
pub fn pages_land_where_the_plan_says<H: Harness>(harness: &H) {
    const AROUND: usize = 300;
    let mut dice = Dice::new(harness);
    let pair = Pair::new(harness, REGION_BYTES as usize);
    let sent = dice.fill(&pair.source);
    let end = REGION_BYTES - AROUND as u64;
    let (_window, to) = pair.offer_part(AROUND as u64..end, Access::WRITE);
    for round in 0..4 {
        let plan = Plan::new(source(&mut dice), pieces(&mut dice)).unwrap();
        let (local, from) = local(&pair, &mut dice);
        let (remote, at) = remote(&to, &mut dice);
        fill(&pair.target, 0xC5);
        let mut expected = vec![0xC5; REGION_BYTES as usize];
        for (ours, theirs) in offsets(plan.local()).into_iter().zip(offsets(plan.remote())) {
            expected[AROUND + at + theirs] = sent[from + ours];
        }
        let counter = pair.b.counter().unwrap();
        let write = pair.a.write_paged(&local, &remote, &plan).lane(lane(&mut dice));
        let transfer = start(write.immediate(counter.slot()).deadline(AMPLE));
        until(harness, "the immediate", || counter.count() > 0);
        assert!(bytes_of(&pair.target) == expected, "round {round}: {plan:?} as it was announced");
        assert_eq!(transfer.wait(), Outcome::Done);
        harness.pass(WATCH / 4);
        assert_eq!(counter.count(), 1, "once");
        assert!(bytes_of(&pair.target) == expected, "round {round}: {plan:?}");
    }
    assert_eq!(pair.a.stats().written_bytes, 4 * BYTES);
}

/// The same for reads: the pieces of this side are the destination.
pub fn pages_are_read_where_the_plan_says<H: Harness>(harness: &H) {
    let mut dice = Dice::new(harness);
    let pair = Pair::new(harness, REGION_BYTES as usize);
    let there = dice.fill(&pair.target);
    let (_window, window) = pair.offer();
    let counter = pair.b.counter().unwrap();
    for round in 1..=4 {
        let plan = Plan::new(pieces(&mut dice), source(&mut dice)).unwrap();
        let (local, into) = local(&pair, &mut dice);
        let (remote, at) = remote(&window, &mut dice);
        fill(&pair.source, 0xC5);
        let mut expected = vec![0xC5; REGION_BYTES as usize];
        for (ours, theirs) in offsets(plan.local()).into_iter().zip(offsets(plan.remote())) {
            expected[into + ours] = there[at + theirs];
        }
        let read = pair.a.read_paged(&remote, &local, &plan).lane(lane(&mut dice));
        assert_eq!(read.immediate(counter.slot()).deadline(AMPLE).wait(), Outcome::Done);
        assert!(bytes_of(&pair.source) == expected, "round {round}: {plan:?}");
        assert_eq!(counter.wait(round, AMPLE).unwrap(), round);
    }
    assert!(bytes_of(&pair.target) == there, "a read changes nothing there");
    assert_eq!(pair.a.stats().read_bytes, 4 * BYTES);
}

/// "Gather of small sources": hundreds of pieces of a few bytes each become one stretch, and back.
pub fn small_sources_are_gathered<H: Harness>(harness: &H) {
    const SOURCES: usize = 300;
    let mut dice = Dice::new(harness);
    let pair = Pair::new(harness, 20_000);
    let sent = dice.fill(&pair.source);
    let (_window, to) = pair.offer();
    let (mut ranges, mut end) = (Vec::new(), 0);
    for _ in 0..SOURCES {
        let from = end + 1 + dice.below(20);
        end = from + 1 + dice.below(39);
        ranges.push(from..end);
    }
    shuffle(&mut dice, &mut ranges);
    let scattered = Pages::ranges(ranges).unwrap();
    let bytes = scattered.bytes();
    let whole = (pair.source.slice(0..20_000).unwrap(), to.slice(0..20_000).unwrap());
    let gather = Plan::new(scattered.clone(), one(bytes)).unwrap();
    let write = pair.a.write_paged(&whole.0, &whole.1, &gather).deadline(AMPLE);
    assert_eq!(write.wait(), Outcome::Done);
    let gathered: Vec<u8> = offsets(&scattered).into_iter().map(|at| sent[at]).collect();
    let target = bytes_of(&pair.target);
    assert!(target[..gathered.len()] == gathered && is_all(&target[gathered.len()..], 0));
    // Back to where they came from, by a read that scatters.
    fill(&pair.source, 0);
    let read = pair.a.read_paged(&whole.1, &whole.0, &gather).deadline(AMPLE);
    assert_eq!(read.wait(), Outcome::Done);
    let mut expected = vec![0; 20_000];
    offsets(&scattered).into_iter().for_each(|at| expected[at] = sent[at]);
    assert!(bytes_of(&pair.source) == expected);
}

/// "Prepared lists reusable": one plan, many transfers at once, from and to different places.
pub fn a_prepared_plan_is_used_again<H: Harness>(harness: &H) {
    const PLACES: u64 = 8;
    const PLACE_BYTES: u64 = 4000;
    let mut dice = Dice::new(harness);
    let pair = Pair::new(harness, (PLACES * PLACE_BYTES) as usize);
    let sent = dice.fill(&pair.source);
    let (_window, to) = pair.offer();
    let counter = pair.b.counter().unwrap();
    let local = Pages::strided(7, 100, 300, 12).unwrap();
    let remote = Pages::strided(0, 400, 900, 3).unwrap();
    let plan = Plan::new(local, remote).unwrap();
    let mut expected = vec![0; (PLACES * PLACE_BYTES) as usize];
    let mut transfers = Vec::new();
    for place in 0..PLACES {
        let (from, at) = (place * PLACE_BYTES, (PLACES - 1 - place) * PLACE_BYTES);
        for (ours, theirs) in offsets(plan.local()).into_iter().zip(offsets(plan.remote())) {
            expected[at as usize + theirs] = sent[from as usize + ours];
        }
        let ours = pair.source.slice(from..from + PLACE_BYTES).unwrap();
        let theirs = to.slice(at..at + PLACE_BYTES).unwrap();
        let write = pair.a.write_paged(&ours, &theirs, &plan).immediate(counter.slot());
        transfers.push(start(write.deadline(AMPLE)));
    }
    all_done(&transfers);
    assert_eq!(counter.wait(PLACES, AMPLE).unwrap(), PLACES);
    assert!(bytes_of(&pair.target) == expected);
}

/// A plan without pieces moves nothing and delivers its immediate.
pub fn a_plan_of_no_bytes_delivers_its_immediate<H: Harness>(harness: &H) {
    let pair = Pair::new(harness, 4096);
    fill(&pair.source, 9);
    let (_window, to) = pair.offer();
    let counter = pair.b.counter().unwrap();
    let none = || Pages::ranges([]).unwrap();
    let plan = Plan::new(none(), none()).unwrap();
    for at in [0, 4096] {
        let (ours, theirs) = (pair.source.slice(at..at).unwrap(), to.slice(at..at).unwrap());
        let write = pair.a.write_paged(&ours, &theirs, &plan).immediate(counter.slot());
        assert_eq!(write.deadline(AMPLE).wait(), Outcome::Done);
        let read = pair.a.read_paged(&theirs, &ours, &plan).immediate(counter.slot());
        assert_eq!(read.deadline(AMPLE).wait(), Outcome::Done);
    }
    assert_eq!(counter.wait(4, AMPLE).unwrap(), 4);
    assert!(is_all(&bytes_of(&pair.target), 0) && is_all(&bytes_of(&pair.source), 9));
}

/// "Descriptors overlapping": pieces of a destination that share a byte are refused; those of a
/// source may.
pub fn overlapping_destinations_are_refused<H: Harness>(harness: &H) {
    let pair = Pair::new(harness, 4096);
    fill(&pair.source, 7);
    let (_window, to) = pair.offer();
    let whole = (pair.source.slice(0..4096).unwrap(), to.slice(0..4096).unwrap());
    let refused = Outcome::Rejected(Reason::Overlapping);
    let table = Pages::table(16, [3, 9, 3]).unwrap();
    let strided = Pages::strided(0, 16, 15, 3).unwrap();
    let layers = Pages::strided(0, 16, 0, 1).unwrap().layers([0, 100, 15]).unwrap();
    for overlapping in [table, strided, layers] {
        let apart = one(overlapping.bytes());
        let into = Plan::new(apart.clone(), overlapping.clone()).unwrap();
        let out_of = Plan::new(overlapping, apart).unwrap();
        let write = |plan| pair.a.write_paged(&whole.0, &whole.1, plan).deadline(AMPLE).wait();
        let read = |plan| pair.a.read_paged(&whole.1, &whole.0, plan).deadline(AMPLE).wait();
        assert_eq!(write(&into), refused);
        assert_eq!(read(&out_of), refused);
        assert!(is_all(&bytes_of(&pair.target), 0), "nothing moved");
        assert_eq!(read(&into), Outcome::Done);
        fill(&pair.source, 7);
        assert_eq!(write(&out_of), Outcome::Done);
        fill(&pair.target, 0);
    }
}

/// Sides that are not equally long are refused, with and without a plan.
pub fn uneven_sides_are_refused<H: Harness>(harness: &H) {
    let pair = Pair::new(harness, 4096);
    fill(&pair.source, 7);
    let (_window, to) = pair.offer();
    let error = Plan::new(one(100), one(101)).unwrap_err();
    assert_eq!((error.local, error.remote), (100, 101));
    for (ours, theirs) in [(100, 101), (101, 100), (0, 1), (1, 0)] {
        let (local, remote) = (pair.source.slice(0..ours), to.slice(0..theirs));
        let (local, remote) = (local.unwrap(), remote.unwrap());
        let uneven = Outcome::Rejected(Reason::Uneven);
        assert_eq!(pair.a.write(local.clone(), remote.clone()).wait(), uneven);
        assert_eq!(pair.a.read(remote, local).wait(), uneven);
    }
    assert!(is_all(&bytes_of(&pair.target), 0) && is_all(&bytes_of(&pair.source), 7));
}

/// "Descriptors out of bounds": a plan that reaches out of a slice is refused by the engine, one
/// that reaches out of the window by whoever guards it, whatever length a descriptor claims.
pub fn a_plan_out_of_bounds_is_refused<H: Harness>(harness: &H) {
    let pair = Pair::new(harness, 8192);
    fill(&pair.source, 7);
    let (window, to) = pair.offer_part(1024..4096, Access::WRITE | Access::READ);
    let out = Outcome::Rejected(Reason::OutOfBounds);
    let plan = |ours: (u64, u64), theirs: (u64, u64)| {
        // Two pieces each; the second lies first.
        let two = |(at, end): (u64, u64)| Pages::ranges([end - 50..end, at..at + 50]).unwrap();
        Plan::new(two(ours), two(theirs)).unwrap()
    };
    let run = |to: &RemoteWindow, ours: u64, theirs: std::ops::Range<u64>, plan: &Plan| {
        let (local, remote) = (pair.source.slice(0..ours).unwrap(), to.slice(theirs).unwrap());
        let write = pair.a.write_paged(&local, &remote, plan).deadline(AMPLE).wait();
        assert_eq!(pair.a.read_paged(&remote, &local, plan).deadline(AMPLE).wait(), write);
        write
    };
    assert_eq!(run(&to, 999, 0..3072, &plan((0, 1000), (0, 3072))), out, "this side's slice");
    assert_eq!(run(&to, 1000, 0..3071, &plan((0, 1000), (0, 3072))), out, "the peer's slice");
    let mut longer = window.descriptor();
    longer.len = u64::MAX;
    let to = pair.a.open(&longer).unwrap();
    let end = u64::MAX - 1;
    for far in [3073, 3121, 3122, 4096 + 3072, 1 << 40, end] {
        assert_eq!(run(&to, 1000, 0..end, &plan((0, 1000), (0, far))), out, "to {far}");
    }
    assert_eq!(run(&to, 1000, 1..end, &plan((0, 1000), (0, 3072))), out, "from a slice further on");
    assert!(is_all(&bytes_of(&pair.target), 0), "refused whole");
    assert!(is_all(&bytes_of(&pair.source), 7), "refused whole");
    assert_eq!(run(&to, 1000, 0..end, &plan((0, 1000), (0, 3072))), Outcome::Done);
    let mut expected = vec![0; 8192];
    expected[1024..1074].fill(7);
    expected[4046..4096].fill(7);
    assert!(bytes_of(&pair.target) == expected);
}

/// Pieces lie beyond what 32 bits address: their offsets are 64 bits wide all the way.
pub fn pages_beyond_four_gib_arrive<H: Harness>(harness: &H) {
    const FAR: u64 = (1 << 32) + 12_345;
    if H::cases().first() != Some(&harness.case()) {
        return;
    }
    let (a, b) = (engine(harness), engine(harness));
    let sparse = || HostMemory::new(FAR as usize + 4096).sparse();
    let (Ok(source), Ok(target)) = (a.alloc(sparse()), b.alloc(sparse())) else {
        skip("two regions beyond 4 GiB cannot be had");
    };
    source.memory().fill(0..1000, 3).unwrap();
    source.memory().fill(FAR as usize..FAR as usize + 1000, 5).unwrap();
    let window = target.window(0..target.len()).unwrap();
    let to = a.open(&window.descriptor()).unwrap();
    let plan = Plan::new(
        Pages::strided(0, 1000, FAR, 2).unwrap(),
        Pages::ranges([FAR - 700..FAR + 900, 77..477]).unwrap(),
    );
    let whole = (source.slice(0..source.len()).unwrap(), to.slice(0..to.len()).unwrap());
    let write = a.write_paged(&whole.0, &whole.1, plan.unwrap());
    assert_eq!(write.deadline(AMPLE).wait(), Outcome::Done);
    let came = bytes_at(target.memory(), FAR - 701..FAR + 901);
    assert!((came[0], came[1601]) == (0, 0) && is_all(&came[1..1001], 3));
    assert!(is_all(&came[1001..1601], 5));
    let came = bytes_at(target.memory(), 76..478);
    assert!((came[0], came[401]) == (0, 0) && is_all(&came[1..401], 5));
    for at in [FAR & u64::from(u32::MAX), (2 * FAR) & u64::from(u32::MAX)] {
        assert!(is_all(&bytes_at(target.memory(), at..at + 1000), 0), "wrapped at 32 bits");
    }
}

/// A plan can be stopped in any state; what ended as fenced or rejected moves nothing more, not the
/// piece that was half way either.
pub fn a_stopped_plan_moves_nothing_more<H: Harness>(harness: &H) {
    let mut dice = Dice::new(harness);
    let pair = Pair::new(harness, REGION_BYTES as usize);
    let (_window, to) = pair.offer();
    let begin = |dice: &mut Dice| -> (Transfer, Vec<usize>) {
        let plan = Plan::new(source(dice), pieces(dice)).unwrap();
        let (local, _) = local(&pair, dice);
        let (remote, at) = remote(&to, dice);
        let touched = offsets(plan.remote()).into_iter().map(|offset| at + offset).collect();
        let write = pair.a.write_paged(&local, &remote, &plan).lane(lane(dice));
        (start(write.deadline(AMPLE)), touched)
    };
    // The first is cancelled before anybody is connected.
    for round in 0..8 {
        fill(&pair.source, 7);
        fill(&pair.target, 0);
        let (transfer, touched) = begin(&mut dice);
        if round > 0 {
            harness.pass(Duration::from_nanos(dice.below(15_000)));
        }
        transfer.cancel();
        let outcome = transfer.wait();
        let fine = outcome.is_done() || outcome.reason() == Some(Reason::Cancelled);
        assert!(fine, "{outcome}");
        let before = bytes_of(&pair.target);
        let moved = touched.iter().filter(|at| before[**at] == 7).count();
        match outcome {
            Outcome::Done => assert_eq!(moved, touched.len()),
            Outcome::Rejected(_) => assert_eq!(moved, 0, "rejected, but bytes moved"),
            Outcome::Fenced(_) => {}
            Outcome::Lost(_) => continue,
        }
        let around = before.iter().filter(|byte| **byte != 0).count();
        assert_eq!(around, moved, "bytes between the pieces changed");
        fill(&pair.source, 9);
        fill(&pair.target, 1);
        harness.pass(Duration::from_millis(2));
        assert!(is_all(&bytes_of(&pair.target), 1), "{outcome}, and a late write landed");
    }
}

/// Revoking fences plans as it fences everything.
pub fn a_revoked_window_is_fenced_against_plans<H: Harness>(harness: &H) {
    let mut dice = Dice::new(harness);
    let pair = Pair::new(harness, REGION_BYTES as usize);
    fill(&pair.source, 7);
    let (window, to) = pair.offer();
    let sent: Vec<_> = (0..6)
        .map(|_| {
            let plan = Plan::new(source(&mut dice), pieces(&mut dice)).unwrap();
            let (local, _) = local(&pair, &mut dice);
            let (remote, _) = remote(&to, &mut dice);
            start(pair.a.write_paged(&local, &remote, &plan).deadline(AMPLE))
        })
        .collect();
    harness.pass(Duration::from_nanos(dice.below(30_000)));
    window.revoke_within(AMPLE).unwrap();
    fill(&pair.target, 1);
    for outcome in wait_all(&sent) {
        let right = outcome.is_done() || outcome.reason() == Some(Reason::Stale);
        assert!(right, "{outcome}");
    }
    harness.pass(WATCH);
    assert!(is_all(&bytes_of(&pair.target), 1), "a late piece landed in a revoked window");
}

/// A plan to a peer that dies ends in time, and moves nothing after its end.
pub fn a_dead_peer_fails_its_plans_in_time<H: Harness>(harness: &H) {
    let mut dice = Dice::new(harness);
    let pair = Pair::new(harness, REGION_BYTES as usize);
    let (_window, to) = pair.offer();
    let (b, transfers) = (address(&pair.b), {
        let mut begin = |at: u64| {
            let (local, _) = local(&pair, &mut dice);
            let (remote, _) = remote(&to, &mut dice);
            let plan = Plan::new(pieces(&mut dice), pieces(&mut dice)).unwrap();
            start(match at % 2 {
                0 => pair.a.write_paged(&local, &remote, &plan).deadline(AMPLE),
                _ => pair.a.read_paged(&remote, &local, &plan).deadline(AMPLE),
            })
        };
        assert_eq!(begin(0).wait(), Outcome::Done);
        (0..6).map(begin).collect::<Vec<_>>()
    });
    harness.pass(Duration::from_nanos(dice.below(15_000)));
    let began = pair.a.now();
    inject(harness, Fault::Kill(b));
    let outcomes = wait_all(&transfers);
    assert!(pair.a.now().since(began) < AMPLE / 2, "noticed, not waited for: {outcomes:?}");
    let free: Vec<_> = outcomes.iter().map(|outcome| outcome.pages_are_free()).collect();
    if free.iter().all(|free| *free) {
        fill(&pair.source, 1);
        harness.pass(WATCH);
        assert!(is_all(&bytes_of(&pair.source), 1), "a late piece was read into a free page");
    }
}
