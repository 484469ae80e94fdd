//! The control segment: what an engine shows to all its peers, who can only read it.
//!
//! ```text
//! 0     epoch of its sleep, see `gate`
//! 4096  windows, 64 bytes each: stamp, region, offset, length, access, tag
//! ```

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::hazard;
use super::segment::{Segment, Sharing};
use super::tag::tag;
use crate::fabric::{Grant, RegionId};
use crate::outcome::Reason;
use crate::window::{Access, WindowId};

/// Windows in a table.
pub(super) const WINDOWS: usize = 4096;
/// The largest table accepted from a peer.
const WINDOWS_MAX: u32 = 1 << 20;

const TABLE_AT: usize = 4096;
const ENTRY_BYTES: usize = 64;
const ENTRY_WORDS: usize = ENTRY_BYTES / size_of::<u64>();

/// How long a control segment with a table of so many windows is.
pub(super) fn table_bytes(windows: usize) -> usize {
    TABLE_AT + windows * ENTRY_BYTES
}

fn entry(segment: &Segment, slot: u32) -> &[AtomicU64] {
    segment.words(TABLE_AT + slot as usize * ENTRY_BYTES, ENTRY_WORDS)
}

/// Our own.
#[derive(Debug)]
pub(super) struct Ours {
    segment: Segment,
    memfd: OwnedFd,
}

impl Ours {
    pub(super) fn create() -> io::Result<Self> {
        let (segment, memfd) =
            Segment::create("tranship-control", table_bytes(WINDOWS), Sharing::OneWriter)?;
        Ok(Self { segment, memfd })
    }

    /// The descriptor to hand over.
    pub(super) fn memfd(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.memfd.as_fd()
    }

    /// The epoch of our sleep.
    #[inline]
    pub(super) fn epoch(&self) -> &AtomicU64 {
        &self.segment.words(0, 1)[0]
    }

    /// Opens a window whose place is free.
    pub(super) fn open(&self, grant: &Grant, key: u64) {
        let entry = entry(&self.segment, grant.window.slot);
        let fields = [
            u64::from(grant.region.0),
            grant.offset,
            grant.len,
            u64::from(grant.access.bits()),
            tag(key, grant.window),
        ];
        for (word, field) in entry[1..].iter().zip(fields) {
            word.store(field, Ordering::Relaxed);
        }
        entry[0].store(hazard::stamp(grant.window), Ordering::Release);
    }

    /// Shuts the window in a place.
    pub(super) fn shut(&self, slot: u32) {
        hazard::shut(&entry(&self.segment, slot)[0]);
    }
}

/// A peer's.
#[derive(Debug)]
pub(super) struct Theirs {
    segment: Segment,
    windows: u32,
}

/// A window as its owner's table has it; nothing in it is trusted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listed {
    pub(super) region: RegionId,
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) access: Access,
}

impl Theirs {
    /// Maps the control segment of a peer that says to have `windows` places.
    pub(super) fn map(memfd: BorrowedFd<'_>, windows: u32) -> io::Result<Self> {
        if windows > WINDOWS_MAX {
            return Err(io::Error::other(format!("a table of {windows} windows")));
        }
        let segment = Segment::map(memfd, table_bytes(windows as usize), Sharing::OneWriter)?;
        Ok(Self { segment, windows })
    }

    /// The epoch of its sleep.
    #[inline]
    pub(super) fn epoch(&self) -> &AtomicU64 {
        &self.segment.words(0, 1)[0]
    }

    /// The stamp of a place that [`Theirs::look_up`] found.
    #[inline]
    pub(super) fn stamp(&self, slot: u32) -> &AtomicU64 {
        &entry(&self.segment, slot)[0]
    }

    /// The window, if `key` opens it.
    pub(super) fn look_up(&self, window: WindowId, key: u64) -> Result<Listed, Reason> {
        if window.slot >= self.windows {
            return Err(Reason::Forged);
        }
        let entry = entry(&self.segment, window.slot);
        let open = || entry[0].load(Ordering::Acquire) == hazard::stamp(window);
        if !open() {
            return Err(Reason::Stale);
        }
        let field = |index: usize| entry[index].load(Ordering::Relaxed);
        let listed = Listed {
            region: RegionId(field(1) as u32),
            offset: field(2),
            len: field(3),
            access: Access::from_bits(field(4) as u8),
        };
        let tagged = field(5);
        // Fields change only while the window is shut: all are of one window if it still is open.
        fence(Ordering::Acquire);
        if !open() {
            return Err(Reason::Stale);
        }
        if tag(key, window) != tagged {
            return Err(Reason::Forged);
        }
        Ok(listed)
    }
}
