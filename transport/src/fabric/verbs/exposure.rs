//! What a channel's peer may use: memory windows, or registrations, as always of a device's memory.

use std::io;
use std::ptr;
use std::sync::Arc;

use tranship_verbs_sys as sys;

use super::domain::{Domain, Object};
use super::queue::{Cause, Queue};
use super::registration::register;
use crate::fabric::rdma::{ExposureId, Keys, Part};
use crate::memory::Memory;
use crate::window::Access;

/// A part of a region, as one channel's peer may use it.
pub(super) enum Exposure {
    /// One window for each lane, bound to its queue pair: those that are bound, and how many are.
    Windows { windows: [Object<sys::ibv_mw>; 2], keys: Keys, bound: u8 },
    /// A registration of its own.
    Region(#[expect(dead_code, reason = "it is there until it is dropped")] Object<sys::ibv_mr>),
}

/// What peers may do, in the hardware's words.
pub(super) fn flags(access: Access) -> u32 {
    let mut flags = 0;
    if access.allows(Access::WRITE) {
        flags |= sys::IBV_ACCESS_REMOTE_WRITE;
    }
    if access.allows(Access::READ) {
        flags |= sys::IBV_ACCESS_REMOTE_READ;
    }
    flags
}

impl Exposure {
    /// Registers a part of a region's memory for peers.
    pub(super) fn region(
        domain: &Arc<Domain>,
        memory: &Memory,
        part: &Part,
    ) -> io::Result<(Self, Keys)> {
        let mut flags = flags(part.access);
        if flags & sys::IBV_ACCESS_REMOTE_WRITE != 0 {
            flags |= sys::IBV_ACCESS_LOCAL_WRITE;
        }
        let start = part.offset as usize;
        // SAFETY: the memory is that of a region, which outlives its exposures.
        let mr = unsafe { register(domain, memory, start..start + part.len as usize, flags) }?;
        // SAFETY: it was made a moment ago.
        let key = u64::from(unsafe { (*mr.as_ptr()).rkey });
        let base = memory.address().wrapping_add(start) as u64;
        Ok((Self::Region(mr), Keys { keys: [key; 2], base }))
    }

    /// Begins to bind windows to both lanes. Each binding ends by a completion.
    pub(super) fn windows(
        domain: &Arc<Domain>,
        id: ExposureId,
        lanes: &mut [Queue; 2],
        numbers: [u32; 2],
        mr: &Object<sys::ibv_mr>,
        (start, len): (*mut u8, usize),
        access: Access,
    ) -> io::Result<Self> {
        let make = || {
            // SAFETY: the domain exists.
            let window = unsafe { sys::Verbs::alloc_mw(domain.pd.as_ptr(), sys::IBV_MW_TYPE_2) };
            Object::new(domain, window)
        };
        let windows = [make()?, make()?];
        let mut keys = Keys { keys: [0; 2], base: start as u64 };
        for (lane, (queue, window)) in lanes.iter_mut().zip(&windows).enumerate() {
            if !queue.has_spare() {
                return Err(io::Error::other("too many requests are under way"));
            }
            // SAFETY: the window was made a moment ago.
            let key = sys::Verbs::inc_rkey(unsafe { (*window.as_ptr()).rkey });
            keys.keys[lane] = key.into();
            // SAFETY: all zero is a valid request.
            let mut request: sys::ibv_send_wr = unsafe { std::mem::zeroed() };
            request.wr_id = u64::from(numbers[lane]) << 32 | u64::from(queue.number_after(1));
            request.opcode = sys::IBV_WR_BIND_MW;
            request.send_flags = sys::IBV_SEND_SIGNALED;
            // SAFETY: writing a field of a union is safe to do for plain data; all zero before.
            unsafe {
                let bind = &mut request.__bindgen_anon_2.bind_mw;
                bind.mw = window.as_ptr();
                bind.rkey = key;
                bind.bind_info.mr = mr.as_ptr();
                bind.bind_info.addr = start as u64;
                bind.bind_info.length = len as u64;
                bind.bind_info.mw_access_flags = flags(access);
            }
            let mut bad = ptr::null_mut();
            // SAFETY: everything that the request names exists until the exposure is concealed.
            let error = unsafe { sys::Verbs::post_send(queue.qp.as_ptr(), &mut request, &mut bad) };
            if error != 0 {
                return Err(io::Error::from_raw_os_error(error));
            }
            queue.note(1, Cause::Bind(id), false);
        }
        Ok(Self::Windows { windows, keys, bound: 0 })
    }

    /// One of its windows is bound; its keys, once all are.
    pub(super) fn bound(&mut self) -> Option<Keys> {
        match self {
            Self::Windows { windows, keys, bound } => {
                *bound += 1;
                (usize::from(*bound) == windows.len()).then_some(*keys)
            }
            Self::Region(_) => None,
        }
    }
}
