//! One block in 44 bytes.

use crate::key::{KEY_BYTES, Key};
use crate::tier::cold::{Found, Mark};
use crate::time::Wall;

/// No slot.
pub(super) const NONE: u32 = u32::MAX;

const LEN_BITS: u32 = 28;
/// Longest block, bytes.
const LEN_MAX: u32 = (1 << LEN_BITS) - 1;
const HEAD_BITS: u32 = 12;
/// Of [`Mark`]: hits, and above them whether the block is a parent.
const HITS_BITS: u32 = 6;
const PARENT: u8 = 1 << HITS_BITS;

/// Where a block is on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// First page of the payload, from the device's start.
    pub(crate) page: u32,
    /// How many pages before it the header of its frame begins.
    pub(crate) head: u16,
}

/// A block, or a free slot. Laid by hand: what Rust would align takes 48 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    key: [u8; KEY_BYTES],
    checksum: [u32; 2],
    page: u32,
    /// Length, and the low bits of the mark.
    len: u32,
    /// Seconds since 1970; 0 for no end.
    expires: u32,
    next: u32,
    /// Number of the identity, from 1; 0 in a free slot.
    identity: u16,
    /// Distance to the header, and the high bits of the mark.
    head: u16,
}

const _: () = assert!(size_of::<Slot>() == 44);

impl Slot {
    pub(super) const VACANT: Self = Self {
        key: [0; KEY_BYTES],
        checksum: [0; 2],
        page: 0,
        len: 0,
        expires: 0,
        next: NONE,
        identity: 0,
        head: 0,
    };

    pub(super) fn fill(&mut self, number: u16, key: Key) {
        self.identity = number;
        self.key = *key.as_bytes();
    }

    pub(super) fn clear(&mut self, next: u32) {
        *self = Self { next, ..Self::VACANT };
    }

    pub(super) fn set(&mut self, place: Place, found: &Found) {
        let len = u32::try_from(found.len).ok().filter(|len| *len <= LEN_MAX);
        self.checksum = [found.checksum as u32, (found.checksum >> 32) as u32];
        self.page = place.page;
        self.len = len.expect("a block is shorter than a segment");
        assert!(place.head < 1 << HEAD_BITS, "a header is near its payload");
        self.head = place.head;
        self.expires = found.expires.map_or(0, |at| seconds(at).max(1));
        self.set_mark(found.mark);
    }

    pub(super) fn key(&self) -> Key {
        Key::from_bytes(self.key)
    }

    /// The identity's number; none in a free slot.
    pub(super) fn number(&self) -> Option<u16> {
        (self.identity != 0).then_some(self.identity)
    }

    pub(super) fn place(&self) -> Place {
        Place { page: self.page, head: self.head & ((1 << HEAD_BITS) - 1) }
    }

    pub(super) fn found(&self) -> Found {
        Found {
            len: u64::from(self.len & LEN_MAX),
            checksum: u64::from(self.checksum[0]) | u64::from(self.checksum[1]) << 32,
            expires: (self.expires != 0).then(|| Wall(u64::from(self.expires) * 1000)),
            mark: self.mark(),
        }
    }

    pub(super) fn mark(&self) -> Mark {
        let bits = (self.len >> LEN_BITS) as u8 | ((self.head >> HEAD_BITS) as u8) << 4;
        Mark { hits: bits & Mark::HITS_MAX, parent: bits & PARENT != 0 }
    }

    pub(super) fn set_mark(&mut self, mark: Mark) {
        let bits = mark.hits.min(Mark::HITS_MAX) | if mark.parent { PARENT } else { 0 };
        self.len = self.len & LEN_MAX | u32::from(bits & 0xF) << LEN_BITS;
        self.head = self.head & ((1 << HEAD_BITS) - 1) | u16::from(bits >> 4) << HEAD_BITS;
    }

    pub(super) fn next(&self) -> u32 {
        self.next
    }

    pub(super) fn set_next(&mut self, next: u32) {
        self.next = next;
    }
}

/// Whole seconds that have passed at a time, so that no block lives longer than it should.
fn seconds(at: Wall) -> u32 {
    u32::try_from(at.0 / 1000).unwrap_or(u32::MAX)
}
