//! The daemon as one value: arenas, engine, protocol server and administration.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tranship_cache::Store;
use tranship_cache::mover::Bell;
use tranship_cache::server::{self, Server};
use tranship_cache::store::Outlook;
use tranship_cache::tier::{Stack, Tier};
use tranship_transport::memory::Backing;
use tranship_transport::{Address as Endpoint, BuildError, Engine, Kind};

use super::arena::{self, ArenaError, Progress};
use super::directory::{self, DirectoryError};
use super::runtime;
use super::tiers::{self, TierError};
use super::{Observe, Options, Running};
use crate::config::{self, Address, Config};
use crate::doctor::host;
use crate::net;
use crate::units::human;

/// How long open reservations may take to be committed once the daemon drains.
const DRAIN_GRACE: Duration = Duration::from_secs(2);
/// How often that is looked at.
const DRAIN_LOOK: Duration = Duration::from_millis(10);
/// How long transfers in flight may take to be fenced at the end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long blocks that only memory has may take to get to the tiers below, and those to end.
const TIERS_GRACE: Duration = Duration::from_secs(10);
/// How long calls of administration may take to end.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration asks for more than there is.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// Administration is for this host.
    #[error("{0}: administration listens on UNIX sockets only; use unix:///PATH")]
    NotUnix(Address),
    /// Other hosts reach the address, and nothing keeps them out.
    #[error(
        "{0} can be reached from other hosts, and there is no token to keep strangers out; give \
         one with --token-file or TRANSHIP_TOKEN, or let everybody in with --insecure"
    )]
    Open(Address),
    /// The secret of the fabrics between hosts cannot be had.
    #[error(transparent)]
    Token(#[from] config::TokenError),
    /// The directory of a socket is not safe.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The transport did not start.
    #[error(transparent)]
    Engine(#[from] BuildError),
    /// A tenant has no memory.
    #[error(transparent)]
    Arena(#[from] ArenaError),
    /// A tier below memory cannot be had.
    #[error(transparent)]
    Tier(#[from] TierError),
    /// The protocol server did not start.
    #[error(transparent)]
    Server(#[from] server::StartError),
    /// Administration or metrics did not start.
    #[error("{0}")]
    Admin(String),
    /// The system refused a thread.
    #[error("cannot start a thread: {0}; raise ulimit -u")]
    Thread(#[source] std::io::Error),
}

impl From<runtime::Error> for StartError {
    fn from(error: runtime::Error) -> Self {
        Self::Admin(error.to_string())
    }
}

/// The thread that serves the cache ended although nobody asked it to: a bug, told on standard
/// error when it happened.
#[derive(Debug, thiserror::Error)]
#[error("the daemon failed; its log says how")]
pub struct Failed;

/// What a daemon waits for.
enum Event {
    Asked,
    Ended,
}

/// A running daemon. Dropping it ends it less gently than [`Daemon::stop`].
pub struct Daemon {
    engine: Engine,
    store: Store,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    admin: Option<Running>,
    admin_socket: PathBuf,
    metrics: Option<SocketAddr>,
    listen: String,
    tiers: Vec<TierInfo>,
    events: Receiver<Event>,
    ask: Sender<Event>,
}

/// One tier, as it is told at start.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TierInfo {
    /// Its name.
    pub tier: String,
    /// Its capacity, all tenants together.
    pub bytes: u64,
    /// What it is made of.
    pub detail: String,
}

impl fmt::Display for TierInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.tier, human::size(self.bytes), self.detail)
    }
}

/// Says that the thread ended, however it did.
struct Farewell(Sender<Event>);

impl Drop for Farewell {
    fn drop(&mut self) {
        let _ = self.0.send(Event::Ended);
    }
}

impl Daemon {
    /// Starts one as configured; `progress` is told how many bytes of the arenas are in place.
    ///
    /// # Errors
    /// When memory, sockets or threads cannot be had; nothing stays behind.
    pub fn start(
        config: &Config,
        progress: impl Fn(u64, u64) + Send + Sync + 'static,
    ) -> Result<Self, StartError> {
        let progress: Progress = Arc::new(progress);
        let admin = unix(&config.serve.admin)?;
        let token = config::token(None, &config.tcp)?;
        let open = |address: &&Address| !address.is_local() && token.is_none();
        if let Some(address) = config.serve.listen.iter().find(open)
            && !config.tcp.insecure
        {
            return Err(StartError::Open(address.clone()));
        }
        if let Some(memory) = host::memory() {
            config.check_memory(&memory)?;
        }
        let admin = Options {
            admin_socket: admin,
            metrics: config.serve.metrics.as_ref().copied(),
            allow_remote: false,
        };
        admin.check()?;
        for address in config.serve.listen.iter() {
            if let Address::Unix(path) = address {
                directory::prepare(path)?;
            }
        }
        // Whatever may be taken already is taken before the arenas, which cost time.
        let engine = net::engine(config, token.as_ref()).build()?;
        let admin = runtime::bind(&admin)?;
        let tenants = arena::build(config, &progress)?;
        let memories: Vec<_> = tenants.iter().map(|tenant| Arc::clone(&tenant.memory)).collect();
        let bell = Bell::of(&engine);
        let outlook = Outlook::default();
        let below = tiers::open(config, &engine, &memories, &bell, &outlook)?;
        let mut tiers = vec![memory(&tenants)];
        tiers.extend(below.infos);
        let options = server::Options {
            stack: Stack::new(below.levels),
            bell,
            sessions_max: config.limits.max_clients as usize,
            ..server::Options::default()
        };
        let mut server = Server::new(engine.clone(), options, tenants)?;
        let store = server.store().clone();
        outlook.follow(&store);
        let admin = admin.run(observe(&server))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (ask, events) = channel();
        let farewell = Farewell(ask.clone());
        let thread = thread::Builder::new().name("tranship-cache".to_owned()).spawn({
            let stop = Arc::clone(&stop);
            move || {
                let _farewell = farewell;
                server.run(&stop);
                server.close_tiers(TIERS_GRACE);
            }
        });
        let thread = Some(thread.map_err(StartError::Thread)?);
        admin.ready();
        Ok(Self {
            store,
            stop,
            thread,
            admin_socket: admin.admin_socket().to_owned(),
            metrics: admin.metrics(),
            admin: Some(admin),
            listen: listen(&engine).into_iter().map(|(_, at)| at).collect::<Vec<_>>().join(","),
            engine,
            tiers,
            events,
            ask,
        })
    }

    /// Where engines connect: addresses with commas in between, with the ports that were found.
    #[must_use]
    pub fn listen(&self) -> &str {
        &self.listen
    }

    /// Where administration is.
    #[must_use]
    pub fn admin(&self) -> Address {
        Address::Unix(self.admin_socket.clone())
    }

    /// Where metrics are, if they are on.
    #[must_use]
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// What it keeps blocks in.
    #[must_use]
    pub fn tiers(&self) -> &[TierInfo] {
        &self.tiers
    }

    /// Something to call, from any thread, when the daemon shall end: [`Daemon::wait`] returns.
    pub fn ender(&self) -> impl Fn() + Send + 'static {
        let ask = self.ask.clone();
        move || {
            let _ = ask.send(Event::Asked);
        }
    }

    /// Waits until somebody asks it to end.
    ///
    /// # Errors
    /// When it ended by itself.
    pub fn wait(&self) -> Result<(), Failed> {
        match self.events.recv() {
            Ok(Event::Asked) => Ok(()),
            Ok(Event::Ended) | Err(_) => Err(Failed),
        }
    }

    /// Ends it: takes no new blocks, lets those that are being filled be committed, fences what is
    /// in flight, and removes the sockets.
    ///
    /// # Errors
    /// When it had ended by itself.
    pub fn stop(mut self) -> Result<(), Failed> {
        self.store.drain(true);
        let until = Instant::now() + DRAIN_GRACE;
        let filling = || self.store.stats().iter().any(|tenant| tenant.gauges.filling.blocks > 0);
        while filling() && Instant::now() < until {
            if let Err(RecvTimeoutError::Disconnected) | Ok(Event::Ended) =
                self.events.recv_timeout(DRAIN_LOOK)
            {
                break;
            }
        }
        self.end()
    }

    fn end(&mut self) -> Result<(), Failed> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        self.stop.store(true, Ordering::Release);
        self.engine.wake();
        let ended = thread.join().map_err(|_| Failed);
        if let Err(error) = self.engine.close(CLOSE_TIMEOUT) {
            tracing::warn!(%error, "transfers were cut off");
        }
        if let Some(admin) = self.admin.take()
            && let Err(error) = admin.shutdown(ADMIN_TIMEOUT)
        {
            tracing::warn!(%error, "calls were cut off");
        }
        ended
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

impl fmt::Debug for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Daemon").field("listen", &self.listen).finish_non_exhaustive()
    }
}

fn unix(address: &Address) -> Result<PathBuf, StartError> {
    match address {
        Address::Unix(path) => Ok(path.clone()),
        other => Err(StartError::NotUnix(other.clone())),
    }
}

/// The fabrics, and where clients connect over them.
fn listen(engine: &Engine) -> Vec<(Kind, String)> {
    let address = |endpoint: &Endpoint| match endpoint.kind {
        Kind::Shm => (Kind::Shm, format!("unix://{}", endpoint.endpoint)),
        kind => (kind, format!("{kind}://{}", endpoint.endpoint)),
    };
    engine.addresses().iter().map(address).collect()
}

fn memory(tenants: &[server::TenantConfig]) -> TierInfo {
    let bytes = tenants.iter().map(|tenant| tenant.memory.len() as u64).sum();
    let pages = |tenant: &server::TenantConfig| {
        // Why pages are smaller than wished is for the log.
        let backing = Backing { shortfall: None, ..tenant.memory.backing().clone() };
        backing.to_string()
    };
    let detail = match tenants {
        [one] => pages(one),
        [first, ..] => format!("{}, {} tenants", pages(first), tenants.len()),
        [] => String::new(),
    };
    TierInfo { tier: Tier::Dram.to_string(), bytes, detail }
}

fn observe(server: &Server) -> Observe {
    let [engine, clock, rails] = [(); 3].map(|()| server.engine().clone());
    Observe {
        store: server.store().clone(),
        engine: Arc::new(move || engine.stats()),
        rails: Arc::new(move || rails.rails()),
        server: Arc::new(server.stats()),
        sessions: Arc::new(server.sessions()),
        now: Arc::new(server.clock()),
        clock: Arc::new(move || clock.now()),
        listen: listen(server.engine()),
        since: Instant::now(),
        started: Default::default(),
    }
}
