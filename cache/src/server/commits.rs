//! Commits: small ones on the spot, large ones checked by a thread of their own, so that nobody
//! waits for somebody else's checksums.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tranship_transport::{Engine, Peer};

use super::Server;
use crate::block::{CommitError, Reserved};
use crate::time::Millis;
use crate::wire::{Committed, Reply};

/// Bytes up to which the service thread checks a commit itself, some 60 µs: less than handing it over
/// costs where cores are few.
const INLINE_BYTES_MAX: u64 = 2 << 20;

/// One commit under way.
struct Job {
    peer: Peer,
    request: u32,
    now: Millis,
    blocks: Vec<Block>,
}

/// One block to be committed.
pub(super) enum Block {
    /// Filled in place by the client.
    Filled { reserved: Reserved, checksum: u64 },
    /// Filled by the daemon, out of the client's memory.
    Received { reserved: Reserved, checksum: u64 },
    /// Lost already.
    Refused { why: String },
}

impl Block {
    fn bytes(&self) -> u64 {
        match self {
            Self::Filled { reserved, .. } | Self::Received { reserved, .. } => reserved.len(),
            Self::Refused { .. } => 0,
        }
    }
}

struct Done {
    peer: Peer,
    request: u32,
    results: Vec<(Committed, Option<Reserved>)>,
}

/// What is said of a reservation that the session does not have.
pub(super) fn unknown(reservation: u64) -> String {
    format!("reservation {reservation} is not open in this session")
}

/// The thread that checks, and what it has found.
pub(super) struct Commits {
    jobs: Option<Sender<Job>>,
    done: Arc<Mutex<Vec<Done>>>,
    any: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Commits {
    pub(super) fn new(engine: Engine) -> Self {
        let (jobs, todo) = channel();
        let done = Arc::new(Mutex::new(Vec::new()));
        let any = Arc::new(AtomicBool::new(false));
        let thread = {
            let (done, any) = (Arc::clone(&done), Arc::clone(&any));
            std::thread::Builder::new()
                .name("tranship-commit".to_owned())
                .spawn(move || check_all(&todo, &done, &any, &engine))
        };
        // Without the thread every commit is checked on the spot.
        let (jobs, thread) = match thread {
            Ok(thread) => (Some(jobs), Some(thread)),
            Err(error) => {
                tracing::warn!(%error, "no thread for checksums; commits are checked in line");
                (None, None)
            }
        };
        Self { jobs, done, any, thread }
    }

    pub(super) fn have_results(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    fn take(&self) -> Vec<Done> {
        if !self.any.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut *self.done.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Commits {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // Its panic, if any, was printed when it happened.
            let _ = thread.join();
        }
    }
}

fn check_all(todo: &Receiver<Job>, done: &Mutex<Vec<Done>>, any: &AtomicBool, engine: &Engine) {
    while let Ok(job) = todo.recv() {
        let (peer, request) = (job.peer, job.request);
        let results = check(job);
        let finished = Done { peer, request, results };
        done.lock().unwrap_or_else(PoisonError::into_inner).push(finished);
        any.store(true, Ordering::Release);
        engine.wake();
    }
}

/// Commits the blocks of a job; reservations that stand come back.
fn check(job: Job) -> Vec<(Committed, Option<Reserved>)> {
    let now = job.now;
    let one = |block| {
        let committed = match block {
            Block::Filled { reserved, checksum } => reserved.commit(checksum, now),
            Block::Received { reserved, checksum } => reserved.commit_received(checksum, now),
            Block::Refused { why } => return (Committed::Refused { why }, None),
        };
        match committed {
            Ok(_) => (Committed::Stored, None),
            Err(CommitError::Mismatch { reserved, expected, found }) => {
                let key = reserved.key();
                tracing::warn!(
                    %key,
                    "committed with checksum {expected:016x}, but its bytes have {found:016x}"
                );
                (Committed::Mismatch { found }, Some(reserved))
            }
            Err(error @ CommitError::Revoked { .. }) => {
                (Committed::Refused { why: error.to_string() }, None)
            }
        }
    };
    job.blocks.into_iter().map(one).collect()
}

impl Server {
    /// Commits now, or hands the work over and answers later.
    pub(super) fn commit(
        &mut self,
        from: Peer,
        request: u32,
        blocks: &[(u64, u64)],
    ) -> Option<Reply> {
        let session = self.sessions.get_mut(&from)?;
        let open = |(reservation, checksum): &(u64, u64)| match session.reserved.remove(reservation)
        {
            Some(reserved) => Block::Filled { reserved, checksum: *checksum },
            None => Block::Refused { why: unknown(*reservation) },
        };
        let blocks = blocks.iter().map(open).collect();
        self.commit_blocks(from, request, blocks)
    }

    /// Commits filled blocks now, or hands the work over and answers later.
    pub(super) fn commit_blocks(
        &mut self,
        from: Peer,
        request: u32,
        blocks: Vec<Block>,
    ) -> Option<Reply> {
        let bytes: u64 = blocks.iter().map(Block::bytes).sum();
        let mut job = Job { peer: from, request, now: self.now(), blocks };
        if bytes > INLINE_BYTES_MAX
            && let Some(jobs) = &self.commits.jobs
        {
            match jobs.send(job) {
                Ok(()) => return None,
                Err(refused) => job = refused.0,
            }
        }
        let results = check(job);
        Some(self.committed(from, results))
    }

    /// Answers commits that were handed over.
    pub(super) fn finish_commits(&mut self) -> bool {
        let done = self.commits.take();
        let any = !done.is_empty();
        for Done { peer, request, results } in done {
            let reply = self.committed(peer, results);
            self.reply(peer, request, &reply);
        }
        any
    }

    /// Puts reservations that stand back into their session.
    fn committed(&mut self, peer: Peer, results: Vec<(Committed, Option<Reserved>)>) -> Reply {
        let mut session = self.sessions.get_mut(&peer);
        let keep = |(result, reserved): (Committed, Option<Reserved>)| {
            if let (Some(session), Some(reserved)) = (&mut session, reserved) {
                session.reserved.insert(reserved.generation().0, reserved);
            }
            result
        };
        Reply::Committed(results.into_iter().map(keep).collect())
    }
}
