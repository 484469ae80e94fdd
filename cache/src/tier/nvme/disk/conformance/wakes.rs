//! When a wait ends.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::Harness;
use super::kit::{PATIENCE, done, fill, memory, write};
use crate::tier::nvme::disk::PAGE_BYTES;
use crate::tier::{Lane, Span};

/// A wait that nothing ends lasts longer than a test may.
const LONG: Duration = Duration::from_secs(PATIENCE.as_secs() + 1);

/// Whichever thread calls it, before the wait or during it, and again and again.
pub fn a_waker_ends_a_wait<H: Harness>(device: &mut H) {
    let mut disk = device.open(&[]);
    let (waker, began) = (disk.waker(), Instant::now());
    let (ask, asked) = mpsc::channel::<()>();
    let other = thread::spawn(move || asked.iter().for_each(|()| waker()));
    for round in 0..200 {
        ask.send(()).expect("the other thread listens");
        disk.wait(LONG);
        assert!(began.elapsed() < PATIENCE, "round {round}");
        // Such waits may end for nothing, and must not use up a call that comes later.
        disk.wait(Duration::ZERO);
        disk.poll(&mut Vec::new());
    }
    drop(ask);
    other.join().expect("no panic");
    // A waker outlives its disk.
    let waker = disk.waker();
    drop(disk);
    waker();
}

/// One that was called while nobody waited, even with operations and polls in between.
pub fn a_waker_called_before_ends_the_next_wait<H: Harness>(device: &mut H) {
    let memory = memory(PAGE_BYTES);
    let mut disk = device.open(&[]);
    let (waker, began) = (disk.waker(), Instant::now());
    for round in 0..50 {
        waker();
        if round % 2 == 0 {
            disk.poll(&mut Vec::new());
        }
        disk.wait(LONG);
        assert!(began.elapsed() < PATIENCE, "round {round}");
        let span = Span::whole(Arc::clone(&memory));
        done(&mut *disk, write(round, Lane::Write, 0, span));
    }
}

/// Alone, without a call of the waker.
pub fn an_operation_that_ends_ends_a_wait<H: Harness>(device: &mut H) {
    let memory = memory(64 << 10);
    let mut disk = device.open(&[Arc::clone(&memory)]);
    let (mut ended, began) = (Vec::new(), Instant::now());
    let span = Span::whole(memory);
    fill(&span, 1, 0);
    for round in 0..50 {
        disk.submit(write(round, Lane::Write, 0, span.clone())).expect("room");
        while ended.is_empty() {
            disk.wait(LONG);
            assert!(began.elapsed() < PATIENCE, "round {round}");
            disk.poll(&mut ended);
        }
        ended.clear();
    }
}

/// Although nothing happens.
pub fn a_wait_ends_in_time<H: Harness>(device: &mut H) {
    let mut disk = device.open(&[]);
    let began = Instant::now();
    for within in [0, 1, 20] {
        disk.wait(Duration::from_millis(within));
    }
    assert!(began.elapsed() < PATIENCE);
}
