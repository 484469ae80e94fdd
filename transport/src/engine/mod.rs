//! The engine: everything above the fabric seam, written once.

mod builder;
mod core;
mod crew;
mod error;
mod links;
#[cfg(all(test, loom))]
mod models;
mod operations;
mod outlet;
mod shared;
mod stats;
mod worker;

use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use std::thread::JoinHandle;
use std::time::Duration;

pub use builder::{BuildError, Builder};
pub use crew::{Drive, Polling};
pub use error::{CountersExhausted, MapError, NotFenced, PeerError, RegionError};
pub use outlet::Sink;
pub use stats::Stats;

use self::crew::Crew;
pub(crate) use self::crew::Until;
use self::links::State;
use self::shared::Shared;
use self::worker::Worker;
use crate::address::{Address, EngineId};
use crate::batch::{Orders, Transfers};
use crate::completion::{Completion, End, Ends, Told};
use crate::counter::Counter;
use crate::fabric::{Grant, RegionId, RegisterError};
use crate::memory::{HostMemory, Memory};
use crate::order::Order;
use crate::outcome::Reason;
use crate::peer::{Incoming, Peer};
use crate::rail::{Path, PathState, Rail};
use crate::region::{Region, Registered};
use crate::remote::{Opened, RemoteWindow, Way};
use crate::sabotage::{self, Defect};
use crate::time::{Steppable, Time};
use crate::transfer::Started;
use crate::watcher::{WatchError, Watcher};
use crate::window::{Access, Descriptor, Route, WindowError, WindowId};

/// Moves bytes between memories of this process and of its peers. A cheap handle; clones are the
/// same engine, which ends with the last of them and of its regions, windows and counters.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    id: EngineId,
    addresses: Vec<Address>,
    message_bytes_max: usize,
    shared: Arc<Shared>,
    crew: Crew,
    threads: Vec<JoinHandle<()>>,
    default_deadline: Duration,
    next_region: AtomicU32,
    closed: AtomicBool,
}

impl Engine {
    /// Describes an engine to be built.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Which engine this is; new at every start.
    #[must_use]
    pub fn id(&self) -> EngineId {
        self.inner.id
    }

    /// Where peers reach it, one address a fabric, best first.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.inner.addresses
    }

    /// The longest message that every one of its fabrics carries, bytes.
    #[must_use]
    pub fn message_bytes_max(&self) -> usize {
        self.inner.message_bytes_max
    }

    /// The engine's clock, now.
    #[must_use]
    pub fn now(&self) -> Time {
        self.inner.shared.clock.now()
    }

    /// The time transfers have when they name none.
    #[must_use]
    #[inline]
    pub fn default_deadline(&self) -> Duration {
        self.inner.default_deadline
    }

    /// What it counted so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.crew.workers.iter().map(|worker| worker.tallies.read()).sum()
    }

    // ---- memory ------------------------------------------------------------------------------

    /// Allocates memory and registers it.
    ///
    /// # Errors
    /// When the memory cannot be had, or a fabric refuses it.
    pub fn alloc(&self, memory: HostMemory) -> Result<Region, RegionError> {
        self.register(memory.build()?)
    }

    /// Registers memory with every fabric; that of a device ([`Memory::device`]) with those alone that may
    /// reach it, which is the only way then. Peers see nothing of it before a window is opened.
    ///
    /// # Errors
    /// When a fabric refuses it, or none may reach it; the memory comes back.
    pub fn register(&self, memory: impl Into<Arc<Memory>>) -> Result<Region, RegionError> {
        let memory = memory.into();
        let id = RegionId(self.inner.next_region.fetch_add(1, Ordering::Relaxed));
        if self.inner.crew.workers.iter().any(|worker| worker.with(|core| core.fabric.pins())) {
            // To make pages takes long, and while a fabric does it no peer hears of this engine.
            memory.make_pages(|| {
                self.progress();
            });
        }
        let workers: Vec<_> = self.inner.crew.workers.iter().enumerate().collect();
        let takes =
            |worker: &Worker| memory.is_host() || worker.with(|core| core.fabric.takes_devices());
        let with: Vec<_> = workers.into_iter().filter(|(_, worker)| takes(worker)).collect();
        if with.is_empty() {
            let error = RegisterError::on_device(self.inner.addresses[0].kind);
            return Err(RegionError::Fabric { error, memory });
        }
        for (at, (_, worker)) in with.iter().enumerate() {
            if let Err(error) = worker.with(|core| core.fabric.register(id, &memory)) {
                for (_, worker) in &with[..at] {
                    worker.with(|core| core.fabric.deregister(id));
                }
                return Err(RegionError::Fabric { error, memory });
            }
        }
        let with: Vec<usize> = with.iter().map(|(at, _)| *at).collect();
        let graveyards = &self.inner.shared.graveyards;
        Ok(Region {
            engine: self.clone(),
            inner: Arc::new(Registered::new(self.inner.id, id, memory, graveyards, &with)),
        })
    }

    pub(crate) fn grant(
        &self,
        region: &Arc<Registered>,
        range: &Range<u64>,
        access: Access,
    ) -> Result<(WindowId, Vec<Route>), WindowError> {
        if self.is_closed() {
            return Err(WindowError::Closed);
        }
        let windows = &self.inner.shared.windows;
        let window = windows.take().ok_or(WindowError::Full { limit: windows.limit })?;
        let (offset, len) = (range.start, range.end - range.start);
        let grant = Grant { window, region: region.id, offset, len, access };
        let mut routes = Vec::with_capacity(self.inner.crew.workers.len());
        let mut through = Vec::with_capacity(routes.capacity());
        for (index, worker) in self.inner.crew.workers.iter().enumerate() {
            if !region.is_with(index as u16) {
                windows.release(window, index as u16);
                continue;
            }
            let granted = worker.with(|core| core.grant(&grant, region));
            match granted {
                Ok(key) => {
                    let address = self.inner.addresses[index].clone();
                    routes.push(Route { address, key: key.key, base: key.base });
                    through.push(index);
                }
                Err(error) => {
                    for (index, worker) in self.inner.crew.workers.iter().enumerate() {
                        if through.contains(&index) {
                            worker.with(|core| core.revoke(window));
                        } else {
                            windows.release(window, index as u16);
                        }
                    }
                    return Err(error);
                }
            }
        }
        Ok((window, routes))
    }

    /// Revokes a window; whether it is fenced within `timeout`.
    pub(crate) fn revoke(&self, window: WindowId, timeout: Duration) -> bool {
        let until = self.now() + timeout;
        for worker in &self.inner.crew.workers {
            worker.with(|core| core.revoke(window));
            worker.wake_sleeper();
        }
        let asked = |worker: &Worker| worker.index == 0 || !sabotage::is(Defect::HalfFence);
        self.all_workers(until, |it| !asked(it) || it.with(|core| core.is_fenced(window)))
    }

    /// Ends everything that touches a region; whether that is proven within `timeout`.
    pub(crate) fn fence_region(&self, region: &Registered, timeout: Duration) -> bool {
        self.fence(Some(region.id), timeout)
    }

    /// Operations on a region that are not provably ended.
    pub(crate) fn ops_on(&self, region: RegionId) -> usize {
        self.inner.crew.workers.iter().map(|it| it.with(|core| core.ops_on(region))).sum()
    }

    fn fence(&self, region: Option<RegionId>, timeout: Duration) -> bool {
        let until = self.now() + timeout;
        for worker in &self.inner.crew.workers {
            worker.with(|core| core.begin_fence(region));
            // What was parked has ended already, and others may wait for it.
            worker.tell();
            worker.wake_sleeper();
        }
        self.all_workers(until, |worker| worker.with(|core| core.fence_is_complete(region)))
    }

    /// Drives all workers until `done` holds for each.
    fn all_workers(&self, until: Time, done: impl Fn(&Worker) -> bool) -> bool {
        self.wait(until, || self.inner.crew.workers.iter().all(|worker| done(worker)))
    }

    // ---- peers -------------------------------------------------------------------------------

    /// Names a peer by its address, without dialling: the first transfer does.
    ///
    /// # Errors
    /// When the engine has no fabric of that kind.
    pub fn peer(&self, address: &Address) -> Result<Peer, PeerError> {
        let worker = self
            .inner
            .addresses
            .iter()
            .position(|own| own.kind == address.kind)
            .ok_or_else(|| PeerError::NoFabric { address: address.clone() })?;
        Ok(self.inner.crew.workers[worker].with(|core| core.link_to(address)))
    }

    /// Dials a peer and waits until it answers.
    ///
    /// # Errors
    /// When the engine has no fabric of that kind, nobody answers there, the peer refuses, or
    /// `timeout` passes.
    pub fn connect(&self, address: &Address, timeout: Duration) -> Result<Peer, PeerError> {
        let peer = self.peer(address)?;
        let worker = self.worker(peer);
        let until = self.now() + timeout;
        let mut state = worker.with(|core| core.dial(peer));
        self.inner.crew.wait_on(peer.worker, until, || {
            state = worker.with(|core| core.link(peer).map(|(state, _)| state));
            !matches!(state, Some(State::Connecting(_)))
        });
        match state {
            Some(State::Up(_)) => Ok(peer),
            Some(State::Connecting(_)) => {
                Err(PeerError::Silent { address: address.clone(), timeout })
            }
            Some(State::Down) | None => {
                let why = worker.with(|core| core.link(peer).and_then(|(_, why)| why));
                let why = why.unwrap_or(Reason::Unreachable);
                Err(PeerError::Refused { address: address.clone(), why })
            }
        }
    }

    /// Whether the peer is reached over a fabric on which it can map this engine's regions.
    #[must_use]
    pub fn can_map(&self, peer: Peer) -> bool {
        self.worker(peer).with(|core| core.fabric.maps())
    }

    /// The rails of its fabrics: which NICs, by which addresses, and why.
    #[must_use]
    pub fn rails(&self) -> Vec<Rail> {
        let workers = self.inner.crew.workers.iter();
        workers.flat_map(|worker| worker.with(|core| core.fabric.rails())).collect()
    }

    /// The paths to a peer. None when it is not connected, or reached over a fabric without rails.
    #[must_use]
    pub fn paths(&self, peer: Peer) -> Vec<Path> {
        self.worker(peer).with(|core| core.paths(peer))
    }

    /// Measures the round trip of every path to a peer that is connected, by an empty write that the
    /// peer's side acknowledges, and returns the paths. It waits, up to `timeout`, until it is known
    /// of each whether it leads there.
    #[must_use]
    pub fn probe(&self, peer: Peer, timeout: Duration) -> Vec<Path> {
        let (worker, until) = (self.worker(peer), self.now() + timeout);
        worker.with(|core| core.probe(peer));
        worker.wake_sleeper();
        let mut paths = Vec::new();
        self.inner.crew.wait_on(peer.worker, until, || {
            paths = self.paths(peer);
            paths.iter().all(|path| match path.state {
                PathState::Joining => false,
                PathState::Up => path.round_trip.is_some(),
                PathState::Down(_) => true,
            })
        });
        paths
    }

    /// Hangs up. Transfers in flight to the peer end.
    pub fn disconnect(&self, peer: Peer) {
        let worker = self.worker(peer);
        worker.with(|core| core.hang_up(peer));
        worker.wake_sleeper();
    }

    /// Makes a peer's window usable here; connects on first use, over the best fabric that both have
    /// (the order is the one this engine was built with). When nobody can be reached over that one,
    /// transfers take the next: that is announced in the log and counted
    /// ([`Stats::fallbacks`]).
    ///
    /// # Errors
    /// When no route of the descriptor leads over a fabric this engine has.
    pub fn open(&self, descriptor: &Descriptor) -> Result<RemoteWindow, PeerError> {
        let mut ways = Vec::new();
        for own in &self.inner.addresses {
            for (route, there) in descriptor.routes.iter().enumerate() {
                if there.address.kind == own.kind {
                    ways.push(Way { peer: self.peer(&there.address)?, route });
                }
            }
        }
        if ways.is_empty() {
            return Err(self.no_route(descriptor.routes.iter().map(|route| &route.address)));
        }
        Ok(RemoteWindow { inner: Arc::new(Opened::new(self.inner.id, descriptor.clone(), ways)) })
    }

    /// Names the peer behind the first of these addresses that this engine has a fabric for.
    pub(crate) fn first_peer(&self, addresses: &[Address]) -> Result<(Peer, Address), PeerError> {
        for own in &self.inner.addresses {
            if let Some(there) = addresses.iter().find(|there| there.kind == own.kind) {
                return Ok((self.peer(there)?, there.clone()));
            }
        }
        Err(self.no_route(addresses.iter()))
    }

    fn no_route<'a>(&self, there: impl Iterator<Item = &'a Address>) -> PeerError {
        PeerError::NoRoute { routes: there.cloned().collect() }
    }

    /// Makes a window of a peer that is connected already usable over that connection, whatever
    /// address the descriptor names.
    ///
    /// # Errors
    /// When the descriptor has no route over the connection's fabric.
    pub fn open_at(&self, peer: Peer, descriptor: &Descriptor) -> Result<RemoteWindow, PeerError> {
        // A peer of another engine may be on a worker that this one has not.
        let own = self.inner.addresses.get(usize::from(peer.worker));
        let is_there = |route: &Route| own.is_some_and(|own| own.kind == route.address.kind);
        let route = descriptor.routes.iter().position(is_there);
        let addresses = || descriptor.routes.iter().map(|route| &route.address);
        let route = route.ok_or_else(|| self.no_route(addresses()))?;
        let ways = vec![Way { peer, route }];
        Ok(RemoteWindow { inner: Arc::new(Opened::new(self.inner.id, descriptor.clone(), ways)) })
    }

    // ---- what arrives, and waiting ---------------------------------------------------------------

    /// A counter of arrivals; its slot goes to those who write.
    ///
    /// # Errors
    /// When all slots are taken.
    pub fn counter(&self) -> Result<Counter, CountersExhausted> {
        Counter::new(self.clone(), Arc::clone(&self.inner.shared.counters)).ok_or(CountersExhausted)
    }

    /// The next of what came in, waiting up to `timeout` and driving the engine meanwhile. `None`
    /// when nothing came. An engine built with a sink has nothing to receive here.
    #[must_use]
    pub fn recv(&self, timeout: Duration) -> Option<Incoming> {
        if let Some(incoming) = self.try_recv() {
            return Some(incoming);
        }
        let until = self.now() + timeout;
        let mut got = None;
        self.wait(until, || {
            got = self.try_recv();
            got.is_some()
        });
        got
    }

    /// The next of what came in, if it is there; does not drive the engine.
    #[must_use]
    pub fn try_recv(&self) -> Option<Incoming> {
        let Shared { inbox, outlet: None, .. } = &*self.inner.shared else { return None };
        let (incoming, room_again) = inbox.pop();
        if room_again {
            self.inner.crew.common.disturb();
        }
        incoming
    }

    /// Whether something came in that nobody has received.
    #[must_use]
    pub fn has_incoming(&self) -> bool {
        let Shared { inbox, outlet, .. } = &*self.inner.shared;
        outlet.is_none() && inbox.len() != 0
    }

    /// Drives the engine on this thread until `done` holds or `timeout` passes; whether it held.
    /// `done` is asked after every step and after every [`Engine::wake`], and not again once it held.
    pub fn wait_until(&self, timeout: Duration, done: impl FnMut() -> bool) -> bool {
        self.wait(self.now() + timeout, done)
    }

    /// Does a bounded amount of work without waiting; whether there was any. Needed only where
    /// nothing else drives the engine ([`Drive::Caller`]).
    pub fn progress(&self) -> bool {
        self.inner.crew.workers.iter().fold(false, |worked, worker| worker.step_once() | worked)
    }

    /// Wakes the threads that sleep in [`Engine::recv`] or another wait, so that they look again.
    pub fn wake(&self) {
        for worker in &self.inner.crew.workers {
            worker.tell();
        }
    }

    /// Watches a 64-bit word in memory: of a region, so that peers can bump it by one-sided writes,
    /// or any that a GPU or another process can reach. `offset` is a multiple of 8.
    ///
    /// # Errors
    /// When the word is not inside the memory, or not aligned.
    pub fn watch(&self, memory: &Arc<Memory>, offset: u64) -> Result<Watcher, WatchError> {
        Watcher::new(self.clone(), &self.inner.crew.common.watchers, memory, offset)
    }

    /// Makes whoever drives look at the watched words.
    pub(crate) fn look(&self) {
        let first = &self.inner.crew.workers[0];
        first.tell();
        first.wake_sleeper();
    }

    pub(crate) fn wait(&self, until: Time, done: impl FnMut() -> bool) -> bool {
        self.inner.crew.wait(until, done)
    }

    /// Waits for what the worker that has a transfer does.
    pub(crate) fn wait_on(
        &self,
        transfer: &Completion,
        until: impl Into<Until>,
        done: impl FnMut() -> bool,
    ) -> bool {
        let worker = transfer.worker.load(Ordering::SeqCst);
        self.inner.crew.wait_on(worker, until, done)
    }

    /// The worker that knows a peer. One of another engine is nobody, whoever is asked.
    fn worker(&self, peer: Peer) -> &Arc<Worker> {
        let workers = &self.inner.crew.workers;
        workers.get(usize::from(peer.worker)).unwrap_or(&workers[0])
    }

    /// Takes an order on, or leaves it as it was: where there is no room for it.
    pub(crate) fn submit(&self, order: &mut Order<'_>, told: &Told, wake: bool) -> Option<Started> {
        self.worker(order.peer()).submit(order, told, wake)
    }

    /// Starts many, under one lock for each stretch that goes to the same worker.
    pub(crate) fn submit_all(&self, mut orders: Orders<'_>) -> Transfers {
        let now = self.now();
        orders.all.iter_mut().for_each(|order| order.begin(now));
        let ends = Ends::new(orders.told.drain(..));
        let mut first = 0;
        let worker = |order: &Order<'_>| order.peer().worker;
        for stretch in orders.all.chunk_by_mut(|a, b| worker(a) == worker(b)) {
            self.worker(stretch[0].peer()).submit_all(stretch, &ends, first);
            first += stretch.len();
        }
        orders.keep_room();
        Transfers::new(self, ends)
    }

    pub(crate) fn cancel(&self, end: &End) {
        if end.outcome().is_some() || end.cancelled.swap(true, Ordering::SeqCst) {
            return;
        }
        // See `Core::admit` for the other side.
        fence(Ordering::SeqCst);
        let worker = end.worker.load(Ordering::SeqCst);
        self.inner.crew.workers[usize::from(worker)].cancel(end);
    }

    // ---- the end -----------------------------------------------------------------------------

    /// Ends the engine: refuses new work, ends what is in flight, revokes all windows, and returns
    /// once no transfer, local or remote, can touch its memory. Dropping the last handle does the
    /// same, for as long as [`Builder::deadline`] says.
    ///
    /// # Errors
    /// When that cannot be proven within `timeout`. The engine stays closed; memory that could not
    /// be fenced stays mapped for the rest of the process.
    pub fn close(&self, timeout: Duration) -> Result<(), NotFenced> {
        self.inner.closed.store(true, Ordering::SeqCst);
        for worker in &self.inner.crew.workers {
            worker.with(core::Core::refuse_new);
        }
        let fenced = self.fence(None, timeout);
        for worker in &self.inner.crew.workers {
            worker.close();
        }
        self.inner.crew.common.deliver_rest();
        if fenced { Ok(()) } else { Err(NotFenced { timeout }) }
    }

    fn is_closed(&self) -> bool {
        self.inner.closed.load(Ordering::SeqCst)
    }
}

impl Steppable for Inner {
    fn step(&self) -> bool {
        self.crew.workers.iter().fold(false, |worked, worker| worker.step() | worked)
    }

    fn next_deadline(&self) -> Time {
        self.crew.workers.iter().map(|worker| worker.next_deadline()).min().unwrap_or(Time::NEVER)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let until = self.shared.clock.now() + self.default_deadline;
        let workers = &self.crew.workers;
        for worker in workers {
            worker.with(|core| {
                core.refuse_new();
                core.begin_fence(None);
            });
        }
        self.crew.wait(until, || {
            workers.iter().all(|worker| worker.with(|core| core.fence_is_complete(None)))
        });
        for worker in workers {
            worker.close();
            worker.stop();
        }
        // A sink that panics keeps no thread from ending.
        let _ = catch_unwind(AssertUnwindSafe(|| self.crew.common.deliver_rest()));
        let here = std::thread::current().id();
        // A waker may drop the last handle on a worker's own thread, which ends by itself then.
        for thread in self.threads.drain(..).filter(|thread| thread.thread().id() != here) {
            // Its panic, if any, was printed when it happened.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Engine({} at {:?})", self.inner.id, self.inner.addresses)
    }
}
