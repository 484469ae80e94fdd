//! Transfers: how they are described and started, and how their end is learnt.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::completion::{Completion, End, Told};
use crate::engine::{Engine, Until};
use crate::held::Held;
use crate::immediate::Slot;
use crate::lane::{Class, Lane, Priority};
use crate::notify::Notifier;
use crate::order::{Order, Task};
use crate::outcome::{Outcome, Reason};

/// A transfer being described; [`Submission::submit`] starts it.
#[derive(Debug)]
#[must_use = "a submission does nothing until it is submitted"]
pub struct Submission<'a> {
    engine: Held<'a, Engine>,
    order: Order<'a>,
    told: Told,
}

impl<'a> Submission<'a> {
    #[inline]
    pub(crate) fn new(engine: &'a Engine, task: Task<'a>) -> Self {
        let order = Order::new(task, Class::default(), engine.default_deadline());
        Self { engine: engine.into(), order, told: Told::default() }
    }

    /// The same, with all that was borrowed cloned: to be kept for later.
    pub fn into_owned(self) -> Submission<'static> {
        let Self { engine, order, told } = self;
        Submission { engine: engine.into_owned(), order: order.into_owned(), told }
    }

    /// Delivers an immediate to the peer once the payload is visible there.
    pub fn immediate(mut self, slot: Slot) -> Self {
        self.order.task.set_immediate(slot);
        self
    }

    /// Which lane it takes; [`Lane::Bulk`] otherwise. Messages keep their order in the latency lane,
    /// whatever is said here.
    pub fn lane(mut self, lane: Lane) -> Self {
        self.order.set_lane(lane);
        self
    }

    /// What it goes ahead of in the bulk lane, while it waits for room at its peer.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.order.class = self.order.class.with(priority);
        self
    }

    /// How long it may take, from submission; the engine's default deadline otherwise.
    pub fn deadline(mut self, timeout: Duration) -> Self {
        self.order.timeout = timeout;
        self
    }

    /// Rings a notifier when it ends, however it ends.
    pub fn notify(mut self, notifier: &Notifier) -> Self {
        self.told.ring(notifier);
        self
    }

    /// Adds one to a shared counter (release) if it ends well.
    pub fn tally(mut self, counter: &Arc<AtomicU64>) -> Self {
        self.told.count(counter);
        self
    }

    /// Starts it. It goes on without the [`Transfer`] if that is dropped.
    ///
    /// # Errors
    /// When the engine's submission queue is full; the submission comes back.
    pub fn submit(self) -> Result<Transfer, SubmitError> {
        self.start(true)
    }

    /// Starts it and waits for its end, driving the engine on this thread.
    pub fn wait(self) -> Outcome {
        match self.start(false) {
            Ok(transfer) => transfer.wait(),
            Err(SubmitError { submission }) => {
                let outcome = Outcome::Rejected(Reason::Full);
                submission.told.tell(outcome);
                outcome
            }
        }
    }

    /// Starts it; `wake` when nobody on this thread will drive it at once.
    fn start(self, wake: bool) -> Result<Transfer, SubmitError> {
        let Self { engine, mut order, told } = self;
        order.begin(engine.now());
        match engine.submit(&mut order, &told, wake) {
            Some(started) => Ok(Transfer::new(&engine, started, &told)),
            None => {
                let submission = Self { engine, order, told }.into_owned();
                Err(SubmitError { submission: Box::new(submission) })
            }
        }
    }

    #[inline]
    pub(crate) fn into_order(self) -> (Order<'a>, Told) {
        (self.order, self.told)
    }
}

/// How far a submission got at once.
pub(crate) enum Started {
    Ended(Outcome),
    Running(End),
}

/// A submission that the engine had no room for; carries it.
#[derive(Debug, thiserror::Error)]
#[error(
    "the engine's submission queue is full; drive the engine or wait for transfers to end, then submit again"
)]
pub struct SubmitError {
    /// The submission, unchanged.
    pub submission: Box<Submission<'static>>,
}

/// A transfer under way: a future of its [`Outcome`], which can also be polled or waited for.
#[must_use = "a transfer dropped unseen goes on, and nobody learns how it ended"]
pub struct Transfer {
    state: State,
}

enum State {
    Ended(Outcome),
    Running { engine: Engine, end: End },
}

impl Transfer {
    pub(crate) fn new(engine: &Engine, started: Started, told: &Told) -> Self {
        match started {
            Started::Ended(outcome) => {
                told.tell(outcome);
                Self { state: State::Ended(outcome) }
            }
            Started::Running(end) => Self::running(engine, end),
        }
    }

    pub(crate) fn running(engine: &Engine, end: End) -> Self {
        Self { state: State::Running { engine: engine.clone(), end } }
    }

    /// Its outcome, if it has ended; does not drive the engine.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        match &self.state {
            State::Ended(outcome) => Some(*outcome),
            State::Running { end, .. } => end.outcome(),
        }
    }

    /// Waits for its end, driving the engine on this thread. Ends by the transfer's deadline.
    pub fn wait(&self) -> Outcome {
        match &self.state {
            State::Ended(outcome) => *outcome,
            State::Running { engine, end } => wait(engine, end),
        }
    }

    /// Waits for its end, driving the engine on this thread, but no longer than `timeout`: then `None`.
    pub fn wait_for(&self, timeout: Duration) -> Option<Outcome> {
        if let State::Running { engine, end } = &self.state
            && end.outcome().is_none()
        {
            engine.wait_on(end, engine.now() + timeout, || end.outcome().is_some());
        }
        self.outcome()
    }

    /// Asks that it end now: `Done` if it was faster, else `Rejected` or `Fenced` with
    /// [`Reason::Cancelled`] (or `Lost` at its deadline, when no fence can be proven). It has not
    /// ended when this returns.
    pub fn cancel(&self) {
        if let State::Running { engine, end } = &self.state {
            engine.cancel(end);
        }
    }

    /// Whether the pages on this side are free: at once for every outcome but `Lost`, and for that
    /// from the moment the fabric proved that nothing moves any more.
    #[must_use]
    pub fn fenced(&self) -> bool {
        match &self.state {
            State::Ended(outcome) => outcome.pages_are_free(),
            State::Running { end, .. } => end.is_fenced(),
        }
    }
}

/// Waits for an end, driving the engine on this thread.
pub(crate) fn wait(engine: &Engine, completion: &Completion) -> Outcome {
    loop {
        if let Some(outcome) = completion.outcome() {
            return outcome;
        }
        // The deadline that ends the transfer is the engine's own; this one cannot pass first, it
        // only keeps the wait from being unbounded in form.
        let until = Until::After(Duration::from_secs(1));
        engine.wait_on(completion, until, || completion.outcome().is_some());
    }
}

pub(crate) fn show(outcome: Option<Outcome>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match outcome {
        Some(outcome) => write!(f, "Transfer({outcome})"),
        None => f.write_str("Transfer(running)"),
    }
}

impl Future for Transfer {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        match &self.state {
            State::Ended(outcome) => Poll::Ready(*outcome),
            State::Running { end, .. } => end.poll(context.waker()),
        }
    }
}

impl fmt::Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(self.outcome(), f)
    }
}
