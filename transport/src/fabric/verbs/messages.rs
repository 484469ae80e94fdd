//! Messages: SEND, and the receives that they and immediates take.

use std::io;
use std::ptr;

use tranship_verbs_sys as sys;

use super::buffers::{CHUNK_PLACES, PLACE_BYTES};
use super::port::Port;
use super::queue::Cause;
use crate::fabric::rdma::{ChannelId, RAIL_MAX, Token};
use crate::lane::Lane;

impl Port {
    /// Sees to it that there are receives for one more peer, and places to send to it from.
    pub(super) fn provide(&mut self) -> io::Result<()> {
        let wanted = (self.channels.len() + 1) * CHUNK_PLACES;
        if self.inbox.places() < wanted {
            let new = self.inbox.grow()?;
            self.used.extend(new);
            self.post_receives()?;
        }
        let wanted = (self.channels.len() + 1) * RAIL_MAX as usize;
        if self.outbox.places() < wanted {
            let new = self.outbox.grow()?;
            self.free.extend(new);
        }
        Ok(())
    }

    /// Posts the receives again that were used.
    pub(super) fn post_receives(&mut self) -> io::Result<()> {
        while let Some(place) = self.used.last() {
            let mut sge = self.inbox.sge(*place, PLACE_BYTES as u32);
            // SAFETY: all zero is a valid request.
            let mut request: sys::ibv_recv_wr = unsafe { std::mem::zeroed() };
            (request.wr_id, request.sg_list, request.num_sge) = (u64::from(*place), &mut sge, 1);
            let mut bad = ptr::null_mut();
            // SAFETY: the queue exists, and nobody uses the place until it has completed.
            let error =
                unsafe { sys::Verbs::post_srq_recv(self.srq.as_ptr(), &mut request, &mut bad) };
            if error != 0 {
                return Err(io::Error::from_raw_os_error(error));
            }
            self.used.pop();
        }
        Ok(())
    }

    /// Sends a message.
    pub(super) fn post_message(&mut self, id: ChannelId, token: Token, bytes: &[u8]) {
        let Some(channel) = self.channels.get_mut(&id).filter(|it| !it.broken) else { return };
        let lane = Lane::Latency.index();
        let (queue, number) = (&mut channel.lanes[lane], channel.places[lane]);
        // SAFETY: all zero is a valid request.
        let mut request: sys::ibv_send_wr = unsafe { std::mem::zeroed() };
        request.opcode = sys::IBV_WR_SEND;
        request.send_flags = sys::IBV_SEND_SIGNALED;
        request.wr_id = u64::from(number) << 32 | u64::from(queue.number_after(1));
        let length = bytes.len() as u32;
        let inline = length <= queue.inline_bytes;
        let place = if inline { None } else { self.free.pop() };
        if !inline && place.is_none() {
            return self.break_channel(id, "more messages under way than there may be".to_owned());
        }
        let mut sge = match place {
            Some(place) => {
                self.outbox.write(place, bytes);
                self.outbox.sge(place, length)
            }
            None => {
                request.send_flags |= sys::IBV_SEND_INLINE;
                sys::ibv_sge { addr: bytes.as_ptr() as u64, length, lkey: 0 }
            }
        };
        (request.sg_list, request.num_sge) = (&mut sge, 1);
        let mut bad = ptr::null_mut();
        // SAFETY: the bytes travel in the request itself, or lie in a place that is free again when it
        // has ended.
        let error = unsafe { sys::Verbs::post_send(queue.qp.as_ptr(), &mut request, &mut bad) };
        if error == 0 {
            queue.note(1, Cause::Message(token, place), true);
        } else {
            self.free.extend(place);
            let error = io::Error::from_raw_os_error(error);
            self.break_channel(id, format!("ibv_post_send: {error}"));
        }
    }
}
