//! The fabric itself.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::config::Config;
use super::control::{Ours, WINDOWS};
use super::doorbell;
use super::gate::Sleeper;
use super::hazard;
use super::job::{Direction, Transfer};
use super::jobs::Jobs;
use super::link::{Begun, Link, Wish};
use super::peers::{Ghost, Peer, State};
use super::pool::Pool;
use super::ring::{Broken, Pushed};
use super::socket::Listener;
use super::watch::{Ready, Sight, Watch};
use super::windows::Windows;
use super::wire::Packet;
use crate::address::{Address, EngineId, Kind};
use crate::fabric::{
    Event, Fabric, Grant, Limits, OpId, PeerId, Posted, RegionId, RegisterError, Remote, RemoteKey,
    Setup, Status, Work,
};
use crate::lane::Lane;
use crate::memory::Memory;
use crate::outcome::Reason;
use crate::time::{Clock, Time};
use crate::window::WindowId;

/// The longest message.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// Shared memory between processes of one host. See the module.
#[derive(Debug)]
pub(super) struct Shm {
    pub(super) config: Config,
    pub(super) engine: EngineId,
    pub(super) clock: Arc<dyn Clock>,
    endpoint: String,
    pub(super) control: Arc<Ours>,
    pub(super) doorbell: Arc<OwnedFd>,
    pub(super) sleeper: Sleeper,
    pub(super) watch: Watch,
    /// What was ready at the last look.
    pub(super) sights: Vec<Sight>,
    pub(super) listener: Option<Listener>,
    /// Until when callers wait because descriptors ran out.
    pub(super) deaf_until: Option<Time>,
    pub(super) windows: Windows,
    /// In the order of their numbers.
    pub(super) peers: Vec<Peer>,
    pub(super) peers_ever: u32,
    pub(super) ghosts: Vec<Ghost>,
    pub(super) jobs: Jobs,
    pub(super) pool: Pool,
    /// Windows that are shut and perhaps still claimed.
    pub(super) fencing: Vec<WindowId>,
    /// How often in a row sleep was interrupted for them.
    pub(super) fencing_naps: u32,
    /// What the next poll reports.
    pub(super) reports: Vec<Event>,
    /// When descriptors were looked at last.
    pub(super) looked: Time,
    /// Whether they have to be looked at in the next poll.
    pub(super) look: bool,
    /// Which peer is first in the next turn.
    pub(super) turn: usize,
    /// Whether the last poll wanted messages.
    pub(super) wants_messages: bool,
    closed: bool,
}

impl Shm {
    /// Opens the fabric; `config` has been checked.
    pub(super) fn open(config: Config, setup: &Setup) -> Result<Self, String> {
        let endpoint = match &config.path {
            Some(path) => match path.to_str() {
                Some(path) if !path.starts_with('@') => path.to_owned(),
                _ => return Err(format!("socket {path:?}: choose a path in UTF-8 without @")),
            },
            None => format!("@tranship-{}", setup.engine),
        };
        let failed = |what: &'static str| {
            move |error: std::io::Error| {
                format!("{what}: {error}; the limit of open files (ulimit -n) may be too low")
            }
        };
        let control = Arc::new(Ours::create().map_err(failed("control memory"))?);
        let doorbell = Arc::new(doorbell::new().map_err(failed("eventfd"))?);
        let watch = Watch::new().map_err(failed("epoll"))?;
        let pool = Pool::start(config.copy_threads, &control, &doorbell)
            .map_err(failed("copy threads"))?;
        let listener = Listener::open(&endpoint)?;
        watch.add(&*doorbell, Ready::Doorbell, false).map_err(failed("epoll"))?;
        watch.add(&listener, Ready::Caller, false).map_err(failed("epoll"))?;
        Ok(Self {
            config,
            engine: setup.engine,
            clock: Arc::clone(&setup.clock),
            endpoint,
            windows: Windows::new(&control),
            control,
            doorbell,
            sleeper: Sleeper::default(),
            watch,
            sights: Vec::new(),
            listener: Some(listener),
            deaf_until: None,
            peers: Vec::new(),
            peers_ever: 0,
            ghosts: Vec::new(),
            jobs: Jobs::default(),
            pool,
            fencing: Vec::new(),
            fencing_naps: 0,
            reports: Vec::new(),
            looked: Time::ZERO,
            look: true,
            turn: 0,
            wants_messages: true,
            closed: false,
        })
    }

    /// Where a connection is in the list.
    #[inline]
    pub(super) fn find(&self, peer: PeerId) -> Option<usize> {
        self.peers.binary_search_by_key(&peer, |it| it.id).ok()
    }

    fn post_to(
        &mut self,
        index: usize,
        op: OpId,
        lane: Lane,
        work: Work<'_>,
    ) -> Result<Posted, Broken> {
        let peer = &mut self.peers[index];
        let State::Up(link) = &mut peer.state else {
            return Ok(Posted::Refused(Reason::PeerGone));
        };
        let transfer = match work {
            Work::Signal { immediate } => return link.finish(op, lane, Some(immediate)),
            Work::Write { local, remote, pages, immediate } => {
                let (direction, pages) = (Direction::Write, pages.cloned());
                Transfer { lane, direction, local, remote, pages, immediate }
            }
            Work::Read { local, remote, pages, immediate } => {
                let (direction, pages) = (Direction::Read, pages.cloned());
                Transfer { lane, direction, local, remote, pages, immediate }
            }
            Work::Send { bytes, .. } if bytes.len() > MESSAGE_BYTES_MAX => {
                return Ok(Posted::Refused(Reason::TooLong));
            }
            Work::Send { bytes, immediate } => {
                return Ok(match link.send(bytes, immediate)? {
                    Pushed::Done => Posted::Done,
                    Pushed::Full => Posted::Busy,
                });
            }
            Work::Map { remote } => {
                if let Err(reason) = link.may_map(&remote) {
                    return Ok(Posted::Refused(reason));
                }
                self.ask(index, op, Wish::Mapping(remote));
                return Ok(Posted::Pending);
            }
        };
        let stored = transfer.direction == Direction::Read;
        if transfer.local.len > 0
            && let Err(reason) = self.windows.check(&transfer.local, stored)
        {
            return Ok(Posted::Refused(reason));
        }
        Ok(match link.begin(op, peer.id, &transfer)? {
            Begun::Answer(answer) => answer,
            Begun::Job(job) => {
                self.jobs.add(job);
                Posted::Pending
            }
            Begun::Unmapped => {
                self.ask(index, op, Wish::Transfer(transfer));
                Posted::Pending
            }
        })
    }

    /// Lets an operation wait for a mapping, and asks for it if nobody has.
    pub(super) fn ask(&mut self, index: usize, op: OpId, wish: Wish) {
        let State::Up(link) = &mut self.peers[index].state else { return };
        let Remote { window, key, .. } = *wish.remote();
        let whole = matches!(wish, Wish::Mapping(_));
        if let Some(token) = link.wait(op, wish) {
            let key = key.key;
            self.say(index, Packet::Map { token, window, key, whole }, Vec::new());
        }
        self.look = true;
    }

    /// Hangs up on a peer whose ring holds nonsense.
    pub(super) fn give_up(&mut self, index: usize, broken: Broken) {
        let peer = &self.peers[index];
        let engine = peer.link().map(|link: &Link| link.engine);
        tracing::warn!(peer = peer.id.0, ?engine, "hanging up: {broken}");
        if let State::Ending { drain, .. } = &mut self.peers[index].state {
            *drain = false;
        } else {
            self.hang_up(index, Reason::Failed, false);
        }
    }
}

impl Fabric for Shm {
    fn kind(&self) -> Kind {
        Kind::Shm
    }

    fn address(&self) -> Address {
        Address::new(Kind::Shm, self.endpoint.clone())
    }

    fn maps(&self) -> bool {
        true
    }

    fn limits(&self) -> Limits {
        Limits { message_bytes_max: MESSAGE_BYTES_MAX, windows_max: WINDOWS }
    }

    fn register(&mut self, region: RegionId, memory: &Arc<Memory>) -> Result<(), RegisterError> {
        if !memory.is_host() {
            return Err(RegisterError::on_device(Kind::Shm));
        }
        self.windows.register(region, memory);
        Ok(())
    }

    fn deregister(&mut self, region: RegionId) {
        self.windows.deregister(region);
        for index in 0..self.peers.len() {
            if let State::Up(link) = &mut self.peers[index].state
                && link.given.remove(&region)
            {
                self.say(index, Packet::Forget { region }, Vec::new());
            }
        }
    }

    fn grant(&mut self, grant: &Grant) -> Result<RemoteKey, RegisterError> {
        let key =
            self.windows.open(grant).map_err(|what| RegisterError { kind: Kind::Shm, what })?;
        Ok(RemoteKey { key, base: 0 })
    }

    fn revoke(&mut self, window: WindowId) {
        self.windows.shut(window);
        self.fencing.push(window);
        self.fencing_naps = 0;
        self.check_fences();
    }

    fn connect(&mut self, to: &Address) -> PeerId {
        self.dial(to)
    }

    fn disconnect(&mut self, peer: PeerId) {
        if let Some(index) = self.find(peer) {
            self.hang_up(index, Reason::Closed, false);
        }
    }

    fn post(&mut self, op: OpId, peer: PeerId, lane: Lane, work: Work<'_>) -> Posted {
        let Some(index) = self.find(peer) else { return Posted::Refused(Reason::PeerGone) };
        match self.post_to(index, op, lane, work) {
            Ok(answer) => answer,
            Err(broken) => {
                self.give_up(index, broken);
                Posted::Refused(Reason::Failed)
            }
        }
    }

    fn cancel(&mut self, op: OpId, reason: Reason) {
        if let Some(turn) = self.jobs.with(op, |job| job.stop(reason)) {
            self.after(turn);
            return;
        }
        for peer in &mut self.peers {
            let State::Up(link) = &mut peer.state else { continue };
            if let Some(at) = link.waiting.iter().position(|waiting| waiting.op == op) {
                link.waiting.remove(at);
                self.reports.push(Event::Completed { op, status: Status::Refused(reason) });
                return;
            }
            if link.forgive(op) {
                self.reports.push(Event::Completed { op, status: Status::Stopped(reason) });
                return;
            }
        }
    }

    fn poll(&mut self, messages_max: usize, events: &mut Vec<Event>) -> bool {
        self.take_turn(messages_max, events)
    }

    fn arm(&mut self) -> bool {
        self.prepare_sleep()
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.watch.as_fd())
    }

    fn close(&mut self) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        self.listener = None;
        self.windows.shut_all();
        self.stop_jobs(None, Reason::Closed);
        self.pool.stop();
        self.reap();
        for index in (0..self.peers.len()).rev() {
            self.hang_up(index, Reason::Closed, false);
        }
        debug_assert!(self.jobs.is_empty(), "all chunks are back and all jobs stopped");
        self.bury();
        self.ghosts.clear();
        for window in std::mem::take(&mut self.fencing) {
            tracing::debug!(?window, "closed before the fence was complete");
        }
    }
}

impl Shm {
    /// Whether the fabric was closed.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Tells which windows nobody claims any more.
    pub(super) fn check_fences(&mut self) {
        let Self { fencing, peers, ghosts, reports, .. } = self;
        fencing.retain(|&window| {
            let claim = hazard::claim(window);
            let connections = peers
                .iter()
                .filter_map(Peer::hazards)
                .chain(ghosts.iter().map(|ghost| &ghost.connection));
            for connection in connections {
                if hazard::claimed(connection.their_hazards(), claim) {
                    return true;
                }
            }
            reports.push(Event::Revoked { window });
            false
        });
    }
}

impl Drop for Shm {
    fn drop(&mut self) {
        self.close();
    }
}
