//! Making host memory.

use std::ffi::CString;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create,
};
use rustix::io::Errno;
use rustix::mm::{self, Advice};
use rustix::process::{Resource, getrlimit};

use super::backing::{Backing, HUGE_PAGE_BYTES, Pages, Size};
use super::budget::Budget;
use super::error::{MapRefused, MemoryError};
use super::mapping::{Access, Memory};
use super::numa;

/// Longest memfd name, in bytes (memfd_create(2)).
const NAME_BYTES_MAX: usize = 249;
/// Bytes filled in between two reports of progress.
const PREFAULT_STEP_BYTES: usize = 64 << 20;
/// Bytes that are made while nobody drives the engine: milliseconds, or some 100 where all is emulated.
const MAKE_STEP_BYTES: usize = 16 << 20;

type Progress = Box<dyn FnMut(usize, usize) + Send>;

/// Host memory to be made: a sealed memfd, mapped here and mappable by other processes.
///
/// Without further wishes its pages are base pages that the kernel fills in when they are first
/// touched.
#[must_use = "nothing is allocated until `build`"]
pub struct HostMemory {
    len: usize,
    name: String,
    huge_pages: bool,
    numa_node: Option<u32>,
    prefault: Option<Progress>,
    lock: bool,
    sparse: bool,
}

impl HostMemory {
    /// Memory of `len` bytes, which may be 0. Whole pages are mapped;
    /// [`Memory::len`] says `len`.
    pub fn new(len: usize) -> HostMemory {
        HostMemory {
            len,
            name: "arena".to_owned(),
            huge_pages: false,
            numa_node: None,
            prefault: None,
            lock: false,
            sparse: false,
        }
    }

    /// Names the memory in errors and in `/proc/PID/maps` (`/memfd:NAME`); `arena` if not called.
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Wishes for 2 MiB pages: from the reserved pool if that has room, else transparent ones, which
    /// are certain only with [`prefault`](Self::prefault). [`Memory::backing`] says what it became and
    /// why.
    pub fn huge_pages(mut self) -> Self {
        self.huge_pages = true;
        self
    }

    /// Places the pages on one NUMA node, and nowhere else.
    pub fn numa_node(mut self, node: u32) -> Self {
        self.numa_node = Some(node);
        self
    }

    /// Fills in all pages now, so that no transfer has to wait for the kernel.
    pub fn prefault(self) -> Self {
        self.prefault_with(|_, _| {})
    }

    /// As [`prefault`](Self::prefault), and calls `progress(done_bytes, total_bytes)` every 64 MiB
    /// and at the end.
    pub fn prefault_with(mut self, progress: impl FnMut(usize, usize) + Send + 'static) -> Self {
        self.prefault = Some(Box::new(progress));
        self
    }

    /// Locks the pages into memory (mlock(2)), which fills them in too.
    pub fn lock(mut self) -> Self {
        self.lock = true;
        self
    }

    /// Allows more bytes than there is memory, for memory of which only parts will be touched.
    pub fn sparse(mut self) -> Self {
        self.sparse = true;
        self
    }

    /// Makes the memory.
    ///
    /// # Errors
    /// Each variant of [`MemoryError`] up to [`NotLocked`](MemoryError::NotLocked) says which wish
    /// cannot be had and what to do. Nothing stays allocated. Huge pages are a wish that never
    /// fails: see [`Memory::backing`].
    pub fn build(mut self) -> Result<Memory, MemoryError> {
        if let Some(node) = self.numa_node {
            numa::check_online(node)?;
        }
        let (mut memory, pooled) = match self.pool() {
            Some(Ok(memory)) => (memory, true),
            Some(Err(why)) => (self.pages(Some(why))?, false),
            None => (self.pages(None)?, false),
        };
        if memory.is_empty() {
            return Ok(memory);
        }
        if let Some(node) = self.numa_node {
            numa::bind(memory.as_ptr(), memory.mapped_bytes(), node)?;
        }
        // The pool is counted for all nodes together: only pages that are in place are certain.
        let certain = pooled && self.numa_node.is_some();
        if let Some(mut progress) = self.prefault.take() {
            let collapse = self.huge_pages && !pooled;
            let huge = prefault(&memory, collapse, &mut *progress)?;
            if collapse {
                memory.set_backing(memory.backing().collapsed(huge, memory.len()));
            }
        } else if certain {
            prefault(&memory, false, &mut |_, _| {})?;
        }
        if self.lock {
            lock(&memory)?;
        }
        Ok(memory)
    }

    /// Memory from the huge page pool; `None` if that was not asked for, or why it has none.
    fn pool(&self) -> Option<Result<Memory, String>> {
        if !self.huge_pages || self.len == 0 {
            return None;
        }
        let needed = self.len.div_ceil(HUGE_PAGE_BYTES) as u64;
        if let Some(node) = self.numa_node {
            let free = numa::pool_free_pages(node);
            if free < needed {
                return Some(Err(format!(
                    "the huge page pool of node {node} has {free} of {needed} pages free"
                )));
            }
        }
        let flags = MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
        let backing = Backing { pages: Pages::Pool, page_bytes: HUGE_PAGE_BYTES, shortfall: None };
        Some(self.memfd(flags, backing).map_err(|error| match error {
            // The pages are reserved when they are mapped: ENOMEM says the pool is too small.
            MemoryError::Refused { source, .. } if source.raw_os_error() == Some(libc::ENOMEM) => {
                format!("the huge page pool has less than {needed} pages free; see vm.nr_hugepages")
            }
            MemoryError::Refused { source, .. } => format!("no huge page pool: {source}"),
            other => other.to_string(),
        }))
    }

    /// Memory of base pages, transparently huge where asked for and possible.
    fn pages(&self, no_pool: Option<String>) -> Result<Memory, MemoryError> {
        if !self.sparse
            && let Some(budget) = Budget::read()
        {
            budget.check(&self.name, self.len, self.prefault.is_some() || self.lock)?;
        }
        let page_bytes = rustix::param::page_size();
        let backing = Backing { pages: Pages::Base, page_bytes, shortfall: None };
        let mut memory = self.memfd(MemfdFlags::empty(), backing)?;
        if let Some(no_pool) = no_pool {
            let backing = match advise_huge(&memory) {
                Ok(()) => Backing {
                    pages: Pages::Transparent,
                    page_bytes: HUGE_PAGE_BYTES,
                    shortfall: Some(no_pool),
                },
                Err(why) => Backing {
                    shortfall: Some(format!("{no_pool}; {why}")),
                    ..memory.backing().clone()
                },
            };
            memory.set_backing(backing);
        }
        Ok(memory)
    }

    /// A sealed and mapped memfd.
    fn memfd(&self, flags: MemfdFlags, backing: Backing) -> Result<Memory, MemoryError> {
        let bad_name = || MemoryError::BadName { name: self.name.clone(), max: NAME_BYTES_MAX };
        let name = CString::new(self.name.as_str()).map_err(|_| bad_name())?;
        if name.count_bytes() > NAME_BYTES_MAX {
            return Err(bad_name());
        }
        let refused = |what, remedy| {
            move |errno: Errno| MemoryError::Refused {
                what,
                len: self.len,
                remedy,
                source: errno.into(),
            }
        };
        let Some(size) = self.len.checked_next_multiple_of(backing.page_bytes) else {
            return Err(refused("sizing a memfd", "ask for less")(Errno::FBIG));
        };
        let descriptor: OwnedFd =
            memfd_create(&name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | flags).map_err(
                refused("creating a memfd", "raise the limit of open files (ulimit -n)"),
            )?;
        ftruncate(&descriptor, size as u64)
            .map_err(refused("sizing a memfd", "ask for less, or raise ulimit -f"))?;
        fcntl_add_seals(&descriptor, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
            .map_err(refused("sealing a memfd", "Linux 4.16 or later is needed"))?;
        Memory::map_unchecked(descriptor, self.len, Access::ReadWrite, backing)
            .map_err(|MapRefused { why, .. }| why)
    }
}

impl fmt::Debug for HostMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostMemory")
            .field("len", &self.len)
            .field("name", &self.name)
            .field("huge_pages", &self.huge_pages)
            .field("numa_node", &self.numa_node)
            .field("prefault", &self.prefault.is_some())
            .field("lock", &self.lock)
            .field("sparse", &self.sparse)
            .finish()
    }
}

/// Asks for transparent huge pages, or says why the kernel will not give any.
fn advise_huge(memory: &Memory) -> Result<(), String> {
    const SHMEM: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
    let setting = fs::read_to_string(SHMEM).map_err(|_| "no transparent huge pages".to_owned())?;
    for off in ["never", "deny"] {
        if setting.contains(&format!("[{off}]")) {
            return Err(format!("transparent ones are off: {SHMEM} says {off}, not advise"));
        }
    }
    let (base, len) = (memory.as_ptr().cast(), memory.mapped_bytes());
    // SAFETY: the range is our own mapping, and the advice does not change its contents.
    unsafe { mm::madvise(base, len, Advice::LinuxHugepage) }
        .map_err(|errno| format!("transparent ones were refused: {}", io::Error::from(errno)))
}

/// Fills in the pages of fresh memory, step by step, as transparent huge ones if it shall `collapse` them;
/// how many bytes are in such.
fn prefault(
    memory: &Memory,
    mut collapse: bool,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<usize, MemoryError> {
    let total = memory.mapped_bytes();
    let (mut done, mut huge) = (0, 0);
    while done < total {
        let step = PREFAULT_STEP_BYTES.min(total - done);
        for at in (done..done + step).step_by(HUGE_PAGE_BYTES) {
            if !collapse || at + HUGE_PAGE_BYTES > total {
                break;
            }
            match to_huge_page(memory, at) {
                Ok(()) => huge += HUGE_PAGE_BYTES,
                Err(Errno::AGAIN) => {}
                // There will be none for the rest either, and each try may take long.
                Err(_) => collapse = false,
            }
        }
        populate(memory, done, step).map_err(|errno| MemoryError::Exhausted {
            done,
            len: memory.len(),
            source: errno.into(),
        })?;
        done += step;
        progress(done.min(memory.len()), memory.len());
    }
    Ok(huge)
}

/// Makes the 2 MiB at `offset` one transparent huge page: <https://man7.org/linux/man-pages/man2/madvise.2.html>.
/// Whatever is configured for shared memory does not matter, unless it is `deny`.
fn to_huge_page(memory: &Memory, offset: usize) -> Result<(), Errno> {
    const MADV_COLLAPSE: libc::c_int = 25;
    // One small page must be there; the others are not, so that nothing needs to be copied.
    populate(memory, offset, rustix::param::page_size())?;
    // SAFETY: the range is our own mapping; collapsing keeps its contents.
    let answer = unsafe {
        libc::madvise(memory.as_ptr().add(offset).cast(), HUGE_PAGE_BYTES, MADV_COLLAPSE)
    };
    match answer {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL)),
    }
}

impl Memory {
    /// Makes those pages that are not there yet, as far as that goes: whoever needs them makes the rest. Not
    /// where more than may be locked would be made for nothing, nor those of a device. `meanwhile` is called again and again.
    pub(crate) fn make_pages(&self, mut meanwhile: impl FnMut()) {
        let limit = getrlimit(Resource::Memlock).current;
        let fits = limit.is_none_or(|limit| self.len() as u64 <= limit);
        let writable = self.access() == Access::ReadWrite;
        if self.is_empty() || !self.is_host() || !writable || !fits {
            return;
        }
        let ahead = self.as_ptr().addr() % rustix::param::page_size();
        for at in (0..self.len() + ahead).step_by(MAKE_STEP_BYTES) {
            let step = MAKE_STEP_BYTES.min(self.len() + ahead - at);
            // SAFETY: these are the pages of our own bytes; populating keeps their contents.
            let answer = unsafe {
                let first = self.as_ptr().sub(ahead).add(at);
                mm::madvise(first.cast(), step, Advice::LinuxPopulateWrite)
            };
            if let Err(errno) = answer {
                let len = self.len();
                return tracing::debug!("the pages of {len} bytes are not made ahead: {errno}");
            }
            meanwhile();
        }
    }
}

fn populate(memory: &Memory, offset: usize, len: usize) -> Result<(), Errno> {
    loop {
        // SAFETY: the range is our own mapping; populating keeps its contents.
        let answer = unsafe {
            mm::madvise(memory.as_ptr().add(offset).cast(), len, Advice::LinuxPopulateWrite)
        };
        match answer {
            Err(Errno::INTR | Errno::AGAIN) => {}
            // Kernels before 5.14.
            Err(Errno::INVAL) => return touch(memory, offset, len),
            answer => return answer,
        }
    }
}

/// Allocates the pages in the file first, because that fails with an error where a touch would
/// raise `SIGBUS`, and then maps them one by one.
fn touch(memory: &Memory, offset: usize, len: usize) -> Result<(), Errno> {
    let descriptor: BorrowedFd<'_> = memory.fd().ok_or(Errno::BADF)?;
    while let Err(errno) =
        fallocate(descriptor.as_fd(), FallocateFlags::empty(), offset as u64, len as u64)
    {
        if errno != Errno::INTR {
            return Err(errno);
        }
    }
    for at in (offset..offset + len).step_by(rustix::param::page_size()) {
        // SAFETY: in bounds of the mapping. Nobody else has the memory yet, so writing the zero
        // of a fresh page changes nothing.
        unsafe { memory.as_ptr().add(at).write_volatile(0) };
    }
    Ok(())
}

fn lock(memory: &Memory) -> Result<(), MemoryError> {
    // SAFETY: the range is our own mapping; locking keeps its contents. Unmapping unlocks.
    unsafe { mm::mlock(memory.as_ptr().cast(), memory.mapped_bytes()) }.map_err(|errno| {
        let limit = getrlimit(Resource::Memlock).current;
        MemoryError::NotLocked {
            len: memory.mapped_bytes(),
            limit: limit.map_or_else(|| "unlimited".to_owned(), |bytes| Size(bytes).to_string()),
            source: errno.into(),
        }
    })
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
