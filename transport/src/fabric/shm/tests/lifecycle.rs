//! Sleep, fences, hanging up, closing, and what is left behind.

use super::*;
use crate::fabric::shm::hazard;
use crate::fabric::shm::jobs::Turn;

#[test]
fn a_sleeper_is_woken_by_whatever_comes() {
    let mut pair = Pair::new();
    let (theirs, _there) = pair.b.region(4096);
    let (ours, here) = pair.a.region(4096);
    let remote = pair.b.grant(theirs, 0..4096, ALL());
    let local = local(ours, &here, 0..8);
    for round in 0..50 {
        // Nobody sleeps before what is there was seen.
        while !pair.b.fabric.arm() {
            pair.b.poll();
        }
        assert!(!pair.b.is_readable(Duration::ZERO), "round {round}");
        if round % 2 == 0 {
            assert_eq!(pair.run_without_b(Work::Send { bytes: b"up", immediate: None }), None);
        } else if let Some(op) = pair.run_without_b(write(local, remote, Some(1))) {
            // The first one asks for the mapping, which must wake the owner as well.
            assert_eq!(pair.until("a write", |a, _| a.status(op)), Status::Done);
            continue;
        }
        assert!(pair.b.is_readable(PATIENCE), "round {round}");
        assert!(!pair.b.fabric.arm(), "there is work");
        pair.b.poll();
        let woken = pair.b.message().is_some() | pair.b.arrived().is_some();
        assert!(woken, "round {round}");
    }
}

impl Pair {
    /// Posts without polling `b`; the operation, if it is pending.
    fn run_without_b(&mut self, work: Work<'_>) -> Option<OpId> {
        match self.a.post(self.to_b, work) {
            (_, Posted::Done) => None,
            (op, Posted::Pending) => Some(op),
            (_, answer) => panic!("{answer:?}"),
        }
    }
}

#[test]
fn a_sender_without_room_is_woken_when_there_is_some() {
    let mut pair = Pair::new();
    let message = [0; 60_000];
    let work = Work::Send { bytes: &message, immediate: None };
    while pair.a.post(pair.to_b, work).1 != Posted::Busy {}
    while !pair.a.fabric.arm() {
        pair.a.poll();
    }
    assert!(!pair.a.is_readable(Duration::ZERO));
    pair.b.poll();
    assert!(pair.a.is_readable(PATIENCE));
    pair.a.poll();
    assert_eq!(pair.a.post(pair.to_b, work).1, Posted::Done);
}

#[test]
fn a_sleeper_is_woken_by_its_copying_threads() {
    const LEN: u64 = 4 << 20;
    let mut pair = Pair::of(Config::new().copy_threads(2), Config::new());
    let (theirs, _there) = pair.b.region(LEN as usize);
    let (ours, here) = pair.a.region(LEN as usize);
    let remote = pair.b.grant(theirs, 0..LEN, ALL());
    assert_eq!(pair.run(write(local(ours, &here, 0..8), remote, None)), Status::Done);
    let (op, _) = pair.a.post(pair.to_b, write(local(ours, &here, 0..LEN), remote, Some(1)));
    assert_eq!(sleep_until(&mut pair.a, PATIENCE, |a| a.status(op)), Status::Done);
}

#[test]
fn nothing_lands_after_a_fence() {
    const LEN: u64 = 16 << 20;
    let mut pair = Pair::of(Config::new().copy_threads(2), Config::new());
    let (theirs, there) = pair.b.region(LEN as usize);
    let (ours, here) = pair.a.region(LEN as usize);
    here.fill(0..LEN as usize, 1).unwrap();
    let mut stopped = 0;
    for round in 0..30 {
        let remote = pair.b.grant(theirs, 0..LEN, ALL());
        if round == 0 {
            assert_eq!(pair.run(write(local(ours, &here, 0..8), remote, None)), Status::Done);
        }
        let (op, _) = pair.a.post(pair.to_b, write(local(ours, &here, 0..LEN), remote, Some(1)));
        for _ in 0..round {
            pair.a.poll();
        }
        stopped += u32::from(pair.fence(op, remote.window, &there));
    }
    assert!(stopped > 0, "no fence came in between");
}

/// The owner hangs up while a copying thread of the other side is in the middle of a chunk: the other
/// side learns that its peer is gone, but its socket tells of its end only after that chunk.
#[test]
fn a_fence_waits_for_chunks_of_a_connection_that_was_given_up() {
    const LEN: u64 = 256 << 10;
    let mut pair = Pair::of(Config::new().copy_threads(0), Config::new());
    let (theirs, _there) = pair.b.region(LEN as usize);
    let (ours, here) = pair.a.region(LEN as usize);
    let remote = pair.b.grant(theirs, 0..LEN, ALL());
    assert_eq!(pair.run(write(local(ours, &here, 0..8), remote, None)), Status::Done);
    let (op, posted) = pair.a.post(pair.to_b, write(local(ours, &here, 0..LEN), remote, None));
    assert_eq!(posted, Posted::Pending);
    // What a copying thread does up to the middle of the copy.
    let mut chunk = None;
    let turn = pair.a.fabric.jobs.next(|job| chunk = Some(job.issue()));
    assert!(matches!(turn, Some(Turn::GoesOn)));
    let chunk = chunk.unwrap();
    let index = pair.a.fabric.find(pair.to_b).unwrap();
    let connection = pair.a.fabric.peers[index].link().unwrap().connection.clone();
    let claim = hazard::claim(remote.window);
    connection.hazard(1).store(claim, Ordering::SeqCst);

    pair.b.fabric.disconnect(pair.to_a);
    pair.b.fabric.revoke(remote.window);
    let to_a = pair.to_a;
    pair.until("hanging up", |_, b| b.down(to_a));
    let mut early = false;
    for _ in 0..100 {
        // Every poll looks at the sockets.
        pair.a.fabric.look = true;
        pair.a.poll();
        pair.b.fabric.look = true;
        pair.b.poll();
        early |= pair.b.revoked(remote.window).is_some();
    }
    let down = pair.a.down(pair.to_b);

    // The chunk comes back before anything is asserted: closing would wait for it for ever.
    hazard::leave(connection.hazard(1));
    let turn = pair.a.fabric.jobs.with(op, |job| job.take_back(chunk.len, true));
    pair.a.fabric.after(turn.unwrap());
    assert!(!early, "fenced while a chunk was under way");
    assert_eq!(down, None, "chunks end before their connection");
    assert_eq!(pair.until("the end", |a, _| a.status(op)), Status::Done);
    pair.until("a fence", |_, b| b.revoked(remote.window));
    assert_eq!(pair.a.down(pair.to_b), Some(Reason::PeerGone));
}

#[test]
fn a_place_is_used_again_by_another_generation() {
    let mut pair = Pair::new();
    let (theirs, there) = pair.b.region(8192);
    let (ours, here) = pair.a.region(4096);
    here.fill(0..4096, 1).unwrap();
    let old = pair.b.grant(theirs, 0..4096, ALL());
    let work = |remote| write(local(ours, &here, 0..8), remote, None);
    assert_eq!(pair.run(work(old)), Status::Done);
    pair.b.fabric.revoke(old.window);
    pair.until("a fence", |_, b| b.revoked(old.window));
    assert_eq!(pair.run(work(old)), Status::Refused(Reason::Stale));
    let window = WindowId { slot: old.window.slot, generation: old.window.generation + 1 };
    let grant = Grant { window, region: theirs, offset: 4096, len: 4096, access: ALL() };
    let key = pair.b.fabric.grant(&grant).unwrap();
    assert_eq!(pair.run(work(Remote { window, key, offset: 0 })), Status::Done);
    assert_eq!(pair.run(work(old)), Status::Refused(Reason::Stale));
    assert_eq!(bytes(&there, 4096..4104), [1; 8]);
}

#[test]
fn hanging_up_is_noticed_and_can_be_undone() {
    let mut pair = Pair::new();
    let (theirs, _there) = pair.b.region(4096);
    let (ours, here) = pair.a.region(4096);
    let remote = pair.b.grant(theirs, 0..4096, ALL());
    let work = write(local(ours, &here, 0..8), remote, None);
    let Pair { to_b, to_a, .. } = pair;
    // What was said before is heard.
    assert_eq!(pair.run(Work::Send { bytes: b"bye", immediate: None }), Status::Done);
    let (waiting, _) = pair.a.post(to_b, work);
    pair.a.fabric.disconnect(to_b);
    assert_eq!(pair.until("the end", |a, _| a.down(to_b)), Reason::Closed);
    assert_eq!(pair.a.status(waiting), Some(Status::Refused(Reason::Closed)));
    assert_eq!(pair.until("the end", |_, b| b.down(to_a)), Reason::PeerGone);
    assert_eq!(pair.b.message(), Some(b"bye".to_vec()));
    assert_eq!(pair.a.post(to_b, work).1, Posted::Refused(Reason::PeerGone));
    let (again, _) = connect(&mut pair.a, &mut pair.b);
    assert_ne!(again, to_b);
    pair.to_b = again;
    assert_eq!(pair.run(work), Status::Done);
}

#[test]
fn closing_ends_everything() {
    const LEN: u64 = 64 << 20;
    let mut pair = Pair::of(Config::new().copy_threads(2), Config::new());
    let (theirs, there) = pair.b.region(LEN as usize);
    let (ours, here) = pair.a.region(LEN as usize);
    here.fill(0..LEN as usize, 1).unwrap();
    let remote = pair.b.grant(theirs, 0..LEN, ALL());
    assert_eq!(pair.run(write(local(ours, &here, 0..8), remote, None)), Status::Done);
    let work = write(local(ours, &here, 0..LEN), remote, None);
    let ops = [0; 3].map(|_| pair.a.post(pair.to_b, work).0);
    pair.a.poll();
    pair.a.fabric.close();
    there.fill(0..LEN as usize, 0xee).unwrap();
    pair.a.poll();
    for op in ops {
        let ended = pair.a.status(op);
        assert!(
            matches!(
                ended,
                Some(Status::Refused(Reason::Closed) | Status::Stopped(Reason::Closed))
            ),
            "{ended:?}"
        );
    }
    assert_eq!(pair.a.down(pair.to_b), Some(Reason::Closed));
    assert!(bytes(&there, 0..LEN as usize).iter().all(|&byte| byte == 0xee), "a late write");
    let to_a = pair.to_a;
    assert_eq!(pair.until("the end", |_, b| b.down(to_a)), Reason::PeerGone);
    assert_eq!(pair.a.post(pair.to_b, work).1, Posted::Refused(Reason::PeerGone));
    let nobody = pair.b.fabric.connect(&pair.a.address());
    assert_eq!(pair.until("the answer", |_, b| b.down(nobody)), Reason::Unreachable);
}

#[test]
fn an_engine_can_connect_to_itself() {
    let (mut a, mut idle) = (Node::new(Config::new()), Node::new(Config::new()));
    let (region, memory) = a.region(8192);
    memory.write_at(0, b"myself").unwrap();
    let remote = a.grant(region, 4096..8192, ALL());
    let myself = a.fabric.connect(&a.address());
    let mut ups = 0;
    until(&mut a, &mut idle, "connecting", |a, _| {
        ups += usize::from(a.up().is_some());
        (ups == 2).then_some(())
    });
    let (op, _) = a.post(myself, write(local(region, &memory, 0..6), remote, Some(1)));
    until(&mut a, &mut idle, "a write", |a, _| a.status(op));
    until(&mut a, &mut idle, "an immediate", |a, _| a.arrived());
    assert_eq!(bytes(&memory, 4096..4102), b"myself");
}

/// Runs in a process of its own, where nobody else opens or maps anything.
#[test]
fn connections_leave_nothing_behind() {
    if std::env::var_os("TRANSHIP_TEST_LEAKS").is_none() {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "fabric::shm::tests::lifecycle::connections_leave_nothing_behind"])
            .env("TRANSHIP_TEST_LEAKS", "1")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let count = || {
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        (descriptors, maps.lines().filter(|line| line.contains("memfd:")).count())
    };
    let (mut a, mut b) = (Node::new(Config::new()), Node::new(Config::new()));
    let (theirs, _there) = b.region(4096);
    let (ours, here) = a.region(4096);
    let remote = b.grant(theirs, 0..4096, ALL());
    let before = count();
    for round in 0..200 {
        let (to_b, to_a) = connect(&mut a, &mut b);
        let (op, _) = a.post(to_b, write(local(ours, &here, 0..8), remote, None));
        until(&mut a, &mut b, "a write", |a, _| a.status(op));
        if round % 2 == 0 {
            a.fabric.disconnect(to_b);
        } else {
            b.fabric.disconnect(to_a);
        }
        until(&mut a, &mut b, "the end", |a, _| a.down(to_b));
        until(&mut a, &mut b, "the end", |_, b| b.down(to_a));
        let start = Instant::now();
        while !(a.fabric.ghosts.is_empty() && b.fabric.ghosts.is_empty()) {
            assert!(start.elapsed() < PATIENCE, "a ghost stays");
            a.poll();
            b.poll();
        }
    }
    assert_eq!(count(), before);
}
