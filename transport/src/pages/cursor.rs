//! A walk over the pieces of a plan.

use super::{Pages, Plan};

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
    /// The next piece, at most `len_max` (which is not 0) bytes of it; `None` after the last.
    #[inline]
    pub fn next(&mut self, plan: &Plan, len_max: u64) -> Option<Piece> {
        debug_assert!(len_max > 0);
        let (local, local_len) = self.local.look(plan.local())?;
        let (remote, remote_len) = self.remote.look(plan.remote())?;
        let len = local_len.min(remote_len).min(len_max);
        self.local.advance(plan.local(), len, local_len);
        self.remote.advance(plan.remote(), len, remote_len);
        Some(Piece { local, remote, len })
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
    /// Where the next byte is, and how many follow it without a gap.
    #[inline]
    fn look(&self, pages: &Pages) -> Option<(u64, u64)> {
        let run = pages.layer_runs().get(self.run as usize)?;
        let start = pages.layer_starts().get(self.layer as usize)?;
        let at = start + run.offset + u64::from(self.piece) * run.stride + self.within;
        Some((at, run.bytes - self.within))
    }

    /// Goes on by `len` of the `left` bytes of this piece.
    #[inline]
    fn advance(&mut self, pages: &Pages, len: u64, left: u64) {
        if len < left {
            self.within += len;
            return;
        }
        self.within = 0;
        self.piece += 1;
        let runs = pages.layer_runs();
        if self.piece == runs[self.run as usize].count {
            self.piece = 0;
            self.run += 1;
            if self.run as usize == runs.len()
                && (self.layer as usize) < pages.layer_starts().len() - 1
            {
                self.run = 0;
                self.layer += 1;
            }
        }
    }
}
