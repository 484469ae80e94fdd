//! Regions of memory, where the header chooses between functions by what was asked for.

use std::ffi::c_void;
use std::ptr;

use libc::c_int;

use super::inline::set_errno;
use super::{IBV_ACCESS_OPTIONAL_FIRST, Verbs, ibv_mr, ibv_pd};

/// Flags that a device may ignore: ten bits (`IBV_ACCESS_OPTIONAL_RANGE`).
pub(crate) const OPTIONAL: u32 = IBV_ACCESS_OPTIONAL_FIRST * 0x3ff;

impl Verbs {
    /// `ibv_reg_mr`: registers memory, or null with `errno`. Flags that a device may ignore (`IBV_ACCESS_RELAXED_ORDERING`)
    /// are left out where the library does not know them (rdma-core before 28).
    ///
    /// # Safety
    /// `pd` is a protection domain that exists. The memory stays mapped until the region is deregistered.
    pub unsafe fn reg_mr(
        &self,
        pd: *mut ibv_pd,
        address: *mut c_void,
        length: usize,
        access: u32,
    ) -> *mut ibv_mr {
        // SAFETY: the caller's promise. An int carries the flags, of which none is its sign.
        unsafe {
            match access & OPTIONAL {
                0 => self.ibv_reg_mr(pd, address, length, access.cast_signed()),
                _ if self.ibv_reg_mr_iova2.is_ok() => {
                    self.ibv_reg_mr_iova2(pd, address, length, address.addr() as u64, access)
                }
                _ => self.ibv_reg_mr(pd, address, length, (access & !OPTIONAL).cast_signed()),
            }
        }
    }

    /// `ibv_reg_dmabuf_mr`: registers memory of a device by its dma-buf, or null with `errno` (`EOPNOTSUPP` before
    /// rdma-core 34, or by a device that cannot).
    ///
    /// # Safety
    /// `pd` is a protection domain that exists.
    pub unsafe fn reg_dmabuf_mr(
        &self,
        pd: *mut ibv_pd,
        offset: u64,
        length: usize,
        iova: u64,
        fd: c_int,
        access: u32,
    ) -> *mut ibv_mr {
        if self.ibv_reg_dmabuf_mr.is_err() {
            set_errno(libc::EOPNOTSUPP);
            return ptr::null_mut();
        }
        // SAFETY: the caller's promise, and the function is there.
        unsafe { self.ibv_reg_dmabuf_mr(pd, offset, length, iova, fd, access.cast_signed()) }
    }

    /// Whether the library can register memory by dma-buf.
    #[must_use]
    pub fn knows_dmabuf(&self) -> bool {
        self.ibv_reg_dmabuf_mr.is_ok()
    }
}
