//! Memory of devices: refused by fabrics whose processors copy, moved by rails, and by nothing else where there
//! are none. The rails are simulated, and what they take for a device's is memory of this process, of which
//! nobody else is told that it could be touched.

#![cfg(not(loom))]

use std::sync::Arc;
use std::time::{Duration, Instant};

use tranship_transport::fabric::rdma::sim::{Config, Fault, Net};
use tranship_transport::fabric::{shm, sim, tcp};
use tranship_transport::{
    Access, Builder, Engine, HostMemory, Kind, Memory, Outcome, Pages, Plan, Reason, Region,
    RegionError, RemoteWindow, WatchError, Window,
};

const AMPLE: Duration = Duration::from_secs(20);
const LEN: u64 = 1 << 20;

/// Host memory, and the same bytes as if a device had them.
struct Lent {
    bytes: Arc<Memory>,
    device: Arc<Memory>,
}

impl Lent {
    fn new() -> Self {
        let bytes = Arc::new(HostMemory::new(LEN as usize).build().unwrap());
        let descriptor = bytes.fd().unwrap().try_clone_to_owned().unwrap();
        let (address, owner) = (bytes.as_ptr(), Box::new(Arc::clone(&bytes)));
        // SAFETY: the bytes are there as long as their owner. No driver is given the descriptor.
        let device = unsafe { Memory::device(address, LEN as usize, descriptor, 0, owner) };
        Self { bytes, device: Arc::new(device) }
    }

    fn all_are(&self, byte: u8) -> bool {
        all_are(&self.bytes, byte)
    }
}

fn all_are(memory: &Memory, byte: u8) -> bool {
    let mut bytes = vec![0; memory.len()];
    memory.read_at(0, &mut bytes).unwrap();
    bytes.iter().all(|it| *it == byte)
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(60), "never came: {what}");
        std::thread::yield_now();
    }
}

/// Rails that take memory of devices.
fn rails(net: &Net, ordered: bool) -> Config {
    // SAFETY: whatever these tests call a device's is this process's.
    unsafe { Config::new(net).rail(ordered).stripe_bytes(16 << 10).dma_bufs() }
}

/// Two engines with a region of a device and one of host memory each.
struct Pair {
    net: Net,
    config: Config,
    a: Engine,
    b: Engine,
    lent: [Lent; 2],
    device: [Region; 2],
    host: [Region; 2],
}

impl Pair {
    fn new(seed: u64, ordered: bool) -> Self {
        let net = Net::new(seed);
        let config = rails(&net, ordered);
        let build = |config: &Config| {
            Engine::builder().fabric(config.clone()).deadline(AMPLE).build().unwrap()
        };
        let (a, b) = (build(&config), build(&rails(&net, ordered)));
        let lent = [Lent::new(), Lent::new()];
        let on_device =
            |engine: &Engine, lent: &Lent| engine.register(Arc::clone(&lent.device)).unwrap();
        let device = [on_device(&a, &lent[0]), on_device(&b, &lent[1])];
        let host = [&a, &b].map(|engine| engine.alloc(HostMemory::new(LEN as usize)).unwrap());
        Self { net, config, a, b, lent, device, host }
    }

    fn offer(&self, region: &Region) -> (Window, RemoteWindow) {
        let window = region.window_with(0..LEN, Access::WRITE | Access::READ).unwrap();
        let remote = self.a.open(&window.descriptor()).unwrap();
        (window, remote)
    }

    fn write(&self, from: &Region, to: &RemoteWindow) -> Outcome {
        self.a.write(from.slice(0..LEN).unwrap(), to.slice(0..LEN).unwrap()).wait()
    }

    fn read(&self, from: &RemoteWindow, to: &Region) -> Outcome {
        self.a.read(from.slice(0..LEN).unwrap(), to.slice(0..LEN).unwrap()).wait()
    }
}

// ---- refused ---------------------------------------------------------------------------------------

/// One line that says which fabric it is, and what to do.
fn is_refused(kind: &str, builder: Builder) {
    let engine = builder.build().unwrap();
    let lent = Lent::new();
    let error = engine.register(Arc::clone(&lent.device)).expect_err("it cannot be moved");
    let line = error.to_string();
    for part in [
        &format!("{kind} fabric: the memory is a device's"),
        "verbs",
        "rdma-core 34",
        "mlx5 since Linux 5.12",
        "copy to host memory and register that",
    ] {
        assert!(line.contains(part), "no '{part}' in: {line}");
    }
    assert_eq!(line.lines().count(), 1, "{line}");
    let RegionError::Fabric { memory, .. } = error else { panic!("{error}") };
    assert!(Arc::ptr_eq(&memory, &lent.device), "it comes back");
    drop(memory);
    // Nothing holds it, and what is the host's is taken.
    assert_eq!(Arc::strong_count(&lent.device), 1);
    let region = engine.alloc(HostMemory::new(4096)).unwrap();
    region.window(0..4096).unwrap().revoke().unwrap();
}

#[test]
fn who_copies_refuses_the_memory_of_a_device_in_one_line() {
    let network = sim::Network::new(sim::Config::new(1));
    let simulated = Engine::builder().fabric(network.provider()).clock(network.clock());
    is_refused("sim", simulated.drive(tranship_transport::Drive::Caller));
    is_refused("shm", Engine::builder().fabric(shm::Config::new()));
    is_refused("tcp", Engine::builder().fabric(tcp::Config::new()));
    let both = Engine::builder().fabric(shm::Config::new()).fabric(tcp::Config::new());
    is_refused("shm", both);
    // Rails of which one takes none.
    is_refused("sim", Engine::builder().fabric(Config::new(&Net::new(1)).rail(true)));
}

#[test]
fn a_word_of_a_device_is_not_watched() {
    let pair = Pair::new(1, true);
    let refused = pair.a.watch(pair.device[0].memory(), 0).expect_err("it cannot be seen");
    assert_eq!(refused, WatchError::OnDevice);
    pair.a.watch(pair.host[0].memory(), 0).unwrap();
}

// ---- over rails --------------------------------------------------------------------------------------

#[test]
fn rails_move_the_bytes_of_devices() {
    for (seed, ordered) in [(1, true), (2, false)] {
        let pair = Pair::new(seed, ordered);
        let (_window, to) = pair.offer(&pair.device[1]);
        let (_other, to_host) = pair.offer(&pair.host[1]);
        // From device to device, with an immediate; from host to device, and from device to host.
        pair.lent[0].bytes.fill(0..LEN as usize, 1).unwrap();
        let counter = pair.b.counter().unwrap();
        let write = pair.a.write(pair.device[0].slice(0..LEN).unwrap(), to.slice(0..LEN).unwrap());
        assert_eq!(write.immediate(counter.slot()).wait(), Outcome::Done);
        assert_eq!(counter.wait(1, AMPLE).unwrap(), 1);
        assert!(pair.lent[1].all_are(1));
        pair.host[0].memory().fill(0..LEN as usize, 2).unwrap();
        assert_eq!(pair.write(&pair.host[0], &to), Outcome::Done);
        assert!(pair.lent[1].all_are(2));
        assert_eq!(pair.write(&pair.device[0], &to_host), Outcome::Done);
        assert!(all_are(pair.host[1].memory(), 1));
        // Read back into the device.
        assert_eq!(pair.read(&to, &pair.device[0]), Outcome::Done);
        assert!(pair.lent[0].all_are(2));
        // And pages of it.
        pair.lent[0].bytes.fill(0..LEN as usize, 3).unwrap();
        let halves = |from: u64| Pages::strided(from, 512, 1024, 1024).unwrap();
        for from in [0, 512] {
            let plan = Plan::new(halves(from), halves(from)).unwrap();
            let (ours, theirs) = (pair.device[0].slice(0..LEN), to.slice(0..LEN));
            let sent = pair.a.write_paged(ours.unwrap(), theirs.unwrap(), plan).wait();
            assert_eq!(sent, Outcome::Done);
        }
        assert!(pair.lent[1].all_are(3));
        assert_eq!(pair.a.stats().fallbacks, 0);
        // Closed, nothing has it any more.
        let Pair { lent: [lent, _], device: [region, _], a, .. } = pair;
        region.close(AMPLE).unwrap();
        until("the region is forgotten", || {
            a.progress();
            Arc::strong_count(&lent.device) == 1
        });
    }
}

// ---- without rails -----------------------------------------------------------------------------------

/// TCP carries what the host has when no rail is left. What a device has it refuses, on either side.
#[test]
fn without_rails_the_bytes_of_a_device_stay() {
    let pair = Pair::new(3, true);
    let (_window, to_device) = pair.offer(&pair.device[1]);
    let (_other, to_host) = pair.offer(&pair.host[1]);
    pair.host[0].memory().fill(0..LEN as usize, 5).unwrap();
    pair.lent[0].bytes.fill(0..LEN as usize, 6).unwrap();
    assert_eq!(pair.write(&pair.host[0], &to_device), Outcome::Done);
    assert!(pair.lent[1].all_are(5));

    pair.net.set(pair.config.ports()[0], Some(Fault::Down));
    assert_eq!(pair.write(&pair.host[0], &to_host), Outcome::Done);
    until("payload goes over TCP", || {
        assert_eq!(pair.write(&pair.host[0], &to_host), Outcome::Done);
        pair.a.stats().fallbacks == 1
    });
    let refused = Outcome::Rejected(Reason::Unsupported);
    // Our own, before anything is sent; the peer's, by the peer.
    assert_eq!(pair.write(&pair.device[0], &to_host), refused);
    assert_eq!(pair.read(&to_host, &pair.device[0]), refused);
    assert_eq!(pair.write(&pair.host[0], &to_device), refused);
    assert_eq!(pair.read(&to_device, &pair.host[0]), refused);
    let counter = pair.b.counter().unwrap();
    let write = pair.a.write(pair.host[0].slice(0..LEN).unwrap(), to_device.slice(0..LEN).unwrap());
    assert_eq!(write.immediate(counter.slot()).wait(), refused);
    let plan = || Pages::strided(0, 512, 1024, 1024).unwrap();
    let plan = Plan::new(plan(), plan()).unwrap();
    let (ours, theirs) = (pair.host[0].slice(0..LEN), to_device.slice(0..LEN));
    let read = pair.a.read_paged(theirs.unwrap(), ours.unwrap(), &plan).wait();
    assert_eq!(read, refused);
    assert!(pair.lent[1].all_are(5) && pair.lent[0].all_are(6));
    // No byte is no payload.
    let (ours, theirs) = (pair.device[0].slice(0..0), to_device.slice(0..0));
    let empty = pair.a.write(ours.unwrap(), theirs.unwrap()).immediate(counter.slot()).wait();
    assert_eq!(empty, Outcome::Done);
    assert_eq!(counter.wait(1, AMPLE).unwrap(), 1, "what was refused announced nothing");
    // Nobody else is disturbed.
    assert_eq!(pair.write(&pair.host[0], &to_host), Outcome::Done);
    assert!(all_are(pair.host[1].memory(), 5));

    pair.net.set(pair.config.ports()[0], None);
    until("a rail", || pair.write(&pair.device[0], &to_device).is_done());
    assert!(pair.lent[1].all_are(6));
}

/// What is cut off in the middle has one end, whichever side is a device's, and one that is true: done, stopped,
/// or, where not a byte of it moved, refused.
#[test]
fn a_rail_that_dies_under_the_bytes_of_a_device_ends_them() {
    for (seed, ours, theirs) in (0..24).map(|run| (run / 3, run % 3 != 1, run % 3 != 2)) {
        let pair = Pair::new(seed, true);
        let from = if ours { &pair.device[0] } else { &pair.host[0] };
        let (target, bytes) = match theirs {
            true => (&pair.device[1], &pair.lent[1].bytes),
            false => (&pair.host[1], pair.host[1].memory()),
        };
        let source = if ours { &pair.lent[0].bytes } else { pair.host[0].memory() };
        source.fill(0..LEN as usize, 7).unwrap();
        let (_window, to) = pair.offer(target);
        assert_eq!(pair.write(from, &to), Outcome::Done);
        bytes.fill(0..LEN as usize, 0).unwrap();
        let port = pair.config.ports()[0];
        let before = pair.net.carried(port);
        let part = LEN / 16;
        let parts: Vec<_> = (0..16).map(|at| at * part..(at + 1) * part).collect();
        let sent: Vec<_> = parts
            .iter()
            .map(|range| {
                let (from, to) = (from.slice(range.clone()), to.slice(range.clone()));
                pair.a.write(from.unwrap(), to.unwrap()).submit().unwrap()
            })
            .collect();
        until("some traffic", || pair.net.carried(port) >= before + seed * 100_000);
        pair.net.set(port, Some(Fault::Cut));
        for (transfer, range) in sent.into_iter().zip(parts) {
            let mut part = vec![0; part as usize];
            let end = transfer.wait();
            bytes.read_at(range.start as usize, &mut part).unwrap();
            match end {
                Outcome::Done => assert!(part.iter().all(|it| *it == 7), "seed {seed}"),
                Outcome::Rejected(Reason::Unsupported) => {
                    assert!(part.iter().all(|it| *it == 0), "seed {seed}: refused, and moved");
                }
                end => assert_eq!(end, Outcome::Fenced(Reason::Unsupported), "seed {seed}"),
            }
        }
    }
}

// ---- several fabrics ---------------------------------------------------------------------------------

/// An engine with rails and a fabric that copies: a device's memory is registered with the rails alone, its
/// windows lead over them alone, and its transfers take them, even where they are not the best way.
#[test]
fn of_several_fabrics_rails_have_the_memory_of_devices() {
    let net = Net::new(4);
    let build = || {
        Engine::builder()
            .fabric(tcp::Config::new())
            .fabric(rails(&net, true))
            .deadline(AMPLE)
            .build()
            .unwrap()
    };
    let (a, b) = (build(), build());
    let (ours, theirs) = (Lent::new(), Lent::new());
    let device = a.register(Arc::clone(&ours.device)).unwrap();
    let there = b.register(Arc::clone(&theirs.device)).unwrap();
    let host = b.alloc(HostMemory::new(LEN as usize)).unwrap();
    let kinds = |window: &Window| -> Vec<Kind> {
        window.descriptor().routes.iter().map(|route| route.address.kind).collect()
    };
    let (to_device, to_host) = (there.window(0..LEN).unwrap(), host.window(0..LEN).unwrap());
    assert_eq!(kinds(&to_device), [Kind::Sim]);
    assert_eq!(kinds(&to_host), [Kind::Tcp, Kind::Sim]);
    ours.bytes.fill(0..LEN as usize, 7).unwrap();
    let write = |from: &Region, to: &RemoteWindow| {
        a.write(from.slice(0..LEN).unwrap(), to.slice(0..LEN).unwrap()).wait()
    };
    let open = |window: &Window| a.open(&window.descriptor()).unwrap();
    assert_eq!(write(&device, &open(&to_device)), Outcome::Done);
    assert!(theirs.all_are(7));
    // TCP comes first there, and is passed over without a word: nothing is wrong with it.
    let remote = open(&to_host);
    assert_eq!(write(&device, &remote), Outcome::Done);
    assert!(all_are(host.memory(), 7));
    assert_eq!((a.stats().fallbacks, remote.address().kind), (0, Kind::Tcp));
    let source = a.alloc(HostMemory::new(LEN as usize)).unwrap();
    assert_eq!(write(&source, &remote), Outcome::Done);
    assert!(all_are(host.memory(), 0));
    // With no other way it is refused.
    let mut descriptor = to_host.descriptor();
    descriptor.routes.retain(|route| route.address.kind == Kind::Tcp);
    let remote = a.open(&descriptor).unwrap();
    assert_eq!(write(&device, &remote), Outcome::Rejected(Reason::Unsupported));
    assert_eq!(write(&source, &remote), Outcome::Done);
    // Windows of it are fenced, and their places used again.
    for _ in 0..100 {
        there.window(0..LEN).unwrap().revoke().unwrap();
    }
    to_device.revoke().unwrap();
    there.close(AMPLE).unwrap();
    until("the region is forgotten", || {
        b.progress();
        Arc::strong_count(&theirs.device) == 1
    });
}
