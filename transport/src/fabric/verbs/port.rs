//! One port of a device: a rail.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::Arc;

use hashbrown::HashMap;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::process::{Resource, getrlimit};
use slab::Slab;
use tranship_verbs_sys as sys;

use super::domain::{Domain, Object};
use super::exposure::Exposure;
use super::path::End;
use super::queue::{Abilities, BUDGET, Cause, DEPTH, Queue};
use super::word::Words;
use crate::fabric::RegionId;
use crate::fabric::rdma::{ChannelId, Completion, Device, ExposureId, Post};
use crate::immediate::Immediate;
use crate::lane::Lane;
use crate::memory::Memory;

/// Completions taken at once.
const POLL_MAX: usize = 32;
/// Receives for immediates at most.
const RECEIVES_MAX: usize = 16 << 10;
/// Entries of a completion queue for what is sent, at most.
const SENDS_MAX: usize = 16 << 10;

/// One port as a rail.
pub(super) struct Port {
    pub(super) name: String,
    pub(super) end: End,
    pub(super) abilities: Abilities,
    /// Whether memory windows are used.
    pub(super) windows: bool,
    pub(super) regions: HashMap<RegionId, Registered>,
    pub(super) exposures: HashMap<ExposureId, (ChannelId, Exposure)>,
    pub(super) channels: HashMap<ChannelId, Channel>,
    /// Who a completion is for: the high half of its number.
    pub(super) places: Slab<(ChannelId, Lane)>,
    /// Who an arrival is for, by the number of the queue pair.
    pub(super) numbers: HashMap<u32, (ChannelId, Lane)>,
    /// Receives that were used and are to be posted again.
    pub(super) used: usize,
    pub(super) receives: usize,
    pub(super) reports: Vec<Completion>,
    pub(super) requests: Vec<sys::ibv_send_wr>,
    pub(super) pieces: Vec<sys::ibv_sge>,
    /// How often it was polled.
    pub(super) polls: u32,
    pub(super) watch: OwnedFd,
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
// libibverbs' objects may be used from any thread.
unsafe impl Send for Port {}

/// Memory of this side.
pub(super) struct Registered {
    pub(super) memory: Arc<Memory>,
    pub(super) mr: Option<Object<sys::ibv_mr>>,
    pub(super) key: u32,
}

/// A way to a peer.
pub(super) struct Channel {
    pub(super) lanes: [Queue; 2],
    pub(super) places: [u32; 2],
    pub(super) broken: bool,
}

/// What a rail is opened with.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) name: String,
    pub(super) end: End,
    pub(super) abilities: Abilities,
    pub(super) windows: bool,
    pub(super) attributes: sys::ibv_device_attr,
}

impl Port {
    pub(super) fn open(domain: Arc<Domain>, opening: Opening) -> Result<Self, String> {
        let Opening { name, end, abilities, windows, attributes } = opening;
        let failed = |what: &'static str| {
            let name = name.clone();
            move |error: io::Error| format!("{name}: {what}: {error}{}", memlock(&error))
        };
        let verbs = domain.verbs;
        let context = domain.context.as_ptr();
        if attributes.max_srq < 1 {
            return Err(format!("{name}: has no shared receive queues"));
        }
        // SAFETY: the device is open.
        let events = Object::new(&domain, unsafe { verbs.ibv_create_comp_channel(context) })
            .map_err(failed("ibv_create_comp_channel"))?;
        let at_most = |limit: i32, most: usize| most.min(usize::try_from(limit).unwrap_or(0));
        let receives = at_most(attributes.max_srq_wr, RECEIVES_MAX);
        let receives = at_most(attributes.max_cqe, receives);
        let sends_each = at_most(attributes.max_cqe, SENDS_MAX);
        if receives < 2 * BUDGET as usize || sends_each < 2 * DEPTH {
            return Err(format!(
                "{name}: {receives} receives and {sends_each} completions are too few"
            ));
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
        let mut rail = Self {
            name: name.clone(),
            end,
            abilities,
            windows,
            regions: HashMap::new(),
            exposures: HashMap::new(),
            channels: HashMap::new(),
            places: Slab::new(),
            numbers: HashMap::new(),
            used: receives,
            receives,
            reports: Vec::new(),
            requests: Vec::new(),
            pieces: Vec::new(),
            polls: 0,
            watch,
            words,
            srq,
            receive,
            sends: Vec::new(),
            sends_each,
            events,
            domain,
        };
        rail.post_receives().map_err(failed("ibv_post_srq_recv"))?;
        Ok(rail)
    }

    /// Posts the receives again that were used.
    pub(super) fn post_receives(&mut self) -> io::Result<()> {
        // SAFETY: all zero is a valid request: a receive of no bytes.
        let mut request: sys::ibv_recv_wr = unsafe { std::mem::zeroed() };
        while self.used > 0 {
            let mut bad = ptr::null_mut();
            // SAFETY: the queue exists, and nothing is received into memory.
            let error =
                unsafe { sys::Verbs::post_srq_recv(self.srq.as_ptr(), &mut request, &mut bad) };
            if error != 0 {
                return Err(io::Error::from_raw_os_error(error));
            }
            self.used -= 1;
        }
        Ok(())
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
        // Destroys the queue pair: the peer writes no more.
        drop(queue);
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
            if at + 1 == count {
                request.wr_id = u64::from(place) << 32 | u64::from(queue.number_after(count));
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

    pub(super) fn break_channel(&mut self, id: ChannelId, why: String) {
        if let Some(channel) = self.channels.get_mut(&id)
            && !std::mem::replace(&mut channel.broken, true)
        {
            self.reports.push(Completion::Broken(id, why));
        }
    }

    // ---- completions -------------------------------------------------------------------------

    /// Takes completions from all queues; whether there were any.
    pub(super) fn poll_queues(&mut self) -> bool {
        let mut any = false;
        // SAFETY: all zero is a valid completion.
        let mut entries: [sys::ibv_wc; POLL_MAX] = unsafe { std::mem::zeroed() };
        for at in 0..=self.sends.len() {
            let cq = match self.sends.get(at) {
                Some((cq, _)) => cq.as_ptr(),
                None => self.receive.as_ptr(),
            };
            // SAFETY: the queue exists, and there is room for so many.
            let count = unsafe { sys::Verbs::poll_cq(cq, POLL_MAX as i32, entries.as_mut_ptr()) };
            for entry in &entries[..usize::try_from(count).unwrap_or(0)] {
                any = true;
                if at == self.sends.len() {
                    self.arrived(entry);
                } else {
                    self.sent(entry);
                }
            }
        }
        any
    }

    pub(super) fn sent(&mut self, entry: &sys::ibv_wc) {
        // Of one that failed only its number, its status and its queue pair mean something.
        let place = (entry.wr_id >> 32) as usize;
        let Some(&(id, lane)) = self.places.get(place) else { return };
        let Some(channel) = self.channels.get_mut(&id) else { return };
        if entry.status != sys::IBV_WC_SUCCESS {
            channel.lanes[lane.index()].flush(entry.wr_id as u32);
            let status = self.domain.verbs.wc_status(entry.status).to_string_lossy();
            let hint = hint(entry.status);
            return self.break_channel(id, format!("a request failed: {status}{hint}"));
        }
        let (reports, exposures) = (&mut self.reports, &mut self.exposures);
        channel.lanes[lane.index()].end(entry.wr_id as u32, |cause| match cause {
            Cause::Post(token) => reports.push(Completion::Done(token)),
            Cause::Bind(id) => {
                if let Some(keys) = exposures.get_mut(&id).and_then(|(_, it)| it.bound()) {
                    reports.push(Completion::Exposed(id, Ok(keys)));
                }
            }
            Cause::Word => {}
        });
    }

    pub(super) fn arrived(&mut self, entry: &sys::ibv_wc) {
        let from = self.numbers.get(&entry.qp_num).copied();
        if entry.status != sys::IBV_WC_SUCCESS {
            // It took a receive all the same.
            self.used += 1;
            if let Some((id, _)) = from {
                let status = self.domain.verbs.wc_status(entry.status).to_string_lossy();
                self.break_channel(id, format!("an immediate was not received: {status}"));
            }
            return;
        }
        self.used += 1;
        // SAFETY: what came is an immediate: nothing else takes a receive of no bytes.
        let word = u32::from_be(unsafe { entry.__bindgen_anon_1.imm_data });
        self.reports.push(Completion::Arrived { from, immediate: Immediate(word) });
        if let Some((id, lane)) = from
            && let Some(channel) = self.channels.get_mut(&id)
        {
            channel.lanes[lane.index()].arrived += 1;
        }
    }

    /// Tells peers how many of their immediates were taken.
    pub(super) fn tell(&mut self) {
        if self.post_receives().is_err() {
            return;
        }
        let mut failed = Vec::new();
        for (id, channel) in self.channels.iter_mut().filter(|(_, channel)| !channel.broken) {
            for (queue, place) in channel.lanes.iter_mut().zip(channel.places) {
                if queue.owes_word()
                    && queue.has_spare()
                    && let Err(error) = queue.tell(place)
                {
                    failed.push((*id, error));
                }
            }
        }
        for (id, error) in failed {
            self.break_channel(id, format!("ibv_post_send: {error}"));
        }
    }

    /// Takes what the device says on its own account.
    pub(super) fn take_events(&mut self) {
        loop {
            // SAFETY: all zero is a valid event.
            let mut event: sys::ibv_async_event = unsafe { std::mem::zeroed() };
            let verbs = self.domain.verbs;
            // SAFETY: the device is open, and its descriptor does not block.
            let rc = unsafe { verbs.ibv_get_async_event(self.domain.context.as_ptr(), &mut event) };
            if rc != 0 {
                return;
            }
            // SAFETY: the event is of a port where it says so.
            let port = unsafe { event.element.port_num };
            let mine = port == i32::from(self.abilities.port);
            let text = verbs.event_type(event.event_type).to_string_lossy().into_owned();
            match event.event_type {
                sys::IBV_EVENT_PORT_ACTIVE if mine => self.reports.push(Completion::Port(Ok(()))),
                sys::IBV_EVENT_PORT_ERR if mine => self.reports.push(Completion::Port(Err(text))),
                sys::IBV_EVENT_DEVICE_FATAL => self.reports.push(Completion::Port(Err(text))),
                _ => tracing::debug!(rail = self.name, "{text}"),
            }
            // SAFETY: it was taken a moment ago.
            unsafe { verbs.ibv_ack_async_event(&mut event) };
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

/// What to do where the kernel locks no more memory.
pub(super) fn memlock(error: &io::Error) -> String {
    if !matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::EPERM | libc::EAGAIN)) {
        return String::new();
    }
    let limit = getrlimit(Resource::Memlock).current;
    let limit = limit.map_or_else(|| "unlimited".to_owned(), |bytes| format!("{bytes} bytes"));
    format!(
        "; memory that may be locked: {limit} (`ulimit -l unlimited`, or LimitMEMLOCK=infinity in \
         the service's unit, raises it)"
    )
}

/// What is behind a failure.
fn hint(status: sys::ibv_wc_status) -> &'static str {
    match status {
        sys::IBV_WC_RETRY_EXC_ERR => " (the peer does not answer: cable, switch or route)",
        sys::IBV_WC_RNR_RETRY_EXC_ERR => " (the peer takes no immediates)",
        sys::IBV_WC_REM_ACCESS_ERR => " (the key opens nothing there)",
        _ => "",
    }
}

impl Port {
    /// Whether some peer's budget is used up: that it has taken something is told by no completion.
    pub(super) fn is_starved(&self) -> bool {
        self.channels
            .values()
            .filter(|it| !it.broken)
            .flat_map(|it| &it.lanes)
            .any(|queue| queue.immediates(self.words.read(queue.word)) == 0)
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        let channels: Vec<ChannelId> = self.channels.keys().copied().collect();
        channels.into_iter().for_each(|channel| self.destroy(channel, &mut Vec::new()));
        self.exposures.clear();
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
