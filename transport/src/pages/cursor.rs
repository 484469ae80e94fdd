//! A walk over the pieces of a plan.

use super::{Pages, Plan, Run};

/// Bytes that are one stretch on both sides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Where it starts on this side, counted from the start of the slice.
    pub local: u64,
    /// Where it starts on the peer's side, counted from the start of the remote slice.
    pub remote: u64,
    /// How long it is, bytes.
    pub len: u64,
}

/// A position in a plan. The same plan must be given to each call.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Cursor {
    local: Place,
    remote: Place,
}

impl Cursor {
    /// So many bytes from the start.
    pub(crate) fn at(plan: &Plan, bytes: u64) -> Self {
        let place = |pages| Place::at(Side::of(pages), bytes);
        Self { local: place(plan.local()), remote: place(plan.remote()) }
    }

    /// The next piece, at most `len_max` (which is not 0) bytes of it; `None` after the last.
    #[inline]
    pub fn next(&mut self, plan: &Plan, len_max: u64) -> Option<Piece> {
        debug_assert!(len_max > 0);
        self.step((Side::of(plan.local()), Side::of(plan.remote())), len_max)
    }

    /// Adds the next pieces, none longer than `len_max` and all together not longer than `bytes`, until
    /// there are `count`; how many bytes they have.
    pub(crate) fn list(
        &mut self,
        plan: &Plan,
        len_max: u64,
        bytes: u64,
        count: usize,
        pieces: &mut Vec<Piece>,
    ) -> u64 {
        let sides = (Side::of(plan.local()), Side::of(plan.remote()));
        let mut cursor = *self;
        let mut left = bytes;
        while left > 0 && pieces.len() < count {
            let Some(piece) = cursor.step(sides, left.min(len_max)) else { break };
            left -= piece.len;
            pieces.push(piece);
        }
        *self = cursor;
        bytes - left
    }

    #[inline]
    fn step(&mut self, (here, there): (Side<'_>, Side<'_>), len_max: u64) -> Option<Piece> {
        let (local, local_len) = self.local.look(here)?;
        let (remote, remote_len) = self.remote.look(there)?;
        let len = local_len.min(remote_len).min(len_max);
        self.local.advance(here, len, local_len);
        self.remote.advance(there, len, remote_len);
        Some(Piece { local, remote, len })
    }
}

/// The pages of one side, at hand.
#[derive(Clone, Copy)]
struct Side<'a> {
    runs: &'a [Run],
    layers: &'a [u64],
}

impl<'a> Side<'a> {
    #[inline]
    fn of(pages: &'a Pages) -> Self {
        Self { runs: pages.layer_runs(), layers: pages.layer_starts() }
    }
}

/// A position in the pages of one side.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
struct Place {
    layer: u32,
    run: u32,
    piece: u32,
    /// Bytes of the piece that are behind.
    within: u64,
}

impl Place {
    /// So many bytes from the start of the side.
    fn at(side: Side<'_>, bytes: u64) -> Self {
        let length = |run: &Run| run.bytes * u64::from(run.count);
        let layer_bytes: u64 = side.runs.iter().map(length).sum();
        if layer_bytes == 0 {
            return Self::default();
        }
        let last = side.layers.len() as u64 - 1;
        let layer = (bytes / layer_bytes).min(last);
        let mut left = bytes - layer * layer_bytes;
        let whole = side.runs.iter().take_while(|run| {
            let before = left >= length(run);
            left -= if before { length(run) } else { 0 };
            before
        });
        let run = whole.count();
        let (piece, within) = match side.runs.get(run) {
            Some(run) => ((left / run.bytes) as u32, left % run.bytes),
            None => (0, 0),
        };
        Self { layer: layer as u32, run: run as u32, piece, within }
    }

    /// Where the next byte is, and how many follow it without a gap.
    #[inline]
    fn look(&self, side: Side<'_>) -> Option<(u64, u64)> {
        let run = side.runs.get(self.run as usize)?;
        let start = side.layers.get(self.layer as usize)?;
        let at = start + run.offset + u64::from(self.piece) * run.stride + self.within;
        Some((at, run.bytes - self.within))
    }

    /// Goes on by `len` of the `left` bytes of this piece.
    #[inline]
    fn advance(&mut self, side: Side<'_>, len: u64, left: u64) {
        if len < left {
            self.within += len;
            return;
        }
        self.within = 0;
        self.piece += 1;
        if self.piece == side.runs[self.run as usize].count {
            self.piece = 0;
            self.run += 1;
            if self.run as usize == side.runs.len() && (self.layer as usize) < side.layers.len() - 1
            {
                self.run = 0;
                self.layer += 1;
            }
        }
    }
}
