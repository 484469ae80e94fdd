//! Memory of this side, and its registrations: of this process's own memory, which is pinned by that, and of
//! devices' by their dma-bufs, where the driver of either device sees to it that the bytes stay.

use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;

use rustix::process::{Resource, getrlimit};
use tranship_verbs_sys as sys;

use super::domain::{Domain, Object};
use super::port::Port;
use crate::fabric::RegionId;
use crate::memory::Memory;

/// Memory of this side.
pub(super) struct Registered {
    pub(super) memory: Arc<Memory>,
    pub(super) mr: Option<Rc<Registration>>,
    pub(super) key: u32,
}

/// A registration, which the regions that lie in its own share.
pub(super) struct Registration {
    /// Before the memory that it covers.
    pub(super) mr: Object<sys::ibv_mr>,
    pub(super) class: Class,
    /// Stays as long as anybody uses the registration.
    _memory: Arc<Memory>,
}

/// Regions that can share a registration: what the hardware may do with them, and where their addresses count.
pub(super) type Class = (u32, Space);

/// What addresses mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Space {
    /// This process's memory.
    Host,
    /// A dma-buf, by its number in its file system, and the address of its first byte.
    DmaBuf { file_system: u64, number: u64, start: u64 },
}

impl Space {
    fn of(memory: &Memory) -> io::Result<Self> {
        let Some((dma_buf, offset)) = memory.dma_buf() else { return Ok(Self::Host) };
        let file = rustix::fs::fstat(dma_buf)?;
        // Two descriptors of one buffer are one space, but not if its bytes go by two addresses.
        let start = (memory.address() as u64).wrapping_sub(offset);
        Ok(Self::DmaBuf { file_system: file.st_dev, number: file.st_ino, start })
    }
}

impl Port {
    /// A registration of this memory, which is not empty: one that is there and covers it, or a new
    /// one.
    pub(super) fn registration(
        &mut self,
        region: RegionId,
        memory: &Arc<Memory>,
        access: u32,
    ) -> io::Result<Rc<Registration>> {
        let (range, class) = (range(memory), (access, Space::of(memory)?));
        if let Some((_, it)) = self.covers.get(&class).and_then(|cover| cover.find(&range)) {
            return Ok(Rc::clone(it));
        }
        // SAFETY: the memory is kept as long as the registration.
        let mr = unsafe { register(&self.domain, memory, 0..memory.len(), access) }?;
        let it = Rc::new(Registration { mr, class, _memory: Arc::clone(memory) });
        self.covers.entry(class).or_default().insert(range, (region, Rc::clone(&it)));
        Ok(it)
    }

    /// Forgets a region. Its memory may be another's soon, at the same address: nobody new shares its
    /// registration from now on.
    pub(super) fn forget(&mut self, region: RegionId) {
        let Some(Registered { memory, mr: Some(it), .. }) = self.regions.remove(&region) else {
            return;
        };
        if let Some(cover) = self.covers.get_mut(&it.class) {
            cover.remove(range(&memory).start, |(owner, _)| *owner == region);
            if cover.is_empty() {
                self.covers.remove(&it.class);
            }
        }
    }
}

/// Registers a part of a memory.
///
/// # Safety
/// The memory outlives the registration.
pub(super) unsafe fn register(
    domain: &Arc<Domain>,
    memory: &Memory,
    part: Range<usize>,
    access: u32,
) -> io::Result<Object<sys::ibv_mr>> {
    let (pd, start, len) =
        (domain.pd.as_ptr(), memory.address().wrapping_add(part.start), part.len());
    let mr = match memory.dma_buf() {
        // SAFETY: the domain exists, and the caller keeps the memory, which has these bytes.
        None => unsafe { domain.verbs.reg_mr(pd, start.cast(), len, access) },
        Some((dma_buf, offset)) => {
            let (offset, fd) = (offset.wrapping_add(part.start as u64), dma_buf.as_raw_fd());
            #[cfg(feature = "conformance")]
            if domain.plays_dma_bufs {
                // SAFETY: whoever wants it played vouches for that, and the caller keeps the memory.
                let mr =
                    unsafe { super::played::reg_dmabuf_mr(domain, offset, (start, len), access) };
                return Object::new(domain, mr?);
            }
            // SAFETY: as above; and the bytes are there for other devices.
            unsafe { domain.verbs.reg_dmabuf_mr(pd, offset, len, start as u64, fd, access) }
        }
    };
    Object::new(domain, mr)
}

/// Where memory is.
fn range(memory: &Memory) -> Range<usize> {
    let start = memory.address() as usize;
    start..start.saturating_add(memory.len())
}

/// Refuses a device's memory that no driver can register, which the kernel would call an invalid argument.
pub(super) fn check(memory: &Memory) -> Result<(), String> {
    /// `DMA_BUF_MAGIC` of `linux/magic.h`.
    const DMA_BUF: u64 = 0x444d_4142;
    let Some((dma_buf, offset)) = memory.dma_buf() else { return Ok(()) };
    let name = dma_buf.as_raw_fd();
    let file_system = rustix::fs::fstatfs(dma_buf).map_err(|error| {
        format!("descriptor {name} of a device's memory: {}", io::Error::from(error))
    })?;
    if file_system.f_type as u64 != DMA_BUF {
        return Err(format!(
            "descriptor {name}, of {} bytes of a device's memory, is no dma-buf; pass the one that the device's \
             driver exports (with CUDA, cuMemGetHandleForAddressRange)",
            memory.len()
        ));
    }
    let (page, address) = (rustix::param::page_size() as u64, memory.address() as u64);
    if address % page != offset % page {
        return Err(format!(
            "a device's memory at address {address:#x} begins {offset} bytes into its dma-buf: the two have to \
             have the same place in a page of {page} bytes; export it from a page boundary on",
        ));
    }
    Ok(())
}

/// Why memory was not registered, in one line with the remedy.
pub(super) fn refused(name: &str, memory: &Memory, len: usize, error: &io::Error) -> String {
    if memory.is_host() {
        return format!("ibv_reg_mr of {len} bytes: {error}{}", memlock(error));
    }
    let what = format!("ibv_reg_dmabuf_mr of {len} bytes of a device's memory: {error}");
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::ENOSYS | libc::ENOTTY) => format!(
            "{what}; the driver of {name}, or rdma-core, takes no dma-bufs: that takes rdma-core 34 or later and, \
             for mlx5, Linux 5.12 or later; or let the device copy to host memory and register that"
        ),
        Some(libc::EINVAL | libc::EBADF) => format!(
            "{what}; the dma-buf does not have these bytes, or its device and {name} do not reach each other \
             (PCIe peer-to-peer); register what was exported, or let the device copy to host memory"
        ),
        _ => format!("{what}; let the device copy to host memory and register that"),
    }
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

#[cfg(all(test, not(loom)))]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::memory::HostMemory;

    fn on_device(address: usize, buffer: impl AsFd, offset: u64) -> Memory {
        let descriptor = buffer.as_fd().try_clone_to_owned().unwrap();
        let address = std::ptr::without_provenance_mut(address);
        // SAFETY: no device is given it.
        unsafe { Memory::device(address, 4096, descriptor, offset, Box::new(())) }
    }

    #[test]
    fn what_addresses_mean_depends_on_the_buffer() {
        let buffers = [(); 2].map(|()| HostMemory::new(1 << 16).build().unwrap());
        let [one, two] = buffers.each_ref().map(|buffer| buffer.fd().unwrap());
        let space = |memory: &Memory| Space::of(memory).unwrap();
        let whole = space(&on_device(1 << 20, one, 0));
        assert_eq!(space(&on_device((1 << 20) + 8192, one, 8192)), whole, "a part of it");
        assert_ne!(space(&on_device(1 << 20, two, 0)), whole, "another buffer");
        assert_ne!(space(&on_device(1 << 20, one, 8192)), whole, "by another address");
        assert_ne!(space(&buffers[0]), whole);
        assert_eq!(space(&buffers[0]), space(&buffers[1]), "one process, one space");
        // Addresses count from 0 with some.
        space(&on_device(0, one, 8192));
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let host = HostMemory::new(1 << 16).build().unwrap();
        let line = check(&on_device(1 << 20, host.fd().unwrap(), 0)).unwrap_err();
        assert!(line.contains("4096 bytes of a device's memory, is no dma-buf"), "{line}");
        check(&host).unwrap();

        let device = on_device(1 << 20, host.fd().unwrap(), 0);
        let said = |memory: &Memory, errno: i32| {
            refused("mlx5_0:1", memory, 77, &io::Error::from_raw_os_error(errno))
        };
        for errno in [libc::EOPNOTSUPP, libc::EPROTONOSUPPORT] {
            let line = said(&device, errno);
            for part in ["ibv_reg_dmabuf_mr of 77 bytes", "driver of mlx5_0:1", "rdma-core 34"] {
                assert!(line.contains(part), "no '{part}' in: {line}");
            }
        }
        for errno in [libc::EINVAL, libc::EBADF] {
            let line = said(&device, errno);
            assert!(line.contains("its device and mlx5_0:1 do not reach each other"), "{line}");
        }
        let line = said(&device, libc::ENOMEM);
        assert!(line.contains("host memory") && !line.contains("ulimit"), "{line}");
        let line = said(&host, libc::ENOMEM);
        assert!(line.contains("ibv_reg_mr of 77 bytes") && line.contains("ulimit -l"), "{line}");
    }
}
