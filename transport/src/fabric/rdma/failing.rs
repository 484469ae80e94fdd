//! Paths that fail, and peers that go.

use super::device::{ChannelId, Completion};
use super::fabric::Rdma;
use super::hub::Hub;
use super::link::Link;
use super::mail::By;
use super::op::{Flight, Kind, Load, News};
use super::path::State;
use super::words::Word;
use crate::fabric::tcp::Ended;
use crate::fabric::{Event, PeerId, Status};
use crate::outcome::Reason;

impl Rdma {
    /// Takes this side of a path down, and tells the peer if `tell`: what was under way there waits
    /// for its word.
    pub(super) fn break_path(&mut self, peer: PeerId, number: u8, why: &str, tell: bool) {
        let Some(link) = self.links.get(peer) else { return };
        let Some(path) = link.paths.get(usize::from(number)) else { return };
        let Some(channel) = path.channel() else {
            if path.is_beginning() {
                let link = self.links.get_mut(peer).expect("just seen");
                let path = &mut link.paths[usize::from(number)];
                why.clone_into(&mut path.why);
                path.failed(self.hub.now);
                self.hub.reports.push(Event::Path { peer });
                link.look_whether_settled(&mut self.hub);
            }
            return;
        };
        let rail = path.rail;
        let name = self.hub.rails[usize::from(rail)].device.name();
        tracing::warn!(engine = ?link.engine, rail = name, path = number, "path down: {why}");
        self.take_down(rail, channel);
        let Some(link) = self.links.get_mut(peer) else { return };
        link.conceal_path(&mut self.hub, number);
        let path = &mut link.paths[usize::from(number)];
        path.state = State::Shutting;
        self.hub.reports.push(Event::Path { peer });
        why.clone_into(&mut path.why);
        if tell {
            let (generation, arrived) = (path.generation, path.arrived);
            self.hub.tell(peer, &Word::Shut { path: number, generation, arrived });
        }
    }

    /// The peer has taken its side of a path down.
    pub(super) fn shut(&mut self, peer: PeerId, number: u8, generation: u32, arrived: [u64; 2]) {
        let known = |link: &Link| {
            let path = link.paths.get(usize::from(number));
            path.is_some_and(|path| path.generation == generation)
        };
        if !self.links.get(peer).is_some_and(known) {
            let word = Word::Closed { path: number, generation, arrived: [0; 2] };
            return self.hub.tell(peer, &word);
        }
        self.break_path(peer, number, "the peer took it down", false);
        let Some(link) = self.links.get_mut(peer) else { return };
        let ours = link.paths[usize::from(number)].arrived;
        self.hub.tell(peer, &Word::Closed { path: number, generation, arrived: ours });
        link.resolve(&mut self.hub, number, arrived);
    }

    /// The peer has taken its side of a path down, which we had told it of.
    pub(super) fn closed(&mut self, peer: PeerId, number: u8, generation: u32, arrived: [u64; 2]) {
        let Some(link) = self.links.get_mut(peer) else { return };
        let path = link.paths.get(usize::from(number));
        if path.is_some_and(|it| it.generation == generation) {
            link.resolve(&mut self.hub, number, arrived);
        }
    }

    /// A connection has ended, and with it all that stood on it.
    pub(super) fn ended(&mut self, ended: &Ended) {
        let peer = ended.peer;
        let Some(link) = self.links.get(peer) else { return };
        let channels: Vec<_> =
            link.paths.iter().filter_map(|path| Some((path.rail, path.channel()?))).collect();
        for (rail, channel) in channels {
            self.take_down(rail, channel);
        }
        self.has_halted_all(peer);
        let Some(mut link) = self.links.remove(peer) else { return };
        link.conceal_all(&mut self.hub);
        let theirs = self.hub.flights.iter().filter(|(_, flight)| flight.peer == peer);
        let theirs: Vec<_> = theirs.map(|(at, _)| at).collect();
        for at in theirs {
            self.hub.flights.free(at);
        }
        let mut unproven = Vec::new();
        for (_, op) in link.ops.iter() {
            let reason = op.cancel.unwrap_or(Reason::PeerGone);
            let status = if op.is_untouched() {
                Status::Refused(reason)
            } else if op.flying == 0 || op.kind == Kind::Read || ended.gone {
                Status::Stopped(reason)
            } else {
                unproven.push(op.id);
                continue;
            };
            self.hub.reports.push(Event::Completed { op: op.id, status });
        }
        self.hub.control.doubt(ended, unproven);
    }

    /// Takes this side of a channel down, and in what it reported at last.
    pub(super) fn take_down(&mut self, rail: u8, channel: ChannelId) {
        let it = &mut self.hub.rails[usize::from(rail)];
        let mut last = std::mem::take(&mut it.left);
        it.device.destroy(channel, &mut last);
        self.absorb(rail, &mut last);
        self.hub.channels.remove(&channel);
    }

    /// Takes in what a rail's device reported.
    pub(super) fn absorb(&mut self, rail: u8, completions: &mut Vec<Completion>) {
        for completion in completions.drain(..) {
            match completion {
                Completion::Done(token) => {
                    if let Some(flight) = self.hub.flight(token)
                        && let Some(link) = self.links.get_mut(flight.peer)
                    {
                        link.done(&mut self.hub, &flight);
                        if link.has_queued() {
                            self.hub.eager(link);
                        }
                    }
                }
                Completion::Arrived { from, immediate } => {
                    if let Some((channel, lane)) = from
                        && let Some(&(peer, path)) = self.hub.channels.get(&channel)
                        && let Some(link) = self.links.get_mut(peer)
                    {
                        link.paths[usize::from(path)].arrived[lane.index()] += 1;
                    }
                    self.hub.reports.push(Event::Arrived { immediate });
                }
                Completion::Message(channel, bytes) => {
                    if let Some(&(peer, _)) = self.hub.channels.get(&channel) {
                        self.message(peer, By::Rail, bytes);
                    }
                }
                Completion::Exposed(id, keys) => self.take_exposure(id, keys),
                Completion::Broken(channel, why) => self.broken.push_back((channel, why)),
                Completion::Port(state) => self.port(rail, &state),
            }
        }
    }

    /// A rail came up or went down.
    fn port(&mut self, rail: u8, state: &Result<(), String>) {
        let it = &mut self.hub.rails[usize::from(rail)];
        it.down = state.as_ref().err().cloned();
        match state {
            Ok(()) => {
                tracing::info!(rail = it.device.name(), "rail up");
                for path in self.links.values_mut().flat_map(|link| &mut link.paths) {
                    if let State::Down { retry } = &mut path.state
                        && path.rail == rail
                    {
                        *retry = self.hub.now;
                    }
                }
                self.hub.next_tick = self.hub.now;
            }
            Err(why) => {
                let channels = self.hub.channels.iter().filter(|(_, (peer, path))| {
                    let link = self.links.get(*peer);
                    link.is_some_and(|it| it.paths[usize::from(*path)].rail == rail)
                });
                let broken: Vec<_> = channels.map(|(channel, _)| *channel).collect();
                self.broken.extend(broken.into_iter().map(|it| (it, why.clone())));
            }
        }
    }
}

impl Link {
    /// Both sides of a path are down, and so many immediates of ours came through it: nothing that
    /// was posted there can land any more, and what is missing is done again elsewhere.
    fn resolve(&mut self, hub: &mut Hub, number: u8, arrived: [u64; 2]) {
        let path = &mut self.paths[usize::from(number)];
        if path.state != State::Shutting {
            return;
        }
        let exact = hub.rails[usize::from(path.rail)].traits.exact;
        path.under_way = [0; 2];
        path.failed(hub.now);
        if let State::Down { retry } = path.state {
            hub.next_tick = hub.next_tick.min(retry);
        }
        let mine = |it: &Flight| (it.peer, it.path) == (self.id, number);
        let flights = hub.flights.iter().filter(|(_, it)| mine(it));
        let flights: Vec<_> = flights.map(|(at, flight)| (at, *flight)).collect();
        for (at, flight) in flights {
            hub.flights.free(at);
            let (at, announces) = match flight.load {
                Load::Op(at, announces) => (at, announces),
                Load::Message(number) => {
                    self.message_again(number);
                    continue;
                }
                Load::Probe => continue,
            };
            if announces.is_some_and(|count| exact && count < arrived[flight.lane.index()]) {
                self.landed(hub, at, flight.batch, announces);
                continue;
            }
            let Some(op) = self.op(at) else { continue };
            op.flying -= 1;
            op.spread = true;
            op.retake(flight.batch);
            if announces.is_some() && exact {
                op.news = News::Due;
            } else if announces.is_some() {
                // It may have been delivered, and must not be twice.
                op.cancel.get_or_insert(Reason::Failed);
            }
            self.settle(hub, at);
        }
        self.look_whether_settled(hub);
        if self.has_ways() || self.has_mail() {
            hub.eager(self);
        }
        if !self.has_ways() {
            self.fall_all(hub);
        }
    }
}
