//! Engines that speak several fabrics: which way transfers take, and waits that serve all of them.

#![cfg(not(loom))]

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tranship_transport::fabric::{shm, tcp};
use tranship_transport::{
    Address, BuildError, Descriptor, Drive, Engine, HostMemory, Incoming, Kind, Outcome, Polling,
    Reason, Region, Window,
};

const TIMEOUT: Duration = Duration::from_secs(30);
const LEN: u64 = 1 << 20;

fn engine(drive: Drive) -> Engine {
    let polling = Polling::Adaptive { spin: Duration::ZERO };
    Engine::builder()
        .fabric(shm::Config::new())
        .fabric(tcp::Config::new())
        .drive(drive)
        .polling(polling)
        .deadline(TIMEOUT)
        .build()
        .unwrap()
}

fn address(engine: &Engine, kind: Kind) -> Address {
    engine.addresses().iter().find(|address| address.kind == kind).unwrap().clone()
}

/// An engine that owns a window, and one that writes to it.
struct Pair {
    owner: Engine,
    pages: Region,
    window: Window,
    writer: Engine,
    source: Region,
}

impl Pair {
    fn new() -> Self {
        let (owner, writer) = (engine(Drive::Thread), engine(Drive::Thread));
        let pages = owner.alloc(HostMemory::new(LEN as usize)).unwrap();
        let window = pages.window(0..LEN).unwrap();
        let source = writer.alloc(HostMemory::new(LEN as usize)).unwrap();
        source.memory().fill(0..LEN as usize, 5).unwrap();
        Self { owner, pages, window, writer, source }
    }

    /// The descriptor, with other addresses than the true ones.
    fn routed(&self, shm: &Address, tcp: &Address) -> Descriptor {
        let mut descriptor = self.window.descriptor();
        for route in &mut descriptor.routes {
            let instead = if route.address.kind == Kind::Shm { shm } else { tcp };
            route.address = instead.clone();
        }
        descriptor
    }

    fn write(&self, to: &Descriptor) -> (Outcome, Address) {
        let remote = self.writer.open(to).unwrap();
        let to = remote.slice(0..LEN).unwrap();
        let sent = self.writer.write(self.source.slice(0..LEN).unwrap(), to).wait();
        (sent, remote.address().clone())
    }

    fn arrived(&self) -> bool {
        let mut bytes = vec![0; LEN as usize];
        self.pages.memory().read_at(0, &mut bytes).unwrap();
        self.pages.memory().fill(0..LEN as usize, 0).unwrap();
        bytes.iter().all(|byte| *byte == 5)
    }
}

fn nobody(kind: Kind) -> Address {
    match kind {
        Kind::Shm => Address::new(kind, "@tranship-test-nobody-is-here"),
        // A port that was free a moment ago.
        _ => {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            Address::new(kind, listener.local_addr().unwrap().to_string())
        }
    }
}

#[test]
fn the_first_fabric_that_leads_there_is_taken() {
    let pair = Pair::new();
    let (sent, over) = pair.write(&pair.window.descriptor());
    assert_eq!((sent, over.kind), (Outcome::Done, Kind::Shm));
    assert!(pair.arrived());
    assert_eq!(pair.writer.stats().fallbacks, 0);
}

#[test]
fn what_cannot_go_over_the_first_goes_over_the_next_and_is_counted() {
    let pair = Pair::new();
    let stranger = engine(Drive::Thread);
    let tcp = address(&pair.owner, Kind::Tcp);
    // Nobody at the first address; somebody else at the first address.
    for (fallbacks, shm) in [(1, nobody(Kind::Shm)), (2, address(&stranger, Kind::Shm))] {
        let to = pair.routed(&shm, &tcp);
        let remote = pair.writer.open(&to).unwrap();
        let arrivals = pair.owner.counter().unwrap();
        let sent: Vec<_> = (0..8)
            .map(|_| {
                let to = remote.slice(0..LEN).unwrap();
                let write = pair.writer.write(pair.source.slice(0..LEN).unwrap(), to);
                write.immediate(arrivals.slot()).submit().unwrap()
            })
            .collect();
        assert!(sent.iter().all(|transfer| transfer.wait().is_done()));
        arrivals.wait(8, TIMEOUT).unwrap();
        assert!(pair.arrived());
        assert_eq!(remote.address(), &tcp);
        // Announced once, however many transfers found out.
        assert_eq!(pair.writer.stats().fallbacks, fallbacks);
        let again =
            pair.writer.write(pair.source.slice(0..LEN).unwrap(), remote.slice(0..LEN).unwrap());
        assert!(again.wait().is_done());
        assert_eq!(arrivals.count(), 8);
    }
    let stats = pair.writer.stats();
    assert_eq!(stats.submitted, stats.done + stats.rejected + stats.fenced + stats.lost);
}

#[test]
fn without_any_way_it_is_rejected() {
    let pair = Pair::new();
    let (sent, over) = pair.write(&pair.routed(&nobody(Kind::Shm), &nobody(Kind::Tcp)));
    assert_eq!((sent, over.kind), (Outcome::Rejected(Reason::Unreachable), Kind::Tcp));
    // Somebody else at the only address left: the window is not that engine's.
    let stranger = address(&engine(Drive::Thread), Kind::Tcp);
    let (sent, _) = pair.write(&pair.routed(&nobody(Kind::Shm), &stranger));
    assert!(matches!(sent, Outcome::Rejected(Reason::Stale | Reason::Unreachable)), "{sent}");
}

#[test]
fn a_transfer_that_took_the_next_way_is_cancelled_and_fenced_there() {
    let pair = Pair::new();
    // Accepts and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = Address::new(Kind::Tcp, silent.local_addr().unwrap().to_string());
    let to = pair.routed(&nobody(Kind::Shm), &silent);
    let remote = pair.writer.open(&to).unwrap();
    let write = || {
        let to = remote.slice(0..LEN).unwrap();
        pair.writer.write(pair.source.slice(0..LEN).unwrap(), to).submit().unwrap()
    };
    for _ in 0..20 {
        let transfer = write();
        transfer.cancel();
        let outcome = transfer.wait();
        assert!(matches!(outcome, Outcome::Rejected(_)), "{outcome}");
    }
    let transfer = write();
    let Pair { source, .. } = pair;
    source.close(TIMEOUT).unwrap();
    let outcome = transfer.wait();
    assert!(matches!(outcome, Outcome::Rejected(_)), "{outcome}");
}

#[test]
fn one_wait_serves_all_fabrics_whoever_drives() {
    const ROUNDS: u64 = 300;
    for drive in [Drive::Thread, Drive::Caller] {
        let hub = engine(drive);
        let arrivals = hub.counter().unwrap();
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for kind in [Kind::Shm, Kind::Tcp] {
                let (address, slot) = (address(&hub, kind), arrivals.slot());
                scope.spawn(move || {
                    let engine = engine(drive);
                    let peer = engine.connect(&address, TIMEOUT).unwrap();
                    for round in 0..ROUNDS {
                        let message = (kind as u64 * ROUNDS + round).to_le_bytes();
                        assert!(engine.send(peer, message).wait().is_done());
                        assert!(engine.signal(peer, slot).wait().is_done());
                        loop {
                            match engine.recv(TIMEOUT).expect("the hub answers") {
                                Incoming::Message { bytes, .. } => {
                                    break assert_eq!(bytes, message);
                                }
                                _ => continue,
                            }
                        }
                    }
                });
            }
            // A second thread waits for the counter, while this one receives and answers.
            scope.spawn(|| {
                for target in 1..=2 * ROUNDS {
                    arrivals.wait(target, TIMEOUT).unwrap();
                }
                ended.store(true, Ordering::SeqCst);
                hub.wake();
            });
            let mut answered = 0;
            while answered < 2 * ROUNDS {
                if let Incoming::Message { from, bytes } = hub.recv(TIMEOUT).expect("they ask") {
                    assert!(hub.send(from, bytes).wait().is_done());
                    answered += 1;
                }
            }
            assert!(hub.wait_until(TIMEOUT, || ended.load(Ordering::SeqCst)));
        });
    }
}

#[test]
fn each_kind_of_fabric_is_named_once() {
    let twice =
        Engine::builder().fabric(shm::Config::new()).fabric(shm::Config::new()).build().err();
    assert!(matches!(twice, Some(BuildError::Twice { kind: Kind::Shm })), "{twice:?}");
}
