//! The conformance suite: what every fabric must do, seen from above the engine.
//!
//! A fabric's tests implement [`Harness`] and call [`conformance!`](crate::conformance!), which
//! expands to one test for each rule. Each rule is a public function here, in the file of its theme,
//! with the rule as its documentation. A rule that needs a fault which the harness cannot inject
//! says `skipped: why`.

mod bounds;
mod completion;
mod fences;
mod groups;
mod harness;
mod inputs;
mod kit;
mod lanes;
mod lengths;
mod messages;
mod outcomes;
mod pages;
mod sinks;
mod threads;
mod traffic;
mod visibility;

pub use bounds::*;
pub use completion::*;
pub use fences::*;
pub use groups::*;
pub use harness::{CASE_VARIABLE, Fault, Harness, run};
pub use inputs::*;
pub use lanes::*;
pub use lengths::*;
pub use messages::*;
pub use outcomes::*;
pub use pages::*;
pub use sinks::*;
pub use threads::*;
pub use traffic::*;
pub use visibility::*;

/// One test for each rule, on a [`Harness`](crate::conformance::Harness).
#[macro_export]
macro_rules! conformance {
    ($harness:ty) => {
        $crate::conformance!($harness:
            payload_is_visible_before_its_immediate,
            early_immediates_are_kept,
            a_count_shows_its_payloads,
            stragglers_of_an_earlier_generation_never_count,
            reads_and_messages_carry_immediates,
            a_write_of_no_bytes_delivers_its_immediate,
            nothing_outside_the_window_is_written,
            a_forged_key_is_refused,
            a_stale_generation_is_refused,
            a_wrong_window_is_refused,
            what_is_out_of_bounds_is_refused,
            what_is_not_granted_is_refused,
            a_mapping_is_the_window,
            every_length_arrives_whole,
            shards_lose_no_byte,
            more_than_four_gib_arrive_whole,
            messages_arrive_in_order_and_once,
            messages_of_every_length_arrive,
            a_message_too_long_is_refused,
            a_dead_peer_fails_its_transfers_in_time,
            a_restarted_peer_is_reached_again,
            nobody_there_is_unreachable,
            a_hung_peer_fails_transfers_by_their_deadline,
            what_is_lost_is_proven_later,
            a_transfer_ends_by_its_deadline_whatever_the_fabric_does,
            cancel_ends_a_transfer_in_any_state,
            a_stopped_transfer_moves_nothing_more,
            a_revoked_window_never_changes,
            a_revoked_page_is_reused_at_once,
            closing_a_region_fences_it,
            closing_the_initiator_fences_it,
            closing_the_target_fences_it,
            completions_come_in_every_way,
            a_sink_may_call_the_engine,
            statistics_add_up,
            pages_land_where_the_plan_says,
            pages_are_read_where_the_plan_says,
            small_sources_are_gathered,
            a_prepared_plan_is_used_again,
            a_plan_of_no_bytes_delivers_its_immediate,
            overlapping_destinations_are_refused,
            uneven_sides_are_refused,
            a_plan_out_of_bounds_is_refused,
            pages_beyond_four_gib_arrive,
            a_stopped_plan_moves_nothing_more,
            a_revoked_window_is_fenced_against_plans,
            a_dead_peer_fails_its_plans_in_time,
            a_signal_needs_no_window,
            a_signal_is_delivered_or_rejected,
            a_successor_counts_nothing_of_the_dead,
            the_latency_lane_does_not_wait_for_bulk,
            a_counter_is_waited_for_more_than_once,
            a_closed_handle_is_refused,
            nothing_can_be_transferred,
            bad_transfers_disturb_no_others,
            a_scatter_gives_each_peer_its_part,
            a_barrier_waits_for_everybody,
            a_watched_word_shows_a_peers_writes,
            many_write_to_one,
            traffic_goes_both_ways,
            a_window_is_fenced_against_writers_on_threads,
            a_count_shows_its_payloads_to_any_thread,
            what_a_wait_took_is_kept,
            closing_is_safe_under_threads,
        );
    };
    ($harness:ty: $($rule:ident),* $(,)?) => {
        $(
            #[test]
            fn $rule() {
                $crate::conformance::run(stringify!($rule), $crate::conformance::$rule::<$harness>);
            }
        )*
    };
}
