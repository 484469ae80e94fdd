//! What is to be opened, and how.

use std::path::PathBuf;
use std::sync::Arc;

use tranship_transport::memory::Memory;

use super::super::schedule::Limits;

/// Bytes that lie together in one file of several, if nothing else is said.
const UNIT_BYTES: u64 = 64 << 20;
/// Bytes of one file in a directory, if nothing else is said.
const FILE_BYTES: u64 = 1 << 30;
/// Pieces that a device has at once.
const DEPTH: usize = 64;
/// Bytes of one piece: what does not fit the device in one go is for the kernel to split.
const PIECE_BYTES: u64 = 4 << 20;
/// Operations that wait in each lane.
const ROOM: usize = 512;
/// Where a disk is: a file, a directory of files, or a block device, or several of them.
#[derive(Clone, Debug)]
pub struct Target {
    pub(super) paths: Vec<PathBuf>,
    pub(super) unit_bytes: u64,
    pub(super) file_bytes: u64,
}

impl Target {
    /// A file, a directory or a block device. What does not exist is a file.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self::several([path.into()])
    }

    /// Files or block devices on several devices, or directories; always in the same order.
    #[must_use]
    pub fn several(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let paths = paths.into_iter().collect();
        Self { paths, unit_bytes: UNIT_BYTES, file_bytes: FILE_BYTES }
    }

    /// Where there are several files, so many bytes lie together in one before the next has its turn:
    /// the log's segment. Always the same for what is there already.
    #[must_use]
    pub fn unit(mut self, bytes: u64) -> Self {
        self.unit_bytes = bytes;
        self
    }

    /// The size of the files that are made in a directory.
    #[must_use]
    pub fn file_bytes(mut self, bytes: u64) -> Self {
        self.file_bytes = bytes;
        self
    }

    pub(super) fn name(&self) -> String {
        let paths: Vec<_> = self.paths.iter().map(|path| path.display().to_string()).collect();
        paths.join(", ")
    }
}

/// What reads and writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// io_uring where it is to be had, otherwise threads, which is announced.
    #[default]
    Auto,
    /// io_uring, or no disk.
    Uring,
    /// Threads.
    Threads,
}

/// How a disk is opened.
#[derive(Clone, Debug)]
pub struct Options {
    pub(super) bytes: u64,
    pub(super) create: bool,
    pub(super) memories: Vec<Arc<Memory>>,
    pub(super) engine: Engine,
    pub(super) direct: bool,
    pub(super) sqpoll: bool,
    pub(super) iopoll: bool,
    pub(super) ours: Option<fn(&[u8]) -> bool>,
    pub(super) limits: Limits,
}

impl Options {
    /// A disk of `bytes` bytes, a multiple of [`PAGE_BYTES`](super::super::PAGE_BYTES); 0 for all that is there. With several
    /// files it is rounded down to what they can share equally.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self {
            bytes,
            create: false,
            memories: Vec::new(),
            engine: Engine::Auto,
            direct: true,
            sqpoll: false,
            iopoll: false,
            ours: None,
            limits: Limits { depth: DEPTH, piece_bytes: PIECE_BYTES, room: ROOM },
        }
    }

    /// Makes what does not exist, and gives an empty file its size.
    #[must_use]
    pub fn create(mut self) -> Self {
        self.create = true;
        self
    }

    /// Memories that spans will lie in, to be [registered](super::super::Disk::register) at once.
    #[must_use]
    pub fn memories(mut self, memories: impl IntoIterator<Item = Arc<Memory>>) -> Self {
        self.memories.extend(memories);
        self
    }

    /// What reads and writes.
    #[must_use]
    pub fn engine(mut self, engine: Engine) -> Self {
        self.engine = engine;
        self
    }

    /// Goes through the page cache, with threads, even if the file system could do otherwise.
    #[must_use]
    pub fn buffered(mut self) -> Self {
        self.direct = false;
        self
    }

    /// Lets a kernel thread take submissions: no calls, for most of a core. Only where that works.
    #[must_use]
    pub fn sqpoll(mut self) -> Self {
        self.sqpoll = true;
        self
    }

    /// Asks the device for completions instead of having it interrupt. Only where that works; waiting
    /// then takes a whole core.
    #[must_use]
    pub fn iopoll(mut self) -> Self {
        self.iopoll = true;
        self
    }

    /// Tells from the first page of a file or device, which may be shorter than a page, whether it is
    /// the caller's own. Then nothing else of it is looked at; what is neither own nor blank is refused.
    #[must_use]
    pub fn ours(mut self, ours: fn(&[u8]) -> bool) -> Self {
        self.ours = Some(ours);
        self
    }

    /// Pieces that the device is given at once, or threads; 64 and 8 if nothing is said.
    #[must_use]
    pub fn depth(mut self, depth: usize) -> Self {
        self.limits.depth = depth.max(1);
        self
    }
}
