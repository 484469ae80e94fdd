//! The one thing the lock-free parts are made of: a 64-bit atomic word, the standard one in shared
//! memory or loom's in models.

use std::sync::atomic::{self, AtomicU64, Ordering};

/// An atomic 64-bit word.
pub(super) trait Word {
    /// As [`AtomicU64::load`].
    fn load(&self, order: Ordering) -> u64;

    /// As [`AtomicU64::store`].
    fn store(&self, value: u64, order: Ordering);

    /// A sequentially consistent fence: of two threads that each store, fence and load what the
    /// other stored, at least one sees the other's store.
    fn fence();
}

impl Word for AtomicU64 {
    #[inline]
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    #[inline]
    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }

    #[inline]
    fn fence() {
        atomic::fence(Ordering::SeqCst);
    }
}

#[cfg(all(loom, test))]
impl Word for loom::sync::atomic::AtomicU64 {
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }

    fn fence() {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }
}
