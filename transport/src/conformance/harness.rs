//! What a fabric's tests bring along.

use std::any::Any;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;
use std::time::Duration;

use crate::address::Address;
use crate::engine::Builder;

/// Something that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The engine at this address dies without a word.
    Kill(Address),
    /// The host at this address hangs.
    Pause(Address),
    /// It goes on.
    Resume(Address),
    /// What is cancelled takes long to be flushed, longer than deadlines.
    SlowFlush,
    /// What is cancelled is not flushed at all.
    FailedFlush,
    /// Completions do not come any more.
    LostCompletions,
    /// Everything goes well again.
    None,
}

/// A fabric under test, with engines on it.
pub trait Harness: Sized {
    /// Whether engines may be used from several threads at once without losing the order of events.
    const THREADS: bool;

    /// The cases each rule is run for: seeds, where there is randomness.
    fn cases() -> Vec<u64>;

    /// A fresh fabric without engines.
    fn new(case: u64) -> Self;

    /// The case it was made for.
    fn case(&self) -> u64;

    /// An engine to be built on the fabric, with an address of its own.
    fn builder(&self) -> Builder;

    /// An engine to be built at the address of one that died; `None` where that cannot be.
    fn restart(&self, at: &Address) -> Option<Builder>;

    /// An address where nobody is.
    fn nowhere(&self) -> Address;

    /// Makes something go wrong; `false` where it cannot. Unless told otherwise nothing can.
    fn inject(&self, fault: Fault) -> bool {
        fault == Fault::None
    }

    /// Lets something happen; called over and over by a test that waits. In real time things happen
    /// by themselves.
    fn turn(&self) {
        thread::yield_now();
    }

    /// Lets time pass, to see that nothing happens in it.
    fn pass(&self, span: Duration) {
        // Nothing is waited for: the rules that call this look whether something happens meanwhile
        // that must not, and unless told otherwise time is real.
        thread::sleep(span);
    }

    /// What to print when a rule fails: how to run this case again.
    fn report(&self) -> String;
}

/// The environment variable that names the one case to run.
pub const CASE_VARIABLE: &str = "TRANSHIP_SIM_SEED";

/// Runs a rule for all cases, or for the one named by `TRANSHIP_SIM_SEED`.
///
/// # Panics
/// When the rule is broken; the case and how to run it again are printed before.
pub fn run<H: Harness>(rule: &str, test: fn(&H)) {
    let cases = match std::env::var(CASE_VARIABLE) {
        Ok(case) => vec![case.parse().expect("TRANSHIP_SIM_SEED is a number")],
        Err(_) => H::cases(),
    };
    for case in cases {
        let harness = H::new(case);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(&harness))) {
            if let Some(Skipped(why)) = panic.downcast_ref() {
                say(&format!("{rule}: skipped: {why}"));
                return;
            }
            say(&format!("{rule} failed in case {case}; {}", harness.report()));
            resume_unwind(panic);
        }
    }
}

/// Ends a rule that cannot be run here.
pub(super) struct Skipped(pub(super) &'static str);

/// Skips the rule that is being run.
pub(super) fn skip(why: &'static str) -> ! {
    let payload: Box<dyn Any + Send> = Box::new(Skipped(why));
    resume_unwind(payload)
}

/// To the standard error, past the capture of a test that passes: a skip is never silent.
fn say(text: &str) {
    // Nothing is lost when nobody listens.
    let _ = writeln!(std::io::stderr(), "{text}");
}
