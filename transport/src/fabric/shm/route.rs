//! The way of a transfer's bytes, piece by piece.

use super::job::Direction;
use crate::copy::Batch;
use crate::fabric::{self, Local};
use crate::pages::{Cursor, Piece, Plan};

/// What a piece costs beside its bytes, as bytes: its first lines come from memory that nobody
/// fetched ahead.
const PIECE_BYTES: u64 = 512;

/// What is left of a transfer: a position that moves on chunk by chunk. A chunk depends on nothing
/// but the position and the limit, so one that was skipped is copied the same by another thread.
#[derive(Debug, Clone)]
pub(super) struct Route {
    direction: Direction,
    here: *mut u8,
    there: *mut u8,
    len: u64,
    left: u64,
    way: Way,
}

#[derive(Debug, Clone)]
enum Way {
    /// One stretch; this many bytes are behind.
    Straight(u64),
    /// The pieces of a plan.
    Paged(Plan, Cursor),
}

// SAFETY: the pointers are to memory that the engine (its own side) and the crossing (the peer's)
// keep until the transfer ends.
unsafe impl Send for Route {}

impl Route {
    /// The way between `local` and what lies `there`.
    pub(super) fn new(
        direction: Direction,
        local: &Local,
        there: *mut u8,
        pages: Option<&Plan>,
    ) -> Self {
        let way = match pages {
            None => Way::Straight(0),
            Some(plan) => Way::Paged(plan.clone(), plan.cursor()),
        };
        let len = fabric::bytes(local, pages);
        Self { direction, here: local.ptr, there, len, left: len, way }
    }

    /// An empty batch for bytes of this way.
    pub(super) fn batch(&self) -> Batch {
        Batch::new(self.len)
    }

    /// Whether it has the pieces of a plan.
    pub(super) fn is_paged(&self) -> bool {
        matches!(self.way, Way::Paged(..))
    }

    /// Bytes that are left.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// Adds one chunk to a batch, all that is left if that is little more than `chunk`; how many
    /// bytes it has.
    ///
    /// # Safety
    /// Until the batch is dropped both ends are valid for what is left of the way: the source for
    /// reads, the destination for writes.
    pub(super) unsafe fn feed(&mut self, batch: &mut Batch, chunk: u64) -> u64 {
        let (here, there, direction) = (self.here, self.there, self.direction);
        let ends = |piece: Piece| {
            let here = here.wrapping_add(piece.local as usize);
            let there = there.wrapping_add(piece.remote as usize);
            match direction {
                Direction::Write => (here.cast_const(), there),
                Direction::Read => (there.cast_const(), here),
            }
        };
        let fed = self.walk(chunk, |piece| {
            let (src, dst) = ends(piece);
            // SAFETY: passed on from the caller; the piece lies on the way.
            unsafe { batch.add(src, dst, piece.len as usize) };
        });
        if let Some(next) = self.peek() {
            let (src, dst) = ends(next);
            batch.look_ahead(src, dst, next.len as usize);
        }
        fed
    }

    /// The next page of a plan.
    fn peek(&self) -> Option<Piece> {
        match &self.way {
            Way::Paged(plan, cursor) => { *cursor }.next(plan, u64::MAX),
            Way::Straight(_) => None,
        }
    }

    /// Goes on behind one chunk and returns how many bytes it has.
    pub(super) fn skip(&mut self, chunk: u64) -> u64 {
        self.walk(chunk, |_| ())
    }

    /// Visits the pieces of one chunk. It is bounded by its bytes and, at [`PIECE_BYTES`] for each,
    /// by its pieces.
    #[inline]
    fn walk(&mut self, chunk: u64, mut visit: impl FnMut(Piece)) -> u64 {
        let chunk = if self.left <= chunk + chunk / 2 { self.left } else { chunk };
        let (mut cost, mut walked) = (0, 0);
        while cost < chunk && walked < self.left {
            // No sliver of a page is left to the next chunk.
            let len_max = (chunk - cost).max(chunk.div_ceil(2));
            let piece = match &mut self.way {
                Way::Straight(at) => {
                    let len = len_max.min(self.left - walked);
                    *at += len;
                    Piece { local: *at - len, remote: *at - len, len }
                }
                Way::Paged(plan, cursor) => match cursor.next(plan, len_max) {
                    Some(piece) => piece,
                    None => break,
                },
            };
            visit(piece);
            walked += piece.len;
            cost += piece.len + PIECE_BYTES;
        }
        self.left -= walked;
        walked
    }
}
