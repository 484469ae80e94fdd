//! Making paths: the dialler hails, and both sides make their half of each channel.

use super::device::{ChannelId, Post};
use super::fabric::Rdma;
use super::hub::Hub;
use super::link::Link;
use super::op::{Batch, Load};
use super::path::{Path, Probe, State};
use super::words::{Half, PATHS_MAX, Word};
use crate::fabric::{Event, PeerId};
use crate::lane::Lane;
use crate::time::Time;

impl Rdma {
    /// A peer is connected: the side that dialled makes the paths.
    pub(super) fn connected(&mut self, peer: PeerId) {
        let Some(engine) = self.hub.control.engine(peer) else { return };
        let dialled = self.dialled.remove(&peer);
        let until = self.hub.now + self.hub.settings.join_timeout;
        let mut link = Link::new(peer, engine, dialled, until);
        self.hub.next_tick = self.hub.next_tick.min(until);
        if dialled {
            link.hail(&mut self.hub, Vec::new());
        }
        self.links.insert(peer, link);
    }

    /// Gives up joins that take too long, and tries paths again that are down; when to look again.
    pub(super) fn tick_paths(&mut self) -> Time {
        let now = self.hub.now;
        let mut next = Time::NEVER;
        let mut late = Vec::new();
        for link in self.links.values_mut() {
            let mut wanted = Vec::new();
            for (number, path) in link.paths.iter().enumerate() {
                let rail_is_up = self.hub.rails[usize::from(path.rail)].down.is_none();
                match path.state {
                    State::Joining { until, .. } | State::Proving { until, .. } if until <= now => {
                        late.push((link.id, number as u8));
                    }
                    State::Joining { until, .. } | State::Proving { until, .. } => {
                        next = next.min(until);
                    }
                    State::Down { retry } if link.dialled && rail_is_up => {
                        if retry <= now {
                            wanted.push(number as u8);
                        } else {
                            next = next.min(retry);
                        }
                    }
                    State::Down { .. } | State::Up(_) | State::Shutting => {}
                }
            }
            if !wanted.is_empty() && link.pending.is_none() {
                link.hail(&mut self.hub, wanted);
                next = next.min(now + self.hub.settings.join_timeout);
            }
            match link.pending {
                Some(until) if until <= now => {
                    tracing::warn!(engine = ?link.engine, "the peer made no paths in time");
                    link.settled(&mut self.hub);
                }
                Some(until) => next = next.min(until),
                None => {}
            }
        }
        for (peer, number) in late {
            self.break_path(peer, number, "joining took too long", true);
        }
        next
    }
}

impl Link {
    /// Asks the peer for paths; for all, if none is named.
    fn hail(&mut self, hub: &mut Hub, wanted: Vec<u8>) {
        self.join = self.join.wrapping_add(1);
        let until = hub.now + hub.settings.join_timeout;
        for path in &wanted {
            self.paths[usize::from(*path)].state = State::Joining { channel: None, until };
        }
        let ports = hub.rails.iter().map(|rail| rail.device.port()).collect();
        hub.tell(
            self.id,
            &Word::Hail { version: hub.settings.version, join: self.join, ports, wanted },
        );
    }

    /// The paths there can be, once the number of the peer's rails is known.
    fn lay_out(&mut self, hub: &Hub, theirs: usize) {
        if !self.paths.is_empty() {
            return;
        }
        let ours = hub.rails.len();
        let count = ours.max(theirs).min(PATHS_MAX);
        self.paths = (0..count).map(|path| Path::new((path % ours) as u8)).collect();
    }

    /// The dialler wants paths.
    pub(super) fn hailed(
        &mut self,
        hub: &mut Hub,
        (version, join): (u16, u32),
        theirs: &[Vec<u8>],
        wanted: &[u8],
    ) {
        let ports = hub.rails.iter().map(|rail| rail.device.port()).collect();
        let mut halves = Vec::new();
        if version != hub.settings.version {
            tracing::warn!(
                engine = ?self.engine,
                "no rails: the peer speaks version {version} of the words between fabrics, this \
                 engine {}; upgrade the older",
                hub.settings.version
            );
            self.settled(hub);
        } else if !self.dialled && !theirs.is_empty() {
            self.lay_out(hub, theirs.len());
            self.join = join;
            let all = wanted.is_empty();
            for number in 0..self.paths.len() as u8 {
                if all || wanted.contains(&number) {
                    let port = &theirs[usize::from(number) % theirs.len()];
                    halves.push(self.half(hub, number, port));
                }
            }
        }
        hub.tell(self.id, &Word::Paths { version: hub.settings.version, join, ports, halves });
    }

    /// The acceptor's half of one path.
    fn half(&mut self, hub: &mut Hub, number: u8, port: &[u8]) -> Half {
        let path = &mut self.paths[usize::from(number)];
        let generation = path.generation.wrapping_add(1);
        let blob = match path.state {
            State::Up(_) | State::Proving { .. } | State::Shutting => {
                Err("the path is in use here".to_owned())
            }
            State::Joining { channel, .. } => {
                if let Some(channel) = channel {
                    hub.discard(path.rail, channel);
                }
                Ok(())
            }
            State::Down { .. } => Ok(()),
        };
        let blob = blob.and_then(|()| {
            let channel = hub.new_channel(self.id, number);
            match hub.rails[usize::from(path.rail)].device.open(channel, port) {
                Ok(blob) => {
                    let until = hub.now + hub.settings.join_timeout;
                    path.begin(generation, channel, until);
                    hub.next_tick = hub.next_tick.min(until);
                    Ok(blob)
                }
                Err(why) => {
                    hub.channels.remove(&channel);
                    why.clone_into(&mut path.why);
                    path.failed(hub.now);
                    Err(why)
                }
            }
        });
        Half { path: number, generation, blob }
    }

    /// The acceptor answers a hail.
    pub(super) fn offered(
        &mut self,
        hub: &mut Hub,
        (version, join): (u16, u32),
        theirs: &[Vec<u8>],
        halves: Vec<Half>,
    ) {
        if !self.dialled || join != self.join {
            return;
        }
        if version != hub.settings.version {
            tracing::warn!(
                engine = ?self.engine,
                "no rails: the peer speaks version {version} of the words between fabrics, this \
                 engine {}; upgrade the older",
                hub.settings.version
            );
            return self.settled(hub);
        }
        if theirs.is_empty() {
            tracing::warn!(engine = ?self.engine, "no rails: the peer has none");
            return self.settled(hub);
        }
        self.lay_out(hub, theirs.len());
        let mut answers = Vec::new();
        for Half { path: number, generation, blob } in halves {
            let Some(path) = self.paths.get_mut(usize::from(number)) else { continue };
            if !matches!(path.state, State::Down { .. } | State::Joining { channel: None, .. }) {
                continue;
            }
            let port = &theirs[usize::from(number) % theirs.len()];
            let until = hub.now + hub.settings.join_timeout;
            let answer = blob.and_then(|blob| {
                let channel = hub.new_channel(self.id, number);
                let device = &mut hub.rails[usize::from(path.rail)].device;
                let ours = device.open(channel, port).inspect_err(|_| {
                    hub.channels.remove(&channel);
                })?;
                if let Err(why) = hub.rails[usize::from(path.rail)].device.connect(channel, &blob) {
                    hub.discard(path.rail, channel);
                    return Err(why);
                }
                path.begin(generation, channel, until);
                hub.next_tick = hub.next_tick.min(until);
                Ok(ours)
            });
            if let Err(why) = &answer {
                self.path_failed(hub, number, why);
            }
            answers.push(Half { path: number, generation, blob: answer });
        }
        hub.tell(self.id, &Word::Join { join, halves: answers });
    }

    /// The dialler's halves.
    pub(super) fn joined(&mut self, hub: &mut Hub, join: u32, halves: Vec<Half>) {
        if self.dialled || join != self.join {
            return;
        }
        let mut ready = Vec::new();
        for Half { path: number, generation, blob } in halves {
            let Some(path) = self.paths.get_mut(usize::from(number)) else { continue };
            let State::Joining { channel: Some(channel), .. } = path.state else { continue };
            if path.generation != generation {
                continue;
            }
            let device = &mut hub.rails[usize::from(path.rail)].device;
            match blob.and_then(|blob| device.connect(channel, &blob)) {
                Ok(()) => {
                    // The dialler tries it, and says when something got through, or that it gave up. It
                    // uses the path before we hear of it: nobody else may end that for being late.
                    path.state = State::Proving { channel, left: 0, until: Time::NEVER };
                    ready.push((number, generation));
                }
                Err(why) => {
                    hub.discard(path.rail, channel);
                    self.path_failed(hub, number, &why);
                }
            }
        }
        hub.tell(self.id, &Word::Ready { join, paths: ready });
        self.look_whether_settled(hub);
    }

    /// The acceptor has connected some of the paths; or something got through on some, as the dialler
    /// says.
    pub(super) fn ready(&mut self, hub: &mut Hub, join: u32, ready: &[(u8, u32)]) {
        if !self.dialled {
            for (number, generation) in ready {
                let Some(path) = self.paths.get(usize::from(*number)) else { continue };
                if let State::Proving { channel, .. } = path.state
                    && path.generation == *generation
                {
                    self.path_up(hub, *number, channel);
                }
            }
            return self.look_whether_settled(hub);
        }
        if join != self.join {
            return;
        }
        for number in 0..self.paths.len() as u8 {
            let path = &mut self.paths[usize::from(number)];
            let State::Joining { channel: Some(channel), .. } = path.state else { continue };
            if ready.contains(&(number, path.generation)) {
                self.prove(hub, number, channel);
            } else {
                hub.discard(path.rail, channel);
                self.path_failed(hub, number, "the peer could not connect its half");
            }
        }
        self.look_whether_settled(hub);
    }

    /// Tries whether something gets through: connecting alone says nothing about the network.
    fn prove(&mut self, hub: &mut Hub, number: u8, channel: ChannelId) {
        let path = &mut self.paths[usize::from(number)];
        let until = hub.now + hub.settings.join_timeout;
        path.state = State::Proving { channel, left: Lane::ALL.len() as u8, until };
        hub.next_tick = hub.next_tick.min(until);
        for lane in Lane::ALL {
            let token = hub.launch(self.id, Load::Probe, number, lane, Batch::default());
            let post = Post { channel, lane, token, ..Post::NOTHING };
            hub.rails[usize::from(path.rail)].device.write(&post, None);
        }
    }

    /// Something got through in one lane of a path.
    pub(super) fn proved(&mut self, hub: &mut Hub, number: u8) {
        let Some(path) = self.paths.get_mut(usize::from(number)) else { return };
        let generation = path.generation;
        let State::Proving { channel, left, .. } = &mut path.state else { return };
        *left = left.saturating_sub(1);
        if *left == 0 {
            let channel = *channel;
            let paths = vec![(number, generation)];
            hub.tell(self.id, &Word::Ready { join: self.join, paths });
            self.path_up(hub, number, channel);
            self.look_whether_settled(hub);
        }
    }

    fn path_up(&mut self, hub: &mut Hub, number: u8, channel: ChannelId) {
        let path = &mut self.paths[usize::from(number)];
        path.state = State::Up(channel);
        self.probes_due |= path.probe == Probe::Due;
        hub.reports.push(Event::Path { peer: self.id });
        let rail = hub.rails[usize::from(path.rail)].device.name();
        self.stranded = false;
        if std::mem::take(&mut self.fallen) {
            tracing::info!(engine = ?self.engine, rail, "payload is back on a rail");
        }
        tracing::debug!(engine = ?self.engine, rail, path = number, "path up");
        self.ask_all(hub);
        self.queue_all();
        hub.eager(self);
    }

    fn path_failed(&mut self, hub: &mut Hub, number: u8, why: &str) {
        let path = &mut self.paths[usize::from(number)];
        why.clone_into(&mut path.why);
        path.failed(hub.now);
        hub.reports.push(Event::Path { peer: self.id });
        if let State::Down { retry } = path.state {
            hub.next_tick = hub.next_tick.min(retry);
        }
        let rail = hub.rails[usize::from(path.rail)].device.name();
        tracing::warn!(engine = ?self.engine, rail, path = number, "no path: {why}");
    }

    /// Puts all that has something to post into the queues: there are new paths.
    pub(super) fn queue_all(&mut self) {
        let due: Vec<_> = self.ops.iter().filter(|(_, op)| op.is_due()).map(|(at, _)| at).collect();
        for at in due {
            if !self.is_waiting(at) && !self.spill.contains(&at) {
                self.queue(at);
            }
        }
    }

    /// Once it is known of all paths what became of them, or one is up, payload waits no longer.
    pub(super) fn look_whether_settled(&mut self, hub: &mut Hub) {
        let begins = self.paths.iter().any(Path::is_beginning);
        if self.pending.is_some() && (self.is_up() || !begins) {
            self.settled(hub);
        }
    }

    /// It is known which paths there are.
    pub(super) fn settled(&mut self, hub: &mut Hub) {
        self.pending = None;
        if !self.has_ways() {
            self.fall_all(hub);
        }
    }
}
