//! Words that somebody changes, and who hears of it.

#![cfg(not(loom))]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use tranship_transport::fabric::sim::{Config, Network};
use tranship_transport::{Drive, Engine, HostMemory, Polling, WatchError, Watcher};

const TIMEOUT: Duration = Duration::from_secs(30);

fn engine(drive: Drive) -> Engine {
    let polling = Polling::Adaptive { spin: Duration::ZERO };
    Engine::builder().drive(drive).polling(polling).deadline(TIMEOUT).build().unwrap()
}

fn watcher(engine: &Engine) -> Watcher {
    let region = engine.alloc(HostMemory::new(4096)).unwrap();
    engine.watch(region.memory(), 64).unwrap()
}

#[test]
fn a_watched_word_wakes_who_waits_whoever_bumps_it() {
    for drive in [Drive::Thread, Drive::Caller] {
        let engine = engine(drive);
        let watcher = watcher(&engine);
        assert_eq!(watcher.value(), 0);
        let none = watcher.wait(0, Duration::from_millis(5)).unwrap_err();
        assert_eq!(none.to_string(), "the watched word is still 0 after 5ms");
        for round in 0..50 {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    if round % 2 == 0 {
                        watcher.bump();
                    } else {
                        // As a GPU does it: nobody is told.
                        // SAFETY: the word lives as long as its watcher, and is only used atomically.
                        let word = unsafe { AtomicU64::from_ptr(watcher.as_ptr()) };
                        word.fetch_add(1, Ordering::Release);
                    }
                });
                assert_eq!(watcher.wait(round, TIMEOUT).unwrap(), round + 1);
            });
        }
    }
}

#[test]
fn a_callback_sees_the_last_change_and_may_use_the_engine() {
    let engine = engine(Drive::Thread);
    let region = engine.alloc(HostMemory::new(4096)).unwrap();
    let window = region.window(0..4096).unwrap();
    let writer = self::engine(Drive::Thread);
    let here = writer.alloc(HostMemory::new(4096)).unwrap();
    let to = writer.open(&window.descriptor()).unwrap();
    let back = writer.counter().unwrap();

    // A peer's one-sided write changes the word; the callback answers.
    let watcher = engine.watch(region.memory(), 128).unwrap();
    let peer = engine.connect(&writer.addresses()[0], TIMEOUT).unwrap();
    let (seen, values) = mpsc::channel();
    let (slot, answering) = (back.slot(), engine.clone());
    watcher.on_change(move |value| {
        seen.send(value).unwrap();
        assert!(answering.signal(peer, slot).submit().is_ok());
    });
    let mut last = 0;
    for value in 1u64..=100 {
        here.memory().write_at(0, &value.to_ne_bytes()).unwrap();
        let sent = writer.write(here.slice(0..8).unwrap(), to.slice(128..136).unwrap()).wait();
        assert!(sent.is_done(), "{sent}");
        if value % 10 == 0 {
            // Changes in between may be seen as one, the last is always seen.
            while last != value {
                let next = values.recv_timeout(TIMEOUT).unwrap();
                assert!(next > last, "{next} after {last}");
                last = next;
            }
        }
    }
    back.wait(10, TIMEOUT).unwrap();
    drop(watcher);
    for value in 101u64..120 {
        here.memory().write_at(0, &value.to_ne_bytes()).unwrap();
        let sent = writer.write(here.slice(0..8).unwrap(), to.slice(128..136).unwrap()).wait();
        assert!(sent.is_done(), "{sent}");
        let _ = engine.progress();
    }
    // At most the call that had begun when the watcher went.
    assert!(values.try_iter().count() <= 1);
}

#[test]
fn a_callback_may_replace_itself() {
    for drive in [Drive::Thread, Drive::Caller] {
        let engine = engine(drive);
        let watcher = Arc::new(watcher(&engine));
        let heard: Arc<Mutex<Vec<(&str, u64)>>> = Arc::default();
        let (itself, first, second) =
            (Arc::downgrade(&watcher), Arc::clone(&heard), Arc::clone(&heard));
        let mut second = Some(move |value| second.lock().unwrap().push(("second", value)));
        watcher.on_change(move |value| {
            first.lock().unwrap().push(("first", value));
            if let (Some(itself), Some(second)) = (itself.upgrade(), second.take()) {
                itself.on_change(second);
                // It knows the value by now, not the one to come.
                itself.bump();
            }
        });
        watcher.bump();
        assert!(engine.wait_until(TIMEOUT, || heard.lock().unwrap().len() == 2));
        assert_eq!(*heard.lock().unwrap(), [("first", 1), ("second", 2)]);
    }
}

#[test]
fn a_callback_may_wait_or_drop_its_watcher() {
    let engine = engine(Drive::Thread);
    let (first, second) = (Mutex::new(Some(watcher(&engine))), Arc::new(watcher(&engine)));
    let first = Arc::new(first);
    let done = Arc::new(AtomicBool::new(false));
    let (waits, word, flag) = (engine.clone(), Arc::clone(&second), Arc::clone(&done));
    let itself = Arc::clone(&first);
    first.lock().unwrap().as_ref().unwrap().on_change(move |_| {
        word.bump();
        assert!(!waits.wait_until(Duration::from_millis(1), || false));
        drop(itself.lock().unwrap().take());
        flag.store(true, Ordering::SeqCst);
        waits.wake();
    });
    first.lock().unwrap().as_ref().unwrap().bump();
    assert!(engine.wait_until(TIMEOUT, || done.load(Ordering::SeqCst)));
    assert_eq!(second.wait(0, TIMEOUT).unwrap(), 1);
    assert!(first.lock().unwrap().is_none());
}

/// Time moves on while a callback waits, though its word has something new to tell.
#[test]
fn a_callback_waits_in_simulated_time_though_its_word_changes() {
    let network = Network::new(Config::new(1));
    let engine = Engine::builder()
        .fabric(network.provider())
        .clock(network.clock())
        .drive(Drive::Caller)
        .build()
        .unwrap();
    let watcher = Arc::new(watcher(&engine));
    let calls = Arc::new(AtomicU64::new(0));
    let (waits, itself, counts) = (engine.clone(), Arc::downgrade(&watcher), Arc::clone(&calls));
    watcher.on_change(move |value| {
        if value == 1 {
            itself.upgrade().expect("it is still there").bump();
            assert!(!waits.wait_until(Duration::from_millis(1), || false));
        }
        counts.fetch_add(1, Ordering::SeqCst);
    });
    let began = engine.now();
    watcher.bump();
    assert!(engine.wait_until(TIMEOUT, || calls.load(Ordering::SeqCst) == 2));
    assert_eq!(engine.now().since(began), Duration::from_millis(1));
}

#[test]
fn a_word_that_never_stops_changing_leaves_the_thread_to_others() {
    const CHANGES: u64 = 1000;
    let engine = engine(Drive::Caller);
    let watcher = Arc::new(watcher(&engine));
    let (itself, calls) = (Arc::downgrade(&watcher), Arc::new(AtomicU64::new(0)));
    let counts = Arc::clone(&calls);
    watcher.on_change(move |value| {
        counts.fetch_add(1, Ordering::SeqCst);
        if value < CHANGES {
            itself.upgrade().expect("it is still there").bump();
        }
    });
    watcher.bump();
    engine.progress();
    assert!(calls.load(Ordering::SeqCst) < CHANGES / 10, "one step tells them all");
    assert!(engine.wait_until(TIMEOUT, || calls.load(Ordering::SeqCst) == CHANGES));
}

#[test]
fn words_that_cannot_be_watched_are_refused() {
    let engine = engine(Drive::Thread);
    let region = engine.alloc(HostMemory::new(4096)).unwrap();
    let refused = |at| engine.watch(region.memory(), at).unwrap_err();
    assert_eq!(refused(4), WatchError::Unaligned { offset: 4 });
    assert!(matches!(refused(4096), WatchError::Range(_)));
    assert!(matches!(refused(u64::MAX), WatchError::Unaligned { .. }));
}
