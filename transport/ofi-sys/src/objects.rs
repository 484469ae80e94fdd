//! Objects: domains, endpoints, tables of addresses, and what they are told.

use std::ffi::{c_int, c_void};
use std::ptr;

use super::{
    FI_ENABLE, Fabric, NO_ENTRY, fi_addr_t, fi_av_attr, fi_cq_attr, fi_info, fid, fid_av, fid_cq,
    fid_domain, fid_ep, fid_fabric,
};

impl Fabric {
    /// `fi_close`: closes any object; `0` or a negative error.
    ///
    /// # Safety
    /// `fid` is the first field of an object that exists, nothing depends on it, and it is not used again.
    #[inline]
    pub unsafe fn close(fid: *mut fid) -> c_int {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe { (*(*fid).ops).close.map_or(NO_ENTRY, |entry| entry(fid)) }
    }

    /// `fi_domain`: opens a domain; `0` or a negative error.
    ///
    /// # Safety
    /// `fabric` exists, `info` is one of its entries, `into` can be written.
    #[inline]
    pub unsafe fn domain(
        fabric: *mut fid_fabric,
        info: *mut fi_info,
        into: *mut *mut fid_domain,
        context: *mut c_void,
    ) -> c_int {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe {
            (*(*fabric).ops).domain.map_or(NO_ENTRY, |entry| entry(fabric, info, into, context))
        }
    }

    /// `fi_endpoint`: makes an endpoint; `0` or a negative error.
    ///
    /// # Safety
    /// `domain` exists, `info` is what it was opened with, `into` can be written.
    #[inline]
    pub unsafe fn endpoint(
        domain: *mut fid_domain,
        info: *mut fi_info,
        into: *mut *mut fid_ep,
        context: *mut c_void,
    ) -> c_int {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe {
            (*(*domain).ops).endpoint.map_or(NO_ENTRY, |entry| entry(domain, info, into, context))
        }
    }

    /// `fi_av_open`: makes a table of addresses; `0` or a negative error.
    ///
    /// # Safety
    /// `domain` exists, `attr` is valid, `into` can be written.
    #[inline]
    pub unsafe fn av_open(
        domain: *mut fid_domain,
        attr: *mut fi_av_attr,
        into: *mut *mut fid_av,
        context: *mut c_void,
    ) -> c_int {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe {
            (*(*domain).ops).av_open.map_or(NO_ENTRY, |entry| entry(domain, attr, into, context))
        }
    }

    /// `fi_cq_open`: makes a completion queue; `0` or a negative error.
    ///
    /// # Safety
    /// `domain` exists, `attr` is valid, `into` can be written.
    #[inline]
    pub unsafe fn cq_open(
        domain: *mut fid_domain,
        attr: *mut fi_cq_attr,
        into: *mut *mut fid_cq,
        context: *mut c_void,
    ) -> c_int {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe {
            (*(*domain).ops).cq_open.map_or(NO_ENTRY, |entry| entry(domain, attr, into, context))
        }
    }

    /// `fi_ep_bind`: binds an endpoint to a queue or a table; `0` or a negative error.
    ///
    /// # Safety
    /// `ep` is an endpoint that exists, and so is `to` an object of its domain.
    #[inline]
    pub unsafe fn ep_bind(ep: *mut fid_ep, to: *mut fid, flags: u64) -> c_int {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe {
            (*(*ep).fid.ops).bind.map_or(NO_ENTRY, |entry| entry(&raw mut (*ep).fid, to, flags))
        }
    }

    /// `fi_enable`: readies an endpoint; `0` or a negative error.
    ///
    /// # Safety
    /// `ep` is an endpoint that exists.
    #[inline]
    pub unsafe fn enable(ep: *mut fid_ep) -> c_int {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe {
            (*(*ep).fid.ops)
                .control
                .map_or(NO_ENTRY, |entry| entry(&raw mut (*ep).fid, FI_ENABLE, ptr::null_mut()))
        }
    }

    /// `fi_control`: `FI_GETWAIT` and the like; `0` or a negative error.
    ///
    /// # Safety
    /// `fid` exists, and `argument` is what `command` takes.
    #[inline]
    pub unsafe fn control(fid: *mut fid, command: c_int, argument: *mut c_void) -> c_int {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe { (*(*fid).ops).control.map_or(NO_ENTRY, |entry| entry(fid, command, argument)) }
    }

    /// `fi_trywait`: whether it is safe to sleep on the descriptors of these queues; `0` or a negative error.
    ///
    /// # Safety
    /// `fabric` and all `count` objects exist.
    #[inline]
    pub unsafe fn trywait(fabric: *mut fid_fabric, fids: *mut *mut fid, count: c_int) -> c_int {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe { (*(*fabric).ops).trywait.map_or(NO_ENTRY, |entry| entry(fabric, fids, count)) }
    }

    /// `fi_getname`: the address of an endpoint; `0` or a negative error (`FI_ETOOSMALL`, with the length that is needed).
    ///
    /// # Safety
    /// `ep` is an endpoint that exists; `address` has room for `*length` bytes.
    #[inline]
    pub unsafe fn getname(ep: *mut fid_ep, address: *mut c_void, length: *mut usize) -> c_int {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe {
            (*(*ep).cm).getname.map_or(NO_ENTRY, |entry| entry(&raw mut (*ep).fid, address, length))
        }
    }

    /// `fi_getopt`: `0` or a negative error.
    ///
    /// # Safety
    /// `ep` is an endpoint that exists; `value` has room for `*length` bytes.
    #[inline]
    pub unsafe fn getopt(
        ep: *mut fid_ep,
        level: c_int,
        option: c_int,
        value: *mut c_void,
        length: *mut usize,
    ) -> c_int {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe {
            (*(*ep).ops)
                .getopt
                .map_or(NO_ENTRY, |entry| entry(&raw mut (*ep).fid, level, option, value, length))
        }
    }

    /// `fi_setopt`: `0` or a negative error.
    ///
    /// # Safety
    /// `ep` is an endpoint that exists; `value` has `length` bytes.
    #[inline]
    pub unsafe fn setopt(
        ep: *mut fid_ep,
        level: c_int,
        option: c_int,
        value: *const c_void,
        length: usize,
    ) -> c_int {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe {
            (*(*ep).ops)
                .setopt
                .map_or(NO_ENTRY, |entry| entry(&raw mut (*ep).fid, level, option, value, length))
        }
    }

    /// `fi_cancel`: asks for an operation to end; `0` or a negative error. It ends with a completion either way.
    ///
    /// # Safety
    /// `ep` is an endpoint that exists.
    #[inline]
    pub unsafe fn cancel(ep: *mut fid_ep, context: *mut c_void) -> isize {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe {
            (*(*ep).ops)
                .cancel
                .map_or(NO_ENTRY as isize, |entry| entry(&raw mut (*ep).fid, context))
        }
    }

    /// `fi_av_insert`: how many addresses were taken, or a negative error.
    ///
    /// # Safety
    /// `av` exists; `addresses` has `count` of the fabric's format, `into` room for as many.
    #[inline]
    pub unsafe fn av_insert(
        av: *mut fid_av,
        addresses: *const c_void,
        count: usize,
        into: *mut fi_addr_t,
        flags: u64,
        context: *mut c_void,
    ) -> c_int {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe {
            (*(*av).ops)
                .insert
                .map_or(NO_ENTRY, |entry| entry(av, addresses, count, into, flags, context))
        }
    }

    /// `fi_av_straddr`: an address of the fabric's format as text, cut off where it is longer than
    /// `text`. Not all providers have it.
    ///
    /// # Safety
    /// `av` exists; `address` has the fabric's format.
    pub unsafe fn av_straddr(av: *mut fid_av, address: *const c_void, text: &mut [u8]) -> bool {
        let mut len = text.len();
        // SAFETY: an object that exists has its tables; the text has so much room.
        unsafe {
            let told = (*(*av).ops)
                .straddr
                .map(|entry| entry(av, address, text.as_mut_ptr().cast(), &raw mut len));
            told.is_some_and(|it| !it.is_null())
        }
    }

    /// `fi_av_remove`: `0` or a negative error.
    ///
    /// # Safety
    /// `av` exists, and `addresses` are `count` of its own.
    #[inline]
    pub unsafe fn av_remove(
        av: *mut fid_av,
        addresses: *mut fi_addr_t,
        count: usize,
        flags: u64,
    ) -> c_int {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe { (*(*av).ops).remove.map_or(NO_ENTRY, |entry| entry(av, addresses, count, flags)) }
    }
}
