//! Candidates in the order of a number that each block keeps while it is held.

use std::collections::BTreeSet;

use super::BlockId;

/// The candidates among the blocks of one queue; places are unique.
#[derive(Debug, Default)]
pub(super) struct Queue {
    candidates: BTreeSet<(u64, BlockId)>,
    /// Space of all its blocks, held ones included.
    bytes: u64,
}

/// Where a block stands, and how large it is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    pub(super) at: u64,
    pub(super) bytes: u64,
    pub(super) held: bool,
}

impl Queue {
    pub(super) fn insert(&mut self, id: BlockId, place: Place) {
        self.bytes += place.bytes;
        self.free(id, place);
    }

    pub(super) fn remove(&mut self, id: BlockId, place: Place) {
        self.bytes -= place.bytes;
        self.hold(id, place);
    }

    pub(super) fn hold(&mut self, id: BlockId, place: Place) {
        self.candidates.remove(&(place.at, id));
    }

    pub(super) fn free(&mut self, id: BlockId, place: Place) {
        if !place.held {
            self.candidates.insert((place.at, id));
        }
    }

    pub(super) fn first(&self) -> Option<BlockId> {
        self.candidates.first().map(|&(_, id)| id)
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// What is known of each block, by id.
#[derive(Debug)]
pub(super) struct Blocks<T>(Vec<T>);

impl<T> Default for Blocks<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Default> Blocks<T> {
    pub(super) fn put(&mut self, id: BlockId, value: T) {
        let index = id.0 as usize;
        if index >= self.0.len() {
            self.0.resize_with(index + 1, T::default);
        }
        self.0[index] = value;
    }
}

impl<T> std::ops::Index<BlockId> for Blocks<T> {
    type Output = T;
    fn index(&self, id: BlockId) -> &T {
        &self.0[id.0 as usize]
    }
}

impl<T> std::ops::IndexMut<BlockId> for Blocks<T> {
    fn index_mut(&mut self, id: BlockId) -> &mut T {
        &mut self.0[id.0 as usize]
    }
}
