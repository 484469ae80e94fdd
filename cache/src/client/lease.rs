//! Blocks kept in place for reading.

use std::fmt;
use std::sync::Arc;

use tranship_transport::memory::Spans;
use tranship_transport::{Outcome, Reason};

use super::arena::{Arena, place};
use super::connection::{Client, Session};
use super::ends::Sink;
use super::error::ReadError;
use super::staged::Staged;
use crate::key::Key;
use crate::wire::{Blocks, Leased, Request};

/// What a lease says of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Result {
    /// Readable: so many bytes.
    Ready {
        /// How long, bytes.
        len: u64,
    },
    /// Still being filled, or on its way up from a tier below, when the wait ended.
    Late,
    /// Not there.
    Gone,
    /// Its bytes did not match their checksum; the block was dropped.
    Corrupt,
}

/// Blocks kept in place; dropping it releases them.
///
/// A lease ends with its session. Bytes read after that may be another block's, and the checksum
/// tells: every read is checked.
#[must_use = "dropping a lease releases its blocks"]
pub struct Lease {
    client: Client,
    session: Arc<Session>,
    scope: u32,
    leases: Vec<u64>,
    blocks: Vec<(Key, Leased)>,
    /// Copies of blocks, where the arena is not mapped.
    staged: Staged,
}

impl Lease {
    pub(super) fn new(client: Client, session: Arc<Session>, scope: u32) -> Self {
        Self {
            client,
            session,
            scope,
            leases: Vec::new(),
            blocks: Vec::new(),
            staged: Staged::default(),
        }
    }

    pub(super) fn extend(&mut self, keys: &[Key], blocks: &Blocks) {
        if blocks.lease != 0 {
            self.leases.push(blocks.lease);
        }
        self.blocks.extend(keys.iter().copied().zip(blocks.results.iter().copied()));
    }

    /// How many blocks were asked for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether none were.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// What is known of each block, in the order asked for.
    pub fn results(&self) -> impl Iterator<Item = (Key, Result)> {
        self.blocks.iter().map(|(key, block)| {
            let result = match block {
                Leased::Ready { len, .. } => Result::Ready { len: *len },
                Leased::Late => Result::Late,
                Leased::Gone => Result::Gone,
                Leased::Corrupt => Result::Corrupt,
            };
            (*key, result)
        })
    }

    /// Copies the `index`-th block to `into`, which has its length, checking it on the way. Where
    /// the arena is not mapped, blocks that follow in the lease are on their way meanwhile.
    ///
    /// # Errors
    /// Every error is a clean miss of this block alone. After [`ReadError::Corrupt`] and
    /// [`ReadError::Transfer`] the buffer holds bytes that must not be used.
    pub fn copy_to(&self, index: usize, into: &mut [u8]) -> std::result::Result<(), ReadError> {
        self.bring(index, into)
    }

    /// [`Lease::copy_to`] to memory in several pieces.
    ///
    /// # Errors
    /// As for [`Lease::copy_to`].
    pub fn scatter_to(&self, index: usize, into: &Spans) -> std::result::Result<(), ReadError> {
        self.bring(index, into)
    }

    fn bring(&self, index: usize, mut into: impl Sink) -> std::result::Result<(), ReadError> {
        let (key, offset, len, checksum) = self.ready(index)?;
        let buffer = into.len() as u64;
        if len != buffer {
            return Err(ReadError::Length { key, len, buffer });
        }
        let found = match &self.session.arena {
            Arena::Mapped(mapping) => {
                let outcome = Outcome::Rejected(Reason::OutOfBounds);
                let (at, _) =
                    place(mapping, offset, len).ok_or(ReadError::Transfer { key, outcome })?;
                let copied = into.copy_from(mapping.memory(), at);
                copied.map_err(|_| ReadError::Transfer { key, outcome })?
            }
            Arena::Remote(remote) => match self.staged.viewed(index) {
                Some(piece) => into.copy_piece(&piece),
                None => into.copy_piece(&self.staged.bring(remote, &self.blocks, index)?),
            },
        };
        if found == checksum { Ok(()) } else { Err(self.corrupt(index, checksum, found)) }
    }

    /// Checks the `index`-th block and tells where it is: so many bytes, from this address on,
    /// until the lease is dropped or its time is over. It is in the mapped arena, or, where that is
    /// not mapped, in staging memory of the client's, which it is brought to now.
    ///
    /// Other clients of the same tenant have a mapped arena mapped too; a stray write of theirs
    /// after the check is not noticed. Copy what must not change.
    ///
    /// # Errors
    /// Every error is a clean miss of this block alone.
    pub fn view(&self, index: usize) -> std::result::Result<(*const u8, usize), ReadError> {
        let (key, offset, len, checksum) = self.ready(index)?;
        let not_ready = ReadError::NotReady { index };
        let (start, len, found) = match &self.session.arena {
            Arena::Mapped(mapping) => {
                let (at, len) = place(mapping, offset, len).ok_or(not_ready)?;
                let memory = mapping.memory();
                let found = memory.checksum(at, len).map_err(|_| not_ready)?;
                (memory.as_ptr().wrapping_add(at).cast_const(), len, found)
            }
            Arena::Remote(remote) => {
                let piece = match self.staged.viewed(index) {
                    Some(piece) => piece,
                    None => {
                        let piece = self.staged.bring(remote, &self.blocks, index)?;
                        self.staged.keep(index, piece)
                    }
                };
                let len = usize::try_from(len).map_err(|_| not_ready)?;
                (piece.as_ptr().cast_const(), len, piece.checksum())
            }
        };
        if found != checksum {
            tracing::debug!(%key, "view of a block that changed");
            return Err(self.corrupt(index, checksum, found));
        }
        Ok((start, len))
    }

    fn ready(&self, index: usize) -> std::result::Result<(Key, u64, u64, u64), ReadError> {
        match self.blocks.get(index) {
            Some((key, Leased::Ready { offset, len, checksum, .. })) => {
                Ok((*key, *offset, *len, *checksum))
            }
            _ => Err(ReadError::NotReady { index }),
        }
    }

    /// Tells the daemon of a block whose bytes are wrong.
    fn corrupt(&self, index: usize, expected: u64, found: u64) -> ReadError {
        let (key, block) = self.blocks[index];
        if let Leased::Ready { generation, .. } = block {
            let request = Request::Corrupt { scope: self.scope, key, generation };
            self.client.tell(&self.session, &request);
        }
        ReadError::Corrupt { key, expected, found }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.leases.is_empty() {
            let leases = std::mem::take(&mut self.leases);
            self.client.tell(&self.session, &Request::Release { leases });
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("blocks", &self.blocks).finish_non_exhaustive()
    }
}
