//! Watchers: words in memory that somebody else changes, and that the engine reacts to.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64 as Word, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, TryLockError, Weak};
use std::time::Duration;

use crate::engine::Engine;
use crate::memory::Memory;
use crate::region::{RangeError, check};
use crate::sabotage::{self, Defect};
use crate::sync::{AtomicU32, AtomicU64, Mutex, MutexGuard, fence};

type Callback = Box<dyn FnMut(u64) + Send>;

/// Calls of one callback in one look, so that a word that changes faster than it is told does not keep
/// the thread that drives.
const CALLS_MAX: usize = 8;

/// Watches a 64-bit word: a GPU bumps it inside a captured graph, another process through shared
/// memory, or a peer by a one-sided write, and the engine tells, without any call from there.
///
/// A word is looked at whenever the engine is driven, and at least every
/// [`Builder::watch_every`](crate::Builder::watch_every) while somebody waits for it or has a
/// callback on it: nothing in hardware rings a bell when memory changes. Changes between two looks
/// are seen as one, so a word should only ever grow.
///
/// Dropping it ends its callback, without waiting: a call may be running on another thread, or just
/// about to begin.
pub struct Watcher {
    engine: Engine,
    watched: Arc<Watched>,
}

struct Watched {
    memory: Arc<Memory>,
    offset: usize,
    table: Arc<Watchers>,
    teller: Teller,
    /// Whether it has a callback.
    called: AtomicBool,
    /// Callbacks and waits that make the engine look.
    armed: AtomicUsize,
}

impl Watcher {
    pub(crate) fn new(
        engine: Engine,
        table: &Arc<Watchers>,
        memory: &Arc<Memory>,
        offset: u64,
    ) -> Result<Self, WatchError> {
        let end = offset.checked_add(8).ok_or(WatchError::Unaligned { offset })?;
        check(offset..end, memory.len() as u64)?;
        if !memory.is_host() {
            return Err(WatchError::OnDevice);
        }
        if !offset.is_multiple_of(8) {
            return Err(WatchError::Unaligned { offset });
        }
        let watched = Arc::new(Watched {
            memory: Arc::clone(memory),
            offset: offset as usize,
            table: Arc::clone(table),
            teller: Teller::new(),
            called: AtomicBool::new(false),
            armed: AtomicUsize::new(0),
        });
        table.lock().push(Arc::downgrade(&watched));
        Ok(Self { engine, watched })
    }

    /// Where the word is, for whoever bumps it.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u64 {
        self.watched.word().as_ptr()
    }

    /// The word now. Acquire: what was written before the bump is visible.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.watched.word().load(Ordering::Acquire)
    }

    /// Adds one (release) and makes the engine look at once: a bump from this process.
    pub fn bump(&self) -> u64 {
        let value = self.watched.word().fetch_add(1, Ordering::Release).wrapping_add(1);
        self.engine.look();
        value
    }

    /// Waits until the word is not `past` any more; returns what it is then. Drives the engine.
    ///
    /// # Errors
    /// When it did not change within `timeout`.
    pub fn wait(&self, past: u64, timeout: Duration) -> Result<u64, WatchTimeout> {
        let _armed = Armed::new(&self.watched);
        let until = self.engine.now() + timeout;
        // Who sleeps already has to look at this word from now on.
        self.engine.look();
        if self.engine.wait(until, || self.value() != past) {
            Ok(self.value())
        } else {
            Err(WatchTimeout { past, timeout })
        }
    }

    /// Calls `f` with the word whenever it has changed, from the value it has now. It runs on
    /// whichever thread drives the engine, without any of its locks: it may submit, cancel, send, even
    /// wait, but holds up that thread as long as it takes. Replaces the callback before, which may be
    /// the one that calls this, without waiting for it: a call of that one may be running on another
    /// thread, or just about to begin.
    pub fn on_change(&self, f: impl FnMut(u64) + Send + 'static) {
        self.watched.teller.set(Box::new(f), self.value());
        if !self.watched.called.swap(true, Ordering::SeqCst) {
            self.watched.arm();
        }
        self.engine.look();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let gone = Arc::downgrade(&self.watched);
        self.watched.table.lock().retain(|other| !other.ptr_eq(&gone));
        self.watched.teller.clear();
        if self.watched.called.swap(false, Ordering::SeqCst) {
            self.watched.disarm();
        }
    }
}

impl Watched {
    fn word(&self) -> &Word {
        // SAFETY: `Watcher::new` checked that the word lies in the memory, aligned (memory starts at
        // a page), and the memory lives as long as `self`. It is only ever accessed atomically here.
        unsafe { Word::from_ptr(self.memory.as_ptr().add(self.offset).cast()) }
    }

    fn arm(&self) {
        self.armed.fetch_add(1, Ordering::SeqCst);
        self.table.armed.fetch_add(1, Ordering::SeqCst);
    }

    fn disarm(&self) {
        self.armed.fetch_sub(1, Ordering::SeqCst);
        self.table.armed.fetch_sub(1, Ordering::SeqCst);
    }

    fn has_changed(&self) -> bool {
        self.armed.load(Ordering::Relaxed) != 0 && self.teller.is_behind(self.now())
    }

    fn now(&self) -> u64 {
        self.word().load(Ordering::Acquire)
    }
}

/// A callback, and what it has been told.
struct Teller {
    /// The one in use, held while it runs.
    callback: Mutex<Option<Callback>>,
    /// The one that takes its place, with what it knows already. Never held while one runs, so that a
    /// callback can replace itself.
    next: Mutex<Option<(Callback, u64)>>,
    /// Whether there is a next one.
    replaced: AtomicU32,
    told: AtomicU64,
    /// Nothing is told any more.
    closed: AtomicU32,
}

impl Teller {
    fn new() -> Self {
        Self {
            callback: Mutex::new(None),
            next: Mutex::new(None),
            replaced: AtomicU32::new(0),
            told: AtomicU64::new(0),
            closed: AtomicU32::new(0),
        }
    }

    /// Puts a callback in place that knows `now` already: at once, or where the one before is running
    /// when it returns. Whoever was turned away meanwhile is to look again.
    fn set(&self, f: Callback, now: u64) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let never_used = next.replace((f, now));
        self.replaced.store(1, Ordering::Release);
        drop(next);
        // Whoever is turned away has put it there before whoever lets go looks again.
        fence(Ordering::SeqCst);
        let former = self.idle().and_then(|mut callback| self.take_over(&mut callback));
        // Somebody else's code, which may come back here.
        drop((never_used, former));
    }

    /// Ends it. Takes the callback away, unless it is running, maybe on this very thread.
    fn clear(&self) {
        self.closed.store(1, Ordering::Release);
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner).take();
        let callback = self.idle().and_then(|mut callback| callback.take());
        drop((next, callback));
    }

    /// The callback in use, unless it is running.
    fn idle(&self) -> Option<MutexGuard<'_, Option<Callback>>> {
        match self.callback.try_lock() {
            Ok(callback) => Some(callback),
            // It panicked before; what changed since is told all the same.
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn is_behind(&self, now: u64) -> bool {
        self.replaced.load(Ordering::Acquire) != 0 || self.told.load(Ordering::Relaxed) != now
    }

    /// Calls the callback until it has seen the last change; whether it was this thread's turn. One
    /// at a time does, and looks again after it let go, for those that were turned away meanwhile. A
    /// word that never stops changing is left to the next look.
    fn tell(&self, now: impl Fn() -> u64) -> bool {
        let mut mine = false;
        for _ in 0..CALLS_MAX {
            if !self.is_behind(now()) {
                break;
            }
            // Whoever is turned away has seen the change before whoever lets go looks again.
            fence(Ordering::SeqCst);
            let Some(mut callback) = self.idle() else { break };
            if self.closed.load(Ordering::Acquire) != 0 {
                break;
            }
            mine = true;
            let former = self.take_over(&mut callback);
            // Only here is what was told before certain.
            let value = now();
            let lost = sabotage::is(Defect::LostWord) && value.is_multiple_of(4);
            if self.told.swap(value, Ordering::Relaxed) != value
                && !lost
                && let Some(f) = &mut *callback
            {
                f(value);
            }
            drop(callback);
            drop(former);
            fence(Ordering::SeqCst);
        }
        mine
    }

    /// Puts the next callback into use, if there is one; returns the one before.
    fn take_over(&self, callback: &mut Option<Callback>) -> Option<Callback> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        self.replaced.store(0, Ordering::Relaxed);
        let (f, knows) = next.take()?;
        self.told.store(knows, Ordering::Relaxed);
        callback.replace(f)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let left = *self.armed.get_mut();
        self.table.armed.fetch_sub(left, Ordering::SeqCst);
    }
}

/// Makes the engine look while somebody waits.
struct Armed<'a>(&'a Watched);

impl<'a> Armed<'a> {
    fn new(watched: &'a Watched) -> Self {
        watched.arm();
        Self(watched)
    }
}

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        self.0.disarm();
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watcher({:?} = {})", self.as_ptr(), self.value())
    }
}

/// All watchers of an engine.
pub(crate) struct Watchers {
    list: Mutex<Vec<Weak<Watched>>>,
    armed: AtomicUsize,
    every: Duration,
}

impl Watchers {
    pub(crate) fn new(every: Duration) -> Self {
        Self { list: Mutex::new(Vec::new()), armed: AtomicUsize::new(0), every }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Watched>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long whoever drives may sleep.
    pub(crate) fn nap(&self) -> Duration {
        if self.are_armed() { self.every } else { Duration::MAX }
    }

    /// Whether somebody waits for a word or has a callback on one.
    pub(crate) fn are_armed(&self) -> bool {
        self.armed.load(Ordering::SeqCst) != 0
    }

    /// Looks at all words and calls the callbacks of those that changed; whether it called any.
    /// No lock of the engine is held.
    #[inline]
    pub(crate) fn look(&self) -> bool {
        self.armed.load(Ordering::Relaxed) != 0 && self.look_at_all()
    }

    fn look_at_all(&self) -> bool {
        let Ok(list) = self.list.try_lock() else { return false };
        let changed: Vec<_> =
            list.iter().filter_map(Weak::upgrade).filter(|watched| watched.has_changed()).collect();
        drop(list);
        // One that is being told already, maybe further down on this very thread, is no work.
        changed.iter().fold(false, |worked, watched| watched.teller.tell(|| watched.now()) | worked)
    }
}

/// A word that cannot be watched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// Not inside the memory.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// Not aligned.
    #[error("a watched word starts at a multiple of 8 bytes, not at {offset}")]
    Unaligned {
        /// Where it was asked for.
        offset: u64,
    },
    /// Memory of a device, of which this process sees nothing.
    #[error(
        "a watched word is in host memory, and this is a device's; let the device bump a word of host memory that \
         it maps, or transfer one there"
    )]
    OnDevice,
}

/// A word that did not change in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the watched word is still {past} after {timeout:?}")]
pub struct WatchTimeout {
    /// The value.
    pub past: u64,
    /// How long was waited.
    pub timeout: Duration,
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU64 as Cell;
    use loom::thread;

    use super::*;

    /// A teller, the word, and what was heard of it.
    type Shared = Arc<(Teller, Cell, Cell)>;

    /// Two threads each bump the word and tell; afterwards the last change was heard.
    fn two_bump(shared: &Shared) {
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let shared = Arc::clone(shared);
                thread::spawn(move || {
                    shared.1.fetch_add(1, Ordering::AcqRel);
                    shared.0.tell(|| shared.1.load(Ordering::Acquire));
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(shared.2.load(Ordering::Relaxed), 2);
        shared.0.clear();
    }

    #[test]
    fn loom_the_last_change_is_told_whoever_looks() {
        loom::model(|| {
            let shared = Arc::new((Teller::new(), Cell::new(0), Cell::new(0)));
            let heard = Arc::clone(&shared);
            let f = move |value| {
                assert!(value > heard.2.load(Ordering::Relaxed), "told in order, each once");
                heard.2.store(value, Ordering::Relaxed);
            };
            shared.0.set(Box::new(f), 0);
            two_bump(&shared);
        });
    }

    /// The callback replaces itself while another thread looks, too: whichever is in place hears of
    /// the last change.
    #[test]
    fn loom_a_callback_replaces_itself() {
        loom::model(|| {
            let shared = Arc::new((Teller::new(), Cell::new(0), Cell::new(0)));
            let first = Arc::clone(&shared);
            let f = move |value| {
                first.2.store(value, Ordering::Relaxed);
                let second = Arc::clone(&first);
                let g = move |value| second.2.store(value, Ordering::Relaxed);
                first.0.set(Box::new(g), value);
            };
            shared.0.set(Box::new(f), 0);
            two_bump(&shared);
        });
    }
}
