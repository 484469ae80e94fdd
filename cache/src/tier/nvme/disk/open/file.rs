//! Regular files: made whole or not at all, and never written to when they hold something.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

use super::super::files::Member;
use super::claim::{explain, lock};
use super::{OpenError, Options, Wanted, signature};
use crate::tier::nvme::disk::PAGE_BYTES;

/// What speaks for a file or a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// Nothing but what it holds.
    Bytes,
    /// It lies beside the first of several, which is the caller's, under a path that somebody chose.
    Beside,
    /// The same, under a name that only files of ours have.
    Named,
}

/// Whether the first page of a file or device is the caller's own.
pub(super) fn is_owned(path: &Path, options: &Options) -> Result<bool, OpenError> {
    let Some(ours) = options.ours else { return Ok(false) };
    let file = OpenOptions::new().read(true).custom_flags(libc::O_CLOEXEC).open(path);
    let file = file.map_err(|error| explain(path, "open", error))?;
    Ok(ours(&head(&file, path, PAGE_BYTES as usize)?))
}

/// The first bytes of a file, as far as it has so many.
fn head(file: &File, path: &Path, bytes: usize) -> Result<Vec<u8>, OpenError> {
    let mut head = vec![0; bytes];
    let mut len = 0;
    while len < head.len() {
        match file.read_at(&mut head[len..], len as u64) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(explain(path, "read", error)),
        }
    }
    head.truncate(len);
    Ok(head)
}

/// Looks at what a file or a device holds, and refuses what is somebody else's.
pub(super) fn inspect(
    file: &File,
    path: &Path,
    options: &Options,
    trust: Trust,
) -> Result<(), OpenError> {
    if trust == Trust::Named {
        return Ok(());
    }
    let head = head(file, path, signature::HEAD_BYTES)?;
    // What is written further on is the owner's, and may look like anything.
    let page = &head[..head.len().min(PAGE_BYTES as usize)];
    let foreign = |what: &str| OpenError::Foreign { path: path.into(), what: what.to_owned() };
    match options.ours {
        Some(ours) if ours(page) => return Ok(()),
        _ => {}
    }
    if let Some(what) = signature::recognise(&head) {
        return Err(foreign(what));
    }
    // Behind the first of several anything may lie at the start.
    let alone = trust == Trust::Bytes && options.ours.is_some();
    if alone && page.iter().any(|byte| *byte != 0) {
        return Err(foreign("something that is not Tranship's"));
    }
    Ok(())
}

/// Opens a file that is there.
pub(super) fn open(
    path: &Path,
    wanted: Wanted,
    options: &Options,
    trust: Trust,
) -> Result<Member, OpenError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(path)
        .map_err(|error| explain(path, "open", error))?;
    lock(&file, path)?;
    let has = file.metadata().map_err(|error| explain(path, "open", error))?.len();
    if let (0, true, Wanted::Bytes(made)) = (has, options.create, wanted) {
        allocate(&file, path, made).inspect_err(|_| {
            // Empty it was, and empty it stays.
            let _ = file.set_len(0);
        })?;
        return Ok(Member { file, path: path.into(), bytes: made });
    }
    inspect(&file, path, options, trust)?;
    let bytes = wanted.of(path, has / PAGE_BYTES * PAGE_BYTES)?;
    Ok(Member { file, path: path.into(), bytes })
}

/// Makes a file. It gets its name when it has its whole size, so that one that is there is whole.
pub(super) fn make(path: &Path, bytes: u64) -> Result<Member, OpenError> {
    let parent = parent(path);
    let failed = |error: Errno| explain(path, "make", error.into());
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let nameless = rustix::fs::open(parent, flags | OFlags::TMPFILE, mode);
    let (file, named) = match nameless {
        Ok(file) => (File::from(file), false),
        // Not on this file system.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
            let flags = flags | OFlags::CREATE | OFlags::EXCL;
            (File::from(rustix::fs::open(path, flags, mode).map_err(failed)?), true)
        }
        Err(error) => return Err(failed(error)),
    };
    let made = lock(&file, path).and_then(|()| allocate(&file, path, bytes));
    if let Err(error) = made {
        if named {
            let _ = std::fs::remove_file(path);
        }
        return Err(error);
    }
    if !named {
        use std::os::fd::AsRawFd;
        let from = format!("/proc/self/fd/{}", file.as_raw_fd());
        rustix::fs::linkat(CWD, from, CWD, path, AtFlags::SYMLINK_FOLLOW).map_err(failed)?;
    }
    // The name is to survive a crash, as what is flushed later will.
    let parent = File::open(parent).and_then(|parent| parent.sync_all());
    parent.map_err(|error| explain(path, "make", error))?;
    Ok(Member { file, path: path.into(), bytes })
}

/// Gives a file that is empty its size and, where the file system can, its room.
fn allocate(file: &File, path: &Path, bytes: u64) -> Result<(), OpenError> {
    loop {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
            Err(Errno::INTR) => {}
            Err(Errno::NOSPC | Errno::DQUOT) => {
                let free = free_bytes(parent(path)).unwrap_or(0);
                return Err(OpenError::NoSpace { path: path.into(), wanted: bytes, free });
            }
            Err(Errno::OPNOTSUPP) => {
                tracing::warn!(
                    "{}: the file system allocates nothing in advance; writes may find it full",
                    path.display()
                );
                file.set_len(bytes).map_err(|error| explain(path, "size", error))?;
                break;
            }
            Err(errno) => return Err(explain(path, "size", errno.into())),
            Ok(()) => break,
        }
    }
    file.sync_all().map_err(|error| explain(path, "size", error))
}

/// The directory that a file is in.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    }
}

/// What the file system of a directory has left for us.
pub(super) fn free_bytes(directory: &Path) -> Result<u64, Errno> {
    rustix::fs::statvfs(directory).map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Reads and writes go past the page cache from now on; false where the file system cannot.
pub(super) fn go_direct(member: &Member) -> Result<bool, OpenError> {
    let flags = rustix::fs::fcntl_getfl(&member.file).map(|flags| flags - OFlags::NONBLOCK);
    let set = flags.and_then(|flags| rustix::fs::fcntl_setfl(&member.file, flags | OFlags::DIRECT));
    match set {
        Ok(()) => Ok(true),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(false),
        Err(errno) => Err(explain(&member.path, "open", errno.into())),
    }
}

/// The path of a file of a disk that is a directory; they are numbered from 0.
#[must_use]
pub fn name(directory: &Path, number: usize) -> PathBuf {
    directory.join(format!("tranship-{number:04}.nvme"))
}
