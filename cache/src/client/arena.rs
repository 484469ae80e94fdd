//! How a client gets at the bytes of the arena: in place where it can be mapped, else by one-sided
//! transfers through memory of its own.

use std::sync::Arc;
use std::time::Duration;

use tranship_transport::{Engine, Mapping, Outcome, Reason, RemoteWindow};

use super::staging::{Arriving, Piece, Staging};

/// The tenant's arena, as this client reaches it.
#[derive(Debug)]
pub(super) enum Arena {
    /// In this process's address space.
    Mapped(Mapping),
    /// Through the fabric.
    Remote(Remote),
}

/// An arena that is read by one-sided transfers. It cannot be written to: what this client puts is
/// read out of its staging memory by the daemon.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) engine: Engine,
    pub(super) window: RemoteWindow,
    pub(super) staging: Arc<Staging>,
    pub(super) deadline: Duration,
}

impl Arena {
    /// The mapping, where there is one.
    pub(super) fn mapping(&self) -> Option<&Mapping> {
        match self {
            Self::Mapped(mapping) => Some(mapping),
            Self::Remote(_) => None,
        }
    }
}

impl Remote {
    /// Starts reading the bytes at `offset` of the arena into a piece of as many bytes.
    pub(super) fn read(&self, offset: u64, piece: Piece) -> Result<Arriving, Outcome> {
        let end = offset.saturating_add(piece.len());
        let remote =
            self.window.slice(offset..end).map_err(|_| Outcome::Rejected(Reason::OutOfBounds))?;
        let read = self.engine.read(remote, piece.slice()).deadline(self.deadline);
        match read.submit() {
            Ok(transfer) => Ok(Arriving::new(piece, transfer)),
            Err(_) => Err(Outcome::Rejected(Reason::Full)),
        }
    }
}

/// Where `len` bytes at `offset` of the window are in the mapped region, if they are in it.
pub(super) fn place(mapping: &Mapping, offset: u64, len: u64) -> Option<(usize, usize)> {
    let (offset, len) = (usize::try_from(offset).ok()?, usize::try_from(len).ok()?);
    let inside = offset.checked_add(len)? <= mapping.len();
    inside.then(|| (mapping.offset() + offset, len))
}
