//! Reservations: room for a block, filled in place, then committed.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::arena::{Arena, place};
use super::calls::millis;
use super::connection::{Client, Session};
use super::ends::Source;
use super::error::{Error, ReadError};
use super::staging::Piece;
use tranship_transport::memory::Spans;
use tranship_transport::{Mapping, Outcome, Reason};

use crate::key::Key;
use crate::lineage::Link;
use crate::wire::{self, Committed, Put, Reply, Request, Reserved};

/// Bytes that one put carries at most, or one block; and what a store fills before it puts.
pub(super) const PUT_BYTES_MAX: u64 = 32 << 20;

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
                Self::Granted(Reservation { holder, link, offset, len, staged: OnceLock::new() })
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
    /// Where it is filled, once it is, where the arena is not mapped.
    staged: OnceLock<Piece>,
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
    /// When `bytes` has another length than the block, or there is no memory to copy them to; the
    /// reservation is given back.
    pub fn write(self, bytes: &[u8]) -> Result<Filled, ReadError> {
        self.fill(bytes)
    }

    /// [`Reservation::write`] of memory in several pieces.
    ///
    /// # Errors
    /// As for [`Reservation::write`].
    pub fn gather(self, from: &Spans) -> Result<Filled, ReadError> {
        self.fill(from)
    }

    pub(super) fn fill(self, bytes: impl Source) -> Result<Filled, ReadError> {
        let (key, len, buffer) = (self.link.key, self.len, bytes.len() as u64);
        if len != buffer {
            return Err(ReadError::Length { key, len, buffer });
        }
        let checksum = match self.mapped() {
            Some((mapping, at, _)) => {
                bytes.copy_to(mapping.memory(), at).map_err(|_| self.outside())?
            }
            None => bytes.copy_to_piece(self.staged()?, 0),
        };
        Ok(self.filled(checksum))
    }

    /// Copies memory in several pieces to `offset` in the block, which is sealed once all of it is filled.
    ///
    /// # Errors
    /// When they reach past the block's end, or there is no staging memory left.
    pub fn gather_at(&self, offset: u64, bytes: &Spans) -> Result<(), ReadError> {
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= self.len);
        let (Some(_), Ok(from)) = (end, usize::try_from(offset)) else {
            let (key, buffer) = (self.link.key, offset.saturating_add(bytes.len() as u64));
            return Err(ReadError::Length { key, len: self.len, buffer });
        };
        match self.mapped() {
            Some((mapping, at, _)) => {
                bytes.copy_to(mapping.memory(), at + from).map_err(|_| self.outside())?;
            }
            None => {
                bytes.copy_to_piece(self.staged()?, from);
            }
        }
        Ok(())
    }

    /// Where to fill the block in place: [`Reservation::len`] bytes of the mapped arena, or of
    /// staging memory where the arena is not mapped. The address is good for as long as the
    /// reservation is.
    ///
    /// # Errors
    /// When there is no staging memory left.
    pub fn space(&self) -> Result<*mut u8, ReadError> {
        match self.mapped() {
            Some((mapping, at, _)) => Ok(mapping.memory().as_ptr().wrapping_add(at)),
            None => self.staged().map(Piece::as_ptr),
        }
    }

    /// Ends filling in place: takes the checksum of what is there now.
    ///
    /// # Errors
    /// When there is no staging memory left; the reservation is given back.
    pub fn seal(self) -> Result<Filled, ReadError> {
        let checksum = match self.mapped() {
            Some((mapping, at, len)) => {
                mapping.memory().checksum(at, len).map_err(|_| self.outside())?
            }
            None => self.staged()?.checksum(),
        };
        Ok(self.filled(checksum))
    }

    fn filled(self, checksum: u64) -> Filled {
        let Self { holder, link, len, staged, .. } = self;
        Filled { holder, link, len, checksum, staged: staged.into_inner() }
    }

    /// Where the block is in the mapping, if there is one; a block outside of it is none.
    fn mapped(&self) -> Option<(&Mapping, usize, usize)> {
        let mapping = self.holder.session.arena.mapping()?;
        let (at, len) = place(mapping, self.offset, self.len)?;
        Some((mapping, at, len))
    }

    /// The block's place in staging memory.
    fn staged(&self) -> Result<&Piece, ReadError> {
        let Arena::Remote(remote) = &self.holder.session.arena else { return Err(self.outside()) };
        if let Some(piece) = self.staged.get() {
            return Ok(piece);
        }
        let key = self.link.key;
        let taken = remote.staging.take(self.len);
        let piece = taken.map_err(|error| ReadError::Staging { key, error })?;
        Ok(self.staged.get_or_init(|| piece))
    }

    fn outside(&self) -> ReadError {
        let outcome = Outcome::Rejected(Reason::OutOfBounds);
        ReadError::Transfer { key: self.link.key, outcome }
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
    len: u64,
    checksum: u64,
    /// Where its bytes are, if not in the arena.
    staged: Option<Piece>,
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
        let (session, staged) = (Arc::clone(&first.holder.session), first.staged.is_some());
        let mut room = PUT_BYTES_MAX.saturating_sub(first.len);
        let mut batch = vec![first];
        let alike = |next: &Filled| {
            Arc::ptr_eq(&next.holder.session, &session) && next.staged.is_some() == staged
        };
        while batch.len() < client.batches().fills
            && let Some(next) = blocks.next_if(|next| alike(next) && (!staged || next.len <= room))
        {
            room = room.saturating_sub(next.len);
            batch.push(next);
        }
        if !client.is_current(&session) {
            let over = |block: Filled| Err(CommitFailed::SessionOver { key: block.link.key });
            results.extend(batch.into_iter().map(over));
            continue;
        }
        match call(client, &session, &batch)? {
            Reply::Committed(answers) if answers.len() == batch.len() => {
                results.extend(batch.into_iter().zip(answers).map(|(b, answer)| finish(b, answer)));
            }
            _ => return Err(Error::Mismatched { request: "commit" }),
        }
    }
    Ok(results)
}

/// Tells the daemon of filled blocks: to take what is in the arena, or to read it from here.
fn call(client: &Client, session: &Session, batch: &[Filled]) -> Result<Reply, Error> {
    let staging = batch.first().and_then(|block| Some(block.staged.as_ref()?.staging()));
    let Some(staging) = staging else {
        let pair = |block: &Filled| (block.holder.reservation, block.checksum);
        let request = Request::Commit { blocks: batch.iter().map(pair).collect() };
        return client.call(session, &request);
    };
    let source = |block: &Filled| wire::Source {
        reservation: block.holder.reservation,
        checksum: block.checksum,
        offset: block.staged.as_ref().map_or(0, Piece::offset),
    };
    let put = Put {
        deadline_ms: millis(client.timeout()),
        window: staging.descriptor(),
        blocks: batch.iter().map(source).collect(),
    };
    // The daemon answers when its reads have ended, by their deadline at the latest.
    client.call_within(session, &Request::Put(put), client.timeout() * 2)
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
