//! Peers in processes of their own: killed, and stopped.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::*;
use crate::fabric::RemoteKey;
use crate::fabric::shm::hazard;

const ADDRESS_ENV: &str = "TRANSHIP_TEST_ADDRESS";
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
    let word = |at: usize| u64::from_le_bytes(message[at..at + 8].try_into().unwrap());
    let window = WindowId { slot: word(0) as u32, generation: word(8) as u32 };
    let remote = Remote { window, key: RemoteKey { key: word(16), base: 0 }, offset: 0 };
    let (region, memory) = node.region(WINDOW_BYTES as usize);
    memory.fill(0..WINDOW_BYTES as usize, 1).unwrap();
    if std::env::var(MODE_ENV).as_deref() == Ok("stop") {
        let index = node.fabric.find(peer).unwrap();
        let link = node.fabric.peers[index].link().unwrap();
        // As in the middle of a chunk.
        link.connection.hazard(0).store(hazard::claim(window), Ordering::SeqCst);
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

/// The other process, which does not outlive a test that fails.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl std::ops::Deref for Other {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl std::ops::DerefMut for Other {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

fn spawn(node: &Node, mode: &str) -> Other {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "fabric::shm::tests::death::other_process", "--test-threads=1"])
        .env(ADDRESS_ENV, node.address().to_string())
        .env(MODE_ENV, mode)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Other(child)
}

fn wait<T>(node: &mut Node, what: &str, mut done: impl FnMut(&mut Node) -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        node.poll();
        if let Some(result) = done(node) {
            return result;
        }
        assert!(start.elapsed() < PATIENCE, "hangs: {what}; reports {:?}", node.events);
    }
}

/// A window with guards on both sides, told to the other process once it is there.
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

    fn tell(&self, node: &mut Node, peer: PeerId) {
        let Remote { window, key, .. } = self.remote;
        let message = [u64::from(window.slot), u64::from(window.generation), key.key]
            .map(u64::to_le_bytes)
            .concat();
        let work = Work::Send { bytes: &message, immediate: None };
        assert_eq!(node.post(peer, work).1, Posted::Done);
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
            target.tell(&mut node, peer);
            for _ in 0..writes {
                wait(&mut node, "a write", Node::arrived);
            }
            writing += 1;
        }
        // Between the polls anything up to a few megabytes goes by.
        for _ in 0..(round * 7919) % 997 {
            node.poll();
        }
        child.kill().unwrap();
        let reason = wait(&mut node, "the death", |node| node.down(peer));
        assert_eq!(reason, Reason::PeerGone);
        let answer = node.post(peer, write(local(region, &memory, 0..0), target.remote, None)).1;
        assert_eq!(answer, Posted::Refused(Reason::PeerGone));
        child.wait().unwrap();
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

#[test]
fn operations_on_a_killed_peer_end_before_it_is_down() {
    let mut node = Node::new(Config::new());
    let target = Target::new(&mut node);
    let mut child = spawn(&node, "stop");
    let peer = wait(&mut node, "the child's call", Node::up);
    target.tell(&mut node, peer);
    stopped(&child);
    let message = [0; 60_000];
    while node.post(peer, Work::Send { bytes: &message, immediate: None }).1 != Posted::Busy {}
    child.kill().unwrap();
    assert_eq!(wait(&mut node, "the death", |node| node.down(peer)), Reason::PeerGone);
    child.wait().unwrap();
}

/// Waits until the child has stopped itself.
fn stopped(child: &Child) {
    let pid = Pid::from_raw(child.id() as i32).unwrap();
    let (_, status) = waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().unwrap();
    assert!(status.stopped());
}

#[test]
fn a_stopped_peer_holds_the_fence_up_until_it_goes_on_or_dies() {
    for kill in [false, true] {
        let mut node = Node::new(Config::new());
        let target = Target::new(&mut node);
        let mut child = spawn(&node, "stop");
        let peer = wait(&mut node, "the child's call", Node::up);
        target.tell(&mut node, peer);
        // It stops with a claim on the window. It needs no answer of ours before.
        stopped(&child);
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
            child.kill().unwrap();
            assert_eq!(wait(&mut node, "the death", |node| node.down(peer)), Reason::PeerGone);
        } else {
            let pid = Pid::from_raw(child.id() as i32).unwrap();
            kill_process(pid, Signal::CONT).unwrap();
        }
        let patience = rustix::event::Timespec { tv_sec: 60, tv_nsec: 0 };
        let start = Instant::now();
        while node.revoked(window).is_none() {
            assert!(start.elapsed() < PATIENCE);
            if node.fabric.arm() {
                let fd = node.fabric.wait_fd().unwrap();
                let mut wanted = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
                assert_eq!(rustix::event::poll(&mut wanted, Some(&patience)), Ok(1));
            }
            node.poll();
        }
        target.guards_are_whole();
        drop(node);
        child.wait().unwrap();
    }
}
