//! Several transfers started together.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::completion::{Completion, Ends, Told};
use crate::engine::Engine;
use crate::immediate::Slot;
use crate::lane::Lane;
use crate::order::Order;
use crate::outcome::Outcome;
use crate::region::{RangeError, Slice};
use crate::remote::RemoteSlice;
use crate::sabotage::{self, Defect};
use crate::transfer::{self, Submission, Transfer};

/// Orders of which a thread keeps the room.
const ROOM_MAX: usize = 1024;

/// What is to be started, and who is told of each end.
#[derive(Debug, Default)]
pub(crate) struct Orders<'a> {
    pub(crate) all: Vec<Order<'a>>,
    pub(crate) told: Vec<Told>,
}

thread_local! {
    /// The room of this thread's last batch: these are long blocks, and to get and give back one of them costs as
    /// much as some transfers.
    static ROOM: Cell<Orders<'static>> = const { Cell::new(Orders { all: Vec::new(), told: Vec::new() }) };
}

impl Orders<'_> {
    fn take_room() -> Self {
        ROOM.try_with(Cell::take).unwrap_or_default()
    }

    fn reserve(&mut self, count: usize) {
        self.all.reserve(count);
        self.told.reserve(count);
    }

    /// Keeps the room for the next batch.
    pub(crate) fn keep_room(mut self) {
        self.all.clear();
        self.told.clear();
        if self.all.capacity() <= ROOM_MAX && self.told.capacity() <= ROOM_MAX {
            // Nothing is left of what was borrowed; the room stays the same.
            let nothing = |_| -> Order<'static> { unreachable!("it was cleared") };
            let all = self.all.into_iter().map(nothing).collect();
            let _ = ROOM.try_with(|room| room.set(Orders { all, told: self.told }));
        }
    }
}

/// Transfers to be started under one lock: each costs a fraction of what it costs alone.
#[derive(Debug)]
#[must_use = "a batch does nothing until it is submitted"]
pub struct Batch<'a> {
    engine: &'a Engine,
    orders: Orders<'a>,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(engine: &'a Engine) -> Self {
        Self { engine, orders: Orders::take_room() }
    }

    /// Adds a transfer. One of another engine ends as rejected.
    #[inline]
    pub fn push(&mut self, submission: Submission<'a>) {
        let (order, told) = submission.into_order();
        self.orders.all.push(order);
        self.orders.told.push(told);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.orders.all.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.orders.all.is_empty()
    }

    /// Which lane all of them take.
    pub fn lane(mut self, lane: Lane) -> Self {
        self.orders.all.iter_mut().for_each(|order| order.set_lane(lane));
        self
    }

    /// How long all of them may take, from submission.
    pub fn deadline(mut self, timeout: Duration) -> Self {
        self.orders.all.iter_mut().for_each(|order| order.timeout = timeout);
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
    engine: Engine,
    ends: Ends,
}

impl Transfers {
    pub(crate) fn new(engine: &Engine, ends: Ends) -> Self {
        Self { engine: engine.clone(), ends }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Each of them, to be looked at, waited for or cancelled on its own.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Member<'_>> {
        (0..self.len()).map(|at| self.get(at))
    }

    /// One of them.
    ///
    /// # Panics
    /// When there are not so many.
    #[must_use]
    pub fn get(&self, at: usize) -> Member<'_> {
        assert!(at < self.len(), "transfer {at} of {}", self.len());
        Member { all: self, at }
    }

    /// Their outcomes, once all have ended; does not drive the engine.
    #[must_use]
    pub fn outcomes(&self) -> Option<Vec<Outcome>> {
        self.ends.iter().map(Completion::outcome).collect()
    }

    /// Waits for the ends of all, driving the engine on this thread.
    pub fn wait(&self) -> Vec<Outcome> {
        self.ends.iter().map(|end| transfer::wait(&self.engine, end)).collect()
    }

    /// Asks that all of them end now; see [`Transfer::cancel`].
    pub fn cancel(&self) {
        let forgotten = usize::from(sabotage::is(Defect::LostCancel));
        self.iter().take(self.len().saturating_sub(forgotten)).for_each(Member::cancel);
    }

    /// Whether the pages on this side are free, of all of them; see [`Transfer::fenced`].
    #[must_use]
    pub fn fenced(&self) -> bool {
        self.ends.iter().all(Completion::is_fenced)
    }
}

/// One of several transfers. It is no future: who awaits is told by [`Transfers`] of them all.
#[derive(Clone, Copy)]
pub struct Member<'a> {
    all: &'a Transfers,
    at: usize,
}

impl Member<'_> {
    fn end(&self) -> &Completion {
        &self.all.ends[self.at]
    }

    /// Its outcome, if it has ended; does not drive the engine.
    #[must_use]
    pub fn outcome(self) -> Option<Outcome> {
        self.end().outcome()
    }

    /// Waits for its end, driving the engine on this thread. Ends by the transfer's deadline.
    pub fn wait(self) -> Outcome {
        transfer::wait(&self.all.engine, self.end())
    }

    /// Asks that it end now; see [`Transfer::cancel`].
    pub fn cancel(self) {
        self.all.engine.cancel(&self.all.ends.end(self.at));
    }

    /// Whether the pages on this side are free; see [`Transfer::fenced`].
    #[must_use]
    pub fn fenced(self) -> bool {
        self.end().is_fenced()
    }
}

impl fmt::Debug for Member<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        transfer::show(self.outcome(), f)
    }
}

impl Future for Transfers {
    type Output = Vec<Outcome>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Vec<Outcome>> {
        // The first that still runs wakes the task; those behind it are looked at then.
        if self.ends.iter().any(|end| end.poll(context.waker()).is_pending()) {
            return Poll::Pending;
        }
        Poll::Ready(self.outcomes().expect("all have ended"))
    }
}

impl IntoIterator for Transfers {
    type Item = Transfer;
    type IntoIter = std::vec::IntoIter<Transfer>;

    /// Each on its own. What is known of all of them stays for as long as one of these does.
    fn into_iter(self) -> Self::IntoIter {
        let one = |at| Transfer::running(&self.engine, self.ends.end(at));
        (0..self.len()).map(one).collect::<Vec<_>>().into_iter()
    }
}

impl fmt::Debug for Transfers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
