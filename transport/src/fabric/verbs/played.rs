//! A driver that takes dma-bufs, played for tests: Soft-RoCE, which there is without hardware, takes none.

use std::io;

use tranship_verbs_sys as sys;

use super::domain::Domain;

/// What the kernel lets peers and this side do with a dma-buf (`uverbs_std_types_mr.c`).
const ACCESS: u32 = sys::IBV_ACCESS_LOCAL_WRITE
    | sys::IBV_ACCESS_REMOTE_READ
    | sys::IBV_ACCESS_REMOTE_WRITE
    | sys::IBV_ACCESS_REMOTE_ATOMIC
    | sys::IBV_ACCESS_RELAXED_ORDERING;

/// As `ibv_reg_dmabuf_mr` does, of memory that is this process's by the same address.
///
/// # Safety
/// The bytes are this process's, and outlive the registration.
pub(super) unsafe fn reg_dmabuf_mr(
    domain: &Domain,
    offset: u64,
    (start, len): (*mut u8, usize),
    access: u32,
) -> io::Result<*mut sys::ibv_mr> {
    let page = rustix::param::page_size() as u64;
    if access & !ACCESS != 0 || offset % page != start as u64 % page {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: the domain exists, and the caller's promise.
    let mr = unsafe { domain.verbs.reg_mr(domain.pd.as_ptr(), start.cast(), len, access) };
    if mr.is_null() { Err(io::Error::last_os_error()) } else { Ok(mr) }
}
