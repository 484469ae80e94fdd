//! The fabric itself.

use std::collections::{BTreeMap, VecDeque};
use std::net::TcpListener;
use std::ops::Bound;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

use super::call::Call;
use super::config::Config;
use super::control::Ended;
use super::deaf::Deaf;
use super::dial::{Backoff, Dial, Gathering, Purpose};
use super::frame::MESSAGE_BYTES_MAX;
use super::greeting::{Challenge, Hello};
use super::hub::Hub;
use super::link::{CREDIT_BYTES, LATENCY, Link, Over};
use super::resolve::Resolver;
use super::socket;
use super::suspects::{Suspects, Turn};
use super::watch::{Ready, Sight, Watch};
use super::windows::WINDOWS_MAX;
use crate::address::{Address, Kind};
use crate::fabric::{
    Event, Fabric, Grant, Limits, OpId, PeerId, Posted, RegionId, RegisterError, RemoteKey, Setup,
    Status, Work,
};
use crate::immediate::Immediate;
use crate::lane::Lane;
use crate::memory::Memory;
use crate::outcome::Reason;
use crate::time::{Clock, Time};
use crate::window::WindowId;

/// How long closing waits for peers to take what was said to them.
const LINGER: Duration = Duration::from_millis(100);

/// Broken connections that are asked about at once.
const ASKS_AT_ONCE: usize = 64;
/// Received at once from a latency stream before others have their turn.
const URGENT_TURN_BYTES: usize = 256 << 10;
/// How often a peer's last words are listened to at once: about what a socket holds. Somebody may
/// go on talking for ever.
const LAST_WORDS_TURNS: usize = 32;

/// Streams over an IP network. See the module.
#[derive(Debug)]
pub(super) struct Tcp {
    pub(super) hub: Hub,
    clock: Arc<dyn Clock>,
    /// What we say to callers, but for the nonce.
    pub(super) challenge: Challenge,
    /// What peers are told to dial.
    pub(super) endpoint: String,
    pub(super) listener: Option<TcpListener>,
    pub(super) deaf: Deaf,
    pub(super) resolver: Resolver,
    pub(super) calls: Vec<Call>,
    pub(super) calls_ever: u32,
    pub(super) dials: Vec<Dial>,
    pub(super) dials_ever: u32,
    pub(super) gathering: Vec<Gathering>,
    pub(super) backoff: Backoff,
    pub(super) links: BTreeMap<PeerId, Link>,
    peers_ever: u32,
    endings: Vec<Ending>,
    /// Whose messages are handed over first.
    next_ear: PeerId,
    /// Who sends first, of bulk.
    next_voice: PeerId,
    /// Which bulk stream is listened to first.
    next_bulk: (PeerId, u8),
    pub(super) suspects: Suspects,
    sights: Vec<Sight>,
    /// When something has to be looked after, whatever the sockets say.
    pub(super) next_tick: Time,
    /// Whether the last poll wanted messages.
    wants_messages: bool,
    pub(super) closed: bool,
    /// Callers that are told of a connection's end in the next turn.
    pub(super) promised: Vec<Call>,
    /// Connections that ended, for the fabric that stands on this one.
    pub(super) ended: Vec<Ended>,
}

/// A connection that is over, but for messages that the engine has not taken.
#[derive(Debug)]
struct Ending {
    peer: PeerId,
    inbox: VecDeque<(Vec<u8>, Option<Immediate>)>,
    reason: Reason,
}

impl Tcp {
    /// Opens the fabric; `config` has been checked.
    pub(super) fn open(config: Config, setup: &Setup) -> Result<Self, String> {
        let failed = |what: &'static str| {
            move |error: std::io::Error| {
                format!("{what}: {error}; the limit of open files (ulimit -n) may be too low")
            }
        };
        let watch = Watch::new().map_err(failed("epoll"))?;
        let resolver = Resolver::new().map_err(failed("eventfd"))?;
        watch.add(&resolver, Ready::Name, false).map_err(failed("epoll"))?;
        let (mut listener, mut endpoint) = (None, "dial-only:0".to_owned());
        if let Some(wanted) = &config.listen {
            let (socket, at) = socket::listen(wanted)?;
            let socket = TcpListener::from(socket::raise(socket.into(), config.floor)?);
            watch.add(&socket, Ready::Caller, false).map_err(failed("epoll"))?;
            endpoint = match &config.advertise {
                Some(name) => match name.rsplit_once(':') {
                    Some((host, "0")) => format!("{host}:{}", at.port()),
                    Some(_) => name.clone(),
                    None => return Err(format!("address {name:?}: give HOST:PORT")),
                },
                None if at.ip().is_unspecified() => {
                    return Err(format!(
                        "listening at {wanted}, which peers cannot dial; say what they should \
                         dial (advertise HOST:PORT)"
                    ));
                }
                None => at.to_string(),
            };
            listener = Some(socket);
        }
        let challenge = Challenge {
            engine: setup.engine,
            nonce: [0; 32],
            heartbeat: config.heartbeat,
            credit: CREDIT_BYTES,
        };
        let now = setup.clock.now();
        Ok(Self {
            hub: Hub::new(config, watch, now),
            clock: Arc::clone(&setup.clock),
            challenge,
            endpoint,
            listener,
            deaf: Deaf::default(),
            resolver,
            calls: Vec::new(),
            calls_ever: 0,
            dials: Vec::new(),
            dials_ever: 0,
            gathering: Vec::new(),
            backoff: Backoff::default(),
            links: BTreeMap::new(),
            peers_ever: 0,
            endings: Vec::new(),
            next_ear: PeerId(0),
            next_voice: PeerId(0),
            next_bulk: (PeerId(0), 0),
            suspects: Suspects::default(),
            sights: Vec::new(),
            next_tick: Time::ZERO,
            wants_messages: true,
            closed: false,
            promised: Vec::new(),
            ended: Vec::new(),
        })
    }

    /// Whether nobody is connected, or about to be.
    #[cfg(feature = "fuzzing")]
    pub(super) fn is_alone(&self) -> bool {
        self.links.is_empty() && self.calls.is_empty() && self.endings.is_empty()
    }

    /// Connections that are over, of which messages are kept.
    pub(super) fn endings(&self) -> usize {
        self.endings.len()
    }

    pub(super) fn next_peer(&mut self) -> PeerId {
        self.peers_ever += 1;
        PeerId(self.peers_ever)
    }

    // ---- a turn ------------------------------------------------------------------------------

    fn turn(&mut self, messages_max: usize) -> bool {
        let before = self.hub.now;
        self.hub.now = self.clock.now();
        let deaf = self.hub.now.since(before).saturating_sub(self.hub.config.heartbeat);
        if deaf > Duration::ZERO {
            // It was we who did not listen: what was said meanwhile is still to be heard. Who
            // sleeps from one heartbeat to the next did listen, and is not to forgive all silence.
            self.links.values_mut().for_each(|link| link.heard = link.heard + deaf);
        }
        self.hub.pace.turn(self.hub.now);
        self.keep_promises();
        // Before anything is heard: what the last turn has to say about arrivals travels with what
        // was posted since, as the answer to them often is.
        let mut worked = self.pump();
        let mut sights = std::mem::take(&mut self.sights);
        self.hub.watch.look(&mut sights);
        worked |= !sights.is_empty();
        // What is urgent first, and bulk last, in turns.
        sights.sort_unstable_by_key(|sight| match sight.ready {
            Ready::Stream(peer, 0) => (0, peer, 0),
            Ready::Stream(peer, at) => (2 + u8::from((peer, at) < self.next_bulk), peer, at),
            _ => (1, PeerId(0), 0),
        });
        let bulk = sights.partition_point(|it| !matches!(it.ready, Ready::Stream(_, 1..)));
        let (first, bulk) = sights.split_at(bulk);
        first.iter().for_each(|sight| self.see(sight));
        let mut left = self.hub.pace.receives();
        bulk.iter().for_each(|sight| self.see_bulk(sight, &mut left));
        self.sights = sights;
        if self.hub.now >= self.next_tick {
            self.tick();
        }
        worked | self.deliver(messages_max)
    }

    fn see(&mut self, sight: &Sight) {
        match sight.ready {
            Ready::Alarm => self.hub.watch.alarmed(),
            Ready::Name => self.take_names(),
            Ready::Caller => self.answer_callers(),
            Ready::Call(id) => self.go_on_with(id),
            Ready::Stream(peer, at) => {
                let heard = self.listen(sight, peer, at, URGENT_TURN_BYTES);
                if let Some(Err(over)) = heard {
                    self.end(peer, over);
                }
            }
        }
    }

    /// Looks at a bulk stream, from which no more than `left` bytes are received; these are taken
    /// off.
    fn see_bulk(&mut self, sight: &Sight, left: &mut usize) {
        let Ready::Stream(peer, at) = sight.ready else { return };
        match self.listen(sight, peer, at, *left) {
            Some(Ok(heard)) => {
                *left = left.saturating_sub(heard);
                self.next_bulk = (peer, at + 1);
                // What little there is, is often followed at once by what is said about it.
                if heard > 0
                    && *left > 0
                    && let Some(link) = self.links.get_mut(&peer)
                    && let Err(over) = link.hear(&mut self.hub, LATENCY, URGENT_TURN_BYTES)
                {
                    self.end(peer, over);
                }
            }
            Some(Err(over)) => self.hear_out(peer, over),
            None => {}
        }
    }

    /// Receives from a stream that is ready for it; how many bytes.
    fn listen(
        &mut self,
        sight: &Sight,
        peer: PeerId,
        at: u8,
        most: usize,
    ) -> Option<Result<usize, Over>> {
        let link = self.links.get_mut(&peer)?;
        let stream = link.streams.get_mut(usize::from(at))?;
        if sight.write {
            stream.clogged = false;
            self.hub.eager(peer);
        }
        (sight.read && most > 0).then(|| link.hear(&mut self.hub, at.into(), most))
    }

    /// A bulk stream has ended: what the peer said last in the latency stream tells why.
    fn hear_out(&mut self, peer: PeerId, bulk: Over) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        for _ in 0..=LAST_WORDS_TURNS {
            match link.hear(&mut self.hub, LATENCY, URGENT_TURN_BYTES) {
                Ok(0) => break,
                Ok(_) => {}
                Err(over) => return self.end(peer, over),
            }
        }
        if let Over::Broken(_) = bulk {
            return self.end(peer, bulk);
        }
        if self.hub.carries() {
            // Hanging up says that nothing lands here any more, which is not ours to say.
            return self.end(peer, Over::Cut);
        }
        // The latency stream is to end, too, and says what can be proven.
        let until = self.hub.now + self.hub.config.heartbeat;
        link.leave(&mut self.hub, Reason::PeerGone, until);
        self.next_tick = Time::ZERO;
    }

    /// Sends what there is to send: what is urgent of everybody, then bulk in turns.
    fn pump(&mut self) -> bool {
        let next = self.next_voice;
        let eager = &self.hub.eager;
        let peers: Vec<_> = eager.range(next..).chain(eager.range(..next)).copied().collect();
        let mut worked = false;
        for peer in &peers {
            let Some(link) = self.links.get_mut(peer) else {
                self.hub.eager.remove(peer);
                continue;
            };
            match link.speak() {
                Ok(()) => worked |= link.pump_urgent(&mut self.hub),
                Err(over) => self.end(*peer, over),
            }
        }
        let mut left = self.hub.pace.sends();
        for peer in peers {
            let Some(link) = self.links.get_mut(&peer) else { continue };
            if link.pump_bulk(&mut self.hub, &mut left) {
                self.next_voice = PeerId(peer.0.wrapping_add(1));
                worked = true;
            }
            if left == 0 {
                break;
            }
        }
        worked
    }

    /// Hands messages over, at most `max`, and says which connections are over.
    fn deliver(&mut self, max: usize) -> bool {
        self.wants_messages = max > 0;
        let mut left = max;
        let reports = &mut self.hub.reports;
        self.endings.retain_mut(|ending| {
            let count = ending.inbox.len().min(left);
            left -= count;
            for (bytes, immediate) in ending.inbox.drain(..count) {
                reports.push(Event::Message { peer: ending.peer, bytes });
                reports.extend(immediate.map(|immediate| Event::Arrived { immediate }));
            }
            if ending.inbox.is_empty() {
                reports.push(Event::PeerDown { peer: ending.peer, reason: ending.reason });
            }
            !ending.inbox.is_empty()
        });
        // In turns, so that nobody who talks all the time keeps back what others say.
        let first = self.next_ear;
        let (later, sooner) = (Bound::Included(first), Bound::Excluded(first));
        for turn in [(later, Bound::Unbounded), (Bound::Unbounded, sooner)] {
            let full = |(_, link): &(&PeerId, &mut Link)| !link.inbox.is_empty();
            for (peer, link) in self.links.range_mut(turn).filter(full) {
                if left == 0 {
                    break;
                }
                left -= link.deliver(&mut self.hub, left);
                self.next_ear = PeerId(peer.0.wrapping_add(1));
            }
        }
        left < max
    }

    fn tick(&mut self) {
        // Whatever sets it meanwhile is looked after in the next turn.
        self.next_tick = Time::NEVER;
        let peers: Vec<_> = self.links.keys().copied().collect();
        let mut next = Time::NEVER;
        for peer in peers {
            let Some(link) = self.links.get_mut(&peer) else { continue };
            match link.tick(&mut self.hub) {
                Ok(()) => next = next.min(link.next_tick(self.hub.config.heartbeat)),
                Err(over) => self.end(peer, over),
            }
        }
        for id in self.suspects.ids() {
            // Those that have to wait have their turn when one of those has an answer, or none.
            let full = self.asks() >= ASKS_AT_ONCE;
            let Some(suspect) = self.suspects.get_mut(id) else { continue };
            match suspect.turn(self.hub.now) {
                Turn::Now if !full => {
                    suspect.asked();
                    let endpoint = suspect.endpoint.clone();
                    self.dial(Purpose::Ask(id), endpoint);
                }
                Turn::At(at) => next = next.min(at),
                Turn::Now | Turn::None => {}
            }
        }
        let dials = self.tick_dials();
        self.next_tick = self.next_tick.min(next).min(dials);
    }

    // ---- ends --------------------------------------------------------------------------------

    /// Ends a connection.
    pub(super) fn end(&mut self, peer: PeerId, over: Over) {
        let Some(mut link) = self.links.remove(&peer) else { return };
        self.hub.eager.remove(&peer);
        let gone = over == Over::Gone;
        let reason = match (link.leaving, over) {
            (Some((reason, _)), _) => reason,
            (None, Over::Gone | Over::Cut) => Reason::PeerGone,
            (None, Over::Broken(what)) => {
                tracing::warn!(peer = peer.0, engine = ?link.engine, "hanging up on a peer: {what}");
                Reason::Failed
            }
        };
        if link.leaving.is_none() && !self.hub.carries() {
            // It goes through where the other side is there to hear it.
            link.leave(&mut self.hub, reason, Time::NEVER);
            self.hub.eager.remove(&peer);
        }
        let unproven = link.end_ops(&mut self.hub, reason, gone);
        let Link { inbox, engine, connection, endpoint, near, streams, .. } = link;
        if self.hub.carries() {
            let endpoint = endpoint.clone();
            self.ended.push(Ended {
                peer,
                engine,
                connection,
                endpoint,
                near,
                gone,
                _streams: streams,
            });
        }
        self.endings.push(Ending { peer, inbox, reason });
        if !unproven.is_empty() && !self.closed {
            let (who, at) = ((engine, connection), (endpoint, near));
            self.suspects.add(who, at, unproven, self.hub.now);
        }
        self.next_tick = Time::ZERO;
    }

    /// The peer of a broken connection lands nothing more of it.
    pub(super) fn proven(&mut self, id: u32) {
        let Some(suspect) = self.suspects.remove(id) else { return };
        let status = Status::Stopped(Reason::PeerGone);
        let ends = suspect.ops.into_iter().map(|op| Event::Completed { op, status });
        self.hub.reports.extend(ends);
        // Others may wait for their turn to be asked.
        self.next_tick = Time::ZERO;
    }

    /// The peer of a broken connection could not be asked.
    pub(super) fn ask_later(&mut self, id: u32) {
        let Some(suspect) = self.suspects.get_mut(id) else { return };
        suspect.ask_later(self.hub.now, self.hub.config.backoff);
        self.next_tick = Time::ZERO;
    }

    /// The other side of a connection says that it has broken, and asks us to drop it.
    pub(super) fn drop_connection(&mut self, hello: &Hello) {
        self.gathering.retain(|it| !it.is(hello));
        let mine = |link: &Link| (link.engine, link.connection) == (hello.engine, hello.connection);
        if let Some(peer) = self.links.values().find(|link| mine(link)).map(|link| link.id) {
            self.end(peer, Over::Gone);
        }
    }
}

impl Fabric for Tcp {
    fn kind(&self) -> Kind {
        Kind::Tcp
    }

    fn address(&self) -> Address {
        Address::new(Kind::Tcp, self.endpoint.clone())
    }

    fn maps(&self) -> bool {
        false
    }

    fn limits(&self) -> Limits {
        Limits { message_bytes_max: MESSAGE_BYTES_MAX, windows_max: WINDOWS_MAX }
    }

    fn register(&mut self, region: RegionId, memory: &Arc<Memory>) -> Result<(), RegisterError> {
        if !memory.is_host() {
            return Err(RegisterError::on_device(Kind::Tcp));
        }
        self.hub.windows.register(region, memory);
        Ok(())
    }

    fn deregister(&mut self, region: RegionId) {
        self.hub.windows.deregister(region);
    }

    fn grant(&mut self, grant: &Grant) -> Result<RemoteKey, RegisterError> {
        let key =
            self.hub.windows.open(grant).map_err(|what| RegisterError { kind: Kind::Tcp, what })?;
        Ok(RemoteKey { key, base: 0 })
    }

    fn revoke(&mut self, window: WindowId) {
        // Whatever lands, lands by our own hand: it looks at the window first.
        self.hub.windows.shut(window);
        self.hub.reports.push(Event::Revoked { window });
    }

    fn connect(&mut self, to: &Address) -> PeerId {
        self.hub.now = self.clock.now();
        self.dial_peer(to)
    }

    fn disconnect(&mut self, peer: PeerId) {
        self.undial(peer);
        if let Some(link) = self.links.get_mut(&peer) {
            // The last poll may be long ago.
            let until = self.clock.now() + self.hub.config.heartbeat;
            link.leave(&mut self.hub, Reason::Closed, until);
            self.next_tick = Time::ZERO;
        }
    }

    fn post(&mut self, op: OpId, peer: PeerId, lane: Lane, work: Work<'_>) -> Posted {
        let Some(link) = self.links.get_mut(&peer) else {
            return Posted::Refused(Reason::PeerGone);
        };
        if matches!(work, Work::Write { .. }) && !self.suspects.allow(link.engine, link.ops.len()) {
            return Posted::Refused(Reason::Unproven);
        }
        self.hub.pace.look_again(|| self.clock.now());
        link.post(&mut self.hub, op, lane, &work)
    }

    fn cancel(&mut self, op: OpId, reason: Reason) {
        for link in self.links.values_mut() {
            if link.cancel(&mut self.hub, op, reason) {
                return;
            }
        }
    }

    fn poll(&mut self, messages_max: usize, events: &mut Vec<Event>) -> bool {
        let worked = if self.closed { self.deliver(messages_max) } else { self.turn(messages_max) };
        let news = !self.hub.reports.is_empty();
        events.append(&mut self.hub.reports);
        worked | news
    }

    fn arm(&mut self) -> bool {
        let messages = self.wants_messages && self.links.values().any(|it| !it.inbox.is_empty());
        let endings = self.endings.iter().any(|it| self.wants_messages || it.inbox.is_empty());
        let words = !self.hub.asides.is_empty() || !self.promised.is_empty();
        if !self.hub.reports.is_empty()
            || !self.hub.eager.is_empty()
            || messages
            || endings
            || words
        {
            return false;
        }
        let now = self.clock.now();
        if self.next_tick <= now {
            return false;
        }
        let span = (self.next_tick != Time::NEVER).then(|| self.next_tick.since(now));
        self.hub.watch.set_alarm(span);
        true
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.hub.watch.as_fd())
    }

    fn close(&mut self) {
        if self.closed {
            return;
        }
        let began = Instant::now();
        self.hub.now = self.clock.now();
        for link in self.links.values_mut() {
            link.leave(&mut self.hub, Reason::Closed, Time::NEVER);
        }
        // What was said before is heard, where somebody listens: a socket that is closed before
        // everything that came in was taken drops what it has not sent.
        while !self.links.is_empty() && began.elapsed() < LINGER {
            self.turn(0);
            let left = LINGER.saturating_sub(began.elapsed());
            let timeout = Timespec::try_from(left).expect("a tenth of a second at most");
            let fd = self.hub.watch.as_fd();
            // Interrupted or not, it is looked again.
            let _ = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout));
        }
        self.closed = true;
        for peer in self.links.keys().copied().collect::<Vec<_>>() {
            self.end(peer, Over::Cut);
        }
        self.calls.clear();
        self.dials.clear();
        self.gathering.clear();
        self.promised.clear();
        self.suspects.clear();
        self.hub.windows.clear();
        // Last: that nobody listens any more tells peers that everything here has ended.
        self.listener = None;
        self.next_tick = Time::NEVER;
    }
}
