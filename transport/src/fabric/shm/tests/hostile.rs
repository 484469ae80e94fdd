//! Peers that hold wrong keys, reach too far, or write nonsense.

use std::sync::atomic::Ordering;

use super::handshake::{call, hello};
use super::*;
use crate::fabric::RemoteKey;
use crate::fabric::shm::connection::Connection;
use crate::fabric::shm::ring::Channel;
use crate::fabric::shm::socket::{Line, Received};

/// A stranger that says hello honestly, its connection, and what the node calls it.
fn stranger(node: &mut Node) -> (Line, Connection, PeerId) {
    let mut line = call(node);
    let (packet, descriptors, connection) = hello();
    line.send(packet, descriptors).unwrap();
    (line, connection, wait(node, "the hello", Node::up))
}

#[test]
fn every_forged_bit_is_refused() {
    let mut pair = Pair::new();
    let (theirs, there) = pair.b.region(8192);
    let (ours, here) = pair.a.region(4096);
    here.fill(0..4096, 1).unwrap();
    let honest = pair.b.grant(theirs, 0..4096, ALL());
    let local = local(ours, &here, 0..64);
    let mut forged = Vec::new();
    for bit in 0..64 {
        let key = RemoteKey { key: honest.key.key ^ 1 << bit, base: 0 };
        forged.push((Remote { key, ..honest }, Reason::Forged));
    }
    for bit in 0..32 {
        let window = WindowId { generation: honest.window.generation ^ 1 << bit, ..honest.window };
        forged.push((Remote { window, ..honest }, Reason::Stale));
        let window = WindowId { slot: honest.window.slot ^ 1 << bit, ..honest.window };
        let reason = if bit < 12 { Reason::Stale } else { Reason::Forged };
        forged.push((Remote { window, ..honest }, reason));
    }
    // Before and after the honest key was used once.
    for round in 0..2 {
        for &(remote, reason) in &forged {
            assert_eq!(pair.run(write(local, remote, Some(1))), Status::Refused(reason));
            let work = Work::Read { local, remote, pages: None, immediate: Some(Immediate(1)) };
            assert_eq!(pair.run(work), Status::Refused(reason));
        }
        pair.b.poll();
        assert_eq!(pair.b.arrived(), None);
        if round == 0 {
            assert_eq!(bytes(&there, 0..8192), vec![0; 8192]);
        }
        assert_eq!(pair.run(write(local, honest, None)), Status::Done);
    }
}

#[test]
fn nothing_outside_of_the_window_is_reached() {
    let mut pair = Pair::new();
    let (theirs, there) = pair.b.region(1 << 20);
    let (ours, here) = pair.a.region(1 << 20);
    here.fill(0..1 << 20, 1).unwrap();
    let window = pair.b.grant(theirs, 4096..8192, ALL());
    for first in [true, false] {
        for (offset, len) in
            [(0, 4097), (4096, 1), (4097, 0), (u64::MAX, 1), (u64::MAX, 0), (0, 1 << 20)]
        {
            let remote = Remote { offset, ..window };
            let local = local(ours, &here, 0..len);
            let refused = Status::Refused(Reason::OutOfBounds);
            assert_eq!(pair.run(write(local, remote, Some(1))), refused, "{offset} {len}");
            assert_eq!(pair.run(read(local, remote)), refused, "{offset} {len}");
        }
        if first {
            assert_eq!(pair.run(write(local(ours, &here, 0..4096), window, None)), Status::Done);
        }
    }
    assert_eq!(bytes(&there, 0..4096), vec![0; 4096]);
    assert_eq!(bytes(&there, 4096..8192), vec![1; 4096]);
    assert!(bytes(&there, 8192..1 << 20).iter().all(|&byte| byte == 0));
    // An end of the window is inside, with nothing.
    let end = Remote { offset: 4096, ..window };
    assert_eq!(pair.run(write(local(ours, &here, 0..0), end, Some(1))), Status::Done);
}

#[test]
fn only_granted_rights_can_be_used() {
    let mut pair = Pair::new();
    let (theirs, there) = pair.b.region(4096);
    let (ours, here) = pair.a.region(4096);
    here.fill(0..4096, 1).unwrap();
    let local = local(ours, &here, 0..8);
    let readable = pair.b.grant(theirs, 0..4096, Access::READ);
    let writable = pair.b.grant(theirs, 0..4096, Access::WRITE);
    let denied = Status::Refused(Reason::Denied);
    for _ in 0..2 {
        assert_eq!(pair.run(write(local, readable, None)), denied);
        assert_eq!(pair.run(read(local, readable)), Status::Done);
        assert_eq!(bytes(&there, 0..8), [0; 8]);
        assert_eq!(pair.run(read(local, writable)), denied);
    }
    // The mapping for reading alone is replaced by one for writing.
    here.fill(0..8, 1).unwrap();
    assert_eq!(pair.run(write(local, writable, None)), Status::Done);
    assert_eq!(bytes(&there, 0..8), [1; 8]);
    assert_eq!(pair.run(read(local, readable)), Status::Done);
    assert_eq!(pair.run(Work::Map { remote: writable }), denied);
}

#[test]
fn local_bytes_have_to_be_in_their_region() {
    let mut pair = Pair::new();
    let (theirs, _there) = pair.b.region(4096);
    let (ours, here) = pair.a.region(4096);
    let remote = pair.b.grant(theirs, 0..4096, ALL());
    let mut local = local(ours, &here, 4000..4096);
    local.len += 1;
    let status = pair.run(write(local, remote, None));
    assert_eq!(status, Status::Refused(Reason::OutOfBounds));
    local.region = RegionId(99);
    assert_eq!(pair.run(write(local, remote, None)), Status::Refused(Reason::Closed));
}

#[test]
fn wrong_grants_are_refused() {
    let mut node = Node::new(Config::new());
    let (region, memory) = node.region(8192);
    let window = WindowId { slot: 0, generation: 0 };
    let good = Grant { window, region, offset: 0, len: 4096, access: ALL() };
    let wrong = [
        Grant { len: 8193, ..good },
        Grant { offset: u64::MAX, ..good },
        Grant { region: RegionId(77), ..good },
        Grant { window: WindowId { slot: 4096, generation: 0 }, ..good },
        Grant { access: Access::MAP, ..good },
    ];
    for grant in wrong {
        node.fabric.grant(&grant).unwrap_err();
    }
    node.fabric.grant(&good).unwrap();
    node.fabric.grant(&good).unwrap_err();
    drop(memory);
}

#[test]
fn nonsense_in_the_rings_ends_the_connection() {
    let mut node = Node::new(Config::new());
    let mut other = Node::new(Config::new());
    let (to_node, _) = connect(&mut other, &mut node);
    for nonsense in 0..4 {
        let (line, connection, peer) = stranger(&mut node);
        let [messages, immediates] = connection.outgoing();
        match nonsense {
            // An unknown kind.
            0 => {
                messages.words()[0].store(0x55, Ordering::Relaxed);
                messages.tail().store(1, Ordering::Release);
            }
            // A message longer than what was published.
            1 => {
                messages.words()[0].store(1 | 0xff_ffff << 8, Ordering::Relaxed);
                messages.tail().store(2, Ordering::Release);
            }
            // More than the ring holds.
            2 => immediates.tail().store(u64::MAX, Ordering::Release),
            // A consumer that has taken what was never there.
            _ => {
                let [theirs, _] = connection.incoming();
                theirs.head().store(1 << 40, Ordering::Release);
                let message = vec![0; 60_000];
                let answers = [0; 8]
                    .map(|_| node.post(peer, Work::Send { bytes: &message, immediate: None }).1);
                assert!(answers.contains(&Posted::Refused(Reason::Failed)), "{answers:?}");
            }
        }
        assert_eq!(wait(&mut node, "the end", |node| node.down(peer)), Reason::Failed);
        // It may still be copying: it is remembered until it hangs up.
        assert_eq!(node.fabric.ghosts.len(), 1);
        while let Ok(Received::Packet(..)) = line.receive() {}
        drop(line);
        wait(&mut node, "its hanging up", |it| it.fabric.ghosts.is_empty().then_some(()));
    }
    let work = Work::Send { bytes: b"still here", immediate: None };
    assert_eq!(other.post(to_node, work).1, Posted::Done);
    until(&mut other, &mut node, "a message", |_, node| node.message());
}

#[test]
fn a_claim_of_a_lost_peer_counts_until_it_has_hung_up() {
    let mut node = Node::new(Config::new());
    let (region, _memory) = node.region(4096);
    let remote = node.grant(region, 0..4096, ALL());
    let (line, connection, peer) = stranger(&mut node);
    let claim = crate::fabric::shm::hazard::claim(remote.window);
    connection.hazard(5).store(claim, Ordering::SeqCst);
    node.fabric.disconnect(peer);
    node.fabric.revoke(remote.window);
    for _ in 0..1000 {
        node.poll();
    }
    assert_eq!(node.down(peer), Some(Reason::Closed));
    assert_eq!(node.revoked(remote.window), None);
    drop(line);
    wait(&mut node, "the fence", |node| node.revoked(remote.window));
}
