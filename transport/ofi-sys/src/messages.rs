//! Messages.

use std::ffi::c_void;

use super::{Fabric, NO_ENTRY, fi_addr_t, fi_msg, fid_ep};

impl Fabric {
    /// `fi_recv`: posts a buffer for a message. `0` or a negative error.
    ///
    /// # Safety
    /// `ep` is an endpoint that exists; the buffer stays valid until the operation has completed.
    #[inline]
    pub unsafe fn recv(
        ep: *mut fid_ep,
        buffer: *mut c_void,
        length: usize,
        desc: *mut c_void,
        from: fi_addr_t,
        context: *mut c_void,
    ) -> isize {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe {
            (*(*ep).msg)
                .recv
                .map_or(NO_ENTRY as isize, |entry| entry(ep, buffer, length, desc, from, context))
        }
    }

    /// `fi_recvmsg`: the same, with flags.
    ///
    /// # Safety
    /// `ep` is an endpoint that exists; `message` is valid, and its buffers stay so until the operation has completed.
    #[inline]
    pub unsafe fn recvmsg(ep: *mut fid_ep, message: *const fi_msg, flags: u64) -> isize {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe { (*(*ep).msg).recvmsg.map_or(NO_ENTRY as isize, |entry| entry(ep, message, flags)) }
    }

    /// `fi_send`: sends a message. `0` or a negative error.
    ///
    /// # Safety
    /// `ep` is an endpoint that exists; the buffer stays valid until the operation has completed.
    #[inline]
    pub unsafe fn send(
        ep: *mut fid_ep,
        buffer: *const c_void,
        length: usize,
        desc: *mut c_void,
        to: fi_addr_t,
        context: *mut c_void,
    ) -> isize {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe {
            (*(*ep).msg)
                .send
                .map_or(NO_ENTRY as isize, |entry| entry(ep, buffer, length, desc, to, context))
        }
    }

    /// `fi_sendmsg`: the same, with flags.
    ///
    /// # Safety
    /// `ep` is an endpoint that exists; `message` is valid, and its buffers stay so until the operation has completed.
    #[inline]
    pub unsafe fn sendmsg(ep: *mut fid_ep, message: *const fi_msg, flags: u64) -> isize {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe { (*(*ep).msg).sendmsg.map_or(NO_ENTRY as isize, |entry| entry(ep, message, flags)) }
    }

    /// `fi_inject`: sends a small message, whose buffer is free at once and which completes without a sign. `0` or a negative error.
    ///
    /// # Safety
    /// `ep` is an endpoint that exists, and the buffer valid.
    #[inline]
    pub unsafe fn inject(
        ep: *mut fid_ep,
        buffer: *const c_void,
        length: usize,
        to: fi_addr_t,
    ) -> isize {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe {
            (*(*ep).msg).inject.map_or(NO_ENTRY as isize, |entry| entry(ep, buffer, length, to))
        }
    }

    /// `fi_senddata`: sends a message with an immediate. `0` or a negative error.
    ///
    /// # Safety
    /// `ep` is an endpoint that exists; the buffer stays valid until the operation has completed.
    #[inline]
    pub unsafe fn senddata(
        ep: *mut fid_ep,
        buffer: *const c_void,
        length: usize,
        desc: *mut c_void,
        data: u64,
        to: fi_addr_t,
        context: *mut c_void,
    ) -> isize {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe {
            (*(*ep).msg).senddata.map_or(NO_ENTRY as isize, |entry| {
                entry(ep, buffer, length, desc, data, to, context)
            })
        }
    }
}
