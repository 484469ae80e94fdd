//! What the workers of one engine share.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::outlet::Outlet;
use crate::address::EngineId;
use crate::counter::Counters;
use crate::peer::{Incoming, Peer};
use crate::region::Graveyard;
use crate::time::Clock;
use crate::window::WindowId;

/// Messages kept for [`Engine::recv`](crate::Engine::recv) or the sink; beyond that they stay with the
/// fabric, and the senders wait.
pub(super) const INBOX_MAX: usize = 4096;

pub(super) struct Shared {
    pub(super) engine: EngineId,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) counters: Arc<Counters>,
    pub(super) outlet: Option<Outlet>,
    pub(super) inbox: Inbox,
    pub(super) windows: Windows,
    /// One a worker.
    pub(super) graveyards: Vec<Arc<Graveyard>>,
}

impl Shared {
    /// Gives the sink, if there is one, what came in; whether there was any. `made_room` is called
    /// where the inbox was full.
    pub(super) fn deliver(&self, mut made_room: impl FnMut()) -> bool {
        let Some(outlet) = &self.outlet else { return false };
        let next = || {
            let (incoming, room_again) = self.inbox.pop();
            if room_again {
                made_room();
            }
            incoming
        };
        outlet.deliver(|| self.inbox.len() != 0, next)
    }

    /// Whether something waits for the sink, and nobody is about to deliver it.
    pub(super) fn is_unattended(&self) -> bool {
        self.inbox.len() != 0 && self.outlet.as_ref().is_some_and(Outlet::is_idle)
    }
}

/// What came in and nobody took yet.
#[derive(Default)]
pub(super) struct Inbox {
    queue: Mutex<VecDeque<Incoming>>,
    len: AtomicUsize,
}

impl Inbox {
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// Messages stay with the fabric when there is no room. Connections do not: where nobody
    /// receives, one that came and went without a word is forgotten, so that the queue stays bounded
    /// by the messages and by the connections there are.
    pub(super) fn push(&self, incoming: Incoming) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Incoming::Disconnected { peer, .. } = incoming
            && queue.len() >= INBOX_MAX
            && let Some(at) = queue.iter().rposition(|it| concerns(it, peer))
            && matches!(queue[at], Incoming::Connected(_))
        {
            queue.remove(at);
        } else {
            queue.push_back(incoming);
        }
        self.len.store(queue.len(), Ordering::Release);
    }

    /// The next, and whether there is room again where there was none.
    pub(super) fn pop(&self) -> (Option<Incoming>, bool) {
        if self.len() == 0 {
            return (None, false);
        }
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let incoming = queue.pop_front();
        self.len.store(queue.len(), Ordering::Release);
        (incoming, queue.len() == INBOX_MAX - 1)
    }
}

fn concerns(incoming: &Incoming, wanted: Peer) -> bool {
    match incoming {
        Incoming::Connected(peer)
        | Incoming::Message { from: peer, .. }
        | Incoming::Disconnected { peer, .. } => *peer == wanted,
    }
}

/// The places for windows, and which are taken.
pub(super) struct Windows {
    pub(super) limit: usize,
    workers: u32,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    slots: Vec<Place>,
    free: VecDeque<u32>,
}

struct Place {
    generation: u32,
    /// Workers whose fabric may still let a write in: one bit each.
    open: u32,
}

impl Windows {
    pub(super) fn new(limit: usize, workers: usize) -> Self {
        assert!(workers <= 32, "one bit a worker");
        let workers = u32::try_from((1u64 << workers) - 1).expect("at most 32 bits");
        Self { limit, workers, table: Mutex::default() }
    }

    /// A place and a new generation of it; the place freed longest ago first.
    pub(super) fn take(&self) -> Option<WindowId> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = match table.free.pop_front() {
            Some(slot) => slot,
            None if table.slots.len() < self.limit => {
                table.slots.push(Place { generation: 0, open: 0 });
                u32::try_from(table.slots.len() - 1).expect("limits are far below 2^32")
            }
            None => return None,
        };
        let place = &mut table.slots[slot as usize];
        place.generation = place.generation.wrapping_add(1);
        place.open = self.workers;
        Some(WindowId { slot, generation: place.generation })
    }

    /// One worker's fabric has fenced the window; the place is free once all have.
    pub(super) fn release(&self, window: WindowId, worker: u16) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let place = &mut table.slots[window.slot as usize];
        if place.generation == window.generation && place.open & 1 << worker != 0 {
            place.open &= !(1 << worker);
            if place.open == 0 {
                table.free.push_back(window.slot);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::outcome::Reason;
    use crate::peer::LinkId;

    #[test]
    fn connections_that_nobody_hears_of_do_not_pile_up() {
        let inbox = Inbox::default();
        let peer = |serial| Peer { worker: 0, link: LinkId { index: 0, serial } };
        let down = |peer| Incoming::Disconnected { peer, reason: Reason::PeerGone };
        for serial in 0..INBOX_MAX as u32 {
            inbox.push(Incoming::Connected(peer(serial)));
        }
        for serial in 0..100_000 {
            inbox.push(Incoming::Connected(peer(1 << 20 | serial)));
            inbox.push(down(peer(1 << 20 | serial)));
        }
        assert_eq!(inbox.len(), INBOX_MAX);
        // What a peer has said is kept, with its coming and going.
        inbox.push(Incoming::Connected(peer(1 << 30)));
        inbox.push(Incoming::Message { from: peer(1 << 30), bytes: vec![1] });
        inbox.push(down(peer(1 << 30)));
        assert_eq!(inbox.len(), INBOX_MAX + 3);
        // So is the end of a connection that was heard of.
        let (Some(Incoming::Connected(first)), false) = inbox.pop() else { panic!("no room yet") };
        inbox.push(down(first));
        assert_eq!(inbox.len(), INBOX_MAX + 3);
    }

    #[test]
    fn a_window_place_is_free_when_all_workers_fenced_it() {
        let windows = Windows::new(1, 2);
        let first = windows.take().unwrap();
        assert!(windows.take().is_none());
        windows.release(first, 0);
        windows.release(first, 0);
        assert!(windows.take().is_none());
        windows.release(first, 1);
        let second = windows.take().unwrap();
        assert_eq!((second.slot, second.generation), (first.slot, first.generation + 1));
        windows.release(first, 0);
        windows.release(first, 1);
        assert!(windows.take().is_none(), "an old generation frees nothing");
    }
}
