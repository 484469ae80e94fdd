//! What an engine counts.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::outcome::Outcome;

macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of an engine since it was built.
        ///
        /// Invariant, whenever no transfer is under way:
        /// `submitted == done + rejected + fenced + lost`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
        }

        #[derive(Debug, Default)]
        pub(crate) struct Tallies {
            $(pub(crate) $name: AtomicU64,)*
        }

        impl Tallies {
            pub(crate) fn read(&self) -> Stats {
                Stats { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }

        impl std::iter::Sum for Stats {
            fn sum<I: Iterator<Item = Self>>(workers: I) -> Self {
                workers.fold(Self::default(), |a, b| Self { $($name: a.$name + b.$name,)* })
            }
        }
    };
}

stats! {
    /// Transfers taken on.
    submitted,
    /// Transfers that ended `Done`.
    done,
    /// Transfers that ended `Rejected`.
    rejected,
    /// Transfers that ended `Fenced`.
    fenced,
    /// Transfers that ended `Lost`.
    lost,
    /// Of the lost, those since proven ended.
    recovered,
    /// Payload bytes of writes that ended `Done`.
    written_bytes,
    /// Payload bytes of reads that ended `Done`.
    read_bytes,
    /// Messages sent.
    messages_sent,
    /// Messages received.
    messages_received,
    /// Immediates that counted for someone.
    immediates,
    /// Immediates for a slot that nobody owns any more.
    stray_immediates,
    /// Transfers that had to wait for a connection or for room in the fabric.
    parked,
    /// Connections that came up.
    connections,
    /// Connections that went down.
    disconnections,
    /// Windows fenced.
    windows_fenced,
    /// Windows that are reached over a slower fabric because the faster one did not lead there, and
    /// peers whose payload goes over TCP because no rail leads there.
    fallbacks,
}

impl Tallies {
    /// Only the holder of the worker's lock counts, so a load and a store will do.
    pub(crate) fn add(tally: &AtomicU64, n: u64) {
        tally.store(tally.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }

    /// Takes back one that was counted too early.
    pub(crate) fn take_back(tally: &AtomicU64) {
        tally.store(tally.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
    }

    pub(crate) fn ended(&self, outcome: Outcome) {
        let tally = match outcome {
            Outcome::Done => &self.done,
            Outcome::Rejected(_) => &self.rejected,
            Outcome::Fenced(_) => &self.fenced,
            Outcome::Lost(_) => &self.lost,
        };
        Self::add(tally, 1);
    }
}
