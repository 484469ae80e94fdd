//! Jobs: blocks are loaded and stored on threads of the queue's own, their ends drained in batches.
//!
//! Nothing is called back. A job's end is put aside and announced on an event descriptor, which fits any
//! event loop; whoever has the interpreter lock of an engine takes it only to drain.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tranship_cache::client::{Cache, Error, Stored};
use tranship_cache::{Key, Link};
use tranship_transport::Notifier;
use tranship_transport::memory::Spans;

use crate::blocks::{self, LoadResult};
use crate::filling::Fill;

/// Jobs that a queue has at a time, drained or not.
pub const JOBS_MAX: usize = 1 << 16;
/// Blocks of a job that one thread moves before others get their turn.
const PART_BLOCKS: usize = 32;

/// A job's number, unique in its queue.
pub type JobId = u64;

/// A job that has ended.
#[derive(Debug)]
pub struct Done {
    /// Which.
    pub job: JobId,
    /// How.
    pub ended: Ended,
    /// Bytes of the blocks that are ready or stored.
    pub bytes: u64,
    /// From submission to end.
    pub elapsed: Duration,
}

/// How a job has ended.
#[derive(Debug)]
pub enum Ended {
    /// A load: one result a block.
    Loaded(Vec<LoadResult>),
    /// A store: one result a block.
    Stored(Vec<Stored>),
    /// The daemon could not be reached or refused: nothing of a load is to be used, and nothing of a store
    /// is there for sure.
    Failed(Error),
    /// The queue was closed before its turn came.
    Closed,
}

/// A job that was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// Too many are under way.
    #[error("the queue has {JOBS_MAX} jobs, which is its limit; drain it")]
    Full,
    /// The queue was closed.
    #[error("the queue is closed")]
    Closed,
}

/// Threads that load and store, and the jobs they have. Dropping it closes it.
#[derive(Debug)]
pub struct Queue {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// There is work.
    work: Condvar,
    /// A job has ended.
    ended: Condvar,
    notifier: Notifier,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Turn>,
    /// Ended and not drained yet, in the order of their ends.
    done: VecDeque<Done>,
    /// Under way or not drained yet.
    jobs: usize,
    next: JobId,
    closed: bool,
}

/// What a thread takes on.
#[derive(Debug)]
pub(crate) enum Turn {
    Load { job: Arc<Job<(Key, Spans), LoadResult>>, from: usize, wait: Duration },
    Store { job: Arc<Job<(Link, Spans), Stored>>, from: usize, ttl: Option<Duration> },
    Fill(Arc<Fill>),
}

/// A job that is moved in parts.
#[derive(Debug)]
pub(crate) struct Job<B, R> {
    id: JobId,
    cache: Cache,
    blocks: Vec<B>,
    /// By the part's first block.
    parts: Mutex<HashMap<usize, Result<Vec<R>, Error>>>,
    left: AtomicUsize,
    began: Instant,
}

impl Queue {
    /// A queue with `threads` threads, at least one.
    ///
    /// # Errors
    /// When there is no event descriptor or no thread to be had.
    pub fn new(threads: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            work: Condvar::new(),
            ended: Condvar::new(),
            notifier: Notifier::new()?,
        });
        let queue = Self { shared, threads: Mutex::default() };
        for number in 0..threads.max(1) {
            let shared = Arc::clone(&queue.shared);
            let name = format!("tranship-kv-{number}");
            let thread = std::thread::Builder::new().name(name).spawn(move || shared.run())?;
            lock(&queue.threads).push(thread);
        }
        Ok(queue)
    }

    /// Loads blocks; see [`blocks::load`]. The memory belongs to the queue until the job was drained.
    ///
    /// # Errors
    /// When it is not taken.
    pub fn load(
        &self,
        cache: &Cache,
        blocks: Vec<(Key, Spans)>,
        wait: Duration,
    ) -> Result<JobId, QueueError> {
        self.submit(cache, blocks, |job, from| Turn::Load { job, from, wait }, Ended::Loaded)
    }

    /// Stores blocks; see [`blocks::store`]. The memory belongs to the queue until the job was drained.
    ///
    /// # Errors
    /// When it is not taken.
    pub fn store(
        &self,
        cache: &Cache,
        blocks: Vec<(Link, Spans)>,
        ttl: Option<Duration>,
    ) -> Result<JobId, QueueError> {
        self.submit(cache, blocks, |job, from| Turn::Store { job, from, ttl }, Ended::Stored)
    }

    fn submit<B, R>(
        &self,
        cache: &Cache,
        blocks: Vec<B>,
        turn: impl Fn(Arc<Job<B, R>>, usize) -> Turn,
        none: impl FnOnce(Vec<R>) -> Ended,
    ) -> Result<JobId, QueueError> {
        let mut state = self.shared.take_on()?;
        let id = state.next;
        let starts = (0..blocks.len()).step_by(PART_BLOCKS);
        let left = AtomicUsize::new(starts.len());
        let began = Instant::now();
        if blocks.is_empty() {
            let done = Done { job: id, ended: none(Vec::new()), bytes: 0, elapsed: Duration::ZERO };
            drop(state);
            self.shared.end(done);
            return Ok(id);
        }
        let (cache, parts) = (cache.clone(), Mutex::default());
        let job = Arc::new(Job { id, cache, blocks, parts, left, began });
        state.waiting.extend(starts.map(|from| turn(Arc::clone(&job), from)));
        drop(state);
        self.shared.work.notify_all();
        Ok(id)
    }

    /// The descriptor that is readable when there is something to drain.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.shared.notifier.as_fd()
    }

    /// Takes all jobs that have ended, and resets the descriptor.
    pub fn drain(&self) -> Vec<Done> {
        // First the descriptor: what ends after this rings again.
        let _ = self.shared.notifier.take();
        let mut state = self.shared.lock();
        state.jobs -= state.done.len();
        state.done.drain(..).collect()
    }

    /// Waits for one job and takes it; the others stay to be drained. `None` when it has not ended by then,
    /// or was drained before.
    pub fn wait(&self, job: JobId, timeout: Duration) -> Option<Done> {
        let until = Instant::now() + timeout;
        let mut state = self.shared.lock();
        loop {
            if let Some(at) = state.done.iter().position(|done| done.job == job) {
                state.jobs -= 1;
                return state.done.remove(at);
            }
            let left = until.checked_duration_since(Instant::now())?;
            let waited = self.shared.ended.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Jobs that have not been drained.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.lock().jobs
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes no more jobs and waits for those under way, whose calls all have deadlines; those whose turn
    /// has not come end as [`Ended::Closed`]. What has ended can still be drained.
    pub fn close(&self) {
        {
            let mut state = self.shared.lock();
            state.closed = true;
        }
        self.shared.work.notify_all();
        let threads: Vec<_> = lock(&self.threads).drain(..).collect();
        for thread in threads {
            // A panic of a thread was reported when it happened.
            let _ = thread.join();
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Counts a job in; its number is the state's `next`, minus one, once the guard is used.
    fn take_on(&self) -> Result<MutexGuard<'_, State>, QueueError> {
        let mut state = self.lock();
        if state.closed {
            return Err(QueueError::Closed);
        }
        if state.jobs >= JOBS_MAX {
            return Err(QueueError::Full);
        }
        state.jobs += 1;
        state.next += 1;
        Ok(state)
    }

    /// A job of another kind: its number.
    pub(crate) fn open(&self) -> Result<JobId, QueueError> {
        self.take_on().map(|state| state.next)
    }

    /// Has a thread take this on. A closed queue has none any more: the job ends here.
    pub(crate) fn push(&self, fill: &Arc<Fill>) {
        let mut state = self.lock();
        if !state.closed {
            state.waiting.push_back(Turn::Fill(Arc::clone(fill)));
            drop(state);
            self.work.notify_one();
            return;
        }
        drop(state);
        if let Some(done) = fill.give_up() {
            self.end(done);
        }
    }

    pub(crate) fn end(&self, done: Done) {
        self.lock().done.push_back(done);
        self.ended.notify_all();
        self.notifier.ring();
    }

    fn run(self: &Arc<Self>) {
        loop {
            let (turn, closed) = {
                let mut state = self.lock();
                loop {
                    if let Some(turn) = state.waiting.pop_front() {
                        break (turn, state.closed);
                    }
                    if state.closed {
                        return;
                    }
                    state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            };
            self.take_turn(turn, closed);
        }
    }

    fn take_turn(&self, turn: Turn, closed: bool) {
        match turn {
            Turn::Load { job, from, wait } => {
                let part = (!closed).then(|| blocks::load(&job.cache, job.part(from), wait));
                let Some(ended) = job.finish(from, part, Ended::Loaded) else { return };
                let Ended::Loaded(results) = &ended else { return self.end_with(&*job, ended, 0) };
                let ready = results.iter().zip(&job.blocks);
                let ready = ready.filter(|(result, _)| **result == LoadResult::Ready);
                let bytes = ready.map(|(_, (_, spans))| spans.len() as u64).sum();
                self.end_with(&*job, ended, bytes);
            }
            Turn::Store { job, from, ttl } => {
                let part = (!closed).then(|| blocks::store(&job.cache, job.part(from), ttl));
                let Some(ended) = job.finish(from, part, Ended::Stored) else { return };
                let Ended::Stored(results) = &ended else { return self.end_with(&*job, ended, 0) };
                let stored = results.iter().zip(&job.blocks);
                let stored = stored.filter(|(result, _)| **result == Stored::Stored);
                let bytes = stored.map(|(_, (_, spans))| spans.len() as u64).sum();
                self.end_with(&*job, ended, bytes);
            }
            Turn::Fill(fill) => {
                if let Some(done) = fill.go_on() {
                    self.end(done);
                }
            }
        }
    }

    fn end_with<B, R>(&self, job: &Job<B, R>, ended: Ended, bytes: u64) {
        self.end(Done { job: job.id, ended, bytes, elapsed: job.began.elapsed() });
    }
}

impl<B, R> Job<B, R> {
    fn part(&self, from: usize) -> &[B] {
        &self.blocks[from..self.blocks.len().min(from + PART_BLOCKS)]
    }

    /// Puts a part's results aside; the job's end if it was the last.
    fn finish(
        &self,
        from: usize,
        part: Option<Result<Vec<R>, Error>>,
        all: impl FnOnce(Vec<R>) -> Ended,
    ) -> Option<Ended> {
        if let Some(part) = part {
            lock(&self.parts).insert(from, part);
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return None;
        }
        let mut parts = std::mem::take(&mut *lock(&self.parts));
        let mut results = Vec::with_capacity(self.blocks.len());
        for from in (0..self.blocks.len()).step_by(PART_BLOCKS) {
            match parts.remove(&from) {
                Some(Ok(part)) => results.extend(part),
                Some(Err(error)) => return Some(Ended::Failed(error)),
                None => return Some(Ended::Closed),
            }
        }
        Some(all(results))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
