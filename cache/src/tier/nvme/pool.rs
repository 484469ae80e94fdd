//! Page-aligned memory for what does not go straight between span and device.

use std::sync::Arc;

use tranship_transport::memory::{HostMemory, Memory};

use super::disk::PAGE_BYTES;
use crate::arena::{Extent, Extents};
use crate::tier::Span;

/// A fixed amount of memory, lent in pieces.
#[derive(Debug)]
pub(crate) struct Pool {
    memory: Arc<Memory>,
    extents: Extents,
    /// Pieces that are lent, those with memory of their own included.
    lent: usize,
}

/// Lent memory; goes back with [`Pool::give_back`].
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) span: Span,
    /// None where the piece has memory of its own.
    extent: Option<Extent>,
}

impl Pool {
    /// A pool of so many bytes.
    ///
    /// # Errors
    /// Why there is no memory.
    pub(crate) fn new(name: &str, bytes: u64) -> Result<Self, String> {
        let memory = HostMemory::new(bytes as usize).name(name).build();
        let memory = memory.map_err(|why| why.to_string())?;
        Ok(Self { memory: Arc::new(memory), extents: Extents::new(bytes), lent: 0 })
    }

    /// Pages for `bytes`; none while too much is lent. More than the pool has at all gets memory of its
    /// own, when nothing else is lent.
    pub(crate) fn take(&mut self, bytes: u64) -> Option<Piece> {
        let bytes = bytes.next_multiple_of(PAGE_BYTES).max(PAGE_BYTES);
        if bytes > self.extents.capacity_bytes() {
            if self.lent > 0 {
                return None;
            }
            let memory = HostMemory::new(bytes as usize).name("nvme-large").build().ok()?;
            self.lent += 1;
            return Some(Piece { span: Span::whole(Arc::new(memory)), extent: None });
        }
        let extent = self.extents.take(bytes)?;
        self.lent += 1;
        let range = extent.offset()..extent.offset() + bytes;
        let span = Span::new(Arc::clone(&self.memory), range);
        Some(Piece { span, extent: Some(extent) })
    }

    pub(crate) fn give_back(&mut self, piece: Piece) {
        self.lent -= 1;
        if let Some(extent) = piece.extent {
            self.extents.give_back(extent);
        }
    }

    /// Pieces that are lent.
    pub(crate) fn lent(&self) -> usize {
        self.lent
    }
}
