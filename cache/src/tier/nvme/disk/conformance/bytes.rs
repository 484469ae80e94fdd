//! What was written is what is read.

use std::sync::Arc;
use std::time::Instant;

use super::kit::{PATIENCE, check, check_all, done, fill, finish, flush, memory, read, write};
use super::{DEVICE_BYTES, Harness};
use crate::tier::nvme::disk::{Kind, PAGE_BYTES};
use crate::tier::nvme::testing::Dice;
use crate::tier::{Lane, Span};

/// Whatever the size, from one page to 16 MiB, and wherever it begins.
pub fn bytes_come_back_in_every_size<H: Harness>(device: &mut H) {
    let memory = memory(16 << 20);
    let mut disk = device.open(&[Arc::clone(&memory)]);
    let sizes = [1, 2, 3, 16, 17, 64, 255, 256, 257, 1024, 2047, 4096].map(|n| n * PAGE_BYTES);
    for (seed, bytes) in (1..).zip(sizes) {
        for at in [0, PAGE_BYTES * 7, DEVICE_BYTES - bytes] {
            let span = Span::new(Arc::clone(&memory), (16 << 20) - bytes..16 << 20);
            fill(&span, seed, at);
            let span = done(&mut *disk, write(seed, Lane::Write, at, span)).expect("its span");
            memory.fill(0..memory.len(), 0).expect("writable");
            let span = done(&mut *disk, read(seed, Lane::Demand, at, span)).expect("its span");
            check(&span, seed, at);
        }
    }
}

/// Memories that the disk was told of at the beginning, later, and never; of odd lengths, too.
pub fn bytes_come_back_from_every_memory<H: Harness>(device: &mut H) {
    let told = memory(3 << 20);
    let mut disk = device.open(&[Arc::clone(&told)]);
    let later = memory((2 << 20) + 5);
    disk.register(&later);
    // Told twice is told once.
    disk.register(&told);
    let memories = [told, later, memory(1 << 20), memory(2 << 20)];
    for round in 0..3 {
        for (seed, memory) in (1..).zip(&memories) {
            let pages = memory.len() as u64 / PAGE_BYTES;
            let span = Span::new(Arc::clone(memory), 0..pages * PAGE_BYTES);
            fill(&span, seed + round * 16, 0);
            disk.submit(write(seed, Lane::Write, seed << 22, span)).expect("room");
        }
        assert!(finish(&mut *disk).iter().all(|ended| ended.result.is_ok()));
        for (seed, memory) in (1..).zip(&memories) {
            memory.fill(0..memory.len(), 0).expect("writable");
            let pages = memory.len() as u64 / PAGE_BYTES;
            let span = Span::new(Arc::clone(memory), 0..pages * PAGE_BYTES);
            disk.submit(read(seed, Lane::Prefetch, seed << 22, span)).expect("room");
        }
        for ended in finish(&mut *disk) {
            let Kind::Read { into, .. } = ended.kind else { panic!("a read comes back as one") };
            check(&into, ended.token + round * 16, 0);
        }
    }
}

/// A disk that is opened again has the bytes of before.
pub fn bytes_stay_when_the_disk_is_opened_again<H: Harness>(device: &mut H) {
    let memory = memory(1 << 20);
    let mut disk = device.open(&[]);
    let span = Span::whole(Arc::clone(&memory));
    fill(&span, 5, 0);
    let span = done(&mut *disk, write(1, Lane::Write, 3 << 20, span)).expect("its span");
    done(&mut *disk, flush(2, Lane::Write));
    drop(disk);
    memory.fill(0..memory.len(), 0).expect("writable");
    let mut disk = device.open(&[]);
    assert_eq!(disk.bytes(), DEVICE_BYTES);
    let span = done(&mut *disk, read(3, Lane::Demand, 3 << 20, span)).expect("its span");
    check(&span, 5, 0);
}

/// Not a byte before or behind a write changes on the disk, nor one beside the span of a read in memory.
pub fn an_operation_changes_nothing_beside_it<H: Harness>(device: &mut H) {
    const BYTES: u64 = 8 << 20;
    let memory = memory(BYTES);
    let mut disk = device.open(&[Arc::clone(&memory)]);
    let whole = Span::whole(Arc::clone(&memory));
    fill(&whole, 1, 0);
    done(&mut *disk, write(1, Lane::Write, 0, whole.clone()));
    let (start, end) = (PAGE_BYTES * 301, PAGE_BYTES * 1403);
    let part = whole.slice(start as usize..end as usize);
    fill(&part, 2, 0);
    done(&mut *disk, write(2, Lane::Write, start, part.clone()));
    memory.fill(0..memory.len(), 0xee).expect("writable");
    done(&mut *disk, read(3, Lane::Demand, start, part.clone()));
    check(&part, 2, 0);
    check_all(&whole.slice(0..start as usize), 0xee);
    check_all(&whole.slice(end as usize..whole.len()), 0xee);
    done(&mut *disk, read(4, Lane::Demand, 0, whole.clone()));
    check(&whole.slice(0..start as usize), 1, 0);
    check(&whole.slice(end as usize..whole.len()), 1, end / PAGE_BYTES);
}

/// Reads, writes and flushes of any size in any lane, many at once: a read sees the last write of each
/// page that had ended when it began.
pub fn any_program_of_reads_and_writes_sees_what_was_written<H: Harness>(device: &mut H) {
    /// The disk is used in stretches, each by one operation at a time.
    const STRETCH_BYTES: u64 = 1 << 20;
    const STEPS: u64 = 600;
    let stretches = DEVICE_BYTES / STRETCH_BYTES;
    let memories = [memory(DEVICE_BYTES / 2), memory(DEVICE_BYTES / 2)];
    let mut disk = device.open(&memories[..1]);
    let slot = |stretch: u64| {
        let (memory, at) = (&memories[(stretch % 2) as usize], stretch / 2 * STRETCH_BYTES);
        Span::new(Arc::clone(memory), at..at + STRETCH_BYTES)
    };
    let mut written: Vec<Option<u64>> = vec![None; stretches as usize];
    let mut busy = vec![false; stretches as usize];
    let (mut dice, mut ended, began) = (Dice::new(42), Vec::new(), Instant::now());
    for step in 1..=STEPS {
        assert!(began.elapsed() < PATIENCE, "at step {step}");
        let stretch = dice.below(stretches);
        let lane = [Lane::Demand, Lane::Prefetch, Lane::Write][dice.below(3) as usize];
        if dice.below(50) == 0 {
            let _ = disk.submit(flush(u64::MAX, lane));
        } else if !std::mem::replace(&mut busy[stretch as usize], true) {
            let at = stretch * STRETCH_BYTES;
            let op = match written[stretch as usize] {
                Some(_) if dice.below(2) == 0 => {
                    // Some pages of what was written.
                    let first = dice.below(256);
                    let pages = 1 + dice.below(256 - first);
                    let range = first * PAGE_BYTES..(first + pages) * PAGE_BYTES;
                    let into = slot(stretch).slice(range.start as usize..range.end as usize);
                    read(stretch, lane, at + range.start, into)
                }
                _ => {
                    written[stretch as usize] = Some(step);
                    fill(&slot(stretch), step, 0);
                    write(stretch, lane, at, slot(stretch))
                }
            };
            disk.submit(op).expect("fewer than a lane has room for");
        }
        if dice.below(8) == 0 {
            disk.wait(PATIENCE.min(std::time::Duration::from_millis(dice.below(3))));
        }
        disk.poll(&mut ended);
        if step == STEPS {
            ended.extend(finish(&mut *disk));
        }
        for one in ended.drain(..) {
            assert_eq!(one.result, Ok(()));
            if let Kind::Read { at, into } = &one.kind {
                let seed = written[one.token as usize].expect("only what was written is read");
                check(into, seed, at % STRETCH_BYTES / PAGE_BYTES);
            }
            if let Some(busy) = busy.get_mut(one.token as usize) {
                assert!(std::mem::take(busy), "an operation ended twice");
            }
        }
    }
    assert!(busy.iter().all(|busy| !busy), "an operation did not end");
}
