//! Transfers, and the large ones that are moved chunk by chunk.

use std::sync::Arc;

use super::crossing::{
    Chunk, Crossing, LOOK_EVERY_BYTES, LOOK_EVERY_PAGED_BYTES, POLLER, POLLER_CHUNK_BYTES,
    POOL_CHUNK_BYTES,
};
use super::route::Route;
use crate::fabric::{Local, OpId, PeerId, Remote, Status};
use crate::immediate::Immediate;
use crate::lane::Lane;
use crate::outcome::Reason;
use crate::pages::Plan;
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
#[derive(Debug, Clone)]
pub(super) struct Transfer {
    pub(super) lane: Lane,
    pub(super) direction: Direction,
    pub(super) local: Local,
    pub(super) remote: Remote,
    pub(super) pages: Option<Plan>,
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
}

/// A large transfer.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) op: OpId,
    pub(super) peer: PeerId,
    pub(super) lane: Lane,
    pub(super) immediate: Option<Immediate>,
    crossing: Arc<Crossing>,
    route: Route,
    /// Chunks that have to come back.
    out: u32,
    len: u64,
    copied: u64,
    stop: Option<Reason>,
}

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
        transfer: &Transfer,
        crossing: Arc<Crossing>,
        route: Route,
    ) -> Self {
        let (lane, immediate) = (transfer.lane, transfer.immediate);
        let len = route.left();
        Self { op, peer, lane, immediate, crossing, route, out: 0, len, copied: 0, stop: None }
    }

    pub(super) fn stage(&self) -> Stage {
        match self.stop {
            _ if self.copied == self.len => Stage::Copied,
            _ if self.out > 0 && (self.stop.is_some() || self.route.left() == 0) => Stage::Awaiting,
            Some(reason) if self.copied == 0 => Stage::Ended(Status::Refused(reason)),
            Some(reason) => Stage::Ended(Status::Stopped(reason)),
            None => Stage::Copying,
        }
    }

    /// The next chunk, for another thread; it has to come back.
    pub(super) fn issue(&mut self) -> Chunk {
        let route = self.route.clone();
        let len = self.route.skip(POOL_CHUNK_BYTES);
        self.out += 1;
        Chunk { op: self.op, crossing: Arc::clone(&self.crossing), route, len }
    }

    /// Copies the next chunk on the thread that polls, or the beginning of it if `wanted` says that
    /// there is something more urgent.
    ///
    /// # Safety
    /// The caller is the thread that polls, and both memories are valid: the engine keeps its own,
    /// the crossing the peer's.
    pub(super) unsafe fn copy(&mut self, mut wanted: impl FnMut() -> bool) {
        let route = &mut self.route;
        let copied = self.crossing.cross(POLLER, || {
            let step = if route.is_paged() { LOOK_EVERY_PAGED_BYTES } else { LOOK_EVERY_BYTES };
            let mut batch = route.batch();
            let mut copied = 0;
            loop {
                // SAFETY: passed on from the caller; the batch is dropped before the claim is.
                copied += unsafe { route.feed(&mut batch, step) };
                if route.left() == 0 || copied >= POLLER_CHUNK_BYTES {
                    return copied;
                }
                batch.copy_waiting();
                if wanted() {
                    return copied;
                }
            }
        });
        match copied {
            Some(len) => self.copied += len,
            None => self.stop(Reason::Stale),
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
