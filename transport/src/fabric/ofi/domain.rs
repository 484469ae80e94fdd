//! One domain, and its endpoints.

use std::cell::UnsafeCell;
use std::fmt;
use std::os::fd::OwnedFd;
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;

use hashbrown::HashMap;
use rustix::event::epoll::{self, CreateFlags};
use tranship_ofi_sys as sys;

use super::channel::{Channel, Item, Queue, What, issue, open_cq};
use super::info::Info;
use super::letters::{Letters, PLACE_BYTES, RECEIVES, SECRET_BYTES};
use super::object::Object;
use super::pool::{Pool, Posting, Use};
use crate::fabric::RegionId;
use crate::fabric::rdma::{ChannelId, Completion, Device, ExposureId, Post, Token, Traits};
use crate::immediate::Immediate;
use crate::lane::Lane;
use crate::memory::Memory;

/// Completions read at once.
const READ_MAX: usize = 32;
/// How often that is done in one poll: until nothing is left, as a rule. A peer that knows that something is
/// here may rely on it that we know, too.
const READS_PER_POLL: usize = 128;
/// Pieces that one lane of a channel has under way at most.
const PIECES_MAX: usize = 256;
/// The longest piece: beyond this nothing gets faster, and some providers count in 32 bits.
const PIECE_BYTES_MAX: u64 = 1 << 30;
/// The longest endpoint name.
pub(super) const NAME_BYTES_MAX: usize = 128;
/// Where peers write something to deliver an immediate alone: not all providers write nothing.
pub(super) const MAILBOX_BYTES: usize = 8;

/// One domain as a rail.
pub(super) struct Domain {
    pub(super) name: String,
    pub(super) info: Info,
    /// Peers are told apart by it: only the same speak with each other.
    pub(super) provider: String,
    /// Why that provider.
    pub(super) why: &'static str,
    pub(super) traits: Traits,
    /// The descriptors of all queues, where the provider has some.
    pub(super) watch: Option<OwnedFd>,
    pub(super) pieces_max: usize,
    pub(super) regions: HashMap<RegionId, Registered>,
    pub(super) channels: HashMap<ChannelId, Channel>,
    /// Room for the channels whose turn it is in a poll.
    pub(super) turns: Vec<ChannelId>,
    pub(super) exposures: HashMap<ExposureId, Exposure>,
    pub(super) pool: Pool,
    /// Pieces that the provider had no room for.
    pub(super) backlog: usize,
    pub(super) reports: Vec<Completion>,
    pub(super) roots: Rc<Roots>,
}

/// What everything else is made of.
pub(super) struct Roots {
    // In the order in which they have to be closed.
    pub(super) domain: Object<sys::fid_domain>,
    pub(super) fabric: Object<sys::fid_fabric>,
    pub(super) mailbox: UnsafeCell<[u64; MAILBOX_BYTES / 8]>,
}

// SAFETY: libfabric's objects are used by one thread at a time, which is what FI_THREAD_DOMAIN asks;
// contexts and the mailbox are memory of our own, and all that shares the roots goes along.
unsafe impl Send for Domain {}

/// A part of a region that a channel's peer may use.
pub(super) struct Exposure {
    pub(super) channel: ChannelId,
    /// One for each endpoint where they are bound to those.
    pub(super) _registrations: [Option<Object<sys::fid_mr>>; 2],
}

/// Memory of this side.
pub(super) struct Registered {
    pub(super) memory: Arc<Memory>,
    /// Where the provider wants local memory registered.
    pub(super) mr: Option<Object<sys::fid_mr>>,
}

impl Domain {
    /// Opens it.
    pub(super) fn open(info: Info, why: &'static str) -> Result<Self, String> {
        let (provider, domain_name) = (info.provider(), info.domain());
        let name = format!("{provider} {domain_name}");
        let failed = |what: &'static str| {
            let name = name.clone();
            let library = Arc::clone(&info.library);
            move |rc: i32| format!("{name}: {what}: {}", library.error(rc).to_string_lossy())
        };
        if info.domain_attr().cq_data_size < 4 {
            return Err(format!("{name}: carries no immediates of 32 bits"));
        }
        let attr = info.raw().fabric_attr;
        // SAFETY: the attributes are those that the library gave.
        let fabric =
            Object::new(|out| unsafe { info.library.fi_fabric(attr, out, ptr::null_mut()) })
                .map_err(failed("fi_fabric"))?;
        // SAFETY: as above; the fabric is open.
        let domain = Object::new(|out| unsafe {
            sys::Fabric::domain(fabric.as_ptr(), info.as_ptr(), out, ptr::null_mut())
        })
        .map_err(failed("fi_domain"))?;
        let watch = epoll::create(CreateFlags::CLOEXEC)
            .map_err(|error| format!("{name}: epoll: {error}; raise ulimit -n"))?;
        let watch = open_cq(&domain, sys::FI_WAIT_FD).is_ok().then_some(watch);
        let (tx, ep) = (info.tx_attr(), info.ep_attr());
        let whole = usize::MAX == ep.max_order_waw_size;
        let ordered = tx.msg_order & sys::FI_ORDER_WAW != 0 && whole;
        let traits = Traits {
            ordered,
            exact: false,
            piece_bytes_max: PIECE_BYTES_MAX.min(ep.max_msg_size as u64),
            message_bytes_max: if info.is_ip() { 0 } else { PLACE_BYTES - SECRET_BYTES },
            pins: info.needs(sys::FI_MR_ALLOCATED),
            // It would take domains with FI_HMEM and libfabric 1.20 (FI_MR_DMABUF).
            dma_bufs: false,
        };
        let pieces_max = tx.size.clamp(1, PIECES_MAX);
        Ok(Self {
            name,
            provider,
            why,
            traits,
            watch,
            pieces_max,
            regions: HashMap::new(),
            channels: HashMap::new(),
            turns: Vec::new(),
            exposures: HashMap::new(),
            pool: Pool::default(),
            backlog: 0,
            reports: Vec::new(),
            roots: Rc::new(Roots { domain, fabric, mailbox: UnsafeCell::default() }),
            info,
        })
    }

    pub(super) fn error(&self, what: &str, rc: i32) -> String {
        format!("{what}: {}", self.info.error(rc))
    }

    /// Registers memory, for peers or for ourselves; where the provider binds registrations to
    /// endpoints, to this one.
    pub(super) fn mr(
        &self,
        (start, len): (*mut u8, usize),
        access: u64,
        ep: Option<&Object<sys::fid_ep>>,
    ) -> Result<Object<sys::fid_mr>, String> {
        let bits = 8 * self.info.domain_attr().mr_key_size.min(8) as u32;
        let mut tries = 0;
        let mr = loop {
            // Also where it is chosen for us, as some providers want it to be new.
            let random = getrandom::u64().map_err(|error| format!("no random key: {error}"))?;
            let key = random.checked_shr(64 - bits).unwrap_or(0);
            // SAFETY: the memory is there until the registration is closed: see `Device`.
            let made = Object::new(|out| unsafe {
                let domain = self.roots.domain.as_ptr();
                sys::Fabric::mr_reg(
                    domain,
                    start.cast(),
                    len,
                    access,
                    0,
                    key,
                    0,
                    out,
                    ptr::null_mut(),
                )
            });
            tries += 1;
            match made {
                Ok(mr) => break mr,
                Err(rc) if rc == -sys::FI_ENOKEY && tries < 8 => {}
                Err(rc) => {
                    let why = self.error("fi_mr_reg", rc);
                    return Err(format!("{why} (for {len} bytes; `ulimit -l` may be too low)"));
                }
            }
        };
        if self.info.needs(sys::FI_MR_ENDPOINT)
            && let Some(ep) = ep
        {
            // SAFETY: both are open.
            let rc = unsafe { sys::Fabric::mr_bind(mr.as_ptr(), ep.fid(), 0) };
            // SAFETY: as above.
            let rc = if rc == 0 { unsafe { sys::Fabric::mr_enable(mr.as_ptr()) } } else { rc };
            if rc != 0 {
                return Err(self.error("fi_mr_bind", rc));
            }
        }
        Ok(mr)
    }

    /// How peers call the first byte of registered memory.
    pub(super) fn base(&self, start: *mut u8) -> u64 {
        if self.info.needs(sys::FI_MR_VIRT_ADDR) { start as u64 } else { 0 }
    }

    pub(super) fn open_av(&self) -> Result<Object<sys::fid_av>, i32> {
        // SAFETY: all zero is a valid attribute structure.
        let mut attr: sys::fi_av_attr = unsafe { std::mem::zeroed() };
        attr.type_ = self.info.domain_attr().av_type;
        // SAFETY: the domain is open.
        Object::new(|out| unsafe {
            sys::Fabric::av_open(self.roots.domain.as_ptr(), &mut attr, out, ptr::null_mut())
        })
    }

    /// One endpoint, and its name.
    pub(super) fn endpoint(
        &self,
        cq: &Object<sys::fid_cq>,
        av: &Object<sys::fid_av>,
    ) -> Result<(Object<sys::fid_ep>, Vec<u8>), String> {
        // SAFETY: the domain is open, and the description is that of one of its endpoints.
        let ep = Object::new(|out| unsafe {
            sys::Fabric::endpoint(
                self.roots.domain.as_ptr(),
                self.info.as_ptr(),
                out,
                ptr::null_mut(),
            )
        })
        .map_err(|rc| self.error("fi_endpoint", rc))?;
        let both = sys::FI_TRANSMIT | sys::FI_RECV;
        for (object, flags) in [(cq.fid(), both), (av.fid(), 0)] {
            // SAFETY: all of these are open.
            let rc = unsafe { sys::Fabric::ep_bind(ep.as_ptr(), object, flags) };
            if rc != 0 {
                return Err(self.error("fi_ep_bind", rc));
            }
        }
        // SAFETY: it is bound to all that it needs.
        let rc = unsafe { sys::Fabric::enable(ep.as_ptr()) };
        if rc != 0 {
            return Err(self.error("fi_enable", rc));
        }
        let mut name = vec![0; NAME_BYTES_MAX];
        let mut len = name.len();
        // SAFETY: the buffer is as long as it says.
        let rc = unsafe { sys::Fabric::getname(ep.as_ptr(), name.as_mut_ptr().cast(), &mut len) };
        if rc != 0 {
            return Err(self.error("fi_getname", rc));
        }
        name.truncate(len);
        Ok((ep, name))
    }

    // ---- posting -----------------------------------------------------------------------------

    pub(super) fn post(&mut self, post: &Post<'_>, is_read: bool, immediate: Option<Immediate>) {
        let Some(channel) = self.channels.get_mut(&post.channel).filter(|it| !it.broken) else {
            return;
        };
        let desc = match self.regions.get(&post.region).and_then(|it| it.mr.as_ref()) {
            // SAFETY: the registration is open.
            Some(mr) => unsafe { sys::Fabric::mr_desc(mr.as_ptr()) },
            None => ptr::null_mut(),
        };
        let left = post.pieces.len().max(1) as u32;
        let Post { token, channel: id, lane, .. } = *post;
        let posting = Posting { token, channel: id, lane, left, place: None };
        let posting = self.pool.postings.insert(posting) as u32;
        let queue = &mut channel.lanes[post.lane.index()];
        let what = if is_read { What::Read } else { What::Write };
        let last = post.pieces.len().saturating_sub(1);
        for (at, piece) in post.pieces.iter().enumerate() {
            queue.waiting.push_back(Item {
                posting,
                what,
                local: post.local.wrapping_add(piece.local as usize).cast(),
                desc,
                len: piece.len as usize,
                remote: post.remote.wrapping_add(piece.remote),
                key: post.key,
                immediate: immediate.filter(|_| at == last),
            });
        }
        if post.pieces.is_empty() {
            let (key, remote) = queue.theirs;
            queue.waiting.push_back(Item {
                posting,
                what: What::Write,
                local: self.roots.mailbox.get().cast(),
                // SAFETY: the registration is open.
                desc: unsafe { sys::Fabric::mr_desc(queue.mailbox.as_ptr()) },
                len: MAILBOX_BYTES,
                remote,
                key,
                immediate,
            });
        }
        self.backlog += left as usize;
        self.push(post.channel, post.lane);
    }

    /// Gives the provider what waits in a lane, as far as it takes it.
    pub(super) fn push(&mut self, id: ChannelId, lane: Lane) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let queue = &mut channel.lanes[lane.index()];
        while let Some(item) = queue.waiting.front() {
            let context = self.pool.context(Use::Piece(item.posting));
            let more = queue.waiting.len() > 1;
            let rc = match (item.what, &channel.letters) {
                (What::Message(place), Some(letters)) => {
                    letters.send(queue, place, item.len, context)
                }
                _ => issue(queue, item, context, more),
            };
            if rc == 0 {
                queue.waiting.pop_front();
                queue.flying += 1;
                self.backlog -= 1;
                continue;
            }
            self.pool.take(context);
            if rc != -(sys::FI_EAGAIN as isize) {
                let what = match item.what {
                    What::Read => "fi_readmsg",
                    What::Write => "fi_writemsg",
                    What::Message(_) => "fi_sendmsg",
                };
                let why = format!("{what}: {}", self.info.error(rc as i32));
                self.break_channel(id, why);
            }
            return;
        }
    }

    /// Makes room for the messages of a channel, and receives.
    pub(super) fn letters(
        &mut self,
        id: ChannelId,
        queue: &Queue,
    ) -> Result<Option<Letters>, String> {
        if self.traits.message_bytes_max == 0 {
            return Ok(None);
        }
        let mut letters = Letters::new()?;
        if self.info.needs(sys::FI_MR_LOCAL) {
            let access = sys::FI_SEND | sys::FI_RECV;
            letters.mr = Some(self.mr(letters.memory(), access, Some(&queue.ep))?);
        }
        for place in 0..RECEIVES {
            let context = self.pool.context(Use::Receive(id, place));
            let rc = letters.receive(queue, place, context);
            if rc != 0 {
                // The provider has some of the places until the endpoint is closed.
                std::mem::forget(letters);
                self.pool.forget(id);
                return Err(self.error("fi_recv", rc as i32));
            }
        }
        Ok(Some(letters))
    }

    /// Sends a message.
    pub(super) fn post_message(&mut self, id: ChannelId, token: Token, bytes: &[u8]) {
        let Some(channel) = self.channels.get_mut(&id).filter(|it| !it.broken) else { return };
        let Some(letters) = &mut channel.letters else { return };
        let lane = Lane::Latency;
        let Some(place) = letters.write(bytes) else {
            return self.break_channel(id, "more messages under way than there may be".to_owned());
        };
        let posting = Posting { token, channel: id, lane, left: 1, place: Some(place) };
        let posting = self.pool.postings.insert(posting) as u32;
        let queue = &mut channel.lanes[lane.index()];
        queue.waiting.push_back(Item {
            posting,
            what: What::Message(place),
            local: ptr::null_mut(),
            desc: ptr::null_mut(),
            len: bytes.len() + SECRET_BYTES,
            remote: 0,
            key: 0,
            immediate: None,
        });
        self.backlog += 1;
        self.push(id, lane);
    }

    pub(super) fn break_channel(&mut self, id: ChannelId, why: String) {
        if let Some(channel) = self.channels.get_mut(&id)
            && !std::mem::replace(&mut channel.broken, true)
        {
            for queue in &mut channel.lanes {
                self.backlog -= queue.waiting.len();
                queue.waiting.clear();
            }
            self.reports.push(Completion::Broken(id, why));
        }
    }

    // ---- completions -------------------------------------------------------------------------

    /// Reads what has completed on a channel, some of it; whether there was anything.
    pub(super) fn read_queue(&mut self, id: ChannelId) -> bool {
        let Some(channel) = self.channels.get_mut(&id) else { return false };
        let mut any = false;
        let mut failure = None;
        // SAFETY: all zero is a valid entry.
        let mut entries: [sys::fi_cq_data_entry; READ_MAX] = unsafe { std::mem::zeroed() };
        for _ in 0..READS_PER_POLL {
            // SAFETY: the queue is open and has the format of these entries.
            let count = unsafe {
                sys::Fabric::cq_read(channel.cq.as_ptr(), entries.as_mut_ptr().cast(), READ_MAX)
            };
            if count == -(sys::FI_EAVAIL as isize) {
                // SAFETY: all zero is a valid entry.
                let mut entry: sys::fi_cq_err_entry = unsafe { std::mem::zeroed() };
                // SAFETY: the queue is open.
                let count = unsafe { sys::Fabric::cq_readerr(channel.cq.as_ptr(), &mut entry, 0) };
                if count <= 0 {
                    break;
                }
                any = true;
                if entry.op_context.is_null() {
                    continue;
                }
                match self.pool.take(entry.op_context.cast()) {
                    Use::Piece(posting) => {
                        // Never `Done`: its posting stays until the channel is destroyed.
                        let lane = self.pool.postings[posting as usize].lane;
                        channel.lanes[lane.index()].flying -= 1;
                        failure = Some(entry.err);
                    }
                    Use::Receive(..) => failure = Some(entry.err),
                    Use::Nothing => {}
                }
                continue;
            }
            if count <= 0 {
                break;
            }
            any = true;
            for entry in &entries[..count as usize] {
                // One that comes with a message is nobody's.
                if entry.flags & sys::FI_REMOTE_CQ_DATA != 0 && entry.flags & sys::FI_MSG == 0 {
                    let immediate = Immediate(entry.data as u32);
                    self.reports.push(Completion::Arrived { from: None, immediate });
                    continue;
                }
                match self.pool.take(entry.op_context.cast()) {
                    Use::Piece(at) => {
                        let posting = &mut self.pool.postings[at as usize];
                        posting.left -= 1;
                        channel.lanes[posting.lane.index()].flying -= 1;
                        if posting.left == 0 {
                            let Posting { token, place, .. } =
                                self.pool.postings.remove(at as usize);
                            self.reports.push(Completion::Done(token));
                            if let (Some(letters), Some(place)) = (&mut channel.letters, place) {
                                letters.give_back(place);
                            }
                        }
                    }
                    Use::Receive(id, place) => {
                        let Some(letters) = &channel.letters else { continue };
                        match letters.read(place, entry.len) {
                            Some(bytes) => self.reports.push(Completion::Message(id, bytes)),
                            None => tracing::debug!(rail = self.name, "a message of a stranger"),
                        }
                        let context = self.pool.context(Use::Receive(id, place));
                        let queue = &channel.lanes[Lane::Latency.index()];
                        let rc = letters.receive(queue, place, context);
                        if rc != 0 {
                            self.pool.take(context);
                            failure = Some(-rc as i32);
                        }
                    }
                    Use::Nothing => {}
                }
            }
        }
        if let Some(error) = failure {
            self.break_channel(id, format!("a transfer failed: {}", self.info.error(error)));
        }
        any
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        // Before what they were made of.
        let channels: Vec<ChannelId> = self.channels.keys().copied().collect();
        channels.into_iter().for_each(|channel| self.destroy(channel, &mut Vec::new()));
        self.exposures.clear();
        self.regions.clear();
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Domain")
            .field("name", &self.name)
            .field("traits", &self.traits)
            .field("channels", &self.channels.len())
            .finish_non_exhaustive()
    }
}
