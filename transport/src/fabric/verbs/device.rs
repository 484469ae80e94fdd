//! What the fabric of rails asks of a port.

use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tranship_verbs_sys as sys;

use super::buffers::{CHUNK_PLACES, PLACE_BYTES};
use super::exposure::Exposure;
use super::path::End;
use super::port::{Channel, Port};
use super::queue::Queue;
use super::registration::{Registered, check, memlock, refused};
use crate::fabric::RegionId;
use crate::fabric::rdma::{
    ChannelId, Completion, Device, Exposing, ExposureId, Part, Post, Room, Token, Traits,
};
use crate::immediate::Immediate;
use crate::lane::Lane;
use crate::memory::{self, Memory};
use crate::rail::Fact;

/// The longest piece: a message has at most 2^31 bytes.
const PIECE_BYTES_MAX: u64 = 1 << 30;
/// How long the requests of a queue pair that was stopped may take to be flushed.
const DRAIN_MAX: Duration = Duration::from_millis(200);
/// Polls from one look at the device's own events to the next.
const EVENTS_EVERY: u32 = 4096;

impl Device for Port {
    fn name(&self) -> &str {
        &self.name
    }

    fn traits(&self) -> Traits {
        Traits {
            ordered: true,
            exact: true,
            piece_bytes_max: PIECE_BYTES_MAX,
            message_bytes_max: PLACE_BYTES,
            pins: true,
            dma_bufs: true,
        }
    }

    fn facts(&self) -> Vec<Fact> {
        self.facts.clone()
    }

    fn channel_facts(&self, channel: ChannelId) -> Vec<Fact> {
        let Some(end) = self.channels.get(&channel).and_then(|it| it.end) else {
            return Vec::new();
        };
        let (ours, theirs) = (self.end.mtu_bytes(), end.mtu_bytes());
        let mtu = match ours == theirs {
            true => ours.to_string(),
            false => format!("{}, the lower of {ours} here and {theirs} there", ours.min(theirs)),
        };
        vec![("to", end.to_string()), ("mtu", mtu)]
    }

    fn port(&self) -> Vec<u8> {
        self.end.encode().to_vec()
    }

    fn register(&mut self, region: RegionId, memory: &Arc<Memory>) -> Result<(), String> {
        let mut access = 0;
        if memory.access() != memory::Access::ReadOnly {
            access |= sys::IBV_ACCESS_LOCAL_WRITE;
        }
        // The kernel binds no windows to dma-bufs.
        if self.windows && memory.is_host() {
            access |= sys::IBV_ACCESS_MW_BIND;
        }
        access |= sys::IBV_ACCESS_RELAXED_ORDERING;
        check(memory)?;
        let mr = (!memory.is_empty()).then(|| self.registration(region, memory, access));
        let mr =
            mr.transpose().map_err(|error| refused(&self.name, memory, memory.len(), &error))?;
        // SAFETY: it was made a moment ago.
        let key = mr.as_ref().map_or(0, |mr| unsafe { (*mr.mr.as_ptr()).lkey });
        self.regions.insert(region, Registered { memory: Arc::clone(memory), mr, key });
        Ok(())
    }

    fn deregister(&mut self, region: RegionId) {
        self.forget(region);
    }

    fn open(&mut self, channel: ChannelId, port: &[u8]) -> Result<Vec<u8>, String> {
        let theirs = End::decode(port).ok_or("what the peer says of its port makes no sense")?;
        self.end.check(&theirs)?;
        if (self.channels.len() + 1) * CHUNK_PLACES > self.receives {
            return Err(format!(
                "all {} receives are promised to {} peers",
                self.receives,
                self.channels.len()
            ));
        }
        self.provide().map_err(|error| {
            format!("memory for messages: ibv_reg_mr: {error}{}", memlock(&error))
        })?;
        let (first, first_place) = self.new_queue(channel, Lane::Latency)?;
        let (second, second_place) = match self.new_queue(channel, Lane::Bulk) {
            Ok(made) => made,
            Err(why) => {
                self.drop_queue(first, first_place);
                return Err(why);
            }
        };
        let mut blob = self.end.encode().to_vec();
        for queue in [&first, &second] {
            blob.extend(queue.blob(self.words.place(queue.word)));
        }
        let (lanes, places) = ([first, second], [first_place, second_place]);
        self.channels.insert(channel, Channel { lanes, places, end: None, broken: false });
        Ok(blob)
    }

    fn connect(&mut self, channel: ChannelId, theirs: &[u8]) -> Result<(), String> {
        let wrong = "what the peer says of its queue pairs makes no sense";
        let end = End::decode(theirs).ok_or(wrong)?;
        self.end.check(&end)?;
        let blobs = &theirs[End::BYTES..];
        if blobs.len() != 2 * Queue::BLOB_BYTES {
            return Err(wrong.to_owned());
        }
        let channel = self.channels.get_mut(&channel).ok_or("no such channel")?;
        for (queue, blob) in channel.lanes.iter_mut().zip(blobs.chunks_exact(Queue::BLOB_BYTES)) {
            let blob = blob.first_chunk().ok_or(wrong)?;
            let ends = (&self.end, &end);
            queue.connect(&self.domain, &self.abilities, ends, blob).map_err(|error| {
                let remedy = match self.end.is_of_one_link() || end.is_of_one_link() {
                    true => "give both interfaces an IP address (ip addr add …)",
                    false => "does the network lead there?",
                };
                format!("connecting {} to {end}: {error} (ibv_modify_qp); {remedy}", self.end)
            })?;
        }
        channel.end = Some(end);
        let (ours, theirs) = (self.end.mtu_bytes(), end.mtu_bytes());
        tracing::debug!(rail = self.name, peer = %end, mtu = ours.min(theirs), "connected");
        if ours != theirs {
            tracing::info!(
                rail = self.name,
                peer = %end,
                "MTU {}, the smaller: this port has {ours}, the peer's {theirs}; the larger is faster \
                 (ip link set dev NAME mtu 4200 at both ends, and the switch between them)",
                ours.min(theirs)
            );
        }
        Ok(())
    }

    fn destroy(&mut self, id: ChannelId, out: &mut Vec<Completion>) {
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.broken = true;
            channel.lanes.iter().for_each(|queue| queue.stop(&self.domain));
            // What had ended before the stop is still in the queues, and so is what was flushed.
            let until = Instant::now() + DRAIN_MAX;
            loop {
                let any = self.poll_queues();
                let idle = self
                    .channels
                    .get(&id)
                    .is_none_or(|channel| channel.lanes.iter().all(Queue::is_flushed));
                if !any && (idle || Instant::now() >= until) {
                    break;
                }
            }
        }
        // Windows hold their queue pair: some drivers wait for them before they destroy it.
        self.exposures.retain(|_, (channel, _)| *channel != id);
        if let Some(Channel { lanes, places, .. }) = self.channels.remove(&id) {
            for (queue, place) in lanes.into_iter().zip(places) {
                self.drop_queue(queue, place);
            }
        }
        self.reports.retain(|it| !matches!(it, Completion::Broken(other, _) if *other == id));
        out.append(&mut self.reports);
    }

    fn expose(
        &mut self,
        exposure: ExposureId,
        id: ChannelId,
        part: &Part,
    ) -> Result<Exposing, String> {
        let region = self.regions.get(&part.region).ok_or("no such region")?;
        let channel = self.channels.get_mut(&id).ok_or("no such channel")?;
        let (memory, len) = (&region.memory, part.len as usize);
        if self.windows
            && memory.is_host()
            && let Some(mr) = &region.mr
        {
            let place = (memory.address().wrapping_add(part.offset as usize), len);
            let (lanes, places) = (&mut channel.lanes, channel.places);
            let made = Exposure::windows(
                &self.domain,
                exposure,
                lanes,
                places,
                &mr.mr,
                place,
                part.access,
            );
            let made = made.map_err(|error| format!("a memory window: {error}"))?;
            self.exposures.insert(exposure, (id, made));
            return Ok(Exposing::Later);
        }
        let (made, keys) = Exposure::region(&self.domain, memory, part)
            .map_err(|error| refused(&self.name, memory, len, &error))?;
        self.exposures.insert(exposure, (id, made));
        Ok(Exposing::Now(keys))
    }

    fn conceal(&mut self, exposure: ExposureId) {
        self.exposures.remove(&exposure);
    }

    fn room(&self, channel: ChannelId, lane: Lane) -> Room {
        let Some(channel) = self.channels.get(&channel).filter(|it| !it.broken) else {
            return Room { pieces: 0, immediates: 0 };
        };
        let queue = &channel.lanes[lane.index()];
        let immediates = queue.immediates(self.words.read(queue.word));
        Room { pieces: queue.room(), immediates }
    }

    fn write(&mut self, post: &Post<'_>, immediate: Option<Immediate>) {
        self.post(post, sys::IBV_WR_RDMA_WRITE, immediate);
    }

    fn read(&mut self, post: &Post<'_>) {
        self.post(post, sys::IBV_WR_RDMA_READ, None);
    }

    fn send(&mut self, channel: ChannelId, token: Token, bytes: &[u8]) {
        self.post_message(channel, token, bytes);
    }

    fn poll(&mut self, out: &mut Vec<Completion>) -> bool {
        self.polls = self.polls.wrapping_add(1);
        if self.polls.is_multiple_of(EVENTS_EVERY) {
            // Whoever never sleeps never looks otherwise: it is a system call.
            self.take_events();
        }
        self.poll_queues();
        if !self.used.is_empty() {
            self.tell();
        }
        let any = !self.reports.is_empty();
        out.append(&mut self.reports);
        any
    }

    fn arm(&mut self) -> bool {
        self.take_events();
        loop {
            let (mut cq, mut mine) = (ptr::null_mut(), ptr::null_mut());
            // SAFETY: the channel exists, and its descriptor does not block.
            let rc = unsafe {
                self.domain.verbs.ibv_get_cq_event(self.events.as_ptr(), &mut cq, &mut mine)
            };
            if rc != 0 {
                break;
            }
            // SAFETY: the event was taken a moment ago.
            unsafe { self.domain.verbs.ibv_ack_cq_events(cq, 1) };
        }
        let all = self.sends.iter().map(|(cq, _)| cq).chain([&self.receive]);
        for cq in all {
            // SAFETY: the queue exists.
            unsafe { sys::Verbs::req_notify_cq(cq.as_ptr(), false) };
        }
        // What came before that tells nobody.
        !self.poll_queues() && self.reports.is_empty() && self.used.is_empty() && !self.is_starved()
    }

    fn descriptor(&self) -> Option<RawFd> {
        // SAFETY: the device is open.
        Some(unsafe { (*self.domain.context.as_ptr()).cmd_fd })
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.watch.as_fd())
    }
}
