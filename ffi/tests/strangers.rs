//! Handles that are made up never reach anything.

use std::ptr::{null, null_mut, without_provenance_mut};

use proptest::prelude::*;
use tranship::engine::{tranship_engine_close, tranship_engine_id, tranship_engine_open};
use tranship::status::tranship_status_t as Status;
use tranship::{
    barrier, cache, client, counter, events, jobs, lease, pages, queue, region, remote,
};
use tranship::{room, transfer, watcher, window};

/// Closes something of each kind that these bits might be a handle of.
fn close_as_each_kind(bits: usize) -> [Status; 17] {
    [
        tranship_engine_close(without_provenance_mut(bits), 0),
        region::tranship_region_close(without_provenance_mut(bits), 0),
        window::tranship_window_revoke(without_provenance_mut(bits), 0),
        remote::tranship_remote_close(without_provenance_mut(bits)),
        pages::tranship_pages_close(without_provenance_mut(bits)),
        pages::tranship_plan_close(without_provenance_mut(bits)),
        queue::tranship_queue_close(without_provenance_mut(bits)),
        transfer::tranship_transfer_close(without_provenance_mut(bits)),
        counter::tranship_counter_close(without_provenance_mut(bits)),
        watcher::tranship_watcher_close(without_provenance_mut(bits)),
        barrier::tranship_barrier_close(without_provenance_mut(bits)),
        client::tranship_client_close(without_provenance_mut(bits)),
        cache::tranship_cache_close(without_provenance_mut(bits)),
        lease::tranship_lease_close(without_provenance_mut(bits)),
        room::tranship_room_close(without_provenance_mut(bits)),
        jobs::tranship_jobs_close(without_provenance_mut(bits)),
        events::tranship_events_close(without_provenance_mut(bits)),
    ]
}

fn is_told(status: Status) -> bool {
    matches!(
        status,
        Status::TRANSHIP_INVALID
            | Status::TRANSHIP_BAD_HANDLE
            | Status::TRANSHIP_CLOSED
            | Status::TRANSHIP_FORKED
    )
}

proptest! {
    #[test]
    fn no_number_is_a_handle(bits: usize) {
        prop_assert!(close_as_each_kind(bits).into_iter().all(is_told));
    }
}

#[test]
fn no_bit_of_a_handle_may_be_wrong() {
    let mut engine = null_mut();
    // SAFETY: no options, and there is room for the handle.
    assert_eq!(unsafe { tranship_engine_open(null(), &raw mut engine) }, Status::TRANSHIP_OK);
    for bit in 0..usize::BITS {
        let wrong = engine.addr() ^ (1 << bit);
        assert!(close_as_each_kind(wrong).into_iter().all(is_told), "bit {bit}");
    }
    let mut id = [0; 16];
    // SAFETY: there is room for the id.
    assert_eq!(unsafe { tranship_engine_id(engine, &raw mut id) }, Status::TRANSHIP_OK);
    assert_eq!(tranship_engine_close(engine, 60_000_000), Status::TRANSHIP_OK);
    assert_eq!(tranship_engine_close(engine, 60_000_000), Status::TRANSHIP_CLOSED);
}
