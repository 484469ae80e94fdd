//! No wake-up is lost, whoever drives and whoever sleeps: engines that never spin, so that every
//! exchange goes through sleep. A lost wake-up shows as a wait that ends by its timeout.

#![cfg(not(loom))]

use std::time::Duration;

use tranship_transport::{
    Counter, Drive, Engine, HostMemory, Incoming, Polling, Region, RemoteWindow, Slot,
};

const TIMEOUT: Duration = Duration::from_secs(20);

fn engine(drive: Drive, spin: Duration) -> Engine {
    Engine::builder()
        .polling(Polling::Adaptive { spin })
        .drive(drive)
        .deadline(TIMEOUT)
        .build()
        .unwrap()
}

/// One side of an exchange: memory, a counter, and the way to the other side.
struct Side {
    engine: Engine,
    region: Region,
    arrivals: Counter,
}

impl Side {
    fn new(drive: Drive, spin: Duration) -> Self {
        let engine = engine(drive, spin);
        let region = engine.alloc(HostMemory::new(1 << 20)).unwrap();
        let arrivals = engine.counter().unwrap();
        Self { engine, region, arrivals }
    }

    fn write(&self, to: &RemoteWindow, len: u64, slot: Slot) {
        let (local, remote) = (self.region.slice(0..len).unwrap(), to.slice(0..len).unwrap());
        let sent = self.engine.write(local, remote).immediate(slot).wait();
        assert!(sent.is_done(), "{sent}");
    }
}

fn ping_pong(a: Drive, b: Drive, spin: Duration, rounds: u64, len: u64) {
    let (a, b) = (Side::new(a, spin), Side::new(b, spin));
    let windows = (a.region.window(0..1 << 20).unwrap(), b.region.window(0..1 << 20).unwrap());
    let to_b = a.engine.open(&windows.1.descriptor()).unwrap();
    let to_a = b.engine.open(&windows.0.descriptor()).unwrap();
    let (slot_a, slot_b) = (a.arrivals.slot(), b.arrivals.slot());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=rounds {
                b.arrivals.wait(round, TIMEOUT).unwrap();
                b.write(&to_a, len, slot_a);
            }
        });
        for round in 1..=rounds {
            a.write(&to_b, len, slot_b);
            a.arrivals.wait(round, TIMEOUT).unwrap();
        }
    });
}

#[test]
fn ping_pong_of_engines_that_never_spin() {
    for (a, b) in [
        (Drive::Thread, Drive::Thread),
        (Drive::Thread, Drive::Caller),
        (Drive::Caller, Drive::Caller),
    ] {
        ping_pong(a, b, Duration::ZERO, 3000, 64);
        ping_pong(a, b, Duration::from_micros(5), 3000, 64);
        // Large transfers are advanced by whoever drives.
        ping_pong(a, b, Duration::ZERO, 200, 1 << 20);
    }
}

#[test]
fn transfers_that_nobody_waits_for_go_on() {
    let (a, b) =
        (Side::new(Drive::Thread, Duration::ZERO), Side::new(Drive::Thread, Duration::ZERO));
    let window = b.region.window(0..1 << 20).unwrap();
    let to_b = a.engine.open(&window.descriptor()).unwrap();
    let slot = b.arrivals.slot();
    let mut expected = 0;
    for round in 0..300 {
        // In bursts, so that both workers go to sleep in between.
        for _ in 0..=round % 3 {
            let (local, remote) =
                (a.region.slice(0..1 << 20).unwrap(), to_b.slice(0..1 << 20).unwrap());
            drop(a.engine.write(local, remote).immediate(slot).submit().unwrap());
            expected += 1;
        }
        b.arrivals.wait(expected, TIMEOUT).unwrap();
    }
}

#[test]
fn many_threads_share_an_engine() {
    for drive in [Drive::Thread, Drive::Caller] {
        let service = engine(drive, Duration::ZERO);
        let client = engine(drive, Duration::ZERO);
        let echo = {
            let service = service.clone();
            std::thread::spawn(move || {
                loop {
                    match service.recv(TIMEOUT).expect("a message in time") {
                        Incoming::Message { bytes, .. } if bytes.is_empty() => break,
                        Incoming::Message { from, bytes } => {
                            assert!(service.send(from, bytes).wait().is_done());
                        }
                        Incoming::Connected(_) => {}
                        Incoming::Disconnected { reason, .. } => panic!("{reason}"),
                    }
                }
            })
        };
        let peer = client.connect(&service.addresses()[0], TIMEOUT).unwrap();
        let counters: Vec<_> = (0..4).map(|_| client.counter().unwrap()).collect();
        let region = service.alloc(HostMemory::new(4096)).unwrap();
        let pages = client.alloc(HostMemory::new(4096)).unwrap();
        let window = pages.window(0..4096).unwrap();
        let back = service.open(&window.descriptor()).unwrap();
        std::thread::scope(|scope| {
            for counter in &counters {
                let (client, service, region, back) = (&client, &service, &region, &back);
                scope.spawn(move || {
                    for round in 1..=500 {
                        assert!(client.send(peer, vec![7; 100]).wait().is_done());
                        let (local, remote) =
                            (region.slice(0..64).unwrap(), back.slice(0..64).unwrap());
                        let sent = service.write(local, remote).immediate(counter.slot()).wait();
                        assert!(sent.is_done(), "{sent}");
                        counter.wait(round, TIMEOUT).unwrap();
                    }
                });
            }
            scope.spawn(|| {
                let mut echoes = 0;
                while echoes < 4 * 500 {
                    match client.recv(TIMEOUT).unwrap_or_else(|| {
                        let (here, there) = (client.stats(), service.stats());
                        let left = client.has_incoming();
                        panic!("{drive:?}: {echoes} echoes, more: {left}; {here:?}; {there:?}")
                    }) {
                        Incoming::Message { .. } => echoes += 1,
                        Incoming::Connected(_) => {}
                        Incoming::Disconnected { reason, .. } => panic!("{reason}"),
                    }
                }
            });
        });
        assert!(client.send(peer, vec![]).wait().is_done());
        echo.join().unwrap();
    }
}
