//! Models of how work reaches the holder of a worker's lock, in the steps of [`worker`](super::worker)
//! and [`core`](super::core): the queues there are crossbeam's, which loom does not know, so one cell
//! stands for each.

use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use loom::sync::{Arc, Mutex};
use loom::thread;

/// A worker: its lock, and one place in its queue.
struct Desk {
    lock: Mutex<u32>,
    queued: AtomicBool,
}

impl Desk {
    fn new() -> Arc<Self> {
        Arc::new(Self { lock: Mutex::new(0), queued: AtomicBool::new(false) })
    }

    fn drain(&self, taken: &mut u32) {
        *taken += u32::from(self.queued.swap(false, Ordering::AcqRel));
    }

    /// `Worker::release`, from a guard that is given back.
    fn look_again(&self) {
        loop {
            fence(Ordering::SeqCst);
            if !self.queued.load(Ordering::Acquire) {
                return;
            }
            let Ok(mut taken) = self.lock.try_lock() else { return };
            self.drain(&mut taken);
        }
    }

    /// `Worker::submit` and `Worker::drain_if_free`.
    fn push(&self) {
        if let Ok(mut taken) = self.lock.try_lock() {
            *taken += 1;
            drop(taken);
            self.look_again();
            return;
        }
        self.queued.swap(true, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        if let Ok(mut taken) = self.lock.try_lock() {
            self.drain(&mut taken);
            drop(taken);
            self.look_again();
        }
    }

    /// A step of whoever drives.
    fn step(&self) {
        if let Ok(mut taken) = self.lock.try_lock() {
            self.drain(&mut taken);
            drop(taken);
            self.look_again();
        }
    }
}

#[test]
fn loom_no_command_is_stranded() {
    loom::model(|| {
        let desk = Desk::new();
        let pusher = {
            let desk = Arc::clone(&desk);
            thread::spawn(move || desk.push())
        };
        desk.step();
        pusher.join().unwrap();
        assert_eq!(*desk.lock.lock().unwrap(), 1, "taken by one of the two, without another step");
    });
}

#[test]
fn loom_a_cancellation_finds_a_transfer_that_changes_workers() {
    loom::model(|| {
        // Which worker has it; whether it was cancelled; which workers were told to end it.
        let shared = Arc::new((
            AtomicU32::new(0),
            AtomicBool::new(false),
            [AtomicBool::new(false), AtomicBool::new(false)],
        ));
        let canceller = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                shared.1.swap(true, Ordering::SeqCst);
                fence(Ordering::SeqCst);
                let worker = shared.0.load(Ordering::Acquire);
                shared.2[worker as usize].store(true, Ordering::Release);
            })
        };
        // `Core::admit` of the second worker.
        shared.0.store(1, Ordering::Release);
        fence(Ordering::SeqCst);
        let seen = shared.1.load(Ordering::Acquire);
        canceller.join().unwrap();
        assert!(seen || shared.2[1].load(Ordering::Acquire), "one of the two sees the other");
    });
}
