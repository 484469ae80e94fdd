//! From a path to a disk: made if asked for, locked, checked, never overwritten.
//!
//! Not a byte is written to a file or device that holds something; what is made is made whole. Two
//! processes never have one of them at the same time.

mod claim;
mod device;
mod error;
mod file;
mod options;
mod signature;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::{FileType, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use self::claim::explain;
use self::file::Trust;
use super::files::{Files, Member};
use super::pool::Pool;
use super::schedule::Limits;
use super::uring::{Setup, Uring};
use super::{Disk, PAGE_BYTES};

pub use error::OpenError;
pub use file::name as file_in;
pub use options::{Engine, Options, Target};

/// Threads where io_uring is not to be had.
const THREADS: usize = 8;

/// How large the members are to be.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    /// As large as they are.
    All,
    /// So many bytes.
    Bytes(u64),
}

impl Wanted {
    /// The bytes to use of a member that has `has`.
    fn of(self, path: &Path, has: u64) -> Result<u64, OpenError> {
        let path = path.to_owned();
        match self {
            Self::All if has == 0 => Err(OpenError::TooSmall { path, has, wanted: PAGE_BYTES }),
            Self::All => Ok(has),
            Self::Bytes(wanted) if has < wanted => Err(OpenError::TooSmall { path, has, wanted }),
            Self::Bytes(wanted) => Ok(wanted),
        }
    }
}

/// Opens a disk.
///
/// # Errors
/// Why not, and what to do about it; nothing was written.
pub fn open(target: &Target, options: &Options) -> Result<Box<dyn Disk>, OpenError> {
    let files = members(target, options)?;
    let mut disk = engine(files, options)?;
    for memory in &options.memories {
        disk.register(memory);
    }
    tracing::info!("nvme device: {}", disk.describe());
    Ok(disk)
}

/// The files and devices, opened.
fn members(target: &Target, options: &Options) -> Result<Files, OpenError> {
    let Options { bytes, create, .. } = *options;
    let unit = target.unit_bytes;
    if !bytes.is_multiple_of(PAGE_BYTES) || target.paths.is_empty() {
        let text = format!(
            "a disk of {bytes} bytes in {} paths: a multiple of {PAGE_BYTES} is needed, and a path",
            target.paths.len()
        );
        return Err(OpenError::Size(text));
    }
    if unit == 0 || !unit.is_multiple_of(PAGE_BYTES) {
        return Err(OpenError::Size(format!(
            "stripes of {unit} bytes: a multiple of {PAGE_BYTES} is needed"
        )));
    }
    let mut plans = Vec::new();
    for path in &target.paths {
        plans.extend(plan(path, target, options)?);
    }
    let count = plans.len() as u64;
    // Equal parts, of whole units where there are several.
    let part = match (bytes, count) {
        (0, _) => Wanted::All,
        (bytes, 1) => Wanted::Bytes(bytes),
        (bytes, count) if bytes / count < unit => {
            let text = format!(
                "a disk of {bytes} bytes in {count} files: each needs at least one stripe of {unit}"
            );
            return Err(OpenError::Size(text));
        }
        (bytes, count) => Wanted::Bytes(bytes / count / unit * unit),
    };
    room(&plans, part, create)?;
    // The first says whose all of them are: what the others begin with is somewhere in the middle.
    if let [first, others @ ..] = &mut plans[..]
        && !others.is_empty()
        && first.found.is_some()
        && file::is_owned(&first.path, options)?
    {
        for plan in others {
            plan.trust = if plan.named { Trust::Named } else { Trust::Beside };
        }
    }
    // The last is made first: whoever finds the first of a directory finds all of them.
    let mut members = Vec::new();
    for plan in plans.iter().rev() {
        members.push(plan.open(part, options)?);
    }
    members.reverse();
    let mut direct = options.direct;
    for member in &members {
        direct = direct && file::go_direct(member)?;
    }
    Ok(Files::new(members, unit, direct, target.name()))
}

/// One file or device, before anything is done to it.
struct Plan {
    path: PathBuf,
    /// None if it is to be made.
    found: Option<Metadata>,
    /// It is one of the files of a directory.
    named: bool,
    trust: Trust,
}

impl Plan {
    fn new(path: PathBuf, found: Option<Metadata>) -> Self {
        Self { path, found, named: false, trust: Trust::Bytes }
    }

    /// One of the files of a directory.
    fn named(path: PathBuf, found: Option<Metadata>) -> Self {
        Self { named: true, ..Self::new(path, found) }
    }

    fn open(&self, part: Wanted, options: &Options) -> Result<Member, OpenError> {
        match (&self.found, part) {
            (Some(metadata), _) if metadata.file_type().is_block_device() => {
                device::open(&self.path, part, options, self.trust)
            }
            (Some(_), _) => file::open(&self.path, part, options, self.trust),
            (None, Wanted::Bytes(bytes)) => file::make(&self.path, bytes),
            (None, Wanted::All) => Err(OpenError::Missing { path: self.path.clone() }),
        }
    }
}

/// What there is at a path, or is to be.
fn plan(path: &Path, target: &Target, options: &Options) -> Result<Vec<Plan>, OpenError> {
    let Some(metadata) = look(path)? else {
        not_in_memory(&existing_parent(path, options)?, path)?;
        return Ok(vec![Plan::new(path.to_owned(), None)]);
    };
    let kind = metadata.file_type();
    if kind.is_dir() {
        not_in_memory(path, path)?;
        return directory(path, target, options);
    }
    if kind.is_file() {
        not_in_memory(path, path)?;
    } else if !kind.is_block_device() {
        return Err(OpenError::Kind { path: path.into(), what: name(kind) });
    }
    Ok(vec![Plan::new(path.to_owned(), Some(metadata))])
}

/// The files of a directory: those that are there, or else as many as are needed.
fn directory(path: &Path, target: &Target, options: &Options) -> Result<Vec<Plan>, OpenError> {
    let mut plans = Vec::new();
    if look(&file::name(path, 0))?.is_some() {
        for number in 0.. {
            let path = file::name(path, number);
            let Some(metadata) = look(&path)? else { break };
            plans.push(Plan::named(path, Some(metadata)));
        }
        return Ok(plans);
    }
    if !options.create || options.bytes == 0 {
        return Err(OpenError::Missing { path: file::name(path, 0) });
    }
    let share = options.bytes / target.paths.len() as u64;
    for number in 0..share.div_ceil(target.file_bytes.max(target.unit_bytes)).max(1) {
        let path = file::name(path, number as usize);
        // Those of an attempt that did not come to its end are whole, and blank.
        let found = look(&path)?;
        plans.push(Plan::named(path, found));
    }
    Ok(plans)
}

fn look(path: &Path) -> Result<Option<Metadata>, OpenError> {
    match path.metadata() {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(explain(path, "open", error)),
    }
}

/// Where a file is to be made.
fn existing_parent(path: &Path, options: &Options) -> Result<PathBuf, OpenError> {
    let parent = file::parent(path);
    if !options.create || options.bytes == 0 {
        return Err(OpenError::Missing { path: path.into() });
    }
    match look(parent)? {
        Some(metadata) if metadata.is_dir() => Ok(parent.to_owned()),
        _ => Err(OpenError::NoParent { path: path.into(), parent: parent.into() }),
    }
}

fn name(kind: FileType) -> &'static str {
    match () {
        () if kind.is_char_device() => "a character device",
        () if kind.is_fifo() => "a pipe",
        () if kind.is_socket() => "a socket",
        () => "something else",
    }
}

/// Refuses file systems that keep their files in memory.
fn not_in_memory(place: &Path, path: &Path) -> Result<(), OpenError> {
    const RAMFS_MAGIC: u32 = 0x8584_58f6;
    let stat = rustix::fs::statfs(place).map_err(|errno| explain(path, "examine", errno.into()))?;
    let system = match stat.f_type as u32 {
        magic if magic == libc::TMPFS_MAGIC as u32 => "tmpfs",
        magic if magic == libc::HUGETLBFS_MAGIC as u32 => "hugetlbfs",
        RAMFS_MAGIC => "ramfs",
        _ => return Ok(()),
    };
    Err(OpenError::InMemory { path: path.into(), system })
}

/// Whether what is to be made fits, each file system on its own.
fn room(plans: &[Plan], part: Wanted, create: bool) -> Result<(), OpenError> {
    let Wanted::Bytes(bytes) = part else { return Ok(()) };
    let mut systems = BTreeMap::new();
    for Plan { path, found, .. } in plans {
        let made = match found {
            None => true,
            Some(metadata) => create && metadata.is_file() && metadata.len() == 0,
        };
        if made {
            let parent = file::parent(path);
            let metadata = parent.metadata().map_err(|error| explain(path, "make", error))?;
            systems.entry(metadata.dev()).or_insert((parent, path, 0)).2 += bytes;
        }
    }
    for (parent, path, wanted) in systems.into_values() {
        let free =
            file::free_bytes(parent).map_err(|errno| explain(path, "examine", errno.into()))?;
        if wanted > free {
            return Err(OpenError::NoSpace { path: path.clone(), wanted, free });
        }
    }
    Ok(())
}

/// The engine for these files.
fn engine(files: Files, options: &Options) -> Result<Box<dyn Disk>, OpenError> {
    let (files, why) = match uring(files, options) {
        Ok(disk) => return Ok(disk),
        Err(refused) => refused,
    };
    if options.engine == Engine::Uring {
        return Err(OpenError::Engine(why));
    }
    if options.engine == Engine::Auto {
        tracing::warn!("{files}: {why}; threads read and write, for more processor time");
    }
    let path = files.path(0).to_owned();
    let depth = options.limits.depth.min(THREADS);
    let pool = Pool::new(files, Limits { depth, ..options.limits }, why);
    pool.map(|pool| Box::new(pool) as Box<dyn Disk>).map_err(|source| OpenError::System {
        path,
        doing: "starting threads",
        source,
    })
}

/// A disk of io_uring, or why not.
fn uring(files: Files, options: &Options) -> Result<Box<dyn Disk>, (Files, String)> {
    if options.engine == Engine::Threads {
        return Err((files, "as asked for".to_owned()));
    }
    if !files.direct {
        let why = if options.direct { "the file system takes no O_DIRECT" } else { "as asked for" };
        return Err((files, why.to_owned()));
    }
    let mut setup = Setup::new(options.limits);
    let mut notes = Vec::new();
    setup.wish.sqpoll = options.sqpoll;
    if options.iopoll {
        match super::probe::iopoll(files.descriptor(0)) {
            Ok(()) => (setup.wish.iopoll, setup.two_rings) = (true, true),
            Err(why) => notes.push(format!("no IOPOLL: {why}")),
        }
    }
    for note in &notes {
        tracing::warn!("{files}: {note}");
    }
    let (files, error) = match Uring::new(files, setup, notes.clone()) {
        Ok(disk) => return Ok(Box::new(disk)),
        Err(refused) => refused,
    };
    if !setup.wish.sqpoll {
        return Err((files, super::probe::refusal(&error)));
    }
    // The ring itself may be to be had.
    let note = format!("no SQPOLL: {error}");
    tracing::warn!("{files}: {note}");
    notes.push(note);
    setup.wish.sqpoll = false;
    match Uring::new(files, setup, notes) {
        Ok(disk) => Ok(Box::new(disk)),
        Err((files, error)) => Err((files, super::probe::refusal(&error))),
    }
}

/// Ways in for tests.
#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// A disk of io_uring that is set up in a way of its own.
    pub(in super::super) fn uring(
        target: &Target,
        options: &Options,
        change: fn(&mut Setup),
    ) -> Result<Box<dyn Disk>, String> {
        let files = members(target, options).map_err(|error| error.to_string())?;
        let mut setup = Setup::new(options.limits);
        change(&mut setup);
        let disk = Uring::new(files, setup, Vec::new());
        let mut disk = disk.map_err(|(_, error)| error.to_string())?;
        for memory in &options.memories {
            disk.register(memory);
        }
        Ok(Box::new(disk))
    }
}
