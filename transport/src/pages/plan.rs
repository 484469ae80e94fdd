//! Which bytes go where.

use std::fmt;
use std::sync::Arc;

use super::{Cursor, Pages, Piece};

/// Which pieces of this side pair with which pieces of the peer's: the prepared list of a paged
/// transfer, made once and used as often as wanted. Bytes pair in order; the pieces of the two
/// sides need not be of the same length. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Plan {
    inner: Arc<Pair>,
}

#[derive(PartialEq, Eq)]
struct Pair {
    local: Pages,
    remote: Pages,
}

impl Plan {
    /// Pairs the pages of this side with those of the peer's.
    ///
    /// # Errors
    /// When the two sides are not equally long.
    pub fn new(local: Pages, remote: Pages) -> Result<Self, PlanError> {
        if local.bytes() != remote.bytes() {
            return Err(PlanError { local: local.bytes(), remote: remote.bytes() });
        }
        Ok(Self { inner: Arc::new(Pair { local, remote }) })
    }

    /// The pages of this side.
    #[must_use]
    pub fn local(&self) -> &Pages {
        &self.inner.local
    }

    /// The pages of the peer's side.
    #[must_use]
    pub fn remote(&self) -> &Pages {
        &self.inner.remote
    }

    /// How many bytes move.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.inner.local.bytes()
    }

    /// A walk over the pieces, from the first byte.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        Cursor::default()
    }

    /// All pieces in order, none longer than `len_max`.
    pub fn pieces(&self, len_max: u64) -> impl Iterator<Item = Piece> {
        let mut cursor = self.cursor();
        std::iter::from_fn(move || cursor.next(self, len_max))
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plan({:?} to {:?})", self.inner.local, self.inner.remote)
    }
}

/// Two sides that do not match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{local} bytes on this side, {remote} on the peer's; both must be equal")]
pub struct PlanError {
    /// Bytes of this side.
    pub local: u64,
    /// Bytes of the peer's.
    pub remote: u64,
}
