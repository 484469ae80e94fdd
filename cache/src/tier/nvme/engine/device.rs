//! The disk with what each of its operations is for.

use std::collections::VecDeque;
use std::time::Duration;

use slab::Slab;

use crate::tier::nvme::disk::{Disk, Ended, Error, Kind, Op, Waker};
use crate::tier::{Lane, Span};
use crate::time::Millis;

/// Most time that counts between two looks: when nobody looked for longer (the machine was asleep, the
/// clock jumped), nobody would have seen an operation end.
const WATCH_MAX: Millis = Millis(2000);

/// Operations that have ended and may be remembered for the order of the others.
const ORDER_SPARE: usize = 256;

/// What an operation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The header of a load's frame, or its bytes.
    Load(usize),
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

/// An operation that has not ended.
struct Asked {
    purpose: Purpose,
    lane: Lane,
    number: u64,
}

/// The disk, with what each of its operations is for.
pub(crate) struct Device {
    disk: Box<dyn Disk>,
    asked: Slab<Asked>,
    /// Operations of each lane in the order in which they were asked for, those that have ended among
    /// them.
    order: [VecDeque<(u64, usize)>; 3],
    /// When the first of each lane became the first.
    since: [Millis; 3],
    /// Operations so far.
    count: u64,
    /// Time for which the device was looked at: none passes while nobody does.
    watched: Millis,
    last: Millis,
    /// What the disk had no room for.
    waiting: [VecDeque<Op>; 3],
    ended: Vec<Ended>,
    pub(crate) written_bytes: u64,
    pub(crate) read_bytes: u64,
}

impl Device {
    pub(crate) fn new(disk: Box<dyn Disk>, now: Millis) -> Self {
        Self {
            disk,
            asked: Slab::new(),
            order: Default::default(),
            since: [Millis::ZERO; 3],
            count: 0,
            watched: Millis::ZERO,
            last: now,
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
        let number = self.count;
        self.count += 1;
        let at = self.asked.insert(Asked { purpose, lane, number });
        let order = &mut self.order[lane as usize];
        if order.is_empty() {
            self.since[lane as usize] = self.watched;
        }
        if order.len() > 2 * self.asked.len() + ORDER_SPARE {
            // The first takes long; what has ended behind it need not be remembered.
            order.retain(|(number, at)| {
                self.asked.get(*at).is_some_and(|asked| asked.number == *number)
            });
        }
        order.push_back((number, at));
        let token = at as u64;
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
            let Asked { purpose, lane, .. } = self.asked.remove(ended.token as usize);
            out.push(End { purpose, result: ended.result });
            let order = &mut self.order[lane as usize];
            let has_ended = |(number, at): &(u64, usize)| {
                self.asked.get(*at).is_none_or(|asked| asked.number != *number)
            };
            while order.front().is_some_and(has_ended) {
                order.pop_front();
                self.since[lane as usize] = self.watched;
            }
        }
        self.pump();
    }

    /// Takes the time.
    pub(crate) fn watch(&mut self, now: Millis) {
        self.watched = self.watched + (now - self.last).min(WATCH_MAX);
        self.last = now;
    }

    /// For how long the device has had an operation, and nothing before it in its lane.
    pub(crate) fn stalled(&self) -> Option<Millis> {
        let lanes = self.order.iter().zip(&self.since).filter(|(order, _)| !order.is_empty());
        lanes.map(|(_, since)| self.watched - *since).max()
    }

    /// Operations that have not ended.
    pub(crate) fn in_flight(&self) -> usize {
        self.asked.len()
    }

    pub(crate) fn wait(&mut self, within: Duration) {
        self.disk.wait(within);
    }

    /// Ends the disk; false where it may use the spans of what it has for ever.
    pub(crate) fn end(self) -> bool {
        self.disk.end()
    }

    pub(crate) fn waker(&self) -> Waker {
        self.disk.waker()
    }

    pub(crate) fn describe(&self) -> String {
        self.disk.describe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tier::nvme::disk::sim;
    use crate::tier::nvme::testing::{PAGE, span};

    #[test]
    fn what_has_ended_behind_a_slow_operation_is_forgotten() {
        let simulated = sim::Device::new(64 * PAGE, 1);
        simulated.inject(|faults| faults.slow = u64::MAX);
        let mut device = Device::new(simulated.open(), Millis(0));
        let page = span(&[0; PAGE]);
        device.read(Purpose::Log, Lane::Demand, 0, page.clone());
        simulated.inject(|faults| faults.slow = 1);
        let mut ended = Vec::new();
        for _ in 0..10_000 {
            device.read(Purpose::Log, Lane::Demand, 0, page.clone());
            device.poll(&mut ended);
        }
        assert_eq!((ended.len(), device.in_flight()), (10_000, 1));
        assert!(device.order[Lane::Demand as usize].len() <= ORDER_SPARE + 4);
        // It is the first all along.
        (0..20).for_each(|second| device.watch(Millis(1000 * second)));
        assert_eq!(device.stalled(), Some(Millis(19_000)));
    }
}
