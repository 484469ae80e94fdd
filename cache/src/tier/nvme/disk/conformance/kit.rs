//! What the rules have in common.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tranship_transport::memory::{HostMemory, Memory};

use super::super::{Disk, Ended, Kind, Op, PAGE_BYTES};
use crate::tier::nvme::testing;
use crate::tier::{Lane, Span};

/// Longer than anything takes that works.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

const PAGE: usize = PAGE_BYTES as usize;

/// Memory of `bytes` bytes.
pub(super) fn memory(bytes: u64) -> Arc<Memory> {
    Arc::new(HostMemory::new(bytes as usize).build().expect("memory for a test"))
}

/// A page that no other seed or number has.
fn page(seed: u64, number: u64) -> Vec<u8> {
    testing::bytes(seed << 32 ^ number, PAGE)
}

/// Fills a span with the pages `first..` of `seed`.
pub(super) fn fill(span: &Span, seed: u64, first: u64) {
    for (number, at) in (first..).zip((0..span.len()).step_by(PAGE)) {
        let copied = span.memory().copy_in(span.offset() + at, &page(seed, number));
        copied.expect("a page of the span");
    }
}

/// Checks that a span holds the pages `first..` of `seed`.
pub(super) fn check(span: &Span, seed: u64, first: u64) {
    let mut bytes = [0; PAGE];
    for (number, at) in (first..).zip((0..span.len()).step_by(PAGE)) {
        let copied = span.memory().copy_out(span.offset() + at, &mut bytes);
        copied.expect("a page of the span");
        assert!(bytes == *page(seed, number), "page {number} of {seed:#x} is not what was written");
    }
}

/// Checks that every byte of a span is `byte`.
pub(super) fn check_all(span: &Span, byte: u8) {
    let mut bytes = [0; PAGE];
    for at in (0..span.len()).step_by(PAGE) {
        let copied = span.memory().copy_out(span.offset() + at, &mut bytes);
        copied.expect("a page of the span");
        assert!(bytes.iter().all(|there| *there == byte), "a byte changed near {at}");
    }
}

pub(super) fn read(token: u64, lane: Lane, at: u64, into: Span) -> Op {
    Op { token, lane, kind: Kind::Read { at, into } }
}

pub(super) fn write(token: u64, lane: Lane, at: u64, from: Span) -> Op {
    Op { token, lane, kind: Kind::Write { at, from } }
}

pub(super) fn flush(token: u64, lane: Lane) -> Op {
    Op { token, lane, kind: Kind::Flush }
}

/// Waits until everything in flight has ended.
pub(super) fn finish(disk: &mut dyn Disk) -> Vec<Ended> {
    let (mut ended, began) = (Vec::new(), Instant::now());
    disk.poll(&mut ended);
    while disk.in_flight() > 0 {
        assert!(began.elapsed() < PATIENCE, "{} operations do not end", disk.in_flight());
        disk.wait(Duration::from_secs(1));
        disk.poll(&mut ended);
    }
    ended
}

/// Does one operation, which must succeed; its span.
pub(super) fn done(disk: &mut dyn Disk, op: Op) -> Option<Span> {
    let token = op.token;
    disk.submit(op).expect("an idle lane has room");
    let mut ended = finish(disk);
    assert_eq!(ended.len(), 1, "one operation ends once");
    let ended = ended.remove(0);
    assert_eq!((ended.token, ended.result), (token, Ok(())));
    match ended.kind {
        Kind::Read { into, .. } => Some(into),
        Kind::Write { from, .. } => Some(from),
        Kind::Flush => None,
    }
}
