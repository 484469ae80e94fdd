//! Real libibverbs with the network failing under it: packets lost, reordered, doubled and damaged, cables
//! cut and links flapping, peers killed. For the virtual machine: see `verbs_kit`.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what was skipped, and what a peer has"
)]

mod verbs_kit;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use tranship_transport::fabric::tcp;
use tranship_transport::{
    Access, Counter, Descriptor, Drive, Engine, HostMemory, Incoming, Memory, Outcome, PathState,
    Submission, Transfer,
};
use verbs_kit::{AMPLE, BYTES, PART, Pair, calm, can_run, config, routes, sh, write_all};

/// What tells this program that it is the peer of a test.
const PEER: &str = "TRANSHIP_TEST_PEER";

fn netem(devices: &[&str], what: &str) {
    for device in devices {
        sh(&format!("tc qdisc replace dev {device} root netem {what}"));
    }
}

/// Packets that a device has sent.
fn sent(device: &str) -> u64 {
    let path = format!("/sys/class/infiniband/{device}/ports/1/hw_counters/sent_pkts");
    std::fs::read_to_string(path).expect("a counter").trim().parse().expect("a number")
}

/// Submits, as soon as there is room.
fn submit(mut submission: Submission<'_>) -> Transfer {
    loop {
        match submission.submit() {
            Ok(transfer) => return transfer,
            Err(full) => submission = *full.submission,
        }
        std::thread::yield_now();
    }
}

/// "2 % loss, reorder, duplicate, corrupt": RC repairs it, or another way is taken.
#[test]
fn a_bad_network_changes_no_byte() {
    if !can_run() {
        return;
    }
    let pair = Pair::new();
    let (_window, to) = pair.offer();
    let counter = pair.b.counter().unwrap();
    pair.round(&to, 1, &counter, || {});
    let faults = ["loss 2%", "delay 4ms 2ms reorder 25%", "duplicate 10%", "corrupt 1%"];
    for (seed, what) in faults.into_iter().enumerate() {
        netem(&["va", "vb", "vc", "vd"], what);
        let before = sent("rxea") + sent("rxec");
        for turn in 0..2 {
            pair.round(&to, 10 * seed as u64 + turn, &counter, || {});
        }
        eprintln!("{what}: {} packets", sent("rxea") + sent("rxec") - before);
        calm();
    }
}

/// "One of two rails cut": its work moves to the other, and it is used again once it is back.
#[test]
fn a_cut_rail_hands_its_work_over_and_returns() {
    if !can_run() {
        return;
    }
    let pair = Pair::new();
    let (_window, to) = pair.offer();
    let counter = pair.b.counter().unwrap();
    pair.round(&to, 1, &counter, || {});
    pair.round(&to, 2, &counter, || netem(&["va", "vb"], "loss 100%"));
    pair.round(&to, 3, &counter, || {});
    assert_eq!(pair.a.stats().fallbacks, 0, "the other rail does it");
    calm();
    let before = sent("rxea");
    let began = Instant::now();
    while sent("rxea") < before + 50 {
        assert!(began.elapsed() < AMPLE, "the rail does not come back");
        pair.round(&to, 4, &counter, || {});
    }
}

/// "3 s cut", "link flap": with all rails dead payload goes over TCP, and back.
#[test]
fn flapping_links_lose_nothing() {
    if !can_run() {
        return;
    }
    let pair = Pair::new();
    let (_window, to) = pair.offer();
    let counter = pair.b.counter().unwrap();
    pair.round(&to, 1, &counter, || {});
    for turn in 0..3 {
        pair.round(&to, 10 + turn, &counter, || {
            sh("ip link set va down; ip link set vc down");
        });
        pair.round(&to, 20 + turn, &counter, || {
            sh("ip link set va up; ip link set vc up");
            routes();
        });
    }
    pair.round(&to, 30, &counter, || netem(&["va", "vb", "vc", "vd"], "loss 100%"));
    assert!(pair.a.stats().fallbacks > 0, "there was no rail");
    calm();
    let before = sent("rxea") + sent("rxec");
    let began = Instant::now();
    while sent("rxea") + sent("rxec") < before + 50 {
        assert!(began.elapsed() < AMPLE, "the rails do not come back");
        pair.round(&to, 40, &counter, || {});
    }
}

/// Messages that were given to a rail which fails come all the same: once, and in their turn.
#[test]
fn messages_outlive_the_rail_that_had_them() {
    const COUNT: u64 = 400;
    if !can_run() {
        return;
    }
    let pair = Pair::new();
    let peer = pair.a.connect(&pair.b.addresses()[0], AMPLE).unwrap();
    let up = |path: &tranship_transport::Path| path.state == PathState::Up;
    assert!(pair.a.probe(peer, AMPLE).iter().all(up), "{:?}", pair.a.paths(peer));
    let mut got = 0u64;
    let mut take = || loop {
        match pair.b.recv(AMPLE) {
            Some(Incoming::Message { bytes, .. }) => {
                assert_eq!(bytes[..8], got.to_le_bytes(), "message {got}");
                got += 1;
                return;
            }
            Some(_) => {}
            None => panic!("message {got} does not come"),
        }
    };
    let mut sent = Vec::new();
    for number in 0..COUNT {
        match number {
            100 => netem(&["va", "vb"], "loss 100%"),
            200 => netem(&["vc", "vd"], "loss 100%"),
            300 => calm(),
            _ => {}
        }
        let mut bytes = number.to_le_bytes().to_vec();
        bytes.resize(8 + number as usize % 700, 1);
        sent.push(submit(pair.a.send(peer, bytes).deadline(AMPLE)));
        if number >= 16 {
            take();
        }
    }
    (0..16).for_each(|_| take());
    assert!(sent.iter().all(|message| message.wait().is_done()));
    let carried: u64 = pair.a.paths(peer).iter().map(|path| path.messages).sum();
    assert!(carried > 50, "of {COUNT}, {carried} took a rail");
}

/// "Pages after a fenced abort never change": the owner takes its window back while nothing gets through.
#[test]
fn a_window_is_fenced_while_the_cable_is_cut() {
    if !can_run() {
        return;
    }
    let pair = Pair::new();
    let (window, to) = pair.offer();
    let counter = pair.b.counter().unwrap();
    pair.round(&to, 1, &counter, || {});
    netem(&["va", "vb", "vc", "vd"], "loss 100%");
    let late = write_all(&pair.a, &pair.source, &to, &counter, AMPLE);
    window.revoke_within(AMPLE).unwrap();
    pair.target.memory().fill(0..BYTES as usize, 7).unwrap();
    calm();
    for transfer in &late {
        let outcome = transfer.wait();
        assert!(outcome.pages_are_free(), "{outcome}");
    }
    let (_window, to) = pair.offer();
    assert!(pair.landed().iter().all(|byte| *byte == 7), "a late write landed");
    pair.round(&to, 2, &counter, || {});
}

/// How many the kernel has of these.
fn count(what: &str) -> usize {
    let out = Command::new("rdma").args(["resource", "show", what]).output().expect("rdma");
    String::from_utf8_lossy(&out.stdout).lines().count()
}

/// Memory that lies in a region is registered with it: once, however much of it is registered again.
#[test]
fn memory_within_a_region_shares_its_registration() {
    const PARTS: u64 = 16;
    if !can_run() {
        return;
    }
    let pair = Pair::new();
    let (_window, to) = pair.offer();
    let whole = Arc::new(HostMemory::new(BYTES as usize).build().unwrap());
    let part = |at: u64| {
        let at = (at * BYTES / PARTS) as usize;
        // SAFETY: it is part of the whole, which lives as long, and is used by pointers alone.
        unsafe {
            let start = whole.as_ptr().add(at);
            Memory::foreign(start, BYTES as usize / PARTS as usize, Box::new(Arc::clone(&whole)))
        }
    };
    let region = pair.a.register(Arc::clone(&whole)).unwrap();
    let before = count("mr");
    let parts: Vec<_> = (0..PARTS).map(|at| pair.a.register(part(at)).unwrap()).collect();
    assert_eq!(count("mr"), before);
    // The first to go is the one whose registration it is.
    region.close(AMPLE).unwrap();
    whole.fill(0..BYTES as usize, 9).unwrap();
    for (at, part) in parts.iter().enumerate() {
        let place = at as u64 * part.len()..(at as u64 + 1) * part.len();
        let from = part.slice(0..part.len()).unwrap();
        let sent = pair.a.write(from, to.slice(place).unwrap());
        assert_eq!(sent.deadline(AMPLE).wait(), Outcome::Done);
    }
    assert!(pair.landed().iter().all(|byte| *byte == 9));
    // Nobody new shares it: the memory may be another's by now.
    let late = pair.a.register(part(3)).unwrap();
    assert!(count("mr") > before);
    drop((parts, late));
}

/// "Repeated connect/disconnect: no leaked MR, QP, fd or thread (counted)."
#[test]
fn nothing_is_left_of_many_connections() {
    if !can_run() {
        return;
    }
    let pair = Pair::new();
    let counter = pair.b.counter().unwrap();
    let here = |what: &str| std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    let census = || [count("qp"), count("mr"), count("cq"), count("pd"), here("fd"), here("task")];
    let round = |at: u64| {
        let ended = pair.a.stats().disconnections;
        pair.a.connect(&pair.b.addresses()[0], AMPLE).unwrap();
        let (window, to) = pair.offer();
        let sent = write_all(&pair.a, &pair.source, &to, &counter, AMPLE);
        if at.is_multiple_of(2) {
            sent.iter().for_each(|transfer| assert_eq!(transfer.wait(), Outcome::Done));
        }
        pair.a.disconnect(to.peer());
        assert!(sent.iter().all(|transfer| transfer.wait().pages_are_free()));
        window.revoke_within(AMPLE).unwrap();
        let gone = || pair.a.stats().disconnections > ended;
        assert!(pair.a.wait_until(AMPLE, gone), "the connection does not end");
    };
    (0..2).for_each(round);
    let before = census();
    (2..30).for_each(round);
    let began = Instant::now();
    while census().iter().zip(&before).any(|(now, before)| now > before) {
        assert!(
            began.elapsed() < AMPLE,
            "{:?} after {before:?} (qp, mr, cq, pd, fd, task)",
            census()
        );
        std::thread::yield_now();
    }
}

/// Far more immediates than there are receives for, to several peers at once, while nobody looks: nothing
/// overruns, and all of them come. (The defects (i) and (l) of `regressions.rs`.)
#[test]
fn bursts_of_immediates_to_many_peers_arrive() {
    const BURST: u64 = 600;
    if !can_run() {
        return;
    }
    calm();
    let a = Engine::builder().fabric(config(&["rxea", "rxec"])).build().unwrap();
    let build = || Engine::builder().fabric(config(&["rxeb", "rxed"])).drive(Drive::Caller);
    let peers: Vec<Engine> = (0..4).map(|_| build().build().unwrap()).collect();
    let counters: Vec<Counter> = peers.iter().map(|peer| peer.counter().unwrap()).collect();
    let sent: Vec<Transfer> = (0..BURST * 4)
        .map(|at| {
            let to = at as usize % peers.len();
            let peer = a.peer(&peers[to].addresses()[0]).unwrap();
            submit(a.signal(peer, counters[to].slot()).deadline(AMPLE))
        })
        .collect();
    // Each is driven by nobody until its counter is waited for.
    std::thread::scope(|scope| {
        for counter in &counters {
            scope.spawn(move || assert_eq!(counter.wait(BURST, AMPLE).unwrap(), BURST));
        }
    });
    sent.iter().for_each(|transfer| assert_eq!(transfer.wait(), Outcome::Done));
    assert_eq!(a.stats().fallbacks, 0, "the rails do it");
}

/// "Peer kill -9": transfers end by their deadline, and the peer that takes its place is reached.
#[test]
fn a_killed_peer_is_noticed_and_replaced() {
    if std::env::var_os(PEER).is_some() {
        return serve();
    }
    if !can_run() {
        return;
    }
    calm();
    let a = Engine::builder().fabric(config(&["rxea", "rxec"])).build().unwrap();
    let source = a.alloc(HostMemory::new(BYTES as usize)).unwrap();
    let counter = a.counter().unwrap();
    let mut address = "127.0.0.1:0".to_owned();
    for turn in 0..3 {
        let (mut child, descriptor) = start_peer(&address);
        address.clone_from(&descriptor.routes[0].address.endpoint);
        let to = a.open(&descriptor).unwrap();
        let began = Instant::now();
        loop {
            let from = source.slice(0..PART).unwrap();
            let write = a.write(from, to.slice(0..PART).unwrap()).deadline(AMPLE);
            if write.wait().is_done() {
                break;
            }
            assert!(began.elapsed() < AMPLE, "turn {turn}: the peer is not reached");
        }
        let sent = write_all(&a, &source, &to, &counter, AMPLE);
        child.kill().unwrap();
        child.wait().unwrap();
        let outcomes: Vec<_> = sent.iter().map(Transfer::wait).collect();
        assert!(began.elapsed() < 2 * AMPLE, "noticed, not waited for");
        eprintln!("turn {turn}: {:?}", outcomes.last());
        for transfer in &sent {
            let began = Instant::now();
            while !transfer.fenced() {
                assert!(began.elapsed() < AMPLE, "a dead peer proves all");
                a.progress();
            }
        }
    }
}

fn start_peer(listen: &str) -> (Child, Descriptor) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_killed_peer_is_noticed_and_replaced", "--nocapture"])
        .env(PEER, listen)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines
        .map_while(Result::ok)
        .find_map(|line| line.split_once("descriptor ").map(|(_, json)| json.to_owned()));
    let descriptor = serde_json::from_str(&line.expect("the peer says what it has")).unwrap();
    (child, descriptor)
}

/// The peer: offers a window until it is killed.
fn serve() {
    let listen = std::env::var(PEER).unwrap();
    let fabric = config(&["rxeb", "rxed"]).control(tcp::Config::new().listen(listen));
    let engine = Engine::builder().fabric(fabric).build().unwrap();
    let region = engine.alloc(HostMemory::new(BYTES as usize)).unwrap();
    let window = region.window_with(0..BYTES, Access::WRITE).unwrap();
    println!("descriptor {}", serde_json::to_string(&window.descriptor()).unwrap());
    // Ends when the parent does.
    let _ = std::io::stdin().read(&mut [0]);
}
