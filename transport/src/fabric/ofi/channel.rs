//! The way to one peer: endpoints, and what waits for them.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::ptr;
use std::rc::Rc;

use rustix::event::epoll::{self, EventData, EventFlags};
use tranship_ofi_sys as sys;

use super::domain::Roots;
use super::letters::Letters;
use super::object::Object;
use super::pool::Context;
use crate::immediate::Immediate;

/// Entries of the completion queue.
const CQ_ENTRIES: usize = 4096;

/// A way to a peer. It has a completion queue and an address table of its own: providers get confused
/// by those that outlive endpoints that were bound to them, and addresses that come and go.
pub(super) struct Channel {
    pub(super) lanes: [Queue; 2],
    /// Messages, where the provider is to carry them.
    pub(super) letters: Option<Letters>,
    // After what is bound to them.
    pub(super) av: Object<sys::fid_av>,
    pub(super) cq: Object<sys::fid_cq>,
    pub(super) broken: bool,
    /// Whether the other side is in this process.
    pub(super) near: bool,
    pub(super) _roots: Rc<Roots>,
}

impl Channel {
    /// Closes it. Where the provider keeps an endpoint open, it keeps the memory that it may receive into.
    /// Whether registrations are `bound` to endpoints.
    pub(super) fn close(self, bound: bool) {
        let Self { lanes, mut letters, .. } = self;
        if let Some(letters) = letters.as_mut().filter(|_| bound) {
            // It holds the endpoint.
            letters.mr = None;
        }
        let closed = lanes.map(|queue| {
            drop(queue.mailbox);
            queue.ep.close()
        });
        if !closed.iter().all(|closed| *closed) {
            std::mem::forget(letters);
        }
    }
}

/// One lane of it.
pub(super) struct Queue {
    /// Our mailbox, as the peer uses it through this endpoint; before the endpoint, which it may hold.
    pub(super) mailbox: Object<sys::fid_mr>,
    pub(super) ep: Object<sys::fid_ep>,
    pub(super) peer: sys::fi_addr_t,
    pub(super) flying: usize,
    pub(super) waiting: VecDeque<Item>,
    /// The peer's mailbox.
    pub(super) theirs: (u64, u64),
    /// What the provider calls the endpoint.
    pub(super) name: Vec<u8>,
    /// The peer's, for people; empty before it is connected.
    pub(super) to: String,
}

/// What is done with a piece.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Write,
    Read,
    /// A message is sent from this place.
    Message(u32),
}

/// A piece to be given to the provider.
#[derive(Clone, Copy)]
pub(super) struct Item {
    pub(super) posting: u32,
    pub(super) what: What,
    pub(super) local: *mut c_void,
    pub(super) desc: *mut c_void,
    pub(super) len: usize,
    pub(super) remote: u64,
    pub(super) key: u64,
    pub(super) immediate: Option<Immediate>,
}

/// Gives the provider one piece.
pub(super) fn issue(queue: &Queue, item: &Item, context: *mut Context, more: bool) -> isize {
    let iov = libc::iovec { iov_base: item.local, iov_len: item.len };
    let rma = sys::fi_rma_iov { addr: item.remote, len: item.len, key: item.key };
    let mut desc = item.desc;
    let message = sys::fi_msg_rma {
        msg_iov: &iov,
        desc: &mut desc,
        iov_count: 1,
        addr: queue.peer,
        rma_iov: &rma,
        rma_iov_count: 1,
        context: context.cast(),
        data: item.immediate.map_or(0, |it| it.0.into()),
    };
    let more = if more { sys::FI_MORE } else { 0 };
    // SAFETY: the endpoint is open; the fabric keeps the local memory while the piece is under way, and
    // the context is never freed; the rest is copied by the call (`fi_rma(3)`).
    unsafe {
        if item.what == What::Read {
            let flags = sys::FI_COMPLETION | more;
            return sys::Fabric::readmsg(queue.ep.as_ptr(), &message, flags);
        }
        let mut flags = sys::FI_DELIVERY_COMPLETE | sys::FI_COMPLETION | more;
        if item.immediate.is_some() {
            flags |= sys::FI_REMOTE_CQ_DATA;
        }
        sys::Fabric::writemsg(queue.ep.as_ptr(), &message, flags)
    }
}

/// A completion queue with this kind of waiting.
pub(super) fn open_cq(
    domain: &Object<sys::fid_domain>,
    wait: sys::fi_wait_obj,
) -> Result<Object<sys::fid_cq>, i32> {
    // SAFETY: all zero is a valid attribute structure.
    let mut attr: sys::fi_cq_attr = unsafe { std::mem::zeroed() };
    attr.size = CQ_ENTRIES;
    attr.format = sys::FI_CQ_FORMAT_DATA;
    attr.wait_obj = wait;
    // SAFETY: the domain is open.
    Object::new(|out| unsafe {
        sys::Fabric::cq_open(domain.as_ptr(), &mut attr, out, ptr::null_mut())
    })
}

/// Watches a queue, until it is closed.
pub(super) fn watch_queue(watch: &OwnedFd, cq: &Object<sys::fid_cq>) -> Result<(), String> {
    let mut fd: RawFd = -1;
    // SAFETY: the queue was opened with a descriptor to wait for.
    let rc =
        unsafe { sys::Fabric::control(cq.fid(), sys::FI_GETWAIT, ptr::from_mut(&mut fd).cast()) };
    if rc != 0 || fd < 0 {
        return Err("a queue of completions has no descriptor to wait for".to_owned());
    }
    // SAFETY: it is open as long as the queue.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    epoll::add(watch, borrowed, EventData::new_u64(0), EventFlags::IN)
        .map_err(|error| format!("epoll: {error}"))
}
