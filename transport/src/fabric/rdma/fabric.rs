//! The fabric itself.

use std::collections::{HashSet, VecDeque};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

use super::config::Settings;
use super::device::{ChannelId, Device};
use super::exposing::Halting;
use super::hub::{Hub, Rail};
use super::link::Link;
use super::mail::{By, Mail, Sent};
use super::words::Word;
use crate::address::{Address, Kind};
use crate::fabric::epoll::{Epoll, Label};
use crate::fabric::recent::Recent;
use crate::fabric::tcp::Control;
use crate::fabric::{
    Event, Fabric, Grant, Limits, OpId, PeerId, Posted, RegionId, RegisterError, RemoteKey, Setup,
    Status, Work,
};
use crate::lane::Lane;
use crate::memory::Memory;
use crate::outcome::Reason;
use crate::rail;
use crate::slots::Slots;
use crate::time::{Clock, Time};
use crate::window::WindowId;

/// The connections are looked at this often while the devices are polled: a look is a system call.
const CONTROL_EVERY: Duration = Duration::from_micros(20);
/// Devices that cannot wake anybody are polled this often, at first and after a long silence.
const NAP: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(1));

/// A fabric of rails. See the module.
#[derive(Debug)]
pub(in crate::fabric) struct Rdma {
    pub(super) hub: Hub,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) links: Recent<PeerId, Link>,
    /// Connections that this side dialled and that are not up.
    pub(super) dialled: HashSet<PeerId>,
    /// Messages from peers, also of such that are gone.
    pub(super) mail: Mail,
    /// Whether the last poll wanted messages, and whether the streams were asked for some.
    wants_messages: bool,
    asked_streams: bool,
    /// Peers that are to be hung up on.
    pub(super) unwelcome: Vec<PeerId>,
    /// Windows that are being taken back.
    pub(super) halting: HashMap<WindowId, Halting>,
    /// Channels that are to be taken down, and why.
    pub(super) broken: VecDeque<(ChannelId, String)>,
    watch: Epoll<Ready>,
    /// Whether somebody may have slept: the watch has to be looked at.
    armed: bool,
    /// When the connections are looked at next.
    control_at: Time,
    /// How long devices that have to be polled are left alone.
    nap: Duration,
    closed: bool,
}

/// What is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ready {
    Alarm,
    Control,
    Device(u8),
}

impl Label for Ready {
    const ALARM: Self = Self::Alarm;

    fn pack(self) -> u64 {
        match self {
            Self::Alarm => 0,
            Self::Control => 1,
            Self::Device(rail) => 2 | u64::from(rail) << 8,
        }
    }

    fn unpack(word: u64) -> Self {
        match word & 0xff {
            0 => Self::Alarm,
            1 => Self::Control,
            _ => Self::Device((word >> 8) as u8),
        }
    }
}

impl Rdma {
    /// Opens a fabric of these rails, of which there is at least one.
    pub(in crate::fabric) fn open(
        settings: Settings,
        devices: Vec<Box<dyn Device>>,
        setup: &Setup,
    ) -> Result<Self, String> {
        assert!(!devices.is_empty(), "a fabric without rails");
        let number = settings.number();
        // A process that dies closes its descriptors in the order of their numbers. That a connection
        // has ended proves that the hardware was let go before.
        let floor = devices.iter().filter_map(|it| it.descriptor()).max().map_or(0, |it| it + 1);
        let mut control = Control::open(settings.control.clone(), (number, floor), setup)?;
        let failed = |error| format!("epoll: {error}; raise the limit of open files (ulimit -n)");
        let watch = Epoll::new().map_err(failed)?;
        if let Some(fd) = control.streams().wait_fd() {
            watch.add(fd, Ready::Control, false).map_err(failed)?;
        }
        let mut rails = Vec::with_capacity(devices.len());
        for (rail, device) in devices.into_iter().enumerate() {
            if let Some(fd) = device.wait_fd() {
                watch.add(fd, Ready::Device(rail as u8), false).map_err(failed)?;
            }
            rails.push(Rail { traits: device.traits(), device, down: None, left: Vec::new() });
        }
        let now = setup.clock.now();
        Ok(Self {
            hub: Hub {
                settings,
                control,
                rails_carry_messages: rails.iter().any(|it: &Rail| it.traits.message_bytes_max > 0),
                rails,
                reports: Vec::new(),
                flights: Slots::default(),
                channels: HashMap::new(),
                channels_ever: 0,
                exposures: HashMap::new(),
                exposures_ever: 0,
                moved: HashSet::new(),
                pieces: Vec::new(),
                eager: Vec::new(),
                now,
                next_tick: Time::NEVER,
            },
            clock: Arc::clone(&setup.clock),
            links: Recent::default(),
            dialled: HashSet::new(),
            mail: Mail::default(),
            wants_messages: true,
            asked_streams: true,
            unwelcome: Vec::new(),
            halting: HashMap::new(),
            broken: VecDeque::new(),
            watch,
            armed: false,
            control_at: Time::ZERO,
            nap: NAP.0,
            closed: false,
        })
    }

    /// One turn; whether there was anything to do.
    fn turn(&mut self, messages_max: usize) -> bool {
        self.hub.now = self.clock.now();
        if std::mem::take(&mut self.armed) {
            let mut sights = Vec::new();
            self.watch.look(&mut sights);
            if sights.iter().any(|it| it.ready == Ready::Alarm) {
                self.watch.alarmed();
            }
            self.control_at = Time::ZERO;
        }
        let mut worked = self.poll_devices();
        self.wants_messages = messages_max > 0;
        if self.hub.now >= self.control_at {
            let busy = self.poll_control(self.share(messages_max));
            worked |= busy;
            let wait = if busy { Duration::ZERO } else { CONTROL_EVERY };
            self.control_at = self.hub.now + wait;
        }
        while let Some((channel, why)) = self.broken.pop_front() {
            if let Some(&(peer, path)) = self.hub.channels.get(&channel) {
                self.break_path(peer, path, &why, true);
                worked = true;
            }
        }
        for peer in std::mem::take(&mut self.unwelcome) {
            self.disconnect(peer);
        }
        for peer in std::mem::take(&mut self.hub.eager) {
            let Some(link) = self.links.get_mut(peer) else { continue };
            link.eager = false;
            link.drain_spill(&mut self.hub);
            link.send_again(&mut self.hub);
            link.send_probes(&mut self.hub);
            link.pump(&mut self.hub);
            if link.has_queued() {
                // Whatever makes room: look again in the next turn.
                self.hub.eager(link);
            }
        }
        if self.hub.now >= self.hub.next_tick {
            self.hub.next_tick = Time::NEVER;
            let next = self.tick_paths().min(self.tick_halts());
            self.hub.next_tick = self.hub.next_tick.min(next);
        }
        worked | self.deliver(messages_max)
    }

    /// How many messages the streams may hand over: at least half of what is wanted, however many
    /// came over rails.
    fn share(&self, messages_max: usize) -> usize {
        messages_max - self.mail.ready.min(messages_max / 2)
    }

    fn poll_devices(&mut self) -> bool {
        let mut worked = false;
        for rail in 0..self.hub.rails.len() {
            let it = &mut self.hub.rails[rail];
            let mut reports = std::mem::take(&mut it.left);
            worked |= it.device.poll(&mut reports);
            if reports.is_empty() {
                it.left = reports;
                continue;
            }
            worked = true;
            self.nap = NAP.0;
            self.absorb(rail as u8, &mut reports);
            if self.hub.rails[rail].left.is_empty() {
                // Its room is used again.
                self.hub.rails[rail].left = reports;
            }
        }
        worked
    }

    fn poll_control(&mut self, messages_max: usize) -> bool {
        self.asked_streams = messages_max > 0;
        let mut events = Vec::new();
        let mut worked = self.hub.control.streams().poll(messages_max, &mut events);
        self.hub.now = self.hub.control.now();
        // What a peer said before it hung up was said while it was there.
        for event in &events {
            if let Event::PeerUp { peer, .. } = event {
                self.connected(*peer);
            }
        }
        for (peer, bytes) in self.hub.control.heard() {
            worked = true;
            match Word::decode(&bytes) {
                Some(word) => self.hear(peer, word),
                None => {
                    tracing::warn!(peer = peer.0, "hanging up on a peer: a word that is none");
                    self.hub.control.streams().disconnect(peer);
                }
            }
        }
        for ended in self.hub.control.ended() {
            worked = true;
            self.dialled.remove(&ended.peer);
            self.ended(&ended);
        }
        for event in events {
            match event {
                // Ours follows when the rails are fenced, too.
                Event::Revoked { .. } => {}
                Event::PeerDown { peer, .. } => {
                    self.dialled.remove(&peer);
                    self.down(peer, event);
                }
                Event::Message { peer, bytes } => self.message(peer, By::Streams, bytes),
                Event::Completed { op, status } => {
                    let status = match (status, self.hub.moved.remove(&op)) {
                        (Status::Refused(why), true) => Status::Stopped(why),
                        (status, _) => status,
                    };
                    self.hub.reports.push(Event::Completed { op, status });
                }
                event => self.hub.reports.push(event),
            }
        }
        worked
    }

    /// One turn after the end: what came before it is still handed over.
    fn poll_closed(&mut self, messages_max: usize) -> bool {
        let worked = self.poll_control(self.share(messages_max));
        worked | self.deliver(messages_max)
    }

    fn hear(&mut self, peer: PeerId, word: Word) {
        let hub = &mut self.hub;
        let Some(link) = self.links.get_mut(peer) else { return };
        match word {
            Word::Hail { version, join, ports, wanted } => {
                link.hailed(hub, (version, join), &ports, &wanted);
            }
            Word::Paths { version, join, ports, halves } => {
                link.offered(hub, (version, join), &ports, halves);
            }
            Word::Join { join, halves } => link.joined(hub, join, halves),
            Word::Ready { join, paths } => link.ready(hub, join, &paths),
            Word::Open { ask, window, key } => link.asked_for(hub, ask, window, key),
            Word::Opened { ask, len, access, paths } => {
                link.admitted(hub, ask, (len, access), paths);
            }
            Word::Denied { ask, reason } => link.denied(hub, ask, reason),
            Word::Taken { count } => link.messages_taken(count),
            Word::Halt { window } => link.halt(hub, window),
            Word::Halted { window } => self.has_halted(peer, window),
            Word::Shut { path, generation, arrived } => {
                self.shut(peer, path, generation, arrived);
            }
            Word::Closed { path, generation, arrived } => {
                self.closed(peer, path, generation, arrived);
            }
        }
    }

    fn error(&self, what: String) -> RegisterError {
        RegisterError { kind: self.hub.settings.kind, what }
    }
}

impl Fabric for Rdma {
    fn kind(&self) -> Kind {
        self.hub.settings.kind
    }

    fn address(&self) -> Address {
        Address::new(self.kind(), self.hub.control.endpoint())
    }

    fn limits(&self) -> Limits {
        Limits { message_bytes_max: self.hub.message_bytes_max(), ..self.hub.control.limits() }
    }

    fn maps(&self) -> bool {
        false
    }

    fn pins(&self) -> bool {
        self.hub.rails.iter().any(|rail| rail.traits.pins)
    }

    fn takes_devices(&self) -> bool {
        self.hub.rails.iter().all(|rail| rail.traits.dma_bufs)
    }

    fn register(&mut self, region: RegionId, memory: &Arc<Memory>) -> Result<(), RegisterError> {
        if !memory.is_host() && !self.takes_devices() {
            return Err(RegisterError::on_device(self.kind()));
        }
        self.hub.control.register(region, memory);
        for at in 0..self.hub.rails.len() {
            if let Err(why) = self.hub.rails[at].device.register(region, memory) {
                let name = self.hub.rails[at].device.name().to_owned();
                for rail in &mut self.hub.rails[..at] {
                    rail.device.deregister(region);
                }
                self.hub.control.streams().deregister(region);
                return Err(self.error(format!("{name}: {why}")));
            }
        }
        Ok(())
    }

    fn deregister(&mut self, region: RegionId) {
        for rail in &mut self.hub.rails {
            rail.device.deregister(region);
        }
        self.hub.control.streams().deregister(region);
    }

    fn grant(&mut self, grant: &Grant) -> Result<RemoteKey, RegisterError> {
        let granted = self.hub.control.streams().grant(grant);
        granted.map_err(|error| self.error(error.what))
    }

    fn revoke(&mut self, window: WindowId) {
        self.hub.now = self.clock.now();
        self.take_back(window);
    }

    fn connect(&mut self, to: &Address) -> PeerId {
        let endpoint = Address::new(Kind::Tcp, to.endpoint.clone());
        let peer = self.hub.control.streams().connect(&endpoint);
        self.dialled.insert(peer);
        self.control_at = Time::ZERO;
        peer
    }

    fn disconnect(&mut self, peer: PeerId) {
        // Hanging up tells the peer that nothing lands here any more.
        self.hub.now = self.clock.now();
        let mut paths = 0;
        if let Some(link) = self.links.get_mut(peer) {
            link.send_rest(&mut self.hub);
            paths = link.paths.len();
        }
        for path in 0..paths as u8 {
            self.break_path(peer, path, "hanging up", true);
        }
        self.hub.control.streams().disconnect(peer);
        self.control_at = Time::ZERO;
    }

    fn post(&mut self, op: OpId, peer: PeerId, lane: Lane, work: Work<'_>) -> Posted {
        match work {
            Work::Map { .. } => Posted::Refused(Reason::Unsupported),
            Work::Send { bytes, immediate } => {
                let Some(link) = self.links.get_mut(peer) else {
                    return Posted::Refused(Reason::PeerGone);
                };
                match link.send(&mut self.hub, op, lane, bytes, immediate) {
                    Sent::Rail => Posted::Done,
                    Sent::Streams(posted) => {
                        self.control_at = Time::ZERO;
                        posted
                    }
                }
            }
            Work::Write { .. } | Work::Read { .. } | Work::Signal { .. } => {
                let Some(link) = self.links.get_mut(peer) else {
                    return Posted::Refused(Reason::PeerGone);
                };
                // A look at the clock is a good part of a small post, and nobody wants to know how long those
                // take.
                if link.is_timed(&work) {
                    self.hub.now = self.clock.now();
                }
                let posted = link.post(&mut self.hub, op, lane, &work);
                if link.has_queued() {
                    self.hub.eager(link);
                }
                posted
            }
        }
    }

    fn cancel(&mut self, op: OpId, reason: Reason) {
        for link in self.links.values_mut() {
            if link.cancel(&mut self.hub, op, reason) {
                return;
            }
        }
        self.hub.control.streams().cancel(op, reason);
    }

    fn poll(&mut self, messages_max: usize, events: &mut Vec<Event>) -> bool {
        let worked =
            if self.closed { self.poll_closed(messages_max) } else { self.turn(messages_max) };
        let news = !self.hub.reports.is_empty();
        if events.is_empty() {
            std::mem::swap(events, &mut self.hub.reports);
        } else {
            events.append(&mut self.hub.reports);
        }
        worked | news
    }

    fn arm(&mut self) -> bool {
        let busy = !self.hub.reports.is_empty() || !self.broken.is_empty();
        if busy || !self.hub.control.streams().arm() {
            return false;
        }
        let now = self.clock.now();
        let mut alarm = self.hub.next_tick;
        if self.links.values().any(|link| !link.spill.is_empty()) {
            return false;
        }
        if self.wants_messages && (self.mail.ready > 0 || !self.asked_streams) {
            // Theirs ring only for who asked for some.
            self.control_at = Time::ZERO;
            return false;
        }
        for rail in &mut self.hub.rails {
            if !rail.left.is_empty() || !rail.device.arm() {
                return false;
            }
            if rail.device.wait_fd().is_none() && !self.links.is_empty() {
                alarm = alarm.min(now + self.nap);
                self.nap = (self.nap * 2).min(NAP.1);
            }
        }
        if alarm <= now {
            return false;
        }
        self.watch.set_alarm((alarm != Time::NEVER).then(|| alarm.since(now)));
        self.armed = true;
        true
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.watch.as_fd())
    }

    fn rails(&self) -> Vec<rail::Rail> {
        self.rails_told()
    }

    fn paths(&self, peer: PeerId) -> Vec<rail::Path> {
        self.paths_told(peer)
    }

    fn probe(&mut self, peer: PeerId) {
        self.probe_paths(peer);
    }

    fn close(&mut self) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        for link in self.links.values_mut() {
            link.send_rest(&mut self.hub);
        }
        // Before peers are told that nothing lands here any more.
        let all: Vec<_> = self.hub.channels.iter().map(|(channel, at)| (*channel, *at)).collect();
        for (channel, (peer, path)) in all {
            let Some(link) = self.links.get(peer) else { continue };
            let rail = link.paths[usize::from(path)].rail;
            self.take_down(rail, channel);
        }
        for link in self.links.values_mut() {
            link.conceal_all(&mut self.hub);
        }
        for (window, _) in self.halting.drain() {
            self.hub.reports.push(Event::Revoked { window });
        }
        // What still flew: the peer has not said that it has stopped, but what the engine needs to
        // know is that nothing touches its own memory.
        self.links.clear();
        self.hub.control.streams().close();
    }
}
