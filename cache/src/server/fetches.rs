//! Gets by one-sided write: the daemon writes leased blocks straight from the arena into the
//! caller's window, and answers when every write has ended.

use tranship_transport::{Descriptor, Outcome as Sent, Peer, Reason, RemoteWindow, Slot, Transfer};

use super::Server;
use crate::block::{Lease, Outcome, View};
use crate::key::Key;
use crate::store::Scope;
use crate::time::Millis;
use crate::wire::{Fault, FaultCode, Fetched, Reply};

/// How long a lease for a fetch stands at most; its writes end before.
const LEASE_TTL: Millis = Millis(60_000);

struct Job {
    peer: Peer,
    request: u32,
    /// Keeps the blocks in place until the writes have ended.
    lease: Lease,
    blocks: Vec<Block>,
}

enum Block {
    Ended(Fetched),
    Writing { view: View, transfer: Transfer },
}

impl Block {
    fn has_ended(&self) -> bool {
        match self {
            Self::Ended(_) => true,
            Self::Writing { transfer, .. } => transfer.outcome().is_some(),
        }
    }

    /// Whether nothing reads the arena for it any more.
    fn is_proven(&self) -> bool {
        match self {
            Self::Ended(_) => true,
            Self::Writing { transfer, .. } => transfer.fenced(),
        }
    }

    fn result(&self) -> Fetched {
        match self {
            Self::Ended(result) => *result,
            Self::Writing { view, transfer } => match transfer.outcome() {
                Some(Sent::Done) => written(view),
                Some(outcome) => failed(outcome.reason().unwrap_or(Reason::Failed)),
                None => failed(Reason::Deadline),
            },
        }
    }
}

fn written(view: &View) -> Fetched {
    let (len, checksum, generation) = (view.len, view.checksum, view.generation.0);
    Fetched::Written { len, checksum, generation }
}

fn failed(reason: Reason) -> Fetched {
    Fetched::Failed(reason as u8)
}

/// Fetches under way.
#[derive(Default)]
pub(super) struct Fetches {
    jobs: Vec<Job>,
    /// Blocks that a write which was given up may still read; they stay in place.
    unproven: Vec<(Lease, Vec<Block>)>,
}

impl Fetches {
    pub(super) fn have_ended(&self) -> bool {
        self.jobs.iter().any(|job| job.blocks.iter().all(Block::has_ended))
    }

    /// The writes of a client that is gone end by themselves; nobody wants to know.
    pub(super) fn forget(&mut self, peer: Peer) {
        for job in self.jobs.iter_mut().filter(|job| job.peer == peer) {
            job.request = 0;
        }
    }

    /// Lets go of blocks whose writes have ended for good.
    pub(super) fn release_proven(&mut self) {
        self.unproven.retain(|(_, blocks)| !blocks.iter().all(Block::is_proven));
    }
}

impl Server {
    /// The caller's window, reached over the connection the request came by.
    pub(super) fn fetch_window(
        &self,
        from: Peer,
        window: &Descriptor,
    ) -> Result<RemoteWindow, Fault> {
        self.engine.open_at(from, window).map_err(|error| Fault {
            code: FaultCode::Malformed,
            text: format!("the window to fetch into: {error}"),
        })
    }

    /// Starts the writes; the reply comes when they have ended.
    pub(super) fn fetch(
        &mut self,
        peer: Peer,
        request: u32,
        scope: &Scope,
        window: &RemoteWindow,
        slot: Slot,
        blocks: &[(Key, u64)],
    ) -> Option<Reply> {
        let keys: Vec<_> = blocks.iter().map(|(key, _)| *key).collect();
        let lease = scope.lease(self.session_id(peer), &keys, Some(LEASE_TTL), self.now());
        let started =
            lease.results().iter().zip(blocks).map(|(result, (_, offset))| match result {
                Outcome::Ready(view) => self.write_block(peer, view, window, *offset, slot),
                Outcome::Late => Block::Ended(Fetched::Late),
                Outcome::Gone | Outcome::Corrupt => Block::Ended(Fetched::Gone),
            });
        let blocks: Vec<_> = started.collect();
        if blocks.iter().all(Block::has_ended) {
            return Some(Reply::Fetched(blocks.iter().map(Block::result).collect()));
        }
        self.fetches.jobs.push(Job { peer, request, lease, blocks });
        None
    }

    fn write_block(
        &self,
        peer: Peer,
        view: &View,
        window: &RemoteWindow,
        offset: u64,
        slot: Slot,
    ) -> Block {
        let session = self.sessions.get(&peer);
        let tenant = session.and_then(|session| session.greeted.as_ref());
        let Some(arena) = tenant.and_then(|greeted| self.tenants.get(greeted.tenant.name())) else {
            return Block::Ended(failed(Reason::PeerGone));
        };
        let Some(end) = offset.checked_add(view.len) else {
            return Block::Ended(failed(Reason::OutOfBounds));
        };
        let local = arena.region.slice(view.offset..view.offset + view.len);
        let (Ok(local), Ok(remote)) = (local, window.slice(offset..end)) else {
            return Block::Ended(failed(Reason::OutOfBounds));
        };
        match self.engine.write(local, remote).immediate(slot).submit() {
            Ok(transfer) => Block::Writing { view: *view, transfer },
            Err(_) => Block::Ended(failed(Reason::Full)),
        }
    }

    /// Answers fetches whose writes have ended.
    pub(super) fn finish_fetches(&mut self) -> bool {
        if !self.fetches.have_ended() {
            return false;
        }
        let jobs = std::mem::take(&mut self.fetches.jobs);
        let (ended, running) =
            jobs.into_iter().partition::<Vec<_>, _>(|job| job.blocks.iter().all(Block::has_ended));
        self.fetches.jobs = running;
        for Job { peer, request, lease, blocks } in ended {
            let reply = Reply::Fetched(blocks.iter().map(Block::result).collect());
            if !blocks.iter().all(Block::is_proven) {
                self.fetches.unproven.push((lease, blocks));
            }
            self.reply(peer, request, &reply);
        }
        true
    }
}
