//! One port of a device: a rail.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;

use hashbrown::HashMap;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use slab::Slab;
use tranship_verbs_sys as sys;

use super::buffers::Buffers;
use super::cover::Cover;
use super::domain::{Domain, Object};
use super::exposure::Exposure;
use super::path::End;
use super::queue::{Abilities, BUDGET, Cause, DEPTH, Queue};
use super::registration::{Class, Registered, Registration, memlock};
use super::word::Words;
use crate::fabric::RegionId;
use crate::fabric::rdma::{ChannelId, Completion, Device, ExposureId, Post};
use crate::immediate::Immediate;
use crate::lane::Lane;
use crate::rail::Fact;

/// Receives for immediates and messages at most.
const RECEIVES_MAX: usize = 16 << 10;
/// Entries of a completion queue for what is sent, at most.
const SENDS_MAX: usize = 16 << 10;

/// One port as a rail.
pub(super) struct Port {
    pub(super) name: String,
    pub(super) end: End,
    /// What people are told of it.
    pub(super) facts: Vec<Fact>,
    pub(super) abilities: Abilities,
    /// Whether memory windows are used.
    pub(super) windows: bool,
    pub(super) regions: HashMap<RegionId, Registered>,
    /// The registrations of those regions, by what can share one.
    pub(super) covers: HashMap<Class, Cover<(RegionId, Rc<Registration>)>>,
    pub(super) exposures: HashMap<ExposureId, (ChannelId, Exposure)>,
    pub(super) channels: HashMap<ChannelId, Channel>,
    /// Who a completion is for: the high half of its number.
    pub(super) places: Slab<(ChannelId, Lane)>,
    /// Who an arrival is for, by the number of the queue pair.
    pub(super) numbers: HashMap<u32, (ChannelId, Lane)>,
    /// Receives at most.
    pub(super) receives: usize,
    /// Where messages are received; those places that were used and are to be posted again.
    pub(super) inbox: Buffers,
    pub(super) used: Vec<u32>,
    /// Where messages are sent from; those places that are free.
    pub(super) outbox: Buffers,
    pub(super) free: Vec<u32>,
    pub(super) reports: Vec<Completion>,
    pub(super) requests: Vec<sys::ibv_send_wr>,
    pub(super) pieces: Vec<sys::ibv_sge>,
    /// How often it was polled.
    pub(super) polls: u32,
    pub(super) watch: OwnedFd,
    #[cfg(feature = "conformance")]
    pub(super) door: Option<super::Door>,
    // In the order in which they have to be destroyed.
    pub(super) words: Words,
    pub(super) srq: Object<sys::ibv_srq>,
    pub(super) receive: Object<sys::ibv_cq>,
    /// Completion queues for what is sent, and the queue pairs that report there.
    pub(super) sends: Vec<(Object<sys::ibv_cq>, usize)>,
    pub(super) sends_each: usize,
    pub(super) events: Object<sys::ibv_comp_channel>,
    pub(super) domain: Arc<Domain>,
}

// SAFETY: the requests are filled in for one call each, and nothing of them is used between calls;
// registrations are shared within the port, and go where it goes; libibverbs' objects may be used from
// any thread.
unsafe impl Send for Port {}

/// A way to a peer.
pub(super) struct Channel {
    pub(super) lanes: [Queue; 2],
    pub(super) places: [u32; 2],
    /// The peer's port, once it is connected.
    pub(super) end: Option<End>,
    pub(super) broken: bool,
}

/// What a rail is opened with.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) name: String,
    pub(super) end: End,
    pub(super) facts: Vec<Fact>,
    pub(super) abilities: Abilities,
    pub(super) windows: bool,
    pub(super) attributes: sys::ibv_device_attr,
}

impl Port {
    pub(super) fn open(domain: Arc<Domain>, opening: Opening) -> Result<Self, String> {
        let Opening { name, end, facts, abilities, windows, attributes } = opening;
        let failed = |what: &'static str| {
            move |error: io::Error| format!("{what}: {error}{}", memlock(&error))
        };
        let verbs = domain.verbs;
        let context = domain.context.as_ptr();
        if attributes.max_srq < 1 {
            return Err("the device has no shared receive queues".to_owned());
        }
        // SAFETY: the device is open.
        let events = Object::new(&domain, unsafe { verbs.ibv_create_comp_channel(context) })
            .map_err(failed("ibv_create_comp_channel"))?;
        let at_most = |limit: i32, most: usize| most.min(usize::try_from(limit).unwrap_or(0));
        let receives = at_most(attributes.max_srq_wr, RECEIVES_MAX);
        let receives = at_most(attributes.max_cqe, receives);
        let sends_each = at_most(attributes.max_cqe, SENDS_MAX);
        if receives < 2 * BUDGET as usize || sends_each < 2 * DEPTH {
            return Err(format!("{receives} receives and {sends_each} completions are too few"));
        }
        let receive = queue_of(&domain, receives, &events).map_err(failed("ibv_create_cq"))?;
        // SAFETY: all zero is a valid structure.
        let mut init: sys::ibv_srq_init_attr = unsafe { std::mem::zeroed() };
        init.attr.max_wr = receives as u32;
        init.attr.max_sge = 1;
        // SAFETY: the domain exists.
        let srq = unsafe { verbs.ibv_create_srq(domain.pd.as_ptr(), &mut init) };
        let srq = Object::new(&domain, srq).map_err(failed("ibv_create_srq"))?;
        let words = Words::new(&domain).map_err(failed("ibv_reg_mr"))?;
        let watch = epoll::create(CreateFlags::CLOEXEC).map_err(io::Error::from);
        let watch: OwnedFd = watch.map_err(failed("epoll"))?;
        // SAFETY: both belong to objects that live as long as the rail.
        let fds = unsafe { [(*events.as_ptr()).fd, (*context).async_fd] };
        for fd in fds {
            // SAFETY: it is open.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            nonblocking(fd).map_err(failed("fcntl"))?;
            epoll::add(&watch, fd, EventData::new_u64(0), EventFlags::IN)
                .map_err(|error| failed("epoll")(error.into()))?;
        }
        Ok(Self {
            name,
            end,
            facts,
            abilities,
            windows,
            regions: HashMap::new(),
            covers: HashMap::new(),
            exposures: HashMap::new(),
            channels: HashMap::new(),
            places: Slab::new(),
            numbers: HashMap::new(),
            receives,
            inbox: Buffers::new(&domain),
            used: Vec::new(),
            outbox: Buffers::new(&domain),
            free: Vec::new(),
            reports: Vec::new(),
            requests: Vec::new(),
            pieces: Vec::new(),
            polls: 0,
            watch,
            #[cfg(feature = "conformance")]
            door: None,
            words,
            srq,
            receive,
            sends: Vec::new(),
            sends_each,
            events,
            domain,
        })
    }

    /// A completion queue with room for one more queue pair.
    pub(super) fn send_queue(&mut self) -> io::Result<usize> {
        let each = self.sends_each / DEPTH;
        if let Some(at) = self.sends.iter().position(|(_, users)| *users < each) {
            return Ok(at);
        }
        let cq = queue_of(&self.domain, self.sends_each, &self.events)?;
        self.sends.push((cq, 0));
        Ok(self.sends.len() - 1)
    }

    pub(super) fn new_queue(
        &mut self,
        channel: ChannelId,
        lane: Lane,
    ) -> Result<(Queue, u32), String> {
        let at = self.send_queue().map_err(|error| format!("ibv_create_cq: {error}"))?;
        let word = self.words.take().ok_or("too many peers; all words are taken")?;
        let send = (&self.sends[at].0, at);
        let made = Queue::new(&self.domain, &self.abilities, send, &self.receive, &self.srq, word);
        match made {
            Ok(queue) => {
                self.sends[at].1 += 1;
                self.numbers.insert(queue.number(), (channel, lane));
                Ok((queue, self.places.insert((channel, lane)) as u32))
            }
            Err(error) => {
                self.words.give_back(word);
                Err(format!("ibv_create_qp: {error}{}", memlock(&error)))
            }
        }
    }

    pub(super) fn drop_queue(&mut self, queue: Queue, place: u32) {
        self.numbers.remove(&queue.number());
        self.sends[queue.cq].1 -= 1;
        let word = queue.word;
        queue.destroy(&mut self.free);
        self.words.give_back(word);
        self.places.remove(place as usize);
    }

    // ---- posting -----------------------------------------------------------------------------

    pub(super) fn post(
        &mut self,
        post: &Post<'_>,
        opcode: sys::ibv_wr_opcode,
        immediate: Option<Immediate>,
    ) {
        let Some(channel) = self.channels.get_mut(&post.channel).filter(|it| !it.broken) else {
            return;
        };
        let lane = post.lane.index();
        let (queue, place) = (&mut channel.lanes[lane], channel.places[lane]);
        let lkey = self.regions.get(&post.region).map_or(0, |it| it.key);
        let count = post.pieces.len().max(1);
        #[cfg(feature = "conformance")]
        if let (Some(door), Some(piece)) = (&self.door, post.pieces.first()) {
            let address = post.remote.wrapping_add(piece.remote);
            door.see(super::Place { address, key: post.key as u32 });
        }
        self.requests.clear();
        self.pieces.clear();
        self.pieces.extend(post.pieces.iter().map(|piece| sys::ibv_sge {
            addr: post.local.wrapping_add(piece.local as usize) as u64,
            length: piece.len as u32,
            lkey,
        }));
        for at in 0..count {
            // SAFETY: all zero is a valid request.
            let mut request: sys::ibv_send_wr = unsafe { std::mem::zeroed() };
            request.opcode = opcode;
            if let Some(piece) = post.pieces.get(at) {
                request.sg_list = &raw mut self.pieces[at];
                request.num_sge = 1;
                request.wr.rdma.remote_addr = post.remote.wrapping_add(piece.remote);
                request.wr.rdma.rkey = post.key as u32;
                let inline = piece.len <= u64::from(queue.inline_bytes);
                if inline && opcode != sys::IBV_WR_RDMA_READ {
                    request.send_flags |= sys::IBV_SEND_INLINE;
                }
            }
            // Also those that are not signalled: they complete if they fail.
            request.wr_id = u64::from(place) << 32 | u64::from(queue.number_after(at + 1));
            if at + 1 == count {
                request.send_flags |= sys::IBV_SEND_SIGNALED;
                if let Some(Immediate(word)) = immediate {
                    request.opcode = sys::IBV_WR_RDMA_WRITE_WITH_IMM;
                    request.__bindgen_anon_1.imm_data = word.to_be();
                }
            }
            self.requests.push(request);
        }
        for at in 1..count {
            let next = &raw mut self.requests[at];
            self.requests[at - 1].next = next;
        }
        let mut bad = ptr::null_mut();
        let first = self.requests.as_mut_ptr();
        // SAFETY: the list and its pieces live until the call returns; the memory stays registered until
        // the requests have ended: see `Device`.
        let error = unsafe { sys::Verbs::post_send(queue.qp.as_ptr(), first, &mut bad) };
        if error == 0 {
            queue.note(count, Cause::Post(post.token), immediate.is_some());
        } else {
            let error = io::Error::from_raw_os_error(error);
            self.break_channel(post.channel, format!("ibv_post_send: {error}"));
        }
    }

    /// Writes what came through the door.
    #[cfg(feature = "conformance")]
    pub(super) fn open_door(&mut self) {
        let Some(door) = &self.door else { return };
        let lane = Lane::Bulk.index();
        let Some((_, channel)) = self.channels.iter_mut().find(|(_, it)| !it.broken) else {
            return;
        };
        while channel.lanes[lane].has_spare()
            && let Some((place, word)) = door.take()
        {
            let to = (place.address, place.key);
            // One that cannot be posted is never seen to end, which its test notices.
            let _ = channel.lanes[lane].put(channel.places[lane], to, word);
        }
    }

    pub(super) fn break_channel(&mut self, id: ChannelId, why: String) {
        if let Some(channel) = self.channels.get_mut(&id)
            && !std::mem::replace(&mut channel.broken, true)
        {
            self.reports.push(Completion::Broken(id, why));
        }
    }
}

/// A completion queue that tells of what comes.
fn queue_of(
    domain: &Arc<Domain>,
    entries: usize,
    events: &Object<sys::ibv_comp_channel>,
) -> io::Result<Object<sys::ibv_cq>> {
    let (context, events) = (domain.context.as_ptr(), events.as_ptr());
    // SAFETY: both exist.
    let cq =
        unsafe { domain.verbs.ibv_create_cq(context, entries as i32, ptr::null_mut(), events, 0) };
    Object::new(domain, cq)
}

fn nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)?)
}

impl Drop for Port {
    fn drop(&mut self) {
        let channels: Vec<ChannelId> = self.channels.keys().copied().collect();
        channels.into_iter().for_each(|channel| self.destroy(channel, &mut Vec::new()));
        self.exposures.clear();
        self.covers.clear();
        self.regions.clear();
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port")
            .field("name", &self.name)
            .field("end", &self.end)
            .field("windows", &self.windows)
            .field("watch", &self.watch.as_raw_fd())
            .finish_non_exhaustive()
    }
}
