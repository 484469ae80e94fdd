//! Binding a mapping to a NUMA node: mbind(2), which libc wraps only in libnuma.

use std::fs;
use std::io;

use super::backing::HUGE_PAGE_BYTES;
use super::error::MemoryError;

const NODES_MAX: usize = 1024;
const NODES: &str = "/sys/devices/system/node";

/// Binds untouched pages at `base` to `node`. For shared memory the policy belongs to the memfd,
/// so it holds for every process that maps it.
pub(super) fn bind(base: *mut u8, len: usize, node: u32) -> Result<(), MemoryError> {
    check_online(node)?;
    let mut mask = [0u64; NODES_MAX / 64];
    mask[node as usize / 64] = 1 << (node % 64);
    // SAFETY: mbind reads `mask` (the kernel takes one bit less than `maxnode`) and changes only
    // the placement of the pages, never their contents.
    let status = unsafe {
        libc::syscall(libc::SYS_mbind, base, len, libc::MPOL_BIND, mask.as_ptr(), NODES_MAX + 1, 0)
    };
    match status {
        0 => Ok(()),
        _ => Err(MemoryError::NotBound { node, source: io::Error::last_os_error() }),
    }
}

/// Free pages of the huge page pool on one node; 0 if it cannot be told.
pub(super) fn pool_free_pages(node: u32) -> u64 {
    let kib = HUGE_PAGE_BYTES >> 10;
    let file = format!("{NODES}/node{node}/hugepages/hugepages-{kib}kB/free_hugepages");
    fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Refuses a node that is not online. A kernel that does not list nodes is left to answer itself.
pub(super) fn check_online(node: u32) -> Result<(), MemoryError> {
    let Ok(online) = fs::read_to_string(format!("{NODES}/online")) else { return Ok(()) };
    let online = online.trim();
    if (node as usize) < NODES_MAX && list_contains(online, node) {
        return Ok(());
    }
    Err(MemoryError::NoSuchNode { node, online: online.to_owned() })
}

/// Whether a kernel list such as `0-3,8` contains `node`.
fn list_contains(list: &str, node: u32) -> bool {
    list.split(',').any(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (first.parse::<u32>(), last.parse::<u32>()) {
            (Ok(first), Ok(last)) => (first..=last).contains(&node),
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_lists_are_understood() {
        for (node, listed) in [(0, true), (3, true), (4, false), (8, true), (9, false)] {
            assert_eq!(list_contains("0-3,8", node), listed, "node {node}");
        }
        assert!(!list_contains("", 0));
    }
}
