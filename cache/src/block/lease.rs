//! The claim that keeps blocks in place while they are read.

use std::fmt;
use std::sync::Arc;

use super::{LeaseId, View};
use crate::catalog::Slot;
use crate::identity::IdentityId;
use crate::key::Key;
use crate::store::Shard;

/// What a lease says of one of the keys it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Readable, and in place until the lease ends.
    Ready(View),
    /// It is not in memory yet: somebody is filling it, or a tier below has it.
    Late,
    /// Not there.
    Gone,
    /// Its bytes do not match their checksum; the block was dropped.
    Corrupt,
}

/// Keeps blocks in place; dropping it releases them.
#[must_use = "dropping a lease releases its blocks"]
pub struct Lease {
    shard: Arc<Shard>,
    scope: IdentityId,
    id: LeaseId,
    results: Vec<Outcome>,
    slots: Vec<Slot>,
}

impl Lease {
    pub(crate) fn new(
        shard: Arc<Shard>,
        scope: IdentityId,
        id: LeaseId,
        results: Vec<Outcome>,
        slots: Vec<Slot>,
    ) -> Self {
        Self { shard, scope, id, results, slots }
    }

    /// Names the lease.
    pub fn id(&self) -> LeaseId {
        self.id
    }

    /// One result for each key, in the order asked for.
    pub fn results(&self) -> &[Outcome] {
        &self.results
    }

    /// The blocks that can be read, with their index in [`results`](Self::results).
    pub fn ready(&self) -> impl Iterator<Item = (usize, View)> {
        self.results.iter().enumerate().filter_map(|(index, outcome)| match outcome {
            Outcome::Ready(view) => Some((index, *view)),
            _ => None,
        })
    }

    /// Copies bytes out of the `index`-th block, from byte `at` of it. Returns false when the block
    /// is not ready; `bytes` is then unchanged.
    ///
    /// Engines on the host read the mapped arena themselves; this is for the others. The reader
    /// compares the checksum, as every reader must.
    ///
    /// # Errors
    /// When the range leaves the block.
    pub fn read_at(&self, index: usize, at: u64, bytes: &mut [u8]) -> Result<bool, OutOfBlock> {
        let Some(Outcome::Ready(view)) = self.results.get(index) else { return Ok(false) };
        OutOfBlock::check(view.key, view.len, at, bytes.len() as u64)?;
        self.shard.arena().read(view.offset + at, bytes);
        Ok(true)
    }

    /// Whether the `index`-th block, if it is ready, matches its checksum; one that does not is dropped
    /// from the store and counted.
    pub(crate) fn is_intact(&self, index: usize) -> bool {
        let Some(Outcome::Ready(view)) = self.results.get(index) else { return false };
        intact(&self.shard, self.scope, view)
    }

    /// Checks every ready block against its checksum, outside any lock. A block that fails turns to
    /// [`Outcome::Corrupt`], is dropped from the store and counted. Returns how many failed.
    pub fn verify(&mut self) -> usize {
        let mut failed = 0;
        for outcome in &mut self.results {
            let Outcome::Ready(view) = *outcome else { continue };
            if !intact(&self.shard, self.scope, &view) {
                *outcome = Outcome::Corrupt;
                failed += 1;
            }
        }
        failed
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shard.change(|dram| dram.release(self.id, &self.slots));
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("id", &self.id)
            .field("results", &self.results)
            .finish_non_exhaustive()
    }
}

/// Whether a block matches its checksum; one that does not is dropped.
fn intact(shard: &Arc<Shard>, scope: IdentityId, view: &View) -> bool {
    let intact = shard.arena().checksum(view.offset, view.len) == view.checksum;
    if !intact {
        shard.change(|dram| dram.mark_corrupt(scope, view.key, view.generation));
    }
    intact
}

/// An access that leaves its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes at {at} leave block {key}, which has {block} bytes")]
pub struct OutOfBlock {
    /// The block.
    pub key: Key,
    /// Its bytes.
    pub block: u64,
    /// First byte of the access.
    pub at: u64,
    /// Bytes of the access.
    pub len: u64,
}

impl OutOfBlock {
    pub(super) fn check(key: Key, block: u64, at: u64, len: u64) -> Result<(), Self> {
        match at.checked_add(len) {
            Some(end) if end <= block => Ok(()),
            _ => Err(Self { key, block, at, len }),
        }
    }
}
