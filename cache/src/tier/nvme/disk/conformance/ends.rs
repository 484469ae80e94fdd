//! Every operation ends, once, and gives its span back.

use std::collections::HashSet;
use std::sync::Arc;

use super::kit::{check, check_all, done, fill, finish, flush, memory, read, write};
use super::{DEVICE_BYTES, Harness};
use crate::tier::nvme::disk::{Kind, Op, PAGE_BYTES};
use crate::tier::{Lane, Span};

/// Each token comes back once, with what it came with.
pub fn every_operation_ends_once<H: Harness>(device: &mut H) {
    const OPS: u64 = 300;
    let memory = memory(OPS * PAGE_BYTES);
    let mut disk = device.open(&[Arc::clone(&memory)]);
    let mut seen = HashSet::new();
    for token in 0..OPS {
        let span = Span::new(Arc::clone(&memory), token * PAGE_BYTES..(token + 1) * PAGE_BYTES);
        let lane = [Lane::Demand, Lane::Prefetch, Lane::Write][token as usize % 3];
        let op = match token % 7 {
            0 => flush(token, lane),
            1..4 => read(token, lane, token * PAGE_BYTES, span),
            _ => write(token, lane, token * PAGE_BYTES, span),
        };
        disk.submit(op).expect("room for a hundred in each lane");
        assert_eq!(
            disk.in_flight() as u64,
            token + 1,
            "what was taken has not ended before a poll"
        );
    }
    for ended in finish(&mut *disk) {
        assert_eq!(ended.result, Ok(()));
        assert!(seen.insert(ended.token), "{} ended twice", ended.token);
        let (at, span) = match &ended.kind {
            Kind::Read { at, into } => (at, into),
            Kind::Write { at, from } => (at, from),
            Kind::Flush => {
                assert_eq!(ended.token % 7, 0);
                continue;
            }
        };
        let here = ended.token * PAGE_BYTES;
        assert_eq!((*at, span.offset() as u64, span.len() as u64), (here, here, PAGE_BYTES));
    }
    assert_eq!(seen.len() as u64, OPS);
    assert_eq!(disk.in_flight(), 0);
    drop(disk);
    assert_eq!(Arc::strong_count(&memory), 1, "no span is kept");
}

/// An operation of no bytes ends well.
pub fn nothing_can_be_read_and_written<H: Harness>(device: &mut H) {
    let memory = memory(PAGE_BYTES);
    let mut disk = device.open(&[]);
    let nothing = Span::new(memory, 0..0);
    done(&mut *disk, read(1, Lane::Demand, DEVICE_BYTES, nothing.clone()));
    done(&mut *disk, write(2, Lane::Write, 0, nothing));
}

/// Writes, and then a flush, in every lane.
pub fn a_flush_ends_after_writes<H: Harness>(device: &mut H) {
    let memory = memory(1 << 20);
    let mut disk = device.open(&[]);
    for (seed, lane) in [(1, Lane::Demand), (2, Lane::Prefetch), (3, Lane::Write)] {
        let span = Span::whole(Arc::clone(&memory));
        fill(&span, seed, 0);
        let span = done(&mut *disk, write(seed, lane, 0, span)).expect("its span");
        done(&mut *disk, flush(seed, lane));
        memory.fill(0..memory.len(), 0).expect("writable");
        let span = done(&mut *disk, read(seed, lane, 0, span)).expect("its span");
        check(&span, seed, 0);
    }
}

/// Memory that nobody else holds stays until the operation has ended.
pub fn a_span_keeps_its_memory<H: Harness>(device: &mut H) {
    let mut disk = device.open(&[]);
    for round in 0..20 {
        let memory = memory(4 << 20);
        let weak = Arc::downgrade(&memory);
        // Registered memory is let go as well.
        if round % 2 == 0 {
            disk.register(&memory);
        }
        let span = Span::whole(memory);
        fill(&span, round, 0);
        disk.submit(write(round, Lane::Write, 0, span)).expect("room");
        let ended = finish(&mut *disk).remove(0);
        let Kind::Write { from, .. } = &ended.kind else { panic!("a write comes back as one") };
        check(from, round, 0);
        assert!(weak.upgrade().is_some());
        drop(ended);
        assert!(weak.upgrade().is_none(), "the disk keeps memory that it does not use");
    }
}

/// Once the disk is gone no byte of any memory changes, and no span is held; what was never begun has
/// not happened.
pub fn a_disk_dropped_with_operations_in_flight_touches_nothing_more<H: Harness>(device: &mut H) {
    const OP_BYTES: u64 = 256 << 10;
    let memory = memory(DEVICE_BYTES);
    let mut disk = device.open(&[Arc::clone(&memory)]);
    let whole = Span::whole(Arc::clone(&memory));
    fill(&whole, 9, 0);
    done(&mut *disk, write(0, Lane::Write, 0, whole.clone()));
    for _ in 0..3 {
        let op = |token: u64| -> Op {
            let at = token * OP_BYTES;
            let span = Span::new(Arc::clone(&memory), at..at + OP_BYTES);
            read(token, [Lane::Demand, Lane::Prefetch][token as usize % 2], at, span)
        };
        for token in 0..DEVICE_BYTES / OP_BYTES {
            disk.submit(op(token)).expect("room");
        }
        disk.poll(&mut Vec::new());
        drop(disk);
        memory.fill(0..memory.len(), 0xee).expect("writable");
        assert_eq!(Arc::strong_count(&memory), 2, "no span is kept");
        // Other work on the same device, so that what is late has time to come.
        disk = device.open(&[]);
        let other = super::kit::memory(8 << 20);
        let span =
            done(&mut *disk, read(0, Lane::Demand, 0, Span::whole(other))).expect("its span");
        check(&span, 9, 0);
        check_all(&whole, 0xee);
    }
}
