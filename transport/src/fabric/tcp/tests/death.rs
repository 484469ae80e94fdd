//! Peers in processes of their own: killed, and stopped.

use rustix::process::Signal;

use super::*;
use crate::fabric::kit::{ADDRESS_ENV, Other, told};

const WINDOW_BYTES: u64 = 4 << 20;

fn lively() -> Config {
    Config::new().heartbeat(Duration::from_millis(50), 4).handshake_timeout(Duration::from_secs(1))
}

/// The other process: lets itself be written to. Does nothing in an ordinary run of the tests.
#[test]
fn other_process() {
    let Ok(address) = std::env::var(ADDRESS_ENV) else { return };
    let mut node = Node::new(lively());
    let peer = node.fabric.connect(&address.parse().unwrap());
    wait(&mut node, "the parent", Node::up);
    let (region, _memory) = node.region(WINDOW_BYTES as usize);
    let remote = node.grant(region, 0..WINDOW_BYTES, ALL());
    node.tell(peer, &remote);
    // For as long as the parent wants.
    loop {
        node.poll();
        node.events.clear();
    }
}

/// Stops it, for good.
fn stop(other: &Other) {
    other.signal(Signal::STOP);
    other.stopped();
}

/// Another process, what the node calls it, and its window.
fn spawn(node: &mut Node) -> (Other, PeerId, Remote) {
    let other = Other::start("fabric::tcp::tests::death::other_process", &node.address(), &[]);
    let peer = wait(node, "the child's call", Node::up);
    let message = wait(node, "its window", Node::message);
    (other, peer, told(&message))
}

#[test]
fn a_peer_killed_in_a_write_is_noticed_and_proven() {
    let mut node = Node::new(lively());
    let (region, memory) = node.region(WINDOW_BYTES as usize);
    for round in 0..20 {
        let (other, peer, remote) = spawn(&mut node);
        let whole = local(region, &memory, 0..WINDOW_BYTES);
        let ops: Vec<_> = (0..16)
            .map(|at| {
                let work =
                    if at % 4 == 3 { read(whole, remote) } else { write(whole, remote, None) };
                node.begin(peer, work)
            })
            .collect();
        // Between none and all of them go by.
        for _ in 0..round * 20 {
            node.poll();
        }
        other.signal(Signal::KILL);
        assert_eq!(wait(&mut node, "the death", |node| node.down(peer)), Reason::PeerGone);
        let late = node.post(peer, write(whole, remote, None)).1;
        assert_eq!(late, Posted::Refused(Reason::PeerGone));
        for op in ops {
            let status = wait(&mut node, "the proof", |node| node.status(op));
            let fine = matches!(
                status,
                Status::Done
                    | Status::Stopped(Reason::PeerGone)
                    | Status::Refused(Reason::PeerGone)
            );
            assert!(fine, "{status:?}");
        }
        assert!(node.fabric.links.is_empty() && node.fabric.suspects.is_empty());
    }
}

#[test]
fn what_a_stopped_peer_may_still_land_is_proven_when_it_goes_on() {
    let mut node = Node::new(lively());
    let (region, memory) = node.region(WINDOW_BYTES as usize);
    let (other, peer, remote) = spawn(&mut node);
    let whole = local(region, &memory, 0..WINDOW_BYTES);
    stop(&other);
    let writes: Vec<_> = (0..8).map(|_| node.begin(peer, write(whole, remote, None))).collect();
    let reads: Vec<_> = (0..2).map(|_| node.begin(peer, read(whole, remote))).collect();
    node.poll();
    for op in reads.iter().chain(&writes) {
        node.fabric.cancel(*op, Reason::Deadline);
    }
    node.poll();
    // Nobody but us stores what is read; and what never left needs no proof.
    for op in reads {
        assert_eq!(node.status(op), Some(Status::Refused(Reason::Deadline)));
    }
    let mut open = writes;
    open.retain(|op| node.status(*op).is_none());
    assert!(!open.is_empty() && open.len() < 8, "{open:?}");
    assert_eq!(wait(&mut node, "the silence", |node| node.down(peer)), Reason::PeerGone);
    // It is asked, over and over, and says nothing.
    for _ in 0..2 {
        wait(&mut node, "a question", |it| it.fabric.suspects.first().is_asked().then_some(()));
        wait(&mut node, "no answer", |it| (!it.fabric.suspects.first().is_asked()).then_some(()));
        assert!(open.iter().all(|op| node.status(*op).is_none()), "nothing is proven");
    }
    other.signal(Signal::CONT);
    for op in open {
        let status = wait(&mut node, "the proof", |node| node.status(op));
        assert_eq!(status, Status::Stopped(Reason::PeerGone));
    }
    // It is the same peer as before, and can be dialled by it again.
    assert!(node.fabric.suspects.is_empty());
}

#[test]
fn a_short_stop_is_no_death() {
    let mut node = Node::new(Config::new());
    let (region, memory) = node.region(WINDOW_BYTES as usize);
    let (other, peer, remote) = spawn(&mut node);
    stop(&other);
    let op = node.begin(peer, write(local(region, &memory, 0..WINDOW_BYTES), remote, None));
    for _ in 0..100 {
        node.poll();
    }
    assert_eq!(node.status(op), None);
    other.signal(Signal::CONT);
    assert_eq!(wait(&mut node, "the end", |node| node.status(op)), Status::Done);
    assert_eq!(node.down(peer), None);
}
