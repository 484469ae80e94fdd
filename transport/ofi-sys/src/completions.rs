//! Completion queues.

use std::ffi::{c_char, c_int, c_void};
use std::ptr;

use super::{Fabric, NO_ENTRY, fi_addr_t, fi_cq_err_entry, fid_cq};

impl Fabric {
    /// `fi_cq_read`: how many completions were taken, or a negative error: `FI_EAGAIN` if there is none, `FI_EAVAIL` if the next is one for [`Fabric::cq_readerr`].
    ///
    /// # Safety
    /// `cq` exists, and `into` has room for `count` entries of its format.
    #[inline]
    pub unsafe fn cq_read(cq: *mut fid_cq, into: *mut c_void, count: usize) -> isize {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe { (*(*cq).ops).read.map_or(NO_ENTRY as isize, |entry| entry(cq, into, count)) }
    }

    /// `fi_cq_readfrom`: the same, with where each came from.
    ///
    /// # Safety
    /// As [`Fabric::cq_read`], and `from` has room for `count` addresses.
    #[inline]
    pub unsafe fn cq_readfrom(
        cq: *mut fid_cq,
        into: *mut c_void,
        count: usize,
        from: *mut fi_addr_t,
    ) -> isize {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe {
            (*(*cq).ops).readfrom.map_or(NO_ENTRY as isize, |entry| entry(cq, into, count, from))
        }
    }

    /// `fi_cq_readerr`: takes the completion of an operation that failed; `1` or a negative error.
    ///
    /// # Safety
    /// `cq` exists; `into` can be written, and its `err_data` is null or has room for `err_data_size` bytes.
    #[inline]
    pub unsafe fn cq_readerr(cq: *mut fid_cq, into: *mut fi_cq_err_entry, flags: u64) -> isize {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe { (*(*cq).ops).readerr.map_or(NO_ENTRY as isize, |entry| entry(cq, into, flags)) }
    }

    /// `fi_cq_sread`: waits for completions, at most `timeout_ms`; as [`Fabric::cq_read`].
    ///
    /// # Safety
    /// As [`Fabric::cq_read`]; the queue was made with an object to wait for, and `condition` is null or what that takes.
    #[inline]
    pub unsafe fn cq_sread(
        cq: *mut fid_cq,
        into: *mut c_void,
        count: usize,
        condition: *const c_void,
        timeout_ms: c_int,
    ) -> isize {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe {
            (*(*cq).ops)
                .sread
                .map_or(NO_ENTRY as isize, |entry| entry(cq, into, count, condition, timeout_ms))
        }
    }

    /// `fi_cq_strerror`: what the provider says of an error, or null.
    ///
    /// # Safety
    /// `cq` exists; `data` is the `err_data` of the error, and `into` has room for `length` bytes, or is null.
    #[inline]
    pub unsafe fn cq_strerror(
        cq: *mut fid_cq,
        provider_error: c_int,
        data: *const c_void,
        into: *mut c_char,
        length: usize,
    ) -> *const c_char {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe {
            (*(*cq).ops)
                .strerror
                .map_or(ptr::null(), |entry| entry(cq, provider_error, data, into, length))
        }
    }
}
