//! Transfers, and the large ones that are moved chunk by chunk.

use std::sync::Arc;

use super::crossing::{CHUNK_BYTES, Chunk, Crossing};
use crate::fabric::{Local, OpId, PeerId, Remote, Status};
use crate::immediate::Immediate;
use crate::outcome::Reason;
use crate::window::Access;

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// To the peer.
    Write,
    /// From the peer.
    Read,
}

/// A write or a read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Transfer {
    pub(super) direction: Direction,
    pub(super) local: Local,
    pub(super) remote: Remote,
    pub(super) immediate: Option<Immediate>,
}

impl Transfer {
    /// The right it takes.
    pub(super) fn needs(&self) -> Access {
        match self.direction {
            Direction::Write => Access::WRITE,
            Direction::Read => Access::READ,
        }
    }

    /// Source and destination, with the peer's end of it at `there`.
    pub(super) fn ends(&self, there: *mut u8) -> (*const u8, *mut u8) {
        match self.direction {
            Direction::Write => (self.local.ptr.cast_const(), there),
            Direction::Read => (there.cast_const(), self.local.ptr),
        }
    }
}

/// A large transfer.
#[derive(Debug)]
pub(super) struct Job {
    /// Set by the list of jobs.
    pub(super) id: u64,
    pub(super) op: OpId,
    pub(super) peer: PeerId,
    pub(super) immediate: Option<Immediate>,
    crossing: Arc<Crossing>,
    src: *const u8,
    dst: *mut u8,
    len: u64,
    issued: u64,
    out: u64,
    copied: u64,
    stop: Option<Reason>,
}

// SAFETY: the pointers are to memory that the engine (its own side) and the crossing (the peer's)
// keep until the job ends.
unsafe impl Send for Job {}

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// More chunks can be issued.
    Copying,
    /// Chunks are out; there is nothing to do before they come back.
    Awaiting,
    /// All bytes are in place.
    Copied,
    /// It was stopped; no chunk is out.
    Ended(Status),
}

impl Job {
    pub(super) fn new(
        op: OpId,
        peer: PeerId,
        crossing: Arc<Crossing>,
        (src, dst, len): (*const u8, *mut u8, u64),
        immediate: Option<Immediate>,
    ) -> Self {
        Self {
            id: 0,
            op,
            peer,
            immediate,
            crossing,
            src,
            dst,
            len,
            issued: 0,
            out: 0,
            copied: 0,
            stop: None,
        }
    }

    pub(super) fn stage(&self) -> Stage {
        match self.stop {
            _ if self.copied == self.len => Stage::Copied,
            _ if self.out > 0 && (self.stop.is_some() || self.issued == self.len) => {
                Stage::Awaiting
            }
            Some(reason) if self.copied == 0 => Stage::Ended(Status::Refused(reason)),
            Some(reason) => Stage::Ended(Status::Stopped(reason)),
            None => Stage::Copying,
        }
    }

    /// The next chunk; it has to come back.
    pub(super) fn issue(&mut self) -> Chunk {
        let left = self.len - self.issued;
        let len = if left <= CHUNK_BYTES + CHUNK_BYTES / 2 { left } else { CHUNK_BYTES };
        let at = self.issued as usize;
        self.issued += len;
        self.out += 1;
        Chunk {
            job: self.id,
            crossing: Arc::clone(&self.crossing),
            src: self.src.wrapping_add(at),
            dst: self.dst.wrapping_add(at),
            len,
        }
    }

    /// A chunk has come back.
    pub(super) fn take_back(&mut self, len: u64, copied: bool) {
        self.out -= 1;
        if copied {
            self.copied += len;
        } else {
            self.stop(Reason::Stale);
        }
    }

    /// Issues no more.
    pub(super) fn stop(&mut self, reason: Reason) {
        self.stop.get_or_insert(reason);
    }
}
