//! Connecting, and what is said over sockets afterwards.

use std::io;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::SocketAddrUnix;
use rustix::process::geteuid;

use super::connection::Connection;
use super::control::{Theirs, WINDOWS};
use super::doorbell;
use super::fabric::Shm;
use super::link::{Begun, Link, Waiting, Wish};
use super::peers::{Peer, State};
use super::socket::{self, Line, Received};
use super::watch::Ready;
use super::wire::{Packet, WireError};
use crate::address::{Address, EngineId, Kind};
use crate::fabric::{Event, PeerId, Posted, RegionId, Status};
use crate::outcome::Reason;

/// Callers answered in one look.
const CALLERS_PER_LOOK: usize = 16;
/// Packets heard from one peer in one look.
const PACKETS_PER_LOOK: usize = 64;
/// How long callers wait when we have run out of descriptors.
const DEAF_SPAN: Duration = Duration::from_millis(100);

impl Shm {
    /// Begins to dial.
    pub(super) fn dial(&mut self, to: &Address) -> PeerId {
        let id = self.next_peer();
        let down = |reason| Event::PeerDown { peer: id, reason };
        if self.is_closed() {
            self.reports.push(down(Reason::Closed));
            return id;
        }
        let address = match to.kind {
            Kind::Shm => socket::address(&to.endpoint),
            _ => Err(format!("{to} is no address of this fabric")),
        };
        let address = match address {
            Ok(address) => address,
            Err(what) => {
                tracing::warn!("cannot dial: {what}");
                self.reports.push(down(Reason::Unreachable));
                return id;
            }
        };
        if self.is_full() {
            self.reports.push(down(Reason::Full));
            return id;
        }
        let until = self.clock.now() + self.config.handshake_timeout;
        let state = State::Dialling { address, until };
        self.peers.push(Peer { id, line: None, process: None, watched_for_room: false, state });
        self.call(self.peers.len() - 1);
        self.look = true;
        id
    }

    fn next_peer(&mut self) -> PeerId {
        let id = PeerId(self.peers_ever);
        self.peers_ever += 1;
        id
    }

    fn is_full(&self) -> bool {
        self.peers.len() + self.ghosts.len() >= self.config.connections_max
    }

    /// Calls a peer; one whose listener is busy is called again later.
    fn call(&mut self, index: usize) {
        let State::Dialling { address, until } = &self.peers[index].state else { return };
        let until = *until;
        let reason = match self.say_hello(address) {
            Ok((line, process, connection)) => {
                let peer = &mut self.peers[index];
                peer.state = State::Greeting { connection, until };
                match self.take_line(index, line, process) {
                    Ok(()) => return,
                    Err(error) => (Reason::Failed, error),
                }
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => return,
                io::ErrorKind::PermissionDenied => (Reason::Denied, error),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    (Reason::Unreachable, error)
                }
                _ => (Reason::Failed, error),
            },
        };
        tracing::debug!(peer = self.peers[index].id.0, "dialling failed: {}", reason.1);
        self.hang_up(index, reason.0, true);
    }

    fn say_hello(
        &self,
        address: &SocketAddrUnix,
    ) -> io::Result<(Line, Option<OwnedFd>, Connection)> {
        let mut line = Line::new(socket::dial(address)?);
        let process = self.admit(&line, true)?;
        let (connection, memfd) = Connection::create(self.config.ring_bytes)?;
        let hello = Packet::Hello {
            engine: self.engine,
            windows: WINDOWS as u32,
            ring_bytes: self.config.ring_bytes,
        };
        let descriptors = vec![
            self.control.memfd().try_clone_to_owned()?,
            memfd,
            self.doorbell.as_fd().try_clone_to_owned()?,
        ];
        line.send(hello, descriptors)?;
        Ok((line, process, connection))
    }

    /// Checks who is at the other end of a line, and gets a descriptor of its process.
    fn admit(&self, line: &Line, dialled: bool) -> io::Result<Option<OwnedFd>> {
        let who = line.credentials()?;
        let us = geteuid();
        // Root may dial anybody, but not anybody may call root.
        let trusted =
            self.config.any_user || who.uid == us || who.uid.is_root() || (dialled && us.is_root());
        if !trusted {
            let what = format!("user {} is not trusted", who.uid.as_raw());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
        match line.process() {
            Ok(process) => Ok(Some(process)),
            // It has died already, or lives in another pid namespace: its socket will end.
            Err(error) => {
                tracing::debug!("no pidfd of a peer: {error}");
                Ok(None)
            }
        }
    }

    fn take_line(&mut self, index: usize, line: Line, process: Option<OwnedFd>) -> io::Result<()> {
        let id = self.peers[index].id;
        self.watch.add(&line, Ready::Socket(id), false)?;
        if let Some(process) = &process {
            self.watch.add(process, Ready::Death(id), false)?;
        }
        self.peers[index].line = Some(line);
        self.peers[index].process = process;
        self.watch_room(index);
        Ok(())
    }

    /// Accepts whoever calls.
    pub(super) fn answer_callers(&mut self) {
        for _ in 0..CALLERS_PER_LOOK {
            let Some(listener) = &self.listener else { return };
            let mut line = match listener.accept() {
                Ok(socket) => Line::new(socket),
                Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return,
                Err(errno) => {
                    tracing::warn!(
                        "callers have to wait: {}; raise ulimit -n",
                        io::Error::from(errno)
                    );
                    self.watch.remove(listener);
                    self.deaf_until = Some(self.clock.now() + DEAF_SPAN);
                    return;
                }
            };
            if self.is_full() {
                let _ = line.send(Packet::Reject { reason: Reason::Full }, Vec::new());
                tracing::warn!(
                    "a caller was turned away: {} connections; raise connections_max",
                    self.config.connections_max
                );
                continue;
            }
            let process = match self.admit(&line, false) {
                Ok(process) => process,
                Err(error) => {
                    tracing::warn!("a caller was turned away: {error}");
                    let _ = line.send(Packet::Reject { reason: Reason::Denied }, Vec::new());
                    continue;
                }
            };
            let id = self.next_peer();
            let state = State::Called { until: self.clock.now() + self.config.handshake_timeout };
            self.peers.push(Peer { id, line: None, process: None, watched_for_room: false, state });
            let index = self.peers.len() - 1;
            if let Err(error) = self.take_line(index, line, process) {
                tracing::warn!("a caller was dropped: {error}");
                self.hang_up(index, Reason::Failed, true);
            }
        }
    }

    /// Does what is due: gives late handshakes up, calls busy peers again, listens again.
    pub(super) fn watch_the_clock(&mut self) {
        let now = self.clock.now();
        for index in (0..self.peers.len()).rev() {
            if self.peers[index].until().is_some_and(|until| until <= now) {
                tracing::debug!(peer = self.peers[index].id.0, "the handshake took too long");
                self.hang_up(index, Reason::Unreachable, true);
            } else if let State::Dialling { .. } = self.peers[index].state {
                self.call(index);
            }
        }
        if self.deaf_until.is_some_and(|until| until <= now) {
            self.deaf_until = None;
            if let Some(listener) = &self.listener {
                let _ = self.watch.add(listener, Ready::Caller, false);
            }
        }
    }

    /// Says something to a peer; a line that is broken will be heard of.
    pub(super) fn say(&mut self, index: usize, packet: Packet, descriptors: Vec<OwnedFd>) {
        if let Some(line) = &mut self.peers[index].line {
            if let Err(error) = line.send(packet, descriptors) {
                tracing::debug!("a packet was not sent: {error}");
            }
            self.watch_room(index);
        }
    }

    fn watch_room(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        if let Some(line) = &peer.line
            && line.is_clogged() != peer.watched_for_room
        {
            peer.watched_for_room = line.is_clogged();
            self.watch.change(line, Ready::Socket(peer.id), peer.watched_for_room);
        }
    }

    /// Hears what a peer has to say.
    pub(super) fn hear(&mut self, id: PeerId) {
        for _ in 0..PACKETS_PER_LOOK {
            let Some(index) = self.find(id) else { return self.hear_ghost(id) };
            let Some(line) = &mut self.peers[index].line else { return };
            let received = line.flush().and_then(|()| line.receive());
            self.watch_room(index);
            match received {
                Ok(Received::Nothing) => return,
                Ok(Received::End) => return self.hang_up(index, Reason::PeerGone, true),
                Ok(Received::Packet(bytes, descriptors)) => match Packet::decode(&bytes) {
                    Ok(packet) => self.understand(index, packet, descriptors),
                    Err(error) => return self.reject(index, error),
                },
                Err(error) => {
                    tracing::debug!(peer = id.0, "the line broke: {error}");
                    // The other end was closed while something was unread there.
                    let gone = error.kind() == io::ErrorKind::BrokenPipe;
                    return self.hang_up(index, Reason::PeerGone, gone);
                }
            }
        }
    }

    /// A connection we gave up: all that matters is when the other side has, too.
    fn hear_ghost(&mut self, id: PeerId) {
        self.ghosts.retain(|ghost| {
            if ghost.id != id {
                return true;
            }
            loop {
                match ghost.line.receive() {
                    Ok(Received::Packet(bytes, _)) => {
                        if Packet::decode(&bytes) == Ok(Packet::Bye) {
                            return false;
                        }
                    }
                    Ok(Received::End) => return false,
                    // An error, such as a packet whose descriptors found no room, proves nothing.
                    Ok(Received::Nothing) | Err(_) => return true,
                }
            }
        });
    }

    fn reject(&mut self, index: usize, error: WireError) {
        tracing::warn!(peer = self.peers[index].id.0, "hanging up: {error}");
        let reason = match error {
            WireError::Version(_) => Reason::Version,
            WireError::Alien(_) | WireError::Field { .. } => Reason::Failed,
        };
        self.say(index, Packet::Reject { reason }, Vec::new());
        self.hang_up(index, reason, false);
    }

    fn understand(&mut self, index: usize, packet: Packet, descriptors: Vec<OwnedFd>) {
        let state = &mut self.peers[index].state;
        match (state, packet) {
            (State::Called { .. }, Packet::Hello { engine, windows, ring_bytes }) => {
                let link = welcome(engine, windows, ring_bytes, descriptors);
                self.answer_hello(index, link);
            }
            (State::Greeting { connection, .. }, Packet::Welcome { engine, windows }) => {
                let link = welcomed(connection.clone(), engine, windows, descriptors);
                self.connected(index, link);
            }
            (State::Greeting { .. }, Packet::Reject { reason }) => {
                tracing::warn!(peer = self.peers[index].id.0, "the peer hung up: {reason}");
                self.hang_up(index, reason, true);
            }
            (State::Up(_), Packet::Map { token, window, key, whole }) => {
                match self.windows.hand_out(window, key, whole) {
                    Ok((region, len, memfd)) => {
                        if let State::Up(link) = &mut self.peers[index].state {
                            link.given.insert(region);
                        }
                        self.say(index, Packet::Mapping { token, region, len }, vec![memfd]);
                    }
                    Err(reason) => {
                        self.say(index, Packet::NoMapping { token, reason }, Vec::new());
                    }
                }
            }
            (State::Up(link), Packet::Mapping { token, region, len }) => {
                let answered = link.answered(token);
                match <[OwnedFd; 1]>::try_from(descriptors) {
                    Ok([memfd]) => self.mapped(index, answered, (region, len, memfd)),
                    Err(_) => self.refuse(answered, Reason::Failed),
                }
            }
            (State::Up(link), Packet::NoMapping { token, reason }) => {
                let answered = link.answered(token);
                self.refuse(answered, reason);
            }
            (State::Up(link), Packet::Forget { region }) => link.forget(region),
            (State::Up(_) | State::Ending { .. }, Packet::Bye) => {
                self.hang_up(index, Reason::PeerGone, true);
            }
            (State::Ending { .. }, _) => {}
            (_, packet) => {
                tracing::warn!(peer = self.peers[index].id.0, "hanging up: unexpected {packet:?}");
                self.hang_up(index, Reason::Failed, false);
            }
        }
    }

    fn answer_hello(&mut self, index: usize, link: io::Result<Link>) {
        let descriptors = (|| {
            Ok::<_, io::Error>(vec![
                self.control.memfd().try_clone_to_owned()?,
                self.doorbell.as_fd().try_clone_to_owned()?,
            ])
        })();
        match (link, descriptors) {
            (Ok(link), Ok(descriptors)) => {
                let (engine, windows) = (self.engine, WINDOWS as u32);
                self.say(index, Packet::Welcome { engine, windows }, descriptors);
                self.connected(index, Ok(link));
            }
            (Err(error), _) | (_, Err(error)) => {
                self.say(index, Packet::Reject { reason: Reason::Failed }, Vec::new());
                self.connected(index, Err(error));
            }
        }
    }

    fn connected(&mut self, index: usize, link: io::Result<Link>) {
        match link {
            Ok(link) => {
                let peer = self.peers[index].id;
                self.reports.push(Event::PeerUp { peer, engine: link.engine });
                self.peers[index].state = State::Up(Box::new(link));
            }
            Err(error) => {
                tracing::warn!(peer = self.peers[index].id.0, "the handshake failed: {error}");
                self.hang_up(index, Reason::Failed, true);
            }
        }
    }

    /// A region has come: does what waited for it.
    fn mapped(
        &mut self,
        index: usize,
        answered: Vec<Waiting>,
        (region, len, memfd): (RegionId, u64, OwnedFd),
    ) {
        let Some(first) = answered.first() else { return };
        let remote = *first.wish.remote();
        let State::Up(link) = &mut self.peers[index].state else { return };
        let (memory, listed) = match link.map(&remote, region, len, memfd) {
            Ok(mapped) => mapped,
            Err(reason) => return self.refuse(answered, reason),
        };
        if let Wish::Mapping(_) = first.wish {
            let (op, offset, len) = (first.op, listed.offset, listed.len);
            return self.reports.push(Event::Mapped { op, memory, offset, len });
        }
        link.keep(region, memory);
        for Waiting { op, wish, .. } in answered {
            let Wish::Transfer(transfer) = wish else { continue };
            let peer = &mut self.peers[index];
            let State::Up(link) = &mut peer.state else {
                let status = Status::Refused(Reason::Failed);
                self.reports.push(Event::Completed { op, status });
                continue;
            };
            let status = match link.begin(op, peer.id, &transfer) {
                Ok(Begun::Answer(Posted::Done)) => Status::Done,
                Ok(Begun::Answer(Posted::Refused(reason))) => Status::Refused(reason),
                Ok(Begun::Answer(_)) => continue,
                Ok(Begun::Job(job)) => {
                    self.jobs.add(job);
                    continue;
                }
                // The peer sent a region for a window that lies in another by now.
                Ok(Begun::Unmapped) => Status::Refused(Reason::Stale),
                Err(broken) => {
                    self.give_up(index, broken);
                    Status::Stopped(Reason::Failed)
                }
            };
            self.reports.push(Event::Completed { op, status });
        }
    }

    fn refuse(&mut self, answered: Vec<Waiting>, reason: Reason) {
        for Waiting { op, .. } in answered {
            self.reports.push(Event::Completed { op, status: Status::Refused(reason) });
        }
    }

    /// Ends a connection. `gone` says that the other side is known to copy no more.
    pub(super) fn hang_up(&mut self, index: usize, reason: Reason, gone: bool) {
        let peer = &mut self.peers[index];
        match &mut peer.state {
            State::Dialling { .. } | State::Greeting { .. } => {
                let peer = self.peers.remove(index);
                self.reports.push(Event::PeerDown { peer: peer.id, reason });
            }
            // Nobody was told that they called.
            State::Called { .. } => {
                self.peers.remove(index);
            }
            State::Ending { gone: known, .. } => {
                *known |= gone;
                if *known {
                    self.stop_hearing(index);
                }
            }
            State::Up(_) => {
                // Any state will do: it is replaced at once.
                let until = crate::time::Time::NEVER;
                let State::Up(mut link) = mem::replace(&mut peer.state, State::Called { until })
                else {
                    return;
                };
                for waiting in mem::take(&mut link.waiting) {
                    let status = Status::Refused(reason);
                    self.reports.push(Event::Completed { op: waiting.op, status });
                }
                for op in link.forgive_all() {
                    let status = Status::Stopped(reason);
                    self.reports.push(Event::Completed { op, status });
                }
                let id = peer.id;
                peer.state = State::Ending { link, reason, gone, drain: gone };
                if gone {
                    self.stop_hearing(index);
                }
                self.stop_jobs(Some(id), reason);
            }
        }
    }

    /// Looks at a socket no more that has nothing to say. It stays open: that it ends tells a peer
    /// that lives that we copy no more, and our chunks may still be out.
    fn stop_hearing(&self, index: usize) {
        if let Some(line) = &self.peers[index].line {
            self.watch.remove(line);
        }
    }
}

/// The link to a peer that said hello.
fn welcome(
    engine: EngineId,
    windows: u32,
    ring_bytes: u64,
    descriptors: Vec<OwnedFd>,
) -> io::Result<Link> {
    let [control, connection, doorbell] = expect(descriptors)?;
    doorbell::check(&doorbell)?;
    let connection = Connection::map(connection.as_fd(), ring_bytes)?;
    let control = Theirs::map(control.as_fd(), windows)?;
    Ok(Link::new(engine, connection, control, doorbell))
}

/// The link to a peer that answered our hello.
fn welcomed(
    connection: Connection,
    engine: EngineId,
    windows: u32,
    descriptors: Vec<OwnedFd>,
) -> io::Result<Link> {
    let [control, doorbell] = expect(descriptors)?;
    doorbell::check(&doorbell)?;
    let control = Theirs::map(control.as_fd(), windows)?;
    Ok(Link::new(engine, connection, control, doorbell))
}

fn expect<const N: usize>(descriptors: Vec<OwnedFd>) -> io::Result<[OwnedFd; N]> {
    <[OwnedFd; N]>::try_from(descriptors)
        .map_err(|got| io::Error::other(format!("{} descriptors where {N} are due", got.len())))
}
