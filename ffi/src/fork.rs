//! Noticing a fork.
//!
//! A forked child has none of its parent's threads, and a lock that one of them held is never let go
//! there (`fork(2)`). So what a handle of the parent's stands for is not touched in the child: its birth,
//! which is a part of the handle itself, tells it before any lock is taken. What the child opens goes
//! into a registry of its own; the parent's is left behind, never freed.

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

use crate::handle::Registry;

static BIRTHS: AtomicU32 = AtomicU32::new(0);
static WATCHED: AtomicBool = AtomicBool::new(false);
/// This process's registry.
static REGISTRY: AtomicPtr<Registry> = AtomicPtr::new(ptr::null_mut());
/// The parent's; kept in sight, so that it is no leak.
static LEFT: AtomicPtr<Registry> = AtomicPtr::new(ptr::null_mut());

/// Runs in the child, before anything else does: nothing but atomics is allowed.
extern "C" fn in_child() {
    BIRTHS.fetch_add(1, Ordering::Relaxed);
    LEFT.store(REGISTRY.swap(ptr::null_mut(), Ordering::Relaxed), Ordering::Relaxed);
}

/// How often the ancestors of this process have forked since they loaded the library.
pub(crate) fn birth() -> u32 {
    BIRTHS.load(Ordering::Relaxed)
}

/// The registry of this process.
pub(crate) fn registry() -> &'static Registry {
    let now = REGISTRY.load(Ordering::Acquire);
    if now.is_null() {
        return first();
    }
    // SAFETY: once it is there it is never freed.
    unsafe { &*now }
}

#[cold]
fn first() -> &'static Registry {
    if !WATCHED.swap(true, Ordering::AcqRel) {
        // SAFETY: the handler uses atomics alone, and stays loaded: the library is linked `nodelete`.
        let refused = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        assert_eq!(refused, 0, "pthread_atfork: no memory");
    }
    let fresh = Box::into_raw(Box::default());
    match REGISTRY.compare_exchange(ptr::null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: it was made just now, and is never freed.
        Ok(_) => unsafe { &*fresh },
        Err(other) => {
            // SAFETY: it was made just now, and nobody has seen it.
            drop(unsafe { Box::from_raw(fresh) });
            // SAFETY: another thread's, which is never freed.
            unsafe { &*other }
        }
    }
}
