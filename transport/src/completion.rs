//! Where the ends of transfers are written, and who is told of them.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use crate::notify::Notifier;
use crate::outcome::{Outcome, code};
use crate::remote::Mapping;

/// Who is told of an end, besides the holder of the transfer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    notifier: Option<Notifier>,
    tally: Option<Arc<AtomicU64>>,
}

impl Told {
    pub(crate) fn ring(&mut self, notifier: &Notifier) {
        self.notifier = Some(notifier.clone());
    }

    pub(crate) fn count(&mut self, tally: &Arc<AtomicU64>) {
        self.tally = Some(Arc::clone(tally));
    }

    /// Where the end of one transfer will be written.
    pub(crate) fn end(&self) -> End {
        End { all: Ends(Arc::new(Block::One(Completion::new(self.clone())))), at: 0 }
    }

    #[inline]
    pub(crate) fn tell(&self, outcome: Outcome) {
        self.tell_with(outcome, || {});
    }

    /// The counter has it before `then` is called, and the bell rings afterwards.
    #[inline]
    fn tell_with<T>(&self, outcome: Outcome, then: impl FnOnce() -> T) -> T {
        if outcome.is_done()
            && let Some(tally) = &self.tally
        {
            tally.fetch_add(1, Ordering::Release);
        }
        let it = then();
        if let Some(notifier) = &self.notifier {
            notifier.ring();
        }
        it
    }
}

/// The ends of transfers that start together: one count of who holds them. It goes around in one
/// register, and the end of one in two.
#[derive(Debug, Clone)]
pub(crate) struct Ends(Arc<Block>);

#[derive(Debug)]
enum Block {
    One(Completion),
    Many(Box<[Completion]>),
}

impl Ends {
    #[inline]
    pub(crate) fn new(told: impl ExactSizeIterator<Item = Told>) -> Self {
        Self(Arc::new(Block::Many(told.map(Completion::new).collect())))
    }

    /// One of them, to be held on its own.
    pub(crate) fn end(&self, at: usize) -> End {
        debug_assert!(at < self.len(), "one of these");
        End { all: self.clone(), at: at as u32 }
    }
}

impl Deref for Ends {
    type Target = [Completion];

    #[inline]
    fn deref(&self) -> &[Completion] {
        match &*self.0 {
            Block::One(end) => std::slice::from_ref(end),
            Block::Many(all) => all,
        }
    }
}

/// The end of one transfer, kept with those of all that started with it.
#[derive(Debug, Clone)]
pub(crate) struct End {
    all: Ends,
    at: u32,
}

impl End {
    /// All that started together, and which of these it is.
    pub(crate) fn into_parts(self) -> (Ends, u32) {
        (self.all, self.at)
    }
}

impl Deref for End {
    type Target = Completion;

    #[inline]
    fn deref(&self) -> &Completion {
        &self.all[self.at as usize]
    }
}

/// Where the end of a transfer is written, once.
#[derive(Debug)]
pub(crate) struct Completion {
    code: AtomicU32,
    /// The worker that has it.
    pub(crate) worker: AtomicU16,
    fenced: AtomicBool,
    /// Whether it was asked to end early.
    pub(crate) cancelled: AtomicBool,
    /// The operation, once admitted.
    pub(crate) op: AtomicU64,
    told: Told,
    aside: Mutex<Aside>,
}

/// What few transfers need.
#[derive(Debug, Default)]
struct Aside {
    waker: Option<Waker>,
    mapping: Option<Box<Mapping>>,
}

impl Completion {
    /// "Not admitted yet."
    const NO_OP: u64 = u64::MAX;

    #[inline]
    fn new(told: Told) -> Self {
        Self {
            code: AtomicU32::new(code::PENDING),
            worker: AtomicU16::new(0),
            fenced: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
            op: AtomicU64::new(Self::NO_OP),
            told,
            aside: Mutex::default(),
        }
    }

    #[inline]
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        code::unpack(self.code.load(Ordering::Acquire))
    }

    /// Whether the pages on this side are free.
    pub(crate) fn is_fenced(&self) -> bool {
        self.fenced.load(Ordering::Acquire)
    }

    /// Writes the end. Called once, by the engine; returns the waker of the task that awaits it, to
    /// be woken once no lock is held.
    #[must_use]
    #[inline]
    pub(crate) fn end(&self, outcome: Outcome) -> Option<Waker> {
        debug_assert!(self.outcome().is_none(), "a transfer ends once");
        if outcome.pages_are_free() {
            self.fenced.store(true, Ordering::Release);
        }
        let write = || self.code.swap(code::pack(outcome), Ordering::AcqRel);
        let before = self.told.tell_with(outcome, write);
        if before == code::AWAITED { self.aside().waker.take() } else { None }
    }

    /// The fabric proved that nothing moves any more, after a `Lost`.
    pub(crate) fn prove(&self) {
        self.fenced.store(true, Ordering::Release);
    }

    /// Keeps what was mapped for whoever waits for it.
    pub(crate) fn put(&self, mapping: Mapping) {
        self.aside().mapping = Some(Box::new(mapping));
    }

    /// What was mapped.
    pub(crate) fn take_mapping(&self) -> Option<Mapping> {
        self.aside().mapping.take().map(|it| *it)
    }

    pub(crate) fn poll(&self, waker: &Waker) -> Poll<Outcome> {
        if let Some(outcome) = self.outcome() {
            return Poll::Ready(outcome);
        }
        self.aside().waker = Some(waker.clone());
        let (from, to) = (code::PENDING, code::AWAITED);
        let _ = self.code.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
        // The end may have come between the look and the registration.
        self.outcome().map_or(Poll::Pending, Poll::Ready)
    }

    fn aside(&self) -> MutexGuard<'_, Aside> {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Those of a batch are written and read one after the other.
    #[test]
    #[cfg(target_pointer_width = "64")]
    fn an_end_is_as_long_as_a_cache_line() {
        assert_eq!(size_of::<Completion>(), 64);
    }

    #[test]
    fn each_of_a_batch_ends_for_itself() {
        let tally = Arc::new(AtomicU64::new(0));
        let mut told = vec![Told::default(); 3];
        told[1].count(&tally);
        let ends = Ends::new(told.into_iter());
        assert!(ends[1].end(Outcome::Done).is_none());
        assert_eq!(
            ends.iter().map(Completion::outcome).collect::<Vec<_>>(),
            [None, Some(Outcome::Done), None]
        );
        assert_eq!(tally.load(Ordering::Relaxed), 1);
        assert_eq!(ends.end(1).outcome(), Some(Outcome::Done));
    }
}
