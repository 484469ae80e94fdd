//! Why there is no disk.

use std::io;
use std::path::PathBuf;

/// Why a disk could not be opened, and what to do about it. Nothing was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Sizes that make no disk.
    #[error("{0}")]
    Size(String),
    /// Not there, and not to be made.
    #[error("{}: no such file; let it be made, or name one that is there", path.display())]
    Missing {
        /// Where.
        path: PathBuf,
    },
    /// No directory to make it in.
    #[error("{}: there is no directory {}; mkdir -p makes it", path.display(), parent.display())]
    NoParent {
        /// What was to be made.
        path: PathBuf,
        /// What is missing.
        parent: PathBuf,
    },
    /// Not allowed.
    #[error(
        "{}: user {user} may not {doing} it; chown or chmod it, or run as somebody who may",
        path.display()
    )]
    Denied {
        /// Where.
        path: PathBuf,
        /// `open` or `make`.
        doing: &'static str,
        /// Who.
        user: u32,
    },
    /// Somebody has it.
    #[error("{} is in use by {holder}; stop that, or use another path", path.display())]
    InUse {
        /// Where.
        path: PathBuf,
        /// By whom, as far as it is known.
        holder: String,
    },
    /// A device that has a use already.
    #[error("{} is {what}; unmount or detach it if it may be overwritten, or use another", path.display())]
    Mounted {
        /// The device.
        path: PathBuf,
        /// `mounted at /data`.
        what: String,
    },
    /// Something else is in it.
    #[error(
        "{} holds {what}; use another, or, if nothing in it is needed, remove it (of a device, zero the first and \
         the last MiB)",
        path.display()
    )]
    Foreign {
        /// Where.
        path: PathBuf,
        /// What.
        what: String,
    },
    /// Shorter than asked for.
    #[error(
        "{} has {}, {} are asked for; ask for no more than it has, or have it made anew in another place",
        path.display(),
        bytes(*has),
        bytes(*wanted)
    )]
    TooSmall {
        /// Where.
        path: PathBuf,
        /// Bytes there are.
        has: u64,
        /// Bytes asked for.
        wanted: u64,
    },
    /// The file system has not so much room.
    #[error(
        "{}: {} do not fit, the file system has {} free; ask for less or free some",
        path.display(),
        bytes(*wanted),
        bytes(*free)
    )]
    NoSpace {
        /// Where.
        path: PathBuf,
        /// Bytes to be allocated.
        wanted: u64,
        /// Bytes available to us.
        free: u64,
    },
    /// On a file system that keeps files in memory.
    #[error("{} lies on {system}, which is memory; use a path on a disk", path.display())]
    InMemory {
        /// Where.
        path: PathBuf,
        /// Its name.
        system: &'static str,
    },
    /// Neither a file nor a directory nor a block device.
    #[error("{} is {what}; name a file, a directory or a block device", path.display())]
    Kind {
        /// Where.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The device works in larger units than our pages.
    #[error("{} has blocks of {} bytes, at most 4096 can be used; use another device", path.display(), block_bytes)]
    Blocks {
        /// The device.
        path: PathBuf,
        /// Its blocks.
        block_bytes: u32,
    },
    /// The engine that was asked for cannot be had.
    #[error("{0}; let the engine be chosen, or do that")]
    Engine(String),
    /// The system refused something else.
    #[error("{}: {doing}: {source}", path.display())]
    System {
        /// Where.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Bytes in the unit that fits.
fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let power = bytes.max(1).ilog2() / 10;
    let (unit, whole) = (UNITS[power as usize], bytes >> (10 * power));
    let tenth = ((u128::from(bytes) * 10) >> (10 * power)) % 10;
    if tenth == 0 { format!("{whole} {unit}") } else { format!("{whole}.{tenth} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_in_the_unit_that_fits() {
        assert_eq!(bytes(4096), "4 KiB");
        assert_eq!(bytes((3 << 30) + (512 << 20)), "3.5 GiB");
        assert_eq!(bytes(0), "0 B");
    }
}
