//! The right for peers to use a part of a region.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tranship_transport::Access;

use crate::call::call;
use crate::handle;
use crate::input;
use crate::output::{self, Out};
use crate::region::{Region, tranship_region_t};
use crate::status::{Failure, tranship_status_t};

/// The right for peers to use a part of a region, until it is revoked.
pub struct tranship_window_t {
    _opaque: [u8; 0],
}

/// Peers may write.
pub const TRANSHIP_ACCESS_WRITE: u32 = 1;
/// Peers may read.
pub const TRANSHIP_ACCESS_READ: u32 = 2;

/// What the handle stands for; nothing while it is being revoked.
pub struct Window {
    window: Mutex<Option<tranship_transport::Window>>,
}

impl Window {
    fn lock(&self) -> MutexGuard<'_, Option<tranship_transport::Window>> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens `len` bytes at `offset` of a region to peers: TRANSHIP_ACCESS_*, or-ed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_window_open(
    region: *mut tranship_region_t,
    offset: u64,
    len: u64,
    access: u32,
    window: *mut *mut tranship_window_t,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let out = Out::handle(window, "window")?;
        let region = handle::get::<Region>(region)?;
        if access == 0 || access & !(TRANSHIP_ACCESS_WRITE | TRANSHIP_ACCESS_READ) != 0 {
            return Err(Failure::invalid(format!("access {access:#x}: use TRANSHIP_ACCESS_*")));
        }
        let access = Access::from_bits(access as u8);
        let range = offset..offset.saturating_add(len);
        let window = region.with(|region| Ok(region.window_with(range, access)?))?;
        out.set(handle::open(Window { window: Mutex::new(Some(window)) })?);
        Ok(())
    })
}

/// What a peer needs to use the window: bytes (a JSON text) to be handed over by any channel. Whoever has
/// them may use the window until it is revoked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_window_descriptor(
    window: *mut tranship_window_t,
    buffer: *mut u8,
    capacity: usize,
    len: *mut usize,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let object = handle::get::<Window>(window)?;
        let descriptor = {
            let window = object.lock();
            window.as_ref().ok_or_else(|| handle::closed("a window"))?.descriptor()
        };
        let bytes = serde_json::to_vec(&descriptor)
            .map_err(|error| Failure::invalid(format!("a descriptor: {error}")))?;
        output::bytes(&bytes, buffer, capacity, len)
    })
}

/// Takes the right back and waits until no late write can land: the pages may be used for something else
/// then, and the handle is closed. TRANSHIP_NOT_FENCED: not proven within `timeout_us`; no new write can
/// begin, the handle stays open, revoke it again.
#[unsafe(no_mangle)]
pub extern "C" fn tranship_window_revoke(
    window: *mut tranship_window_t,
    timeout_us: u64,
) -> tranship_status_t {
    call(|| {
        let timeout = input::wait(timeout_us)?;
        let object = handle::get::<Window>(window)?;
        let revoking = object.lock().take().ok_or_else(|| handle::closed("a window"))?;
        if let Err(error) = revoking.revoke_within(timeout) {
            let text = error.to_string();
            *object.lock() = Some(error.window);
            return Err(Failure::new(tranship_status_t::TRANSHIP_NOT_FENCED, text));
        }
        handle::close::<Window>(window)?;
        Ok(())
    })
}
