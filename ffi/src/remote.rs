//! Windows of peers.

use std::ffi::c_char;

use tranship_transport::{Descriptor, RemoteSlice, RemoteWindow};

use crate::call::call;
use crate::engine::{Engine, tranship_engine_t};
use crate::handle;
use crate::input;
use crate::output::{self, Out};
use crate::status::{Failure, Result, tranship_status_t};

/// A window of a peer, as an engine of this process uses it.
pub struct tranship_remote_t {
    _opaque: [u8; 0],
}

/// The longest descriptor that is looked at, bytes.
const DESCRIPTOR_BYTES_MAX: usize = 64 << 10;

/// What the handle stands for.
pub struct Remote {
    window: RemoteWindow,
}

impl Remote {
    /// `len` bytes at `offset`.
    pub(crate) fn slice(&self, offset: u64, len: u64) -> Result<RemoteSlice> {
        Ok(self.window.slice(offset..offset.saturating_add(len))?)
    }

    /// All of it.
    pub(crate) fn whole(&self) -> Result<RemoteSlice> {
        Ok(self.window.slice(0..self.window.len())?)
    }
}

/// Makes the window that a descriptor is of usable here; connects with the first transfer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_remote_open(
    engine: *mut tranship_engine_t,
    descriptor: *const u8,
    descriptor_len: usize,
    remote: *mut *mut tranship_remote_t,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let out = Out::handle(remote, "remote")?;
        let engine = handle::get::<Engine>(engine)?;
        if descriptor_len > DESCRIPTOR_BYTES_MAX {
            let text =
                format!("a descriptor of {descriptor_len} bytes, more than {DESCRIPTOR_BYTES_MAX}");
            return Err(Failure::invalid(text));
        }
        let bytes = input::bytes(descriptor, descriptor_len, "descriptor")?;
        let descriptor: Descriptor = serde_json::from_slice(bytes)
            .map_err(|error| Failure::invalid(format!("no descriptor of a window: {error}")))?;
        out.set(handle::open(Remote { window: engine.engine.open(&descriptor)? })?);
        Ok(())
    })
}

/// How long it is, bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_remote_len(
    remote: *mut tranship_remote_t,
    len: *mut u64,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let len = Out::new(len, "len")?;
        len.set(handle::get::<Remote>(remote)?.window.len());
        Ok(())
    })
}

/// The address that its transfers go to now: another than before when the best way did not lead there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_remote_address(
    remote: *mut tranship_remote_t,
    buffer: *mut c_char,
    capacity: usize,
    len: *mut usize,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let remote = handle::get::<Remote>(remote)?;
        output::text(&remote.window.address().to_string(), buffer, capacity, len)
    })
}

/// Closes the handle. Transfers under way go on.
#[unsafe(no_mangle)]
pub extern "C" fn tranship_remote_close(remote: *mut tranship_remote_t) -> tranship_status_t {
    call(|| handle::close::<Remote>(remote).map(drop))
}
