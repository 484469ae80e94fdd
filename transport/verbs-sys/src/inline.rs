//! The functions that `infiniband/verbs.h` defines itself: calls through the table of the device's provider.

use std::mem::{offset_of, size_of};
use std::ptr;

use libc::c_int;

use super::{
    Verbs, ibv_context, ibv_cq, ibv_mw, ibv_mw_bind, ibv_mw_type, ibv_pd, ibv_port_attr, ibv_qp,
    ibv_recv_wr, ibv_send_wr, ibv_srq, ibv_wc, verbs_context,
};

/// What `ibv_context::abi_compat` is where a [`verbs_context`] is around it.
const EXTENDED: usize = usize::MAX;

impl Verbs {
    /// `ibv_post_send`: hands a list of requests to the device; `0` or an `errno`.
    ///
    /// # Safety
    /// `qp` is a queue pair that exists. `first` is a list of requests whose scatter lists and inline data are valid now,
    /// and whose memory stays registered and untouched until they have completed. `bad` can be written.
    #[inline]
    pub unsafe fn post_send(
        qp: *mut ibv_qp,
        first: *mut ibv_send_wr,
        bad: *mut *mut ibv_send_wr,
    ) -> c_int {
        // SAFETY: the provider of an open device fills in this entry; the rest is the caller's promise.
        unsafe {
            (*(*qp).context).ops.post_send.map_or(libc::EOPNOTSUPP, |post| post(qp, first, bad))
        }
    }

    /// `ibv_post_recv`: hands a list of receive requests to the device; `0` or an `errno`.
    ///
    /// # Safety
    /// As [`Verbs::post_send`].
    #[inline]
    pub unsafe fn post_recv(
        qp: *mut ibv_qp,
        first: *mut ibv_recv_wr,
        bad: *mut *mut ibv_recv_wr,
    ) -> c_int {
        // SAFETY: as in `post_send`.
        unsafe {
            (*(*qp).context).ops.post_recv.map_or(libc::EOPNOTSUPP, |post| post(qp, first, bad))
        }
    }

    /// `ibv_post_srq_recv`: hands a list of receive requests to a shared queue; `0` or an `errno`.
    ///
    /// # Safety
    /// As [`Verbs::post_send`], of a shared receive queue.
    #[inline]
    pub unsafe fn post_srq_recv(
        srq: *mut ibv_srq,
        first: *mut ibv_recv_wr,
        bad: *mut *mut ibv_recv_wr,
    ) -> c_int {
        // SAFETY: as in `post_send`.
        unsafe {
            (*(*srq).context)
                .ops
                .post_srq_recv
                .map_or(libc::EOPNOTSUPP, |post| post(srq, first, bad))
        }
    }

    /// `ibv_poll_cq`: how many completions were taken, or a negative value.
    ///
    /// # Safety
    /// `cq` is a completion queue that exists, and `into` has room for `count` completions.
    #[inline]
    pub unsafe fn poll_cq(cq: *mut ibv_cq, count: c_int, into: *mut ibv_wc) -> c_int {
        // SAFETY: as in `post_send`.
        unsafe {
            (*(*cq).context).ops.poll_cq.map_or(-libc::EOPNOTSUPP, |poll| poll(cq, count, into))
        }
    }

    /// `ibv_req_notify_cq`: asks for one event at the next completion; `0` or an `errno`.
    ///
    /// # Safety
    /// `cq` is a completion queue that exists.
    #[inline]
    pub unsafe fn req_notify_cq(cq: *mut ibv_cq, solicited_only: bool) -> c_int {
        // SAFETY: as in `post_send`.
        unsafe {
            let ops = &(*(*cq).context).ops;
            ops.req_notify_cq.map_or(libc::EOPNOTSUPP, |ask| ask(cq, c_int::from(solicited_only)))
        }
    }

    /// `ibv_alloc_mw`: a memory window, or null with `errno` (`EOPNOTSUPP` where the device has none).
    ///
    /// # Safety
    /// `pd` is a protection domain that exists.
    pub unsafe fn alloc_mw(pd: *mut ibv_pd, kind: ibv_mw_type) -> *mut ibv_mw {
        // SAFETY: as in `post_send`.
        unsafe {
            let Some(alloc) = (*(*pd).context).ops.alloc_mw else {
                set_errno(libc::EOPNOTSUPP);
                return ptr::null_mut();
            };
            alloc(pd, kind)
        }
    }

    /// `ibv_dealloc_mw`: `0` or an `errno`.
    ///
    /// # Safety
    /// `mw` came from [`Verbs::alloc_mw`] and is not used again.
    pub unsafe fn dealloc_mw(mw: *mut ibv_mw) -> c_int {
        // SAFETY: as in `post_send`.
        unsafe { (*(*mw).context).ops.dealloc_mw.map_or(libc::EOPNOTSUPP, |dealloc| dealloc(mw)) }
    }

    /// `ibv_bind_mw`: binds a window of type 1 (one of type 2 is bound by a send request); `0` or an `errno`.
    ///
    /// # Safety
    /// `qp` and `mw` exist, `bind` is valid and names a region that exists, or none.
    pub unsafe fn bind_mw(qp: *mut ibv_qp, mw: *mut ibv_mw, bind: *mut ibv_mw_bind) -> c_int {
        // SAFETY: as in `post_send`; the checks are those of the header.
        unsafe {
            let info = &(*bind).bind_info;
            if (*mw).type_ != super::IBV_MW_TYPE_1
                || (info.mr.is_null() && (info.addr != 0 || info.length != 0))
            {
                return libc::EINVAL;
            }
            if !info.mr.is_null() && (*mw).pd != (*info.mr).pd {
                return libc::EPERM;
            }
            (*(*mw).context).ops.bind_mw.map_or(libc::EOPNOTSUPP, |entry| entry(qp, mw, bind))
        }
    }

    /// `ibv_query_port`: fills in everything the device tells, and zeroes the rest; `0` or an `errno`.
    ///
    /// # Safety
    /// `context` is an open device, and `into` can be written.
    pub unsafe fn query_port(
        &self,
        context: *mut ibv_context,
        port: u8,
        into: *mut ibv_port_attr,
    ) -> c_int {
        // SAFETY: the provider writes no more than the size it is told. The exported function knows the first fields
        // alone, so the rest is zeroed, as the header does.
        unsafe {
            into.write_bytes(0, 1);
            if let Some(extended) = extended(context, offset_of!(verbs_context, query_port))
                && let Some(query) = (*extended).query_port
            {
                return query(context, port, into, size_of::<ibv_port_attr>());
            }
            self.ibv_query_port(context, port, into.cast())
        }
    }

    /// `ibv_inc_rkey`: the key of a window of type 2 that is bound again; its lowest eight bits are the caller's.
    #[must_use]
    pub const fn inc_rkey(rkey: u32) -> u32 {
        (rkey & !0xff) | (rkey.wrapping_add(1) & 0xff)
    }
}

/// `verbs_get_ctx_op`: what is around an open device, if that is new enough to have the entry at `offset`.
///
/// # Safety
/// `context` is an open device.
pub(crate) unsafe fn extended(
    context: *mut ibv_context,
    offset: usize,
) -> Option<*mut verbs_context> {
    // SAFETY: a device that says so is the last field of a `verbs_context`, whose front grows: `sz` says how much of it
    // there is, counted from the end.
    unsafe {
        if (*context).abi_compat.addr() != EXTENDED {
            return None;
        }
        let around = context.byte_sub(offset_of!(verbs_context, context)).cast::<verbs_context>();
        ((*around).sz >= size_of::<verbs_context>() - offset).then_some(around)
    }
}

pub(crate) fn set_errno(value: c_int) {
    // SAFETY: the place is this thread's own.
    unsafe { *libc::__errno_location() = value }
}
