//! What moves, in pieces and whole, and how it is stopped.

use proptest::prelude::*;

use super::*;
use crate::fabric::tcp::link::{CREDIT_BYTES, Over};
use crate::pages::{Pages, Plan, Run, model};

const REGION_BYTES: usize = 4 << 20;

/// Pages without overlap that fit into the region, of about as many bytes as wanted.
fn pages() -> impl Strategy<Value = Pages> {
    let even = (1..5000u64, 0..300u64, 1..300u32, 0..100u64).prop_map(|(bytes, gap, count, at)| {
        let stride = bytes + gap;
        let count = count.min((REGION_BYTES as u64 / 4 / stride) as u32).max(1);
        Pages::runs([Run { offset: at, bytes, stride, count }])
            .unwrap()
            .layers([0, REGION_BYTES as u64 / 2])
            .unwrap()
    });
    let odd = prop::collection::vec((1..3000u64, 0..700u64), 1..1200).prop_map(|list| {
        let mut at = 0;
        let ranges = list.into_iter().map(|(bytes, gap)| {
            let from = at + gap;
            at = from + bytes;
            from..at
        });
        Pages::ranges(ranges.filter(|it| it.end < REGION_BYTES as u64)).unwrap()
    });
    prop_oneof![even, odd]
}

/// A prefix of the pages, of so many bytes.
fn prefix(pages: &Pages, bytes: u64) -> Pages {
    let mut left = bytes;
    let all = pieces(pages).into_iter().map(|piece| {
        let len = left.min(piece.end - piece.start);
        left -= len;
        piece.start..piece.start + len
    });
    Pages::ranges(all).unwrap()
}

fn pieces(pages: &Pages) -> Vec<Range<u64>> {
    model::pieces(pages.layer_starts(), pages.layer_runs())
}

/// The bytes at the pages, in order.
fn gather(memory: &[u8], pages: &Pages) -> Vec<u8> {
    let piece = |it: Range<u64>| memory[it.start as usize..it.end as usize].to_vec();
    pieces(pages).into_iter().flat_map(piece).collect()
}

/// Two plans of which one is longer than the other: cut to the shorter.
fn plan(one: &Pages, other: &Pages) -> Plan {
    let bytes = one.bytes().min(other.bytes());
    let cut = |pages: &Pages| match pages.bytes() {
        same if same == bytes => pages.clone(),
        _ => prefix(pages, bytes),
    };
    Plan::new(cut(one), cut(other)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn pieces_of_both_sides_find_each_other(
        one in pages(), other in pages(), streams in 1..5u8, urgent: bool, seed: u64,
    ) {
        let plan = plan(&one, &other);
        let mut pair = Pair::of(Config::new().streams(streams), Config::new());
        let (here, source) = pair.a.region(REGION_BYTES);
        let (there, target) = pair.b.region(REGION_BYTES);
        let sent = pattern(REGION_BYTES, seed);
        source.write_at(0, &sent).unwrap();
        target.fill(0..REGION_BYTES, 0xee).unwrap();
        let remote = pair.b.grant(there, 0..REGION_BYTES as u64, ALL());
        let whole = local(here, &source, 0..REGION_BYTES as u64);
        let lane = if urgent { Lane::Latency } else { Lane::Bulk };

        let immediate = Some(Immediate(7));
        let work = Work::Write { local: whole, remote, pages: Some(&plan), immediate };
        let (op, posted) = pair.a.post_in(lane, pair.to_b, work);
        prop_assert_eq!(posted, Posted::Pending);
        pair.until("the immediate", |_, b| b.arrived());
        let came = bytes(&target, 0..REGION_BYTES);
        prop_assert_eq!(pair.end(op), Status::Done);
        prop_assert!(gather(&came, plan.remote()) == gather(&sent, plan.local()), "written");
        let mut around = came;
        for piece in pieces(plan.remote()) {
            around[piece.start as usize..piece.end as usize].fill(0xee);
        }
        prop_assert!(around.iter().all(|byte| *byte == 0xee), "written around the pieces");

        target.write_at(0, &sent).unwrap();
        source.fill(0..REGION_BYTES, 0xdd).unwrap();
        let work = Work::Read { local: whole, remote, pages: Some(&plan), immediate };
        let (op, posted) = pair.a.post_in(lane, pair.to_b, work);
        prop_assert_eq!(posted, Posted::Pending);
        prop_assert_eq!(pair.end(op), Status::Done);
        pair.until("the immediate", |_, b| b.arrived());
        let mut came = bytes(&source, 0..REGION_BYTES);
        prop_assert!(gather(&came, plan.local()) == gather(&sent, plan.remote()), "read");
        for piece in pieces(plan.local()) {
            came[piece.start as usize..piece.end as usize].fill(0xdd);
        }
        prop_assert!(came.iter().all(|byte| *byte == 0xdd), "read around the pieces");
        pair.settle();
    }
}

#[test]
fn pages_outside_of_the_window_are_refused() {
    let mut pair = Pair::new();
    let (here, source) = pair.a.region(REGION_BYTES);
    let (there, target) = pair.b.region(REGION_BYTES);
    source.fill(0..REGION_BYTES, 7).unwrap();
    let remote = pair.b.grant(there, 4096..1 << 20, ALL());
    let few = Pages::strided(0, 1000, 30_000, 35).unwrap();
    let local_pages = Pages::strided(0, few.bytes(), few.bytes(), 1).unwrap();
    let plan = Plan::new(local_pages, few).unwrap();
    let whole = local(here, &source, 0..1 << 20);
    let work = |write: bool, offset: u64| {
        let remote = Remote { offset, ..remote };
        let (pages, immediate) = (Some(&plan), None);
        match write {
            true => Work::Write { local: whole, remote, pages, immediate },
            false => Work::Read { local: whole, remote, pages, immediate },
        }
    };
    for offset in [30_000, 1 << 20, u64::MAX - 10, u64::MAX] {
        for write in [true, false] {
            let status = pair.run(work(write, offset));
            assert_eq!(status, Status::Refused(Reason::OutOfBounds), "{offset}");
        }
    }
    assert!(bytes(&target, 0..REGION_BYTES).iter().all(|byte| *byte == 0));
    assert_eq!(pair.run(work(true, 0)), Status::Done);
    pair.settle();
}

/// A large transfer that has moved some bytes, and has more to move.
fn half_way(pair: &mut Pair, reading: bool) -> (OpId, Remote, Arc<Memory>, Arc<Memory>) {
    const BYTES: usize = 64 << 20;
    let (here, near) = pair.a.region(BYTES);
    let (there, far) = pair.b.region(BYTES);
    let (source, target) = if reading { (&far, &near) } else { (&near, &far) };
    source.fill(0..BYTES, 7).unwrap();
    let remote = pair.b.grant(there, 0..BYTES as u64, ALL());
    let whole = local(here, &near, 0..BYTES as u64);
    let work = if reading { read(whole, remote) } else { write(whole, remote, Some(1)) };
    let op = pair.a.begin(pair.to_b, work);
    let target = Arc::clone(target);
    let begun = |_: &mut Node, _: &mut Node| (bytes(&target, 0..1) == [7]).then_some(());
    pair.until("the first byte", begun);
    assert_ne!(bytes(&target, BYTES - 1..BYTES), [7], "it must not be through");
    (op, remote, near, far)
}

/// What lands after an end, if anything does.
fn lands_nothing(pair: &mut Pair, memory: &Memory) {
    memory.fill(0..memory.len(), 1).unwrap();
    pair.settle();
    assert!(bytes(memory, 0..memory.len()).iter().all(|byte| *byte == 1), "a late byte landed");
}

#[test]
fn a_write_is_fenced_half_way() {
    let mut pair = Pair::new();
    let (op, remote, _near, far) = half_way(&mut pair, false);
    pair.b.fabric.revoke(remote.window);
    pair.b.poll();
    far.fill(0..far.len(), 1).unwrap();
    assert_eq!(pair.end(op), Status::Stopped(Reason::Stale));
    assert!(bytes(&far, 0..far.len()).iter().all(|byte| *byte == 1), "a late byte landed");
    lands_nothing(&mut pair, &far);
    assert!(pair.b.arrived().is_none(), "what was stopped announces nothing");
}

#[test]
fn a_read_of_a_window_that_is_revoked_is_never_done() {
    let mut pair = Pair::new();
    let (op, remote, near, _far) = half_way(&mut pair, true);
    pair.b.fabric.revoke(remote.window);
    assert_eq!(pair.end(op), Status::Stopped(Reason::Stale));
    lands_nothing(&mut pair, &near);
}

#[test]
fn a_write_is_cancelled_half_way() {
    let mut pair = Pair::new();
    let (op, _, _near, far) = half_way(&mut pair, false);
    pair.a.fabric.cancel(op, Reason::Cancelled);
    assert_eq!(pair.end(op), Status::Stopped(Reason::Cancelled));
    lands_nothing(&mut pair, &far);
    assert!(pair.b.arrived().is_none(), "what was stopped announces nothing");
}

#[test]
fn a_read_is_cancelled_at_once_half_way() {
    let mut pair = Pair::new();
    let (op, _, near, _far) = half_way(&mut pair, true);
    pair.a.fabric.cancel(op, Reason::Cancelled);
    pair.a.poll();
    assert_eq!(pair.a.status(op), Some(Status::Stopped(Reason::Cancelled)), "nobody else is asked");
    lands_nothing(&mut pair, &near);
}

#[test]
fn hanging_up_half_way_is_proven_by_the_peer() {
    for reading in [false, true] {
        let mut pair = Pair::new();
        let (op, _, near, far) = half_way(&mut pair, reading);
        let to_b = pair.to_b;
        pair.a.fabric.disconnect(to_b);
        assert_eq!(pair.end(op), Status::Stopped(Reason::Closed));
        let reason = pair.until("the end", |a, _| a.down(to_b));
        assert_eq!(reason, Reason::Closed);
        lands_nothing(&mut pair, if reading { &near } else { &far });
        assert!(pair.a.fabric.suspects.is_empty());
        let to_a = pair.to_a;
        assert_eq!(pair.until("the end", |_, b| b.down(to_a)), Reason::PeerGone);
    }
}

#[test]
fn a_cut_connection_is_asked_about_and_proven() {
    let mut pair = Pair::new();
    let (op, _, _near, far) = half_way(&mut pair, false);
    // As after silence: nothing is proven by that.
    let to_b = pair.to_b;
    pair.a.fabric.end(to_b, Over::Cut);
    pair.a.poll();
    assert_eq!(pair.a.down(to_b), Some(Reason::PeerGone));
    assert_eq!(pair.a.status(op), None, "nothing is proven yet");
    assert_eq!(pair.end(op), Status::Stopped(Reason::PeerGone));
    lands_nothing(&mut pair, &far);
}

#[test]
fn what_is_urgent_overtakes_what_is_not() {
    const BYTES: u64 = 256 << 20;
    let mut pair = Pair::new();
    let (here, near) = pair.a.region(BYTES as usize);
    let (there, _far) = pair.b.region(BYTES as usize);
    let remote = pair.b.grant(there, 0..BYTES, ALL());
    let whole = local(here, &near, 0..BYTES);
    let slow = [
        pair.a.begin(pair.to_b, write(whole, remote, Some(1))),
        pair.a.begin(pair.to_b, read(whole, remote)),
    ];
    let part = local(here, &near, 0..64);
    for work in [write(part, remote, Some(2)), read(part, remote)] {
        let (op, posted) = pair.a.post_in(Lane::Latency, pair.to_b, work);
        assert_eq!(posted, Posted::Pending);
        assert_eq!(pair.end(op), Status::Done);
        assert!(slow.iter().all(|op| pair.a.status(*op).is_none()), "overtaken by bulk");
    }
    assert_eq!(pair.until("the immediate", |_, b| b.arrived()), Immediate(2));
    for op in slow {
        assert_eq!(pair.end(op), Status::Done);
    }
}

#[test]
fn messages_nobody_takes_are_bounded_and_hold_nothing_else_up() {
    let mut pair = Pair::new();
    let (here, near) = pair.a.region(4096);
    let (there, _far) = pair.b.region(4096);
    let remote = pair.b.grant(there, 0..4096, ALL());
    pair.b.messages_max = 0;
    let message = pattern(10_000, 3);
    let mut sent = 0;
    let send = || Work::Send { bytes: &message, immediate: Some(Immediate(9)) };
    while pair.a.post(pair.to_b, send()).1 == Posted::Done {
        sent += 1;
        pair.a.poll();
        pair.b.poll();
        assert!(sent < 1000, "without bound");
    }
    assert!(sent >= 50);
    for _ in 0..10 {
        let part = local(here, &near, 0..4096);
        assert_eq!(pair.run(write(part, remote, Some(1))), Status::Done);
        assert_eq!(pair.b.arrived(), Some(Immediate(1)));
    }
    let link = pair.b.fabric.links.values().next().unwrap();
    let kept: usize = link.inbox.iter().map(|(bytes, _)| bytes.len()).sum();
    assert!(kept <= CREDIT_BYTES as usize && kept > 0);
    pair.b.messages_max = 7;
    for _ in 0..sent {
        assert!(pair.until("a message", |_, b| b.message()) == message);
        assert_eq!(pair.b.arrived(), Some(Immediate(9)));
    }
    assert_eq!(pair.b.message(), None);
    pair.until("credit", |a, _| (a.post(a.up_peer(), send()).1 == Posted::Done).then_some(()));
}

impl Node {
    /// The one peer.
    fn up_peer(&self) -> PeerId {
        *self.fabric.links.keys().next().unwrap()
    }
}

#[test]
fn two_that_dial_each_other_at_once_are_connected() {
    let (mut a, mut b) = (Node::new(Config::new()), Node::new(Config::new()));
    let to_b = a.fabric.connect(&b.address());
    let to_a = b.fabric.connect(&a.address());
    let mut ups = (Vec::new(), Vec::new());
    until(&mut a, &mut b, "both connections", |a, b| {
        ups.0.extend(a.up());
        ups.1.extend(b.up());
        (ups.0.len() == 2 && ups.1.len() == 2).then_some(())
    });
    let say = |from: &mut Node, to: &mut Node, peer| {
        let work = Work::Send { bytes: b"hello", immediate: None };
        assert_eq!(from.post(peer, work).1, Posted::Done);
        assert_eq!(until(from, to, "the message", |_, to| to.message()), b"hello");
    };
    say(&mut a, &mut b, to_b);
    say(&mut b, &mut a, to_a);
}

#[test]
fn what_was_said_before_closing_is_heard() {
    let mut pair = Pair::new();
    for number in 0..50u8 {
        let work = Work::Send { bytes: &[number], immediate: None };
        assert_eq!(pair.a.post(pair.to_b, work).1, Posted::Done);
    }
    pair.a.fabric.close();
    let Pair { mut b, to_a, .. } = pair;
    b.messages_max = 7;
    let last = |b: &mut Node| matches!(b.events.last()?, Event::PeerDown { .. }).then_some(());
    wait(&mut b, "the end", last);
    for number in 0..50 {
        assert_eq!(b.message(), Some(vec![number]), "all of them, before the end");
    }
    assert_eq!(b.down(to_a), Some(Reason::PeerGone));
}
