//! Lanes: what goes ahead of what.

use std::fmt;

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
