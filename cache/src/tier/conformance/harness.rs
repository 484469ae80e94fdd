//! What a tier's tests bring along.

use std::any::Any;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::tier::cold::{Cold, Notify};

/// A place for a tier, which outlives the tiers that are opened on it.
pub trait Harness: Sized {
    /// Longest block that the tier takes, bytes; at least 300,000.
    const BLOCK_BYTES_MAX: usize;
    /// Jobs of a lane that the tiers opened here take at once, at most 64.
    const LANE_JOBS: usize;

    /// Why no rule can be run on this machine, if so.
    fn missing() -> Option<&'static str> {
        None
    }

    /// A place where nothing is.
    fn new() -> Self;

    /// Opens the tier.
    fn open(&self, notify: Notify) -> Arc<dyn Cold>;

    /// The machine of the tier that is open crashes: what was not durable may be lost, and the tier
    /// can do nothing any more. `false` where that cannot be.
    fn crash(&self) -> bool {
        false
    }

    /// Changes a byte of each copy of these bytes that is stored; `false` where that cannot be.
    fn damage(&self, _bytes: &[u8]) -> bool {
        false
    }

    /// Keeps the device or the service from answering, or lets it again; `false` where that cannot be.
    fn hold(&self, _held: bool) -> bool {
        false
    }

    /// The device or the service goes away for good; `false` where that cannot be.
    fn lose(&self) -> bool {
        false
    }

    /// Lets time pass for the clock of the wall; `false` where that cannot be.
    fn pass(&self, _span: Duration) -> bool {
        false
    }

    /// Now, of that clock.
    fn wall(&self) -> crate::time::Wall;
}

/// Runs a rule.
///
/// # Panics
/// When the rule is broken.
pub fn run<H: Harness>(rule: &str, test: fn(&H)) {
    // To the standard error, past the capture of a test that passes: a skip is never silent. Nothing is
    // lost when nobody listens.
    let skipped = |why: &str| drop(writeln!(std::io::stderr(), "{rule}: skipped: {why}"));
    if let Some(why) = H::missing() {
        return skipped(why);
    }
    let harness = H::new();
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(&harness))) {
        if let Some(Skipped(why)) = panic.downcast_ref() {
            return skipped(why);
        }
        resume_unwind(panic);
    }
}

/// Ends a rule that cannot be run here.
struct Skipped(&'static str);

/// Skips the rule that is being run.
pub(super) fn skip(why: &'static str) -> ! {
    let payload: Box<dyn Any + Send> = Box::new(Skipped(why));
    resume_unwind(payload)
}
