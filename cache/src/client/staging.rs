//! Memory of this client that blocks pass through where the arena cannot be mapped.
//!
//! One region, made when the first block needs it, with a limit; pieces of it are handed out and
//! come back. The daemon may read it, which is how puts reach the arena. A piece into which a
//! transfer may still put bytes is not handed out again before that transfer has provably ended.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tranship_transport::memory::Spans;
use tranship_transport::{
    Access, Descriptor, Engine, HostMemory, Memory, Outcome, Region, Slice, Transfer, Window,
};

use super::error::{Error, StagingError};
use crate::arena::{Extent, Extents};

/// A client's staging memory.
#[derive(Debug)]
pub(super) struct Staging {
    /// The daemon's way to the bytes that are put.
    window: Window,
    region: Region,
    space: Mutex<Space>,
}

#[derive(Debug)]
struct Space {
    extents: Extents,
    /// What transfers that were given up may still write to.
    unproven: Vec<(Transfer, Extent)>,
}

impl Staging {
    /// Staging memory of at most `limit` bytes. Pages that were never used take no memory, except where a fabric
    /// pins what is registered.
    pub(super) fn new(engine: &Engine, limit: usize) -> Result<Arc<Self>, Error> {
        let region = engine.alloc(HostMemory::new(limit).name("staging"))?;
        let window = region.window_with(0..region.len(), Access::READ)?;
        let space = Space { extents: Extents::new(region.len()), unproven: Vec::new() };
        Ok(Arc::new(Self { window, region, space: Mutex::new(space) }))
    }

    /// What the daemon needs to read it.
    pub(super) fn descriptor(&self) -> Descriptor {
        self.window.descriptor()
    }

    /// A piece of `len` bytes.
    pub(super) fn take(self: &Arc<Self>, len: u64) -> Result<Piece, StagingError> {
        let limit = self.region.len();
        if len > limit {
            return Err(StagingError::TooLarge { len, limit });
        }
        let mut space = self.space();
        space.forget_proven();
        let extent = space.extents.take(len);
        let used = space.extents.used_bytes();
        let extent = extent.ok_or(StagingError::Full { len, used, limit })?;
        Ok(Piece { staging: Arc::clone(self), extent: Some(extent), len })
    }

    /// A piece of `len` bytes, as long as half of the memory stays free for those who need it.
    pub(super) fn take_spare(self: &Arc<Self>, len: u64) -> Result<Piece, StagingError> {
        let (used, limit) = (self.space().extents.used_bytes(), self.region.len());
        if used.saturating_add(len) > limit / 2 {
            return Err(StagingError::Full { len, used, limit });
        }
        self.take(len)
    }

    fn space(&self) -> MutexGuard<'_, Space> {
        self.space.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Space {
    fn forget_proven(&mut self) {
        let proven = self.unproven.extract_if(.., |(transfer, _)| transfer.fenced());
        for (_, extent) in proven {
            self.extents.give_back(extent);
        }
    }
}

/// A part of the staging memory, exclusively its holder's.
#[derive(Debug)]
pub(super) struct Piece {
    staging: Arc<Staging>,
    /// There until the piece is dropped.
    extent: Option<Extent>,
    len: u64,
}

impl Piece {
    /// How long it is, bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Where it starts in the staging memory and its window, bytes.
    pub(super) fn offset(&self) -> u64 {
        self.extent.as_ref().map_or(0, Extent::offset)
    }

    /// The memory it is a part of.
    pub(super) fn staging(&self) -> &Arc<Staging> {
        &self.staging
    }

    /// Its first byte.
    pub(super) fn as_ptr(&self) -> *mut u8 {
        self.memory().as_ptr().wrapping_add(self.at())
    }

    /// Copies bytes in, to `at`; their checksum.
    pub(super) fn copy_in(&self, at: usize, bytes: &[u8]) -> u64 {
        assert!((at + bytes.len()) as u64 <= self.len, "more bytes than the piece has");
        self.memory().copy_in(self.at() + at, bytes).expect("a piece lies inside its memory")
    }

    /// Copies bytes out; their checksum.
    pub(super) fn copy_out(&self, into: &mut [u8]) -> u64 {
        assert!(into.len() as u64 <= self.len, "more bytes than the piece has");
        self.memory().copy_out(self.at(), into).expect("a piece lies inside its memory")
    }

    /// [`Piece::copy_in`] from memory in several pieces.
    pub(super) fn gather(&self, at: usize, from: &Spans) -> u64 {
        assert!((at + from.len()) as u64 <= self.len, "more bytes than the piece has");
        self.memory().gather(self.at() + at, from).expect("a piece lies inside its memory")
    }

    /// [`Piece::copy_out`] to memory in several pieces.
    pub(super) fn scatter(&self, to: &Spans) -> u64 {
        assert!(to.len() as u64 <= self.len, "more bytes than the piece has");
        self.memory().scatter(self.at(), to).expect("a piece lies inside its memory")
    }

    /// The checksum of its bytes.
    pub(super) fn checksum(&self) -> u64 {
        let len = usize::try_from(self.len).expect("a piece lies inside its memory");
        self.memory().checksum(self.at(), len).expect("a piece lies inside its memory")
    }

    /// Its bytes, to be transferred to.
    pub(super) fn slice(&self) -> Slice {
        let range = self.offset()..self.offset() + self.len;
        self.staging.region.slice(range).expect("a piece lies inside its memory")
    }

    fn memory(&self) -> &Arc<Memory> {
        self.staging.region.memory()
    }

    fn at(&self) -> usize {
        usize::try_from(self.offset()).expect("a piece lies inside its memory")
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(extent) = self.extent.take() {
            self.staging.space().extents.give_back(extent);
        }
    }
}

/// A piece that is being filled by a transfer. Dropping it gives the transfer up.
#[derive(Debug)]
pub(super) struct Arriving {
    piece: Option<Piece>,
    transfer: Option<Transfer>,
}

impl Arriving {
    pub(super) fn new(piece: Piece, transfer: Transfer) -> Self {
        Self { piece: Some(piece), transfer: Some(transfer) }
    }

    /// How many bytes are to come.
    pub(super) fn len(&self) -> u64 {
        self.piece.as_ref().map_or(0, Piece::len)
    }

    /// Waits for the bytes.
    pub(super) fn wait(mut self) -> Result<Piece, Outcome> {
        let outcome = self.transfer.as_ref().map_or(Outcome::Done, Transfer::wait);
        match (outcome, self.piece.take()) {
            (Outcome::Done, Some(piece)) => Ok(piece),
            (outcome, piece) => {
                self.piece = piece;
                Err(outcome)
            }
        }
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let (Some(mut piece), Some(transfer)) = (self.piece.take(), self.transfer.take()) else {
            return;
        };
        if transfer.fenced() {
            return;
        }
        transfer.cancel();
        if let Some(extent) = piece.extent.take() {
            piece.staging.space().unproven.push((transfer, extent));
        }
    }
}
