//! The exclusive right to fill a block.

use std::fmt;
use std::sync::Arc;

use super::{Generation, OutOfBlock, Revocation, View};
use crate::catalog::Slot;
use crate::key::Key;
use crate::lineage::Link;
use crate::store::Shard;
use crate::tier::Span;
use crate::tier::dram::Dram;
use crate::time::Millis;

/// The exclusive right to fill one extent with one block.
///
/// Dropping it gives the space back and wakes whoever waits for the block.
#[must_use = "dropping a reservation gives it up"]
pub struct Reserved {
    shard: Arc<Shard>,
    slot: Slot,
    generation: Generation,
    link: Link,
    offset: u64,
    len: u64,
    open: bool,
}

impl Reserved {
    pub(crate) fn new(
        shard: Arc<Shard>,
        slot: Slot,
        generation: Generation,
        link: Link,
        (offset, len): (u64, u64),
    ) -> Self {
        Self { shard, slot, generation, link, offset, len, open: true }
    }

    /// The block's place in its chain.
    pub fn link(&self) -> Link {
        self.link
    }

    /// The block.
    pub fn key(&self) -> Key {
        self.link.key
    }

    /// Which filling this is; also names the reservation.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// First byte in the tenant's arena.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes to fill.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True for a block without bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies `bytes` into the block at byte `at` of it.
    ///
    /// Engines on the host fill the mapped arena themselves; this is for the others.
    ///
    /// # Errors
    /// When the bytes do not fit into the block; none is written.
    pub fn write_at(&mut self, at: u64, bytes: &[u8]) -> Result<(), OutOfBlock> {
        OutOfBlock::check(self.link.key, self.len, at, bytes.len() as u64)?;
        self.shard.arena().write(self.offset + at, bytes);
        Ok(())
    }

    /// Makes the block readable by everybody.
    ///
    /// Unless the store was told not to, the arena's bytes are first checked against `checksum`
    /// (CRC-64/NVMe), outside any lock.
    ///
    /// # Errors
    /// [`CommitError::Mismatch`] gives the reservation back, to be filled again;
    /// [`CommitError::Revoked`] when it was taken back meanwhile.
    pub fn commit(self, checksum: u64, now: Millis) -> Result<Committed, CommitError> {
        let verify = self.shard.verifies_commits();
        self.finish(checksum, verify, now)
    }

    /// [`Reserved::commit`] of bytes that came over a wire: they are checked whatever the store was
    /// told.
    ///
    /// # Errors
    /// See [`Reserved::commit`].
    pub fn commit_received(self, checksum: u64, now: Millis) -> Result<Committed, CommitError> {
        self.finish(checksum, true, now)
    }

    /// [`Reserved::commit`] of a block that a tier below has brought and checked, and whose place in its
    /// chain came with it.
    pub(crate) fn commit_promoted(
        self,
        link: Link,
        ttl: Option<Millis>,
        checksum: u64,
        now: Millis,
    ) -> Result<Committed, CommitError> {
        let at = (link, ttl);
        self.settle(checksum, |dram, slot| dram.finish_promotion(slot, at, checksum, now))
    }

    /// [`Reserved::commit`] of bytes that a tier below has checked as it brought them.
    pub(crate) fn commit_checked(
        self,
        checksum: u64,
        now: Millis,
    ) -> Result<Committed, CommitError> {
        self.finish(checksum, false, now)
    }

    /// The space to fill.
    pub(crate) fn span(&self) -> Span {
        let memory = Arc::clone(self.shard.arena().memory());
        Span::new(memory, self.offset..self.offset + self.len)
    }

    fn finish(self, checksum: u64, verify: bool, now: Millis) -> Result<Committed, CommitError> {
        if verify {
            let found = self.shard.arena().checksum(self.offset, self.len);
            if found != checksum {
                self.shard.look(Dram::count_mismatch);
                return Err(CommitError::Mismatch { reserved: self, expected: checksum, found });
            }
        }
        self.settle(checksum, |dram, slot| dram.finish(slot, checksum, now))
    }

    fn settle(
        mut self,
        checksum: u64,
        finish: impl FnOnce(&mut Dram, Slot) -> Result<usize, Revocation>,
    ) -> Result<Committed, CommitError> {
        let (slot, key) = (self.slot, self.link.key);
        match self.shard.change(|dram| finish(dram, slot)) {
            Ok(woken) => {
                self.open = false;
                let (offset, len, generation) = (self.offset, self.len, self.generation);
                Ok(Committed { view: View { key, offset, len, checksum, generation }, woken })
            }
            Err(why) => Err(CommitError::Revoked { key, why }),
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if self.open {
            self.shard.change(|dram| dram.abandon(self.slot));
        }
    }
}

impl fmt::Debug for Reserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reserved")
            .field("link", &self.link)
            .field("generation", &self.generation)
            .field("offset", &self.offset)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// A block that became readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Where it is.
    pub view: View,
    /// Waiters that were woken; [`Store::woken`](crate::Store::woken) tells them.
    pub woken: usize,
}

/// Why a block did not become readable.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The bytes in the arena are not those of the checksum.
    #[error(
        "block {} has checksum {found:016x}, not {expected:016x} as committed; fill it again",
        reserved.key()
    )]
    Mismatch {
        /// The reservation, unchanged.
        reserved: Reserved,
        /// The checksum that was told.
        expected: u64,
        /// The checksum of the bytes.
        found: u64,
    },
    /// The reservation was taken back; its space is free again.
    #[error("the reservation of block {key} is void: {why}; reserve it again")]
    Revoked {
        /// The block.
        key: Key,
        /// Why.
        why: Revocation,
    },
}
