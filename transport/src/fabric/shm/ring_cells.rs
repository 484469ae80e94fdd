//! A ring in ordinary memory, for tests and models.

#[cfg(loom)]
use loom::sync::Arc;
#[cfg(not(loom))]
use std::sync::Arc;

use super::ring::Channel;
use crate::sync::AtomicU64;

#[derive(Debug)]
pub(super) struct Cells {
    pub(super) head: AtomicU64,
    pub(super) tail: AtomicU64,
    pub(super) wanted: AtomicU64,
    pub(super) words: Vec<AtomicU64>,
}

impl Cells {
    pub(super) fn new(words: usize) -> Arc<Self> {
        Arc::new(Self {
            head: AtomicU64::new(0),
            tail: AtomicU64::new(0),
            wanted: AtomicU64::new(0),
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
        })
    }
}

impl Channel for Arc<Cells> {
    type Word = AtomicU64;

    fn head(&self) -> &AtomicU64 {
        &self.head
    }

    fn tail(&self) -> &AtomicU64 {
        &self.tail
    }

    fn wanted(&self) -> &AtomicU64 {
        &self.wanted
    }

    fn words(&self) -> &[AtomicU64] {
        &self.words
    }
}
