//! Shared memory for words: made and sealed here, or received from a peer and checked.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

use rustix::fs::{
    MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, fstatfs, ftruncate,
    memfd_create,
};
use rustix::io::Errno;
use rustix::mm::{self, Advice, MapFlags, ProtFlags};

const WORD_BYTES: usize = size_of::<u64>();

/// Who may write to a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sharing {
    /// Only its maker: `F_SEAL_FUTURE_WRITE` refuses every later writable mapping.
    OneWriter,
    /// Both sides.
    BothWrite,
}

/// Mapped shared memory, all zero at first. Everything in it is an atomic word.
///
/// It cannot change its size (`F_SEAL_SHRINK`, see `fcntl(2)`), so no peer can make a load fault by
/// truncating it, and it is of ordinary pages, so that none can by draining a pool of huge ones. A
/// forked child does not inherit it.
#[derive(Debug)]
pub(super) struct Segment {
    base: NonNull<AtomicU64>,
    bytes: usize,
}

// SAFETY: the memory is valid from every thread until drop, and only accessed as atomic words.
unsafe impl Send for Segment {}
// SAFETY: as for `Send`.
unsafe impl Sync for Segment {}

impl Segment {
    /// A new segment and the descriptor to hand over.
    pub(super) fn create(
        name: &str,
        bytes: usize,
        sharing: Sharing,
    ) -> io::Result<(Self, OwnedFd)> {
        let memfd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&memfd, bytes as u64)?;
        let segment = Self::map_unchecked(memfd.as_fd(), bytes, true)?;
        let mut seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        if sharing == Sharing::OneWriter {
            seals |= SealFlags::FUTURE_WRITE;
        }
        fcntl_add_seals(&memfd, seals)?;
        Ok((segment, memfd))
    }

    /// Maps a segment that a peer made.
    pub(super) fn map(memfd: BorrowedFd<'_>, bytes: usize, sharing: Sharing) -> io::Result<Self> {
        // What is no memfd has no seals (EINVAL).
        let seals = fcntl_get_seals(memfd).unwrap_or(SealFlags::empty());
        if !seals.contains(SealFlags::SHRINK) {
            return Err(io::Error::other("the descriptor is not a memfd sealed against shrinking"));
        }
        if fstatfs(memfd)?.f_type as libc::c_long != libc::TMPFS_MAGIC as libc::c_long {
            return Err(io::Error::other("the descriptor is of huge pages"));
        }
        let size = fstat(memfd)?.st_size;
        if u64::try_from(size).unwrap_or(0) < bytes as u64 {
            return Err(io::Error::other(format!("{size} bytes where {bytes} are needed")));
        }
        Self::map_unchecked(memfd, bytes, sharing == Sharing::BothWrite)
    }

    fn map_unchecked(memfd: BorrowedFd<'_>, bytes: usize, writable: bool) -> io::Result<Self> {
        let mut protection = ProtFlags::READ;
        protection.set(ProtFlags::WRITE, writable);
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let base =
            unsafe { mm::mmap(ptr::null_mut(), bytes, protection, MapFlags::SHARED, memfd, 0) }?;
        let segment = Self { base: NonNull::new(base.cast()).ok_or(Errno::NOMEM)?, bytes };
        // SAFETY: the range was mapped just now, and the advice does not change its contents.
        unsafe { mm::madvise(base, bytes, Advice::LinuxDontFork) }?;
        Ok(segment)
    }

    /// `count` words from byte `at`, a multiple of 8.
    ///
    /// # Panics
    /// When they are not all inside; the layout is ours, never a peer's.
    pub(super) fn words(&self, at: usize, count: usize) -> &[AtomicU64] {
        assert!(
            at.is_multiple_of(WORD_BYTES) && at + count * WORD_BYTES <= self.bytes,
            "{count} words at {at} of {} bytes",
            self.bytes
        );
        // SAFETY: in bounds, aligned, initialised (fresh pages are zero), and valid as long as
        // `self`. Other processes access the same words atomically; if one does not, or if the
        // mapping is read-only, loads are still loads of some value. Nobody stores through a
        // read-only mapping: those are only handed out as `control::Theirs`, which only loads.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(at / WORD_BYTES), count) }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: we mapped exactly this range, and nothing can refer to it any more.
        let _ = unsafe { mm::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    const BYTES: usize = 8192;

    #[test]
    fn one_writer_means_one() {
        let (mine, memfd) = Segment::create("test", BYTES, Sharing::OneWriter).unwrap();
        let theirs = Segment::map(memfd.as_fd(), BYTES, Sharing::OneWriter).unwrap();
        mine.words(8, 1)[0].store(7, Ordering::Release);
        assert_eq!(theirs.words(8, 1)[0].load(Ordering::Acquire), 7);
        Segment::map(memfd.as_fd(), BYTES, Sharing::BothWrite).unwrap_err();
        ftruncate(&memfd, 0).unwrap_err();
    }

    #[test]
    fn descriptors_that_could_fault_are_refused() {
        let refused = |memfd: &OwnedFd, bytes| {
            Segment::map(memfd.as_fd(), bytes, Sharing::BothWrite).unwrap_err().to_string()
        };
        let unsealed = memfd_create("test", MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&unsealed, BYTES as u64).unwrap();
        assert!(refused(&unsealed, BYTES).contains("sealed"));
        fcntl_add_seals(&unsealed, SealFlags::SHRINK).unwrap();
        assert!(refused(&unsealed, BYTES + 1).contains("needed"));
        let device = std::fs::File::open("/dev/zero").unwrap().into();
        assert!(refused(&device, 8).contains("sealed"));
    }
}
