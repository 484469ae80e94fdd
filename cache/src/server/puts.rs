//! Puts by one-sided read: the daemon reads filled blocks out of the caller's window straight into
//! the reserved space, checks them and commits.
//!
//! A client that cannot map the arena never gets the right to write to it: the bytes that land
//! there are the daemon's own reads. So it needs nobody else to prove that no late byte can land;
//! the space of a read that did not end well is held until that very read has ended.

use std::time::Duration;

use tranship_transport::{Descriptor, Outcome, Peer, Reason, RemoteWindow, Transfer};

use super::Server;
use super::commits::{Block as Commit, unknown};
use crate::block::Reserved;
use crate::wire::{Fault, FaultCode, Put, Reply, Source};

/// The longest that the reads of one put may take.
const DEADLINE_MAX: Duration = Duration::from_secs(60);

struct Job {
    peer: Peer,
    request: u32,
    blocks: Vec<Block>,
}

enum Block {
    Refused { why: String },
    Reading { reserved: Reserved, checksum: u64, transfer: Transfer },
}

impl Block {
    fn refused(reserved: &Reserved, why: Reason) -> Self {
        Self::Refused { why: format!("block {} could not be read: {why}", reserved.key()) }
    }

    fn has_ended(&self) -> bool {
        match self {
            Self::Refused { .. } => true,
            Self::Reading { transfer, .. } => transfer.outcome().is_some(),
        }
    }
}

/// Puts under way.
#[derive(Default)]
pub(super) struct Puts {
    jobs: Vec<Job>,
    /// Space into which a read that was given up may still put bytes.
    unproven: Vec<(Reserved, Transfer)>,
}

impl Puts {
    pub(super) fn have_ended(&self) -> bool {
        self.jobs.iter().any(|job| job.blocks.iter().all(Block::has_ended))
    }

    /// Nobody waits for the answers of a client that is gone; its reads end by themselves.
    pub(super) fn forget(&mut self, peer: Peer) {
        for job in self.jobs.iter_mut().filter(|job| job.peer == peer) {
            job.request = 0;
            for block in &job.blocks {
                if let Block::Reading { transfer, .. } = block {
                    transfer.cancel();
                }
            }
        }
    }

    /// Lets go of space whose reads have ended for good.
    pub(super) fn release_proven(&mut self) {
        self.unproven.retain(|(_, transfer)| !transfer.fenced());
    }
}

impl Server {
    /// Starts the reads; the reply comes when they have ended and the blocks were checked.
    pub(super) fn put(
        &mut self,
        from: Peer,
        request: u32,
        put: &Put,
    ) -> Result<Option<Reply>, Fault> {
        let window = self.put_window(from, &put.window)?;
        let deadline = Duration::from_millis(u64::from(put.deadline_ms)).min(DEADLINE_MAX);
        let blocks: Vec<_> = put
            .blocks
            .iter()
            .map(|source| self.read_block(from, &window, source, deadline))
            .collect();
        let job = Job { peer: from, request, blocks };
        if job.blocks.iter().all(Block::has_ended) {
            return Ok(self.received(job));
        }
        self.puts.jobs.push(job);
        Ok(None)
    }

    fn put_window(&mut self, from: Peer, window: &Descriptor) -> Result<RemoteWindow, Fault> {
        self.greeted(from)?;
        self.engine.open_at(from, window).map_err(|error| Fault {
            code: FaultCode::Malformed,
            text: format!("the window to read from: {error}"),
        })
    }

    fn read_block(
        &mut self,
        from: Peer,
        window: &RemoteWindow,
        source: &Source,
        deadline: Duration,
    ) -> Block {
        let Source { reservation, checksum, offset } = *source;
        let session = self.sessions.get_mut(&from);
        let Some((tenant, reserved)) = session.and_then(|session| {
            let tenant = session.greeted.as_ref()?.tenant.name().to_owned();
            Some((tenant, session.reserved.remove(&reservation)?))
        }) else {
            return Block::Refused { why: unknown(reservation) };
        };
        let Some(arena) = self.tenants.get(&tenant) else {
            return Block::refused(&reserved, Reason::Closed);
        };
        let Some(end) = offset.checked_add(reserved.len()) else {
            return Block::refused(&reserved, Reason::OutOfBounds);
        };
        let to = reserved.offset()..reserved.offset() + reserved.len();
        let (Ok(remote), Ok(local)) = (window.slice(offset..end), arena.region.slice(to)) else {
            return Block::refused(&reserved, Reason::OutOfBounds);
        };
        match self.engine.read(remote, local).deadline(deadline).submit() {
            Ok(transfer) => Block::Reading { reserved, checksum, transfer },
            Err(_) => Block::refused(&reserved, Reason::Full),
        }
    }

    /// Goes on with puts whose reads have ended.
    pub(super) fn finish_puts(&mut self) -> bool {
        if !self.puts.have_ended() {
            return false;
        }
        let jobs = std::mem::take(&mut self.puts.jobs);
        let (ended, running) =
            jobs.into_iter().partition::<Vec<_>, _>(|job| job.blocks.iter().all(Block::has_ended));
        self.puts.jobs = running;
        for job in ended {
            let (peer, request) = (job.peer, job.request);
            if let Some(reply) = self.received(job) {
                self.reply(peer, request, &reply);
            }
        }
        true
    }

    /// Commits what was read; the rest is given up, and its space held until it is safe.
    fn received(&mut self, job: Job) -> Option<Reply> {
        let unproven = &mut self.puts.unproven;
        let commit = |block| match block {
            Block::Refused { why } => Commit::Refused { why },
            Block::Reading { reserved, checksum, transfer } => match transfer.outcome() {
                Some(Outcome::Done) => Commit::Received { reserved, checksum },
                outcome => {
                    let why = outcome.and_then(Outcome::reason).unwrap_or(Reason::Deadline);
                    let why = format!("block {} could not be read: {why}", reserved.key());
                    if !transfer.fenced() {
                        unproven.push((reserved, transfer));
                    }
                    Commit::Refused { why }
                }
            },
        };
        let blocks = job.blocks.into_iter().map(commit).collect();
        self.commit_blocks(job.peer, job.request, blocks)
    }
}
