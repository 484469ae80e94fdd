//! What happened to blocks, as a bounded, numbered stream.
//!
//! Every change gets the next number, in the order in which it took effect within its tenant. The
//! ring keeps the latest changes; a reader that falls behind is told which numbers it missed and
//! goes on, and nobody ever waits for a reader. After a gap a reader should list what it follows
//! anew.

use std::collections::VecDeque;

use crate::identity::IdentityId;
use crate::key::Key;
use crate::lineage::Link;
use crate::policy::Removal;
use crate::store::TenantId;
use crate::tier::Tier;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Number of the change, from 1, without holes.
    pub sequence: u64,
    /// Whose blocks changed.
    pub tenant: TenantId,
    /// Under which identity.
    pub identity: IdentityId,
    /// What changed.
    pub change: Change,
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A block became readable in a tier.
    Stored {
        /// The block and its place in its chain.
        link: Link,
        /// Bytes of the block.
        len: u64,
        /// Where.
        tier: Tier,
    },
    /// A block left a tier.
    Removed {
        /// The block.
        key: Key,
        /// Which tier it left.
        tier: Tier,
        /// Why.
        why: Removal,
    },
    /// All blocks stored under the identity before this event are gone; no event follows for each.
    Cleared,
}

/// Numbers that a reader missed, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// First number missed.
    pub from: u64,
    /// Last number missed.
    pub to: u64,
}

/// Where a reader of the events stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    next: u64,
}

impl Cursor {
    /// Starts at event `sequence` (0 counts as 1: everything that is still kept, or a gap).
    pub fn from_sequence(sequence: u64) -> Self {
        Self { next: sequence.max(1) }
    }

    /// Number of the event that is read next.
    pub fn next_sequence(&self) -> u64 {
        self.next
    }
}

/// The latest events.
pub(crate) struct Ring {
    events: VecDeque<Event>,
    capacity: usize,
    next: u64,
}

impl Ring {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { events: VecDeque::with_capacity(capacity), capacity, next: 1 }
    }

    pub(crate) fn push(&mut self, tenant: TenantId, identity: IdentityId, change: Change) {
        let sequence = self.next;
        self.next += 1;
        if self.capacity == 0 {
            return;
        }
        if self.events.len() == self.capacity {
            self.events.pop_front();
        }
        self.events.push_back(Event { sequence, tenant, identity, change });
    }

    pub(crate) fn end(&self) -> Cursor {
        Cursor { next: self.next }
    }

    /// Moves up to `max` events to `out` and the cursor past them; says what was missed before.
    pub(crate) fn read(&self, at: &mut Cursor, max: usize, out: &mut Vec<Event>) -> Option<Gap> {
        let oldest = self.next - self.events.len() as u64;
        let gap = (at.next < oldest).then(|| Gap { from: at.next, to: oldest - 1 });
        at.next = at.next.max(oldest);
        let skip = (at.next - oldest) as usize;
        let before = out.len();
        out.extend(self.events.iter().skip(skip).take(max).cloned());
        at.next += (out.len() - before) as u64;
        gap
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(capacity: usize, events: usize) -> Ring {
        let mut ring = Ring::new(capacity);
        for _ in 0..events {
            ring.push(TenantId(0), IdentityId::from_bytes([0; 16]), Change::Cleared);
        }
        ring
    }

    fn read(ring: &Ring, at: &mut Cursor, max: usize) -> (Option<Gap>, Vec<u64>) {
        let mut out = Vec::new();
        let gap = ring.read(at, max, &mut out);
        (gap, out.iter().map(|event| event.sequence).collect())
    }

    #[test]
    fn a_slow_reader_is_told_its_gap_once() {
        let ring = ring(4, 10);
        let mut at = Cursor::from_sequence(1);
        assert_eq!(read(&ring, &mut at, 3), (Some(Gap { from: 1, to: 6 }), vec![7, 8, 9]));
        assert_eq!(read(&ring, &mut at, 3), (None, vec![10]));
        assert_eq!(read(&ring, &mut at, 3), (None, vec![]));
    }

    #[test]
    fn a_ring_that_keeps_nothing_still_counts() {
        let ring = ring(0, 3);
        let mut at = Cursor::from_sequence(0);
        assert_eq!(read(&ring, &mut at, 9), (Some(Gap { from: 1, to: 3 }), vec![]));
        assert_eq!(at, ring.end());
    }

    #[test]
    fn a_cursor_from_the_future_waits() {
        let ring = ring(4, 2);
        let mut at = Cursor::from_sequence(99);
        assert_eq!(read(&ring, &mut at, 9), (None, vec![]));
        assert_eq!(at.next_sequence(), 99);
    }
}
