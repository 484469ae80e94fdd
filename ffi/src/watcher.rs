//! Words in memory that somebody else changes.

use crate::call::call;
use crate::engine::{Engine, tranship_engine_t};
use crate::handle;
use crate::input;
use crate::output::Out;
use crate::queue::{Queue, tranship_queue_t};
use crate::region::{Region, tranship_region_t};
use crate::status::tranship_status_t;

/// Watches a 64-bit word of a region, that peers, other processes or devices bump.
pub struct tranship_watcher_t {
    _opaque: [u8; 0],
}

/// What the handle stands for.
pub struct Watcher {
    watcher: tranship_transport::Watcher,
    engine: tranship_transport::Engine,
}

/// Watches the word at `offset` of a region, a multiple of 8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_watcher_open(
    engine: *mut tranship_engine_t,
    region: *mut tranship_region_t,
    offset: u64,
    watcher: *mut *mut tranship_watcher_t,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let out = Out::handle(watcher, "watcher")?;
        let engine = handle::get::<Engine>(engine)?.engine.clone();
        let memory = handle::get::<Region>(region)?.memory()?;
        if !memory.address().cast::<u64>().is_aligned() {
            let text = "a watched word is in memory that is aligned to 8 bytes; register such";
            return Err(crate::status::Failure::invalid(text));
        }
        let watcher = engine.watch(&memory, offset)?;
        out.set(handle::open(Watcher { watcher, engine })?);
        Ok(())
    })
}

/// The word now; what was written before it was bumped is visible.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_watcher_value(
    watcher: *mut tranship_watcher_t,
    value: *mut u64,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let value = Out::new(value, "value")?;
        value.set(handle::get::<Watcher>(watcher)?.watcher.value());
        Ok(())
    })
}

/// Adds one to the word; `value`, which may be NULL, is what it is then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_watcher_bump(
    watcher: *mut tranship_watcher_t,
    value: *mut u64,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let now = handle::get::<Watcher>(watcher)?.watcher.bump();
        if !value.is_null() {
            Out::new(value, "value")?.set(now);
        }
        Ok(())
    })
}

/// Waits until the word is not `past` any more, moving the engine on; `value` is what it is then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_watcher_wait(
    watcher: *mut tranship_watcher_t,
    past: u64,
    timeout_us: u64,
    value: *mut u64,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let value = Out::new(value, "value")?;
        let timeout = input::wait(timeout_us)?;
        value.set(handle::get::<Watcher>(watcher)?.watcher.wait(past, timeout)?);
        Ok(())
    })
}

/// Puts each change of the word from now on into a queue, as TRANSHIP_COMPLETION_WATCH: one at a time, with
/// the latest value when it is drained. Replaces the queue before.
#[unsafe(no_mangle)]
pub extern "C" fn tranship_watcher_notify(
    watcher: *mut tranship_watcher_t,
    queue: *mut tranship_queue_t,
    user_data: u64,
) -> tranship_status_t {
    call(|| {
        let watcher = handle::get::<Watcher>(watcher)?;
        let queue = handle::get::<Queue>(queue)?;
        queue.check(&watcher.engine)?;
        watcher.watcher.on_change(queue.shared.word(user_data));
        Ok(())
    })
}

/// Closes the watcher: no change is put into a queue any more, but for one that is just happening.
#[unsafe(no_mangle)]
pub extern "C" fn tranship_watcher_close(watcher: *mut tranship_watcher_t) -> tranship_status_t {
    call(|| handle::close::<Watcher>(watcher).map(drop))
}
