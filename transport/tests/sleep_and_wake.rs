//! No wake-up is lost, whoever drives and whoever sleeps: engines that never spin, so that every
//! exchange goes through sleep. A lost wake-up shows as a wait that ends by its timeout.

#![cfg(not(loom))]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tranship_transport::{
    Counter, Drive, Engine, HostMemory, Incoming, Polling, Region, RemoteWindow, Slot,
};

/// A wake-up that is lost is lost for ever; a busy machine is only slow.
const TIMEOUT: Duration = Duration::from_secs(60);

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

/// Looks again until `held`, without driving anything.
fn soon(what: &str, mut held: impl FnMut() -> bool) {
    let began = Instant::now();
    while !held() {
        assert!(began.elapsed() < TIMEOUT, "{what}: a wake-up was lost");
        std::thread::yield_now();
    }
}

/// An engine whose sink counts messages, and a client that is connected to it.
fn service(spin: Duration) -> (Engine, Arc<AtomicU64>, Engine, tranship_transport::Peer) {
    let heard = Arc::new(AtomicU64::new(0));
    let service = {
        let heard = Arc::clone(&heard);
        Engine::builder()
            .polling(Polling::Adaptive { spin })
            .drive(Drive::Thread)
            .deadline(TIMEOUT)
            .on_incoming(move |incoming| {
                if let Incoming::Message { .. } = incoming {
                    heard.fetch_add(1, Ordering::SeqCst);
                }
            })
            .build()
            .unwrap()
    };
    let client = engine(Drive::Thread, Duration::ZERO);
    let peer = client.connect(&service.addresses()[0], TIMEOUT).unwrap();
    (service, heard, client, peer)
}

/// Drives `engine` on this thread, long enough for its own thread to have gone to sleep, and stops
/// right after `last`.
fn drive_then(engine: &Engine, last: impl FnOnce()) {
    let (mut asked, mut last) = (0, Some(last));
    assert!(engine.wait_until(TIMEOUT, || {
        asked += 1;
        if asked == 3000 {
            last.take().expect("asked once more")();
        }
        asked == 3000
    }));
}

#[test]
fn who_leaves_with_news_leaves_nobody_asleep_unarmed() {
    // It spins while it waits, so that its own thread sleeps and it leaves awake.
    let (service, heard, client, peer) = service(TIMEOUT);
    for round in 1..=20 {
        // What comes as it leaves is found by its last look.
        drive_then(&service, || assert!(client.send(peer, vec![1]).wait().is_done()));
        soon("what came as it left", || heard.load(Ordering::SeqCst) == 2 * round - 1);
        assert!(client.send(peer, vec![2]).wait().is_done());
        soon("what came after it left", || heard.load(Ordering::SeqCst) == 2 * round);
    }
}

#[test]
fn who_does_a_single_step_leaves_nobody_asleep_unarmed() {
    let (service, heard, client, peer) = service(Duration::ZERO);
    for round in 1..=200 {
        for _ in 0..100 {
            let _ = service.progress();
        }
        assert!(client.send(peer, vec![1]).wait().is_done());
        soon("a message", || heard.load(Ordering::SeqCst) == round);
    }
}

#[test]
fn messages_that_found_no_room_come_when_there_is_some() {
    // More than are kept for a receiver, which looks and never drives.
    const MESSAGES: u64 = 4500;
    let owner = engine(Drive::Thread, Duration::ZERO);
    let client = engine(Drive::Thread, Duration::ZERO);
    let peer = client.connect(&owner.addresses()[0], TIMEOUT).unwrap();
    soon("the connection", || owner.try_recv().is_some());
    let (mut sent, mut received) = (0, 0);
    for _ in 0..5 {
        for _ in 0..MESSAGES {
            assert!(client.send(peer, vec![1]).wait().is_done());
        }
        sent += MESSAGES;
        soon("a full inbox", || owner.stats().messages_received >= received + 4096);
        soon("the rest", || {
            received += std::iter::from_fn(|| owner.try_recv()).count() as u64;
            received == sent
        });
    }
}

#[test]
fn a_word_is_watched_though_another_thread_drove_as_it_was_first() {
    let owner = engine(Drive::Thread, TIMEOUT);
    let region = owner.alloc(HostMemory::new(4096)).unwrap();
    for _ in 0..5 {
        let watcher = owner.watch(region.memory(), 64).unwrap();
        let told = Arc::new(AtomicU64::new(0));
        drive_then(&owner, || {
            let told = Arc::clone(&told);
            watcher.on_change(move |value| told.store(value, Ordering::SeqCst));
        });
        // As a GPU does it: nobody is told.
        // SAFETY: the word lives as long as its watcher, and is only used atomically.
        let word = unsafe { AtomicU64::from_ptr(watcher.as_ptr()) };
        let value = word.fetch_add(1, Ordering::Release) + 1;
        soon("a callback", || told.load(Ordering::SeqCst) == value);
    }
}

#[test]
fn a_wait_that_panics_as_it_falls_asleep_leaves_the_bed_to_others() {
    let owner = engine(Drive::Caller, Duration::ZERO);
    let client = engine(Drive::Thread, Duration::ZERO);
    let panics = || {
        let mut asked = 0;
        // The third time is when it has lain down already.
        owner.wait_until(TIMEOUT, || {
            asked += 1;
            assert!(asked < 3, "the third panics");
            false
        })
    };
    assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
    let asked = AtomicU32::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let began = Instant::now();
            assert!(owner.wait_until(TIMEOUT, || {
                asked.fetch_add(1, Ordering::SeqCst);
                owner.has_incoming()
            }));
            assert!(began.elapsed() < TIMEOUT / 4, "a wake-up was lost");
        });
        while asked.load(Ordering::SeqCst) < 3 {
            std::thread::yield_now();
        }
        drop(client.connect(&owner.addresses()[0], TIMEOUT));
    });
}

#[test]
fn who_waits_is_told_though_a_sink_panics_right_after() {
    let owner = Engine::builder()
        .polling(Polling::Adaptive { spin: Duration::ZERO })
        .drive(Drive::Thread)
        .on_incoming(|incoming| {
            assert!(!matches!(incoming, Incoming::Message { .. }), "messages panic");
        })
        .build()
        .unwrap();
    let client = engine(Drive::Thread, Duration::ZERO);
    let peer = client.connect(&owner.addresses()[0], TIMEOUT).unwrap();
    let arrivals = owner.counter().unwrap();
    for round in 1..=100 {
        let asked = AtomicU32::new(0);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let began = Instant::now();
                let arrived = || {
                    asked.fetch_add(1, Ordering::SeqCst);
                    arrivals.count() >= round
                };
                // The panic may come here, too.
                let waits = AssertUnwindSafe(|| owner.wait_until(TIMEOUT, arrived));
                let _ = catch_unwind(waits);
                assert!(began.elapsed() < TIMEOUT / 4, "a wake-up was lost");
            });
            // What is left of the round before may panic there at once.
            while asked.load(Ordering::SeqCst) < 3 && !waiter.is_finished() {
                std::thread::yield_now();
            }
            // Both come in one look, mostly: the word for the one who waits, then the panic.
            let mut batch = client.batch();
            batch
                .push(client.signal(peer, arrivals.slot()).lane(tranship_transport::Lane::Latency));
            batch.push(client.send(peer, vec![1]));
            assert!(batch.wait().iter().all(|outcome| outcome.is_done()));
        });
        soon("the arrival", || arrivals.count() == round);
    }
}
