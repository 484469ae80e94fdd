//! What this machine can do for a disk.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

use io_uring::{IoUring, opcode, types};
use rustix::fs::{Mode, OFlags};
use tranship_transport::memory::HostMemory;

use super::PAGE_BYTES;

/// What was found.
#[derive(Debug)]
pub struct Probe {
    /// io_uring, or why not.
    pub uring: Result<(), String>,
    /// Memory can be registered with it, or why not.
    pub registered: Result<(), String>,
    /// The directory's file system lets reads and writes past the page cache, or why not.
    pub direct: Result<(), String>,
    /// The device below it can be asked for completions, or why not.
    pub iopoll: Result<(), String>,
}

/// Looks at this machine, and at the device and file system of `directory`.
#[must_use]
pub fn probe(directory: &Path) -> Probe {
    let uring = IoUring::new(4).map_err(|error| refusal(&error));
    let registered = match &uring {
        Ok(ring) => register(ring),
        Err(_) => Err("no io_uring".to_owned()),
    };
    let file = scratch(directory);
    let iopoll = match (&uring, &file) {
        (Err(_), _) => Err("no io_uring".to_owned()),
        (_, Err(why)) => Err(why.clone()),
        (Ok(_), Ok(file)) => iopoll(file.as_raw_fd()),
    };
    Probe { uring: uring.map(drop), registered, direct: file.map(drop), iopoll }
}

/// Why the system gives no ring, and what to do.
pub(super) fn refusal(error: &io::Error) -> String {
    let remedy = match error.raw_os_error() {
        Some(libc::ENOSYS) => "it is not in this kernel, or a sandbox hides it",
        Some(libc::EPERM | libc::EACCES) => {
            let setting = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
            match setting.as_deref().map(str::trim) {
                Ok("1" | "2") => "sysctl kernel.io_uring_disabled=0 allows it",
                _ => {
                    "a sandbox denies it: allow io_uring_setup, io_uring_enter and io_uring_register"
                }
            }
        }
        Some(libc::ENOMEM) => "raise the memlock limit: ulimit -l unlimited",
        Some(libc::EMFILE) => "raise the limit of open files: ulimit -n",
        _ => "see io_uring_setup(2)",
    };
    format!("no io_uring: {error}; {remedy}")
}

/// Whether completions can be asked for on the device of a file opened for direct reads, by reading
/// its first page.
pub(super) fn iopoll(file: RawFd) -> Result<(), String> {
    let ring: io::Result<IoUring> = IoUring::builder().setup_iopoll().build(4);
    let mut ring = ring.map_err(|error| refusal(&error))?;
    let page = HostMemory::new(PAGE_BYTES as usize).build().map_err(|error| error.to_string())?;
    let read = opcode::Read::new(types::Fd(file), page.as_ptr(), PAGE_BYTES as u32).build();
    #[expect(unsafe_code, reason = "the kernel reads into memory by address")]
    // SAFETY: the page stays mapped until the completion was seen, or for ever.
    let pushed = unsafe { ring.submission().push(&read) };
    pushed.map_err(|error| error.to_string())?;
    let answer = loop {
        let entered = ring.submit_and_wait(1);
        if let Some(entry) = ring.completion().next() {
            break entry.result();
        }
        match entered {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                std::mem::forget(page);
                return Err(error.to_string());
            }
            _ => {}
        }
    };
    match -answer {
        libc::EOPNOTSUPP => {
            Err("the device has no poll queues (nvme.poll_queues=N on the kernel's \
                                 command line gives an NVMe drive some)"
                .to_owned())
        }
        errno if errno > 0 => Err(io::Error::from_raw_os_error(errno).to_string()),
        _ => Ok(()),
    }
}

fn register(ring: &IoUring) -> Result<(), String> {
    const BYTES: usize = 64 << 10;
    let memory = HostMemory::new(BYTES).build().map_err(|error| error.to_string())?;
    let buffer = [libc::iovec { iov_base: memory.as_ptr().cast(), iov_len: BYTES }];
    #[expect(unsafe_code, reason = "the kernel pins memory by address")]
    // SAFETY: no operation uses what is registered, and it is mapped while it is being pinned.
    let registered = unsafe { ring.submitter().register_buffers(&buffer) };
    registered.map_err(|error| error.to_string())
}

/// A nameless file of a page, for direct reads.
fn scratch(directory: &Path) -> Result<std::fs::File, String> {
    let failed = |what: &str, errno: rustix::io::Errno| {
        format!("{} in {}: {}", what, directory.display(), io::Error::from(errno))
    };
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::TMPFILE;
    let file = rustix::fs::open(directory, flags | OFlags::DIRECT, Mode::RUSR | Mode::WUSR)
        .map_err(|errno| failed("no direct file", errno))?;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, PAGE_BYTES)
        .map_err(|errno| failed("no room", errno))?;
    Ok(file.into())
}
