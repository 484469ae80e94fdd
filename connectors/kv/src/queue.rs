//! Jobs: blocks are loaded and stored on threads of the queue's own, their ends drained in batches.
//!
//! Nothing is called back. A job's end is put aside and announced on an event descriptor, which fits any
//! event loop; whoever has the interpreter lock of an engine takes it only to drain.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use tranship_cache::client::{Cache, Error, Stored};
use tranship_cache::{Key, Link};
use tranship_transport::Notifier;
use tranship_transport::memory::Spans;

use crate::blocks::{self, LoadResult};
use crate::filling::Fill;
use crate::job::{Job, caught};

/// Jobs that a queue has at a time, drained or not.
pub const JOBS_MAX: usize = 1 << 16;

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
    /// The queue was closed before its turn came, or a filling was given up.
    Closed,
    /// A thread panicked at it, with this: as for [`Ended::Failed`], and a bug.
    Panicked(String),
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
    ids: Vec<ThreadId>,
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
    Load { job: Arc<Job<Key, LoadResult>>, from: usize, wait: Duration },
    Store { job: Arc<Job<Link, Stored>>, from: usize, ttl: Option<Duration> },
    Fill(Arc<Fill>),
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
        let mut queue = Self { shared, threads: Mutex::default(), ids: Vec::new() };
        for number in 0..threads.max(1) {
            let shared = Arc::clone(&queue.shared);
            let name = format!("tranship-kv-{number}");
            let thread = std::thread::Builder::new().name(name).spawn(move || shared.run())?;
            queue.ids.push(thread.thread().id());
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

    fn submit<K, R>(
        &self,
        cache: &Cache,
        blocks: Vec<(K, Spans)>,
        turn: impl Fn(Arc<Job<K, R>>, usize) -> Turn,
        none: impl FnOnce(Vec<R>) -> Ended,
    ) -> Result<JobId, QueueError> {
        let mut state = self.shared.take_on()?;
        let id = state.next;
        if blocks.is_empty() {
            let done = Done { job: id, ended: none(Vec::new()), bytes: 0, elapsed: Duration::ZERO };
            drop(state);
            self.shared.end(done);
            return Ok(id);
        }
        let job = Arc::new(Job::new(id, cache.clone(), blocks));
        state.waiting.extend(job.starts().map(|from| turn(Arc::clone(&job), from)));
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
        // None: longer than time can tell.
        let until = Instant::now().checked_add(timeout);
        let mut state = self.shared.lock();
        loop {
            if let Some(at) = state.done.iter().position(|done| done.job == job) {
                state.jobs -= 1;
                return state.done.remove(at);
            }
            let left = match until {
                Some(until) => until.checked_duration_since(Instant::now())?,
                None => timeout,
            };
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
    /// has not come end as [`Ended::Closed`], and so do fillings when they are finished or dropped. What has
    /// ended can still be drained. A thread of the queue's own, dropping what lent a job its memory, does
    /// not wait.
    pub fn close(&self) {
        {
            let mut state = self.shared.lock();
            state.closed = true;
        }
        self.shared.work.notify_all();
        if self.ids.contains(&std::thread::current().id()) {
            return;
        }
        // Held meanwhile: who closes at the same time waits too.
        let mut threads = lock(&self.threads);
        for thread in threads.drain(..) {
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

    /// Has a thread take this on; false when the queue was closed, where none may be left to.
    pub(crate) fn push(&self, turn: Turn) -> bool {
        let mut state = self.lock();
        if state.closed {
            return false;
        }
        state.waiting.push_back(turn);
        drop(state);
        self.work.notify_one();
        true
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
            // What lent the memory is dropped with its turn, and may be anything.
            if let Err(panic) = caught(|| self.take_turn(turn, closed)) {
                tracing::error!(
                    panic,
                    "a thread of a queue panicked after a job's end, and goes on"
                );
            }
        }
    }

    fn take_turn(&self, turn: Turn, closed: bool) {
        match turn {
            Turn::Load { job, from, wait } => {
                let load = || blocks::load(job.cache(), job.part(from), wait);
                if let Some(results) = job.move_part(from, closed, load) {
                    self.end_with(&job, results, &LoadResult::Ready, Ended::Loaded);
                }
            }
            Turn::Store { job, from, ttl } => {
                let store = || blocks::store(job.cache(), job.part(from), ttl);
                if let Some(results) = job.move_part(from, closed, store) {
                    self.end_with(&job, results, &Stored::Stored, Ended::Stored);
                }
            }
            Turn::Fill(fill) => {
                if let Some(done) = fill.go_on(closed) {
                    self.end(done);
                }
            }
        }
    }

    /// `moved` is the result of a block whose bytes count.
    fn end_with<K, R: PartialEq>(
        &self,
        job: &Job<K, R>,
        results: Result<Vec<R>, Ended>,
        moved: &R,
        all: impl FnOnce(Vec<R>) -> Ended,
    ) {
        let (ended, bytes) = match results {
            Ok(results) => {
                let blocks =
                    results.iter().zip(job.blocks()).filter(|(result, _)| *result == moved);
                let bytes = blocks.map(|(_, (_, spans))| spans.len() as u64).sum();
                (all(results), bytes)
            }
            Err(ended) => (ended, 0),
        };
        self.end(Done { job: job.id(), ended, bytes, elapsed: job.elapsed() });
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
