//! Loading and storing blocks, on the calling thread.

use std::ffi::c_void;
use std::time::Duration;

use tranship_cache::client::Stored;
use tranship_cache::{Key, Link};
use tranship_kv::LoadResult;
use tranship_transport::memory::Spans;

use crate::cache::{Cache, tranship_cache_t};
use crate::call::call;
use crate::handle;
use crate::input;
use crate::keys::{keys, links, tranship_key_t, tranship_link_t};
use crate::lease::{
    TRANSHIP_BLOCK_CORRUPT, TRANSHIP_BLOCK_FAILED, TRANSHIP_BLOCK_GONE, TRANSHIP_BLOCK_LATE,
    TRANSHIP_BLOCK_READY,
};
use crate::output::OutList;
use crate::reasons;
use crate::status::{Result, tranship_status_t};

/// The block is readable.
pub const TRANSHIP_STORE_STORED: u32 = 0;
/// It was there already.
pub const TRANSHIP_STORE_EXISTS: u32 = 1;
/// Somebody else is storing it.
pub const TRANSHIP_STORE_IN_FLIGHT: u32 = 2;
/// It was not taken; tranship_last_reason() says why.
pub const TRANSHIP_STORE_REFUSED: u32 = 3;

/// Bytes of the caller's.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tranship_span_t {
    /// The first.
    pub data: *mut c_void,
    /// How many.
    pub len: usize,
}

/// The memory of one block: spans in the order of its bytes, such as its page in each layer of a KV cache.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tranship_spans_t {
    /// The spans.
    pub spans: *const tranship_span_t,
    /// How many.
    pub count: usize,
}

/// # Safety
/// The memory may be used as the header says, from any thread.
pub(crate) unsafe fn memory(blocks: *const tranship_spans_t, count: usize) -> Result<Vec<Spans>> {
    // SAFETY: as the caller says.
    let blocks = unsafe { input::list(blocks, count, "memory") }?;
    let read = |block: &tranship_spans_t| {
        let mut spans = Spans::new();
        // SAFETY: as the caller says.
        for span in unsafe { input::list(block.spans, block.count, "spans") }? {
            input::check_bytes(span.data.cast(), span.len, "a span")?;
            // SAFETY: as the caller says.
            unsafe { spans.push(span.data.cast(), span.len) };
        }
        Ok(spans)
    };
    blocks.iter().map(read).collect()
}

/// # Safety
/// As for [`memory`] and [`keys`].
pub(crate) unsafe fn to_load(
    list: *const tranship_key_t,
    into: *const tranship_spans_t,
    count: usize,
) -> Result<Vec<(Key, Spans)>> {
    // SAFETY: as the caller says.
    unsafe { Ok(keys(list, count)?.iter().copied().zip(memory(into, count)?).collect()) }
}

/// # Safety
/// As for [`memory`] and [`links`].
pub(crate) unsafe fn to_store(
    list: *const tranship_link_t,
    from: *const tranship_spans_t,
    count: usize,
) -> Result<Vec<(Link, Spans)>> {
    // SAFETY: as the caller says.
    unsafe { Ok(links(list, count)?.into_iter().zip(memory(from, count)?).collect()) }
}

pub(crate) fn load_result(result: LoadResult) -> u32 {
    match result {
        LoadResult::Ready => TRANSHIP_BLOCK_READY,
        LoadResult::Late => TRANSHIP_BLOCK_LATE,
        LoadResult::Gone => TRANSHIP_BLOCK_GONE,
        LoadResult::Corrupt => TRANSHIP_BLOCK_CORRUPT,
        LoadResult::Failed => TRANSHIP_BLOCK_FAILED,
    }
}

pub(crate) fn store_result(stored: &Stored) -> u32 {
    match stored {
        Stored::Stored => TRANSHIP_STORE_STORED,
        Stored::Exists => TRANSHIP_STORE_EXISTS,
        Stored::InFlight => TRANSHIP_STORE_IN_FLIGHT,
        Stored::Refused { .. } => TRANSHIP_STORE_REFUSED,
    }
}

pub(crate) fn why(stored: &Stored) -> &str {
    match stored {
        Stored::Refused { why, .. } => why,
        _ => "",
    }
}

pub(crate) fn retry_ms(after: Option<Duration>) -> u32 {
    after.map_or(0, |after| u32::try_from(after.as_millis()).unwrap_or(u32::MAX).max(1))
}

/// Loads blocks into memory of the caller's, each checked on the way, waiting up to `wait_us` for those that are
/// being filled or come up from a tier below. `results` gets TRANSHIP_BLOCK_* for each; what is not
/// TRANSHIP_BLOCK_READY is a miss, and no failure of the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_load(
    cache: *mut tranship_cache_t,
    list: *const tranship_key_t,
    into: *const tranship_spans_t,
    count: usize,
    wait_us: u64,
    results: *mut u32,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let out = OutList::new(results, count, "results")?;
        let wait = input::wait(wait_us)?;
        let cache = handle::get::<Cache>(cache)?;
        let loaded = tranship_kv::load(&cache.cache, &to_load(list, into, count)?, wait)?;
        out.fill(loaded.into_iter().map(load_result));
        Ok(())
    })
}

/// Stores blocks from memory of the caller's, that live no longer than `ttl_us` (0: as long as they are worth
/// it). `results` gets TRANSHIP_STORE_* for each; those of one chain come in order.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_store(
    cache: *mut tranship_cache_t,
    list: *const tranship_link_t,
    from: *const tranship_spans_t,
    count: usize,
    ttl_us: u64,
    results: *mut u32,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let out = OutList::new(results, count, "results")?;
        let ttl = input::span(ttl_us)?;
        let cache = handle::get::<Cache>(cache)?;
        let stored = tranship_kv::store(&cache.cache, &to_store(list, from, count)?, ttl)?;
        reasons::keep(stored.iter().map(why));
        out.fill(stored.iter().map(store_result));
        Ok(())
    })
}
