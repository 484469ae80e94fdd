//! What the engine owes whatever the fabric: bounded queues that give back, ends that reach whoever
//! waits, and memory that goes when nothing touches it.

#![cfg(not(loom))]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use tranship_transport::{
    Drive, Engine, HostMemory, Incoming, Lane, Notifier, Outcome, Polling, Priority, Reason,
    Transfer,
};

const TIMEOUT: Duration = Duration::from_secs(30);
/// A wake-up that is lost shows as a wait of this length or more.
const LOST: Duration = Duration::from_secs(3);
const LEN: u64 = 1 << 20;

fn engine(drive: Drive) -> Engine {
    let polling = Polling::Adaptive { spin: Duration::ZERO };
    Engine::builder().drive(drive).polling(polling).deadline(TIMEOUT).build().unwrap()
}

#[test]
fn wake_reaches_every_waiting_thread() {
    for drive in [Drive::Thread, Drive::Caller] {
        let engine = engine(drive);
        for _ in 0..100 {
            let (done, asked) = (AtomicBool::new(false), AtomicU32::new(0));
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        let began = Instant::now();
                        assert!(engine.wait_until(TIMEOUT, || {
                            asked.fetch_add(1, Ordering::SeqCst);
                            done.load(Ordering::SeqCst)
                        }));
                        assert!(began.elapsed() < LOST, "{drive:?}: a wake-up was lost");
                    });
                }
                // A thread asks for the third time when it is about to sleep.
                while asked.load(Ordering::SeqCst) < 6 {
                    std::thread::yield_now();
                }
                done.store(true, Ordering::SeqCst);
                engine.wake();
            });
        }
    }
}

#[test]
fn closing_a_region_wakes_who_waits_for_its_parked_transfers() {
    // Nobody drives the owner: what is written to it stays parked behind the handshake.
    let owner = engine(Drive::Caller);
    let there = owner.alloc(HostMemory::new(LEN as usize)).unwrap();
    let window = there.window(0..LEN).unwrap();
    let writer = engine(Drive::Thread);
    let here = writer.alloc(HostMemory::new(LEN as usize)).unwrap();
    let remote = writer.open(&window.descriptor()).unwrap();
    let (local, remote) = (here.slice(0..LEN).unwrap(), remote.slice(0..LEN).unwrap());
    let transfer = writer.write(local, remote).submit().unwrap();
    let asked = AtomicU32::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let began = Instant::now();
            writer.wait_until(TIMEOUT, || {
                asked.fetch_add(1, Ordering::SeqCst);
                transfer.outcome().is_some()
            });
            assert_eq!(transfer.outcome(), Some(Outcome::Rejected(Reason::Closed)));
            assert!(began.elapsed() < LOST, "a wake-up was lost");
        });
        while asked.load(Ordering::SeqCst) < 3 {
            std::thread::yield_now();
        }
        here.close(TIMEOUT).unwrap();
    });
}

#[test]
fn what_is_of_another_engine_is_refused() {
    let (here, other, there) =
        (engine(Drive::Caller), engine(Drive::Caller), engine(Drive::Thread));
    let [ours, others, theirs] =
        [&here, &other, &there].map(|it| it.alloc(HostMemory::new(8)).unwrap());
    let window = theirs.window(0..8).unwrap();
    let [to, others_to] = [&here, &other].map(|it| it.open(&window.descriptor()).unwrap());
    let [ours, others] = [&ours, &others].map(|it| it.slice(0..8).unwrap());
    let [to, others_to] = [&to, &others_to].map(|it| it.slice(0..8).unwrap());
    let refused = Outcome::Rejected(Reason::OtherEngine);
    assert_eq!(here.write(&others, &to).wait(), refused);
    assert_eq!(here.read(&to, &others).wait(), refused);
    assert_eq!(here.write(&ours, &others_to).wait(), refused);
    assert_eq!(here.read(&others_to, &ours).wait(), refused);
    // A peer is a number; another engine's is nobody here.
    let peer = other.peer(&there.addresses()[0]).unwrap();
    assert_eq!(here.send(peer, *b"hello").wait(), Outcome::Rejected(Reason::PeerGone));
    let mut batch = here.batch();
    batch.extend([here.write(&ours, &to), other.write(&others, &others_to)]);
    assert_eq!(batch.wait(), [Outcome::Done, refused]);
    assert!(other.write(&others, &others_to).wait().is_done());
}

/// A lock that it poisoned, say, makes a sink panic each time. Nobody's panic meets another on its way
/// out, which would end the process.
#[test]
fn a_sink_that_always_panics_ends_nothing_else() {
    const MESSAGES: usize = 200;
    for drive in [Drive::Thread, Drive::Caller] {
        let calls = Arc::new(AtomicU32::new(0));
        let counts = Arc::clone(&calls);
        let sink = move |incoming| {
            if let Incoming::Message { .. } = incoming {
                counts.fetch_add(1, Ordering::SeqCst);
                panic!("this sink always panics");
            }
        };
        let polling = Polling::Adaptive { spin: Duration::ZERO };
        let builder = Engine::builder().drive(drive).polling(polling).on_incoming(sink);
        let owner = builder.build().unwrap();
        let writer = engine(Drive::Thread);
        let peer = writer.peer(&owner.addresses()[0]).unwrap();
        let sent: Vec<_> =
            (0..MESSAGES).map(|_| writer.send(peer, *b"hello").submit().unwrap()).collect();
        let all = || calls.load(Ordering::SeqCst) as usize == MESSAGES;
        let began = Instant::now();
        while !all() {
            assert!(began.elapsed() < TIMEOUT, "{drive:?}: {calls:?} messages came");
            let waits = || owner.wait_until(LOST, all);
            let _ = catch_unwind(AssertUnwindSafe(waits));
        }
        assert!(sent.iter().all(|transfer| transfer.wait().is_done()));
        owner.close(TIMEOUT).unwrap();
    }
}

/// Parks operations that nobody drives until the engine refuses more; how many it took.
fn flood(mut submit: impl FnMut() -> Transfer) -> usize {
    for taken in 0.. {
        match submit().outcome() {
            None => {}
            Some(outcome) => {
                assert_eq!(outcome, Outcome::Rejected(Reason::Full));
                return taken;
            }
        }
    }
    unreachable!("the limit is below what a usize counts")
}

#[test]
fn operations_beyond_the_limits_are_rejected_and_the_others_go_on() {
    // One peer that does not answer has half of all places at most; of the rest, bulk leaves some
    // to the latency lane.
    const LIMIT: usize = 1 << 16;
    const URGENT: usize = 1 << 12;
    let owners = [(); 3].map(|()| engine(Drive::Caller));
    let writer = engine(Drive::Caller);
    let peers = owners.each_ref().map(|owner| writer.peer(&owner.addresses()[0]).unwrap());
    let slot = writer.counter().unwrap().slot();
    let bulk = |peer| writer.signal(peer, slot).submit().unwrap();
    let urgent = |peer| writer.signal(peer, slot).lane(Lane::Latency).submit().unwrap();

    let first = bulk(peers[0]);
    assert_eq!(flood(|| bulk(peers[0])), LIMIT / 2 - URGENT - 1);
    assert_eq!(flood(|| bulk(peers[1])), LIMIT / 2 - URGENT);
    assert_eq!(flood(|| bulk(peers[2])), URGENT);
    // A flood in bulk leaves room for what is urgent, to the same peer, too.
    assert_eq!(flood(|| urgent(peers[0])), URGENT);
    first.cancel();
    assert_eq!(first.outcome(), Some(Outcome::Rejected(Reason::Cancelled)));
    assert_eq!(urgent(peers[0]).outcome(), None);
}

#[test]
fn what_is_urgent_does_not_wait_for_messages_that_nobody_takes() {
    // The connection is in the inbox, too.
    const INBOX: u64 = 4095;
    const MESSAGES: usize = 8192;
    // The owner runs and never receives: messages wait there, in the ring and here.
    let owner = engine(Drive::Thread);
    let there = owner.alloc(HostMemory::new(4096)).unwrap();
    let window = there.window(0..4096).unwrap();
    let arrivals = owner.counter().unwrap();
    let writer = engine(Drive::Thread);
    let peer = writer.connect(&owner.addresses()[0], TIMEOUT).unwrap();
    let here = writer.alloc(HostMemory::new(4096)).unwrap();
    let to = writer.open(&window.descriptor()).unwrap();
    // The inbox and the ring hold some of them; the rest stays here.
    let mut stuck = Vec::new();
    while stuck.len() < MESSAGES {
        match writer.send(peer, vec![0; 1 << 10]).submit() {
            Ok(sent) => stuck.push(sent),
            Err(_) => std::thread::yield_now(),
        }
    }
    let began = Instant::now();
    while owner.stats().messages_received < INBOX {
        assert!(began.elapsed() < TIMEOUT, "the inbox is not full");
        std::thread::yield_now();
    }
    stuck.retain(|sent| sent.outcome().is_none());
    assert!(!stuck.is_empty(), "the ring holds all of them");
    let write = || writer.write(here.slice(0..8).unwrap(), to.slice(0..8).unwrap());
    let urgent = || write().immediate(arrivals.slot()).lane(Lane::Latency).deadline(LOST);
    assert_eq!(urgent().wait(), Outcome::Done);
    let signal = writer.signal(peer, arrivals.slot()).lane(Lane::Latency).deadline(LOST);
    assert_eq!(signal.wait(), Outcome::Done);
    arrivals.wait(2, TIMEOUT).unwrap();
    // Those that wait keep their order and go once somebody receives.
    let last = writer.send(peer, vec![1]).submit().unwrap();
    loop {
        match owner.recv(TIMEOUT).expect("all messages come") {
            Incoming::Message { bytes, .. } if bytes.len() == 1 => break,
            _ => {}
        }
    }
    assert!(stuck.iter().chain([&last]).all(|sent| sent.wait().is_done()));
}

#[test]
fn what_is_urgent_goes_before_what_waits() {
    // All wait for the connection; the inbox of the owner shows the order in which they went.
    let owner = engine(Drive::Caller);
    let there = owner.alloc(HostMemory::new(LEN as usize)).unwrap();
    let window = there.window(0..LEN).unwrap();
    let writer = engine(Drive::Caller);
    let here = writer.alloc(HostMemory::new(LEN as usize)).unwrap();
    let to = writer.open(&window.descriptor()).unwrap();
    // Each writes the same byte: the last one to go is what stays.
    let write = |value: u8| {
        here.memory().write_at(usize::from(value), &[value]).unwrap();
        let at = u64::from(value);
        writer.write(here.slice(at..at + 1).unwrap(), to.slice(0..1).unwrap())
    };
    let sent = [
        write(1).priority(Priority::Low).submit().unwrap(),
        write(2).submit().unwrap(),
        write(3).priority(Priority::High).submit().unwrap(),
        write(4).lane(Lane::Latency).submit().unwrap(),
    ];
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| owner.wait_until(TIMEOUT, || ended.load(Ordering::SeqCst)));
        for transfer in &sent {
            assert!(transfer.wait().is_done());
        }
        ended.store(true, Ordering::SeqCst);
        owner.wake();
    });
    let mut byte = [0];
    there.memory().read_at(0, &mut byte).unwrap();
    assert_eq!(byte, [1], "the lowest priority goes last");
}

#[test]
fn dropping_the_engine_ends_what_is_in_flight() {
    const TRANSFERS: u64 = 16;
    let owner = engine(Drive::Thread);
    let there = owner.alloc(HostMemory::new(LEN as usize)).unwrap();
    let window = there.window(0..LEN).unwrap();
    for _ in 0..20 {
        let notifier = Notifier::new().unwrap();
        let writer = engine(Drive::Thread);
        let here = writer.alloc(HostMemory::new(LEN as usize)).unwrap();
        let memory = Arc::downgrade(here.memory());
        let remote = writer.open(&window.descriptor()).unwrap();
        for _ in 0..TRANSFERS {
            let (local, remote) = (here.slice(0..LEN).unwrap(), remote.slice(0..LEN).unwrap());
            drop(writer.write(local, remote).notify(&notifier).submit().unwrap());
        }
        drop((here, remote, writer));
        assert_eq!(notifier.take(), TRANSFERS, "every transfer has ended");
        assert!(memory.upgrade().is_none(), "its memory is gone");
    }
}

#[test]
fn the_memory_of_a_dropped_region_goes_though_nobody_waits() {
    let engine = engine(Drive::Thread);
    for _ in 0..50 {
        let region = engine.alloc(HostMemory::new(4096)).unwrap();
        let memory = Arc::downgrade(region.memory());
        drop(region);
        let began = Instant::now();
        while memory.upgrade().is_some() {
            assert!(began.elapsed() < LOST, "the memory is kept");
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_sink_that_panics_loses_nothing_that_came_behind() {
    const MESSAGES: u8 = 8;
    for drive in [Drive::Thread, Drive::Caller] {
        let (seen, values) = mpsc::channel();
        let owner = Engine::builder()
            .drive(drive)
            .on_incoming(move |incoming| {
                if let Incoming::Message { bytes, .. } = incoming {
                    seen.send(bytes[0]).unwrap();
                    assert_ne!(bytes[0], 3, "the fourth panics");
                }
            })
            .build()
            .unwrap();
        let writer = engine(Drive::Thread);
        let peer = writer.peer(&owner.addresses()[0]).unwrap();
        let sent: Vec<_> =
            (0..MESSAGES).map(|value| writer.send(peer, vec![value]).submit().unwrap()).collect();
        let (mut got, mut panics) = (Vec::new(), 0);
        while got.len() < usize::from(MESSAGES) {
            let waits = || {
                owner.wait_until(TIMEOUT, || {
                    got.extend(values.try_iter());
                    got.len() == usize::from(MESSAGES)
                })
            };
            match catch_unwind(AssertUnwindSafe(waits)) {
                Ok(came) => assert!(came, "something was lost"),
                Err(_) => panics += 1,
            }
        }
        assert!(panics <= 1, "{panics}");
        assert_eq!(got, (0..MESSAGES).collect::<Vec<_>>());
        assert!(sent.iter().all(|transfer| transfer.wait().is_done()));
    }
}
