//! A block that is on its way to a tier below, as whoever carries it holds it.

use std::fmt;
use std::sync::Arc;

use super::Shard;
use crate::tier::cold::Record;
use crate::tier::dram::Departing;
use crate::tier::{Span, Tier};
use crate::time::{Millis, Wall};

/// A block that a tier below shall take in, kept in place and unchanged until this is told how that
/// went. Dropping it says that the tier did not take it.
#[must_use = "dropping a move says that it failed"]
pub struct Move {
    shard: Arc<Shard>,
    departing: Departing,
    open: bool,
}

impl Move {
    pub(super) fn new(shard: Arc<Shard>, departing: Departing) -> Self {
        Self { shard, departing, open: true }
    }

    /// The tier.
    pub fn to(&self) -> Tier {
        self.departing.to
    }

    /// The block, as tiers below know blocks. `now` and `wall` are the same moment: times to live are
    /// counted by the store's clock in memory, and by the wall clock below.
    pub fn record(&self, now: Millis, wall: Wall) -> Record {
        let Departing { identity, link, len, checksum, expires, .. } = self.departing;
        let expires = expires.map(|at| wall.after(at - now));
        Record { identity, link, len, checksum, expires }
    }

    /// The block's bytes.
    pub fn span(&self) -> Span {
        let Departing { offset, len, .. } = self.departing;
        Span::new(Arc::clone(self.shard.arena().memory()), offset..offset + len)
    }

    /// Whether the block is still wanted: it was not removed since.
    pub fn is_wanted(&self) -> bool {
        self.shard.look(|dram| dram.is_wanted(self.departing.slot))
    }

    /// Lets go of the block; `stored` when the tier has it. Returns whether it is still wanted; if not,
    /// it was removed meanwhile and should be removed below too.
    pub fn arrived(mut self, stored: bool) -> bool {
        self.open = false;
        self.end(stored)
    }

    fn end(&self, stored: bool) -> bool {
        let Departing { slot, to, .. } = self.departing;
        self.shard.change(|dram| dram.arrived(slot, to, stored))
    }
}

impl Drop for Move {
    fn drop(&mut self) {
        if self.open {
            self.end(false);
        }
    }
}

impl fmt::Debug for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Move").field("departing", &self.departing).finish_non_exhaustive()
    }
}
