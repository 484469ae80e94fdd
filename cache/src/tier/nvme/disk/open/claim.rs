//! That nobody else uses a file or a device.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock, major, minor};
use rustix::io::Errno;

use super::OpenError;

/// How long a lock whose holder has died is waited for, and how often it is tried.
const DEAD_WITHIN: Duration = Duration::from_secs(10);
const DEAD_LOOK: Duration = Duration::from_millis(5);

/// Locks a file, until it is closed.
///
/// The kernel closes the files of a process that was killed only once what its io_uring had in flight has
/// ended, which may be a while after the process is gone: that is waited for.
pub(super) fn lock(file: &File, path: &Path) -> Result<(), OpenError> {
    let began = Instant::now();
    loop {
        return match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(()),
            Err(Errno::INTR) => continue,
            Err(Errno::WOULDBLOCK) => {
                let pid = holder(file);
                if pid.is_none_or(is_dead) && began.elapsed() < DEAD_WITHIN {
                    std::thread::sleep(DEAD_LOOK);
                    continue;
                }
                Err(OpenError::InUse { path: path.into(), holder: name(pid) })
            }
            Err(errno) => {
                Err(OpenError::System { path: path.into(), doing: "locking", source: errno.into() })
            }
        };
    }
}

/// Who has locked a file: proc_locks(5). None when that is not told, as when the lock was just let go.
fn holder(file: &File) -> Option<u32> {
    let metadata = file.metadata().ok()?;
    let (device, inode) = (metadata.dev(), metadata.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let id = format!("{:02x}:{:02x}:{inode}", major(device), minor(device));
    let line = locks.lines().find(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some("FLOCK") && words.nth(3) == Some(&id)
    })?;
    line.split_whitespace().nth(4)?.parse().ok()
}

/// Whether a process has ended, even if its parent has not asked how.
fn is_dead(pid: u32) -> bool {
    if pid == 0 {
        return false;
    }
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    // After the name, which may hold anything.
    let state = stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
    matches!(state, Some('Z' | 'X'))
}

fn name(pid: Option<u32>) -> String {
    match pid {
        None => "another process".to_owned(),
        Some(0) => "a process of another container".to_owned(),
        Some(pid) if pid == std::process::id() => format!("this process (pid {pid})"),
        Some(pid) => format!("another process (pid {pid})"),
    }
}

/// What a block device is used for, as far as the system tells.
pub(super) fn device_use(path: &Path, device: u64) -> Option<String> {
    let id = format!("{}:{}", major(device), minor(device));
    let name = fs::canonicalize(path).unwrap_or_else(|_| path.into());
    let name = name.to_string_lossy();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounted = mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (number, at) = (words.nth(2)?, words.nth(1)?);
        let source = line.split(" - ").nth(1)?.split(' ').nth(1)?;
        (number == id || source == name).then(|| format!("mounted at {at}"))
    });
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let swap = || {
        let swap = swaps.lines().any(|line| line.split_whitespace().next() == Some(&*name));
        swap.then(|| "used for swapping".to_owned())
    };
    let holders = || {
        let mut holders = fs::read_dir(format!("/sys/dev/block/{id}/holders")).ok()?;
        let holder = holders.next()?.ok()?;
        Some(format!("a part of {}", holder.file_name().to_string_lossy()))
    };
    mounted.or_else(swap).or_else(holders)
}

/// An error of the system, in words of ours where there are some.
pub(super) fn explain(path: &Path, doing: &'static str, source: io::Error) -> OpenError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied => {
            OpenError::Denied { path, doing, user: rustix::process::geteuid().as_raw() }
        }
        io::ErrorKind::NotFound => OpenError::Missing { path },
        _ => OpenError::System { path, doing, source },
    }
}
