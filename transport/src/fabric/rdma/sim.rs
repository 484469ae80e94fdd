//! Simulated rails: NICs of one process, joined by a network on which things go wrong when a test
//! wants it. The fabric above them is the one that real NICs have.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::config::Settings;
use super::device::{
    ChannelId, Completion, Device, Exposing, ExposureId, Keys, Part, Post, Room, Token, Traits,
};
use super::fabric::Rdma;
use crate::address::Kind;
use crate::copy;
use crate::fabric::{Fabric, OpenError, Provider, RegionId, Setup, tcp};
use crate::immediate::Immediate;
use crate::lane::Lane;
use crate::memory::Memory;
use crate::notify::Notifier;
use crate::rail::Fact;
use crate::window::Access;

/// What one lane of a channel holds.
const DEPTH: usize = 64;
/// What of it is done in one poll.
const TURN: usize = 8;
/// The longest message that goes over a rail.
const MESSAGE_BYTES_MAX: usize = 1 << 10;

/// A network of simulated NICs. Clones are the same network.
#[derive(Clone)]
pub struct Net(Arc<Mutex<World>>);

struct World {
    ports: Vec<Port>,
    exposures: HashMap<u64, Exposure>,
    random: Pcg64Mcg,
}

struct Port {
    ordered: bool,
    fault: Option<Fault>,
    carried: u64,
    channels: BTreeMap<ChannelId, Half>,
    /// What the device has not reported yet.
    inbox: Vec<Completion>,
    bell: Notifier,
}

/// What is wrong with a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing goes through. Some of what was posted is delivered all the same, and nobody is told.
    Cut,
    /// As if it was cut, and the port says that it is down.
    Down,
    /// Everything waits, for ever.
    Stuck,
}

/// One side of a channel.
#[derive(Default)]
struct Half {
    peer: Option<(usize, ChannelId)>,
    broken: bool,
    queues: [VecDeque<Item>; 2],
}

/// What was posted.
struct Item {
    token: Token,
    is_read: bool,
    local: *mut u8,
    remote: u64,
    key: u64,
    pieces: Vec<crate::pages::Piece>,
    immediate: Option<Immediate>,
    message: Option<Vec<u8>>,
}

// SAFETY: a description of memory that the fabric keeps alive until the item has ended.
unsafe impl Send for Item {}

/// A part of a region that one channel's peer may use.
struct Exposure {
    owner: (usize, ChannelId),
    memory: Arc<Memory>,
    part: Part,
}

impl Net {
    /// A network without ports; `seed` is where its randomness comes from.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let random = Pcg64Mcg::seed_from_u64(seed);
        Self(Arc::new(Mutex::new(World { ports: Vec::new(), exposures: HashMap::new(), random })))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets something go wrong with a port, or go well again.
    ///
    /// # Panics
    /// When there is no such port.
    pub fn set(&self, port: usize, fault: Option<Fault>) {
        let mut world = self.world();
        let it = &mut world.ports[port];
        let was_down = it.fault == Some(Fault::Down);
        it.fault = fault;
        match fault {
            Some(Fault::Down) => it.inbox.push(Completion::Port(Err("the port is down".into()))),
            _ if was_down => it.inbox.push(Completion::Port(Ok(()))),
            _ => {}
        }
        it.bell.ring();
    }

    /// Bytes that went out of a port: payload, and messages with their heads.
    ///
    /// # Panics
    /// When there is no such port.
    #[must_use]
    pub fn carried(&self, port: usize) -> u64 {
        self.world().ports[port].carried
    }

    /// Channels, exposures and posts that are there: what is left over once everybody has gone.
    #[must_use]
    pub fn census(&self) -> usize {
        let world = self.world();
        world.exposures.len() + world.ports.iter().map(|port| port.channels.len()).sum::<usize>()
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Net")
    }
}

/// An engine's rails on such a network.
#[derive(Debug, Clone)]
pub struct Config {
    net: Net,
    rails: Vec<bool>,
    dma_bufs: bool,
    settings: Settings,
    ports: Arc<Mutex<Vec<usize>>>,
}

impl Config {
    /// No rails yet.
    #[must_use]
    pub fn new(net: &Net) -> Self {
        let settings = Settings::new(Kind::Sim);
        let (rails, ports) = (Vec::new(), Arc::default());
        Self { net: net.clone(), rails, dma_bufs: false, settings, ports }
    }

    /// One more rail; `ordered` or not.
    #[must_use]
    pub fn rail(mut self, ordered: bool) -> Self {
        self.rails.push(ordered);
        self
    }

    /// Takes memory of devices.
    ///
    /// # Safety
    /// The NICs follow its addresses as they are, so it must be memory of this process that was only given out
    /// as a device's.
    #[must_use]
    pub unsafe fn dma_bufs(mut self) -> Self {
        self.dma_bufs = true;
        self
    }

    /// How much of a transfer a path is given at once, bytes.
    #[must_use]
    pub fn stripe_bytes(mut self, bytes: u64) -> Self {
        self.settings.stripe_bytes = bytes;
        self
    }

    /// The connections that the rails stand on: where peers dial, what they have to know, and how soon
    /// the dead are noticed. A port of the loopback interface that the system chooses, without a
    /// token, unless told otherwise.
    #[must_use]
    pub fn control(mut self, control: tcp::Config) -> Self {
        self.settings.control = control;
        self
    }

    /// The ports that its rails got, once it is open.
    #[must_use]
    pub fn ports(&self) -> Vec<usize> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn fabric(&self, setup: &Setup) -> Result<Rdma, String> {
        let mut devices: Vec<Box<dyn Device>> = Vec::new();
        for ordered in &self.rails {
            let mut world = self.net.world();
            let number = world.ports.len();
            let bell = Notifier::new().map_err(|error| error.to_string())?;
            world.ports.push(Port {
                ordered: *ordered,
                fault: None,
                carried: 0,
                channels: BTreeMap::new(),
                inbox: Vec::new(),
                bell: bell.clone(),
            });
            self.ports.lock().unwrap_or_else(PoisonError::into_inner).push(number);
            devices.push(Box::new(Nic {
                net: self.net.clone(),
                port: number,
                name: format!("sim{number}"),
                ordered: *ordered,
                dma_bufs: self.dma_bufs,
                bell,
                regions: HashMap::new(),
                exposures: HashMap::new(),
            }));
        }
        Rdma::open(self.settings.clone(), devices, setup)
    }
}

impl Provider for Config {
    fn kind(&self) -> Kind {
        Kind::Sim
    }

    fn open(self: Box<Self>, setup: &Setup) -> Result<Box<dyn Fabric>, OpenError> {
        self.fabric(setup)
            .map(|fabric| Box::new(fabric) as Box<dyn Fabric>)
            .map_err(|what| OpenError { kind: Kind::Sim, what })
    }
}

/// One simulated rail.
#[derive(Debug)]
struct Nic {
    net: Net,
    port: usize,
    name: String,
    ordered: bool,
    dma_bufs: bool,
    bell: Notifier,
    regions: HashMap<RegionId, Arc<Memory>>,
    exposures: HashMap<ExposureId, u64>,
}

impl World {
    /// Moves on what a port has posted.
    fn step(&mut self, port: usize) {
        let channels: Vec<ChannelId> = self.ports[port].channels.keys().copied().collect();
        for channel in channels {
            for lane in Lane::ALL {
                for _ in 0..TURN {
                    if !self.do_one(port, channel, lane) {
                        break;
                    }
                }
            }
        }
    }

    fn do_one(&mut self, port: usize, channel: ChannelId, lane: Lane) -> bool {
        let ordered = self.ports[port].ordered;
        let Some(half) = self.ports[port].channels.get_mut(&channel) else { return false };
        let waiting = half.queues[lane.index()].len();
        if half.broken || waiting == 0 {
            return false;
        }
        let far = half.peer.map(|(port, _)| port);
        let fault = self.ports[port].fault.or(far.and_then(|far| self.ports[far].fault));
        match fault {
            Some(Fault::Stuck) => return false,
            Some(Fault::Cut | Fault::Down) => {
                self.lose(port, channel, lane);
                return false;
            }
            None => {}
        }
        let at = if ordered { 0 } else { self.random.next_u64() as usize % waiting };
        let half = self.ports[port].channels.get_mut(&channel).expect("it was there");
        let Some(item) = half.queues[lane.index()].remove(at) else { return false };
        match self.execute(port, channel, lane, &item) {
            Ok(()) => self.ports[port].inbox.push(Completion::Done(item.token)),
            Err(why) => self.break_half(port, channel, why),
        }
        true
    }

    /// Some of what was posted is delivered, and the channel breaks.
    fn lose(&mut self, port: usize, channel: ChannelId, lane: Lane) {
        let delivered = self.random.next_u64() as usize % (DEPTH / 8);
        for _ in 0..delivered {
            let half = self.ports[port].channels.get_mut(&channel).expect("it was there");
            let Some(item) = half.queues[lane.index()].pop_front() else { break };
            if self.execute(port, channel, lane, &item).is_err() {
                break;
            }
        }
        self.break_half(port, channel, "the network does not answer".to_owned());
    }

    fn break_half(&mut self, port: usize, channel: ChannelId, why: String) {
        let it = &mut self.ports[port];
        if let Some(half) = it.channels.get_mut(&channel)
            && !std::mem::replace(&mut half.broken, true)
        {
            half.queues.iter_mut().for_each(VecDeque::clear);
            it.inbox.push(Completion::Broken(channel, why));
        }
    }

    fn execute(
        &mut self,
        port: usize,
        channel: ChannelId,
        lane: Lane,
        item: &Item,
    ) -> Result<(), String> {
        let half = &self.ports[port].channels[&channel];
        let (far, theirs) = half.peer.ok_or("not connected")?;
        if !self.ports[far].channels.contains_key(&theirs) {
            return Err("the peer has taken its side down".to_owned());
        }
        for piece in &item.pieces {
            let exposure = self.exposures.get(&item.key).ok_or("remote access error")?;
            let wanted = if item.is_read { Access::READ } else { Access::WRITE };
            let at = item.remote.wrapping_add(piece.remote);
            let end = at.checked_add(piece.len);
            if exposure.owner != (far, theirs)
                || !exposure.part.access.allows(wanted)
                || end.is_none_or(|end| end > exposure.part.len)
            {
                return Err("remote access error".to_owned());
            }
            let len = piece.len as usize;
            self.ports[port].carried += piece.len;
            // SAFETY: in bounds of the exposure, which is in bounds of its memory, and of the local
            // memory, which the fabric has checked and keeps. What is a device's is this process's all the
            // same: see `Config::dma_bufs`.
            unsafe {
                let there = exposure.memory.address().add((exposure.part.offset + at) as usize);
                let here = item.local.add(piece.local as usize);
                match item.is_read {
                    true => copy::copy(there, here, len),
                    false => copy::copy(here, there, len),
                }
            }
        }
        if let Some(bytes) = &item.message {
            self.ports[port].carried += bytes.len() as u64;
            self.ports[far].inbox.push(Completion::Message(theirs, bytes.clone()));
            self.ports[far].bell.ring();
        }
        if let Some(immediate) = item.immediate {
            let from = Some((theirs, lane)).filter(|_| self.ports[far].ordered);
            self.ports[far].inbox.push(Completion::Arrived { from, immediate });
            self.ports[far].bell.ring();
        }
        Ok(())
    }
}

impl Nic {
    fn post(&self, post: &Post<'_>, is_read: bool, immediate: Option<Immediate>) {
        let mut world = self.net.world();
        let it = &mut world.ports[self.port];
        let Some(half) = it.channels.get_mut(&post.channel).filter(|half| !half.broken) else {
            return;
        };
        let queue = &mut half.queues[post.lane.index()];
        assert!(queue.len() < DEPTH, "posted without room");
        queue.push_back(Item {
            token: post.token,
            is_read,
            local: post.local,
            remote: post.remote,
            key: post.key,
            pieces: post.pieces.to_vec(),
            immediate,
            message: None,
        });
    }
}

impl Device for Nic {
    fn name(&self) -> &str {
        &self.name
    }

    fn traits(&self) -> Traits {
        Traits {
            ordered: self.ordered,
            exact: self.ordered,
            piece_bytes_max: 1 << 20,
            message_bytes_max: MESSAGE_BYTES_MAX,
            pins: false,
            dma_bufs: self.dma_bufs,
        }
    }

    fn facts(&self) -> Vec<Fact> {
        vec![("order", if self.ordered { "kept" } else { "none" }.to_owned())]
    }

    fn channel_facts(&self, channel: ChannelId) -> Vec<Fact> {
        let world = self.net.world();
        let half = world.ports[self.port].channels.get(&channel);
        let peer = half.and_then(|half| half.peer);
        peer.map(|(port, _)| ("to", format!("sim{port}"))).into_iter().collect()
    }

    fn port(&self) -> Vec<u8> {
        (self.port as u64).to_le_bytes().to_vec()
    }

    fn register(&mut self, region: RegionId, memory: &Arc<Memory>) -> Result<(), String> {
        self.regions.insert(region, Arc::clone(memory));
        Ok(())
    }

    fn deregister(&mut self, region: RegionId) {
        self.regions.remove(&region);
    }

    fn open(&mut self, channel: ChannelId, _port: &[u8]) -> Result<Vec<u8>, String> {
        let mut world = self.net.world();
        if world.ports[self.port].fault.is_some() {
            return Err("the port is down".to_owned());
        }
        world.ports[self.port].channels.insert(channel, Half::default());
        Ok([self.port as u64, u64::from(channel.0)].map(u64::to_le_bytes).concat())
    }

    fn connect(&mut self, channel: ChannelId, theirs: &[u8]) -> Result<(), String> {
        let word = |at: usize| theirs.get(at..at + 8).and_then(|it| it.try_into().ok());
        let (Some(port), Some(number)) = (word(0), word(8)) else {
            return Err("no channel of this network".to_owned());
        };
        let peer = (u64::from_le_bytes(port) as usize, u64::from_le_bytes(number) as u32);
        let mut world = self.net.world();
        if world.ports.get(peer.0).is_none_or(|port| port.fault.is_some()) {
            return Err("the network does not lead there".to_owned());
        }
        let half = world.ports[self.port].channels.get_mut(&channel).ok_or("no such channel")?;
        half.peer = Some((peer.0, ChannelId(peer.1)));
        Ok(())
    }

    fn destroy(&mut self, channel: ChannelId, out: &mut Vec<Completion>) {
        let mut world = self.net.world();
        let it = &mut world.ports[self.port];
        it.channels.remove(&channel);
        out.append(&mut it.inbox);
    }

    fn expose(
        &mut self,
        exposure: ExposureId,
        channel: ChannelId,
        part: &Part,
    ) -> Result<Exposing, String> {
        let memory = self.regions.get(&part.region).ok_or("no such region")?;
        let mut world = self.net.world();
        let key = world.random.next_u64();
        let owner = (self.port, channel);
        let new = Exposure { owner, memory: Arc::clone(memory), part: *part };
        world.exposures.insert(key, new);
        self.exposures.insert(exposure, key);
        let keys = Keys { keys: [key; 2], base: 0 };
        if self.ordered {
            return Ok(Exposing::Now(keys));
        }
        world.ports[self.port].inbox.push(Completion::Exposed(exposure, Ok(keys)));
        Ok(Exposing::Later)
    }

    fn conceal(&mut self, exposure: ExposureId) {
        if let Some(key) = self.exposures.remove(&exposure) {
            self.net.world().exposures.remove(&key);
        }
    }

    fn room(&self, channel: ChannelId, lane: Lane) -> Room {
        let world = self.net.world();
        let half = world.ports[self.port].channels.get(&channel).filter(|half| !half.broken);
        let items = half.map_or(0, |half| DEPTH - half.queues[lane.index()].len());
        Room { pieces: if items > 0 { DEPTH } else { 0 }, immediates: items }
    }

    fn write(&mut self, post: &Post<'_>, immediate: Option<Immediate>) {
        self.post(post, false, immediate);
    }

    fn read(&mut self, post: &Post<'_>) {
        self.post(post, true, None);
    }

    fn send(&mut self, channel: ChannelId, token: Token, bytes: &[u8]) {
        let mut world = self.net.world();
        let it = &mut world.ports[self.port];
        let Some(half) = it.channels.get_mut(&channel).filter(|half| !half.broken) else { return };
        half.queues[Lane::Latency.index()].push_back(Item {
            token,
            is_read: false,
            local: std::ptr::null_mut(),
            remote: 0,
            key: 0,
            pieces: Vec::new(),
            immediate: None,
            message: Some(bytes.to_vec()),
        });
        // Nobody waits for it, and a NIC moves on without being looked at.
        it.bell.ring();
    }

    fn poll(&mut self, out: &mut Vec<Completion>) -> bool {
        let mut world = self.net.world();
        world.step(self.port);
        let inbox = &mut world.ports[self.port].inbox;
        let any = !inbox.is_empty();
        out.append(inbox);
        any
    }

    fn arm(&mut self) -> bool {
        let _ = self.bell.take();
        let world = self.net.world();
        let it = &world.ports[self.port];
        let stuck = it.fault == Some(Fault::Stuck);
        let idle = |half: &Half| half.queues.iter().all(VecDeque::is_empty) || half.broken;
        it.inbox.is_empty() && (stuck || it.channels.values().all(idle))
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.bell.as_fd())
    }
}
