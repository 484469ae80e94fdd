//! What happened on a simulated network: the last events, and a hash of all of them.

use std::collections::VecDeque;
use std::fmt;

use crate::time::Time;

/// A kind of event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Happened {
    /// A port came up.
    Opened,
    /// A port was closed by its engine.
    Closed,
    /// An operation was posted: its serial number and how many packets it has.
    Posted,
    /// A packet was lost and will be sent again: serial and index.
    Dropped,
    /// A packet reached a hung host: it waits there.
    Held,
    /// A second copy of a packet was recognised: serial and index.
    Duplicate,
    /// A packet passed its checks and is being put into memory: serial and index.
    Landing,
    /// A packet is in memory: serial and index.
    Landed,
    /// A packet failed its checks: serial and reason.
    Refused,
    /// A packet vanished with its connection or its port: serial and index.
    Vanished,
    /// An operation was delivered whole: serial.
    Delivered,
    /// An operation was cancelled: serial and reason.
    Cancelled,
    /// A port flushed an operation out of its queue: serial.
    Flushed,
    /// An operation ended at its initiator: serial and status.
    Ended,
    /// A window was granted: slot and generation.
    Granted,
    /// A window is being taken back: slot and packets being landed.
    Revoking,
    /// A window is fenced: slot and generation.
    Revoked,
    /// A connection is ready at one end: its number and the end.
    Up,
    /// A connection ended at one end: its number and the reason.
    Down,
    /// A port died.
    Killed,
    /// A host hangs.
    Paused,
    /// A host goes on.
    Resumed,
    /// A link was cut.
    Cut,
    /// A link was healed.
    Healed,
}

/// One event.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub at: Time,
    /// The port where it happened, in the order in which ports were opened.
    pub port: u32,
    /// What.
    pub what: Happened,
    /// Its first number; see [`Happened`].
    pub a: u64,
    /// Its second number.
    pub b: u64,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} port {} {:?} {} {}", self.at, self.port, self.what, self.a, self.b)
    }
}

/// What happened so far.
#[derive(Clone, PartialEq, Eq)]
pub struct Trace {
    /// A hash of all events; equal for equal runs.
    pub hash: u64,
    /// How many there were.
    pub events: u64,
    /// The last of them.
    pub last: Vec<Entry>,
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} events, hash {:016x}; the last {}:",
            self.events,
            self.hash,
            self.last.len()
        )?;
        self.last.iter().try_for_each(|entry| writeln!(f, "  {entry:?}"))
    }
}

/// The record.
pub(super) struct Log {
    hash: u64,
    events: u64,
    last: VecDeque<Entry>,
    entries_max: usize,
}

impl Log {
    pub(super) fn new(entries_max: usize) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, events: 0, last: VecDeque::new(), entries_max }
    }

    pub(super) fn add(&mut self, entry: Entry) {
        let Entry { at, port, what, a, b } = entry;
        // FNV-1a over words, with a shift so that high bits reach low ones.
        for word in [at.as_nanos(), u64::from(port), what as u64, a, b] {
            self.hash = (self.hash ^ word).wrapping_mul(0x0000_0100_0000_01b3);
            self.hash ^= self.hash >> 29;
        }
        self.events += 1;
        if self.last.len() == self.entries_max {
            self.last.pop_front();
        }
        if self.entries_max > 0 {
            self.last.push_back(entry);
        }
    }

    pub(super) fn trace(&self) -> Trace {
        let last = self.last.iter().copied().collect();
        Trace { hash: self.hash, events: self.events, last }
    }
}
