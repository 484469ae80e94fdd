//! Counters of arrivals.

use tranship_transport::Immediate;

use crate::call::call;
use crate::engine::{Engine, tranship_engine_t};
use crate::handle;
use crate::input;
use crate::output::Out;
use crate::status::tranship_status_t;

/// Counts the immediates that carry its slot, from when it is opened. Late ones of an earlier owner of the
/// slot never count.
pub struct tranship_counter_t {
    _opaque: [u8; 0],
}

/// What the handle stands for.
pub struct Counter(tranship_transport::Counter);

/// Opens a counter.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_counter_open(
    engine: *mut tranship_engine_t,
    counter: *mut *mut tranship_counter_t,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let out = Out::handle(counter, "counter")?;
        let engine = handle::get::<Engine>(engine)?;
        out.set(handle::open(Counter(engine.engine.counter()?))?);
        Ok(())
    })
}

/// Its slot, for those who write: `slot` of tranship_submit_options_t.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_counter_slot(
    counter: *mut tranship_counter_t,
    slot: *mut u32,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let slot = Out::new(slot, "slot")?;
        slot.set(Immediate::from(handle::get::<Counter>(counter)?.0.slot()).0);
        Ok(())
    })
}

/// Arrivals so far; the payloads of all of them are visible.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_counter_count(
    counter: *mut tranship_counter_t,
    count: *mut u64,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let count = Out::new(count, "count")?;
        count.set(handle::get::<Counter>(counter)?.0.count());
        Ok(())
    })
}

/// Waits until at least `target` have arrived, moving the engine on. `count`, which may be NULL, is how many
/// have, also after TRANSHIP_TIMEOUT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_counter_wait(
    counter: *mut tranship_counter_t,
    target: u64,
    timeout_us: u64,
    count: *mut u64,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let timeout = input::wait(timeout_us)?;
        let counter = handle::get::<Counter>(counter)?;
        let out = if count.is_null() { None } else { Some(Out::new(count, "count")?) };
        let waited = counter.0.wait(target, timeout);
        if let Some(out) = out {
            out.set(*waited.as_ref().unwrap_or_else(|error| &error.count));
        }
        waited?;
        Ok(())
    })
}

/// Closes the counter; what carries its slot counts for nobody from now on.
#[unsafe(no_mangle)]
pub extern "C" fn tranship_counter_close(counter: *mut tranship_counter_t) -> tranship_status_t {
    call(|| handle::close::<Counter>(counter).map(drop))
}
