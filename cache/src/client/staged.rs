//! Blocks of one lease on their way through staging memory.
//!
//! Who reads one block most often reads the next: while one is waited for, reads of those after it
//! are under way, so that a lease costs its bytes and not a round trip a block.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::arena::Remote;
use super::error::{ReadError, StagingError};
use super::staging::{Arriving, Piece, Staging};
use crate::key::Key;
use crate::wire::Leased;

/// Bytes read ahead at most.
const AHEAD_BYTES_MAX: u64 = 16 << 20;
/// Blocks read ahead at most.
const AHEAD_BLOCKS_MAX: usize = 64;

/// What is staged of one lease.
#[derive(Debug, Default)]
pub(super) struct Staged {
    ahead: Mutex<Ahead>,
    /// Blocks whose address was given out; they stay until the lease ends.
    viewed: Mutex<HashMap<usize, Arc<Piece>>>,
}

#[derive(Debug, Default)]
struct Ahead {
    /// Reads under way, by place in the lease.
    arriving: BTreeMap<usize, Arriving>,
    bytes: u64,
    /// The first block that was never read ahead.
    next: usize,
}

impl Staged {
    /// A block whose address was given out before.
    pub(super) fn viewed(&self, index: usize) -> Option<Arc<Piece>> {
        lock(&self.viewed).get(&index).cloned()
    }

    /// Keeps a block where it is. If another thread was faster its copy is the one that stays.
    pub(super) fn keep(&self, index: usize, piece: Piece) -> Arc<Piece> {
        Arc::clone(lock(&self.viewed).entry(index).or_insert_with(|| Arc::new(piece)))
    }

    /// Brings a block here, and starts bringing those after it.
    pub(super) fn bring(
        &self,
        remote: &Remote,
        blocks: &[(Key, Leased)],
        index: usize,
    ) -> Result<Piece, ReadError> {
        let arriving = {
            let mut ahead = lock(&self.ahead);
            let mine = match ahead.take(index) {
                Some(arriving) => arriving,
                None => begin(remote, blocks, index, Staging::take)?,
            };
            ahead.go_on(remote, blocks, index);
            mine
        };
        let key = blocks[index].0;
        arriving.wait().map_err(|outcome| ReadError::Transfer { key, outcome })
    }
}

impl Ahead {
    fn take(&mut self, index: usize) -> Option<Arriving> {
        let arriving = self.arriving.remove(&index)?;
        self.bytes -= arriving.len();
        Some(arriving)
    }

    /// Starts reads of the blocks after `index`, as far as limits go.
    fn go_on(&mut self, remote: &Remote, blocks: &[(Key, Leased)], index: usize) {
        // What was passed over is not waited for; its memory is wanted for what comes.
        while let Some(passed) = self.arriving.first_entry()
            && *passed.key() < index
        {
            self.bytes -= passed.remove().len();
        }
        self.next = self.next.max(index + 1);
        while self.arriving.len() < AHEAD_BLOCKS_MAX && self.next < blocks.len() {
            let Leased::Ready { len, .. } = blocks[self.next].1 else {
                self.next += 1;
                continue;
            };
            if self.bytes.saturating_add(len) > AHEAD_BYTES_MAX {
                return;
            }
            let begun = begin(remote, blocks, self.next, Staging::take_spare);
            let Ok(arriving) = begun else { return };
            self.bytes += arriving.len();
            self.arriving.insert(self.next, arriving);
            self.next += 1;
        }
    }
}

/// Starts reading a block that is ready.
fn begin(
    remote: &Remote,
    blocks: &[(Key, Leased)],
    index: usize,
    take: impl FnOnce(&Arc<Staging>, u64) -> Result<Piece, StagingError>,
) -> Result<Arriving, ReadError> {
    let (key, Leased::Ready { offset, len, .. }) = blocks[index] else {
        return Err(ReadError::NotReady { index });
    };
    let piece = take(&remote.staging, len).map_err(|error| ReadError::Staging { key, error })?;
    remote.read(offset, piece).map_err(|outcome| ReadError::Transfer { key, outcome })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
