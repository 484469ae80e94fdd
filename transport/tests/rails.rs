//! Rails that come and go, on simulated NICs: no byte is lost, no immediate comes twice, and nothing
//! lands where a fence was proven.

use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use tranship_transport::fabric::rdma::sim::{Config, Fault, Net};
use tranship_transport::{
    Access, Counter, Engine, HostMemory, Incoming, Outcome, PathState, Reason, Region,
    RemoteWindow, Transfer, Window,
};

const AMPLE: Duration = Duration::from_secs(20);

/// A writer with some rails and a target with others.
struct Pair {
    net: Net,
    a: Engine,
    b: Engine,
    /// The ports of the writer and of the target.
    ports: [Vec<usize>; 2],
    source: Region,
    target: Region,
}

impl Pair {
    fn new(seed: u64, rails: [&[bool]; 2], bytes: usize) -> Self {
        let net = Net::new(seed);
        let build = |rails: &[bool]| {
            let config = Config::new(&net).stripe_bytes(16 << 10);
            let config = rails.iter().fold(config, |config, ordered| config.rail(*ordered));
            let engine = Engine::builder().fabric(config.clone()).build().unwrap();
            (engine, config.ports())
        };
        let ((a, of_a), (b, of_b)) = (build(rails[0]), build(rails[1]));
        let source = a.alloc(HostMemory::new(bytes)).unwrap();
        let target = b.alloc(HostMemory::new(bytes)).unwrap();
        Self { net, a, b, ports: [of_a, of_b], source, target }
    }

    fn offer(&self) -> (Window, RemoteWindow) {
        let whole = 0..self.target.len();
        let window = self.target.window_with(whole, Access::WRITE | Access::READ).unwrap();
        let remote = self.a.open(&window.descriptor()).unwrap();
        (window, remote)
    }

    fn fill(&self, seed: u64) -> Vec<u8> {
        let mut bytes = vec![0; self.source.len() as usize];
        Pcg64Mcg::seed_from_u64(seed).fill_bytes(&mut bytes);
        self.source.memory().write_at(0, &bytes).unwrap();
        bytes
    }

    fn landed(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.target.len() as usize];
        self.target.memory().read_at(0, &mut bytes).unwrap();
        bytes
    }

    /// Writes everything in parts that each count.
    fn write(&self, to: &RemoteWindow, part: u64, counter: &Counter) -> Vec<Transfer> {
        (0..self.source.len())
            .step_by(part as usize)
            .map(|at| {
                let range = at..(at + part).min(self.source.len());
                self.a
                    .write(self.source.slice(range.clone()).unwrap(), to.slice(range).unwrap())
                    .immediate(counter.slot())
                    .deadline(AMPLE)
                    .submit()
                    .unwrap()
            })
            .collect()
    }

    fn carried(&self) -> Vec<u64> {
        self.ports[0].iter().map(|port| self.net.carried(*port)).collect()
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(60), "never came: {what}");
        std::thread::yield_now();
    }
}

fn all_done(sent: &[Transfer]) {
    for (at, transfer) in sent.iter().enumerate() {
        assert_eq!(transfer.wait(), Outcome::Done, "transfer {at}");
    }
}

/// "Unequal rail counts work", and all rails of both sides carry something.
#[test]
fn every_rail_carries_its_part() {
    for rails in [[&[true; 3][..], &[true; 1]], [&[true; 1], &[true; 4]], [&[true; 2], &[true; 2]]]
    {
        let pair = Pair::new(1, rails, 4 << 20);
        let (_window, to) = pair.offer();
        let counter = pair.b.counter().unwrap();
        let bytes = pair.fill(1);
        let mut writes = 0;
        // Paths come up one by one.
        until("traffic on all rails", || {
            all_done(&pair.write(&to, 1 << 20, &counter));
            writes += 4;
            pair.carried().iter().all(|bytes| *bytes > 0)
        });
        assert!(pair.landed() == bytes, "{rails:?}");
        assert_eq!(counter.wait(writes, AMPLE).unwrap(), writes);
        assert_eq!(pair.carried().iter().sum::<u64>(), writes << 20, "nothing twice: {rails:?}");
    }
}

/// "A dead rail's work moves to the others": without losing a byte, and without an immediate too
/// many or too few.
#[test]
fn the_work_of_a_dead_rail_moves_to_the_others() {
    for seed in 0..20 {
        let fault = if seed % 2 == 0 { Fault::Cut } else { Fault::Down };
        let pair = Pair::new(seed, [&[true; 2], &[true; 2]], 2 << 20);
        let (_window, to) = pair.offer();
        let counter = pair.b.counter().unwrap();
        let bytes = pair.fill(seed);
        let sent = pair.write(&to, 50_000, &counter);
        let victim = pair.ports[seed as usize / 2 % 2][0];
        until("some traffic", || pair.carried().iter().sum::<u64>() > seed * 20_000);
        pair.net.set(victim, Some(fault));
        all_done(&sent);
        assert!(pair.landed() == bytes, "seed {seed}");
        let parts = sent.len() as u64;
        assert_eq!(counter.wait(parts, AMPLE).unwrap(), parts);
        // The next go without it, and counts show none too many of before.
        all_done(&pair.write(&to, 50_000, &counter));
        assert_eq!(counter.wait(2 * parts, AMPLE).unwrap(), 2 * parts, "seed {seed}");
    }
}

/// "Rejoin when a rail returns."
#[test]
fn a_rail_that_returns_is_used_again() {
    let pair = Pair::new(7, [&[true; 2], &[true; 2]], 1 << 20);
    let (_window, to) = pair.offer();
    let counter = pair.b.counter().unwrap();
    all_done(&pair.write(&to, 1 << 16, &counter));
    for victim in [pair.ports[0][1], pair.ports[1][1]] {
        pair.net.set(victim, Some(Fault::Down));
        all_done(&pair.write(&to, 1 << 16, &counter));
        let before = pair.carried()[1];
        pair.net.set(victim, None);
        until("traffic on the rail that returned", || {
            all_done(&pair.write(&to, 1 << 16, &counter));
            pair.carried()[1] > before
        });
    }
}

/// "RDMA up → TCP fallback announced, and back": with all rails dead payload goes through the
/// streams, and through rails again when there are some.
#[test]
fn without_rails_payload_goes_over_tcp_and_back() {
    for seed in 0..6 {
        let pair = Pair::new(seed, [&[true; 2], &[true; 1]], 1 << 20);
        let (_window, to) = pair.offer();
        let counter = pair.b.counter().unwrap();
        let bytes = pair.fill(seed);
        let sent = pair.write(&to, 40_000, &counter);
        until("some traffic", || pair.carried().iter().sum::<u64>() > seed * 30_000);
        pair.net.set(pair.ports[1][0], Some(Fault::Cut));
        all_done(&sent);
        assert!(pair.landed() == bytes, "seed {seed}");
        let parts = sent.len() as u64;
        assert_eq!(counter.wait(parts, AMPLE).unwrap(), parts, "seed {seed}");
        // A path that was not in use is found broken by the first who use it.
        all_done(&pair.write(&to, 10_000, &counter));
        all_done(&pair.write(&to, 40_000, &counter));
        let before = pair.carried();
        let bytes = pair.fill(seed + 100);
        all_done(&pair.write(&to, 40_000, &counter));
        assert!(pair.landed() == bytes);
        assert_eq!(pair.carried(), before, "there is no rail");
        pair.net.set(pair.ports[1][0], None);
        until("traffic on a rail", || {
            all_done(&pair.write(&to, 40_000, &counter));
            pair.carried() > before
        });
    }
}

/// "A page may be reused only after an outcome that proves no late write can land in it": the writer's
/// NIC holds what it was given, whoever owns the window takes it back, and it never lands.
#[test]
fn a_writer_that_is_stuck_is_fenced() {
    let pair = Pair::new(3, [&[true; 2], &[true; 1]], 1 << 20);
    let (window, to) = pair.offer();
    let counter = pair.b.counter().unwrap();
    all_done(&pair.write(&to, 1 << 18, &counter));
    pair.ports[0].iter().for_each(|port| pair.net.set(*port, Some(Fault::Stuck)));
    let late = pair.write(&to, 1 << 18, &counter);
    window.revoke_within(AMPLE).unwrap();
    pair.target.memory().fill(0..1 << 20, 1).unwrap();
    pair.ports[0].iter().for_each(|port| pair.net.set(*port, None));
    for transfer in &late {
        let outcome = transfer.wait();
        assert!(outcome.pages_are_free() && !outcome.is_done(), "{outcome}");
    }
    assert!(pair.landed().iter().all(|byte| *byte == 1), "a late write landed");
    // The channels that were taken away come back.
    let (_window, to) = pair.offer();
    until("a path", || {
        let before = pair.carried();
        all_done(&pair.write(&to, 1 << 18, &counter));
        pair.carried() > before
    });
}

/// A write that is refused does not count for one that flies: the window is not let go of before that.
#[test]
fn a_refused_write_does_not_end_anothers_use_of_the_window() {
    let pair = Pair::new(1, [&[true], &[true]], 1 << 20);
    let (_other, to) = pair.offer();
    let counter = pair.b.counter().unwrap();
    all_done(&pair.write(&to, 1 << 18, &counter));
    pair.net.set(pair.ports[0][0], Some(Fault::Stuck));
    let window = pair.target.window(0..1 << 19).unwrap();
    let mut longer = window.descriptor();
    longer.len = 1 << 20;
    let to = pair.a.open(&longer).unwrap();
    // Both wait until the owner says what may be done.
    let write = |range: std::ops::Range<u64>| {
        let from = pair.source.slice(range.clone()).unwrap();
        pair.a.write(from, to.slice(range).unwrap()).deadline(AMPLE).submit().unwrap()
    };
    let (right, wrong) = (write(0..1 << 19), write(0..1 << 20));
    assert_eq!(wrong.wait(), Outcome::Rejected(Reason::OutOfBounds));
    window.revoke_within(AMPLE).unwrap();
    // Not by the writer's word, which it cannot give, but by taking its channels away.
    until("the end of the channels", || pair.net.census() == 0);
    pair.net.set(pair.ports[0][0], None);
    let outcome = right.wait();
    assert!(outcome.pages_are_free() && !outcome.is_done(), "{outcome}");
}

/// A rail that keeps no order cannot tell which immediates came through: what was under way ends as
/// stopped, never twice, and nothing hangs.
#[test]
fn without_order_nothing_is_announced_twice() {
    for seed in 0..12 {
        let pair = Pair::new(seed, [&[false; 2], &[false; 2]], 1 << 20);
        let (_window, to) = pair.offer();
        let counter = pair.b.counter().unwrap();
        let sent = pair.write(&to, 10_000, &counter);
        until("some traffic", || pair.carried().iter().sum::<u64>() > seed * 40_000);
        pair.net.set(pair.ports[0][0], Some(Fault::Cut));
        let outcomes: Vec<_> = sent.iter().map(Transfer::wait).collect();
        let done = outcomes.iter().filter(|it| it.is_done()).count() as u64;
        assert!(outcomes.iter().all(|it| it.pages_are_free()), "{outcomes:?}");
        let counted = counter.wait(done, AMPLE).unwrap();
        assert!(counted <= sent.len() as u64, "{counted} of {}", sent.len());
    }
}

/// Messages go over rails where they fit, and through the streams where they do not or no rail is left:
/// each comes once, in its turn.
#[test]
fn messages_keep_their_order_whatever_becomes_of_the_rails() {
    for seed in 0..12 {
        let mut dice = Pcg64Mcg::seed_from_u64(seed);
        let pair = Pair::new(seed, [&[seed % 2 == 0; 2], &[seed % 2 == 0; 2]], 4096);
        let peer = pair.a.connect(&pair.b.addresses()[0], AMPLE).unwrap();
        let ports: Vec<usize> = pair.ports.concat();
        let (mut sent, mut got) = (Vec::new(), 0u64);
        let send = |number: u64, len: u64| {
            let mut bytes = number.to_le_bytes().to_vec();
            bytes.resize(8 + len as usize, number as u8);
            pair.a.send(peer, bytes).deadline(AMPLE).submit().unwrap()
        };
        let take = |got: &mut u64, wait: Duration| match pair.b.recv(wait) {
            Some(Incoming::Message { bytes, .. }) => {
                assert_eq!(bytes[..8], got.to_le_bytes(), "seed {seed}: message {got}");
                assert!(bytes[8..].iter().all(|byte| *byte == *got as u8));
                *got += 1;
                true
            }
            Some(_) => true,
            None => false,
        };
        until("a message on a rail", || {
            sent.push(send(sent.len() as u64, 50));
            while got < sent.len() as u64 {
                take(&mut got, AMPLE);
            }
            pair.carried().iter().any(|bytes| *bytes > 0)
        });
        for _ in 0..40 {
            for _ in 0..dice.next_u64() % 60 {
                while sent.len() as u64 - got > 300 {
                    take(&mut got, AMPLE);
                }
                // Two of three fit into what a rail takes.
                sent.push(send(sent.len() as u64, dice.next_u64() % 1500));
            }
            let port = ports[dice.next_u64() as usize % ports.len()];
            let fault = match dice.next_u64() % 4 {
                0 => Some(Fault::Cut),
                1 => Some(Fault::Down),
                _ => None,
            };
            pair.net.set(port, fault);
            while take(&mut got, Duration::ZERO) {}
        }
        ports.iter().for_each(|port| pair.net.set(*port, None));
        while got < sent.len() as u64 {
            assert!(take(&mut got, AMPLE), "seed {seed}: {got} of {} came", sent.len());
        }
        all_done(&sent);
    }
}

/// What was sent before a hang-up arrives, whatever the rail that had it does.
#[test]
fn messages_arrive_that_were_sent_before_the_end() {
    for close in [false, true] {
        let pair = Pair::new(2, [&[true; 2], &[true; 2]], 4096);
        let peer = pair.a.connect(&pair.b.addresses()[0], AMPLE).unwrap();
        assert!(pair.a.probe(peer, AMPLE).iter().all(|path| path.state == PathState::Up));
        pair.ports[0].iter().for_each(|port| pair.net.set(*port, Some(Fault::Stuck)));
        for number in 0..20u64 {
            assert!(pair.a.send(peer, number.to_le_bytes()).deadline(AMPLE).wait().is_done());
        }
        match close {
            true => pair.a.close(AMPLE).unwrap(),
            false => pair.a.disconnect(peer),
        }
        let mut got = 0u64;
        loop {
            match pair.b.recv(AMPLE) {
                Some(Incoming::Message { bytes, .. }) => {
                    assert_eq!(bytes, got.to_le_bytes());
                    got += 1;
                }
                Some(Incoming::Disconnected { .. }) => break,
                Some(_) => {}
                None => panic!("no end: {got} came"),
            }
        }
        assert_eq!(got, 20, "close {close}");
    }
}

/// What people are told: which rails there are, where they lead, and why not.
#[test]
fn rails_and_paths_are_told_and_measured() {
    let pair = Pair::new(1, [&[true; 2], &[true; 2]], 4096);
    let names: Vec<_> = pair.a.rails().into_iter().map(|rail| rail.name).collect();
    assert_eq!(names, ["sim0", "sim1"]);
    let peer = pair.a.peer(&pair.b.addresses()[0]).unwrap();
    assert!(pair.a.probe(peer, AMPLE).is_empty(), "it is not connected");
    pair.a.connect(&pair.b.addresses()[0], AMPLE).unwrap();
    let paths = pair.a.probe(peer, AMPLE);
    assert_eq!(paths.len(), 2);
    for (path, to) in paths.iter().zip(["sim2", "sim3"]) {
        assert_eq!(path.state, PathState::Up);
        assert!(path.round_trip.is_some_and(|time| time > Duration::ZERO), "{path:?}");
        assert_eq!(path.facts, [("to", to.to_owned())]);
    }
    pair.net.set(pair.ports[0][1], Some(Fault::Down));
    until("the end of a path", || {
        let down = PathState::Down("the port is down".to_owned());
        pair.a.paths(peer)[1].state == down && pair.a.rails()[1].down.is_some()
    });
    let paths = pair.a.probe(peer, AMPLE);
    assert!(paths[0].round_trip.is_some() && paths[1].state != PathState::Up, "{paths:?}");
    pair.net.set(pair.ports[0][1], None);
    until("its return", || pair.a.paths(peer)[1].state == PathState::Up);
    assert!(pair.a.rails().iter().all(|rail| rail.down.is_none()));
}

/// "Repeated connect/disconnect: no leaked MR, QP, fd or thread (counted)."
#[test]
fn nothing_is_left_of_a_thousand_connections() {
    let count = |what: &str| std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    let pair = Pair::new(5, [&[true; 2], &[true; 2]], 1 << 16);
    let counter = pair.b.counter().unwrap();
    let round = |at: u64| {
        pair.a.connect(&pair.b.addresses()[0], AMPLE).unwrap();
        let (window, to) = pair.offer();
        let sent = pair.write(&to, 1 << 14, &counter);
        if at.is_multiple_of(3) {
            all_done(&sent);
        }
        // With traffic in flight, else.
        pair.a.disconnect(to.peer());
        for transfer in &sent {
            assert!(transfer.wait().pages_are_free());
        }
        window.revoke_within(AMPLE).unwrap();
        until("the end of the connection", || {
            pair.net.census() == 0 && pair.a.stats().disconnections == at + 1
        });
    };
    (0..20).for_each(round);
    let before = (count("fd"), count("task"));
    (20..1020).for_each(round);
    until("the last sockets to close", || (count("fd"), count("task")) <= before);
}

/// Ports fail and return at random while transfers of all kinds run: everything ends, what is done is
/// there, and counts are right.
#[test]
fn whatever_happens_to_the_rails_counts_are_right() {
    for seed in 0..15 {
        let mut dice = Pcg64Mcg::seed_from_u64(seed);
        let pair = Pair::new(seed, [&[true; 3], &[true; 2]], 1 << 20);
        let (_window, to) = pair.offer();
        let counter = pair.b.counter().unwrap();
        let ports: Vec<usize> = pair.ports.concat();
        let mut expected = 0;
        for round in 0..6 {
            let bytes = pair.fill(seed * 100 + round);
            let sent = pair.write(&to, 3000 + dice.next_u64() % 60_000, &counter);
            for _ in 0..4 {
                let port = ports[dice.next_u64() as usize % ports.len()];
                let fault = match dice.next_u64() % 3 {
                    0 => Some(Fault::Cut),
                    1 => Some(Fault::Down),
                    _ => None,
                };
                pair.net.set(port, fault);
                for _ in 0..dice.next_u64() % 200 {
                    std::thread::yield_now();
                }
            }
            all_done(&sent);
            assert!(pair.landed() == bytes, "seed {seed}, round {round}");
            expected += sent.len() as u64;
            assert_eq!(counter.wait(expected, AMPLE).unwrap(), expected, "seed {seed}");
            ports.iter().for_each(|port| pair.net.set(*port, None));
        }
        let back =
            pair.a.read(to.slice(0..1 << 20).unwrap(), pair.source.slice(0..1 << 20).unwrap());
        assert_eq!(back.deadline(AMPLE).wait(), Outcome::Done);
        assert_eq!(counter.count(), expected, "seed {seed}: none came twice");
    }
}
