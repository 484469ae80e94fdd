//! Blocks kept in place for reading.

use std::ffi::c_void;

use tranship_cache::client::BlockResult;

use crate::cache::{Cache, tranship_cache_t};
use crate::call::call;
use crate::handle;
use crate::input;
use crate::keys::{keys, tranship_key_t};
use crate::output::{Out, OutList};
use crate::status::tranship_status_t;

/// Blocks kept in place for reading, until it is closed or its time is over.
pub struct tranship_lease_t {
    _opaque: [u8; 0],
}

/// Readable, or loaded and checked.
pub const TRANSHIP_BLOCK_READY: u32 = 0;
/// Being filled, or on its way up from a tier below: a miss for now.
pub const TRANSHIP_BLOCK_LATE: u32 = 1;
/// Not there.
pub const TRANSHIP_BLOCK_GONE: u32 = 2;
/// Its bytes did not match their checksum, and it was dropped. The memory must not be used.
pub const TRANSHIP_BLOCK_CORRUPT: u32 = 3;
/// Of another length than the memory for it, or it could not be brought here. The memory must not be used.
pub const TRANSHIP_BLOCK_FAILED: u32 = 4;

/// What a lease says of one block.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tranship_leased_t {
    /// How long it is, bytes, when it is readable.
    pub len: u64,
    /// TRANSHIP_BLOCK_*.
    pub result: u32,
    /// 0.
    pub reserved: u32,
}

/// What the handle stands for.
pub struct Lease(tranship_cache::client::Lease);

/// Keeps blocks in place for reading, for at most `ttl_us` (0 for half a minute), waiting up to `wait_us` for
/// those that are being filled or come up from a tier below. `results`, which may be NULL, gets one a block;
/// blocks that are not there are no failure of the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_lease_open(
    cache: *mut tranship_cache_t,
    list: *const tranship_key_t,
    count: usize,
    wait_us: u64,
    ttl_us: u64,
    results: *mut tranship_leased_t,
    lease: *mut *mut tranship_lease_t,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let out = Out::handle(lease, "lease")?;
        let told = OutList::optional(results, count, "results")?;
        let (wait, ttl) = (input::wait(wait_us)?, input::span(ttl_us)?);
        let (cache, keys) = (handle::get::<Cache>(cache)?, keys(list, count)?);
        let lease = match ttl {
            Some(ttl) => cache.cache.lease_for(keys, wait, ttl)?,
            None => cache.cache.lease(keys, wait)?,
        };
        told.fill(lease.results().map(|(_, result)| leased(result)));
        out.set(handle::open(Lease(lease))?);
        Ok(())
    })
}

fn leased(result: BlockResult) -> tranship_leased_t {
    let (len, result) = match result {
        BlockResult::Ready { len } => (len, TRANSHIP_BLOCK_READY),
        BlockResult::Late => (0, TRANSHIP_BLOCK_LATE),
        BlockResult::Gone => (0, TRANSHIP_BLOCK_GONE),
        BlockResult::Corrupt => (0, TRANSHIP_BLOCK_CORRUPT),
    };
    tranship_leased_t { len, result, reserved: 0 }
}

/// Copies the `index`-th block to `into`, which has its length, checking it on the way. TRANSHIP_NOT_READY and
/// TRANSHIP_CORRUPT are misses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_lease_read(
    lease: *mut tranship_lease_t,
    index: usize,
    into: *mut c_void,
    len: usize,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        input::check_bytes(into.cast(), len, "into")?;
        let lease = handle::get::<Lease>(lease)?;
        let into: *mut u8 = if len == 0 { std::ptr::dangling_mut() } else { into.cast() };
        lease.0.copy_to(index, std::slice::from_raw_parts_mut(into, len))?;
        Ok(())
    })
}

/// Checks the `index`-th block and tells where it is: `len` bytes from `data` on, until the lease is closed or
/// its time is over. Other processes of the tenant could write there: copy what must not change.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_lease_view(
    lease: *mut tranship_lease_t,
    index: usize,
    data: *mut *const c_void,
    len: *mut usize,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let (data, len) = (Out::new(data, "data")?, Out::new(len, "len")?);
        let lease = handle::get::<Lease>(lease)?;
        let (at, bytes) = lease.0.view(index)?;
        data.set(at.cast());
        len.set(bytes);
        Ok(())
    })
}

/// Releases the blocks and closes the handle.
#[unsafe(no_mangle)]
pub extern "C" fn tranship_lease_close(lease: *mut tranship_lease_t) -> tranship_status_t {
    call(|| handle::close::<Lease>(lease).map(drop))
}
