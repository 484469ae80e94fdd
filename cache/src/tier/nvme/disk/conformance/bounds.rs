//! What is not whole pages inside the disk is a bug of who asks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::kit::{done, finish, memory, read, write};
use super::{DEVICE_BYTES, Harness};
use crate::tier::nvme::disk::{Disk, Error, Op, PAGE_BYTES};
use crate::tier::{Lane, Span};

/// Panics in debug builds, and ends the operation with an error otherwise.
fn refused(disk: &mut dyn Disk, op: Op) {
    if cfg!(debug_assertions) {
        let submitted = catch_unwind(AssertUnwindSafe(|| disk.submit(op).is_ok()));
        assert!(submitted.is_err(), "a bug of the caller is not rounded");
        finish(disk);
        return;
    }
    disk.submit(op).expect("it is taken, and ends");
    let ended = finish(disk);
    assert!(
        matches!(ended[0].result, Err(Error::Invalid { bytes: DEVICE_BYTES, .. })),
        "{ended:?}"
    );
}

/// Begin, length and memory are multiples of a page.
pub fn what_is_not_aligned_is_refused<H: Harness>(device: &mut H) {
    let memory = memory(8 * PAGE_BYTES);
    let mut disk = device.open(&[]);
    let span = |start, end| Span::new(Arc::clone(&memory), start..end);
    refused(&mut *disk, read(1, Lane::Demand, 512, span(0, PAGE_BYTES)));
    refused(&mut *disk, read(2, Lane::Demand, 0, span(0, 512)));
    refused(&mut *disk, read(3, Lane::Demand, 0, span(512, 512 + PAGE_BYTES)));
    refused(&mut *disk, write(4, Lane::Write, PAGE_BYTES + 1, span(0, PAGE_BYTES)));
    refused(&mut *disk, write(5, Lane::Write, 0, span(0, PAGE_BYTES - 1)));
    // And the disk works as before.
    done(&mut *disk, write(6, Lane::Write, 0, span(0, PAGE_BYTES)));
}

/// Nothing behind the last byte is read or written.
pub fn what_leaves_the_disk_is_refused<H: Harness>(device: &mut H) {
    let memory = memory(8 * PAGE_BYTES);
    let mut disk = device.open(&[]);
    let span = |pages| Span::new(Arc::clone(&memory), 0..pages * PAGE_BYTES);
    assert_eq!(disk.bytes(), DEVICE_BYTES);
    refused(&mut *disk, read(1, Lane::Demand, DEVICE_BYTES, span(1)));
    refused(&mut *disk, write(2, Lane::Write, DEVICE_BYTES - PAGE_BYTES, span(2)));
    refused(&mut *disk, read(3, Lane::Demand, u64::MAX - PAGE_BYTES + 1, span(1)));
    done(&mut *disk, write(4, Lane::Write, DEVICE_BYTES - PAGE_BYTES, span(1)));
}
