use std::io::{self, Write};
use std::mem::{self, MaybeUninit, offset_of};
use std::ptr;

use libc::c_int;

use super::devices::Presence;
use super::gids::kind_in;
use super::inline::extended;
use super::memory::OPTIONAL;
use super::port::{Port, mbps, mtu_bytes};
use super::*;

/// The library, where it is installed.
fn library() -> Option<Verbs> {
    match Verbs::load() {
        Ok(verbs) => Some(verbs),
        Err(error) if error.is_absent() => {
            let _ = writeln!(io::stderr(), "skipped: {error} (scripts/rdma-libs installs it)");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn the_library_loads_and_speaks() {
    let Some(verbs) = library() else { return };
    assert_eq!(verbs.wc_status(IBV_WC_SUCCESS), c"success");
    assert_eq!(verbs.wc_status(IBV_WC_REM_ACCESS_ERR), c"remote access error");
    assert!(!verbs.event_type(IBV_EVENT_PORT_ERR).is_empty());
    let listed = verbs.devices().map(|devices| devices.len());
    let presence = Presence::judge(Ok(listed));
    assert!(!matches!(presence, Presence::NotInstalled(_) | Presence::Unusable(_)), "{presence}");
    assert_eq!(presence.remedy().is_none(), matches!(presence, Presence::Devices(_)), "{presence}");
}

#[test]
fn symbols_are_those_of_the_extended_interface() {
    let Some(verbs) = library() else { return };
    let name = std::ffi::CString::new(LIBRARY).expect("it has no zero");
    // SAFETY: the library is loaded already, and the names are C strings.
    let of_1_1 = unsafe {
        let handle = libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
        libc::dlvsym(handle, c"ibv_get_device_list".as_ptr(), c"IBVERBS_1.1".as_ptr())
    };
    let ours = verbs.ibv_get_device_list.as_ref().map(|&entry| entry as usize);
    assert_eq!(ours.ok(), Some(of_1_1.addr()), "IBVERBS_1.0 has other structures");
}

#[test]
fn each_kind_of_failure_has_its_own_error() {
    let missing =
        Verbs::load_from(Path::new("/nowhere/libibverbs.so.1")).expect_err("no such file");
    assert!(missing.is_absent(), "{missing:?}");
    assert!(missing.to_string().contains("install libibverbs1 and ibverbs-providers"), "{missing}");
    let words = Verbs::load_from(Path::new("/etc/passwd")).expect_err("it has words in it");
    assert!(matches!(words, LoadError::Unusable { .. }), "{words:?}");
    let other = Verbs::load_from(Path::new("libm.so.6")).expect_err("it has no verbs");
    assert!(
        matches!(other, LoadError::SymbolMissing { symbol: "ibv_get_device_list", .. }),
        "{other:?}"
    );
    let states = [&missing, &words, &other].map(|error| Presence::judge(Err(error)));
    assert!(matches!(states[0], Presence::NotInstalled(_)));
    assert!(states[1..].iter().all(|state| matches!(state, Presence::Unusable(_))));
}

#[test]
fn why_there_is_no_device_is_kept_apart() {
    let judge = |answer| Presence::judge(Ok(answer));
    assert_eq!(judge(Err(libc::ENOSYS)), Presence::NoKernelSupport);
    assert_eq!(judge(Err(libc::EACCES)), Presence::Failed(libc::EACCES));
    assert_eq!(judge(Ok(0)), Presence::NoDevice);
    assert_eq!(judge(Ok(2)), Presence::Devices(2));
    assert_eq!(judge(Err(libc::ENOSYS)).to_string(), "no RDMA kernel support");
    assert!(judge(Err(libc::ENOSYS)).remedy().is_some_and(|remedy| remedy.contains("ib_uverbs")));
    assert!(judge(Ok(0)).remedy().is_some_and(|remedy| !remedy.contains("ib_uverbs")));
    assert_eq!(judge(Ok(2)).remedy(), None);
}

/// A device whose entries say that they were called.
fn device() -> Box<verbs_context> {
    unsafe extern "C" fn post_send(
        _: *mut ibv_qp,
        first: *mut ibv_send_wr,
        bad: *mut *mut ibv_send_wr,
    ) -> c_int {
        // SAFETY: the test passes a place for it.
        unsafe { *bad = first };
        71
    }
    unsafe extern "C" fn poll_cq(_: *mut ibv_cq, count: c_int, into: *mut ibv_wc) -> c_int {
        // SAFETY: the test has room for one.
        unsafe { (*into).wr_id = 72 };
        count
    }
    unsafe extern "C" fn req_notify_cq(_: *mut ibv_cq, solicited_only: c_int) -> c_int {
        73 + solicited_only
    }
    unsafe extern "C" fn post_srq_recv(
        _: *mut ibv_srq,
        _: *mut ibv_recv_wr,
        _: *mut *mut ibv_recv_wr,
    ) -> c_int {
        75
    }
    unsafe extern "C" fn bind_mw(_: *mut ibv_qp, _: *mut ibv_mw, _: *mut ibv_mw_bind) -> c_int {
        76
    }
    // SAFETY: all its fields are numbers, pointers and optional functions, which may be zero.
    let mut device: Box<verbs_context> = Box::new(unsafe { mem::zeroed() });
    device.context.ops.post_send = Some(post_send);
    device.context.ops.poll_cq = Some(poll_cq);
    device.context.ops.req_notify_cq = Some(req_notify_cq);
    device.context.ops.post_srq_recv = Some(post_srq_recv);
    device.context.ops.bind_mw = Some(bind_mw);
    device
}

#[test]
fn inline_verbs_call_the_table_of_the_device() {
    let mut device = device();
    let context = &raw mut device.context;
    // SAFETY: the entries of the table look at nothing but what is passed here, and zeroes are valid for all.
    unsafe {
        let (mut qp, mut cq, mut srq): (ibv_qp, ibv_cq, ibv_srq) = mem::zeroed();
        (qp.context, cq.context, srq.context) = (context, context, context);
        let mut request: ibv_send_wr = mem::zeroed();
        let mut bad = ptr::null_mut();
        assert_eq!(Verbs::post_send(&raw mut qp, &raw mut request, &raw mut bad), 71);
        assert_eq!(bad, &raw mut request);
        let mut completion = MaybeUninit::<ibv_wc>::zeroed();
        assert_eq!(Verbs::poll_cq(&raw mut cq, 1, completion.as_mut_ptr()), 1);
        assert_eq!(completion.assume_init().wr_id, 72);
        assert_eq!(Verbs::req_notify_cq(&raw mut cq, false), 73);
        assert_eq!(Verbs::req_notify_cq(&raw mut cq, true), 74);
        assert_eq!(Verbs::post_srq_recv(&raw mut srq, ptr::null_mut(), ptr::null_mut()), 75);
        // What the provider lacks is an error, and no jump to nowhere.
        let nothing = Verbs::post_recv(&raw mut qp, ptr::null_mut(), ptr::null_mut());
        assert_eq!(nothing, libc::EOPNOTSUPP);
        let mut pd: ibv_pd = mem::zeroed();
        pd.context = context;
        assert!(Verbs::alloc_mw(&raw mut pd, IBV_MW_TYPE_2).is_null());
        assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::EOPNOTSUPP));
    }
}

#[test]
fn windows_are_checked_as_the_header_does() {
    let mut device = device();
    // SAFETY: the entries of the table look at nothing, and zeroes are valid for all.
    unsafe {
        let (mut qp, mut mw, mut mr): (ibv_qp, ibv_mw, ibv_mr) = mem::zeroed();
        let (mut pd, mut bind): (ibv_pd, ibv_mw_bind) = mem::zeroed();
        (mw.context, mw.type_) = (&raw mut device.context, IBV_MW_TYPE_2);
        let mut judge =
            |mw: &mut ibv_mw, bind: &mut ibv_mw_bind| Verbs::bind_mw(&raw mut qp, mw, bind);
        assert_eq!(judge(&mut mw, &mut bind), libc::EINVAL, "type 2 is bound by a request");
        mw.type_ = IBV_MW_TYPE_1;
        bind.bind_info.length = 1;
        assert_eq!(judge(&mut mw, &mut bind), libc::EINVAL, "a length of no region");
        mr.pd = &raw mut pd;
        bind.bind_info.mr = &raw mut mr;
        assert_eq!(judge(&mut mw, &mut bind), libc::EPERM, "a region of another domain");
        mw.pd = &raw mut pd;
        assert_eq!(judge(&mut mw, &mut bind), 76);
    }
}

#[test]
fn a_device_says_how_much_of_its_table_there_is() {
    let mut device = device();
    let offset = offset_of!(verbs_context, query_port);
    let around = &raw mut *device;
    // SAFETY: the context is inside of a `verbs_context`.
    let ask = |abi: usize, size: usize| unsafe {
        (*around).context.abi_compat = ptr::without_provenance_mut(abi);
        (*around).sz = size;
        extended(&raw mut (*around).context, offset)
    };
    assert_eq!(ask(0, size_of::<verbs_context>()), None, "a provider from before there was one");
    let needed = size_of::<verbs_context>() - offset;
    assert_eq!(ask(usize::MAX, needed - 1), None, "too old for the entry");
    assert_eq!(ask(usize::MAX, needed), Some(around));
}

#[test]
fn codes_of_the_specification() {
    assert_eq!(
        (Verbs::inc_rkey(0x1234_56ff), Verbs::inc_rkey(0x1234_5601)),
        (0x1234_5600, 0x1234_5602)
    );
    assert_eq!(OPTIONAL, 0x3ff0_0000);
    assert_eq!(OPTIONAL & IBV_ACCESS_RELAXED_ORDERING, IBV_ACCESS_RELAXED_ORDERING);
    assert_eq!([1, 3, 5].map(mtu_bytes), [256, 1024, 4096]);
    assert_eq!(mtu_bytes(9), 0);
    assert_eq!(mbps(2, 128), 400_000, "four lanes of NDR");
    assert_eq!(mbps(2, 32), 100_000, "four lanes of EDR");
    assert_eq!(mbps(3, 32), 0, "no width has that code");
    assert_eq!(kind_in("IB/RoCE v1\n", true), Some(GidType::RoceV1));
    assert_eq!(kind_in("IB/RoCE v1\n", false), Some(GidType::Ib));
    assert_eq!(kind_in("RoCE v2\n", true), Some(GidType::RoceV2));
    assert_eq!(kind_in("", true), None);
}

#[test]
fn ports_and_addresses_are_written_for_people() {
    let mut raw = [0; 16];
    raw[10..].copy_from_slice(&[0xff, 0xff, 10, 0, 0, 7]);
    let gid = Gid { index: 3, kind: GidType::RoceV2, raw };
    assert_eq!(gid.to_string(), "3 RoCE v2 10.0.0.7");
    let mut port = Port {
        number: 1,
        state: IBV_PORT_ACTIVE,
        link_layer: 2,
        mbps: 400_000,
        mtu_bytes: 4096,
        lid: 0,
        gids: vec![gid],
    };
    assert_eq!(port.to_string(), "port 1 Ethernet, 400 Gbit/s, MTU 4096");
    assert_eq!((port.is_active(), port.remedy()), (true, None));
    port.state = IBV_PORT_INIT;
    assert!(!port.is_active() && port.remedy().is_some_and(|remedy| remedy.contains("opensm")));
    port.state = IBV_PORT_DOWN;
    assert_eq!(port.state_name(), "down");
}
