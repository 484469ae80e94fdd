//! What signals do, kept across the loading of libraries.
//!
//! Libraries under libfabric (`libpsm2`, `libinfinipath`) take SIGINT, SIGTERM and faults when they are loaded, whether
//! they are used or not, and end the process with `exit(1)`.

use std::mem::MaybeUninit;
use std::ptr;

/// The signals that such libraries take.
const TAKEN: [i32; 6] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGABRT, libc::SIGINT, libc::SIGTERM];

/// What these signals did before; dropping it makes them do so again.
pub(crate) struct Kept([Option<libc::sigaction>; TAKEN.len()]);

impl Kept {
    /// What they do now.
    pub(crate) fn now() -> Self {
        Self(TAKEN.map(action))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        for (signal, before) in TAKEN.into_iter().zip(&self.0) {
            let Some(before) = before else { continue };
            let is_same = action(signal).is_some_and(|now| now.sa_sigaction == before.sa_sigaction);
            if !is_same {
                // SAFETY: the action is one that was in force, with a handler that still exists: those of this
                // process, which unloads no library.
                unsafe { libc::sigaction(signal, before, ptr::null_mut()) };
            }
        }
    }
}

/// What a signal does.
pub(crate) fn action(signal: i32) -> Option<libc::sigaction> {
    let mut action = MaybeUninit::uninit();
    // SAFETY: nothing is changed, and the action is written where that is possible.
    let rc = unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) };
    // SAFETY: written, if the call succeeded.
    (rc == 0).then(|| unsafe { action.assume_init() })
}
