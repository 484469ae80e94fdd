//! A mapped memory and the checked accesses to it.

use std::any::Any;
use std::ffi::c_void;
use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};

use rustix::fs::{SealFlags, fcntl_get_seals, fstat, fstatfs};
use rustix::mm::{self, Advice, MapFlags, ProtFlags};

use super::atomic;
use super::backing::{Backing, HUGE_PAGE_BYTES, Pages};
use super::error::{MapRefused, MemoryError};

/// What a mapping allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Loads only; a store through [`Memory::as_ptr`] faults.
    ReadOnly,
    /// Loads and stores.
    ReadWrite,
}

/// A range of mapped bytes that other processes may share, or of bytes of a device.
///
/// Made by [`HostMemory`](super::HostMemory), by [`Memory::map`] from a descriptor of another
/// process, or by [`Memory::foreign`] around memory of somebody else. The range is unmapped on
/// drop. Other processes may write to it at any time, so no safe reference to the bytes exists:
/// they are copied in and out, and whoever needs an unchanging view verifies a checksum.
///
/// The bytes of a device ([`Memory::device`]) are touched by devices alone: whatever would touch them
/// from here is refused ([`MemoryError::OnDevice`]).
pub struct Memory {
    base: *mut u8,
    len: usize,
    access: Access,
    backing: Backing,
    owner: Owner,
}

/// What keeps the bytes valid.
enum Owner {
    Mapping { descriptor: OwnedFd, mapped_bytes: usize },
    Foreign { _keep: Box<dyn Any + Send + Sync> },
    Device { dma_buf: OwnedFd, offset: u64, _keep: Box<dyn Any + Send + Sync> },
}

// SAFETY: the pointer is to memory that is valid from every thread until drop, or never followed, as it is a
// device's. All safe accesses through it are atomic, so threads and processes that race see torn bytes at worst.
unsafe impl Send for Memory {}
// SAFETY: as for `Send`.
unsafe impl Sync for Memory {}

impl Memory {
    /// Maps `len` bytes of a descriptor received from another process.
    ///
    /// # Errors
    /// The descriptor is given back if it is not sealed against shrinking
    /// ([`MemoryError::NotSealed`]), if it is shorter than `len` ([`MemoryError::TooShort`]), or if
    /// the kernel refuses to map it, for instance read-write when it was opened read-only.
    pub fn map(descriptor: OwnedFd, len: usize, access: Access) -> Result<Memory, MapRefused> {
        let page_bytes = match check(descriptor.as_fd(), len) {
            Ok(page_bytes) => page_bytes,
            Err(why) => return Err(MapRefused { descriptor, why }),
        };
        let pages = if page_bytes > rustix::param::page_size() { Pages::Pool } else { Pages::Base };
        let backing = Backing { pages, page_bytes, shortfall: None };
        Self::map_unchecked(descriptor, len, access, backing)
    }

    /// Maps a descriptor already known to be sealed and long enough.
    pub(super) fn map_unchecked(
        descriptor: OwnedFd,
        len: usize,
        access: Access,
        backing: Backing,
    ) -> Result<Memory, MapRefused> {
        let mapped_bytes = len.next_multiple_of(backing.page_bytes);
        match map_shared(descriptor.as_fd(), mapped_bytes, access, backing.page_bytes) {
            Ok(base) => {
                let owner = Owner::Mapping { descriptor, mapped_bytes };
                Ok(Memory { base: base.as_ptr(), len, access, backing, owner })
            }
            Err(source) => {
                let why = MemoryError::Refused {
                    what: "mapping",
                    len,
                    remedy: "check that the descriptor is open for this access and that the \
                             address space (ulimit -v) and vm.max_map_count have room",
                    source,
                };
                Err(MapRefused { descriptor, why })
            }
        }
    }

    /// Wraps memory of somebody else, which `owner` keeps valid and which is dropped with it.
    ///
    /// # Safety
    /// `len` bytes at `ptr`, which is not null, are valid for reads and writes from any thread
    /// until `owner` is dropped, and nobody holds Rust references to them while they are used
    /// through this `Memory`.
    pub unsafe fn foreign(ptr: *mut u8, len: usize, owner: Box<dyn Any + Send + Sync>) -> Memory {
        let base = NonNull::new(ptr).unwrap_or(NonNull::dangling()).as_ptr();
        debug_assert!(!ptr.is_null() || len == 0, "foreign memory at the null pointer");
        Self::of_others(base, len, Owner::Foreign { _keep: owner })
    }

    /// Wraps memory of a device, for those fabrics that let NICs reach it: no byte of it is touched from here.
    ///
    /// `address` is where the device says that its first byte is, `dma_buf` the descriptor by which its driver
    /// shares it with others, and `offset` where the first byte lies in that. `owner`, dropped with the memory,
    /// keeps it. Both the address and the offset have the same place in a page.
    ///
    /// # Safety
    /// From `offset` on the dma-buf has `len` bytes, which other devices may read and write until `owner` is
    /// dropped.
    pub unsafe fn device(
        address: *mut u8,
        len: usize,
        dma_buf: OwnedFd,
        offset: u64,
        owner: Box<dyn Any + Send + Sync>,
    ) -> Memory {
        Self::of_others(address, len, Owner::Device { dma_buf, offset, _keep: owner })
    }

    fn of_others(base: *mut u8, len: usize, owner: Owner) -> Memory {
        let page_bytes = rustix::param::page_size();
        let backing = Backing { pages: Pages::Foreign, page_bytes, shortfall: None };
        Memory { base, len, access: Access::ReadWrite, backing, owner }
    }

    /// First byte; page aligned unless the memory is foreign. Valid for [`len`](Self::len) bytes
    /// until `self` is dropped; stores through it fault if the [`access`](Self::access) is
    /// read-only.
    ///
    /// # Panics
    /// When the memory is a device's, where nothing here may follow a pointer: ask
    /// [`is_host`](Self::is_host) before.
    pub fn as_ptr(&self) -> *mut u8 {
        assert!(self.is_host(), "a pointer is asked for, and {}", MemoryError::OnDevice);
        self.base
    }

    /// Where the first byte is, as whoever the memory belongs to counts: this process, or a device. Not to
    /// be followed.
    pub fn address(&self) -> *mut u8 {
        self.base
    }

    /// Whether this process can touch the bytes: they are not a device's.
    pub fn is_host(&self) -> bool {
        !matches!(self.owner, Owner::Device { .. })
    }

    /// Bytes there are, as asked for.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What the mapping allows.
    pub fn access(&self) -> Access {
        self.access
    }

    /// The memfd, to be sent to another process; `None` for foreign memory and that of a device.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.owner {
            Owner::Mapping { descriptor, .. } => Some(descriptor.as_fd()),
            Owner::Foreign { .. } | Owner::Device { .. } => None,
        }
    }

    /// The dma-buf of a device's memory, and where the first byte lies in it; `None` for host memory.
    pub fn dma_buf(&self) -> Option<(BorrowedFd<'_>, u64)> {
        match &self.owner {
            Owner::Device { dma_buf, offset, .. } => Some((dma_buf.as_fd(), *offset)),
            Owner::Mapping { .. } | Owner::Foreign { .. } => None,
        }
    }

    /// What the memory is made of.
    pub fn backing(&self) -> &Backing {
        &self.backing
    }

    /// The mapped length, a multiple of the page size; 0 for memory of others.
    pub(super) fn mapped_bytes(&self) -> usize {
        match self.owner {
            Owner::Mapping { mapped_bytes, .. } => mapped_bytes,
            Owner::Foreign { .. } | Owner::Device { .. } => 0,
        }
    }

    pub(super) fn set_backing(&mut self, backing: Backing) {
        self.backing = backing;
    }

    /// Copies `bytes` to `offset`. Meant for small records; bulk moves use
    /// [`copy`](crate::copy::copy).
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`], [`MemoryError::ReadOnly`], [`MemoryError::OnDevice`]; nothing was
    /// written.
    pub fn write_at(&self, offset: usize, bytes: &[u8]) -> Result<(), MemoryError> {
        let at = self.writable(offset, bytes.len())?;
        // SAFETY: `at` is in bounds for `bytes.len()` bytes and writable.
        unsafe { atomic::store(at, bytes) };
        Ok(())
    }

    /// Copies the bytes at `offset` to `bytes`. They are torn if somebody writes meanwhile.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`], [`MemoryError::OnDevice`]; `bytes` is unchanged.
    pub fn read_at(&self, offset: usize, bytes: &mut [u8]) -> Result<(), MemoryError> {
        let at = self.at(offset, bytes.len())?;
        // SAFETY: `at` is in bounds for `bytes.len()` bytes.
        unsafe { atomic::load(at, bytes) };
        Ok(())
    }

    /// Sets every byte of `range` to `byte`.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`], also for a range that ends before it starts;
    /// [`MemoryError::ReadOnly`], [`MemoryError::OnDevice`]. Nothing was written.
    pub fn fill(&self, range: Range<usize>, byte: u8) -> Result<(), MemoryError> {
        const STEP_BYTES: usize = 4 << 10;
        let len = self.length(&range)?;
        self.writable(range.start, len)?;
        let block = [byte; STEP_BYTES];
        for start in range.clone().step_by(STEP_BYTES) {
            self.write_at(start, &block[..STEP_BYTES.min(range.end - start)])?;
        }
        Ok(())
    }

    /// The bytes of `range`, without a copy.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`], also for a range that ends before it starts;
    /// [`MemoryError::OnDevice`].
    ///
    /// # Safety
    /// Nobody, in this process or another, writes to `range` while the slice is alive.
    pub unsafe fn slice(&self, range: Range<usize>) -> Result<&[u8], MemoryError> {
        let len = self.length(&range)?;
        let at = self.at(range.start, len)?;
        // SAFETY: in bounds and initialised (fresh pages are zero); unchanged by the contract.
        Ok(unsafe { std::slice::from_raw_parts(at, len) })
    }

    fn length(&self, range: &Range<usize>) -> Result<usize, MemoryError> {
        range.end.checked_sub(range.start).ok_or(MemoryError::OutOfBounds {
            offset: range.start,
            len: 0,
            size: self.len,
        })
    }

    pub(super) fn at(&self, offset: usize, len: usize) -> Result<*mut u8, MemoryError> {
        if !self.is_host() {
            return Err(MemoryError::OnDevice);
        }
        if offset > self.len || len > self.len - offset {
            return Err(MemoryError::OutOfBounds { offset, len, size: self.len });
        }
        // SAFETY: `offset` is at most the length of the memory.
        Ok(unsafe { self.base.add(offset) })
    }

    pub(super) fn writable(&self, offset: usize, len: usize) -> Result<*mut u8, MemoryError> {
        match self.access {
            Access::ReadWrite => self.at(offset, len),
            Access::ReadOnly => Err(MemoryError::ReadOnly),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.mapped_bytes() > 0 {
            // SAFETY: we mapped exactly this range, and nothing can refer to it any more. Failure
            // is impossible for a range we own, and would only leak it.
            let _ = unsafe { mm::munmap(self.base.cast(), self.mapped_bytes()) };
        }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("base", &self.base)
            .field("len", &self.len)
            .field("access", &self.access)
            .field("backing", &self.backing)
            .finish_non_exhaustive()
    }
}

/// Checks a received descriptor and returns its page size.
fn check(descriptor: BorrowedFd<'_>, len: usize) -> Result<usize, MemoryError> {
    // Anything that is not a memfd has no seals at all (EINVAL).
    let seals = fcntl_get_seals(descriptor).unwrap_or(SealFlags::empty());
    if !seals.contains(SealFlags::SHRINK) {
        return Err(MemoryError::NotSealed);
    }
    let examining = |source: rustix::io::Errno| MemoryError::Refused {
        what: "examining a descriptor",
        len,
        remedy: "ask its owner for another one",
        source: source.into(),
    };
    let size = fstat(descriptor).map_err(examining)?.st_size;
    let actual = u64::try_from(size).unwrap_or(0);
    if actual < len as u64 {
        return Err(MemoryError::TooShort { len, actual });
    }
    let filesystem = fstatfs(descriptor).map_err(examining)?;
    if filesystem.f_type as libc::c_long == libc::HUGETLBFS_MAGIC as libc::c_long {
        return Ok(usize::try_from(filesystem.f_bsize).unwrap_or(rustix::param::page_size()));
    }
    Ok(rustix::param::page_size())
}

fn map_shared(
    descriptor: BorrowedFd<'_>,
    mapped_bytes: usize,
    access: Access,
    page_bytes: usize,
) -> io::Result<NonNull<u8>> {
    if mapped_bytes == 0 {
        // Nothing to map: any aligned address will do.
        return Ok(
            NonNull::new(ptr::without_provenance_mut(page_bytes)).unwrap_or(NonNull::dangling())
        );
    }
    let protection = match access {
        Access::ReadOnly => ProtFlags::READ,
        Access::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
    };
    // Huge pages of the pool are placed by the kernel.
    let hint = if page_bytes < HUGE_PAGE_BYTES { hint(mapped_bytes) } else { ptr::null_mut() };
    // SAFETY: without MAP_FIXED a new mapping touches no existing memory, wherever it is wanted.
    let base =
        unsafe { mm::mmap(hint, mapped_bytes, protection, MapFlags::SHARED, descriptor, 0) }?;
    // A fork would let a child write into memory it knows nothing about, and keep it alive.
    // SAFETY: the range was mapped just now, and the advice does not change its contents.
    if let Err(errno) = unsafe { mm::madvise(base, mapped_bytes, Advice::LinuxDontFork) } {
        // SAFETY: mapped just now, and nothing refers to it.
        let _ = unsafe { mm::munmap(base, mapped_bytes) };
        return Err(errno.into());
    }
    NonNull::new(base.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

/// Where a mapping would begin on the boundary of a huge page, if there is room for one: only so can pages that
/// are huge be mapped as such. Somebody else may come first; then it lies elsewhere.
fn hint(bytes: usize) -> *mut c_void {
    let Some(total) = bytes.checked_add(HUGE_PAGE_BYTES).filter(|_| bytes >= HUGE_PAGE_BYTES)
    else {
        return ptr::null_mut();
    };
    let (protection, flags) = (ProtFlags::empty(), MapFlags::PRIVATE | MapFlags::NORESERVE);
    // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
    let Ok(start) = (unsafe { mm::mmap_anonymous(ptr::null_mut(), total, protection, flags) })
    else {
        return ptr::null_mut();
    };
    // SAFETY: mapped just now, and nothing refers to it.
    let _ = unsafe { mm::munmap(start, total) };
    start.wrapping_byte_add(start.cast::<u8>().align_offset(HUGE_PAGE_BYTES))
}
