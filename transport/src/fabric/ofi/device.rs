//! One domain, and its endpoints.

use std::cell::UnsafeCell;
use std::collections::{HashMap, VecDeque};
use std::ffi::c_void;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use slab::Slab;
use tranship_ofi_sys as sys;

use super::info::Info;
use super::near;
use super::object::Object;
use crate::fabric::RegionId;
use crate::fabric::rdma::{
    ChannelId, Completion, Device, Exposing, ExposureId, Keys, Part, Post, Room, Token, Traits,
};
use crate::immediate::Immediate;
use crate::lane::Lane;
use crate::memory::{self, Memory};
use crate::window::Access;

/// Completions read at once.
const READ_MAX: usize = 32;
/// How often that is done in one poll.
const READS_PER_POLL: usize = 4;
/// Entries of the completion queue.
const CQ_ENTRIES: usize = 4096;
/// Pieces that one lane of a channel has under way at most.
const PIECES_MAX: usize = 256;
/// The longest piece: beyond this nothing gets faster, and some providers count in 32 bits.
const PIECE_BYTES_MAX: u64 = 1 << 30;
/// The longest endpoint name.
const NAME_BYTES_MAX: usize = 128;
/// Where peers write something to deliver an immediate alone: not all providers write nothing.
const MAILBOX_BYTES: usize = 8;

/// One domain as a rail.
pub(super) struct Domain {
    name: String,
    info: Info,
    /// Peers are told apart by it: only the same speak with each other.
    provider: String,
    traits: Traits,
    /// The descriptors of all queues, where the provider has some.
    watch: Option<OwnedFd>,
    pieces_max: usize,
    regions: HashMap<RegionId, Registered>,
    channels: HashMap<ChannelId, Channel>,
    exposures: HashMap<ExposureId, [Option<Object<sys::fid_mr>>; 2]>,
    pool: Pool,
    /// Pieces that the provider had no room for.
    backlog: usize,
    reports: Vec<Completion>,
    roots: Rc<Roots>,
}

/// What everything else is made of.
struct Roots {
    // In the order in which they have to be closed.
    domain: Object<sys::fid_domain>,
    fabric: Object<sys::fid_fabric>,
    mailbox: UnsafeCell<[u64; MAILBOX_BYTES / 8]>,
}

// SAFETY: libfabric's objects are used by one thread at a time, which is what FI_THREAD_DOMAIN asks;
// contexts and the mailbox are memory of our own, and all that shares the roots goes along.
unsafe impl Send for Domain {}

/// Memory of this side.
struct Registered {
    memory: Arc<Memory>,
    /// Where the provider wants local memory registered.
    mr: Option<Object<sys::fid_mr>>,
}

/// A way to a peer. It has a completion queue and an address table of its own: providers get confused
/// by those that outlive endpoints that were bound to them, and addresses that come and go.
struct Channel {
    lanes: [Queue; 2],
    // After what is bound to them.
    av: Object<sys::fid_av>,
    cq: Object<sys::fid_cq>,
    wait: Option<RawFd>,
    broken: bool,
    /// Whether the other side is in this process.
    near: bool,
    _roots: Rc<Roots>,
}

/// One lane of it.
struct Queue {
    ep: Object<sys::fid_ep>,
    peer: sys::fi_addr_t,
    flying: usize,
    waiting: VecDeque<Item>,
    /// Our mailbox, as the peer uses it through this endpoint.
    mailbox: Object<sys::fid_mr>,
    /// The peer's mailbox.
    theirs: (u64, u64),
}

/// A piece to be given to the provider.
#[derive(Clone, Copy)]
struct Item {
    posting: u32,
    is_read: bool,
    local: *mut c_void,
    desc: *mut c_void,
    len: usize,
    remote: u64,
    key: u64,
    immediate: Option<Immediate>,
}

/// What was posted, and how many of its pieces are under way.
struct Posting {
    token: Token,
    channel: ChannelId,
    lane: Lane,
    left: u32,
}

/// What was posted and has not ended.
#[derive(Default)]
struct Pool {
    postings: Slab<Posting>,
    /// What the provider is given for each piece; their addresses stay.
    #[expect(clippy::vec_box, reason = "the provider keeps their addresses")]
    contexts: Vec<Box<Context>>,
    free: Vec<u32>,
}

/// What the provider is given for one piece, and may use while that is under way.
#[repr(C)]
struct Context {
    theirs: sys::fi_context2,
    at: u32,
    posting: u32,
    live: bool,
}

impl Domain {
    /// Opens it.
    pub(super) fn open(info: Info) -> Result<Self, String> {
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
            fences: true,
            piece_bytes_max: PIECE_BYTES_MAX.min(ep.max_msg_size as u64),
        };
        let pieces_max = tx.size.clamp(1, PIECES_MAX);
        Ok(Self {
            name,
            provider,
            traits,
            watch,
            pieces_max,
            regions: HashMap::new(),
            channels: HashMap::new(),
            exposures: HashMap::new(),
            pool: Pool::default(),
            backlog: 0,
            reports: Vec::new(),
            roots: Rc::new(Roots { domain, fabric, mailbox: UnsafeCell::default() }),
            info,
        })
    }

    fn error(&self, what: &str, rc: i32) -> String {
        format!("{what}: {}", self.info.error(rc))
    }

    /// Registers memory, for peers or for ourselves; where the provider binds registrations to
    /// endpoints, to this one.
    fn mr(
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
    fn base(&self, start: *mut u8) -> u64 {
        if self.info.needs(sys::FI_MR_VIRT_ADDR) { start as u64 } else { 0 }
    }

    fn open_av(&self) -> Result<Object<sys::fid_av>, i32> {
        // SAFETY: all zero is a valid attribute structure.
        let mut attr: sys::fi_av_attr = unsafe { std::mem::zeroed() };
        attr.type_ = self.info.domain_attr().av_type;
        // SAFETY: the domain is open.
        Object::new(|out| unsafe {
            sys::Fabric::av_open(self.roots.domain.as_ptr(), &mut attr, out, ptr::null_mut())
        })
    }

    /// One endpoint, and its name.
    fn endpoint(
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

    fn post(&mut self, post: &Post<'_>, is_read: bool, immediate: Option<Immediate>) {
        let Some(channel) = self.channels.get_mut(&post.channel).filter(|it| !it.broken) else {
            return;
        };
        let desc = match self.regions.get(&post.region).and_then(|it| it.mr.as_ref()) {
            // SAFETY: the registration is open.
            Some(mr) => unsafe { sys::Fabric::mr_desc(mr.as_ptr()) },
            None => ptr::null_mut(),
        };
        let left = post.pieces.len().max(1) as u32;
        let posting = Posting { token: post.token, channel: post.channel, lane: post.lane, left };
        let posting = self.pool.postings.insert(posting) as u32;
        let queue = &mut channel.lanes[post.lane.index()];
        let last = post.pieces.len().saturating_sub(1);
        for (at, piece) in post.pieces.iter().enumerate() {
            queue.waiting.push_back(Item {
                posting,
                is_read,
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
                is_read: false,
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
    fn push(&mut self, id: ChannelId, lane: Lane) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let queue = &mut channel.lanes[lane.index()];
        while let Some(item) = queue.waiting.front() {
            let context = self.pool.context(item.posting);
            let rc = issue(queue, item, context, queue.waiting.len() > 1);
            if rc == 0 {
                queue.waiting.pop_front();
                queue.flying += 1;
                self.backlog -= 1;
                continue;
            }
            self.pool.take(context);
            if rc != -(sys::FI_EAGAIN as isize) {
                let what = if item.is_read { "fi_readmsg" } else { "fi_writemsg" };
                let why = format!("{what}: {}", self.info.error(rc as i32));
                self.break_channel(id, why);
            }
            return;
        }
    }

    fn break_channel(&mut self, id: ChannelId, why: String) {
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

    /// Reads what has completed on a channel.
    fn read_queue(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let mut failure = None;
        for _ in 0..READS_PER_POLL {
            // SAFETY: all zero is a valid entry.
            let mut entries: [sys::fi_cq_data_entry; READ_MAX] = unsafe { std::mem::zeroed() };
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
                if !entry.op_context.is_null()
                    && let Some(posting) = self.pool.take(entry.op_context.cast())
                {
                    // Never `Done`: its posting stays until the channel is destroyed.
                    let lane = self.pool.postings[posting].lane;
                    channel.lanes[lane.index()].flying -= 1;
                    failure = Some(entry.err);
                }
                continue;
            }
            if count <= 0 {
                break;
            }
            for entry in &entries[..count as usize] {
                if entry.flags & sys::FI_REMOTE_CQ_DATA != 0 {
                    let immediate = Immediate(entry.data as u32);
                    self.reports.push(Completion::Arrived { from: None, immediate });
                } else if let Some(at) = self.pool.take(entry.op_context.cast()) {
                    let posting = &mut self.pool.postings[at];
                    posting.left -= 1;
                    channel.lanes[posting.lane.index()].flying -= 1;
                    if posting.left == 0 {
                        let token = self.pool.postings.remove(at).token;
                        self.reports.push(Completion::Done(token));
                    }
                }
            }
        }
        if let Some(error) = failure {
            self.break_channel(id, format!("a transfer failed: {}", self.info.error(error)));
        }
    }
}

impl Pool {
    /// A context for a piece of a posting.
    fn context(&mut self, posting: u32) -> *mut Context {
        let at = self.free.pop().unwrap_or_else(|| {
            let at = self.contexts.len() as u32;
            // SAFETY: all zero is a valid context.
            let theirs = unsafe { std::mem::zeroed() };
            self.contexts.push(Box::new(Context { theirs, at, posting: 0, live: false }));
            at
        });
        let context = &mut *self.contexts[at as usize];
        (context.posting, context.live) = (posting, true);
        context
    }

    /// The posting of a piece that has ended.
    fn take(&mut self, context: *mut Context) -> Option<usize> {
        // SAFETY: it is one of ours, which are never freed.
        let context = unsafe { &mut *context };
        if !std::mem::take(&mut context.live) {
            return None;
        }
        self.free.push(context.at);
        Some(context.posting as usize)
    }

    /// Forgets all of a channel, whose endpoints and queue are closed.
    fn forget(&mut self, id: ChannelId) {
        for context in &mut self.contexts {
            let posting = self.postings.get(context.posting as usize);
            if context.live && posting.is_some_and(|it| it.channel == id) {
                context.live = false;
                self.free.push(context.at);
            }
        }
        self.postings.retain(|_, posting| posting.channel != id);
    }
}

/// A completion queue with this kind of waiting.
fn open_cq(
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

/// Gives the provider one piece.
fn issue(queue: &Queue, item: &Item, context: *mut Context, more: bool) -> isize {
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
        if item.is_read {
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

impl Device for Domain {
    fn name(&self) -> &str {
        &self.name
    }

    fn traits(&self) -> Traits {
        self.traits
    }

    fn port(&self) -> Vec<u8> {
        [near::process(), self.provider.as_bytes()].concat()
    }

    fn register(&mut self, region: RegionId, memory: &Arc<Memory>) -> Result<(), String> {
        let local = self.info.needs(sys::FI_MR_LOCAL) && !memory.is_empty();
        let mut access = sys::FI_WRITE;
        if memory.access() != memory::Access::ReadOnly {
            access |= sys::FI_READ;
        }
        let place = (memory.as_ptr(), memory.len());
        let mr = local.then(|| self.mr(place, access, None)).transpose()?;
        self.regions.insert(region, Registered { memory: Arc::clone(memory), mr });
        Ok(())
    }

    fn deregister(&mut self, region: RegionId) {
        self.regions.remove(&region);
    }

    fn open(&mut self, channel: ChannelId, port: &[u8]) -> Result<Vec<u8>, String> {
        let (process, provider) = port.split_at_checked(near::PROCESS_BYTES).unwrap_or_default();
        if provider != self.provider.as_bytes() {
            return Err(format!(
                "the peer's rail speaks {}, this one {}; name the same provider on both sides",
                String::from_utf8_lossy(provider),
                self.provider
            ));
        }
        let mut blob = Vec::new();
        let wait = if self.watch.is_some() { sys::FI_WAIT_FD } else { sys::FI_WAIT_NONE };
        let cq = open_cq(&self.roots.domain, wait).map_err(|rc| self.error("fi_cq_open", rc))?;
        let wait = self.watch.as_ref().map(|watch| watch_queue(watch, &cq)).transpose()?;
        let av = self.open_av().map_err(|rc| self.error("fi_av_open", rc))?;
        let mailbox = (self.roots.mailbox.get().cast(), MAILBOX_BYTES);
        let access = sys::FI_REMOTE_WRITE | sys::FI_WRITE;
        let mut lane = || {
            let (ep, name) = self.endpoint(&cq, &av)?;
            let mailbox_mr = self.mr(mailbox, access, Some(&ep))?;
            // SAFETY: the registration is open.
            let key = unsafe { sys::Fabric::mr_key(mailbox_mr.as_ptr()) };
            blob.extend(key.to_le_bytes());
            blob.extend(self.base(mailbox.0).to_le_bytes());
            blob.extend((name.len() as u16).to_le_bytes());
            if self.provider == "shm" {
                near::note(&name);
            }
            blob.extend(name);
            Ok::<_, String>(Queue {
                ep,
                peer: sys::FI_ADDR_UNSPEC,
                flying: 0,
                waiting: VecDeque::new(),
                mailbox: mailbox_mr,
                theirs: (0, 0),
            })
        };
        let lanes = [lane()?, lane()?];
        self.channels.insert(
            channel,
            Channel {
                lanes,
                av,
                cq,
                wait,
                broken: false,
                near: process == near::process(),
                _roots: Rc::clone(&self.roots),
            },
        );
        Ok(blob)
    }

    fn connect(&mut self, channel: ChannelId, theirs: &[u8]) -> Result<(), String> {
        let wrong = || "what the peer says of its endpoints makes no sense".to_owned();
        let mut rest = theirs;
        let mut take = |count: usize| {
            let (head, tail) = rest.split_at_checked(count)?;
            rest = tail;
            Some(head)
        };
        let channel = self.channels.get_mut(&channel).ok_or("no such channel")?;
        for queue in &mut channel.lanes {
            let mut long = || Some(u64::from_le_bytes(take(8)?.try_into().ok()?));
            let (key, base) = (long().ok_or_else(wrong)?, long().ok_or_else(wrong)?);
            let len = take(2).and_then(|it| it.try_into().ok()).map(u16::from_le_bytes);
            // Some providers read past the end of a name that is too short.
            let mut name = [0u8; 2 * NAME_BYTES_MAX];
            let given =
                len.and_then(|len| take(len.into())).filter(|it| it.len() <= NAME_BYTES_MAX);
            let given = given.ok_or_else(wrong)?;
            name[..given.len()].copy_from_slice(given);
            // SAFETY: the table is open, and the name is longer than any address of a provider.
            let count = unsafe {
                let table = channel.av.as_ptr();
                sys::Fabric::av_insert(
                    table,
                    name.as_ptr().cast(),
                    1,
                    &mut queue.peer,
                    0,
                    ptr::null_mut(),
                )
            };
            if count != 1 {
                return Err(format!("fi_av_insert: {}", self.info.error(count)));
            }
            queue.theirs = (key, base);
        }
        Ok(())
    }

    fn destroy(&mut self, id: ChannelId, out: &mut Vec<Completion>) {
        self.read_queue(id);
        if let Some(channel) = self.channels.remove(&id) {
            self.backlog -= channel.lanes.iter().map(|queue| queue.waiting.len()).sum::<usize>();
            if channel.near && self.provider == "shm" {
                near::bury(channel);
            } else {
                // With the descriptor of its queue, which leaves the watch by that.
                drop(channel);
            }
            self.pool.forget(id);
        }
        self.reports.retain(|it| !matches!(it, Completion::Broken(other, _) if *other == id));
        out.append(&mut self.reports);
    }

    fn expose(
        &mut self,
        exposure: ExposureId,
        channel: ChannelId,
        part: &Part,
    ) -> Result<Exposing, String> {
        let region = self.regions.get(&part.region).ok_or("no such region")?;
        let channel = self.channels.get(&channel).ok_or("no such channel")?;
        // SAFETY: the part lies in the region, which was checked when the window was granted.
        let start = unsafe { region.memory.as_ptr().add(part.offset as usize) };
        let mut access = 0;
        if part.access.allows(Access::WRITE) {
            access |= sys::FI_REMOTE_WRITE;
        }
        if part.access.allows(Access::READ) {
            access |= sys::FI_REMOTE_READ;
        }
        let [first, second] = &channel.lanes;
        let place = (start, part.len as usize);
        let one = self.mr(place, access, Some(&first.ep))?;
        let two = match self.info.needs(sys::FI_MR_ENDPOINT) {
            true => Some(self.mr(place, access, Some(&second.ep))?),
            false => None,
        };
        // SAFETY: the registrations are open.
        let key = |mr: &Object<sys::fid_mr>| unsafe { sys::Fabric::mr_key(mr.as_ptr()) };
        let keys =
            Keys { keys: [key(&one), key(two.as_ref().unwrap_or(&one))], base: self.base(start) };
        self.exposures.insert(exposure, [Some(one), two]);
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
        let pieces = self.pieces_max.saturating_sub(queue.flying + queue.waiting.len());
        Room { pieces, immediates: pieces }
    }

    fn write(&mut self, post: &Post<'_>, immediate: Option<Immediate>) {
        self.post(post, false, immediate);
    }

    fn read(&mut self, post: &Post<'_>) {
        self.post(post, true, None);
    }

    fn ring(&mut self) {}

    fn poll(&mut self, out: &mut Vec<Completion>) -> bool {
        let channels: Vec<ChannelId> = self.channels.keys().copied().collect();
        for channel in channels {
            self.read_queue(channel);
            if self.backlog > 0 {
                Lane::ALL.into_iter().for_each(|lane| self.push(channel, lane));
            }
        }
        let any = !self.reports.is_empty();
        out.append(&mut self.reports);
        any
    }

    fn arm(&mut self) -> bool {
        if !self.reports.is_empty() || self.backlog > 0 {
            return false;
        }
        // SAFETY: all of these are open.
        let ready = |it: &Channel| unsafe {
            let mut fids = [it.cq.fid()];
            sys::Fabric::trywait(self.roots.fabric.as_ptr(), fids.as_mut_ptr(), 1) == 0
        };
        self.channels.values().filter(|it| it.wait.is_some()).all(ready)
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(AsFd::as_fd)
    }
}

/// Watches a queue, until it is closed.
fn watch_queue(watch: &OwnedFd, cq: &Object<sys::fid_cq>) -> Result<RawFd, String> {
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
        .map_err(|error| format!("epoll: {error}"))?;
    Ok(fd)
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
