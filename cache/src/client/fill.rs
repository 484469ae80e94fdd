//! Reservations: room for a block, filled in place, then committed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::connection::{Client, Session};
use super::error::{Error, ReadError};
use crate::key::Key;
use crate::lineage::Link;
use crate::wire::{Committed, Reply, Request, Reserved};

/// The answer to one block of a reservation.
#[derive(Debug)]
pub enum Grant {
    /// Fill it.
    Granted(Reservation),
    /// The block is resident; there is nothing to do.
    Exists,
    /// Somebody else is filling it; a lease with a wait gets it when it is there.
    InFlight,
    /// Not taken.
    Refused {
        /// Why, and what to do.
        why: String,
        /// When to try again; none when trying again cannot help.
        retry_after: Option<Duration>,
    },
}

impl Grant {
    pub(super) fn new(
        client: &Client,
        session: &Arc<Session>,
        link: Link,
        len: u64,
        answer: Reserved,
    ) -> Self {
        match answer {
            Reserved::Granted { reservation, offset } => {
                let holder =
                    Holder { client: client.clone(), session: Arc::clone(session), reservation };
                Self::Granted(Reservation { holder, link, offset, len })
            }
            Reserved::Exists => Self::Exists,
            Reserved::InFlight => Self::InFlight,
            Reserved::Refused { retry_ms, why } => {
                Self::Refused { why, retry_after: retry_ms.map(Duration::from_millis) }
            }
        }
    }
}

/// Gives a reservation back when it is dropped.
struct Holder {
    client: Client,
    session: Arc<Session>,
    /// Zero once it was committed.
    reservation: u64,
}

impl Drop for Holder {
    fn drop(&mut self) {
        if self.reservation != 0 {
            let reservations = vec![self.reservation];
            self.client.tell(&self.session, &Request::Abort { reservations });
        }
    }
}

/// The exclusive right to fill one block. Nobody can read it before it is committed; dropping it
/// gives the room back.
#[must_use = "dropping a reservation gives the room back"]
pub struct Reservation {
    holder: Holder,
    link: Link,
    offset: u64,
    len: u64,
}

impl Reservation {
    /// The block.
    #[must_use]
    pub fn link(&self) -> Link {
        self.link
    }

    /// How long it is, bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fills the block by a copy, taking the checksum on the way.
    ///
    /// # Errors
    /// When `bytes` has another length than the block, or the bytes could not be brought there;
    /// the reservation is given back.
    pub fn write(self, bytes: &[u8]) -> Result<Filled, ReadError> {
        let (key, len, buffer) = (self.link.key, self.len, bytes.len() as u64);
        if len != buffer {
            return Err(ReadError::Length { key, len, buffer });
        }
        match self.holder.session.arena.write(self.offset, bytes) {
            Ok(checksum) => Ok(Filled { holder: self.holder, link: self.link, checksum }),
            Err(failure) => Err(ReadError::Transfer { key, outcome: failure.outcome() }),
        }
    }

    /// Where to fill the block in place, in the mapped arena; [`Reservation::len`] bytes. `None`
    /// where the arena is not mapped.
    #[must_use]
    pub fn space(&self) -> Option<*mut u8> {
        let mapping = self.holder.session.arena.mapping()?;
        let offset = usize::try_from(self.offset).ok()?;
        let len = usize::try_from(self.len).ok()?;
        (offset.checked_add(len)? <= mapping.len())
            .then(|| mapping.memory().as_ptr().wrapping_add(mapping.offset() + offset))
    }

    /// Ends filling in place: takes the checksum of what is there now. `None`, and the reservation
    /// is given back, where the arena is not mapped.
    #[must_use]
    pub fn seal(self) -> Option<Filled> {
        let mapping = self.holder.session.arena.mapping()?;
        let at = mapping.offset() + usize::try_from(self.offset).ok()?;
        let checksum = mapping.memory().checksum(at, usize::try_from(self.len).ok()?).ok()?;
        Some(Filled { holder: self.holder, link: self.link, checksum })
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reservation({} of {} bytes)", self.link.key, self.len)
    }
}

/// A block that was filled and not yet committed; dropping it gives the room back.
#[must_use = "what is not committed never existed"]
pub struct Filled {
    holder: Holder,
    link: Link,
    checksum: u64,
}

impl Filled {
    /// The block.
    #[must_use]
    pub fn link(&self) -> Link {
        self.link
    }

    /// CRC-64/NVMe of its bytes.
    #[must_use]
    pub fn checksum(&self) -> u64 {
        self.checksum
    }
}

impl fmt::Debug for Filled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Filled({}, checksum {:016x})", self.link.key, self.checksum)
    }
}

/// What became of one block that was to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It is readable.
    Stored,
    /// It was there already.
    Exists,
    /// Somebody else is storing it.
    InFlight,
    /// It was not stored.
    Refused {
        /// Why, and what to do.
        why: String,
        /// When to try again; none when trying again cannot help.
        retry_after: Option<Duration>,
    },
}

/// A block that was not committed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitFailed {
    /// The bytes in the arena are not those of the checksum: somebody else wrote there.
    #[error("block {key} has checksum {found:016x} in the arena, not {expected:016x}")]
    Mismatch {
        /// The block.
        key: Key,
        /// Checksum as committed.
        expected: u64,
        /// Checksum of the bytes found.
        found: u64,
    },
    /// The daemon refused.
    #[error("block {key}: {why}")]
    Refused {
        /// The block.
        key: Key,
        /// Why.
        why: String,
    },
    /// The session that reserved it is over.
    #[error("block {key}: the session that reserved it is over; reserve it again")]
    SessionOver {
        /// The block.
        key: Key,
    },
}

/// Commits blocks, those of one session in few messages.
pub(super) fn commit(
    client: &Client,
    blocks: Vec<Filled>,
) -> Result<Vec<Result<(), CommitFailed>>, Error> {
    let mut results = Vec::with_capacity(blocks.len());
    let mut blocks = blocks.into_iter().peekable();
    while let Some(first) = blocks.next() {
        let session = Arc::clone(&first.holder.session);
        let mut batch = vec![first];
        while batch.len() < client.batches().fills
            && let Some(next) = blocks.next_if(|b| Arc::ptr_eq(&b.holder.session, &session))
        {
            batch.push(next);
        }
        if !client.is_current(&session) {
            let over = |block: Filled| Err(CommitFailed::SessionOver { key: block.link.key });
            results.extend(batch.into_iter().map(over));
            continue;
        }
        let pair = |block: &Filled| (block.holder.reservation, block.checksum);
        let request = Request::Commit { blocks: batch.iter().map(pair).collect() };
        match client.call(&session, &request)? {
            Reply::Committed(answers) if answers.len() == batch.len() => {
                results.extend(batch.into_iter().zip(answers).map(|(b, answer)| finish(b, answer)));
            }
            _ => return Err(Error::Mismatched { request: "commit" }),
        }
    }
    Ok(results)
}

fn finish(mut block: Filled, answer: Committed) -> Result<(), CommitFailed> {
    let (key, expected) = (block.link.key, block.checksum);
    match answer {
        Committed::Stored => {
            block.holder.reservation = 0;
            Ok(())
        }
        Committed::Mismatch { found } => Err(CommitFailed::Mismatch { key, expected, found }),
        Committed::Refused { why } => {
            block.holder.reservation = 0;
            Err(CommitFailed::Refused { key, why })
        }
    }
}
