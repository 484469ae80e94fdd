//! One-sided reads and writes.

use std::ffi::c_void;

use super::{Fabric, NO_ENTRY, fi_addr_t, fi_msg_rma, fid_ep};

impl Fabric {
    /// `fi_read`: reads memory of a peer. `0` or a negative error.
    ///
    /// # Safety
    /// `ep` is an endpoint that exists; the buffer stays valid until the operation has completed.
    #[expect(clippy::too_many_arguments, reason = "the interface of libfabric")]
    #[inline]
    pub unsafe fn read(
        ep: *mut fid_ep,
        buffer: *mut c_void,
        length: usize,
        desc: *mut c_void,
        from: fi_addr_t,
        address: u64,
        key: u64,
        context: *mut c_void,
    ) -> isize {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe {
            (*(*ep).rma).read.map_or(NO_ENTRY as isize, |entry| {
                entry(ep, buffer, length, desc, from, address, key, context)
            })
        }
    }

    /// `fi_readmsg`: the same, with flags and lists.
    ///
    /// # Safety
    /// `ep` is an endpoint that exists; `message` is valid, and its buffers stay so until the operation has completed.
    #[inline]
    pub unsafe fn readmsg(ep: *mut fid_ep, message: *const fi_msg_rma, flags: u64) -> isize {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe { (*(*ep).rma).readmsg.map_or(NO_ENTRY as isize, |entry| entry(ep, message, flags)) }
    }

    /// `fi_write`: writes memory of a peer. `0` or a negative error.
    ///
    /// # Safety
    /// `ep` is an endpoint that exists; the buffer stays valid until the operation has completed.
    #[expect(clippy::too_many_arguments, reason = "the interface of libfabric")]
    #[inline]
    pub unsafe fn write(
        ep: *mut fid_ep,
        buffer: *const c_void,
        length: usize,
        desc: *mut c_void,
        to: fi_addr_t,
        address: u64,
        key: u64,
        context: *mut c_void,
    ) -> isize {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe {
            (*(*ep).rma).write.map_or(NO_ENTRY as isize, |entry| {
                entry(ep, buffer, length, desc, to, address, key, context)
            })
        }
    }

    /// `fi_writemsg`: the same, with flags (`FI_REMOTE_CQ_DATA`, `FI_DELIVERY_COMPLETE`) and lists.
    ///
    /// # Safety
    /// `ep` is an endpoint that exists; `message` is valid, and its buffers stay so until the operation has completed.
    #[inline]
    pub unsafe fn writemsg(ep: *mut fid_ep, message: *const fi_msg_rma, flags: u64) -> isize {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe {
            (*(*ep).rma).writemsg.map_or(NO_ENTRY as isize, |entry| entry(ep, message, flags))
        }
    }

    /// `fi_writedata`: writes memory of a peer, with an immediate. `0` or a negative error.
    ///
    /// # Safety
    /// `ep` is an endpoint that exists; the buffer stays valid until the operation has completed.
    #[expect(clippy::too_many_arguments, reason = "the interface of libfabric")]
    #[inline]
    pub unsafe fn writedata(
        ep: *mut fid_ep,
        buffer: *const c_void,
        length: usize,
        desc: *mut c_void,
        data: u64,
        to: fi_addr_t,
        address: u64,
        key: u64,
        context: *mut c_void,
    ) -> isize {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe {
            (*(*ep).rma).writedata.map_or(NO_ENTRY as isize, |entry| {
                entry(ep, buffer, length, desc, data, to, address, key, context)
            })
        }
    }

    /// `fi_inject_write`: a small write, whose buffer is free at once and which completes without a sign. `0` or a negative error.
    ///
    /// # Safety
    /// `ep` is an endpoint that exists, and the buffer valid.
    #[inline]
    pub unsafe fn inject_write(
        ep: *mut fid_ep,
        buffer: *const c_void,
        length: usize,
        to: fi_addr_t,
        address: u64,
        key: u64,
    ) -> isize {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe {
            (*(*ep).rma)
                .inject
                .map_or(NO_ENTRY as isize, |entry| entry(ep, buffer, length, to, address, key))
        }
    }

    /// `fi_inject_writedata`: the same, with an immediate.
    ///
    /// # Safety
    /// `ep` is an endpoint that exists, and the buffer valid.
    #[inline]
    pub unsafe fn inject_writedata(
        ep: *mut fid_ep,
        buffer: *const c_void,
        length: usize,
        data: u64,
        to: fi_addr_t,
        address: u64,
        key: u64,
    ) -> isize {
        // SAFETY: an object that exists has its tables; the rest is the caller's promise.
        unsafe {
            (*(*ep).rma).injectdata.map_or(NO_ENTRY as isize, |entry| {
                entry(ep, buffer, length, data, to, address, key)
            })
        }
    }
}
