//! What one peer, or one slip, must not cost: wrong ends, false proofs, memory, turns and sleep.

use std::io::{Read, Write as _};
use std::os::fd::AsRawFd;
use std::sync::mpsc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::ioctl_fionread;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::Timespec;

use super::hostile::by_hand;
use super::*;
use crate::fabric::tcp::frame::{Ack, Frame, HEAD_BYTES, Verdict};
use crate::fabric::tcp::link::{LATENCY, Link, Over, Terms};
use crate::fabric::tcp::stream::Stream;
use crate::time::Time;

#[test]
fn a_read_whose_bytes_were_dropped_after_hanging_up_is_not_done() {
    const BYTES: usize = 4096;
    let mut pair = Pair::new();
    let (here, near) = pair.a.region(BYTES);
    let (there, far) = pair.b.region(BYTES);
    far.fill(0..BYTES, 7).unwrap();
    let remote = pair.b.grant(there, 0..BYTES as u64, ALL());
    let part = local(here, &near, 0..BYTES as u64);
    let (op, posted) = pair.a.post_in(Lane::Latency, pair.to_b, read(part, remote));
    assert_eq!(posted, Posted::Pending);
    // The whole answer lies in the socket, its end included, when we hang up.
    let answer = (BYTES + 2 * HEAD_BYTES + 16) as u64;
    let a = &pair.a.fabric.links[&pair.to_b].streams[LATENCY].socket;
    wait(&mut pair.b, "the answer", |_| (ioctl_fionread(a).unwrap() >= answer).then_some(()));
    pair.a.fabric.disconnect(pair.to_b);
    assert_eq!(pair.end(op), Status::Refused(Reason::Closed));
    assert!(bytes(&near, 0..BYTES).iter().all(|byte| *byte == 0), "nothing lands after that");
}

#[test]
fn who_sleeps_notices_silence_too() {
    const BEAT: Duration = Duration::from_millis(50);
    let config = || Config::new().heartbeat(BEAT, 3);
    let mut pair = Pair::of(config(), config());
    // The other side says nothing from here on, and does not hang up either.
    let down = |node: &mut Node| {
        node.take(|event| match event {
            Event::PeerDown { reason, .. } => Some(*reason),
            _ => None,
        })
    };
    assert_eq!(sleep_until(&mut pair.a, 100 * BEAT, down), Reason::PeerGone);
}

#[test]
fn the_longest_heartbeat_of_a_peer_is_bounded() {
    let mut node = Node::new(Config::new().heartbeat(Duration::from_secs(1), 3));
    let terms = Terms {
        engine: EngineId(1),
        connection: 2,
        endpoint: String::new(),
        near: true,
        heartbeat: Duration::from_millis(u32::MAX.into()),
        credit: 0,
    };
    let mut link = Link::new(PeerId(1), terms, Vec::new(), &node.fabric.hub);
    link.heard = Time::ZERO;
    node.fabric.hub.now = Time::ZERO + Duration::from_secs(3 * 60);
    assert_eq!(link.tick(&mut node.fabric.hub), Err(Over::Cut));
}

#[test]
fn nobody_at_our_own_loopback_proves_nothing_of_another_machine() {
    const BYTES: u64 = 64 << 20;
    for near in [false, true] {
        let mut pair = Pair::of(Config::new(), Config::new());
        let (there, _far) = pair.a.region(BYTES as usize);
        let (here, memory) = pair.b.region(BYTES as usize);
        let remote = pair.a.grant(there, 0..BYTES, ALL());
        // `a` has dialled `b` and told it a loopback address, as if from elsewhere or not.
        let link = pair.b.fabric.links.get_mut(&pair.to_a).unwrap();
        assert!(link.near, "both are on this machine");
        link.near = near;
        let op = pair.b.begin(pair.to_a, write(local(here, &memory, 0..BYTES), remote, None));
        pair.b.fabric.end(pair.to_a, Over::Cut);
        pair.a.fabric.listener = None;
        let to_a = pair.to_a;
        assert_eq!(wait(&mut pair.b, "the end", |b| b.down(to_a)), Reason::PeerGone);
        if near {
            let status = wait(&mut pair.b, "the proof", |b| b.status(op));
            assert_eq!(status, Status::Stopped(Reason::PeerGone));
            continue;
        }
        for _ in 0..2 {
            wait(&mut pair.b, "a try", |b| (!b.fabric.suspects.first().is_asked()).then_some(()));
            for _ in 0..100 {
                pair.b.poll();
            }
        }
        assert_eq!(pair.b.status(op), None, "that port is not the peer's");
        assert_eq!(pair.b.fabric.suspects.len(), 1);
    }
}

#[test]
fn messages_of_peers_that_are_gone_count_as_connections() {
    let mut node = Node::new(Config::new().connections_max(3));
    node.messages_max = 0;
    let dial = |node: &mut Node| {
        let mut other = Node::new(Config::new());
        let peer = other.fabric.connect(&node.address());
        let reason = until(&mut other, node, "an answer", |other, _| {
            other.up().map(|_| None).or_else(|| other.down(peer).map(Some))
        });
        (other, peer, reason)
    };
    let mut kept = 0;
    let refused = loop {
        let (mut other, peer, reason) = dial(&mut node);
        if reason.is_some() {
            break reason;
        }
        kept += 1;
        assert!(kept <= 3, "messages of the gone are kept without bound");
        let work = Work::Send { bytes: b"hello", immediate: None };
        assert_eq!(other.post(peer, work).1, Posted::Done);
        other.fabric.close();
        wait(&mut node, "the end", |it| it.fabric.links.is_empty().then_some(()));
    };
    assert_eq!((refused, kept), (Some(Reason::Full), 3));
    node.messages_max = 64;
    for _ in 0..3 {
        assert_eq!(wait(&mut node, "a message", Node::message), b"hello");
    }
    assert_eq!(dial(&mut node).2, None, "there is room again");
}

#[test]
fn one_who_never_stops_talking_does_not_hold_a_poll() {
    const SIGNALS: usize = 1 << 20;
    let mut node = Node::new(Config::new());
    let (_, [mut latency, bulk]) = by_hand(&mut node);
    // The end of another stream has what was said last looked for.
    drop(bulk);
    let (begun, begins) = mpsc::channel();
    let writer = std::thread::spawn(move || {
        let signal = Frame::Signal { immediate: Immediate(1), urgent: true };
        let some = signal.encode().repeat(1 << 12);
        for _ in 0..SIGNALS >> 12 {
            if latency.write_all(&some).is_err() {
                return;
            }
            let _ = begun.send(());
        }
    });
    begins.recv_timeout(PATIENCE).unwrap();
    begins.recv_timeout(PATIENCE).unwrap();
    let most = wait(&mut node, "the end", |node| {
        let came = node.events.len();
        node.events.clear();
        (came > 0).then_some(came)
    });
    assert!(most < SIGNALS / 4, "{most} in one poll");
    drop(node);
    writer.join().unwrap();
}

#[test]
fn what_is_urgent_and_long_does_not_hold_a_poll() {
    const BYTES: u64 = 64 << 20;
    let mut node = Node::new(Config::new());
    let (here, memory) = node.region(BYTES as usize);
    memory.fill(0..BYTES as usize, 1).unwrap();
    let (peer, [mut latency, bulk]) = by_hand(&mut node);
    let reader = std::thread::spawn(move || {
        let mut sink = vec![0; 1 << 20];
        while latency.read(&mut sink).is_ok_and(|got| got > 0) {}
    });
    let window = WindowId { slot: 0, generation: 1 };
    let key = crate::fabric::RemoteKey { key: 0, base: 0 };
    let work = write(local(here, &memory, 0..BYTES), Remote { window, key, offset: 0 }, None);
    assert_eq!(node.post_in(Lane::Latency, peer, work).1, Posted::Pending);
    let mut before = 0;
    wait(&mut node, "the last byte", |node| {
        let op = node.fabric.links[&peer].ops.iter().next().unwrap().1;
        let sent = op.assigned - before;
        assert!(sent <= 2 << 20, "{sent} bytes in one poll");
        before = op.assigned;
        (op.assigned == BYTES).then_some(())
    });
    drop((node, bulk));
    reader.join().unwrap();
}

#[test]
fn a_talkative_peer_does_not_keep_others_messages_back() {
    let (mut a, mut b, mut c) =
        (Node::new(Config::new()), Node::new(Config::new()), Node::new(Config::new()));
    let (to_b, _) = connect(&mut a, &mut b);
    let (c_to_b, _) = connect(&mut c, &mut b);
    for (node, peer) in [(&mut a, to_b), (&mut c, c_to_b)] {
        for _ in 0..50 {
            let work = Work::Send { bytes: b"hello", immediate: None };
            assert_eq!(node.post(peer, work).1, Posted::Done);
        }
    }
    b.messages_max = 0;
    wait(&mut b, "all messages", |b| {
        b.fabric.links.values().all(|link| link.inbox.len() == 50).then_some(())
    });
    b.messages_max = 1;
    for _ in 0..20 {
        b.poll();
    }
    for link in b.fabric.links.values() {
        assert_eq!(link.inbox.len(), 40, "each its turn");
    }
}

#[test]
fn a_source_that_cannot_be_read_ends_the_connection_and_is_proven() {
    const BYTES: usize = 64 << 10;
    let mut pair = Pair::new();
    let (here, near) = pair.a.region(BYTES);
    let (there, _far) = pair.b.region(BYTES);
    let remote = pair.b.grant(there, 0..BYTES as u64, ALL());
    // As when the file behind a mapping was cut short.
    // SAFETY: whole pages of a mapping that is used for nothing else.
    let answer = unsafe { libc::mprotect(near.as_ptr().cast(), BYTES, libc::PROT_NONE) };
    assert_eq!(answer, 0);
    let op = pair.a.begin(pair.to_b, write(local(here, &near, 0..BYTES as u64), remote, None));
    let start = Instant::now();
    let status = pair.until("the end", |a, _| {
        assert!(start.elapsed() < Duration::from_secs(20), "spins");
        a.status(op)
    });
    assert_eq!(status, Status::Stopped(Reason::PeerGone));
    let to_b = pair.to_b;
    assert_eq!(pair.until("the end", |a, _| a.down(to_b)), Reason::Failed);
}

#[test]
fn who_has_closed_may_sleep() {
    let mut pair = Pair::new();
    pair.a.fabric.close();
    pair.a.poll();
    assert!(pair.a.fabric.arm());
}

#[test]
fn asking_about_the_lost_keeps_nobody_out() {
    let mut pair = Pair::of(Config::new().connections_max(1), Config::new());
    let (here, near) = pair.a.region(64 << 20);
    let (there, _far) = pair.b.region(64 << 20);
    let remote = pair.b.grant(there, 0..64 << 20, ALL());
    pair.a.begin(pair.to_b, write(local(here, &near, 0..64 << 20), remote, None));
    pair.a.fabric.end(pair.to_b, Over::Cut);
    // It is asked, and does not answer.
    wait(&mut pair.a, "a question", |a| a.fabric.suspects.first().is_asked().then_some(()));
    assert_eq!(pair.a.fabric.dials.len(), 1);
    connect(&mut pair.a, &mut Node::new(Config::new()));
}

#[test]
fn a_refusal_is_heeded_though_bulk_is_stuck() {
    const BYTES: u64 = 64 << 20;
    let mut node = Node::new(Config::new().heartbeat(Duration::from_secs(60), 100));
    let (here, memory) = node.region(BYTES as usize);
    let (peer, [mut latency, _bulk]) = by_hand(&mut node);
    let window = WindowId { slot: 0, generation: 1 };
    let key = crate::fabric::RemoteKey { key: 0, base: 0 };
    let work = write(local(here, &memory, 0..BYTES), Remote { window, key, offset: 0 }, None);
    node.begin(peer, work);
    // The bulk stream takes no more.
    wait(&mut node, "the stream to fill", |node| {
        node.fabric.links[&peer].streams[1].clogged.then_some(())
    });
    for _ in 0..100 {
        node.poll();
    }
    let link = &node.fabric.links[&peer];
    assert!(link.streams[1].clogged && !node.fabric.hub.eager.contains(&peer));
    let (index, op) = link.ops.iter().next().unwrap();
    let (tag, sent) = (index as u64 | 1 << 32, op.assigned);
    let ack = Ack { tag, verdict: Verdict::Refusing(Reason::Stale) };
    latency.write_all(&Frame::Acks { count: 1 }.encode()).unwrap();
    latency.write_all(&ack.encode()).unwrap();
    latency.set_nonblocking(true).unwrap();
    let start = Instant::now();
    let mut head = [0; HEAD_BYTES];
    let got = wait(&mut node, "the abort", |_| {
        assert!(start.elapsed() < Duration::from_secs(20), "the refusal is not heeded");
        latency.read(&mut head).ok()
    });
    assert_eq!(got, HEAD_BYTES);
    assert_eq!(Frame::decode(&head), Ok(Frame::Abort { tag, sent }));
}

#[test]
fn all_that_are_lost_are_asked_about_in_turns() {
    const LINKS: usize = 80;
    let (mut a, mut b) =
        (Node::new(Config::new().streams(1).handshake_timeout(PATIENCE)), Node::new(Config::new()));
    let (here, near) = a.region(4096);
    let (there, _far) = b.region(4096);
    let remote = b.grant(there, 0..4096, ALL());
    let peers: Vec<_> = (0..LINKS).map(|_| connect(&mut a, &mut b).0).collect();
    let part = local(here, &near, 0..4096);
    let ops: Vec<_> = peers.iter().map(|peer| a.begin(*peer, write(part, remote, None))).collect();
    wait(&mut a, "all to leave", |a| a.fabric.hub.eager.is_empty().then_some(()));
    for peer in peers {
        a.fabric.end(peer, Over::Cut);
    }
    b.fabric.listener = None;
    let start = Instant::now();
    for op in ops {
        let status = wait(&mut a, "the proof", |a| {
            assert!(start.elapsed() < PATIENCE / 3, "some are not asked about");
            a.status(op)
        });
        assert_eq!(status, Status::Stopped(Reason::PeerGone));
    }
}

#[test]
fn what_has_not_left_is_taken_back() {
    const WRITES: usize = 1000;
    let mut node = Node::new(Config::new());
    let (here, memory) = node.region(4096);
    let (peer, [_latency, mut bulk]) = by_hand(&mut node);
    let window = WindowId { slot: 0, generation: 1 };
    let key = crate::fabric::RemoteKey { key: 0, base: 0 };
    let part = local(here, &memory, 0..4096);
    let work = || write(part, Remote { window, key, offset: 0 }, None);
    let ops: Vec<_> = (0..WRITES).map(|_| node.begin(peer, work())).collect();
    let queued = |node: &Node| node.fabric.links[&peer].streams[1].chunks.len();
    let mut came = Vec::new();
    bulk.set_nonblocking(true).unwrap();
    // Once there is room again it is given many at once, and takes but some of them.
    wait(&mut node, "the stream to fill", |node| {
        let mut some = [0; 64 << 10];
        if queued(node) <= 1 {
            let got = bulk.read(&mut some).unwrap_or(0);
            came.extend(&some[..got]);
        }
        (node.fabric.links[&peer].streams[1].clogged && queued(node) > 1).then_some(())
    });
    for op in &ops {
        node.fabric.cancel(*op, Reason::Deadline);
    }
    // Not polled, so that nothing leaves any more.
    node.events.append(&mut node.fabric.hub.reports);
    bulk.set_nonblocking(false).unwrap();
    let back = ops.iter().filter_map(|op| node.status(*op)).collect::<Vec<_>>();
    assert!(back.iter().all(|status| *status == Status::Refused(Reason::Deadline)));
    bulk.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let _ = bulk.read_to_end(&mut came);
    let frames = came.len().div_ceil(HEAD_BYTES + 4096);
    assert!(frames < WRITES, "the socket has taken everything: nothing is shown");
    assert_eq!(back.len(), WRITES - frames, "all but those of which something left");
}

const DEAF_ENV: &str = "TRANSHIP_TEST_TCP_DEAF";

/// In a process of its own, whose descriptors run out. Does nothing in an ordinary run of the tests.
#[test]
fn deaf_process() {
    if std::env::var_os(DEAF_ENV).is_none() {
        return;
    }
    let mut node = Node::new(Config::new());
    let mut other = Node::new(Config::new());
    let limit = getrlimit(Resource::Nofile);
    let peer = other.fabric.connect(&node.address());
    // What is free is the lowest there is: none from here on.
    let none = std::fs::File::open("/dev/null").unwrap().as_raw_fd();
    setrlimit(Resource::Nofile, Rlimit { current: Some(none as u64), ..limit }).unwrap();
    let began = Instant::now();
    let mut polls = 0;
    while node.fabric.deaf.times() < 3 {
        node.poll();
        polls += 1;
        if node.fabric.deaf.times() > 0 && node.fabric.arm() {
            let fd = node.fabric.wait_fd().unwrap();
            let timeout = Timespec::try_from(PATIENCE).unwrap();
            poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap();
        }
        assert!(began.elapsed() < PATIENCE, "accepting does not fail");
    }
    // A pause of 100 ms and one of 200, of which a quarter is left to chance.
    assert!(began.elapsed() >= Duration::from_millis(220), "tries again at once");
    assert!(polls < 1000, "{polls} polls: it does not sleep");
    setrlimit(Resource::Nofile, limit).unwrap();
    until(&mut other, &mut node, "the call", |other, node| Some((other.up()?, node.up()?)));
    assert_eq!(node.fabric.deaf.times(), 0);
    assert_eq!(other.down(peer), None);
}

#[test]
fn callers_wait_while_descriptors_have_run_out() {
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "fabric::tcp::tests::bounds::deaf_process", "--test-threads=1"])
        .env(DEAF_ENV, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn writes_are_refused_while_too_many_are_lost_and_not_proven() {
    let mut pair = Pair::new();
    let (here, near) = pair.a.region(64);
    let (there, _far) = pair.b.region(64);
    let remote = pair.b.grant(there, 0..64, ALL());
    let part = local(here, &near, 0..64);
    let mut peer = pair.to_b;
    let mut lost = Vec::new();
    for _ in 0..2 {
        while let (op, Posted::Pending) = pair.a.post(peer, write(part, remote, None)) {
            lost.push(op);
        }
        wait(&mut pair.a, "all to leave", |a| {
            let link = &a.fabric.links[&peer];
            let queued = !link.jobs[Lane::Bulk.index()].is_empty();
            (!queued && link.streams.iter().all(Stream::is_idle)).then_some(())
        });
        let link = pair.a.fabric.links.get_mut(&peer).unwrap();
        link.endpoint.clear();
        pair.a.fabric.end(peer, Over::Cut);
        (peer, _) = connect(&mut pair.a, &mut pair.b);
    }
    assert_eq!(pair.a.fabric.suspects.len(), 2);
    let refused = pair.a.post(peer, write(part, remote, None)).1;
    assert_eq!(refused, Posted::Refused(Reason::Unproven));
    assert_eq!(pair.a.post(peer, read(part, remote)).1, Posted::Pending, "reads need no proof");
    assert!(lost.iter().all(|op| pair.a.status(*op).is_none()), "none is forgotten");
    let first = pair.a.fabric.suspects.ids()[0];
    pair.a.fabric.proven(first);
    assert_eq!(pair.a.post(peer, write(part, remote, None)).1, Posted::Pending);
    pair.a.poll();
    let proven = lost.iter().filter(|op| pair.a.status(**op).is_some()).count();
    assert_eq!(proven, lost.len() / 2);
}
