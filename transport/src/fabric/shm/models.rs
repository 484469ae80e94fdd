//! What loom (<https://docs.rs/loom>) checks of the lock-free parts, over all interleavings that
//! the memory model allows:
//! `RUSTFLAGS="--cfg loom" cargo test -p tranship-transport --lib loom_`.

use std::sync::atomic::Ordering;

use loom::sync::Arc;
use loom::sync::atomic::AtomicU64;
use loom::thread;

use super::gate::{Sleeper, Waker};
use super::hazard;
use super::ring::{Consumer, Producer, Pushed};
use super::ring_cells::Cells;

/// A record is seen whole or not at all, and room is never given away twice.
#[test]
fn loom_ring_publishes_whole_records() {
    loom::model(|| {
        // The second record needs room that the first one held.
        let cells = Cells::new(2);
        let mut producer = Producer::new(Arc::clone(&cells));
        let mut consumer = Consumer::new(cells);
        let sender = thread::spawn(move || {
            assert_eq!(producer.push(Some(b"payload1"), Some(1)), Ok(Pushed::Done));
            producer.push(Some(b"payload2"), Some(2)).unwrap() == Pushed::Done
        });
        let mut next = 1;
        for _ in 0..2 {
            if let Some(record) = consumer.peek().unwrap() {
                assert_eq!(record.immediate, Some(next));
                assert_eq!(consumer.take(record), format!("payload{next}").into_bytes());
                consumer.release();
                next += 1;
            }
        }
        let both = sender.join().unwrap();
        while let Some(record) = consumer.peek().unwrap() {
            assert_eq!(record.immediate, Some(next));
            assert_eq!(consumer.take(record), format!("payload{next}").into_bytes());
            next += 1;
        }
        assert_eq!(next, if both { 3 } else { 2 });
    });
}

/// Whoever goes to sleep has seen the work, or is rung for.
#[test]
fn loom_gate_loses_no_wake_up() {
    loom::model(|| {
        let epoch = Arc::new(AtomicU64::new(0));
        let work = Arc::new(AtomicU64::new(0));
        let bell = Arc::new(AtomicU64::new(0));
        let wakers = [1, 2].map(|_| {
            let (epoch, work, bell) = (Arc::clone(&epoch), Arc::clone(&work), Arc::clone(&bell));
            thread::spawn(move || {
                let mut waker = Waker::default();
                work.fetch_add(1, Ordering::Release);
                if waker.must_ring(&*epoch) {
                    bell.store(1, Ordering::Release);
                }
            })
        });
        let mut sleeper = Sleeper::default();
        sleeper.lie_down(&*epoch);
        let seen = work.load(Ordering::Acquire);
        for waker in wakers {
            waker.join().unwrap();
        }
        assert!(seen == 2 || bell.load(Ordering::Acquire) == 1, "asleep with work to do");
    });
}

/// A waker rings once per epoch, and that is enough: no work is lost over two naps.
#[test]
fn loom_gate_rings_once_per_nap() {
    loom::model(|| {
        let epoch = Arc::new(AtomicU64::new(0));
        let work = Arc::new(AtomicU64::new(0));
        let bell = Arc::new(AtomicU64::new(0));
        let waker = {
            let (epoch, work, bell) = (Arc::clone(&epoch), Arc::clone(&work), Arc::clone(&bell));
            thread::spawn(move || {
                let mut waker = Waker::default();
                for number in 1..=2 {
                    work.store(number, Ordering::Release);
                    if waker.must_ring(&*epoch) {
                        bell.store(1, Ordering::Release);
                    }
                }
            })
        };
        let mut sleeper = Sleeper::default();
        sleeper.lie_down(&*epoch);
        let _ = work.load(Ordering::Acquire);
        // It is woken, clears the bell, works, and goes to sleep again.
        sleeper.get_up(&*epoch);
        bell.swap(0, Ordering::AcqRel);
        sleeper.lie_down(&*epoch);
        let seen = work.load(Ordering::Acquire);
        waker.join().unwrap();
        assert!(seen == 2 || bell.load(Ordering::Acquire) == 1, "asleep with work to do");
    });
}

/// A producer that found no room is told of room, or finds it before it sleeps.
#[test]
fn loom_ring_tells_of_room() {
    loom::model(|| {
        let cells = Cells::new(2);
        let epoch = Arc::new(AtomicU64::new(0));
        let bell = Arc::new(AtomicU64::new(0));
        let mut producer = Producer::new(Arc::clone(&cells));
        let mut consumer = Consumer::new(cells);
        for immediate in 0..2 {
            assert_eq!(producer.push(None, Some(immediate)), Ok(Pushed::Done));
        }
        let taker = {
            let (epoch, bell) = (Arc::clone(&epoch), Arc::clone(&bell));
            thread::spawn(move || {
                let mut waker = Waker::default();
                while let Some(record) = consumer.peek().unwrap() {
                    consumer.take(record);
                }
                if consumer.release() && waker.must_ring(&*epoch) {
                    bell.store(1, Ordering::Release);
                }
            })
        };
        let pushed = producer.push(None, Some(2)).unwrap();
        let mut sleeper = Sleeper::default();
        sleeper.lie_down(&*epoch);
        let awake = pushed == Pushed::Done || producer.has_room_again().unwrap();
        taker.join().unwrap();
        assert!(awake || bell.load(Ordering::Acquire) == 1, "asleep with room to use");
    });
}

/// No byte lands in a window once its owner has seen no claim on it.
#[test]
fn loom_hazard_fences_late_writes() {
    const CLAIM: u64 = 7;
    const STAMP: u64 = 1;
    const REUSED: u64 = 99;
    loom::model(|| {
        let hazards = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let stamp = Arc::new(AtomicU64::new(STAMP));
        let page = Arc::new(AtomicU64::new(0));
        let writers = [0, 1].map(|copier| {
            let (hazards, stamp, page) =
                (Arc::clone(&hazards), Arc::clone(&stamp), Arc::clone(&page));
            thread::spawn(move || {
                if hazard::enter(&hazards[copier], CLAIM, &*stamp, STAMP) {
                    page.store(copier as u64 + 1, Ordering::Relaxed);
                    hazard::leave(&hazards[copier]);
                }
            })
        });
        hazard::shut(&*stamp);
        let fenced = !hazard::claimed(hazards.iter(), CLAIM);
        if fenced {
            page.store(REUSED, Ordering::Relaxed);
        }
        for writer in writers {
            writer.join().unwrap();
        }
        if fenced {
            assert_eq!(page.load(Ordering::Relaxed), REUSED, "a late write in a reused page");
        }
    });
}
