//! Transfers: what is asked of the engine, and how its end is learnt.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::engine::Engine;
use crate::fabric::{Remote, RemoteKey, Work};
use crate::held::Held;
use crate::immediate::{Immediate, Slot};
use crate::lane::{Class, Lane, Priority};
use crate::notify::Notifier;
use crate::outcome::{Outcome, Reason, code};
use crate::pages::Plan;
use crate::peer::Peer;
use crate::region::Slice;
use crate::remote::{Mapping, Opened, RemoteSlice};
use crate::time::Time;

/// What is to be done, with everything it needs: borrowed while it is described, and kept in place
/// (`'static`) once it goes on.
#[derive(Debug)]
pub(crate) enum Task<'a> {
    Write(Move<'a>),
    Read(Move<'a>),
    Signal { to: Peer, immediate: Immediate },
    Send { to: Peer, bytes: Vec<u8>, immediate: Option<Immediate> },
    Map { remote: RemoteSlice },
}

/// Bytes between this side and a peer's window.
#[derive(Debug)]
pub(crate) struct Move<'a> {
    pub(crate) local: Held<'a, Slice>,
    pub(crate) remote: Held<'a, RemoteSlice>,
    pub(crate) pages: Option<Held<'a, Plan>>,
    pub(crate) immediate: Option<Immediate>,
}

impl Move<'_> {
    fn keep(&self) -> Move<'static> {
        Move {
            local: self.local.keep(),
            remote: self.remote.keep(),
            pages: self.pages.as_ref().map(Held::keep),
            immediate: self.immediate,
        }
    }

    fn into_owned(self) -> Move<'static> {
        let Self { local, remote, pages, immediate } = self;
        let pages = pages.map(Held::into_owned);
        Move { local: local.into_owned(), remote: remote.into_owned(), pages, immediate }
    }

    fn bytes(&self) -> u64 {
        self.pages.as_ref().map_or_else(|| self.local.len(), |plan| plan.bytes())
    }
}

impl<'a> Task<'a> {
    /// The same, for as long as it takes.
    fn into_owned(self) -> Task<'static> {
        match self {
            Self::Write(it) => Task::Write(it.into_owned()),
            Self::Read(it) => Task::Read(it.into_owned()),
            Self::Signal { to, immediate } => Task::Signal { to, immediate },
            Self::Send { to, bytes, immediate } => Task::Send { to, bytes, immediate },
            Self::Map { remote } => Task::Map { remote },
        }
    }

    /// The same, for as long as it takes; a message's bytes are taken.
    fn keep(&mut self) -> Task<'static> {
        match self {
            Self::Write(it) => Task::Write(it.keep()),
            Self::Read(it) => Task::Read(it.keep()),
            Self::Signal { to, immediate } => Task::Signal { to: *to, immediate: *immediate },
            Self::Send { to, bytes, immediate } => {
                Task::Send { to: *to, bytes: std::mem::take(bytes), immediate: *immediate }
            }
            Self::Map { remote } => Task::Map { remote: remote.clone() },
        }
    }

    /// The peer's bytes, if they are in a window.
    pub(crate) fn remote(&self) -> Option<&RemoteSlice> {
        match self {
            Self::Write(it) | Self::Read(it) => Some(&it.remote),
            Self::Map { remote } => Some(remote),
            Self::Send { .. } | Self::Signal { .. } => None,
        }
    }

    /// The peer's window, if it has one.
    #[inline]
    pub(crate) fn window(&self) -> Option<&Opened> {
        self.remote().map(|remote| &*remote.window.inner)
    }

    fn peer(&self, way: u16) -> Peer {
        match self {
            Self::Write(it) | Self::Read(it) => it.remote.window.inner.peer(way),
            Self::Map { remote } => remote.window.inner.peer(way),
            Self::Send { to, .. } | Self::Signal { to, .. } => *to,
        }
    }

    /// The local bytes, if it has any.
    pub(crate) fn local(&self) -> Option<&Slice> {
        match self {
            Self::Write(it) | Self::Read(it) => Some(&it.local),
            Self::Send { .. } | Self::Signal { .. } | Self::Map { .. } => None,
        }
    }

    /// How many bytes of payload it moves.
    #[inline]
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Write(it) | Self::Read(it) => it.bytes(),
            Self::Send { bytes, .. } => bytes.len() as u64,
            Self::Signal { .. } | Self::Map { .. } => 0,
        }
    }

    #[inline]
    fn work(&self, way: u16) -> Work<'_> {
        match self {
            Self::Write(it) => Work::Write {
                local: it.local.local(),
                remote: target(&it.remote, way),
                pages: it.pages.as_deref(),
                immediate: it.immediate,
            },
            Self::Read(it) => Work::Read {
                local: it.local.local(),
                remote: target(&it.remote, way),
                pages: it.pages.as_deref(),
                immediate: it.immediate,
            },
            Self::Signal { immediate, .. } => Work::Signal { immediate: *immediate },
            Self::Send { bytes, immediate, .. } => Work::Send { bytes, immediate: *immediate },
            Self::Map { remote } => Work::Map { remote: target(remote, way) },
        }
    }

    fn set_immediate(&mut self, slot: Slot) {
        match self {
            Self::Write(Move { immediate, .. })
            | Self::Read(Move { immediate, .. })
            | Self::Send { immediate, .. } => *immediate = Some(slot.into()),
            Self::Signal { immediate, .. } => *immediate = slot.into(),
            Self::Map { .. } => {}
        }
    }
}

#[inline]
fn target(slice: &RemoteSlice, way: u16) -> Remote {
    let opened = &slice.window.inner;
    let route = opened.route(way);
    Remote {
        window: opened.descriptor.window,
        key: RemoteKey { key: route.key, base: route.base },
        offset: slice.range.start,
    }
}

/// A task, how it goes, and until when.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    pub(crate) task: Task<'a>,
    /// Which of the ways to the window.
    pub(crate) way: u16,
    pub(crate) class: Class,
    pub(crate) deadline: Time,
    pub(crate) timeout: Duration,
}

impl<'a> Order<'a> {
    /// Not to be submitted before [`Order::begin`].
    #[inline]
    pub(crate) fn new(task: Task<'a>, class: Class, timeout: Duration) -> Self {
        // Messages keep their order: all of them are in one class.
        let class = if matches!(task, Task::Send { .. }) { Class::MESSAGE } else { class };
        Self { task, way: 0, class, deadline: Time::NEVER, timeout }
    }

    /// The same, for as long as it takes.
    pub(crate) fn into_owned(self) -> Order<'static> {
        let Self { task, way, class, deadline, timeout } = self;
        Order { task: task.into_owned(), way, class, deadline, timeout }
    }

    /// The same, for an operation that goes on: what was borrowed is cloned, and a message's bytes
    /// are taken.
    pub(crate) fn keep(&mut self) -> Order<'static> {
        let Self { task, way, class, deadline, timeout } = self;
        let (way, class, deadline, timeout) = (*way, *class, *deadline, *timeout);
        Order { task: task.keep(), way, class, deadline, timeout }
    }

    pub(crate) fn set_lane(&mut self, lane: Lane) {
        if !matches!(self.task, Task::Send { .. }) {
            self.class = self.class.in_lane(lane);
        }
    }

    /// Its time runs from now on, over the way that is in use now.
    #[inline]
    pub(crate) fn begin(&mut self, now: Time) {
        self.way = self.task.window().map_or(0, Opened::way);
        self.deadline = now + self.timeout;
    }

    pub(crate) fn peer(&self) -> Peer {
        self.task.peer(self.way)
    }

    pub(crate) fn work(&self) -> Work<'_> {
        self.task.work(self.way)
    }
}

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

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
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
    #[inline]
    pub(crate) fn new(engine: &Engine, started: Started, told: &Told) -> Self {
        let state = match started {
            Started::Ended(outcome) => {
                told.tell(outcome);
                State::Ended(outcome)
            }
            Started::Running(completion) => State::Running { engine: engine.clone(), completion },
        };
        Self { state }
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
    pub(crate) mapping: OnceLock<Mutex<Option<Mapping>>>,
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
            mapping: OnceLock::new(),
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
        self.code.store(code::pack(outcome), Ordering::Release);
        if let Some(notifier) = &self.told.notifier {
            notifier.ring();
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
        // The end may have come between the look and the registration.
        self.outcome().map_or(Poll::Pending, Poll::Ready)
    }
}
