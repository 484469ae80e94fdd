//! Two endpoints in one process write and read each other's memory, over the providers that need no device.

use std::ffi::{CString, c_void};
use std::io::{self, Write};
use std::mem;
use std::ptr;
use std::time::{Duration, Instant};

use tranship_ofi_sys::providers::{MODE, MR_MODE};
use tranship_ofi_sys::*;

const BYTES: usize = 1 << 20;
const IMMEDIATE: u64 = 0x00c0_ffee;
const DEADLINE: Duration = Duration::from_secs(30);

#[test]
fn tcp() {
    round_trip("tcp;ofi_rxm");
}

#[test]
fn shared_memory() {
    round_trip("shm");
}

fn round_trip(provider: &str) {
    let fabric = match Fabric::load() {
        Ok(fabric) => fabric,
        Err(error) if error.is_absent() => {
            let _ = writeln!(io::stderr(), "skipped: {error} (scripts/rdma-libs installs it)");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    // SAFETY: everything that is opened is closed in the opposite order at the end, and buffers outlive regions.
    unsafe {
        let info = describe(&fabric, provider);
        let (mut net, mut domain) = (ptr::null_mut(), ptr::null_mut());
        check(&fabric, fabric.fi_fabric((*info).fabric_attr, &raw mut net, ptr::null_mut()));
        check(&fabric, Fabric::domain(net, info, &raw mut domain, ptr::null_mut()));
        let mut here = End::open(&fabric, domain, info, 1);
        let mut there = End::open(&fabric, domain, info, 2);
        here.bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte = pattern(at));

        let to = here.introduce(&fabric, &there);
        let _ = there.introduce(&fabric, &here);
        write(&fabric, &mut here, &mut there, to);
        assert_eq!(there.immediate, Some(IMMEDIATE), "{provider}");
        assert!(
            there.bytes.iter().enumerate().all(|(at, &byte)| byte == pattern(at)),
            "{provider}"
        );

        there.bytes.fill(0x5a);
        read(&fabric, &mut here, &mut there, to);
        assert!(here.bytes.iter().all(|&byte| byte == 0x5a), "{provider}");

        there.close(&fabric);
        here.close(&fabric);
        check(&fabric, Fabric::close(&raw mut (*domain).fid));
        check(&fabric, Fabric::close(&raw mut (*net).fid));
        fabric.fi_freeinfo(info);
    }
}

fn pattern(at: usize) -> u8 {
    (at % 251) as u8
}

fn check(fabric: &Fabric, answer: i32) {
    assert!(answer >= 0, "{:?}", fabric.error(answer));
}

/// # Safety
/// None beyond that the answer is to be freed.
unsafe fn describe(fabric: &Fabric, provider: &str) -> *mut fi_info {
    let name = CString::new(provider).expect("a name has no zero");
    // SAFETY: a new entry has all its parts, and frees its name by free().
    unsafe {
        let hints = fabric.allocinfo();
        assert!(!hints.is_null());
        (*hints).caps = FI_MSG | FI_RMA;
        (*hints).mode = MODE;
        (*(*hints).ep_attr).type_ = FI_EP_RDM;
        (*(*hints).domain_attr).mr_mode = MR_MODE;
        (*(*hints).fabric_attr).prov_name = libc::strdup(name.as_ptr());
        let mut info = ptr::null_mut();
        let version = fabric.api_version();
        let answer = fabric.fi_getinfo(version, ptr::null(), ptr::null(), 0, hints, &raw mut info);
        fabric.fi_freeinfo(hints);
        assert_eq!(answer, 0, "{provider}: {:?}", fabric.error(answer));
        info
    }
}

/// One side: an endpoint with its queue, its table of addresses, and a region.
struct End {
    ep: *mut fid_ep,
    cq: *mut fid_cq,
    av: *mut fid_av,
    mr: *mut fid_mr,
    bytes: Vec<u8>,
    /// What peers call the region's first byte.
    base: u64,
    /// Where an operation's context points; a provider may use it as long as that runs.
    context: Box<fi_context2>,
    completed: u64,
    immediate: Option<u64>,
}

impl End {
    /// # Safety
    /// The domain exists and was opened with `info`.
    unsafe fn open(fabric: &Fabric, domain: *mut fid_domain, info: *mut fi_info, key: u64) -> Self {
        let mut bytes = vec![0; BYTES];
        // SAFETY: attributes may be zero, and the places can be written.
        unsafe {
            let (mut ep, mut cq, mut av, mut mr) =
                (ptr::null_mut(), ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
            let mut queue: fi_cq_attr = mem::zeroed();
            queue.format = FI_CQ_FORMAT_DATA;
            queue.wait_obj = FI_WAIT_NONE;
            let mut table: fi_av_attr = mem::zeroed();
            table.type_ = (*(*info).domain_attr).av_type;
            let none = ptr::null_mut();
            check(fabric, Fabric::cq_open(domain, &raw mut queue, &raw mut cq, none));
            check(fabric, Fabric::av_open(domain, &raw mut table, &raw mut av, none));
            check(fabric, Fabric::endpoint(domain, info, &raw mut ep, none));
            let both = FI_TRANSMIT | FI_RECV;
            check(fabric, Fabric::ep_bind(ep, &raw mut (*cq).fid, both));
            check(fabric, Fabric::ep_bind(ep, &raw mut (*av).fid, 0));
            check(fabric, Fabric::enable(ep));
            let address: *mut u8 = bytes.as_mut_ptr();
            let access = FI_READ | FI_WRITE | FI_REMOTE_READ | FI_REMOTE_WRITE;
            let start = address.cast();
            check(
                fabric,
                Fabric::mr_reg(domain, start, BYTES, access, 0, key, 0, &raw mut mr, none),
            );
            let mode = (*(*info).domain_attr).mr_mode;
            if mode & FI_MR_ENDPOINT != 0 {
                check(fabric, Fabric::mr_bind(mr, &raw mut (*ep).fid, 0));
                check(fabric, Fabric::mr_enable(mr));
            }
            let base = if mode & FI_MR_VIRT_ADDR != 0 { address.addr() as u64 } else { 0 };
            let context = Box::new(mem::zeroed());
            Self { ep, cq, av, mr, bytes, base, context, completed: 0, immediate: None }
        }
    }

    /// Tells this side where the other is.
    ///
    /// # Safety
    /// Both are open.
    unsafe fn introduce(&self, fabric: &Fabric, other: &Self) -> fi_addr_t {
        let (mut name, mut peer) = ([0u8; 256], FI_ADDR_UNSPEC);
        let mut length = name.len();
        // SAFETY: the name has room for so much.
        unsafe {
            check(fabric, Fabric::getname(other.ep, name.as_mut_ptr().cast(), &raw mut length));
            let one = Fabric::av_insert(
                self.av,
                name.as_ptr().cast(),
                1,
                &raw mut peer,
                0,
                ptr::null_mut(),
            );
            assert_eq!(one, 1, "{:?}", fabric.error(one));
        }
        peer
    }

    /// Takes what has completed.
    ///
    /// # Safety
    /// The endpoint is open.
    unsafe fn poll(&mut self, fabric: &Fabric) {
        // SAFETY: there is room for one entry of the queue's format, and for one error.
        unsafe {
            let mut entry: fi_cq_data_entry = mem::zeroed();
            let answer = Fabric::cq_read(self.cq, (&raw mut entry).cast(), 1);
            match i32::try_from(answer).expect("a small number") {
                1 if entry.flags & FI_REMOTE_CQ_DATA != 0 => self.immediate = Some(entry.data),
                1 => {
                    let context: *mut c_void = (&raw mut *self.context).cast();
                    assert_eq!(entry.op_context, context);
                    self.completed += 1;
                }
                answer if answer == -FI_EAGAIN => {}
                answer if answer == -FI_EAVAIL => {
                    let mut error: fi_cq_err_entry = mem::zeroed();
                    Fabric::cq_readerr(self.cq, &raw mut error, 0);
                    panic!("{:?}", fabric.error(error.err));
                }
                answer => panic!("{:?}", fabric.error(answer)),
            }
        }
    }

    /// # Safety
    /// It is open, and nothing of it is used again.
    unsafe fn close(self, fabric: &Fabric) {
        // SAFETY: the caller's promise; the memory is freed afterwards.
        unsafe {
            check(fabric, Fabric::close(&raw mut (*self.mr).fid));
            check(fabric, Fabric::close(&raw mut (*self.ep).fid));
            check(fabric, Fabric::close(&raw mut (*self.av).fid));
            check(fabric, Fabric::close(&raw mut (*self.cq).fid));
        }
    }
}

/// Posts the operation and drives both sides until it has ended and `end` holds.
///
/// # Safety
/// Both are open; `post` posts one operation of `here`.
unsafe fn drive(
    fabric: &Fabric,
    here: &mut End,
    there: &mut End,
    post: impl Fn(&mut End) -> isize,
    end: impl Fn(&End) -> bool,
) {
    let until = Instant::now() + DEADLINE;
    let before = here.completed;
    let mut posted = false;
    while here.completed == before || !end(there) {
        if !posted {
            // A provider that is still connecting asks to be called again.
            let answer = i32::try_from(post(here)).expect("a small number");
            assert!(answer == 0 || answer == -FI_EAGAIN, "{:?}", fabric.error(answer));
            posted = answer == 0;
        }
        // SAFETY: both are open.
        unsafe {
            here.poll(fabric);
            there.poll(fabric);
        }
        assert!(Instant::now() < until, "nothing after {DEADLINE:?}");
        std::thread::yield_now();
    }
}

/// # Safety
/// Both are open, and `to` is what `here` calls `there`.
unsafe fn write(fabric: &Fabric, here: &mut End, there: &mut End, to: fi_addr_t) {
    // SAFETY: the lists live as long as the call, and regions until the operation has ended.
    let post = |from: &mut End, remote: fi_rma_iov| unsafe {
        message(from, to, remote, |message| {
            (*message).data = IMMEDIATE;
            Fabric::writemsg(from.ep, message, FI_REMOTE_CQ_DATA | FI_DELIVERY_COMPLETE)
        })
    };
    let remote = remote(there);
    // SAFETY: both are open.
    unsafe { drive(fabric, here, there, |from| post(from, remote), |to| to.immediate.is_some()) };
}

/// # Safety
/// As `write`.
unsafe fn read(fabric: &Fabric, here: &mut End, there: &mut End, from: fi_addr_t) {
    // SAFETY: as in `write`.
    let post = |to: &mut End, remote: fi_rma_iov| unsafe {
        message(to, from, remote, |message| Fabric::readmsg(to.ep, message, FI_COMPLETION))
    };
    let remote = remote(there);
    // SAFETY: both are open.
    unsafe { drive(fabric, here, there, |to| post(to, remote), |_| true) };
}

fn remote(end: &End) -> fi_rma_iov {
    // SAFETY: the region exists.
    fi_rma_iov { addr: end.base, len: BYTES, key: unsafe { Fabric::mr_key(end.mr) } }
}

/// All of `local`'s region and all of `remote`, as a message.
///
/// # Safety
/// `local` is open.
unsafe fn message(
    local: &End,
    peer: fi_addr_t,
    remote: fi_rma_iov,
    post: impl FnOnce(*mut fi_msg_rma) -> isize,
) -> isize {
    let list = libc::iovec { iov_base: local.bytes.as_ptr().cast_mut().cast(), iov_len: BYTES };
    // SAFETY: the region exists.
    let mut desc = unsafe { Fabric::mr_desc(local.mr) };
    let mut message = fi_msg_rma {
        msg_iov: &raw const list,
        desc: &raw mut desc,
        iov_count: 1,
        addr: peer,
        rma_iov: &raw const remote,
        rma_iov_count: 1,
        context: ptr::from_ref(&*local.context).cast_mut().cast(),
        data: 0,
    };
    post(&raw mut message)
}
