//! The disk with what each of its operations is for.

use std::collections::VecDeque;
use std::time::Duration;

use slab::Slab;

use crate::tier::nvme::disk::{Disk, Ended, Error, Kind, Op, Waker};
use crate::tier::{Lane, Span};

/// What an operation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The header of a load's frame.
    LoadHeader(usize),
    /// The bytes of a load.
    LoadBytes(usize),
    /// Part of a frame.
    Frame(u64),
    /// The summary of a segment.
    Summary(u32),
    /// Pages of the index log.
    Log,
    /// Pages of its snapshot.
    Snapshot,
    /// A flush.
    Flush,
    /// The summary of a segment that is being reclaimed.
    VictimSummary,
    /// A block of one.
    VictimBlock(usize),
}

/// An operation that ended.
pub(crate) struct End {
    pub(crate) purpose: Purpose,
    pub(crate) result: Result<(), Error>,
}

pub(crate) struct Device {
    disk: Box<dyn Disk>,
    purposes: Slab<Purpose>,
    /// What the disk had no room for.
    waiting: [VecDeque<Op>; 3],
    ended: Vec<Ended>,
    pub(crate) written_bytes: u64,
    pub(crate) read_bytes: u64,
}

impl Device {
    pub(crate) fn new(disk: Box<dyn Disk>) -> Self {
        Self {
            disk,
            purposes: Slab::new(),
            waiting: Default::default(),
            ended: Vec::new(),
            written_bytes: 0,
            read_bytes: 0,
        }
    }

    pub(crate) fn read(&mut self, purpose: Purpose, lane: Lane, at: u64, into: Span) {
        self.read_bytes += into.len() as u64;
        self.submit(purpose, lane, Kind::Read { at, into });
    }

    pub(crate) fn write(&mut self, purpose: Purpose, at: u64, from: Span) {
        self.written_bytes += from.len() as u64;
        self.submit(purpose, Lane::Write, Kind::Write { at, from });
    }

    pub(crate) fn flush(&mut self) {
        self.submit(Purpose::Flush, Lane::Write, Kind::Flush);
    }

    fn submit(&mut self, purpose: Purpose, lane: Lane, kind: Kind) {
        let token = self.purposes.insert(purpose) as u64;
        self.waiting[lane as usize].push_back(Op { token, lane, kind });
        self.pump();
    }

    /// Hands the disk what it has room for.
    pub(crate) fn pump(&mut self) {
        for waiting in &mut self.waiting {
            while let Some(op) = waiting.pop_front() {
                if let Err(op) = self.disk.submit(op) {
                    waiting.push_front(op);
                    break;
                }
            }
        }
    }

    /// Moves what ended to `out`.
    pub(crate) fn poll(&mut self, out: &mut Vec<End>) {
        self.pump();
        self.disk.poll(&mut self.ended);
        for ended in self.ended.drain(..) {
            let purpose = self.purposes.remove(ended.token as usize);
            out.push(End { purpose, result: ended.result });
        }
        self.pump();
    }

    /// Operations that have not ended.
    pub(crate) fn in_flight(&self) -> usize {
        self.purposes.len()
    }

    pub(crate) fn wait(&mut self, within: Duration) {
        self.disk.wait(within);
    }

    pub(crate) fn waker(&self) -> Waker {
        self.disk.waker()
    }

    pub(crate) fn describe(&self) -> String {
        self.disk.describe()
    }
}
