//! The few probes that need a raw call.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_void};
use std::net::Ipv4Addr;

/// A shared library. It stays loaded until the process ends: drivers start threads and register exit
/// handlers, and unloading them is where they crash.
struct Library(*mut c_void);

impl Library {
    fn open(name: &CStr) -> Option<Self> {
        // SAFETY: the name is a C string. Loading runs the library's initialisers; the ones asked
        // for here are system libraries that are made to be loaded by any program.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL) };
        if handle.is_null() { None } else { Some(Self(handle)) }
    }

    fn symbol(&self, name: &CStr) -> Option<*mut c_void> {
        // SAFETY: the handle is never closed and the name is a C string.
        let symbol = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        (!symbol.is_null()).then_some(symbol)
    }
}

/// Whether the dynamic linker finds a library.
pub(super) fn library_loads(name: &CStr) -> bool {
    Library::open(name).is_some()
}

/// Major and minor version of libfabric, from fi_version(3).
pub(super) fn libfabric_version() -> Option<(u32, u32)> {
    let library = Library::open(c"libfabric.so.1")?;
    let symbol = library.symbol(c"fi_version")?;
    // SAFETY: `uint32_t fi_version(void)` is the documented signature.
    let version: extern "C" fn() -> u32 = unsafe { std::mem::transmute(symbol) };
    let version = version();
    Some((version >> 16, version & 0xffff))
}

/// Interfaces that are up, with their first IPv4 address: getifaddrs(3).
pub(super) fn interfaces() -> BTreeMap<String, Ipv4Addr> {
    let mut found = BTreeMap::new();
    let mut list = std::ptr::null_mut();
    // SAFETY: `list` is a valid place for the result.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return found;
    }
    let mut next = list;
    // SAFETY: the list is valid until freeifaddrs; each entry is null or points to the next.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next;
        let up = entry.ifa_flags & libc::IFF_UP.cast_unsigned() != 0;
        // SAFETY: the address is null or points to a sockaddr of the entry.
        let family = unsafe { entry.ifa_addr.as_ref() }.map(|address| address.sa_family);
        if !up || family != Some(libc::AF_INET as libc::sa_family_t) {
            continue;
        }
        // SAFETY: an address of the family AF_INET is a sockaddr_in.
        let address = unsafe { entry.ifa_addr.cast::<libc::sockaddr_in>().read_unaligned() };
        let name: *const c_char = entry.ifa_name;
        // SAFETY: the name is a C string of the entry.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
        found.entry(name).or_insert(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)));
    }
    // SAFETY: the list came from getifaddrs and is freed once; nothing borrowed remains.
    unsafe { libc::freeifaddrs(list) };
    found
}
