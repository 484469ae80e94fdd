//! Regions of memory.

use std::ffi::{c_int, c_void};
use std::ptr;

use super::{FI_ENABLE, Fabric, NO_ENTRY, fi_mr_attr, fid, fid_domain, fid_mr};

impl Fabric {
    /// `fi_mr_reg`: registers memory; `0` or a negative error.
    ///
    /// # Safety
    /// `domain` exists; the memory stays mapped until the region is closed; `into` can be written.
    #[expect(clippy::too_many_arguments, reason = "the interface of libfabric")]
    #[inline]
    pub unsafe fn mr_reg(
        domain: *mut fid_domain,
        address: *const c_void,
        length: usize,
        access: u64,
        offset: u64,
        key: u64,
        flags: u64,
        into: *mut *mut fid_mr,
        context: *mut c_void,
    ) -> c_int {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe {
            (*(*domain).mr).reg.map_or(NO_ENTRY, |entry| {
                entry(
                    &raw mut (*domain).fid,
                    address,
                    length,
                    access,
                    offset,
                    key,
                    flags,
                    into,
                    context,
                )
            })
        }
    }

    /// `fi_mr_regattr`: registers memory of any kind; `0` or a negative error.
    ///
    /// # Safety
    /// As [`Fabric::mr_reg`], of what `attr` names.
    #[inline]
    pub unsafe fn mr_regattr(
        domain: *mut fid_domain,
        attr: *const fi_mr_attr,
        flags: u64,
        into: *mut *mut fid_mr,
    ) -> c_int {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe {
            (*(*domain).mr)
                .regattr
                .map_or(NO_ENTRY, |entry| entry(&raw mut (*domain).fid, attr, flags, into))
        }
    }

    /// `fi_mr_bind`: binds a region to an endpoint (`FI_MR_ENDPOINT`); `0` or a negative error.
    ///
    /// # Safety
    /// `mr` and `to` exist.
    #[inline]
    pub unsafe fn mr_bind(mr: *mut fid_mr, to: *mut fid, flags: u64) -> c_int {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe {
            (*(*mr).fid.ops).bind.map_or(NO_ENTRY, |entry| entry(&raw mut (*mr).fid, to, flags))
        }
    }

    /// `fi_mr_enable`: readies a region that was bound; `0` or a negative error.
    ///
    /// # Safety
    /// `mr` exists.
    #[inline]
    pub unsafe fn mr_enable(mr: *mut fid_mr) -> c_int {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe {
            (*(*mr).fid.ops)
                .control
                .map_or(NO_ENTRY, |entry| entry(&raw mut (*mr).fid, FI_ENABLE, ptr::null_mut()))
        }
    }

    /// `fi_mr_desc`: what local operations on the region name (`FI_MR_LOCAL`).
    ///
    /// # Safety
    /// `mr` exists.
    #[inline]
    pub unsafe fn mr_desc(mr: *mut fid_mr) -> *mut c_void {
        // SAFETY: the caller's promise.
        unsafe { (*mr).mem_desc }
    }

    /// `fi_mr_key`: what peers name it by, or [`FI_KEY_NOTAVAIL`](super::FI_KEY_NOTAVAIL).
    ///
    /// # Safety
    /// `mr` exists.
    #[inline]
    pub unsafe fn mr_key(mr: *mut fid_mr) -> u64 {
        // SAFETY: the caller's promise.
        unsafe { (*mr).key }
    }
}
