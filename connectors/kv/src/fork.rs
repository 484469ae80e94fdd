//! Noticing that a handle came along into a forked child.
//!
//! A child has none of its parent's threads, and whatever lock one of them held stays locked there, so
//! that nothing but saying so is safe: `fork(2)`.

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

static GENERATION: AtomicU64 = AtomicU64::new(0);
static INSTALL: Once = Once::new();

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// The process a handle was made in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Birth(u64);

impl Birth {
    /// This process.
    #[must_use]
    pub fn here() -> Self {
        INSTALL.call_once(|| {
            // SAFETY: the handler only adds to an atomic, which is safe in a forked child.
            let code = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
            // It fails for want of memory only; then a fork goes unnoticed, which is as before.
            debug_assert_eq!(code, 0, "pthread_atfork");
        });
        Self(GENERATION.load(Ordering::Relaxed))
    }

    /// Whether that process has forked and this is the child.
    #[must_use]
    pub fn is_elsewhere(self) -> bool {
        self.0 != GENERATION.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_noticed_and_its_parent_is_not() {
        let birth = Birth::here();
        assert!(!birth.is_elsewhere());
        // SAFETY: the child calls nothing but async-signal-safe functions.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: as above.
            unsafe { libc::_exit(i32::from(!birth.is_elsewhere())) };
        }
        let mut status = -1;
        // SAFETY: `status` is valid for the call.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0, "the child noticed");
        assert!(!birth.is_elsewhere());
    }
}
