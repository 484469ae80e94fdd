//! What bulk costs the latency lane, and what it does not.

use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::ioctl_fionread;

use super::hostile::by_hand;
use super::*;
use crate::fabric::RemoteKey;
use crate::fabric::tcp::frame::{Ack, Frame, HEAD_BYTES, Place, Verdict};
use crate::fabric::tcp::pace::Pace;
use crate::fabric::tcp::receive::Reading;
use crate::fabric::tcp::stream::{Chunk, Stream};
use crate::time::{Clock, Time};

/// What a poll moves of bulk while the latency lane is in use, heads included, and a little more.
const LITTLE: usize = (32 << 10) + 4 * HEAD_BYTES;

const SIGNAL: Work<'_> = Work::Signal { immediate: Immediate(1) };
const URGENT_SIGNAL: Frame = Frame::Signal { immediate: Immediate(1), urgent: true };
const BULK_SIGNAL: Frame = Frame::Signal { immediate: Immediate(1), urgent: false };

/// Time that passes only when a test says so.
#[derive(Debug, Default)]
struct Still(AtomicU64);

impl Still {
    fn pass(&self, span: Duration) {
        self.0.fetch_add(span.as_nanos() as u64, Ordering::Relaxed);
    }
}

impl Clock for Still {
    fn now(&self) -> Time {
        Time::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// A fabric for which no time passes.
fn still() -> (Node, Arc<Still>) {
    let (mut node, clock) = (Node::new(Config::new()), Arc::new(Still::default()));
    let setup = Setup { engine: EngineId::random(), clock: Arc::<Still>::clone(&clock) };
    node.fabric = Tcp::open(Config::new(), &setup).unwrap();
    (node, clock)
}

/// The next frame in a socket, and nothing that follows its head.
fn frame(socket: &mut TcpStream) -> Frame {
    let mut head = [0; HEAD_BYTES];
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.read_exact(&mut head).expect("a frame that has been sent");
    Frame::decode(&head).unwrap()
}

/// Waits until more than a number of bytes can be received from a stream.
fn lies_in(stream: &Stream, more_than: usize) {
    let begun = Instant::now();
    while ioctl_fionread(&stream.socket).unwrap() <= more_than as u64 {
        assert!(begun.elapsed() < PATIENCE, "it never comes");
        std::thread::yield_now();
    }
}

/// What lies in a socket.
fn drain(socket: &mut TcpStream) -> usize {
    socket.set_nonblocking(true).unwrap();
    let (mut sink, mut all) = (vec![0; 1 << 20], 0);
    while let Ok(got @ 1..) = socket.read(&mut sink) {
        all += got;
    }
    all
}

/// Bytes that a peer is still to be sent of writes in bulk. What was sent may come a little later.
fn unsent(node: &Node, peer: PeerId) -> usize {
    let link = &node.fabric.links[&peer];
    let ops: u64 = link.ops.iter().map(|(_, op)| op.total - op.assigned).sum();
    let chunks: u64 = link.streams[1].chunks.iter().map(Chunk::left).sum();
    (ops + chunks) as usize
}

/// Bytes that a peer's frame in its bulk stream still wants.
fn left(node: &Node, peer: PeerId) -> Option<usize> {
    match &node.fabric.links[&peer].streams[1].reading {
        Reading::Payload { left, .. } => Some(*left as usize),
        _ => None,
    }
}

#[test]
fn little_of_bulk_is_sent_at_once_while_the_latency_lane_is_in_use() {
    const BYTES: u64 = 64 << 20;
    const POLLS: usize = 20;
    let (mut node, clock) = still();
    let (here, memory) = node.region(BYTES as usize);
    let (peer, [mut latency, mut bulk]) = by_hand(&mut node);
    let window = WindowId { slot: 0, generation: 1 };
    let remote = Remote { window, key: RemoteKey { key: 0, base: 0 }, offset: 0 };
    let work = || write(local(here, &memory, 0..BYTES), remote, None);
    assert_eq!(node.post_in(Lane::Latency, peer, SIGNAL).1, Posted::Done);
    assert_eq!(frame(&mut latency), URGENT_SIGNAL);
    node.begin(peer, work());
    let mut before = unsent(&node, peer);
    assert_eq!(before, BYTES as usize, "posting leaves it to the next poll");
    for _ in 0..POLLS {
        assert_eq!(node.post_in(Lane::Latency, peer, SIGNAL).1, Posted::Done);
        // Nothing but the post can have sent it.
        assert_eq!(frame(&mut latency), URGENT_SIGNAL);
        node.poll();
        drain(&mut bulk);
    }
    let sent = before - unsent(&node, peer);
    before -= sent;
    assert!(sent > 0 && sent <= POLLS * LITTLE, "{sent} bytes");
    // Alone it goes in large pieces again, a little later.
    clock.pass(Duration::from_millis(20));
    let most = wait(&mut node, "a large piece", |node| {
        drain(&mut bulk);
        let now = unsent(node, peer);
        let sent = std::mem::replace(&mut before, now).saturating_sub(now);
        (sent > 2 * LITTLE).then_some(sent)
    });
    assert!(most <= 256 << 10, "{most} bytes in one poll");
}

#[test]
fn messages_do_not_cut_bulk_small() {
    const BYTES: u64 = 8 << 20;
    let (mut node, _) = still();
    let (here, memory) = node.region(BYTES as usize);
    let (peer, [mut latency, mut bulk]) = by_hand(&mut node);
    let window = WindowId { slot: 0, generation: 1 };
    let remote = Remote { window, key: RemoteKey { key: 0, base: 0 }, offset: 0 };
    let message = Work::Send { bytes: b"hello", immediate: None };
    assert_eq!(node.post_in(Lane::Latency, peer, message).1, Posted::Done);
    let hello = Frame::Message { payload: 5, immediate: None }.encode();
    latency.write_all(&hello).unwrap();
    latency.write_all(b"hello").unwrap();
    wait(&mut node, "the message", Node::message);
    node.begin(peer, write(local(here, &memory, 0..BYTES), remote, None));
    drain(&mut bulk);
    wait(&mut node, "a large piece", |_| (drain(&mut bulk) > 2 * LITTLE).then_some(()));
}

#[test]
fn signals_are_of_the_lane_of_their_operation() {
    let (mut node, _) = still();
    let (here, memory) = node.region(64);
    let (peer, [mut latency, _bulk]) = by_hand(&mut node);
    let window = WindowId { slot: 0, generation: 1 };
    let remote = Remote { window, key: RemoteKey { key: 0, base: 0 }, offset: 0 };
    for (lane, signal) in [(Lane::Bulk, BULK_SIGNAL), (Lane::Latency, URGENT_SIGNAL)] {
        assert_eq!(node.post_in(lane, peer, SIGNAL).1, Posted::Done);
        assert_eq!(frame(&mut latency), signal);
        let (local, immediate) = (local(here, &memory, 0..0), Some(Immediate(1)));
        let work = Work::Read { local, remote, pages: None, immediate };
        let (op, posted) = node.post_in(lane, peer, work);
        assert_eq!(posted, Posted::Pending);
        let Frame::Read { tag, .. } = frame(&mut latency) else { panic!("no read") };
        let ack = Ack { tag, verdict: Verdict::Done };
        latency.write_all(&Frame::Acks { count: 1 }.encode()).unwrap();
        latency.write_all(&ack.encode()).unwrap();
        let status = wait(&mut node, "the end of the read", |node| node.status(op));
        assert_eq!(status, Status::Done);
        node.poll();
        assert_eq!(frame(&mut latency), signal);
    }
}

#[test]
fn signals_of_bulk_hold_no_bulk_up() {
    const BYTES: usize = 1 << 20;
    let (mut node, _) = still();
    let (here, _memory) = node.region(BYTES);
    let Remote { window, key, .. } = node.grant(here, 0..BYTES as u64, ALL());
    let (peer, [mut latency, mut bulk]) = by_hand(&mut node);
    let place = Place { window, key: key.key, offset: 0, skip: 0, layout: 0 };
    let (total, payload) = (BYTES as u64, BYTES as u32);
    let write = Frame::Write { tag: 1, place, total, payload, immediate: None };
    let writer = std::thread::spawn(move || {
        bulk.write_all(&write.encode()).unwrap();
        bulk.write_all(&pattern(BYTES, 1)).unwrap();
        bulk
    });
    let mut before = BYTES;
    while before > BYTES / 2 {
        latency.write_all(&BULK_SIGNAL.encode()).unwrap();
        let streams = &node.fabric.links[&peer].streams;
        lies_in(&streams[0], 0);
        lies_in(&streams[1], HEAD_BYTES);
        node.poll();
        assert_eq!(node.arrived(), Some(Immediate(1)));
        let now = left(&node, peer).unwrap_or(before);
        assert!(now < before, "bulk waits for the signal");
        before = now;
        assert_eq!(node.fabric.hub.pace.sends(), Pace::default().sends(), "it is cut small");
    }
    drop(node);
    let _ = writer.join();
}

#[test]
fn little_of_bulk_is_received_at_once_while_the_latency_lane_is_in_use() {
    const BYTES: usize = 1 << 20;
    let (mut node, _) = still();
    let (here, _memory) = node.region(BYTES);
    let Remote { window, key, .. } = node.grant(here, 0..BYTES as u64, ALL());
    let (peer, [mut latency, mut bulk]) = by_hand(&mut node);
    let place = Place { window, key: key.key, offset: 0, skip: 0, layout: 0 };
    let (total, payload) = (BYTES as u64, BYTES as u32);
    let frame = Frame::Write { tag: 1, place, total, payload, immediate: None };
    let signal = URGENT_SIGNAL.encode();
    latency.write_all(&signal).unwrap();
    wait(&mut node, "the first signal", Node::arrived);
    let writer = std::thread::spawn(move || {
        bulk.write_all(&frame.encode()).unwrap();
        bulk.write_all(&pattern(BYTES, 1)).unwrap();
        bulk
    });
    let mut before = BYTES;
    while before > BYTES / 2 {
        latency.write_all(&signal).unwrap();
        wait(&mut node, "a signal", |node| {
            let now = left(node, peer).unwrap_or(before);
            assert!(before - now <= LITTLE, "{} bytes in one poll", before - now);
            before = now;
            node.arrived()
        });
    }
    drop(node);
    let _ = writer.join();
}

#[test]
fn an_answer_takes_the_acknowledgement_with_it() {
    const BYTES: u64 = 64;
    let mut pair = Pair::new();
    let (here, near) = pair.a.region(BYTES as usize);
    let (there, far) = pair.b.region(BYTES as usize);
    let (to_b, to_a) = (pair.b.grant(there, 0..BYTES, ALL()), pair.a.grant(here, 0..BYTES, ALL()));
    let ping = write(local(here, &near, 0..BYTES), to_b, Some(1));
    let (op, posted) = pair.a.post_in(Lane::Latency, pair.to_b, ping);
    assert_eq!(posted, Posted::Pending);
    wait(&mut pair.b, "the ping", Node::arrived);
    let pong = write(local(there, &far, 0..BYTES), to_a, Some(2));
    assert_eq!(pair.b.post_in(Lane::Latency, pair.to_a, pong).1, Posted::Pending);
    // The other side is not polled any more: all there is has left with the post.
    wait(&mut pair.a, "the pong", Node::arrived);
    assert_eq!(pair.a.status(op), Some(Status::Done));
}

#[test]
fn all_peers_have_their_turn_though_each_turn_is_short() {
    const PEERS: usize = 3;
    const BYTES: u64 = 16 << 20;
    let mut b = Node::new(Config::new());
    let (there, _far) = b.region(BYTES as usize);
    let remote = b.grant(there, 0..BYTES, ALL());
    let mut nodes: Vec<_> = (0..PEERS)
        .map(|_| {
            let mut node = Node::new(Config::new());
            let (here, memory) = node.region(BYTES as usize);
            let (to_b, to_node) = connect(&mut node, &mut b);
            let op = node.begin(to_b, write(local(here, &memory, 0..BYTES), remote, None));
            (node, memory, to_b, to_node, op)
        })
        .collect();
    let begun = Instant::now();
    let mut ended = [None; PEERS];
    let mut polls = 0;
    while ended.contains(&None) {
        assert!(begun.elapsed() < PATIENCE, "hangs: {ended:?}");
        for ((node, _, to_b, _, op), ended) in nodes.iter_mut().zip(&mut ended) {
            // Everybody's latency lane is in use.
            assert_eq!(node.post_in(Lane::Latency, *to_b, SIGNAL).1, Posted::Done);
            node.poll();
            if node.status(*op).is_some() {
                *ended = Some(polls);
            }
        }
        b.poll();
        b.events.clear();
        polls += 1;
    }
    let (first, last) = (ended.iter().flatten().min(), ended.iter().flatten().max());
    let (first, last) = (*first.unwrap(), *last.unwrap());
    assert!(last <= first + first / 2, "one waits for another: {ended:?}");
}

#[test]
fn all_peers_are_sent_to_though_each_turn_is_short() {
    const PEERS: usize = 3;
    const POLLS: usize = 30;
    const BYTES: u64 = 16 << 20;
    let (mut node, _) = still();
    let (here, memory) = node.region(BYTES as usize);
    let window = WindowId { slot: 0, generation: 1 };
    let remote = Remote { window, key: RemoteKey { key: 0, base: 0 }, offset: 0 };
    let mut peers: Vec<_> = (0..PEERS).map(|_| by_hand(&mut node)).collect();
    assert_eq!(node.post_in(Lane::Latency, peers[0].0, SIGNAL).1, Posted::Done);
    for (peer, _) in &peers {
        node.begin(*peer, write(local(here, &memory, 0..BYTES), remote, None));
    }
    let mut sent = [0; PEERS];
    for _ in 0..POLLS {
        node.poll();
        for ((_, [_, bulk]), sent) in peers.iter_mut().zip(&mut sent) {
            *sent += drain(bulk);
        }
    }
    let all: usize = sent.iter().sum();
    assert!(all <= POLLS * LITTLE, "{all} bytes");
    assert!(sent.iter().all(|one| *one >= all / PEERS / 2), "one waits for another: {sent:?}");
}
