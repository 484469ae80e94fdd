//! Which thread has the disk.

use std::sync::Arc;
use std::thread;

use super::Harness;
use super::kit::{check, done, fill, memory, read, write};
use crate::tier::nvme::disk::PAGE_BYTES;
use crate::tier::{Lane, Span};

/// As the daemon does: one thread opens it and looks what is there, another goes on.
pub fn a_disk_may_change_threads_between_operations<H: Harness>(device: &mut H) {
    let memory = memory(1 << 20);
    let mut disk = device.open(&[Arc::clone(&memory)]);
    for seed in 0..4 {
        let span = Span::whole(Arc::clone(&memory));
        fill(&span, seed, 0);
        done(&mut *disk, write(seed, Lane::Write, 0, span));
        let memory = Arc::clone(&memory);
        let there = thread::spawn(move || {
            let later = super::kit::memory(PAGE_BYTES);
            disk.register(&later);
            memory.fill(0..memory.len(), 0).expect("writable");
            let span = Span::whole(memory);
            let span = done(&mut *disk, read(seed, Lane::Demand, 0, span)).expect("its span");
            check(&span, seed, 0);
            disk
        });
        disk = there.join().expect("no panic");
    }
}

/// With operations in flight that the first thread began, and which lives on.
pub fn a_disk_may_be_dropped_by_another_thread<H: Harness>(device: &mut H) {
    let memory = memory(16 << 20);
    for _ in 0..3 {
        let mut disk = device.open(&[Arc::clone(&memory)]);
        for token in 0..16 {
            let at = token << 20;
            let span = Span::new(Arc::clone(&memory), at..at + (1 << 20));
            disk.submit(read(token, Lane::Demand, at, span)).expect("room");
        }
        disk.poll(&mut Vec::new());
        thread::spawn(move || drop(disk)).join().expect("no panic");
        assert_eq!(Arc::strong_count(&memory), 1, "no span is kept");
        memory.fill(0..memory.len(), 0xee).expect("writable");
        // It can be opened again at once.
        let mut disk = device.open(&[]);
        let other = super::kit::memory(PAGE_BYTES);
        done(&mut *disk, read(0, Lane::Demand, 0, Span::whole(other)));
        super::kit::check_all(&Span::whole(Arc::clone(&memory)), 0xee);
    }
}
