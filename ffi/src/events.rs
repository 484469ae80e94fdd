//! Following what happens to a tenant's blocks.

use tranship_cache::client::{Event, Subscription};

use crate::cache::{Cache, tranship_cache_t};
use crate::call::call;
use crate::handle;
use crate::input;
use crate::keys::tranship_key_t;
use crate::output::Out;
use crate::status::{Failure, tranship_status_t};

/// What happens to the blocks of the client's tenant, as it does. A client has one at a time: a new one
/// replaces the old.
pub struct tranship_events_t {
    _opaque: [u8; 0],
}

/// From now on: `from` of tranship_events_open().
pub const TRANSHIP_EVENTS_NOW: u64 = u64::MAX;

/// Events `sequence` to `sequence_last` were missed.
pub const TRANSHIP_EVENT_GAP: u32 = 0;
/// A block became readable in a tier.
pub const TRANSHIP_EVENT_STORED: u32 = 1;
/// A block left a tier.
pub const TRANSHIP_EVENT_REMOVED: u32 = 2;
/// All blocks of the identity are gone.
pub const TRANSHIP_EVENT_CLEARED: u32 = 3;

/// Something that happened.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct tranship_event_t {
    /// Its number.
    pub sequence: u64,
    /// Of a gap: the last number that was missed; else `sequence`.
    pub sequence_last: u64,
    /// Of a stored block: its length, bytes.
    pub len: u64,
    /// Which identity; see tranship_identity_id().
    pub identity: [u8; 16],
    /// The block.
    pub key: tranship_key_t,
    /// The block before it, if `has_parent`.
    pub parent: tranship_key_t,
    /// TRANSHIP_EVENT_*.
    pub kind: u32,
    /// Of a stored block: blocks before it in its sequence.
    pub position: u32,
    /// 1 if there is a parent.
    pub has_parent: u32,
    /// TRANSHIP_PRESENCE_DRAM, _NVME or _OBJECT.
    pub tier: u32,
}

/// What the handle stands for.
pub struct Events(Subscription);

/// Follows events from number `from` on, or from TRANSHIP_EVENTS_NOW.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_events_open(
    cache: *mut tranship_cache_t,
    from: u64,
    events: *mut *mut tranship_events_t,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let out = Out::handle(events, "events")?;
        let from = (from != TRANSHIP_EVENTS_NOW).then_some(from);
        let subscription = handle::get::<Cache>(cache)?.cache.subscribe(from)?;
        out.set(handle::open(Events(subscription))?);
        Ok(())
    })
}

/// The next event, waiting up to `timeout_us`: TRANSHIP_TIMEOUT when none came. After TRANSHIP_DISCONNECTED open
/// events again from the next number: a gap is told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_events_next(
    events: *mut tranship_events_t,
    timeout_us: u64,
    event: *mut tranship_event_t,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let out = Out::new(event, "event")?;
        let timeout = input::wait(timeout_us)?;
        let next = handle::get::<Events>(events)?.0.next(timeout)?;
        let event = next.ok_or_else(|| {
            let text = format!("no event came within {timeout:?}");
            Failure::new(tranship_status_t::TRANSHIP_TIMEOUT, text)
        })?;
        out.set(describe(&event));
        Ok(())
    })
}

fn tier(tier: u8) -> u32 {
    u32::from(crate::cache::TRANSHIP_PRESENCE_DRAM) + u32::from(tier)
}

fn describe(event: &Event) -> tranship_event_t {
    let none = tranship_event_t::default();
    match *event {
        Event::Gap { from, to } => {
            tranship_event_t { sequence: from, sequence_last: to, kind: TRANSHIP_EVENT_GAP, ..none }
        }
        Event::Stored { sequence, identity, key, parent, position, len, tier: place } => {
            tranship_event_t {
                sequence,
                sequence_last: sequence,
                len,
                identity,
                key: key.into(),
                parent: parent.map(Into::into).unwrap_or_default(),
                kind: TRANSHIP_EVENT_STORED,
                position,
                has_parent: u32::from(parent.is_some()),
                tier: tier(place),
            }
        }
        Event::Removed { sequence, identity, key, tier: place } => tranship_event_t {
            sequence,
            sequence_last: sequence,
            identity,
            key: key.into(),
            kind: TRANSHIP_EVENT_REMOVED,
            tier: tier(place),
            ..none
        },
        Event::Cleared { sequence, identity } => tranship_event_t {
            sequence,
            sequence_last: sequence,
            identity,
            kind: TRANSHIP_EVENT_CLEARED,
            ..none
        },
    }
}

/// Ends the subscription.
#[unsafe(no_mangle)]
pub extern "C" fn tranship_events_close(events: *mut tranship_events_t) -> tranship_status_t {
    call(|| handle::close::<Events>(events).map(drop))
}
