//! Memory for the messages of a channel: places to send from, and places to receive into.

use std::cell::UnsafeCell;
use std::ptr;

use tranship_ofi_sys as sys;

use super::channel::Queue;
use super::object::Object;
use super::pool::Context;
use crate::fabric::rdma::RAIL_MAX;

/// The longest message with what goes before it, bytes.
pub(super) const PLACE_BYTES: usize = 1 << 10;
/// What goes before each: a secret of the channel, which the peer was told over its connection. Endpoints
/// take messages from anybody.
pub(super) const SECRET_BYTES: usize = 16;
/// Messages that the peer may send before it hears that one was taken, and some that are on their
/// way back to the provider.
pub(super) const RECEIVES: u32 = RAIL_MAX as u32 + 8;
/// Messages of ours that are under way.
const SENDS: u32 = RAIL_MAX as u32;

/// The places, all of one length.
pub(super) struct Letters {
    /// Where the provider wants local memory registered.
    pub(super) mr: Option<Object<sys::fid_mr>>,
    bytes: Box<[UnsafeCell<u8>]>,
    /// What the peer's messages begin with, and what ours have to.
    pub(super) secret: [u8; SECRET_BYTES],
    pub(super) theirs: [u8; SECRET_BYTES],
    /// Places behind those for receives that nothing is sent from.
    free: Vec<u32>,
}

impl Letters {
    /// # Errors
    /// When there is no randomness.
    pub(super) fn new() -> Result<Self, String> {
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret).map_err(|error| format!("no random secret: {error}"))?;
        let len = (RECEIVES + SENDS) as usize * PLACE_BYTES;
        let bytes = (0..len).map(|_| UnsafeCell::new(0)).collect();
        let free = (RECEIVES..RECEIVES + SENDS).collect();
        Ok(Self { mr: None, bytes, secret, theirs: [0; SECRET_BYTES], free })
    }

    /// All of it, to be registered.
    pub(super) fn memory(&self) -> (*mut u8, usize) {
        (self.bytes.as_ptr().cast_mut().cast(), self.bytes.len())
    }

    fn start(&self, place: u32) -> *mut u8 {
        self.bytes[place as usize * PLACE_BYTES..].as_ptr().cast_mut().cast()
    }

    fn desc(&self) -> *mut std::ffi::c_void {
        // SAFETY: the registration is open.
        self.mr.as_ref().map_or(ptr::null_mut(), |mr| unsafe { sys::Fabric::mr_desc(mr.as_ptr()) })
    }

    /// The message in a place that the provider does not use now; `None` when it is not the peer's.
    pub(super) fn read(&self, place: u32, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len.min(PLACE_BYTES)];
        // SAFETY: so many bytes are there, and nobody else uses the place.
        unsafe { ptr::copy_nonoverlapping(self.start(place), bytes.as_mut_ptr(), bytes.len()) };
        let is_theirs = bytes.starts_with(&self.secret);
        is_theirs.then(|| bytes.split_off(SECRET_BYTES))
    }

    /// A place with these bytes, if one is free.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Option<u32> {
        let most = PLACE_BYTES - SECRET_BYTES;
        assert!(bytes.len() <= most, "a message of {} bytes", bytes.len());
        let place = self.free.pop()?;
        // SAFETY: both fit, and nobody else uses the place.
        unsafe {
            let start = self.start(place);
            ptr::copy_nonoverlapping(self.theirs.as_ptr(), start, SECRET_BYTES);
            ptr::copy_nonoverlapping(bytes.as_ptr(), start.add(SECRET_BYTES), bytes.len());
        }
        Some(place)
    }

    /// Nothing is sent from a place any more.
    pub(super) fn give_back(&mut self, place: u32) {
        self.free.push(place);
    }

    /// Lets the provider receive into a place; `0` or a negative error.
    pub(super) fn receive(&self, queue: &Queue, place: u32, context: *mut Context) -> isize {
        // SAFETY: the endpoint is open and is closed before the memory is freed, nobody else uses the
        // place, and contexts are never freed.
        unsafe {
            sys::Fabric::recv(
                queue.ep.as_ptr(),
                self.start(place).cast(),
                PLACE_BYTES,
                self.desc(),
                sys::FI_ADDR_UNSPEC,
                context.cast(),
            )
        }
    }

    /// Sends what is in a place; `0` or a negative error.
    pub(super) fn send(
        &self,
        queue: &Queue,
        place: u32,
        len: usize,
        context: *mut Context,
    ) -> isize {
        let iov = libc::iovec { iov_base: self.start(place).cast(), iov_len: len };
        let mut desc = self.desc();
        let message = sys::fi_msg {
            msg_iov: &iov,
            desc: &mut desc,
            iov_count: 1,
            addr: queue.peer,
            context: context.cast(),
            data: 0,
        };
        let flags = sys::FI_DELIVERY_COMPLETE | sys::FI_COMPLETION;
        // SAFETY: as above; the description is copied by the call (`fi_msg(3)`).
        unsafe { sys::Fabric::sendmsg(queue.ep.as_ptr(), &message, flags) }
    }
}
