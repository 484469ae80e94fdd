//! One run of bytes over one or several files.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use super::{Error, PAGE_BYTES};

/// One file or block device, locked for as long as it is open.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) file: File,
    pub(super) path: PathBuf,
    /// Bytes that are used, from the first on.
    pub(super) bytes: u64,
}

impl Drop for Member {
    fn drop(&mut self) {
        // The kernel may keep the open file for a while after its ring is closed, and a lock lasts as
        // long as that. Whoever opens the same path next is not to wait for it.
        let _ = rustix::fs::flock(&self.file, rustix::fs::FlockOperation::Unlock);
    }
}

/// Files of one size; byte ranges of `unit` bytes go round robin over them.
#[derive(Debug)]
pub(super) struct Files {
    members: Vec<Member>,
    unit: u64,
    bytes: u64,
    /// Reads and writes go past the page cache.
    pub(super) direct: bool,
    /// What to call them: the path, or the directory.
    pub(super) name: String,
}

/// Where a byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Which file.
    pub(super) file: usize,
    /// Where in it.
    pub(super) offset: u64,
    /// How many bytes follow there one after the other.
    pub(super) run: u64,
}

impl Files {
    /// `unit` does not matter for a single file; otherwise it is a multiple of [`PAGE_BYTES`].
    pub(super) fn new(members: Vec<Member>, unit: u64, direct: bool, name: String) -> Self {
        let least = members.iter().map(|member| member.bytes).min().unwrap_or(0);
        let unit = if members.len() == 1 { least.max(PAGE_BYTES) } else { unit };
        let bytes = least / unit * unit * members.len() as u64;
        Self { members, unit, bytes, direct, name }
    }

    /// Bytes of all of them together.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that lie together in one of several; none where there is only one.
    pub(super) fn stripe_bytes(&self) -> Option<u64> {
        (self.members.len() > 1).then_some(self.unit)
    }

    /// How many.
    pub(super) fn count(&self) -> usize {
        self.members.len()
    }

    /// One after the other.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.members.iter().map(|member| member.file.as_raw_fd())
    }

    /// The descriptor of one.
    pub(super) fn descriptor(&self, file: usize) -> RawFd {
        self.members[file].file.as_raw_fd()
    }

    /// The path of one.
    pub(super) fn path(&self, file: usize) -> &Path {
        &self.members[file].path
    }

    /// Where byte `at` is.
    pub(super) fn place(&self, at: u64) -> Place {
        place(self.members.len(), self.unit, at)
    }

    /// Whether an operation on `len` bytes at `at`, from or to memory at `address`, can be done.
    pub(super) fn check(&self, at: u64, len: u64, address: usize) -> Result<(), Error> {
        let end = at.saturating_add(len);
        let page = |number: u64| number.is_multiple_of(PAGE_BYTES);
        if page(at) && page(len) && page(address as u64) && end <= self.bytes {
            return Ok(());
        }
        Err(Error::Invalid { at, end, bytes: self.bytes })
    }
}

fn place(files: usize, unit: u64, at: u64) -> Place {
    let (number, within) = (at / unit, at % unit);
    let files = files as u64;
    Place {
        file: (number % files) as usize,
        offset: number / files * unit + within,
        run: unit - within,
    }
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.members.len() {
            1 => f.write_str(&self.name),
            count => write!(f, "{count} files in {}", self.name),
        }
    }
}

/// What the system's answer means for an operation on the disk's bytes from `at` on.
pub(super) fn error(errno: i32, at: u64, path: &Path) -> Error {
    let text = || format!("{}: {}", path.display(), io::Error::from_raw_os_error(errno));
    match errno {
        libc::ENOSPC | libc::EDQUOT => Error::NoSpace,
        libc::ENODEV | libc::ENXIO | libc::ENOMEDIUM | libc::EBADF | libc::ESHUTDOWN => {
            Error::Gone(text())
        }
        _ => Error::Io { at, text: text() },
    }
}

/// What it means that a file ends where there should be bytes.
pub(super) fn ended_early(at: u64, path: &Path) -> Error {
    Error::Io { at, text: format!("{}: the file ends there; it was cut short", path.display()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_round_robin_and_each_has_one_place() {
        let at = |at| {
            let place = place(3, 8192, at);
            (place.file, place.offset, place.run)
        };
        assert_eq!(at(0), (0, 0, 8192));
        assert_eq!(at(4096), (0, 4096, 4096));
        assert_eq!(at(8192), (1, 0, 8192));
        assert_eq!(at(3 * 8192), (0, 8192, 8192));
        assert_eq!(at(5 * 8192 + 1), (2, 8193, 8191));
        assert_eq!(place(1, 1 << 30, 5), Place { file: 0, offset: 5, run: (1 << 30) - 5 });
    }

    #[test]
    fn answers_of_the_system_are_told_apart() {
        let of = |errno| error(errno, 4096, Path::new("/a"));
        assert_eq!(of(libc::ENOSPC), Error::NoSpace);
        assert_eq!(of(libc::EDQUOT), Error::NoSpace);
        assert!(matches!(of(libc::ENODEV), Error::Gone(text) if text.contains("/a: ")));
        assert!(matches!(of(libc::EIO), Error::Io { at: 4096, text } if text.contains("/a: ")));
    }
}
