//! The fence: no byte lands in a window once its owner was told so.
//!
//! Every copying thread has a *hazard* word in the memory of its connection, every window a *stamp*
//! in its owner's table: 0 while nobody may use it, else its generation. A thread claims the window
//! in its hazard, fences, and copies one bounded chunk only if the stamp still is the expected one.
//! The owner clears the stamp, fences, and waits until no hazard claims the window. By the two
//! fences either the thread sees the cleared stamp and does not copy, or the owner sees the claim
//! and waits until it was withdrawn, which publishes the copied bytes.

use std::sync::atomic::Ordering;

use super::word::Word;
use crate::window::WindowId;

/// The stamp of a window that nobody may use.
pub(super) const SHUT: u64 = 0;

/// The stamp of a window that is open.
pub(super) fn stamp(window: WindowId) -> u64 {
    u64::from(window.generation) + 1
}

/// What a hazard says while it claims `window`; 0 claims nothing.
pub(super) fn claim(window: WindowId) -> u64 {
    (u64::from(window.slot) + 1) << 32 | u64::from(window.generation)
}

/// Claims a window for one chunk; `false`, and nothing is claimed, if it is not open any more.
#[inline]
pub(super) fn enter<W: Word>(hazard: &W, claim: u64, shared: &W, stamp: u64) -> bool {
    hazard.store(claim, Ordering::Relaxed);
    W::fence();
    if shared.load(Ordering::Acquire) == stamp {
        return true;
    }
    leave(hazard);
    false
}

/// Withdraws the claim.
#[inline]
pub(super) fn leave<W: Word>(hazard: &W) {
    hazard.store(0, Ordering::Release);
}

/// Shuts a window: nobody enters any more.
pub(super) fn shut<W: Word>(shared: &W) {
    shared.store(SHUT, Ordering::Relaxed);
    W::fence();
}

/// Whether a shut window is still claimed.
pub(super) fn claimed<'a, W: Word + 'a>(
    hazards: impl IntoIterator<Item = &'a W>,
    claim: u64,
) -> bool {
    hazards.into_iter().any(|hazard| hazard.load(Ordering::Acquire) == claim)
}
