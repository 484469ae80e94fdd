//! Strangers at the door: whatever they say or do not say, others are served.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use proptest::prelude::*;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::*;
use crate::fabric::shm::connection::{Connection, RING_BYTES_MIN};
use crate::fabric::shm::control::Ours;
use crate::fabric::shm::doorbell;
use crate::fabric::shm::socket::{self, Line, Received};
use crate::fabric::shm::wire::{Packet, VERSION};

/// Calls a node without the fabric.
pub(super) fn call(node: &Node) -> Line {
    Line::new(socket::dial(&socket::address(&node.address().endpoint).unwrap()).unwrap())
}

/// A hello as an honest caller says it, and its connection.
pub(super) fn hello() -> (Packet, Vec<OwnedFd>, Connection) {
    let control = Ours::create().unwrap();
    let (connection, memfd) = Connection::create(RING_BYTES_MIN).unwrap();
    let control = control.memfd().try_clone_to_owned().unwrap();
    let descriptors = vec![control, memfd, doorbell::new().unwrap()];
    let packet =
        Packet::Hello { engine: EngineId::random(), windows: 4096, ring_bytes: RING_BYTES_MIN };
    (packet, descriptors, connection)
}

/// What the node answers, while it is polled; `None` is the end.
fn answer(node: &mut Node, line: &Line) -> Option<Packet> {
    wait(node, "an answer", |_| match line.receive() {
        Ok(Received::Packet(bytes, _)) => Some(Some(Packet::decode(&bytes).unwrap())),
        Ok(Received::End) => Some(None),
        Ok(Received::Nothing) => None,
        Err(error) => panic!("{error}"),
    })
}

fn send_raw(line: &Line, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(line, bytes, rustix::net::SendFlags::NOSIGNAL)?)
}

/// That a node still serves others, and never reported a stranger.
fn serves(node: &mut Node) {
    assert!(node.events.is_empty(), "{:?}", node.events);
    let mut other = Node::new(Config::new());
    let (to_node, to_other) = connect(&mut other, node);
    other.fabric.disconnect(to_node);
    until(&mut other, node, "the end", |_, node| node.down(to_other));
}

#[test]
fn an_honest_hello_is_welcomed() {
    let mut node = Node::new(Config::new());
    let mut line = call(&node);
    let (packet, descriptors, _connection) = hello();
    line.send(packet, descriptors).unwrap();
    assert!(matches!(answer(&mut node, &line), Some(Packet::Welcome { windows: 4096, .. })));
    let peer = node.up().unwrap();
    drop(line);
    wait(&mut node, "the end", |node| node.down(peer));
}

#[test]
fn another_version_is_told_so() {
    let mut node = Node::new(Config::new());
    let line = call(&node);
    let mut bytes = hello().0.encode();
    bytes[4..6].copy_from_slice(&(VERSION + 1).to_le_bytes());
    send_raw(&line, &bytes).unwrap();
    let reject = Packet::Reject { reason: Reason::Version };
    assert_eq!(answer(&mut node, &line), Some(reject));
    assert_eq!(answer(&mut node, &line), None);
    serves(&mut node);
}

/// A listener that answers a dialling node with these bytes.
fn answered_with(bytes: &[u8]) -> Reason {
    let endpoint = format!("@tranship-test-{}", EngineId::random());
    let listener = socket::Listener::open(&endpoint).unwrap();
    let mut node = Node::new(Config::new());
    let peer = node.fabric.connect(&shm(endpoint));
    let line = Line::new(listener.accept().unwrap());
    send_raw(&line, bytes).unwrap();
    wait(&mut node, "the end", |node| node.down(peer))
}

#[test]
fn a_dialler_hears_what_was_wrong() {
    let reject = Packet::Reject { reason: Reason::Version };
    let mut of_another_version = reject.encode();
    of_another_version[4] = 77;
    assert_eq!(answered_with(&of_another_version), Reason::Version);
    let mut welcome = Packet::Welcome { engine: EngineId(1), windows: 1 }.encode();
    assert_eq!(answered_with(&welcome), Reason::Failed);
    welcome[4] = 77;
    assert_eq!(answered_with(&welcome), Reason::Version);
    assert_eq!(answered_with(b"HTTP/1.1 400 Bad Request"), Reason::Failed);
}

#[test]
fn wrong_descriptors_are_refused() {
    let unsealed = || {
        let memfd = memfd_create("test", MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&memfd, 64 << 20).unwrap();
        memfd
    };
    let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let mut node = Node::new(Config::new());
    for wrong in 0..7 {
        let (mut packet, mut descriptors, _connection) = hello();
        match wrong {
            0 => descriptors.clear(),
            1 => drop(descriptors.pop()),
            2 => descriptors[0] = unsealed(),
            3 => descriptors[1] = unsealed(),
            4 => descriptors[2] = null(),
            5 => descriptors.swap(0, 1),
            _ => {
                if let Packet::Hello { windows, ring_bytes, .. } = &mut packet {
                    (*windows, *ring_bytes) = (u32::MAX, u64::MAX);
                }
            }
        }
        let mut line = call(&node);
        line.send(packet, descriptors).unwrap();
        let reject = Packet::Reject { reason: Reason::Failed };
        assert_eq!(answer(&mut node, &line), Some(reject), "wrong {wrong}");
        assert_eq!(answer(&mut node, &line), None);
    }
    serves(&mut node);
}

#[test]
fn the_silent_are_dropped_in_time() {
    let clock = Arc::new(Hands::default());
    let timeout = Duration::from_secs(3);
    let config = Config::new().handshake_timeout(timeout);
    let mut node = Node::with_clock(config, Arc::clone(&clock) as Arc<dyn Clock>);
    let silent = call(&node);
    node.poll();
    assert_eq!(node.fabric.peers.len(), 1);
    clock.turn(timeout - Duration::from_nanos(1));
    node.poll();
    assert!(matches!(silent.receive(), Ok(Received::Nothing)));
    clock.turn(Duration::from_nanos(1));
    node.poll();
    assert!(matches!(silent.receive(), Ok(Received::End)));
    assert!(node.events.is_empty());
    // A dialler is as impatient with a listener that never answers.
    let endpoint = format!("@tranship-test-{}", EngineId::random());
    let _listener = socket::Listener::open(&endpoint).unwrap();
    let peer = node.fabric.connect(&shm(endpoint));
    clock.turn(timeout);
    node.poll();
    assert_eq!(node.down(peer), Some(Reason::Unreachable));
}

#[test]
fn more_callers_than_allowed_are_turned_away() {
    let mut node = Node::new(Config::new().connections_max(1));
    let first = call(&node);
    let second = call(&node);
    assert_eq!(answer(&mut node, &second), Some(Packet::Reject { reason: Reason::Full }));
    assert_eq!(answer(&mut node, &second), None);
    assert!(matches!(first.receive(), Ok(Received::Nothing)));
}

#[test]
fn nobody_there_is_unreachable() {
    let mut node = Node::new(Config::new());
    let addresses =
        [shm("@tranship-nobody"), shm("/nonexistent/socket"), Address::new(Kind::Sim, "1")];
    for address in addresses {
        let peer = node.fabric.connect(&address);
        node.poll();
        assert_eq!(node.down(peer), Some(Reason::Unreachable), "{address}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn random_bytes_do_no_harm(
        bytes in prop::collection::vec(any::<u8>(), 1..300),
        honest: bool,
        cut in 1..64usize,
    ) {
        let mut node = Node::new(Config::new());
        let line = call(&node);
        let hello = hello().0.encode();
        send_raw(&line, if honest { &hello[..cut] } else { &bytes }).unwrap();
        // It says what is wrong and hangs up; it never welcomes.
        let rejected = matches!(answer(&mut node, &line), Some(Packet::Reject { .. }));
        prop_assert!(rejected);
        prop_assert_eq!(answer(&mut node, &line), None);
        serves(&mut node);
    }

    #[test]
    fn random_packets_of_a_connected_peer_do_no_harm(
        packets in prop::collection::vec((0..12u16, any::<[u8; 56]>()), 1..20),
    ) {
        let mut node = Node::new(Config::new());
        let mut line = call(&node);
        let (packet, descriptors, _connection) = hello();
        line.send(packet, descriptors).unwrap();
        let welcomed = matches!(answer(&mut node, &line), Some(Packet::Welcome { .. }));
        prop_assert!(welcomed);
        for (kind, body) in packets {
            let mut bytes = Packet::Bye.encode();
            bytes[6..8].copy_from_slice(&kind.to_le_bytes());
            bytes[8..].copy_from_slice(&body);
            if send_raw(&line, &bytes).is_err() {
                break;
            }
            node.poll();
        }
        drop(line);
        let peer = node.up().unwrap();
        wait(&mut node, "the end", |node| node.down(peer));
        serves(&mut node);
    }
}

#[test]
fn descriptors_of_strangers_are_closed() {
    let mut node = Node::new(Config::new());
    let (read, write) = rustix::pipe::pipe().unwrap();
    let mut line = call(&node);
    line.send(Packet::Bye, vec![write]).unwrap();
    answer(&mut node, &line);
    let mut end = [rustix::event::PollFd::new(&read, rustix::event::PollFlags::IN)];
    // The only writing end was sent: a hang-up shows that the node has closed it.
    assert_eq!(rustix::event::poll(&mut end, None), Ok(1));
    let _ = read.as_fd();
}
