//! The conformance suite: what every cold tier must do, seen from outside.
//!
//! A tier's tests implement [`Harness`] and call [`cold_conformance!`](crate::cold_conformance!), which
//! expands to one test for each rule. Each rule is a public function here, in the file of its theme,
//! with the rule as its documentation. A rule that needs something which the harness cannot do says
//! `skipped: why`.

mod bytes;
mod ends;
mod harness;
mod kit;
mod lasting;
mod load;

pub use bytes::*;
pub use ends::*;
pub use harness::{Harness, run};
pub use lasting::*;
pub use load::*;

/// One test for each rule, on a [`Harness`](crate::tier::conformance::Harness).
#[macro_export]
macro_rules! cold_conformance {
    ($harness:ty) => {
        $crate::cold_conformance!($harness:
            blocks_of_every_length_come_back,
            every_range_comes_back,
            a_load_touches_nothing_else,
            a_load_tells_what_was_stored,
            what_is_found_is_what_was_stored,
            an_unknown_block_is_gone,
            a_wrong_checksum_is_not_stored,
            a_wrong_range_is_refused,
            the_newest_version_is_loaded,
            identities_are_apart,
            a_damaged_block_is_dropped,
            damage_elsewhere_spoils_no_range,
            every_job_is_answered_once,
            a_removed_block_is_gone_at_once,
            a_cleared_identity_is_gone_at_once,
            a_removal_voids_stores_before_it,
            what_was_cleared_stays_cleared_after_a_close,
            a_block_expires,
            every_block_is_visited_once,
            what_was_durable_survives_a_crash,
            a_sync_makes_durable,
            a_close_keeps_everything,
            what_was_removed_stays_removed_after_a_close,
            a_full_lane_refuses_jobs_whole,
            a_late_load_ends_by_its_deadline,
            a_closed_tier_refuses_jobs_whole,
            a_close_under_load_answers_everything,
            a_close_ends_in_time,
            a_tier_that_fails_says_why,
            many_threads_get_their_own_bytes,
            figures_add_up,
        );
    };
    ($harness:ty: $($rule:ident),* $(,)?) => {
        $(
            #[test]
            fn $rule() {
                $crate::tier::conformance::run(
                    stringify!($rule),
                    $crate::tier::conformance::$rule::<$harness>,
                );
            }
        )*
    };
}
