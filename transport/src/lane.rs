//! Lanes: what goes ahead of what.

use std::fmt;
use std::ops::Range;

/// Which queue a transfer waits in. The lanes do not block each other: what is short and urgent
/// does not wait for what is long.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub enum Lane {
    /// Ahead of everything in bulk: signals, route counts, single small pages.
    Latency,
    /// For throughput; where nothing else is said.
    #[default]
    Bulk,
}

impl Lane {
    /// Both, the more urgent first.
    pub const ALL: [Self; 2] = [Self::Latency, Self::Bulk];

    /// Its place in tables.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name used in flags, messages and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Bulk => "bulk",
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What goes ahead of what within the bulk lane, to one peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub enum Priority {
    /// What somebody waits for now.
    High,
    /// Where nothing else is said.
    #[default]
    Normal,
    /// What may be needed later: prefetches, offloads, copies for safety.
    Low,
}

/// A lane and, in bulk, a priority: which queue of a link a transfer waits in. Messages have a queue
/// of their own: those that nobody takes hold nothing up that is urgent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Class {
    lane: Lane,
    priority: Priority,
    message: bool,
}

impl Class {
    pub(crate) const LATENCY: Self =
        Self { lane: Lane::Latency, priority: Priority::Normal, message: false };
    pub(crate) const MESSAGE: Self = Self { message: true, ..Self::LATENCY };
    /// How many queues there are.
    pub(crate) const COUNT: usize = 5;
    /// The queues that wait for each other, the most urgent first, and their lane.
    pub(crate) const LINES: [(Lane, Range<usize>); 3] =
        [(Lane::Latency, 0..1), (Lane::Latency, 1..2), (Lane::Bulk, 2..Self::COUNT)];

    pub(crate) fn in_lane(self, lane: Lane) -> Self {
        Self { lane, ..self }
    }

    pub(crate) fn with(self, priority: Priority) -> Self {
        Self { priority, ..self }
    }

    pub(crate) fn lane(self) -> Lane {
        self.lane
    }

    /// The most urgent queue of those that wait for each other with its own; see [`Self::LINES`].
    pub(crate) fn first_of_line(self) -> usize {
        match self.lane {
            Lane::Latency => self.index(),
            Lane::Bulk => 2,
        }
    }

    /// Its queue; the most urgent is 0.
    pub(crate) fn index(self) -> usize {
        match self.lane {
            Lane::Latency => usize::from(self.message),
            Lane::Bulk => 2 + self.priority as usize,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_class_waits_in_one_line() {
        let bulk = [Priority::High, Priority::Normal, Priority::Low];
        let bulk = bulk.map(|priority| Class::default().with(priority));
        for class in [Class::LATENCY, Class::MESSAGE].into_iter().chain(bulk) {
            let of = |(_, queues): &(Lane, Range<usize>)| queues.contains(&class.index());
            let lines: Vec<_> = Class::LINES.into_iter().filter(of).collect();
            assert!(matches!(&lines[..], [(lane, queues)]
                if *lane == class.lane() && queues.start == class.first_of_line()));
        }
    }
}
