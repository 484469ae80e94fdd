//! The conformance suite: what every disk must do, seen from the log above it.
//!
//! A disk's tests implement [`Harness`] and call [`disk_conformance!`](crate::disk_conformance!), which
//! expands to one test for each rule. Each rule is a public function in the file of its theme, with the
//! rule as its documentation.

mod bounds;
mod bytes;
mod ends;
mod kit;
mod lanes;
mod threads;
mod wakes;

use std::io::Write as _;
use std::sync::Arc;

use tranship_transport::memory::Memory;

use super::Disk;

pub use bounds::*;
pub use bytes::*;
pub use ends::*;
pub use lanes::*;
pub use threads::*;
pub use wakes::*;

/// A device under test.
pub trait Harness: Sized {
    /// A blank device of `bytes` bytes.
    ///
    /// # Errors
    /// Why there is none on this machine.
    fn new(bytes: u64) -> Result<Self, String>;

    /// Opens it, told of these memories. No other disk of it is open.
    fn open(&mut self, memories: &[Arc<Memory>]) -> Box<dyn Disk>;
}

/// Runs a rule, or says why not.
pub fn run<H: Harness>(name: &str, bytes: u64, rule: fn(&mut H)) {
    match H::new(bytes) {
        Ok(mut device) => rule(&mut device),
        // Also when the harness captures the output of a passing test.
        Err(why) => drop(writeln!(std::io::stderr(), "{name}: skipped: {why}")),
    }
}

/// Bytes of the devices under test.
pub const DEVICE_BYTES: u64 = 48 << 20;

/// One test for each rule, on a [`Harness`](crate::tier::nvme::disk::conformance::Harness).
#[macro_export]
macro_rules! disk_conformance {
    ($harness:ty) => {
        $crate::disk_conformance!($harness:
            bytes_come_back_in_every_size,
            bytes_come_back_from_every_memory,
            bytes_stay_when_the_disk_is_opened_again,
            any_program_of_reads_and_writes_sees_what_was_written,
            an_operation_changes_nothing_beside_it,
            every_operation_ends_once,
            nothing_can_be_read_and_written,
            a_flush_ends_after_writes,
            a_span_keeps_its_memory,
            a_disk_dropped_with_operations_in_flight_touches_nothing_more,
            what_is_not_aligned_is_refused,
            what_leaves_the_disk_is_refused,
            a_full_lane_gives_operations_back,
            a_full_lane_does_not_hold_others_up,
            no_lane_starves,
            a_waker_ends_a_wait,
            a_waker_called_before_ends_the_next_wait,
            an_operation_that_ends_ends_a_wait,
            a_wait_ends_in_time,
            a_disk_may_change_threads_between_operations,
            a_disk_may_be_dropped_by_another_thread,
        );
    };
    ($harness:ty: $($rule:ident),* $(,)?) => {
        $(
            #[test]
            fn $rule() {
                use $crate::tier::nvme::disk::conformance as suite;
                suite::run(stringify!($rule), suite::DEVICE_BYTES, suite::$rule::<$harness>);
            }
        )*
    };
}
