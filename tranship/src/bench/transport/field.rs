//! Memory on both sides.

use std::ops::Range;

use tranship_transport::{Mapping, Region, RemoteSlice, RemoteWindow, Slice};

use super::asks::{Answer, Ask};
use super::{Bench, PATIENCE};
use crate::bench::Error;
use crate::bench::pages::{self, Pieces};
use crate::bench::rounds::Tally;

/// Memory on both sides, used piece by piece.
pub(super) struct Field {
    pub(super) ours: Region,
    pub(super) theirs: RemoteWindow,
    /// The peer's memory in this process: the limit copies between the very same bytes.
    mapping: Mapping,
    pub(super) pieces: Pieces,
}

impl Bench {
    /// Memory here and there for pieces of `size` bytes, at least four times `most` bytes of it.
    pub(super) fn field(&self, size: u64, most: u64) -> Result<Field, Error> {
        let bytes = self.plan.working_set_for(most);
        let ours = self.engine.register(pages::memory(bytes)?)?;
        let Answer::Opened { window } = self.ask(&Ask::Open { bytes })? else {
            return Err(Error::Answer { question: "open" });
        };
        let theirs = self.engine.open_at(self.peer, &window)?;
        let mapping = self.engine.map(&theirs, PATIENCE)?;
        Ok(Field { ours, theirs, mapping, pieces: Pieces::new(size, bytes) })
    }
}

impl Field {
    /// Bytes on each side.
    pub(super) fn bytes(&self) -> u64 {
        self.ours.len()
    }

    pub(super) fn ends(&self, piece: &Range<u64>) -> Result<(Slice, RemoteSlice), Error> {
        Ok((self.ours.slice(piece.clone())?, self.theirs.slice(piece.clone())?))
    }

    /// A copy of piece after piece, to here if `read`, else to the peer.
    pub(super) fn limit(&self, read: bool) -> impl FnMut(&mut Tally) -> Result<(), Error> {
        self.limit_of(self.pieces, read)
    }

    /// The same with other pieces.
    pub(super) fn limit_of(
        &self,
        pieces: Pieces,
        read: bool,
    ) -> impl FnMut(&mut Tally) -> Result<(), Error> {
        let (ours, theirs) = (self.ours.memory(), self.mapping.memory());
        let (from, to) = if read { (theirs, &**ours) } else { (&**ours, theirs) };
        pages::copies(from, to, pieces)
    }
}
