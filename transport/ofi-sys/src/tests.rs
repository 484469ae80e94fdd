use super::*;

use std::io::{self, Write};

/// The library, where it is installed.
fn library() -> Option<Fabric> {
    match Fabric::load() {
        Ok(fabric) => Some(fabric),
        Err(error) if error.is_absent() => {
            let _ = writeln!(io::stderr(), "skipped: {error} (scripts/rdma-libs installs it)");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn the_library_loads_and_speaks() {
    let Some(fabric) = library() else { return };
    assert!(fabric.version() >= API_OLDEST);
    assert!((API_OLDEST..=API_NEWEST).contains(&fabric.api_version()));
    assert_eq!(fabric.error(FI_EAGAIN), fabric.error(-FI_EAGAIN));
    assert_eq!(fabric.error(FI_EAVAIL), c"Error available");
}

#[test]
fn each_kind_of_failure_has_its_own_error() {
    let missing =
        Fabric::load_from(Path::new("/nowhere/libfabric.so.1")).expect_err("no such file");
    assert!(missing.is_absent(), "{missing:?}");
    assert!(missing.to_string().contains("install libfabric1"), "{missing}");
    let words = Fabric::load_from(Path::new("/etc/passwd")).expect_err("it has words in it");
    assert!(matches!(words, LoadError::Unusable { .. }), "{words:?}");
    let other = Fabric::load_from(Path::new("libm.so.6")).expect_err("it has no fabrics");
    assert!(matches!(other, LoadError::SymbolMissing { symbol: "fi_getinfo", .. }), "{other:?}");
}

#[test]
fn versions_and_macros_are_those_of_the_headers() {
    assert_eq!(FI_VERSION(FI_MAJOR_VERSION, FI_MINOR_VERSION), API_NEWEST);
    assert_eq!((API_NEWEST, release(API_NEWEST).as_str()), (0x0001_0011, "1.17"));
    assert_eq!((FI_EAGAIN, FI_EAVAIL, FI_ENODATA), (libc::EAGAIN, 259, libc::ENODATA));
    assert_eq!((FI_RMA, FI_REMOTE_CQ_DATA, FI_DELIVERY_COMPLETE), (1 << 2, 1 << 17, 1 << 28));
    assert_eq!((FI_MR_VIRT_ADDR, FI_MR_PROV_KEY), (1 << 4, 1 << 6));
    assert_eq!((FI_CONTEXT, FI_ORDER_RMA_WAW), (1 << 59, 1 << 35));
}

#[test]
fn an_entry_that_a_provider_lacks_is_an_error() {
    // SAFETY: the objects have their tables, and none of those has an entry that could look at the rest.
    unsafe {
        let mut ops: fi_ops_rma = std::mem::zeroed();
        let mut ep: fid_ep = std::mem::zeroed();
        ep.rma = &raw mut ops;
        let answer = Fabric::writemsg(&raw mut ep, std::ptr::null(), 0);
        assert_eq!(answer, -(FI_ENOSYS as isize));
    }
}

#[test]
fn providers_are_listed_with_what_they_carry() {
    let Some(fabric) = library() else { return };
    let providers = fabric.providers().unwrap_or_else(|error| panic!("{:?}", fabric.error(error)));
    let tcp = providers.iter().find(|provider| provider.name == "tcp;ofi_rxm");
    let tcp = tcp.unwrap_or_else(|| panic!("libfabric has it built in: {providers:?}"));
    assert!(tcp.immediate_bytes >= 4, "{tcp:?}");
    assert_eq!(tcp.mr_mode & !providers::MR_MODE, 0, "{tcp:?}");
}

#[test]
fn loading_leaves_signals_to_the_process() {
    let Some(fabric) = library() else { return };
    // Libraries that come with it have been loaded, and providers are looked for now.
    fabric.providers().unwrap();
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let action = crate::signals::action(signal).unwrap();
        // Ignored it may be from the start: shells start so what runs in the background.
        let is_nobodys = [libc::SIG_DFL, libc::SIG_IGN].contains(&action.sa_sigaction);
        assert!(is_nobodys, "somebody handles signal {signal}");
    }
}
