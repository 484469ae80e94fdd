//! Handing what came in to a sink.

use std::sync::TryLockError;
use std::sync::atomic::Ordering;

use crate::peer::Incoming;
use crate::sync::{Mutex, MutexGuard, fence};

/// Takes what comes in instead of [`Engine::recv`](crate::Engine::recv): in the order in which it
/// came, one call at a time, on whichever thread drives the engine. It runs without any of the
/// engine's locks, so it may submit, cancel, open what a message carries, revoke, even wait; but until
/// it returns nothing more is delivered, and messages beyond a few thousand wait at their senders. An
/// immediate that follows a message may count before the sink has seen that message. A sink that keeps
/// a handle of its own engine keeps the engine alive.
pub type Sink = Box<dyn Fn(Incoming) + Send + Sync>;

/// Given to the sink in one go, so that a flood does not keep the thread that drives.
const DELIVERIES_MAX: usize = if cfg!(loom) { 1 } else { 64 };

/// A sink, and whose turn it is to call it.
pub(super) struct Outlet {
    sink: Sink,
    turn: Mutex<()>,
}

impl Outlet {
    pub(super) fn new(sink: Sink) -> Self {
        Self { sink, turn: Mutex::new(()) }
    }

    /// Gives the sink what `next` takes, while there `is_any`; whether there was. One thread at a
    /// time does, and looks again after it let go, for those that were turned away meanwhile. What is
    /// left after [`DELIVERIES_MAX`], or behind a sink that panics, is for the next step.
    pub(super) fn deliver(
        &self,
        is_any: impl Fn() -> bool,
        mut next: impl FnMut() -> Option<Incoming>,
    ) -> bool {
        let mut delivered = 0;
        while delivered < DELIVERIES_MAX && is_any() {
            // Whoever is turned away has put in its own before whoever lets go looks again.
            fence(Ordering::SeqCst);
            let Some(turn) = self.turn() else { break };
            while delivered < DELIVERIES_MAX
                && let Some(incoming) = next()
            {
                delivered += 1;
                (self.sink)(incoming);
            }
            drop(turn);
            fence(Ordering::SeqCst);
        }
        delivered != 0
    }

    /// Whether nobody is at it.
    pub(super) fn is_idle(&self) -> bool {
        self.turn().is_some()
    }

    fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        match self.turn.try_lock() {
            Ok(turn) => Some(turn),
            // The sink panicked before; what came behind is delivered all the same.
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU32, AtomicUsize};
    use loom::thread;

    use super::*;
    use crate::peer::{LinkId, Peer};

    /// Two threads each put one in, deliver one at most in a step, and go to sleep once nothing is
    /// unattended: both are delivered, whoever was turned away.
    #[test]
    fn loom_what_came_in_is_delivered_whoever_looks() {
        loom::model(|| {
            let heard = Arc::new(AtomicU32::new(0));
            let sink = Arc::clone(&heard);
            let outlet = Outlet::new(Box::new(move |_| {
                sink.fetch_add(1, Ordering::Relaxed);
            }));
            let shared = Arc::new((outlet, AtomicUsize::new(0)));
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || {
                        let (outlet, inbox) = &*shared;
                        inbox.fetch_add(1, Ordering::Release);
                        let next = || {
                            let take = |left: usize| left.checked_sub(1);
                            inbox.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).ok()?;
                            let link = LinkId { index: 0, serial: 0 };
                            Some(Incoming::Connected(Peer { worker: 0, link }))
                        };
                        let is_any = || inbox.load(Ordering::Acquire) != 0;
                        loop {
                            outlet.deliver(is_any, next);
                            // `Core::arm`.
                            fence(Ordering::SeqCst);
                            if !(is_any() && outlet.is_idle()) {
                                break;
                            }
                        }
                    })
                })
                .collect();
            for thread in threads {
                thread.join().unwrap();
            }
            assert_eq!(heard.load(Ordering::Relaxed), 2);
        });
    }
}
