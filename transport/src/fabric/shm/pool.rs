//! Threads that copy, so that more than one core moves bytes.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crossbeam_queue::ArrayQueue;

use super::control::Ours;
use super::crossing::Chunk;
use super::doorbell;
use super::gate::Waker;
use crate::fabric::OpId;

/// Chunks per thread that are under way at once. Whoever polls copies the next one meanwhile.
const CHUNKS_PER_THREAD: usize = 1;

/// A chunk that came back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Returned {
    /// Whose.
    pub(super) op: OpId,
    /// How long it was.
    pub(super) len: u64,
    /// Whether it was copied; else the window was shut.
    pub(super) copied: bool,
}

/// The threads.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    out: usize,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
    returned: ArrayQueue<Returned>,
    control: Arc<Ours>,
    doorbell: Arc<OwnedFd>,
}

#[derive(Debug, Default)]
struct Queue {
    chunks: VecDeque<Chunk>,
    closing: bool,
}

impl Pool {
    /// Starts `threads` threads; they wake the poller by its control segment and doorbell.
    pub(super) fn start(
        threads: usize,
        control: &Arc<Ours>,
        doorbell: &Arc<OwnedFd>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            work: Condvar::new(),
            returned: ArrayQueue::new((threads * CHUNKS_PER_THREAD).max(1)),
            control: Arc::clone(control),
            doorbell: Arc::clone(doorbell),
        });
        let mut pool = Self { shared, threads: Vec::with_capacity(threads), out: 0 };
        for thread in 0..threads {
            let shared = Arc::clone(&pool.shared);
            // Number 0 is whoever polls.
            let copier = thread + 1;
            let builder = thread::Builder::new().name(format!("tranship-copy-{copier}"));
            pool.threads.push(builder.spawn(move || shared.run(copier))?);
        }
        Ok(pool)
    }

    /// Whether it takes another chunk now. Never if there are no threads.
    pub(super) fn has_room(&self) -> bool {
        self.out < self.threads.len() * CHUNKS_PER_THREAD
    }

    /// Hands a chunk over; there has to be room.
    pub(super) fn submit(&mut self, chunk: Chunk) {
        debug_assert!(self.has_room(), "more chunks out than can come back");
        self.out += 1;
        self.shared.lock().chunks.push_back(chunk);
        self.shared.work.notify_one();
    }

    /// The next chunk that came back.
    pub(super) fn reap(&mut self) -> Option<Returned> {
        let returned = self.shared.returned.pop()?;
        self.out -= 1;
        Some(returned)
    }

    /// Whether chunks have come back.
    pub(super) fn has_returned(&self) -> bool {
        !self.shared.returned.is_empty()
    }

    /// Ends the threads after the chunks they are at. No copy is under way afterwards, and what has
    /// not begun never will; all chunks can be reaped.
    pub(super) fn stop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked copies no more either.
            let _ = thread.join();
        }
        for chunk in self.shared.lock().chunks.drain(..) {
            let back = Returned { op: chunk.op, len: chunk.len, copied: false };
            let _ = self.shared.returned.push(back);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, copier: usize) {
        let mut waker = Waker::default();
        while let Some(mut chunk) = self.next() {
            // SAFETY: the job keeps the memories of its chunks until they have come back; `copier`
            // is this thread's own number.
            let copied = unsafe { chunk.copy(copier) };
            let back = Returned { op: chunk.op, len: chunk.len, copied };
            drop(chunk);
            // There is room: no more are out than fit.
            let _ = self.returned.push(back);
            if waker.must_ring(self.control.epoch()) {
                doorbell::ring(&*self.doorbell);
            }
        }
    }

    fn next(&self) -> Option<Chunk> {
        let mut queue = self.lock();
        loop {
            if queue.closing {
                return None;
            }
            if let Some(chunk) = queue.chunks.pop_front() {
                return Some(chunk);
            }
            queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
