//! Peers in processes of their own: killed, and stopped.

use rustix::process::Signal;

use super::*;
use crate::fabric::kit::{ADDRESS_ENV, Other, told};
use crate::fabric::shm::hazard;

const MODE_ENV: &str = "TRANSHIP_TEST_MODE";
const KILLS: u32 = 60;
const GUARD_BYTES: u64 = 64 << 10;
const WINDOW_BYTES: u64 = 4 << 20;

/// The other process. Does nothing in an ordinary run of the tests.
#[test]
fn other_process() {
    let Ok(address) = std::env::var(ADDRESS_ENV) else { return };
    let mut node = Node::new(Config::new());
    let peer = node.fabric.connect(&address.parse().unwrap());
    let message = loop {
        node.poll();
        if let Some(message) = node.message() {
            break message;
        }
        assert_eq!(node.down(peer), None, "the parent is gone");
    };
    let remote = told(&message);
    let (region, memory) = node.region(WINDOW_BYTES as usize);
    memory.fill(0..WINDOW_BYTES as usize, 1).unwrap();
    if std::env::var(MODE_ENV).as_deref() == Ok("stop") {
        let index = node.fabric.find(peer).unwrap();
        let link = node.fabric.peers[index].link().unwrap();
        // As in the middle of a chunk.
        link.connection.hazard(0).store(hazard::claim(remote.window), Ordering::SeqCst);
        // To this thread: one to the process could be taken by another one first, and this one
        // would run on for a moment.
        // SAFETY: sends a signal, and touches no memory.
        assert_eq!(unsafe { libc::raise(libc::SIGSTOP) }, 0);
        link.connection.hazard(0).store(0, Ordering::SeqCst);
    }
    let mut lens = [8, 4096, 65_536, 100_000, 1 << 20, WINDOW_BYTES].into_iter().cycle();
    loop {
        let len = lens.next().unwrap();
        let (op, answer) = node.post(peer, write(local(region, &memory, 0..len), remote, Some(1)));
        match answer {
            Posted::Refused(_) => break,
            Posted::Pending => {
                while node.status(op).is_none() {
                    node.poll();
                    node.events.retain(|event| matches!(event, Event::Completed { .. }));
                }
            }
            Posted::Done | Posted::Busy => {}
        }
    }
    loop {
        node.poll();
        if node.down(peer).is_some() {
            return;
        }
    }
}

fn spawn(node: &Node, mode: &str) -> Other {
    let test = "fabric::shm::tests::death::other_process";
    Other::start(test, &node.address(), &[(MODE_ENV, mode)])
}

/// A window with guards on both sides.
struct Target {
    remote: Remote,
    region: RegionId,
    memory: Arc<Memory>,
}

impl Target {
    fn new(node: &mut Node) -> Self {
        let (region, memory) = node.region((WINDOW_BYTES + 2 * GUARD_BYTES) as usize);
        memory.fill(0..memory.len(), 0xee).unwrap();
        let remote = node.grant(region, GUARD_BYTES..GUARD_BYTES + WINDOW_BYTES, ALL());
        Self { remote, region, memory }
    }

    fn guards_are_whole(&self) {
        let (guard, end) = (GUARD_BYTES as usize, self.memory.len());
        for range in [0..guard, end - guard..end] {
            assert!(bytes(&self.memory, range).iter().all(|&byte| byte == 0xee));
        }
    }
}

#[test]
fn a_killed_writer_is_noticed_at_any_point() {
    let mut node = Node::new(Config::new());
    let mut writing = 0;
    for round in 0..KILLS {
        let target = Target::new(&mut node);
        let mut child = spawn(&node, "write");
        let peer = wait(&mut node, "the child's call", Node::up);
        let (region, memory) = node.region(8);
        // Killed while it meets us, while it maps, and after some writes.
        let writes = round % 12;
        if round % 6 != 0 {
            node.tell(peer, &target.remote);
            for _ in 0..writes {
                wait(&mut node, "a write", Node::arrived);
            }
            writing += 1;
        }
        // Between the polls anything up to a few megabytes goes by.
        for _ in 0..(round * 7919) % 997 {
            node.poll();
        }
        child.signal(Signal::KILL);
        let reason = wait(&mut node, "the death", |node| node.down(peer));
        assert_eq!(reason, Reason::PeerGone);
        let answer = node.post(peer, write(local(region, &memory, 0..0), target.remote, None)).1;
        assert_eq!(answer, Posted::Refused(Reason::PeerGone));
        child.ended();
        target.guards_are_whole();
        let window = target.remote.window;
        node.fabric.revoke(window);
        wait(&mut node, "the fence", |node| node.revoked(window));
        target.memory.fill(0..target.memory.len(), 0xdd).unwrap();
        node.poll();
        let whole = bytes(&target.memory, 0..target.memory.len());
        assert!(whole.iter().all(|&byte| byte == 0xdd), "the dead write");
        node.fabric.deregister(target.region);
        node.events.clear();
    }
    assert!(writing >= 50);
    assert!(node.fabric.peers.is_empty() && node.fabric.ghosts.is_empty());
}

/// Another process that has stopped itself with a claim on its target.
fn stopped(node: &mut Node) -> (Other, PeerId, Target) {
    let target = Target::new(node);
    let child = spawn(node, "stop");
    let peer = wait(node, "the child's call", Node::up);
    node.tell(peer, &target.remote);
    // It needs no answer of ours before that.
    child.stopped();
    (child, peer, target)
}

#[test]
fn operations_on_a_killed_peer_end_before_it_is_down() {
    let mut node = Node::new(Config::new());
    let (mut child, peer, _target) = stopped(&mut node);
    let message = [0; 60_000];
    while node.post(peer, Work::Send { bytes: &message, immediate: None }).1 != Posted::Busy {}
    child.signal(Signal::KILL);
    assert_eq!(wait(&mut node, "the death", |node| node.down(peer)), Reason::PeerGone);
    child.ended();
}

#[test]
fn a_stopped_peer_holds_the_fence_up_until_it_goes_on_or_dies() {
    for kill in [false, true] {
        let mut node = Node::new(Config::new());
        let (mut child, peer, target) = stopped(&mut node);
        let window = target.remote.window;
        node.fabric.revoke(window);
        for _ in 0..10_000 {
            node.poll();
        }
        assert_eq!(node.revoked(window), None, "fenced while the peer may be copying");
        // An armed owner is woken to look again.
        while !node.fabric.arm() {
            node.poll();
        }
        if kill {
            child.signal(Signal::KILL);
            assert_eq!(wait(&mut node, "the death", |node| node.down(peer)), Reason::PeerGone);
        } else {
            child.signal(Signal::CONT);
        }
        sleep_until(&mut node, PATIENCE, |node| node.revoked(window));
        target.guards_are_whole();
        drop(node);
        child.ended();
    }
}
