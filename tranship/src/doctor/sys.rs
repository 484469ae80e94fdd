//! The few probes that need a raw call.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char};
use std::net::Ipv4Addr;

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
