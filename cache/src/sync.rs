//! Mutexes with a rank: a thread may only take locks of rising rank.
//!
//! Lock order of the crate, outermost first: [`REGISTRY`] → [`DRAM`] → [`WAKES`] → [`EVENTS`] →
//! [`MOVES`]; then those of the tiers below memory, which are taken alone or inside [`DRAM`]:
//! [`COLD_INDEX`] → [`COLD_DESK`], and [`OBJECT`] → [`OBJECT_BREAKER`] → [`OBJECT_ENDED`].
//! Debug builds (all tests) panic on the spot where the order is broken, whether or not the
//! deadlock would have happened this time; release builds pay nothing. Two locks of one rank are
//! never held together, so no thread holds two tenants' bookkeeping at once.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard};

/// The list of tenants.
pub(crate) const REGISTRY: u8 = 1;
/// One tenant's DRAM bookkeeping.
pub(crate) const DRAM: u8 = 2;
/// The queue of woken waiters.
pub(crate) const WAKES: u8 = 3;
/// The event ring.
pub(crate) const EVENTS: u8 = 4;
/// Blocks on their way to the tiers below.
pub(crate) const MOVES: u8 = 5;
/// A cold tier's index.
pub(crate) const COLD_INDEX: u8 = 6;
/// A cold tier's jobs and answers.
pub(crate) const COLD_DESK: u8 = 7;
/// The object tier's index and bookkeeping.
pub(crate) const OBJECT: u8 = 16;
/// Whether its service works.
pub(crate) const OBJECT_BREAKER: u8 = 17;
/// Its jobs that ended.
pub(crate) const OBJECT_ENDED: u8 = 18;

#[cfg(debug_assertions)]
thread_local! {
    /// Bit `r` is set while this thread holds a lock of rank `r`.
    static HELD: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

/// A mutex with its place in the lock order.
pub(crate) struct Ranked<T, const RANK: u8>(Mutex<T>);

impl<T, const RANK: u8> Ranked<T, RANK> {
    pub(crate) const fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// Takes the lock.
    ///
    /// # Panics
    /// When a thread panicked while it held the lock: the bookkeeping may be half-changed, and
    /// going on could hand out wrong bytes. In debug builds also when the lock order is broken.
    pub(crate) fn lock(&self) -> Held<'_, T, RANK> {
        self.lock_whole().unwrap_or_else(|left| {
            drop(left);
            panic!("the cache's bookkeeping (rank {RANK}) was left half-changed by a panic")
        })
    }

    /// Takes the lock, for bookkeeping that nobody goes on with after a panic.
    ///
    /// # Errors
    /// The lock all the same, when a thread panicked while it held it: what it guards may be
    /// half-changed.
    ///
    /// # Panics
    /// In debug builds when the lock order is broken.
    pub(crate) fn lock_whole(&self) -> Result<Held<'_, T, RANK>, Held<'_, T, RANK>> {
        #[cfg(debug_assertions)]
        HELD.with(|held| {
            assert!(held.get() >> RANK == 0, "lock order: rank {RANK} after {:#b}", held.get());
            held.set(held.get() | 1 << RANK);
        });
        self.0.lock().map(Held).map_err(|left| Held(left.into_inner()))
    }
}

/// The right to use what a [`Ranked`] guards.
pub(crate) struct Held<'a, T, const RANK: u8>(MutexGuard<'a, T>);

impl<T, const RANK: u8> Deref for Held<'_, T, RANK> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T, const RANK: u8> DerefMut for Held<'_, T, RANK> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T, const RANK: u8> Drop for Held<'_, T, RANK> {
    fn drop(&mut self) {
        unmark::<RANK>();
    }
}

impl<T, const RANK: u8> std::fmt::Debug for Ranked<T, RANK> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ranked").field("rank", &RANK).finish_non_exhaustive()
    }
}

fn unmark<const RANK: u8>() {
    #[cfg(debug_assertions)]
    HELD.with(|held| held.set(held.get() & !(1 << RANK)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn rising_ranks_are_fine_and_falling_ones_are_caught() {
        let dram = Ranked::<(), DRAM>::new(());
        let events = Ranked::<(), EVENTS>::new(());
        drop((dram.lock(), events.lock()));

        let held = events.lock();
        let broken = catch_unwind(AssertUnwindSafe(|| drop(dram.lock())));
        assert_eq!(
            broken.is_err(),
            cfg!(debug_assertions),
            "order must be checked in debug builds"
        );
        drop(held);
        drop(dram.lock());
    }

    #[test]
    fn what_a_panic_left_is_only_had_by_who_asks_for_it() {
        let dram = Ranked::<u8, DRAM>::new(0);
        let halfway = catch_unwind(AssertUnwindSafe(|| {
            *dram.lock() = 1;
            let _held = dram.lock_whole();
            panic!("halfway");
        }));
        assert!(halfway.is_err());
        assert!(catch_unwind(AssertUnwindSafe(|| drop(dram.lock()))).is_err());
        assert_eq!(dram.lock_whole().err().map(|left| *left), Some(1));
    }

    #[test]
    fn two_locks_of_one_rank_are_caught() {
        let (a, b) = (Ranked::<(), DRAM>::new(()), Ranked::<(), DRAM>::new(()));
        let held = a.lock();
        let broken = catch_unwind(AssertUnwindSafe(|| drop(b.lock())));
        assert_eq!(broken.is_err(), cfg!(debug_assertions));
        drop(held);
    }
}
