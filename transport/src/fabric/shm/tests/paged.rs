//! Paged writes and reads.

use proptest::prelude::*;

use super::*;
use crate::pages::{Pages, Plan, model};

/// A number below `below` that depends on the state alone.
fn roll(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % below
}

/// How the pages of one side lie.
#[derive(Debug, Clone, Copy)]
enum Shape {
    /// So many pieces of any length, shuffled.
    Ranges(u64),
    /// A page table of so many pages, for each of so many layers.
    Table { pages: u64, layers: u64 },
}

fn shapes() -> impl Strategy<Value = Shape> {
    let power = |most: u32| (0..=most).prop_map(|exponent| 1u64 << exponent);
    prop_oneof![
        (1..200u64).prop_map(Shape::Ranges),
        (power(3), power(3)).prop_map(|(pages, layers)| Shape::Table { pages, layers }),
    ]
}

impl Shape {
    /// Pages of `total` bytes, a multiple of 64, of which no two share a byte.
    fn pages(self, total: u64, state: &mut u64) -> Pages {
        match self {
            Self::Ranges(count) => {
                let mut cuts: Vec<u64> = (1..count).map(|_| roll(state, total + 1)).collect();
                cuts.extend([0, total]);
                cuts.sort_unstable();
                let mut end = 0;
                let mut ranges = Vec::new();
                for cut in cuts.windows(2) {
                    let start = end + roll(state, 300);
                    end = start + cut[1] - cut[0];
                    ranges.push(start..end);
                }
                for at in (1..ranges.len()).rev() {
                    ranges.swap(at, roll(state, at as u64 + 1) as usize);
                }
                Pages::ranges(ranges).unwrap()
            }
            Self::Table { pages, layers } => {
                let page = total / pages / layers;
                let mut table: Vec<u64> = (0..pages).map(|at| 2 * at + roll(state, 2)).collect();
                table.reverse();
                let span = 2 * pages * page;
                Pages::table(page, table)
                    .unwrap()
                    .layers((0..layers).map(|layer| layer * (span + 5)))
                    .unwrap()
            }
        }
    }
}

/// Where each byte lies, in order.
fn places(pages: &Pages) -> Vec<usize> {
    let places = model::places(pages.layer_starts(), pages.layer_runs());
    places.into_iter().map(|place| place as usize).collect()
}

/// `to` after the bytes of `from` have been put in their places.
fn moved(from: &[u8], from_pages: &Pages, to: &[u8], to_pages: &Pages) -> Vec<u8> {
    let mut after = to.to_vec();
    for (src, dst) in places(from_pages).into_iter().zip(places(to_pages)) {
        after[dst] = from[src];
    }
    after
}

fn paged(local: Local, remote: Remote, plan: &Plan, immediate: Option<u32>) -> Work<'_> {
    Work::Write { local, remote, pages: Some(plan), immediate: immediate.map(Immediate) }
}

/// Waits for an immediate and returns what `memory` holds by then.
fn once_told(pair: &mut Pair, immediate: u32, memory: &Memory) -> Vec<u8> {
    let arrived = pair.until("an immediate", |_, b| b.arrived());
    assert_eq!(arrived, Immediate(immediate));
    bytes(memory, 0..memory.len())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever the pages: every byte goes where a copy byte by byte would put it, none elsewhere.
    #[test]
    fn every_byte_of_every_page_lands_in_its_place(
        here_shape in shapes(),
        there_shape in shapes(),
        units in prop_oneof![1..30u64, 900..1100u64, 1..16_000u64],
        at in 0..200u64,
        threads in 0..3usize,
        mut seed: u64,
    ) {
        const GUARD: u64 = 100;
        let total = units * 64;
        let here_pages = here_shape.pages(total, &mut seed);
        let there_pages = there_shape.pages(total, &mut seed);
        let plan = Plan::new(here_pages.clone(), there_pages.clone()).unwrap();
        let mut pair = Pair::of(Config::new().copy_threads(threads), Config::new());
        let (theirs, there) = pair.b.region((at + there_pages.end() + GUARD) as usize);
        let (ours, here) = pair.a.region((at + here_pages.end() + GUARD) as usize);
        let sent = pattern(here.len(), seed);
        here.write_at(0, &sent).unwrap();
        there.fill(0..there.len(), 0xee).unwrap();
        // The window starts before the pages do, and ends where they do.
        let window = pair.b.grant(theirs, 0..at + there_pages.end(), ALL());
        let remote = Remote { offset: at, ..window };
        let side = local(ours, &here, at..at + here_pages.end());

        prop_assert_eq!(pair.run(paged(side, remote, &plan, Some(3))), Status::Done);
        let (skip, blank) = (at as usize, vec![0xee; there.len()]);
        let mut expected = blank.clone();
        expected[skip..].copy_from_slice(
            &moved(&sent[skip..], &here_pages, &blank[skip..], &there_pages));
        prop_assert!(once_told(&mut pair, 3, &there) == expected, "written");

        let kept = pattern(there.len(), !seed);
        there.write_at(0, &kept).unwrap();
        here.fill(0..here.len(), 0x11).unwrap();
        let (pages, immediate) = (Some(&plan), Some(Immediate(4)));
        let read = Work::Read { local: side, remote, pages, immediate };
        prop_assert_eq!(pair.run(read), Status::Done);
        let blank = vec![0x11; here.len()];
        let mut expected = blank.clone();
        expected[skip..].copy_from_slice(
            &moved(&kept[skip..], &there_pages, &blank[skip..], &here_pages));
        prop_assert!(once_told(&mut pair, 4, &here) == expected, "read");

        // One byte further and the last page would leave the window, or this side's memory.
        let beyond = Remote { offset: at + 1, ..window };
        let status = pair.run(paged(side, beyond, &plan, None));
        prop_assert_eq!(status, Status::Refused(Reason::OutOfBounds));
        let short = Local { len: side.len - 1, ..side };
        let status = pair.run(paged(short, remote, &plan, None));
        prop_assert_eq!(status, Status::Refused(Reason::OutOfBounds));
    }
}

#[test]
fn a_plan_of_nothing_delivers_its_immediate() {
    let mut pair = Pair::new();
    let (theirs, there) = pair.b.region(4096);
    let (ours, here) = pair.a.region(4096);
    let remote = pair.b.grant(theirs, 0..64, ALL());
    let none = Pages::ranges([]).unwrap();
    let plan = Plan::new(none.clone(), none).unwrap();
    let side = local(ours, &here, 0..4096);
    assert_eq!(pair.run(paged(side, remote, &plan, Some(1))), Status::Done);
    assert_eq!(once_told(&mut pair, 1, &there), vec![0; 4096]);
}

/// Many tiny pages are not copied while they are posted: whoever posts would wait for them.
#[test]
fn many_small_pages_are_not_done_on_the_spot() {
    let mut pair = Pair::new();
    let (theirs, there) = pair.b.region(1 << 20);
    let (ours, here) = pair.a.region(1 << 20);
    here.fill(0..1 << 20, 7).unwrap();
    let remote = pair.b.grant(theirs, 0..1 << 20, ALL());
    assert_eq!(pair.run(write(local(ours, &here, 0..8), remote, None)), Status::Done);
    let side = local(ours, &here, 0..1 << 20);
    for (pages, answer) in [(16, Posted::Done), (4096, Posted::Pending)] {
        let scattered = Pages::strided(0, 8, 64, pages).unwrap();
        let plan = Plan::new(scattered.clone(), scattered).unwrap();
        let (op, posted) = pair.a.post(pair.to_b, paged(side, remote, &plan, None));
        assert_eq!(posted, answer, "{pages} pages");
        if posted == Posted::Pending {
            assert_eq!(pair.until("the end", |a, _| a.status(op)), Status::Done);
        }
        let last = 64 * (pages as usize - 1);
        assert_eq!(bytes(&there, last..last + 9), [7, 7, 7, 7, 7, 7, 7, 7, 0]);
    }
}

/// Once a window is fenced no page lands in it, whatever was under way.
#[test]
fn no_page_lands_after_the_fence() {
    const LEN: u64 = 8 << 20;
    const PAGE: u64 = 4096;
    let mut pair = Pair::of(Config::new().copy_threads(2), Config::new());
    let (theirs, there) = pair.b.region(LEN as usize);
    let (ours, here) = pair.a.region(LEN as usize);
    here.fill(0..LEN as usize, 1).unwrap();
    // Every other page, from the last to the first on the other side.
    let indices = || (0..LEN / PAGE / 2).map(|at| 2 * at);
    let forth = Pages::table(PAGE, indices()).unwrap();
    let back = Pages::table(PAGE, indices().rev()).unwrap();
    let plan = Plan::new(forth, back).unwrap();
    let mut stopped = 0;
    for round in 0..60 {
        let remote = pair.b.grant(theirs, 0..LEN, ALL());
        assert_eq!(pair.run(write(local(ours, &here, 0..8), remote, None)), Status::Done);
        let side = local(ours, &here, 0..LEN);
        let (op, posted) = pair.a.post(pair.to_b, paged(side, remote, &plan, Some(round)));
        assert_eq!(posted, Posted::Pending);
        for _ in 0..round % 4 {
            pair.a.poll();
        }
        stopped += u32::from(pair.fence(op, remote.window, &there));
    }
    assert!(stopped > 0, "no fence came in between");
}
