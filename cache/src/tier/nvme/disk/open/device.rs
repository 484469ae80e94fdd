//! Block devices.

use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use super::super::files::Member;
use super::claim::{device_use, explain, lock};
use super::file::{Trust, inspect};
use super::{OpenError, Options, Wanted};
use crate::tier::nvme::disk::PAGE_BYTES;

/// How long a device is tried that was closed maybe just now, and how often.
const LET_GO_WITHIN: Duration = Duration::from_secs(2);
const LET_GO_LOOK: Duration = Duration::from_millis(5);

/// Opens a device that nobody uses.
pub(super) fn open(
    path: &Path,
    wanted: Wanted,
    options: &Options,
    trust: Trust,
) -> Result<Member, OpenError> {
    let metadata = path.metadata().map_err(|error| explain(path, "open", error))?;
    let mounted = |what| OpenError::Mounted { path: path.into(), what };
    if let Some(what) = device_use(path, metadata.rdev()) {
        return Err(mounted(what));
    }
    // For a device O_EXCL keeps out whoever has it mounted or on a level above, in any namespace.
    let began = Instant::now();
    let mut file = loop {
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_CLOEXEC | libc::O_EXCL)
            .open(path);
        match opened {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                // Another disk of ours has it, or something that does not tell. What was closed just now
                // is let go of by the kernel a little later.
                if let Ok(file) = OpenOptions::new().read(true).open(path) {
                    lock(&file, path)?;
                }
                if began.elapsed() < LET_GO_WITHIN {
                    std::thread::sleep(LET_GO_LOOK);
                    continue;
                }
                return Err(mounted(
                    "in use by the system, or mounted in another namespace".to_owned(),
                ));
            }
            opened => break opened.map_err(|error| explain(path, "open", error))?,
        }
    };
    lock(&file, path)?;
    let block_bytes = rustix::fs::ioctl_blksszget(&file)
        .map_err(|errno| explain(path, "examine", errno.into()))?;
    if u64::from(block_bytes) > PAGE_BYTES {
        return Err(OpenError::Blocks { path: path.into(), block_bytes });
    }
    inspect(&file, path, options, trust)?;
    let has = file.seek(SeekFrom::End(0)).map_err(|error| explain(path, "examine", error))?;
    let bytes = wanted.of(path, has / PAGE_BYTES * PAGE_BYTES)?;
    Ok(Member { file, path: path.into(), bytes })
}
