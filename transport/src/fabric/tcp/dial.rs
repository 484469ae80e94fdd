//! Dialling and being dialled, up to the connection.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;

use super::call::{Call, Credentials, Step, nonce, unreachable};
use super::config::STREAMS_MAX;
use super::deaf::is_callers_own;
use super::fabric::Tcp;
use super::greeting::{Challenge, Hello, Role};
use super::link::{CREDIT_BYTES, Link, Terms};
use super::socket;
use super::stream::Stream;
use super::watch::Ready;
use crate::address::{Address, Kind};
use crate::fabric::{Event, PeerId};
use crate::outcome::Reason;
use crate::time::Time;

/// Callers answered in one look.
const CALLERS_PER_LOOK: usize = 16;
/// Callers in the handshake; the oldest makes room for the next.
const CALLERS_MAX: usize = 128;
/// Addresses whose failures are remembered.
const FAILURES_MAX: usize = 1024;

/// What is dialled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A connection.
    Peer(PeerId),
    /// To ask about a connection that broke.
    Ask(u32),
}

/// A dial under way.
#[derive(Debug)]
pub(super) struct Dial {
    id: u32,
    purpose: Purpose,
    endpoint: String,
    /// The number of the connection.
    connection: u128,
    until: Time,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// It failed a moment ago.
    Waiting { at: Time },
    /// Its name is being looked up.
    Naming,
    /// One of its addresses is called; whether all before had no listener.
    Calling { now: SocketAddr, left: Vec<SocketAddr>, refused: bool },
    /// The latency stream is there; the others are called.
    Joining { terms: Terms, streams: Vec<Option<OwnedFd>> },
}

/// A connection that is dialled to us and not complete.
#[derive(Debug)]
pub(super) struct Gathering {
    terms: Terms,
    streams: Vec<Option<OwnedFd>>,
    until: Time,
}

impl Gathering {
    pub(super) fn is(&self, hello: &Hello) -> bool {
        (self.terms.engine, self.terms.connection) == (hello.engine, hello.connection)
    }
}

/// Which addresses failed lately, how often in a row, and until when they are left alone.
#[derive(Debug, Default)]
pub(super) struct Backoff(HashMap<String, (u32, Time)>);

impl Backoff {
    fn failed(&mut self, endpoint: &str, now: Time, bounds: (Duration, Duration)) {
        if self.0.len() >= FAILURES_MAX {
            self.0.retain(|_, (_, until)| *until > now);
        }
        if self.0.len() < FAILURES_MAX {
            let (times, until) = self.0.entry(endpoint.to_owned()).or_default();
            *until = now + wait(*times, bounds);
            *times += 1;
        }
    }

    fn until(&self, endpoint: &str) -> Time {
        self.0.get(endpoint).map_or(Time::ZERO, |(_, until)| *until)
    }
}

/// How long to wait after so many failures before: three quarters of a doubling time to the whole
/// of it, so that those who failed together do not come back together.
pub(super) fn wait(failures: u32, (first, most): (Duration, Duration)) -> Duration {
    let whole = first.saturating_mul(1 << failures.min(16)).min(most);
    let quarter = u64::try_from(whole.as_nanos() / 4).unwrap_or(u64::MAX);
    // Without randomness everybody waits as long.
    let random = getrandom::u64().unwrap_or(0);
    whole - Duration::from_nanos(random % quarter.max(1))
}

impl Tcp {
    /// Begins to dial.
    pub(super) fn dial_peer(&mut self, to: &Address) -> PeerId {
        let id = self.next_peer();
        let down = |reason| Event::PeerDown { peer: id, reason };
        if self.closed {
            self.hub.reports.push(down(Reason::Closed));
            return id;
        }
        if to.kind != Kind::Tcp || to.endpoint.ends_with(":0") {
            tracing::warn!("cannot dial {to}: it is no address that somebody listens at");
            self.hub.reports.push(down(Reason::Unreachable));
            return id;
        }
        if self.is_full() {
            self.hub.reports.push(down(Reason::Full));
            return id;
        }
        self.dial(Purpose::Peer(id), to.endpoint.clone());
        id
    }

    fn is_full(&self) -> bool {
        let dials = self.dials.len() - self.asks();
        let open = self.links.len() + dials + self.gathering.len();
        // Messages of those that are gone take as much memory as of those that are there.
        open + self.endings() >= self.hub.config.connections_max
    }

    /// Dials that ask about a connection that broke: few at once, and none keeps anybody out.
    pub(super) fn asks(&self) -> usize {
        self.dials.iter().filter(|dial| matches!(dial.purpose, Purpose::Ask(_))).count()
    }

    pub(super) fn dial(&mut self, purpose: Purpose, endpoint: String) {
        self.dials_ever += 1;
        let until = self.hub.now + self.hub.config.handshake_timeout;
        let at = match purpose {
            Purpose::Peer(_) => self.backoff.until(&endpoint),
            // Those have their own.
            Purpose::Ask(_) => Time::ZERO,
        };
        let mut connection = [0; 16];
        let random = getrandom::fill(&mut connection);
        let dial = Dial {
            id: self.dials_ever,
            purpose,
            endpoint,
            connection: u128::from_le_bytes(connection),
            until,
            phase: Phase::Waiting { at },
        };
        self.dials.push(dial);
        self.next_tick = Time::ZERO;
        if let Err(error) = random {
            tracing::warn!("no random number: {error}");
            self.dial_failed(self.dials_ever, Reason::Failed, false);
        } else if at <= self.hub.now {
            self.look_up(self.dials_ever);
        }
    }

    fn dial_index(&self, id: u32) -> Option<usize> {
        self.dials.iter().position(|dial| dial.id == id)
    }

    fn look_up(&mut self, id: u32) {
        let Some(index) = self.dial_index(id) else { return };
        let dial = &mut self.dials[index];
        dial.until = self.hub.now + self.hub.config.handshake_timeout;
        dial.phase = Phase::Naming;
        if let Some(addresses) = self.resolver.ask(id, &dial.endpoint) {
            self.named(id, addresses);
        }
    }

    /// Names were looked up.
    pub(super) fn take_names(&mut self) {
        for (id, addresses) in self.resolver.answers() {
            self.named(id, addresses);
        }
    }

    fn named(&mut self, id: u32, mut left: Vec<SocketAddr>) {
        let Some(index) = self.dial_index(id) else { return };
        if let Purpose::Ask(suspect) = self.dials[index].purpose
            && self.suspects.get(suspect).is_some_and(|it| !it.near)
        {
            // Those of another machine mean itself; nobody there, or somebody else, at ours would
            // prove nothing.
            left.retain(|it| !it.ip().to_canonical().is_loopback() && !it.ip().is_unspecified());
            if left.is_empty() {
                tracing::debug!(
                    "{} is not the address of another machine",
                    self.dials[index].endpoint
                );
            }
        }
        left.reverse();
        let Some(now) = left.pop() else {
            return self.dial_failed(id, Reason::Unresolved, false);
        };
        self.dials[index].phase = Phase::Calling { now, left, refused: true };
        self.call(id, Role::Latency);
    }

    /// Calls the present address of a dial.
    fn call(&mut self, id: u32, role: Role) {
        let Some(index) = self.dial_index(id) else { return };
        let dial = &self.dials[index];
        let (to, tries) = match &dial.phase {
            Phase::Calling { now, left, .. } => (*now, left.len() as u32 + 1),
            Phase::Joining { terms, .. } => match terms.endpoint.parse() {
                Ok(to) => (to, 1),
                Err(_) => return self.dial_failed(id, Reason::Failed, false),
            },
            Phase::Waiting { .. } | Phase::Naming => return,
        };
        let (role, connection) = match dial.purpose {
            Purpose::Peer(_) => (role, dial.connection),
            Purpose::Ask(suspect) => match self.suspects.get(suspect) {
                Some(suspect) => (Role::Inquiry, suspect.connection),
                None => return self.dial_failed(id, Reason::Cancelled, false),
            },
        };
        // Those that follow need their share of the time.
        let until = self.hub.now + dial.until.since(self.hub.now) / tries;
        let called = nonce().and_then(|nonce| {
            let hello = Hello {
                engine: self.challenge.engine,
                connection,
                nonce,
                role,
                streams: self.hub.config.streams,
                heartbeat: self.hub.config.heartbeat,
                credit: CREDIT_BYTES,
                above: self.hub.above,
                address: if self.listener.is_some() {
                    self.endpoint.clone()
                } else {
                    String::new()
                },
            };
            let socket = socket::dial(&to).map_err(unreachable)?;
            let call = Call::dialled(self.calls_ever + 1, id, socket, &hello, until);
            let watched = self.hub.watch.add(&call.socket, Ready::Call(call.id), true);
            watched.map_err(|_| Reason::Failed)?;
            Ok(call)
        });
        match called {
            Ok(call) => {
                self.calls_ever += 1;
                self.calls.push(call);
                self.next_tick = Time::ZERO;
            }
            Err(reason) => self.call_failed(id, reason, false),
        }
    }

    /// Somebody calls, perhaps several.
    pub(super) fn answer_callers(&mut self) {
        for _ in 0..CALLERS_PER_LOOK {
            let Some(listener) = &self.listener else { return };
            let socket = match socket::accept(listener) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return self.deaf.answered(),
                // Somebody who has hung up already, or the like.
                Err(errno) if is_callers_own(errno) => continue,
                Err(errno) => {
                    self.hub.watch.remove(listener);
                    self.deaf.begin(errno, self.hub.now);
                    self.next_tick = Time::ZERO;
                    return;
                }
            };
            if self.calls.iter().filter(|call| call.dial.is_none()).count() >= CALLERS_MAX
                && let Some(oldest) = self.calls.iter().position(|call| call.dial.is_none())
            {
                self.calls.remove(oldest);
            }
            self.calls_ever += 1;
            let until = self.hub.now + self.hub.config.handshake_timeout;
            let call = Call::accepted(self.calls_ever, socket, until);
            if self.hub.watch.add(&call.socket, Ready::Call(call.id), false).is_ok() {
                self.calls.push(call);
                self.next_tick = Time::ZERO;
            }
        }
    }

    /// The socket of a handshake is ready.
    pub(super) fn go_on_with(&mut self, id: u32) {
        let Some(index) = self.calls.iter().position(|call| call.id == id) else { return };
        let call = &mut self.calls[index];
        let connecting = call.is_connecting();
        let credentials = Credentials { token: &self.hub.config.token, challenge: &self.challenge };
        let step = call.step(&credentials);
        if connecting && !call.is_connecting() {
            self.hub.watch.change(&call.socket, Ready::Call(id), false);
        }
        match step {
            Ok(Step::Wait) => {}
            Err(reason) => {
                let call = self.calls.remove(index);
                match call.dial {
                    Some((dial, _)) => self.call_failed(dial, reason, call.refused),
                    None => tracing::debug!("a caller was turned away: {reason}"),
                }
            }
            Ok(Step::Welcome(challenge, streams)) => {
                let call = self.calls.remove(index);
                self.hub.watch.remove(&call.socket);
                if let Some((dial, role)) = call.dial {
                    self.welcomed(dial, role, call.socket, &challenge, streams);
                }
            }
            Ok(Step::Proven(hello)) => {
                let call = self.calls.remove(index);
                self.hub.watch.remove(&call.socket);
                self.take_in(call, &hello);
            }
        }
    }

    /// One address of a dial failed.
    fn call_failed(&mut self, id: u32, reason: Reason, nobody: bool) {
        let Some(index) = self.dial_index(id) else { return };
        if let Phase::Calling { now, left, refused } = &mut self.dials[index].phase {
            *refused &= nobody;
            let refused = *refused;
            if reason == Reason::Unreachable
                && let Some(next) = left.pop()
            {
                *now = next;
                return self.call(id, Role::Latency);
            }
            return self.dial_failed(id, reason, refused);
        }
        self.dial_failed(id, reason, false);
    }

    /// A dial has failed; `nobody` listens there at all.
    pub(super) fn dial_failed(&mut self, id: u32, reason: Reason, nobody: bool) {
        let Some(index) = self.dial_index(id) else { return };
        let dial = self.dials.remove(index);
        self.calls.retain(|call| call.dial.is_none_or(|(of, _)| of != id));
        match dial.purpose {
            Purpose::Peer(peer) => {
                self.backoff.failed(&dial.endpoint, self.hub.now, self.hub.config.backoff);
                tracing::debug!(peer = peer.0, "dialling {} failed: {reason}", dial.endpoint);
                self.hub.reports.push(Event::PeerDown { peer, reason });
            }
            Purpose::Ask(suspect) if nobody => self.proven(suspect),
            Purpose::Ask(suspect) => self.ask_later(suspect),
        }
    }

    /// Gives a dial up.
    pub(super) fn undial(&mut self, peer: PeerId) {
        let wanted = Purpose::Peer(peer);
        if let Some(index) = self.dials.iter().position(|dial| dial.purpose == wanted) {
            let id = self.dials.remove(index).id;
            self.calls.retain(|call| call.dial.is_none_or(|(of, _)| of != id));
            self.hub.reports.push(Event::PeerDown { peer, reason: Reason::Closed });
        }
    }

    /// The other side has taken a stream of ours.
    fn welcomed(&mut self, id: u32, role: Role, socket: OwnedFd, challenge: &Challenge, count: u8) {
        let Some(index) = self.dial_index(id) else { return };
        let dial = &mut self.dials[index];
        match (role, &mut dial.phase) {
            (Role::Inquiry, _) => {
                if let Purpose::Ask(suspect) = dial.purpose {
                    self.dials.remove(index);
                    self.proven(suspect);
                }
            }
            (Role::Latency, Phase::Calling { now, .. }) if (1..=STREAMS_MAX).contains(&count) => {
                let terms = Terms {
                    engine: challenge.engine,
                    connection: dial.connection,
                    endpoint: now.to_string(),
                    near: true,
                    heartbeat: challenge.heartbeat,
                    credit: challenge.credit,
                };
                let mut streams = vec![Some(socket)];
                streams.resize_with(1 + usize::from(count), || None);
                dial.phase = Phase::Joining { terms, streams };
                for stream in 1..=count {
                    self.call(id, Role::Bulk(stream));
                }
            }
            (Role::Bulk(stream), Phase::Joining { terms, streams })
                if terms.engine == challenge.engine =>
            {
                if let Some(place) = streams.get_mut(usize::from(stream)) {
                    *place = Some(socket);
                }
                if streams.iter().all(Option::is_some) {
                    let dial = self.dials.remove(index);
                    self.backoff.0.remove(&dial.endpoint);
                    if let (Purpose::Peer(peer), Phase::Joining { terms, streams }) =
                        (dial.purpose, dial.phase)
                    {
                        self.link_up(peer, terms, streams);
                    }
                }
            }
            _ => self.dial_failed(id, Reason::Foreign, false),
        }
    }

    /// A caller has proven itself.
    fn take_in(&mut self, call: Call, hello: &Hello) {
        let welcome = |fabric: &Self, call: &Call, streams| {
            let token = &fabric.hub.config.token;
            call.welcome(&Credentials { token, challenge: &fabric.challenge }, streams)
        };
        let until = self.hub.now + self.hub.config.handshake_timeout;
        if hello.above != self.hub.above {
            tracing::warn!(engine = ?hello.engine, "a caller turned away: it speaks another fabric");
            return call.reject(Reason::Foreign);
        }
        match hello.role {
            Role::Latency if self.is_full() => call.reject(Reason::Full),
            Role::Latency => {
                let count = hello.streams.clamp(1, STREAMS_MAX);
                if welcome(self, &call, count).is_ok() {
                    let terms = Terms {
                        engine: hello.engine,
                        connection: hello.connection,
                        endpoint: hello.address.clone(),
                        near: socket::is_near(&call.socket),
                        heartbeat: hello.heartbeat,
                        credit: hello.credit,
                    };
                    let mut streams = vec![Some(call.socket)];
                    streams.resize_with(1 + usize::from(count), || None);
                    self.gathering.push(Gathering { terms, streams, until });
                    self.next_tick = Time::ZERO;
                }
            }
            Role::Bulk(stream) => {
                let place = self.gathering.iter().position(|it| it.is(hello));
                let free = place.filter(|at| {
                    let streams = &self.gathering[*at].streams;
                    streams.get(usize::from(stream)).is_some_and(Option::is_none)
                });
                let Some(at) = free else { return call.reject(Reason::Failed) };
                if welcome(self, &call, 0).is_err() {
                    return;
                }
                self.gathering[at].streams[usize::from(stream)] = Some(call.socket);
                if self.gathering[at].streams.iter().all(Option::is_some) {
                    let Gathering { terms, streams, .. } = self.gathering.remove(at);
                    let peer = self.next_peer();
                    self.link_up(peer, terms, streams);
                }
            }
            Role::Inquiry => {
                self.drop_connection(hello);
                if self.hub.carries() {
                    // What stands on the connection has to come down first.
                    self.promised.push(call);
                } else {
                    // Whoever does not hear it asks again.
                    let _ = welcome(self, &call, 0);
                }
            }
        }
    }

    /// Tells those who asked about a connection that nothing lands here of it any more.
    pub(super) fn keep_promises(&mut self) {
        for call in std::mem::take(&mut self.promised) {
            let credentials =
                Credentials { token: &self.hub.config.token, challenge: &self.challenge };
            // Whoever does not hear it asks again.
            let _ = call.welcome(&credentials, 0);
        }
    }

    fn link_up(&mut self, peer: PeerId, terms: Terms, sockets: Vec<Option<OwnedFd>>) {
        let mut streams = Vec::with_capacity(sockets.len());
        for (at, socket) in sockets.into_iter().flatten().enumerate() {
            let ready = Ready::Stream(peer, at as u8);
            let raised = socket::raise(socket, self.hub.config.floor);
            let watched = raised.and_then(|socket| {
                let watched = self.hub.watch.add(&socket, ready, false);
                watched.map(|()| socket).map_err(|error| error.to_string())
            });
            let socket = match watched {
                Ok(socket) => socket,
                Err(error) => {
                    tracing::warn!("a connection cannot be watched: {error}");
                    let reason = Reason::Failed;
                    return self.hub.reports.push(Event::PeerDown { peer, reason });
                }
            };
            streams.push(Stream::new(socket, ready, at == 0));
        }
        let engine = terms.engine;
        let link = Link::new(peer, terms, streams, &self.hub);
        self.links.insert(peer, link);
        self.next_tick = Time::ZERO;
        self.hub.reports.push(Event::PeerUp { peer, engine });
    }

    /// Gives up what has taken too long, and goes on with what has waited; when to look again.
    pub(super) fn tick_dials(&mut self) -> Time {
        let now = self.hub.now;
        if self.deaf.until().is_some_and(|until| until <= now)
            && let Some(listener) = &self.listener
        {
            match self.hub.watch.add(listener, Ready::Caller, false) {
                Ok(()) => self.deaf.listens(),
                Err(_) => self.deaf.begin(Errno::NOMEM, now),
            }
        }
        let late: Vec<_> = self.calls.iter().filter(|it| it.until <= now).map(|it| it.id).collect();
        for id in late {
            let Some(index) = self.calls.iter().position(|it| it.id == id) else { continue };
            let call = self.calls.remove(index);
            match call.dial {
                Some((dial, _)) => self.call_failed(dial, Reason::Unreachable, false),
                None => tracing::debug!("a caller said too little for too long"),
            }
        }
        self.gathering.retain(|it| it.until > now);
        let ids: Vec<_> = self.dials.iter().map(|dial| dial.id).collect();
        for id in ids {
            let Some(index) = self.dial_index(id) else { continue };
            match &self.dials[index].phase {
                Phase::Waiting { at } if *at <= now => self.look_up(id),
                Phase::Waiting { .. } => {}
                Phase::Naming if self.dials[index].until <= now => {
                    self.dial_failed(id, Reason::Unresolved, false);
                }
                _ if self.dials[index].until <= now => {
                    self.dial_failed(id, Reason::Unreachable, false);
                }
                _ => {}
            }
        }
        let dials = self.dials.iter().map(|dial| match dial.phase {
            Phase::Waiting { at } => at,
            _ => dial.until,
        });
        let calls = self.calls.iter().map(|call| call.until);
        let gathering = self.gathering.iter().map(|it| it.until);
        dials.chain(calls).chain(gathering).chain(self.deaf.until()).min().unwrap_or(Time::NEVER)
    }
}
