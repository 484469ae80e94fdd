//! Defects of other transports, one test each: what was found by reading them (a to q), and must never be here.
//! Those that belong to one part are tested beside it. `faults_verbs` runs in the guest alone.
//!
//! | letter | defect | where it is tested |
//! |---|---|---|
//! | a | keys and addresses of one rail used on another | here |
//! | b | tail bytes lost when shards are rounded | here, and `fabric::rdma::op::tests` |
//! | c | tail bytes of a scatter lost | here |
//! | d | lengths cut to 32 bits | `fabric::rdma::op::tests`, conformance `more_than_four_gib_arrive_whole` |
//! | e | GID 0, constant sequence numbers | `fabric::verbs::path::tests`, random in `verbs::queue` (untested) |
//! | f | a lost handshake is never tried again | here |
//! | g | the opcode of a failed completion is looked at | `verbs::port` looks at its number alone; `faults_verbs` |
//! | h | registrations known by their address alone | here |
//! | i | a completion queue overrun by many peers | here, and `faults_verbs` |
//! | j | posts to a peer that is still being connected | here |
//! | k | a callback that submits deadlocks | conformance `a_sink_may_call_the_engine` |
//! | l | a burst of immediates without receives | here, and `faults_verbs` |
//! | m | a wake-up lost between two stores | conformance `a_counter_is_waited_for_more_than_once`, loom |
//! | n | counters without acquire | loom models of `counter`, conformance `a_count_shows_its_payloads` |
//! | o | a flag in device memory without a store fence | nowhere: there is no device memory yet |
//! | p | objects that leak, threads that die and are not missed | here, `rails`, and `faults_verbs` |
//! | q | privileges to pass descriptors | `shm` passes them by `SCM_RIGHTS` |

use std::time::Duration;

use tranship_transport::fabric::rdma::sim::{Config, Fault, Net};
use tranship_transport::{
    Address, Engine, HostMemory, Kind, Outcome, Region, Submission, Target, Transfer,
};

const AMPLE: Duration = Duration::from_secs(20);

fn engine(net: &Net, rails: usize) -> (Engine, Config) {
    let config = (0..rails).fold(Config::new(net), |config, _| config.rail(true));
    let config = config.stripe_bytes(8192);
    (Engine::builder().fabric(config.clone()).build().unwrap(), config)
}

fn region(engine: &Engine, bytes: usize) -> Region {
    engine.alloc(HostMemory::new(bytes)).unwrap()
}

fn bytes_of(region: &Region) -> Vec<u8> {
    let mut bytes = vec![0; region.len() as usize];
    region.memory().read_at(0, &mut bytes).unwrap();
    bytes
}

fn pattern(region: &Region) -> Vec<u8> {
    let bytes: Vec<u8> = (0..region.len()).map(|at| (at * 7 / 3) as u8).collect();
    region.memory().write_at(0, &bytes).unwrap();
    bytes
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

/// Each rail has keys of its own, which open nothing over another: a simulated NIC refuses them.
#[test]
fn a_every_rail_uses_its_own_keys() {
    let net = Net::new(1);
    let ((a, config), (b, _)) = (engine(&net, 3), engine(&net, 2));
    let (source, target) = (region(&a, 1 << 20), region(&b, 1 << 20));
    let bytes = pattern(&source);
    let window = target.window(0..1 << 20).unwrap();
    let to = a.open(&window.descriptor()).unwrap();
    let began = std::time::Instant::now();
    while config.ports().iter().any(|port| net.carried(*port) == 0) {
        assert!(began.elapsed() < AMPLE, "a rail is never used");
        let from = source.slice(0..1 << 20).unwrap();
        let write = a.write(from, to.slice(0..1 << 20).unwrap()).deadline(AMPLE);
        assert_eq!(write.wait(), Outcome::Done);
    }
    assert!(bytes_of(&target) == bytes);
    assert_eq!(a.stats().fallbacks, 0);
}

/// The very lengths and numbers of rails that lost bytes elsewhere.
#[test]
fn b_no_shard_loses_its_tail() {
    for (bytes, rails) in [(16_385, 2), (32_771, 4), ((1 << 20) + 1, 2), (8192 * 6, 3), (8193, 8)] {
        let net = Net::new(2);
        let ((a, _), (b, _)) = (engine(&net, rails), engine(&net, rails));
        let (source, target) = (region(&a, bytes), region(&b, bytes + 64));
        let sent = pattern(&source);
        let len = bytes as u64;
        let window = target.window(0..len).unwrap();
        let to = a.open(&window.descriptor()).unwrap();
        let write = a.write(source.slice(0..len).unwrap(), to.slice(0..len).unwrap());
        assert_eq!(write.deadline(AMPLE).wait(), Outcome::Done);
        let landed = bytes_of(&target);
        assert!(landed[..bytes] == sent, "{bytes} bytes over {rails} rails");
        assert!(landed[bytes..].iter().all(|byte| *byte == 0));
    }
}

/// A scatter gives each peer all of its part, whatever the number of rails.
#[test]
fn c_no_scatter_loses_its_tail() {
    let net = Net::new(3);
    let (a, _) = engine(&net, 3);
    let source = region(&a, 100_003);
    let sent = pattern(&source);
    let peers: Vec<_> = (0..3).map(|_| engine(&net, 2).0).collect();
    let targets: Vec<_> = peers.iter().map(|peer| region(peer, 40_000)).collect();
    let windows: Vec<_> = targets.iter().map(|it| it.window(0..40_000).unwrap()).collect();
    let parts = [0..33_335, 33_335..66_670, 66_670..100_003];
    let targets_of: Vec<Target> = windows
        .iter()
        .zip(&parts)
        .map(|(window, part)| {
            let to = a.open(&window.descriptor()).unwrap();
            let len = part.end - part.start;
            Target { from: part.clone(), to: to.slice(0..len).unwrap(), slot: None }
        })
        .collect();
    let whole = source.slice(0..100_003).unwrap();
    let all = a.scatter(&whole, &targets_of).unwrap().deadline(AMPLE).wait();
    assert!(all.iter().all(|it| it.is_done()), "{all:?}");
    for (target, part) in targets.iter().zip(parts) {
        let part = part.start as usize..part.end as usize;
        assert!(bytes_of(target)[..part.len()] == sent[part]);
    }
}

/// The ports are down while the two sides make their paths: they are made when they are up.
#[test]
fn f_a_lost_handshake_is_tried_again() {
    let net = Net::new(4);
    let ((a, config), (b, other)) = (engine(&net, 1), engine(&net, 1));
    net.set(other.ports()[0], Some(Fault::Cut));
    let (source, target) = (region(&a, 4096), region(&b, 4096));
    let window = target.window(0..4096).unwrap();
    let to = a.open(&window.descriptor()).unwrap();
    let write = || {
        let write = a.write(source.slice(0..4096).unwrap(), to.slice(0..4096).unwrap());
        assert_eq!(write.deadline(AMPLE).wait(), Outcome::Done);
    };
    write();
    assert_eq!((net.carried(config.ports()[0]), a.stats().fallbacks), (0, 1));
    net.set(other.ports()[0], None);
    let began = std::time::Instant::now();
    while net.carried(config.ports()[0]) == 0 {
        assert!(began.elapsed() < AMPLE, "the path is never made");
        write();
    }
}

/// The same memory registered twice, whole and in part, is two regions with their own bounds and ends.
#[test]
fn h_one_memory_can_be_several_regions() {
    let net = Net::new(5);
    let ((a, _), (b, _)) = (engine(&net, 1), engine(&net, 1));
    let source = region(&a, 8192);
    pattern(&source);
    let memory = std::sync::Arc::new(HostMemory::new(8192).build().unwrap());
    let (first, second) =
        (b.register(std::sync::Arc::clone(&memory)).unwrap(), b.register(memory).unwrap());
    let (narrow, wide) = (first.window(0..4096).unwrap(), second.window(0..8192).unwrap());
    let write = |descriptor, len: u64| {
        let to = a.open(&descriptor).unwrap();
        a.write(source.slice(0..len).unwrap(), to.slice(0..len).unwrap()).deadline(AMPLE).wait()
    };
    assert_eq!(write(wide.descriptor(), 8192), Outcome::Done);
    let mut longer = narrow.descriptor();
    longer.len = 8192;
    assert!(!write(longer, 8192).is_done());
    first.close(AMPLE).unwrap();
    assert_eq!(write(wide.descriptor(), 8192), Outcome::Done, "the other region is still there");
}

/// More is submitted than all queues hold, to many peers at once: it waits, and nothing overruns. The
/// simulated NIC panics when it is given more than it has room for.
#[test]
fn i_no_queue_overruns() {
    let net = Net::new(6);
    let (a, _) = engine(&net, 2);
    let source = region(&a, 4096);
    let peers: Vec<_> = (0..6).map(|_| engine(&net, 1).0).collect();
    let targets: Vec<_> = peers.iter().map(|peer| region(peer, 4096)).collect();
    let windows: Vec<_> = targets.iter().map(|it| it.window(0..4096).unwrap()).collect();
    let opened: Vec<_> = windows.iter().map(|it| a.open(&it.descriptor()).unwrap()).collect();
    let counters: Vec<_> = peers.iter().map(|peer| peer.counter().unwrap()).collect();
    let sent: Vec<Transfer> = (0..3000)
        .map(|at| {
            let peer = at % 6;
            let from = source.slice(0..64).unwrap();
            let write = a.write(from, opened[peer].slice(0..64).unwrap());
            submit(write.immediate(counters[peer].slot()).deadline(AMPLE))
        })
        .collect();
    assert!(sent.iter().all(|transfer| transfer.wait().is_done()));
    for counter in &counters {
        assert_eq!(counter.wait(500, AMPLE).unwrap(), 500);
    }
}

/// Everything is submitted before anybody is connected.
#[test]
fn j_posts_to_a_peer_that_connects_wait() {
    let net = Net::new(7);
    for _ in 0..10 {
        let ((a, _), (b, _)) = (engine(&net, 2), engine(&net, 3));
        let (source, target) = (region(&a, 1 << 16), region(&b, 1 << 16));
        let bytes = pattern(&source);
        let window = target.window(0..1 << 16).unwrap();
        let to = a.open(&window.descriptor()).unwrap();
        let counter = b.counter().unwrap();
        let sent: Vec<_> = (0..64)
            .map(|at| {
                let range = at * 1024..(at + 1) * 1024;
                let from = source.slice(range.clone()).unwrap();
                let write = a.write(from, to.slice(range).unwrap()).immediate(counter.slot());
                submit(write.deadline(AMPLE))
            })
            .collect();
        assert!(sent.iter().all(|transfer| transfer.wait().is_done()));
        assert!(bytes_of(&target) == bytes);
        assert_eq!(counter.wait(64, AMPLE).unwrap(), 64);
        assert_eq!(a.stats().fallbacks, 0, "the rails were waited for");
    }
}

/// A burst of immediates far beyond what a receiver has receives for.
#[test]
fn l_a_burst_of_immediates_arrives() {
    let net = Net::new(8);
    let ((a, _), (b, _)) = (engine(&net, 1), engine(&net, 1));
    let peer = a.connect(&b.addresses()[0], AMPLE).unwrap();
    let counter = b.counter().unwrap();
    let sent: Vec<_> =
        (0..5000).map(|_| submit(a.signal(peer, counter.slot()).deadline(AMPLE))).collect();
    assert!(sent.iter().all(|transfer| transfer.wait().is_done()));
    assert_eq!(counter.wait(5000, AMPLE).unwrap(), 5000);
}

/// Everything that was made is gone with the engines.
#[test]
fn p_nothing_outlives_the_engines() {
    let net = Net::new(9);
    {
        let ((a, _), (b, _)) = (engine(&net, 2), engine(&net, 2));
        let (source, target) = (region(&a, 4096), region(&b, 4096));
        let window = target.window(0..4096).unwrap();
        let to = a.open(&window.descriptor()).unwrap();
        let write = a.write(source.slice(0..4096).unwrap(), to.slice(0..4096).unwrap());
        assert_eq!(write.deadline(AMPLE).wait(), Outcome::Done);
        assert!(net.census() > 0);
    }
    assert_eq!(net.census(), 0);
}

/// What is no engine of this fabric is told apart, and disturbs nobody.
#[test]
fn engines_of_another_fabric_are_foreign() {
    let net = Net::new(10);
    let (a, _) = engine(&net, 1);
    let tcp = tranship_transport::fabric::tcp::Config::new();
    let other = Engine::builder().fabric(tcp).build().unwrap();
    let at = Address::new(Kind::Sim, other.addresses()[0].endpoint.clone());
    assert!(a.connect(&at, AMPLE).is_err());
    let at = Address::new(Kind::Tcp, a.addresses()[0].endpoint.clone());
    assert!(other.connect(&at, AMPLE).is_err());
}
