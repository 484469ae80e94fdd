//! Ends of transfers and changes of watched words, drained in batches.
//!
//! An engine's thread puts what happened into a list, and so does a call whose transfer has ended before it
//! returns; when the list was empty it rings a descriptor and wakes who waits. Nothing of the caller's runs
//! there. Whoever drains resets the descriptor first and rings it again when something is left, so that no
//! end goes unheard.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Wake;

use tranship_transport::{Notifier, Outcome, Transfer};

use crate::call::call;
use crate::engine::{Engine, tranship_engine_t};
use crate::handle;
use crate::input;
use crate::output::{Out, OutList};
use crate::status::{Failure, Result, tranship_status_t};
use crate::transfer;

/// Where the ends of an engine's transfers are put, with the `user_data` they were submitted with.
pub struct tranship_queue_t {
    _opaque: [u8; 0],
}

/// A transfer has ended.
pub const TRANSHIP_COMPLETION_TRANSFER: u32 = 0;
/// A watched word has changed.
pub const TRANSHIP_COMPLETION_WATCH: u32 = 1;

/// Something that happened.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct tranship_completion_t {
    /// As given to the submission, or to tranship_watcher_notify().
    pub user_data: u64,
    /// Of a watched word: what it is now. Changes between two looks are one.
    pub value: u64,
    /// TRANSHIP_COMPLETION_*.
    pub kind: u32,
    /// Of a transfer: TRANSHIP_OUTCOME_*.
    pub outcome: u32,
    /// Why it did not arrive: TRANSHIP_REASON_*, which tranship_reason_text() puts into words.
    pub reason: u32,
    /// 1 when the pages on this side may be used for something else. 0 after TRANSHIP_OUTCOME_LOST: ask
    /// tranship_transfer_fenced(), or close the region, which waits for the proof.
    pub pages_free: u32,
}

/// The most that a queue has under way and undrained.
const PLACES_MAX: usize = 1 << 20;

/// What the handle stands for.
pub struct Queue {
    pub(crate) shared: Arc<Shared>,
}

/// What engines reach.
pub struct Shared {
    engine: tranship_transport::Engine,
    happened: Mutex<VecDeque<Happened>>,
    /// What is under way or undrained.
    places: AtomicUsize,
    notifier: Notifier,
}

enum Happened {
    Ended { user_data: u64, outcome: Outcome },
    Changed(Arc<Word>),
}

/// The latest value of a watched word.
pub(crate) struct Word {
    user_data: u64,
    value: AtomicU64,
    waits: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Happened>> {
        self.happened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, happened: Happened) {
        let mut list = self.lock();
        list.push_back(happened);
        let was_empty = list.len() == 1;
        drop(list);
        if was_empty {
            self.notifier.ring();
            self.engine.wake();
        }
    }

    /// A place for one more transfer.
    pub(crate) fn take_place(self: &Arc<Self>, user_data: u64) -> Result<Arc<Ending>> {
        if self.places.fetch_add(1, Ordering::Relaxed) >= PLACES_MAX {
            self.places.fetch_sub(1, Ordering::Relaxed);
            let text =
                format!("the queue has {PLACES_MAX} transfers, which is its limit; drain it");
            return Err(Failure::new(tranship_status_t::TRANSHIP_FULL, text));
        }
        Ok(Arc::new(Ending { queue: Arc::clone(self), user_data, transfer: Mutex::default() }))
    }

    /// The taker of a word's changes.
    pub(crate) fn word(self: &Arc<Self>, user_data: u64) -> impl FnMut(u64) + Send + 'static {
        let queue = Arc::clone(self);
        let word =
            Arc::new(Word { user_data, value: AtomicU64::new(0), waits: AtomicBool::new(false) });
        move |value| {
            word.value.store(value, Ordering::SeqCst);
            if !word.waits.swap(true, Ordering::SeqCst) {
                queue.push(Happened::Changed(Arc::clone(&word)));
            }
        }
    }

    fn drain(&self, max: usize) -> Vec<tranship_completion_t> {
        let _ = self.notifier.take();
        let (taken, left) = {
            let mut list = self.lock();
            let count = max.min(list.len());
            let taken: Vec<Happened> = list.drain(..count).collect();
            (taken, !list.is_empty())
        };
        if left {
            self.notifier.ring();
        }
        taken.into_iter().map(|happened| self.tell(happened)).collect()
    }

    fn tell(&self, happened: Happened) -> tranship_completion_t {
        match happened {
            Happened::Ended { user_data, outcome } => {
                self.places.fetch_sub(1, Ordering::Relaxed);
                transfer::completion(user_data, outcome)
            }
            Happened::Changed(word) => {
                // First this: a change after it comes again.
                word.waits.store(false, Ordering::SeqCst);
                tranship_completion_t {
                    user_data: word.user_data,
                    value: word.value.load(Ordering::SeqCst),
                    kind: TRANSHIP_COMPLETION_WATCH,
                    ..tranship_completion_t::default()
                }
            }
        }
    }
}

/// A transfer whose end goes to a queue.
pub(crate) struct Ending {
    queue: Arc<Shared>,
    user_data: u64,
    /// Until its end was told. A transfer that ends while its waker is put in place keeps that, and the waker
    /// keeps this: they must not keep each other.
    transfer: Mutex<Option<Arc<Transfer>>>,
}

impl Ending {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<Transfer>>> {
        self.transfer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names the transfer. Its waker may have come too early to know it.
    pub(crate) fn is_of(&self, transfer: Arc<Transfer>) {
        *self.lock() = Some(transfer);
        self.look();
    }

    /// The transfer was not taken on.
    pub(crate) fn give_back(&self) {
        self.queue.places.fetch_sub(1, Ordering::Relaxed);
    }

    fn look(&self) {
        // Whoever takes it tells it.
        let ended = self.lock().take_if(|transfer| transfer.outcome().is_some());
        if let Some(outcome) = ended.as_ref().and_then(|transfer| transfer.outcome()) {
            self.queue.push(Happened::Ended { user_data: self.user_data, outcome });
        }
    }
}

impl Wake for Ending {
    fn wake(self: Arc<Self>) {
        self.look();
    }
}

/// Opens a queue for transfers of an engine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_queue_open(
    engine: *mut tranship_engine_t,
    queue: *mut *mut tranship_queue_t,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let out = Out::handle(queue, "queue")?;
        let engine = handle::get::<Engine>(engine)?.engine.clone();
        let shared = Arc::new(Shared {
            engine,
            happened: Mutex::default(),
            places: AtomicUsize::new(0),
            notifier: Notifier::new()?,
        });
        out.set(handle::open(Queue { shared })?);
        Ok(())
    })
}

/// The event descriptor that is readable while there is something to drain: for poll(2) and epoll(7). It
/// belongs to the queue: do not read or close it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_queue_fd(
    queue: *mut tranship_queue_t,
    fd: *mut i32,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let fd = Out::new(fd, "fd")?;
        fd.set(handle::get::<Queue>(queue)?.shared.notifier.as_fd().as_raw_fd());
        Ok(())
    })
}

/// Takes up to `max` of what happened, in the order in which it did; `count` is how many, 0 for none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_queue_drain(
    queue: *mut tranship_queue_t,
    completions: *mut tranship_completion_t,
    max: usize,
    count: *mut usize,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let count = Out::new(count, "count")?;
        let list = OutList::new(completions, max, "completions")?;
        let drained = handle::get::<Queue>(queue)?.shared.drain(max);
        count.set(drained.len());
        list.fill(drained);
        Ok(())
    })
}

/// As tranship_queue_drain(), but waits until there is something, moving the engine on. TRANSHIP_TIMEOUT when
/// nothing happened within `timeout_us`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_queue_wait(
    queue: *mut tranship_queue_t,
    completions: *mut tranship_completion_t,
    max: usize,
    timeout_us: u64,
    count: *mut usize,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let count = Out::new(count, "count")?;
        count.set(0);
        let list = OutList::new(completions, max, "completions")?;
        let timeout = input::wait(timeout_us)?;
        let queue = handle::get::<Queue>(queue)?;
        if max == 0 {
            return Err(Failure::invalid("max is 0, and what is waited for goes there"));
        }
        let shared = &queue.shared;
        let until = shared.engine.now() + timeout;
        loop {
            let left = until.since(shared.engine.now());
            let happened = shared.engine.wait_until(left, || !shared.lock().is_empty());
            // Another thread may have been faster.
            let drained = shared.drain(max);
            if !drained.is_empty() {
                count.set(drained.len());
                list.fill(drained);
                return Ok(());
            }
            if !happened {
                let text = format!("nothing ended within {timeout:?}");
                return Err(Failure::new(tranship_status_t::TRANSHIP_TIMEOUT, text));
            }
        }
    })
}

/// Closes the queue. Transfers under way go on, and nobody learns from it how they end.
#[unsafe(no_mangle)]
pub extern "C" fn tranship_queue_close(queue: *mut tranship_queue_t) -> tranship_status_t {
    call(|| handle::close::<Queue>(queue).map(drop))
}

impl Queue {
    /// Whether it is one of this engine's.
    pub(crate) fn check(&self, engine: &tranship_transport::Engine) -> Result {
        if self.shared.engine.id() == engine.id() {
            return Ok(());
        }
        Err(Failure::invalid("the queue is of another engine; open one for this engine"))
    }
}

#[cfg(test)]
mod tests {
    use tranship_transport::Peer;

    use super::*;

    #[test]
    fn a_transfer_and_its_end_do_not_keep_each_other() {
        let engine = tranship_transport::Engine::builder().build().unwrap();
        let notifier = Notifier::new().unwrap();
        let (happened, places) = Default::default();
        let shared = Arc::new(Shared { engine: engine.clone(), happened, places, notifier });
        let ending = shared.take_place(7).unwrap();
        let transfer = Arc::new(engine.send(Peer::from_bits(u128::MAX), []).submit().unwrap());
        let _ = transfer.wait();
        ending.is_of(Arc::clone(&transfer));
        assert_eq!(Arc::strong_count(&transfer), 1);
        // Its waker comes as well: it is told once.
        ending.wake();
        let ended = shared.drain(9);
        assert_eq!((ended.len(), ended[0].user_data), (1, 7));
        assert_eq!(shared.places.load(Ordering::Relaxed), 0);
    }
}
