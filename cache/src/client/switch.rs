//! Where answers find their questions.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tranship_transport::Incoming;

use crate::wire::{Event, Malformed, Reply};

/// Events kept for a subscriber that does not take them.
const EVENTS_MAX: usize = 1 << 16;

/// How a call ended.
#[derive(Debug)]
pub(super) enum Answer {
    Reply(Reply),
    Malformed(Malformed),
    Disconnected,
}

/// One call that waits for its answer.
#[derive(Debug, Default)]
pub(super) struct Call {
    ready: AtomicBool,
    answer: Mutex<Option<Answer>>,
}

impl Call {
    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    fn finish(&self, answer: Answer) {
        *lock(&self.answer) = Some(answer);
        self.ready.store(true, Ordering::Release);
    }

    pub(super) fn take(&self) -> Option<Answer> {
        lock(&self.answer).take()
    }
}

/// Events on their way to one subscriber.
#[derive(Debug, Default)]
pub(super) struct Feed {
    queue: Mutex<VecDeque<Event>>,
    pub(super) ended: AtomicBool,
}

impl Feed {
    pub(super) fn pop(&self) -> Option<Event> {
        lock(&self.queue).pop_front()
    }

    fn push(&self, events: Vec<Event>) {
        let mut queue = lock(&self.queue);
        for event in events {
            if queue.len() == EVENTS_MAX {
                queue.pop_front();
            }
            queue.push_back(event);
        }
    }
}

/// Takes what comes in from the daemon and gives it to whoever waits for it.
#[derive(Debug, Default)]
pub(super) struct Switch {
    next_request: AtomicU32,
    /// How often the connection broke.
    breaks: AtomicU64,
    calls: Mutex<HashMap<u32, Arc<Call>>>,
    feeds: Mutex<HashMap<u32, Arc<Feed>>>,
}

impl Switch {
    pub(super) fn breaks(&self) -> u64 {
        self.breaks.load(Ordering::Acquire)
    }

    /// A number for a request, and the place where its answer will be.
    pub(super) fn open(&self) -> (u32, Arc<Call>) {
        let call = Arc::new(Call::default());
        let mut calls = lock(&self.calls);
        loop {
            // Zero asks for no answer.
            let request = self.next_request.fetch_add(1, Ordering::Relaxed);
            if request != 0 && !calls.contains_key(&request) {
                calls.insert(request, Arc::clone(&call));
                return (request, call);
            }
        }
    }

    /// Forgets a call, answered or not.
    pub(super) fn close(&self, request: u32) {
        lock(&self.calls).remove(&request);
    }

    pub(super) fn feed(&self, request: u32) -> Arc<Feed> {
        Arc::clone(lock(&self.feeds).entry(request).or_default())
    }

    pub(super) fn end_feed(&self, request: u32) {
        lock(&self.feeds).remove(&request);
    }

    /// Runs on the thread that drives the engine.
    pub(super) fn incoming(&self, incoming: Incoming) {
        match incoming {
            Incoming::Message { bytes, .. } => self.message(&bytes),
            Incoming::Connected(_) => {}
            Incoming::Disconnected { .. } => {
                self.breaks.fetch_add(1, Ordering::AcqRel);
                for (_, call) in lock(&self.calls).drain() {
                    call.finish(Answer::Disconnected);
                }
                for (_, feed) in lock(&self.feeds).drain() {
                    feed.ended.store(true, Ordering::Release);
                }
            }
        }
    }

    fn message(&self, bytes: &[u8]) {
        let (request, answer) = match Reply::decode(bytes) {
            Ok((request, Reply::Events(events))) => {
                if let Some(feed) = lock(&self.feeds).get(&request) {
                    feed.push(events);
                }
                return;
            }
            Ok((request, reply)) => (request, Answer::Reply(reply)),
            Err(error) => {
                // The request is in the first eight bytes, if they are there.
                let request = bytes.get(4..8).map(|id| id.try_into().expect("four bytes"));
                tracing::warn!(%error, "malformed answer");
                (u32::from_le_bytes(request.unwrap_or_default()), Answer::Malformed(error))
            }
        };
        if let Some(call) = lock(&self.calls).remove(&request) {
            call.finish(answer);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
