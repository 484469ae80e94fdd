//! Several transfers started together.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::engine::Engine;
use crate::immediate::Slot;
use crate::lane::Lane;
use crate::order::Order;
use crate::outcome::Outcome;
use crate::region::{RangeError, Slice};
use crate::remote::RemoteSlice;
use crate::sabotage::{self, Defect};
use crate::transfer::{Submission, Told, Transfer};

/// Orders of which a thread keeps the room.
const ROOM_MAX: usize = 1024;

thread_local! {
    /// The room of this thread's last batch: it is a long block, and to get and give back one of these costs as
    /// much as some transfers.
    static ROOM: Cell<Vec<(Order<'static>, Told)>> = const { Cell::new(Vec::new()) };
}

/// Keeps the room of a batch for the next.
pub(crate) fn keep_room(mut orders: Vec<(Order<'_>, Told)>) {
    orders.clear();
    if orders.capacity() <= ROOM_MAX {
        // Nothing is left of what was borrowed; the room stays the same.
        let nothing = |_| -> (Order<'static>, Told) { unreachable!("it was cleared") };
        let _ = ROOM.try_with(|room| room.set(orders.into_iter().map(nothing).collect()));
    }
}

/// Transfers to be started under one lock: each costs a fraction of what it costs alone.
#[derive(Debug)]
#[must_use = "a batch does nothing until it is submitted"]
pub struct Batch<'a> {
    engine: &'a Engine,
    orders: Vec<(Order<'a>, Told)>,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(engine: &'a Engine) -> Self {
        Self { engine, orders: ROOM.try_with(Cell::take).unwrap_or_default() }
    }

    /// Adds a transfer. One of another engine ends as rejected.
    #[inline]
    pub fn push(&mut self, submission: Submission<'a>) {
        self.orders.push(submission.into_order());
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.orders.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.orders.is_empty()
    }

    /// Which lane all of them take.
    pub fn lane(mut self, lane: Lane) -> Self {
        self.orders.iter_mut().for_each(|(order, _)| order.set_lane(lane));
        self
    }

    /// How long all of them may take, from submission.
    pub fn deadline(mut self, timeout: Duration) -> Self {
        self.orders.iter_mut().for_each(|(order, _)| order.timeout = timeout);
        self
    }

    /// Starts all of them. Those that the engine has no room for end as rejected.
    pub fn submit(self) -> Transfers {
        self.engine.submit_all(self.orders)
    }

    /// Starts all of them and waits for their ends, driving the engine on this thread. One outcome
    /// each, in order.
    pub fn wait(self) -> Vec<Outcome> {
        self.submit().wait()
    }
}

impl<'a> Extend<Submission<'a>> for Batch<'a> {
    fn extend<T: IntoIterator<Item = Submission<'a>>>(&mut self, submissions: T) {
        let submissions = submissions.into_iter();
        self.orders.reserve(submissions.size_hint().0);
        submissions.for_each(|submission| self.push(submission));
    }
}

/// One peer's part of a scatter.
#[derive(Debug, Clone)]
pub struct Target {
    /// Which part of the source it gets.
    pub from: Range<u64>,
    /// Where its part goes.
    pub to: RemoteSlice,
    /// What it is told once its part is there.
    pub slot: Option<Slot>,
}

impl Engine {
    /// Transfers to be started together.
    pub fn batch(&self) -> Batch<'_> {
        Batch::new(self)
    }

    /// Gives each peer of a group its part of a source, started together: what one rank sends to
    /// all others.
    ///
    /// # Errors
    /// When a part is not inside the source.
    pub fn scatter<'a>(
        &'a self,
        source: &Slice,
        group: &'a [Target],
    ) -> Result<Batch<'a>, RangeError> {
        let mut batch = self.batch();
        batch.orders.reserve(group.len());
        for Target { from, to, slot } in group {
            let write = self.write(source.part(from.clone())?, to);
            batch.push(match slot {
                Some(slot) => write.immediate(*slot),
                None => write,
            });
        }
        Ok(batch)
    }
}

/// Transfers under way together: a future of all their outcomes, in order.
#[must_use = "transfers dropped unseen go on, and nobody learns how they ended"]
pub struct Transfers {
    all: Vec<Transfer>,
}

impl Transfers {
    pub(crate) fn new(all: Vec<Transfer>) -> Self {
        Self { all }
    }

    /// Each of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Transfer> {
        self.all.iter()
    }

    /// Their outcomes, once all have ended; does not drive the engine.
    #[must_use]
    pub fn outcomes(&self) -> Option<Vec<Outcome>> {
        self.all.iter().map(Transfer::outcome).collect()
    }

    /// Waits for the ends of all, driving the engine on this thread.
    pub fn wait(&self) -> Vec<Outcome> {
        self.all.iter().map(Transfer::wait).collect()
    }

    /// Asks that all of them end now; see [`Transfer::cancel`].
    pub fn cancel(&self) {
        let forgotten = usize::from(sabotage::is(Defect::LostCancel));
        let cancelled = self.all.len().saturating_sub(forgotten);
        self.all[..cancelled].iter().for_each(Transfer::cancel);
    }

    /// Whether the pages on this side are free, of all of them; see [`Transfer::fenced`].
    #[must_use]
    pub fn fenced(&self) -> bool {
        self.all.iter().all(Transfer::fenced)
    }
}

impl Future for Transfers {
    type Output = Vec<Outcome>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Vec<Outcome>> {
        // The first that still runs wakes the task; those behind it are looked at then.
        for transfer in &mut self.all {
            if Pin::new(transfer).poll(context).is_pending() {
                return Poll::Pending;
            }
        }
        Poll::Ready(self.outcomes().expect("all have ended"))
    }
}

impl<'a> IntoIterator for &'a Transfers {
    type Item = &'a Transfer;
    type IntoIter = std::slice::Iter<'a, Transfer>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Transfers {
    type Item = Transfer;
    type IntoIter = std::vec::IntoIter<Transfer>;

    fn into_iter(self) -> Self::IntoIter {
        self.all.into_iter()
    }
}

impl fmt::Debug for Transfers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.all).finish()
    }
}
