//! Transfers: how they are described and started, and how their end is learnt.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::engine::Engine;
use crate::held::Held;
use crate::immediate::Slot;
use crate::lane::{Class, Lane, Priority};
use crate::notify::Notifier;
use crate::order::{Order, Task};
use crate::outcome::{Outcome, Reason, code};
use crate::remote::Mapping;

/// Who is told of an end, besides the holder of the transfer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    notifier: Option<Notifier>,
    tally: Option<Arc<AtomicU64>>,
}

impl Told {
    pub(crate) fn completion(&self) -> Arc<Completion> {
        Arc::new(Completion::new(self.clone()))
    }

    #[inline]
    fn tell(&self, outcome: Outcome) {
        if outcome.is_done()
            && let Some(tally) = &self.tally
        {
            tally.fetch_add(1, Ordering::Release);
        }
        if let Some(notifier) = &self.notifier {
            notifier.ring();
        }
    }
}

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
        self.told.notifier = Some(notifier.clone());
        self
    }

    /// Adds one to a shared counter (release) if it ends well.
    pub fn tally(mut self, counter: &Arc<AtomicU64>) -> Self {
        self.told.tally = Some(Arc::clone(counter));
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
    Running(Arc<Completion>),
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
    Running { engine: Engine, completion: Arc<Completion> },
}

impl Transfer {
    pub(crate) fn new(engine: &Engine, started: Started, told: &Told) -> Self {
        match started {
            Started::Ended(outcome) => Self::ended(outcome, told),
            Started::Running(completion) => Self::running(engine, completion),
        }
    }

    #[inline]
    pub(crate) fn ended(outcome: Outcome, told: &Told) -> Self {
        told.tell(outcome);
        Self { state: State::Ended(outcome) }
    }

    #[inline]
    pub(crate) fn running(engine: &Engine, completion: Arc<Completion>) -> Self {
        Self { state: State::Running { engine: engine.clone(), completion } }
    }

    /// Its outcome, if it has ended; does not drive the engine.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        match &self.state {
            State::Ended(outcome) => Some(*outcome),
            State::Running { completion, .. } => completion.outcome(),
        }
    }

    /// Waits for its end, driving the engine on this thread. Ends by the transfer's deadline.
    pub fn wait(&self) -> Outcome {
        match &self.state {
            State::Ended(outcome) => *outcome,
            State::Running { engine, completion } => {
                // The deadline that ends the transfer is the engine's own; this one cannot pass
                // first, it only keeps the wait from being unbounded in form.
                while completion.outcome().is_none() {
                    let until = engine.now() + Duration::from_secs(1);
                    engine.wait_on(completion, until, || completion.outcome().is_some());
                }
                completion.outcome().expect("the loop ended on it")
            }
        }
    }

    /// Waits for its end, driving the engine on this thread, but no longer than `timeout`: then `None`.
    pub fn wait_for(&self, timeout: Duration) -> Option<Outcome> {
        if let State::Running { engine, completion } = &self.state
            && completion.outcome().is_none()
        {
            let until = engine.now() + timeout;
            engine.wait_on(completion, until, || completion.outcome().is_some());
        }
        self.outcome()
    }

    /// Asks that it end now: `Done` if it was faster, else `Rejected` or `Fenced` with
    /// [`Reason::Cancelled`] (or `Lost` at its deadline, when no fence can be proven). It has not
    /// ended when this returns.
    pub fn cancel(&self) {
        if let State::Running { engine, completion } = &self.state {
            engine.cancel(completion);
        }
    }

    /// Whether the pages on this side are free: at once for every outcome but `Lost`, and for that
    /// from the moment the fabric proved that nothing moves any more.
    #[must_use]
    pub fn fenced(&self) -> bool {
        match &self.state {
            State::Ended(outcome) => outcome.pages_are_free(),
            State::Running { completion, .. } => completion.fenced.load(Ordering::Acquire),
        }
    }
}

impl Future for Transfer {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        match &self.state {
            State::Ended(outcome) => Poll::Ready(*outcome),
            State::Running { completion, .. } => completion.poll(context.waker()),
        }
    }
}

impl fmt::Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.outcome() {
            Some(outcome) => write!(f, "Transfer({outcome})"),
            None => f.write_str("Transfer(running)"),
        }
    }
}

/// Where the end of a transfer is written, once.
#[derive(Debug)]
pub(crate) struct Completion {
    code: AtomicU32,
    fenced: AtomicBool,
    /// The worker that has it.
    pub(crate) worker: AtomicU16,
    /// The operation, once admitted.
    pub(crate) op: AtomicU64,
    /// Whether it was asked to end early.
    pub(crate) cancelled: AtomicBool,
    waker: Mutex<Option<Waker>>,
    told: Told,
    pub(crate) mapping: Mutex<Option<Box<Mapping>>>,
}

impl Completion {
    /// "Not admitted yet."
    pub(crate) const NO_OP: u64 = u64::MAX;

    fn new(told: Told) -> Self {
        Self {
            code: AtomicU32::new(code::PENDING),
            fenced: AtomicBool::new(false),
            worker: AtomicU16::new(0),
            op: AtomicU64::new(Self::NO_OP),
            cancelled: AtomicBool::new(false),
            waker: Mutex::new(None),
            told,
            mapping: Mutex::new(None),
        }
    }

    pub(crate) fn outcome(&self) -> Option<Outcome> {
        code::unpack(self.code.load(Ordering::Acquire))
    }

    /// Writes the end. Called once, by the engine; returns the waker of the task that awaits it, to
    /// be woken once no lock is held.
    #[must_use]
    pub(crate) fn end(&self, outcome: Outcome) -> Option<Waker> {
        debug_assert!(self.outcome().is_none(), "a transfer ends once");
        if outcome.pages_are_free() {
            self.fenced.store(true, Ordering::Release);
        }
        if outcome.is_done()
            && let Some(tally) = &self.told.tally
        {
            tally.fetch_add(1, Ordering::Release);
        }
        let before = self.code.swap(code::pack(outcome), Ordering::AcqRel);
        if let Some(notifier) = &self.told.notifier {
            notifier.ring();
        }
        if before != code::AWAITED {
            return None;
        }
        self.waker.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The fabric proved that nothing moves any more, after a `Lost`.
    pub(crate) fn prove(&self) {
        self.fenced.store(true, Ordering::Release);
    }

    fn poll(&self, waker: &Waker) -> Poll<Outcome> {
        if let Some(outcome) = self.outcome() {
            return Poll::Ready(outcome);
        }
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
        let (from, to) = (code::PENDING, code::AWAITED);
        let _ = self.code.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
        // The end may have come between the look and the registration.
        self.outcome().map_or(Poll::Pending, Poll::Ready)
    }
}
