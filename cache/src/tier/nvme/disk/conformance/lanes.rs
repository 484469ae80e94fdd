//! Lanes: back-pressure, and that none holds another up.

use std::sync::Arc;
use std::time::Instant;

use super::kit::{PATIENCE, check, done, fill, finish, memory, read, write};
use super::{DEVICE_BYTES, Harness};
use crate::tier::nvme::disk::{Disk, Kind, PAGE_BYTES};
use crate::tier::{Lane, Span};

/// More operations than any lane takes.
const FLOOD: u64 = 1 << 20;

/// Fills a lane with writes of `span`; how many it took.
fn flood(disk: &mut dyn Disk, lane: Lane, span: &Span) -> u64 {
    let places = DEVICE_BYTES / span.len() as u64;
    for token in 0..FLOOD {
        let at = token % places * span.len() as u64;
        if let Err(op) = disk.submit(write(token, lane, at, span.clone())) {
            assert_eq!(op.token, token, "what is given back is what was asked for");
            assert!(matches!(op.kind, Kind::Write { at: back, .. } if back == at));
            return token;
        }
    }
    panic!("a lane without an end");
}

/// What does not fit comes back whole; when something has ended there is room again.
pub fn a_full_lane_gives_operations_back<H: Harness>(device: &mut H) {
    let memory = memory(PAGE_BYTES);
    let span = Span::whole(memory);
    for lane in [Lane::Demand, Lane::Prefetch, Lane::Write] {
        let mut disk = device.open(&[]);
        let taken = flood(&mut *disk, lane, &span);
        assert!(taken > 0, "an empty lane takes something");
        assert_eq!(disk.in_flight() as u64, taken);
        let ended = finish(&mut *disk);
        assert_eq!(ended.len() as u64, taken);
        assert!(ended.iter().all(|ended| ended.result.is_ok()));
        done(&mut *disk, write(1, lane, 0, span.clone()));
    }
}

/// While one lane is full the others take operations, and those end although more comes all the time.
pub fn a_full_lane_does_not_hold_others_up<H: Harness>(device: &mut H) {
    let memory = memory(2 << 20);
    let mut disk = device.open(&[Arc::clone(&memory)]);
    let (load, block) = (0..1 << 20, 1 << 20..(1 << 20) + (64 << 10));
    let load = Span::new(Arc::clone(&memory), load);
    let block = Span::new(memory, block);
    fill(&block, 4, 0);
    let mut ended = Vec::new();
    for round in 1..=20 {
        flood(&mut *disk, Lane::Write, &load);
        let token = FLOOD + round;
        disk.submit(read(token, Lane::Demand, 0, block.clone())).expect("a lane of its own");
        let began = Instant::now();
        loop {
            disk.poll(&mut ended);
            let found = ended.drain(..).any(|ended| ended.token == token);
            if found {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "a read waits for ever");
            flood(&mut *disk, Lane::Write, &load);
            disk.wait(PATIENCE);
        }
        assert!(disk.in_flight() > 0, "the read waited for all writes");
    }
    finish(&mut *disk);
}

/// Writes end although there is always more to read than the device takes at once.
pub fn no_lane_starves<H: Harness>(device: &mut H) {
    const READS: u64 = 200;
    let memory = memory(3 << 20);
    let mut disk = device.open(&[Arc::clone(&memory)]);
    let block = |at: u64| Span::new(Arc::clone(&memory), at..at + (64 << 10));
    fill(&block(1 << 20), 3, 0);
    let began = Instant::now();
    for token in 0..READS {
        disk.submit(read(token, Lane::Demand, 0, block(0))).expect("room");
    }
    disk.submit(write(FLOOD, Lane::Write, 4 << 20, block(1 << 20))).expect("room");
    disk.submit(read(FLOOD + 1, Lane::Prefetch, 0, block(2 << 20))).expect("room");
    let (mut ended, mut others) = (Vec::new(), 2);
    while others > 0 {
        assert!(began.elapsed() < PATIENCE, "a lane starves");
        disk.wait(PATIENCE);
        disk.poll(&mut ended);
        for one in ended.drain(..) {
            assert_eq!(one.result, Ok(()));
            if one.token < FLOOD {
                disk.submit(read(one.token, Lane::Demand, 0, block(0))).expect("room");
            } else {
                others -= 1;
            }
        }
    }
    finish(&mut *disk);
    let span = done(&mut *disk, read(0, Lane::Demand, 4 << 20, block(0))).expect("its span");
    check(&span, 3, 0);
}
