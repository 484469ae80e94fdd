//! The daemon's side of the cache protocol: one thread that answers requests from the store.
//!
//! The thread that calls [`Server::run`] drives the engine and does everything itself; it never
//! blocks on a client. Bulk bytes do not travel in messages: clients that share memory with the
//! daemon fill and read the arena in place; for the others one-sided reads and writes carry blocks
//! between the arena and their memory, and the daemon alone writes to the arena.
//!
//! A client that disconnects loses its own open reservations and leases, nothing else.

mod admission;
mod commits;
mod fetches;
mod handle;
mod list;
mod observe;
mod parked;
mod parts;
mod persist;
mod puts;
mod session;
mod subscribers;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tranship_transport::{Engine, Incoming, Peer, Region, RegionError, Time};

pub use observe::{BUCKET_BOUNDS_SECONDS, RequestStats, ServerStats, SessionInfo};

use self::commits::Commits;
use self::fetches::Fetches;
use self::observe::Observed;
use self::parked::Parked;
use self::persist::Persists;
use self::puts::Puts;
use self::session::Session;
use self::subscribers::Subscribers;
use crate::block::{Reserved, SessionId};
use crate::error::Error;
use crate::mover::{Bell, Mover};
use crate::policy;
use crate::store::{Options as StoreOptions, Store, TenantOptions, Watermarks};
use crate::tier::Stack;
use crate::time::{Millis, Wall};
use crate::wire::{Fault, FaultCode, Reply, Request};

/// How often deadlines and watermarks are looked after.
const TICK: Duration = Duration::from_millis(50);
/// Bytes on their way down at once when everything goes.
const EVACUATED_BYTES: u64 = 256 << 20;
/// Messages handled before the rest gets its turn.
const MESSAGES_PER_STEP: usize = 64;

/// A tenant to be served.
#[derive(Debug)]
pub struct TenantConfig {
    /// Its name.
    pub name: String,
    /// What its clients must present; none lets in whoever reaches the daemon.
    pub token: Option<String>,
    /// Its arena.
    pub memory: Arc<tranship_transport::Memory>,
    /// When background eviction starts and stops.
    pub watermarks: Watermarks,
    /// What stays and what goes.
    pub policy: policy::Name,
}

/// How a server behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// What it calls itself to clients.
    pub name: String,
    /// Most sessions at once.
    pub sessions_max: usize,
    /// Check the bytes of every commit against its checksum.
    pub verify_on_commit: bool,
    /// The tiers below memory.
    pub stack: Stack,
    /// What they ring; it wakes the server's engine ([`Bell::of`]).
    pub bell: Bell,
}

impl Default for Options {
    fn default() -> Self {
        let name = concat!("tranship/", env!("CARGO_PKG_VERSION")).to_owned();
        Self {
            name,
            sessions_max: 1024,
            verify_on_commit: true,
            stack: Stack::default(),
            bell: Bell::new(|| {}),
        }
    }
}

/// A server that cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A tenant was refused by the store.
    #[error(transparent)]
    Tenant(#[from] Error),
    /// An arena was refused by the transport.
    #[error("arena of tenant {tenant:?}: {error}")]
    Arena {
        /// The tenant.
        tenant: String,
        /// What the transport said.
        error: RegionError,
    },
}

/// Serves the cache to the peers of an engine.
pub struct Server {
    engine: Engine,
    store: Store,
    options: Options,
    observed: Arc<Observed>,
    tenants: HashMap<String, Arena>,
    started: Time,
    sessions: HashMap<Peer, Session>,
    peers: HashMap<SessionId, Peer>,
    next_session: u64,
    parked: Parked,
    mover: Mover,
    persists: Persists,
    fetches: Fetches,
    puts: Puts,
    commits: Commits,
    subscribers: Subscribers,
    /// Space that a client which was hung up on may still be writing to.
    quarantine: Vec<Reserved>,
    /// Rung by the store when parked requests may go on.
    woken: Arc<AtomicBool>,
    next_tick: Time,
}

/// A tenant's arena, as peers reach it.
struct Arena {
    tenant: crate::store::Tenant,
    region: Region,
    token: Option<blake3::Hash>,
}

impl Server {
    /// A server of these tenants over an engine built without a sink. It answers once
    /// [`Server::run`] or [`Server::step`] is called.
    ///
    /// # Errors
    /// When a tenant or its arena is refused.
    pub fn new(
        engine: Engine,
        options: Options,
        tenants: Vec<TenantConfig>,
    ) -> Result<Self, StartError> {
        let woken = Arc::new(AtomicBool::new(false));
        let notify = {
            let (woken, engine) = (Arc::clone(&woken), engine.clone());
            Box::new(move || {
                woken.store(true, Ordering::Release);
                engine.wake();
            })
        };
        let store = Store::new(StoreOptions {
            verify_on_commit: options.verify_on_commit,
            notify: Some(notify),
            stack: options.stack.clone(),
            ..StoreOptions::default()
        });
        let mut arenas = HashMap::new();
        for config in tenants {
            let memory = config.memory;
            let mut tenant = TenantOptions::new(config.name.clone(), Arc::clone(&memory));
            tenant.watermarks = config.watermarks;
            tenant.policy = config.policy.policy();
            let tenant = store.open_tenant(tenant)?;
            let region = engine
                .register(memory)
                .map_err(|error| StartError::Arena { tenant: config.name.clone(), error })?;
            let token = config.token.map(|token| blake3::hash(token.as_bytes()));
            arenas.insert(config.name, Arena { tenant, region, token });
        }
        let started = engine.now();
        let subscribers = Subscribers::new(&store);
        let commits = Commits::new(engine.clone());
        let mover = Mover::new(store.clone(), options.bell.clone(), Wall::now);
        Ok(Self {
            engine,
            store,
            options,
            observed: Arc::default(),
            tenants: arenas,
            started,
            sessions: HashMap::new(),
            peers: HashMap::new(),
            next_session: 1,
            parked: Parked::default(),
            mover,
            persists: Persists::default(),
            fetches: Fetches::default(),
            puts: Puts::default(),
            commits,
            subscribers,
            quarantine: Vec::new(),
            woken,
            next_tick: started,
        })
    }

    /// The store it serves.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The engine it speaks over.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Its figures, to be read from any thread.
    pub fn stats(&self) -> impl Fn() -> ServerStats + Send + Sync + 'static {
        let observed = Arc::clone(&self.observed);
        move || observed.stats()
    }

    /// Its sessions, to be read from any thread; as of the last tick.
    pub fn sessions(&self) -> impl Fn() -> Vec<SessionInfo> + Send + Sync + 'static {
        let observed = Arc::clone(&self.observed);
        move || observed.sessions()
    }

    /// The clock that the store's times are of, to be read from any thread.
    pub fn clock(&self) -> impl Fn() -> Millis + Send + Sync + 'static {
        let (engine, started) = (self.engine.clone(), self.started);
        move || engine.now().since(started).into()
    }

    /// Serves until `stop` is set; set it and call [`Engine::wake`].
    pub fn run(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Acquire) {
            self.step();
            let now = self.engine.now();
            let until = self.next_deadline();
            let (woken, commits, engine) = (&self.woken, &self.commits, &self.engine);
            let (fetches, puts, mover) = (&self.fetches, &self.puts, &self.mover);
            engine.wait_until(until.since(now), || {
                engine.has_incoming()
                    || woken.load(Ordering::Acquire)
                    || commits.have_results()
                    || fetches.have_ended()
                    || puts.have_ended()
                    || mover.has_work()
                    || stop.load(Ordering::Acquire)
            });
        }
    }

    /// Handles what there is, without waiting; whether there was anything.
    pub fn step(&mut self) -> bool {
        let mut worked = false;
        for _ in 0..MESSAGES_PER_STEP {
            let Some(incoming) = self.engine.try_recv() else { break };
            worked = true;
            match incoming {
                Incoming::Message { from, bytes } => self.message(from, &bytes),
                Incoming::Connected(peer) => self.connected(peer),
                Incoming::Disconnected { peer, reason } => self.disconnected(peer, reason),
            }
        }
        worked |= self.finish_commits();
        worked |= self.finish_fetches();
        worked |= self.finish_puts();
        let woken = self.woken.swap(false, Ordering::AcqRel);
        if woken || self.mover.has_work() {
            worked = true;
            self.mover.step(self.now());
            self.finish_persists();
            self.unpark_woken();
        }
        self.unpark_late();
        self.give_up_persists();
        worked |= self.publish();
        if self.engine.now() >= self.next_tick {
            self.tick();
        }
        worked
    }

    /// Sends what memory alone has to the tiers below that take it, and stops them: they finish what is
    /// under way and make it durable. To be called when [`Server::run`] has returned; takes at most
    /// about twice this time.
    pub fn close_tiers(&mut self, within: Duration) {
        if self.store.stack().is_empty() {
            return;
        }
        let until = self.engine.now() + within;
        if !self.evacuate(until) {
            tracing::warn!(?within, "not all blocks in memory could be moved below in time");
        }
        self.mover.close(within);
    }

    /// Sends everything down; whether it got there in time.
    fn evacuate(&mut self, until: Time) -> bool {
        for tenant in self.store.tenants() {
            let mut from = Some(0);
            while let Some(place) = from {
                from = tenant.evacuate(place, EVACUATED_BYTES);
                if !self.settle(until) {
                    return false;
                }
            }
        }
        self.settle(until)
    }

    /// Waits until nothing is on its way between memory and the tiers below; whether that was so in time.
    fn settle(&mut self, until: Time) -> bool {
        loop {
            self.mover.step(self.now());
            if self.mover.is_idle() {
                return true;
            }
            let now = self.engine.now();
            if now >= until {
                return false;
            }
            let (mover, woken) = (&self.mover, &self.woken);
            let wait = until.since(now).min(TICK);
            self.engine
                .wait_until(wait, || mover.has_work() || woken.swap(false, Ordering::AcqRel));
        }
    }

    /// When [`Server::step`] has something to do by itself.
    #[must_use]
    pub fn next_deadline(&self) -> Time {
        self.parked.next_deadline().min(self.persists.next_deadline()).min(self.next_tick)
    }

    /// Time, as the store counts it.
    fn now(&self) -> Millis {
        self.engine.now().since(self.started).into()
    }

    fn message(&mut self, from: Peer, bytes: &[u8]) {
        let began = self.engine.now();
        let (request, name, reply) = match Request::decode(bytes) {
            Ok((request, asked)) => {
                let name = asked.name();
                let session = self.sessions.get(&from).map(|session| session.id.0);
                let span = tracing::debug_span!("request", kind = name, session, request);
                (request, name, span.in_scope(|| self.handle(from, request, asked)))
            }
            Err((request, error)) => {
                let text = format!("malformed request: {error}");
                tracing::warn!(peer = ?from, %text);
                let fault = Fault { code: FaultCode::Malformed, text };
                (request.unwrap_or(0), "malformed", Some(Reply::Fault(fault)))
            }
        };
        let failed = matches!(reply, Some(Reply::Fault(_)));
        self.observed.request(name, failed, self.engine.now().since(began));
        if let Some(reply) = reply {
            self.reply(from, request, &reply);
        }
    }

    /// Sends a reply; the session of a client that does not take its replies ends.
    fn reply(&mut self, to: Peer, request: u32, reply: &Reply) {
        if request == 0 {
            return;
        }
        // Who was ended for not reading gets no more until it reads.
        if self
            .sessions
            .get_mut(&to)
            .is_some_and(|session| session.over && !session.takes_replies())
        {
            return;
        }
        let sent = self.engine.send(to, reply.encode(request)).submit();
        if let Some(session) = self.sessions.get_mut(&to)
            && !session.sent(sent)
            && !session.over
        {
            self.expel(to);
        }
    }

    /// What is due by time.
    fn tick(&mut self) {
        let now = self.engine.now();
        self.next_tick = now + TICK;
        let expired = self.store.expire(self.now());
        for session in self.sessions.values_mut() {
            session.drop_expired(&expired);
        }
        self.store.reclaim(self.now());
        self.mover.tick();
        self.mover.step(self.now());
        self.finish_persists();
        self.puts.release_proven();
        self.fetches.release_proven();
        let silent = self.sessions.iter().filter(|(_, session)| session.is_silent(now));
        for (peer, session) in silent {
            tracing::warn!(session = session.id.0, "connected but never said hello; hung up");
            self.engine.disconnect(*peer);
        }
        let sessions = self.sessions.values().filter_map(Session::info);
        self.observed.set_sessions(sessions.collect());
    }
}
