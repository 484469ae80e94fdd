//! The blocks of one identity.

use tranship_cache::Key;
use tranship_cache::catalog::Presence;
use tranship_cache::client::Error;

use crate::call::call;
use crate::client::{Client, tranship_client_t};
use crate::handle;
use crate::identity::{self, tranship_identity_t};
use crate::input;
use crate::keys::{keys, tranship_key_t};
use crate::output::{Out, OutList};
use crate::status::tranship_status_t;

/// The blocks of one identity, as one client sees them.
pub struct tranship_cache_t {
    _opaque: [u8; 0],
}

/// Nowhere.
pub const TRANSHIP_PRESENCE_ABSENT: u8 = 0;
/// Somebody is filling it.
pub const TRANSHIP_PRESENCE_IN_FLIGHT: u8 = 1;
/// In the daemon's memory.
pub const TRANSHIP_PRESENCE_DRAM: u8 = 2;
/// On a local device.
pub const TRANSHIP_PRESENCE_NVME: u8 = 3;
/// In a bucket.
pub const TRANSHIP_PRESENCE_OBJECT: u8 = 4;

/// What the handle stands for.
pub struct Cache {
    pub(crate) cache: tranship_cache::client::Cache,
}

/// Opens the blocks of an identity.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_cache_open(
    client: *mut tranship_client_t,
    identity: *const tranship_identity_t,
    cache: *mut *mut tranship_cache_t,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let out = Out::handle(cache, "cache")?;
        let client = handle::get::<Client>(client)?;
        let cache = client.0.cache(identity::read(identity)?);
        out.set(handle::open(Cache { cache })?);
        Ok(())
    })
}

/// Closes the handle.
#[unsafe(no_mangle)]
pub extern "C" fn tranship_cache_close(cache: *mut tranship_cache_t) -> tranship_status_t {
    call(|| handle::close::<Cache>(cache).map(drop))
}

/// Finds the longest prefix of a chain that can be loaded now: so many keys, from the first.
/// `presence`, which may be NULL, gets TRANSHIP_PRESENCE_* for each key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_lookup(
    cache: *mut tranship_cache_t,
    chain: *const tranship_key_t,
    count: usize,
    prefix: *mut usize,
    presence: *mut u8,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let prefix = Out::new(prefix, "prefix")?;
        let out = OutList::optional(presence, count, "presence")?;
        let found = handle::get::<Cache>(cache)?.cache.lookup(keys(chain, count)?)?;
        prefix.set(found.prefix);
        out.fill(found.presence.into_iter().map(|presence| match presence {
            Presence::Absent => TRANSHIP_PRESENCE_ABSENT,
            Presence::InFlight => TRANSHIP_PRESENCE_IN_FLIGHT,
            Presence::Resident(tier) => TRANSHIP_PRESENCE_DRAM + tier as u8,
        }));
        Ok(())
    })
}

/// # Safety
/// `list` is as the header asks, and `done` NULL or writable.
unsafe fn for_each(
    cache: *mut tranship_cache_t,
    list: *const tranship_key_t,
    count: usize,
    done: *mut u64,
    work: impl FnOnce(&tranship_cache::client::Cache, &[Key]) -> Result<u64, Error>,
) -> tranship_status_t {
    // SAFETY: as the caller says.
    call(|| unsafe {
        let out = if done.is_null() { None } else { Some(Out::new(done, "done")?) };
        let did = work(&handle::get::<Cache>(cache)?.cache, keys(list, count)?)?;
        if let Some(out) = out {
            out.set(did);
        }
        Ok(())
    })
}

/// Keeps blocks from being evicted until they are unpinned; `done`, which may be NULL, is how many.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_pin(
    cache: *mut tranship_cache_t,
    list: *const tranship_key_t,
    count: usize,
    done: *mut u64,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    unsafe { for_each(cache, list, count, done, tranship_cache::client::Cache::pin) }
}

/// Takes pins off; `done`, which may be NULL, is how many.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_unpin(
    cache: *mut tranship_cache_t,
    list: *const tranship_key_t,
    count: usize,
    done: *mut u64,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    unsafe { for_each(cache, list, count, done, tranship_cache::client::Cache::unpin) }
}

/// Has blocks of tiers below brought to memory, without waiting; `done`, which may be NULL, is how many are
/// there or on their way.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_prefetch(
    cache: *mut tranship_cache_t,
    list: *const tranship_key_t,
    count: usize,
    done: *mut u64,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    unsafe { for_each(cache, list, count, done, tranship_cache::client::Cache::prefetch) }
}

/// Removes blocks, pinned or not; `done`, which may be NULL, is how many.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_remove(
    cache: *mut tranship_cache_t,
    list: *const tranship_key_t,
    count: usize,
    done: *mut u64,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    unsafe { for_each(cache, list, count, done, tranship_cache::client::Cache::remove) }
}

/// Has blocks written to the fastest tier below memory, and waits up to `wait_us` until they survive a crash
/// there: `safe` gets 1 for each that does. TRANSHIP_REFUSED without a tier below memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_persist(
    cache: *mut tranship_cache_t,
    list: *const tranship_key_t,
    count: usize,
    wait_us: u64,
    safe: *mut u8,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let out = OutList::new(safe, count, "safe")?;
        let wait = input::wait(wait_us)?;
        let persisted = handle::get::<Cache>(cache)?.cache.persist(keys(list, count)?, wait)?;
        out.fill(persisted.into_iter().map(u8::from));
        Ok(())
    })
}
