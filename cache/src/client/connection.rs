//! Connecting, and staying connected.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tranship_transport::fabric::Provider;
use tranship_transport::{
    Access, Address, Clock, Drive, Engine, MapError, Outcome, Path, Peer, PeerError, Polling,
    Reason, RemoteWindow, Time,
};

use super::arena::{Arena, Remote};
use super::calls::Cache;
use super::error::Error;
use super::staging::Staging;
use super::switch::{Answer, Switch};
use crate::identity::{Identity, IdentityId};
use crate::store::{Listed, Place};
use crate::tier::{Tier, Tiers};
use crate::wire::{Batches, FaultCode, Hello, Reply, Request, VERSION};

/// How long a call may take unless told otherwise.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// Staging memory of a client unless told otherwise, bytes.
const STAGING_DEFAULT: usize = 256 << 20;
/// Between attempts to connect again.
const BACKOFF: Duration = Duration::from_millis(100);

/// A client to be connected.
#[must_use = "a builder does nothing until it connects"]
pub struct Builder {
    engine: tranship_transport::Builder,
    name: String,
    tenant: String,
    token: String,
    timeout: Duration,
    staging: usize,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            engine: Engine::builder(),
            name: format!("pid {}", std::process::id()),
            tenant: Identity::TENANT_DEFAULT.to_owned(),
            token: String::new(),
            timeout: TIMEOUT_DEFAULT,
            staging: STAGING_DEFAULT,
        }
    }
}

impl Builder {
    /// What the client calls itself in the daemon's logs and lists.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The tenant to work for, and its token (empty for none).
    pub fn tenant(mut self, tenant: impl Into<String>, token: impl Into<String>) -> Self {
        (self.tenant, self.token) = (tenant.into(), token.into());
        self
    }

    /// How long a call may take; 5 s unless told otherwise.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The most memory that blocks may pass through where the arena cannot be mapped; 256 MiB
    /// unless told otherwise. No block that is stored or loaded over such a fabric is longer. Memory
    /// never used is never taken.
    pub fn staging(mut self, bytes: usize) -> Self {
        self.staging = bytes;
        self
    }

    /// The fabric to speak; shared memory of this host unless told otherwise.
    pub fn fabric(mut self, provider: impl Provider + 'static) -> Self {
        self.engine = self.engine.fabric(provider);
        self
    }

    /// How waits pass their time.
    pub fn polling(mut self, polling: Polling) -> Self {
        self.engine = self.engine.polling(polling);
        self
    }

    /// Who moves transfers on when no call waits.
    pub fn drive(mut self, drive: Drive) -> Self {
        self.engine = self.engine.drive(drive);
        self
    }

    /// Where time comes from.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.engine = self.engine.clock(clock);
        self
    }

    /// Connects to the daemon at `address`.
    ///
    /// # Errors
    /// When nobody answers there, or the daemon refuses: another version, an unknown tenant, a
    /// wrong token, too many clients.
    pub fn connect(self, address: &Address) -> Result<Client, Error> {
        let switch = Arc::new(Switch::default());
        let sink = Arc::clone(&switch);
        let engine = self.engine.on_incoming(move |incoming| sink.incoming(incoming)).build()?;
        let hello =
            Hello { version: VERSION, name: self.name, tenant: self.tenant, token: self.token };
        let batches = Batches::within(engine.message_bytes_max());
        let inner = Inner {
            engine,
            switch,
            address: address.clone(),
            hello,
            timeout: self.timeout,
            staging_bytes: self.staging,
            staging: Mutex::default(),
            batches,
            state: Mutex::default(),
        };
        let client = Client { inner: Arc::new(inner) };
        client.session()?;
        Ok(client)
    }
}

/// A connection to a daemon. A cheap handle; clones share the connection.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    switch: Arc<Switch>,
    address: Address,
    hello: Hello,
    timeout: Duration,
    staging_bytes: usize,
    /// Made by the first session that cannot map.
    staging: Mutex<Option<Arc<Staging>>>,
    batches: Batches,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    session: Option<Arc<Session>>,
    failed_at: Option<Time>,
}

/// One session with the daemon; ends when the connection breaks.
pub(super) struct Session {
    pub(super) peer: Peer,
    pub(super) arena: Arena,
    /// How often the connection had broken when the session began.
    breaks: u64,
    /// The daemon ended it; the connection may stand.
    over: AtomicBool,
    scopes: Mutex<HashMap<IdentityId, u32>>,
}

impl Client {
    /// Describes a client to be connected.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The blocks of one identity. The identity's tenant is set to the client's.
    #[must_use]
    pub fn cache(&self, mut identity: Identity) -> Cache {
        identity.tenant.clone_from(&self.inner.hello.tenant);
        Cache::new(self.clone(), identity)
    }

    /// Where the daemon is.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.inner.address
    }

    /// The engine it speaks over, e.g. to open windows that the daemon fetches into.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    /// Whether blocks are read and filled in place, in a mapping of the daemon's arena.
    ///
    /// # Errors
    /// When the daemon cannot be reached.
    pub fn is_mapped(&self) -> Result<bool, Error> {
        Ok(self.session()?.arena.mapping().is_some())
    }

    /// Asks for a sign of life; how long it took.
    ///
    /// # Errors
    /// When there is none.
    pub fn ping(&self) -> Result<Duration, Error> {
        let began = self.inner.engine.now();
        self.count(&Request::Ping)?;
        Ok(self.inner.engine.now().since(began))
    }

    /// The paths to the daemon, each measured once more; see [`Engine::probe`]. None over a fabric
    /// without rails.
    ///
    /// # Errors
    /// When the daemon cannot be reached.
    pub fn probe(&self, timeout: Duration) -> Result<Vec<Path>, Error> {
        let session = self.session()?;
        Ok(self.inner.engine.probe(session.peer, timeout))
    }

    /// The tenant's statistics, a JSON document.
    ///
    /// # Errors
    /// When the daemon cannot be reached.
    pub fn stats(&self) -> Result<String, Error> {
        let session = self.session()?;
        match self.call(&session, &Request::Stats)? {
            Reply::Stats(json) => Ok(String::from_utf8_lossy(&json).into_owned()),
            _ => Err(Error::Mismatched { request: "stats" }),
        }
    }

    /// Up to `max` of the tenant's blocks in memory, of all its identities, in no particular order:
    /// those whose key starts with these hex digits.
    ///
    /// # Errors
    /// When the daemon cannot be reached.
    pub fn list(&self, prefix: &str, max: usize) -> Result<Vec<Listed>, Error> {
        self.list_in(Tiers::only(Tier::Dram), prefix, max)
    }

    /// [`Client::list`] of what is in these tiers, the fastest first; a block is told once for each
    /// that has it.
    ///
    /// # Errors
    /// When the daemon cannot be reached.
    pub fn list_in(&self, tiers: Tiers, prefix: &str, max: usize) -> Result<Vec<Listed>, Error> {
        let session = self.session()?;
        let (mut blocks, mut start) = (Vec::new(), Some(Place::START));
        while let Some(place) = start
            && blocks.len() < max
        {
            let request = Request::List { start: place, tiers, prefix: prefix.to_owned() };
            let Reply::Listed(page) = self.call(&session, &request)? else {
                return Err(Error::Mismatched { request: "list" });
            };
            blocks.extend(page.blocks);
            start = page.next;
        }
        blocks.truncate(max);
        Ok(blocks)
    }

    /// How many entries a message carries.
    pub(super) fn batches(&self) -> Batches {
        self.inner.batches
    }

    pub(super) fn timeout(&self) -> Duration {
        self.inner.timeout
    }

    pub(super) fn switch(&self) -> &Arc<Switch> {
        &self.inner.switch
    }

    /// Whether a session is still the connection's.
    pub(super) fn is_current(&self, session: &Session) -> bool {
        self.is_connected(session) && !session.over.load(Ordering::Acquire)
    }

    /// Whether the connection of a session still stands, over though the session may be.
    fn is_connected(&self, session: &Session) -> bool {
        session.breaks == self.inner.switch.breaks()
    }

    /// The session; a new one if there is none or its connection broke.
    pub(super) fn session(&self) -> Result<Arc<Session>, Error> {
        let mut state = lock(&self.inner.state);
        if let Some(session) = &state.session
            && self.is_current(session)
        {
            return Ok(Arc::clone(session));
        }
        state.session = None;
        let now = self.inner.engine.now();
        if let Some(failed_at) = state.failed_at
            && now < failed_at + BACKOFF
        {
            return Err(Error::Backoff {
                address: self.inner.address.clone(),
                since: now.since(failed_at),
                backoff: BACKOFF,
            });
        }
        match self.open_session() {
            Ok(session) => {
                let session = Arc::new(session);
                *state = State { session: Some(Arc::clone(&session)), failed_at: None };
                Ok(session)
            }
            Err(error) => {
                state.failed_at = Some(self.inner.engine.now());
                Err(error)
            }
        }
    }

    fn open_session(&self) -> Result<Session, Error> {
        let Inner { engine, address, hello, timeout, .. } = &*self.inner;
        let unreachable = |error| Error::Unreachable { address: address.clone(), error };
        let peer = engine.connect(address, *timeout).map_err(unreachable)?;
        let breaks = self.inner.switch.breaks();
        let request = Request::Hello(hello.clone());
        let Reply::Welcome(welcome) = self.ask(peer, &request, *timeout)? else {
            return Err(Error::Mismatched { request: "hello" });
        };
        let window = engine.open_at(peer, &welcome.arena).map_err(unreachable)?;
        let arena = self.open_arena(window)?;
        let over = AtomicBool::new(false);
        let session = Session { peer, arena, breaks, over, scopes: Mutex::default() };
        if self.is_current(&session) { Ok(session) } else { Err(self.disconnected()) }
    }

    /// Maps the arena where the daemon lets this client and the fabric can.
    fn open_arena(&self, window: RemoteWindow) -> Result<Arena, Error> {
        let Inner { engine, address, timeout, .. } = &*self.inner;
        if window.access().allows(Access::MAP) {
            match engine.map(&window, *timeout) {
                Ok(mapping) => return Ok(Arena::Mapped(mapping)),
                Err(MapError { outcome: Outcome::Rejected(Reason::Unsupported) }) => {}
                Err(MapError { outcome }) => {
                    let why = outcome.reason().unwrap_or(Reason::Failed);
                    let (address, error) = (address.clone(), address.clone());
                    let error = PeerError::Refused { address: error, why };
                    return Err(Error::Unreachable { address, error });
                }
            }
        }
        let (engine, staging, deadline) = (engine.clone(), self.staging()?, *timeout);
        Ok(Arena::Remote(Remote { engine, window, staging, deadline }))
    }

    fn staging(&self) -> Result<Arc<Staging>, Error> {
        let mut staging = lock(&self.inner.staging);
        if let Some(staging) = &*staging {
            return Ok(Arc::clone(staging));
        }
        let made = Staging::new(&self.inner.engine, self.inner.staging_bytes)?;
        Ok(Arc::clone(staging.insert(made)))
    }

    /// The daemon's number for an identity in this session.
    pub(super) fn scope(
        &self,
        session: &Session,
        id: IdentityId,
        identity: &Identity,
    ) -> Result<u32, Error> {
        if let Some(scope) = lock(&session.scopes).get(&id) {
            return Ok(*scope);
        }
        let identify = Request::Identify { identity: identity.encode()? };
        match self.call(session, &identify)? {
            Reply::Scope(scope) => {
                lock(&session.scopes).insert(id, scope);
                Ok(scope)
            }
            _ => Err(Error::Mismatched { request: "identify" }),
        }
    }

    /// Sends a request over the session's connection and waits for the answer.
    pub(super) fn call(&self, session: &Session, request: &Request) -> Result<Reply, Error> {
        self.call_within(session, request, self.inner.timeout)
    }

    pub(super) fn call_within(
        &self,
        session: &Session,
        request: &Request,
        timeout: Duration,
    ) -> Result<Reply, Error> {
        if !self.is_current(session) {
            return Err(self.disconnected());
        }
        self.noticing(session, self.ask(session.peer, request, timeout))
    }

    /// Notices that the daemon has ended the session: the next call opens another.
    fn noticing(&self, session: &Session, answer: Result<Reply, Error>) -> Result<Reply, Error> {
        match answer {
            Err(Error::Refused(fault)) if fault.code == FaultCode::Over => {
                session.over.store(true, Ordering::Release);
                Err(self.disconnected())
            }
            answer => answer,
        }
    }

    /// A call whose number `prepare` learns before it is sent.
    pub(super) fn call_with(
        &self,
        session: &Session,
        request: &Request,
        prepare: impl FnOnce(u32),
    ) -> Result<Reply, Error> {
        if !self.is_current(session) {
            return Err(self.disconnected());
        }
        let answer = self.ask_with(session.peer, request, self.inner.timeout, prepare);
        self.noticing(session, answer)
    }

    fn ask(&self, peer: Peer, request: &Request, timeout: Duration) -> Result<Reply, Error> {
        self.ask_with(peer, request, timeout, |_| {})
    }

    fn ask_with(
        &self,
        peer: Peer,
        request: &Request,
        timeout: Duration,
        prepare: impl FnOnce(u32),
    ) -> Result<Reply, Error> {
        let (id, call) = self.inner.switch.open();
        prepare(id);
        let name = request.name();
        let answer = self.exchange(peer, id, request, timeout, || call.is_ready());
        self.inner.switch.close(id);
        answer?;
        match call.take() {
            Some(Answer::Reply(Reply::Fault(fault))) => Err(Error::Refused(fault)),
            Some(Answer::Reply(reply)) => Ok(reply),
            Some(Answer::Malformed(error)) => Err(Error::Malformed { request: name, error }),
            Some(Answer::Disconnected) => Err(self.disconnected()),
            None => Err(Error::Timeout { request: name, timeout }),
        }
    }

    /// Sends, and drives the engine until the answer is there or time is up.
    fn exchange(
        &self,
        peer: Peer,
        id: u32,
        request: &Request,
        timeout: Duration,
        ready: impl Fn() -> bool,
    ) -> Result<(), Error> {
        let name = request.name();
        let Ok(sent) = self.inner.engine.send(peer, request.encode(id)).deadline(timeout).submit()
        else {
            return Err(Error::NotSent { request: name, outcome: Outcome::Rejected(Reason::Full) });
        };
        let failed = || sent.outcome().filter(|outcome| !outcome.is_done());
        self.inner.engine.wait_until(timeout, || ready() || failed().is_some());
        match failed() {
            None => Ok(()),
            Some(outcome) => match outcome.reason() {
                Some(Reason::PeerGone | Reason::Unreachable | Reason::Closed) => {
                    Err(self.disconnected())
                }
                _ => Err(Error::NotSent { request: name, outcome }),
            },
        }
    }

    /// Sends a request that asks for no answer, for as long as the connection stands: also when a
    /// session is over its reservations are given back.
    pub(super) fn tell(&self, session: &Session, request: &Request) {
        if self.is_connected(session) {
            let _ = self.inner.engine.send(session.peer, request.encode(0)).submit();
        }
    }

    pub(super) fn count(&self, request: &Request) -> Result<u64, Error> {
        let session = self.session()?;
        match self.call(&session, request)? {
            Reply::Count(count) => Ok(count),
            _ => Err(Error::Mismatched { request: request.name() }),
        }
    }

    fn disconnected(&self) -> Error {
        Error::Disconnected { address: self.inner.address.clone() }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.inner.address)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
