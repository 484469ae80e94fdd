//! What a schedule acts on, with what the oracles know of each thing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tranship_transport::fabric::sim::{Config, Network};
use tranship_transport::{
    Access, Address, Counter, Descriptor, Drive, Engine, HostMemory, Kind, Memory, Peer, Polling,
    Region, RemoteWindow, Slot, Time, Transfers, Window,
};

use crate::dice::Dice;
use crate::flight::Flight;
use crate::meeting::Member;
use crate::program::Program;
use crate::shadow::Shadow;
use crate::word::Word;

/// How long each region is.
pub(crate) const REGION_BYTES: u64 = 4096;
/// What of a constant region is written from and read; the rest is for words.
pub(crate) const SHELF_BYTES: u64 = 3072;
/// A region that is written to is divided into so many lanes, one window each at a time.
pub(crate) const LANES: usize = 4;
pub(crate) const LANE_BYTES: u64 = REGION_BYTES / LANES as u64;
/// Regions of each engine that are written to; one more is only read.
const YARDS: usize = 2;
/// The fabrics that a host may have, the best first.
const KINDS: [Kind; 2] = [Kind::Sim, Kind::Tcp];
/// What an engine waits for when its last handle goes.
const ENGINE_DEADLINE: Duration = Duration::from_millis(2);

/// Where engines come and go.
pub(crate) struct Host {
    /// One a fabric.
    pub(crate) addresses: Vec<Address>,
    /// The life that is, or was last, there.
    pub(crate) life: usize,
}

/// An engine from its start to its end.
pub(crate) struct Life {
    pub(crate) host: usize,
    /// None once it was closed or killed.
    pub(crate) engine: Option<Engine>,
    /// Where it is or was, one a fabric, best first.
    pub(crate) addresses: Vec<Address>,
    /// Its constant region, to write from and to be read.
    pub(crate) shelf: usize,
    pub(crate) yards: Vec<usize>,
    pub(crate) counters: Vec<usize>,
    pub(crate) word: Option<Word>,
    /// Peers' windows that it has opened.
    pub(crate) remotes: Vec<Remote>,
}

/// A peer's window as a life uses it.
pub(crate) struct Remote {
    pub(crate) offer: usize,
    pub(crate) window: RemoteWindow,
    /// Where it led at first.
    pub(crate) first: Address,
}

/// A region of some life, kept under watch until the end of the schedule.
pub(crate) struct Yard {
    pub(crate) life: usize,
    pub(crate) region: Option<Region>,
    pub(crate) shadow: Shadow,
    pub(crate) memory: Weak<Memory>,
    /// The offer that has each lane, with its fence open.
    pub(crate) lanes: [Option<usize>; LANES],
}

impl fmt::Display for Yard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a region of engine {}", self.life)
    }
}

/// A window, from its grant to the end of the schedule: stale descriptors stay in use.
pub(crate) struct Offer {
    pub(crate) yard: usize,
    pub(crate) range: Range<u64>,
    pub(crate) access: Access,
    pub(crate) descriptor: Descriptor,
    pub(crate) window: Option<Window>,
    /// Whether anything may pass: not revoked, not closed, not dead.
    pub(crate) open: bool,
}

/// A counter of some life.
pub(crate) struct Count {
    pub(crate) life: usize,
    pub(crate) slot: Slot,
    pub(crate) counter: Option<Counter>,
    /// Transfers to it that ended as done.
    pub(crate) done: u64,
    pub(crate) last: u64,
}

/// What carries one slot to one host, whoever is there: only an address says where a message goes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Carried {
    pub(crate) sent: u64,
    pub(crate) rejected: u64,
    /// The first transfer that carries it.
    pub(crate) first: u64,
}

/// Everything.
pub(crate) struct World {
    pub(crate) network: Network,
    pub(crate) dice: Dice,
    pub(crate) hosts: Vec<Host>,
    pub(crate) lives: Vec<Life>,
    pub(crate) yards: Vec<Yard>,
    pub(crate) offers: Vec<Offer>,
    pub(crate) counts: Vec<Count>,
    pub(crate) carried: BTreeMap<(usize, Slot), Carried>,
    pub(crate) flights: Vec<Flight>,
    /// Transfers that started together and have not all ended, and whose they are.
    pub(crate) batches: Vec<(usize, Rc<Transfers>)>,
    /// The members of the last barrier.
    pub(crate) meeting: Vec<Member>,
    /// Regions that could not be closed in time, to be tried again.
    pub(crate) closing: Vec<(usize, Region)>,
    pub(crate) next_id: u64,
    /// What was received: the last number of each connection, and all numbers.
    pub(crate) heard: BTreeMap<(usize, String), u64>,
    pub(crate) numbers: BTreeSet<u64>,
    /// Messages that must not have arrived.
    pub(crate) unsent: BTreeSet<u64>,
    pub(crate) tally: Tally,
}

/// What a schedule came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tally {
    /// How transfers ended: done, rejected, fenced, lost.
    pub(crate) ends: [u64; 4],
    /// Rounds of barriers that a member passed, changes of words that were told, and windows that
    /// were reached another way.
    pub(crate) reached: [u64; 3],
}

impl World {
    pub(crate) fn new(seed: u64, program: &Program) -> Self {
        let micros = Duration::from_micros;
        let config = Config {
            packet_bytes: 256,
            bytes_per_second: 1_000_000_000,
            break_after: micros(5000),
            death_noticed: micros(50)..micros(1500),
            flush: micros(2)..micros(60),
            queue_depth: 12,
            windows_max: 16,
            ..Config::new(seed)
        };
        let network = Network::new(config);
        let name = |kind: &Kind| network.provider_as(*kind).address().clone();
        let addresses = || KINDS[..program.ways].iter().map(name).collect();
        let hosts = (0..program.hosts).map(|_| Host { addresses: addresses(), life: 0 }).collect();
        let mut world = Self {
            dice: Dice::new(!seed),
            hosts,
            network,
            lives: Vec::new(),
            yards: Vec::new(),
            offers: Vec::new(),
            counts: Vec::new(),
            carried: BTreeMap::new(),
            flights: Vec::new(),
            batches: Vec::new(),
            meeting: Vec::new(),
            closing: Vec::new(),
            next_id: 0,
            heard: BTreeMap::new(),
            numbers: BTreeSet::new(),
            unsent: BTreeSet::new(),
            tally: Tally::default(),
        };
        for (host, fabrics) in program.fabrics.iter().enumerate() {
            world.start(host, *fabrics);
        }
        world
    }

    /// Starts an engine at a host: with all its fabrics, or with one of them.
    pub(crate) fn start(&mut self, host: usize, fabrics: u64) {
        let all = &self.hosts[host].addresses;
        let addresses = match fabrics % 4 {
            2 => all[..1].to_vec(),
            3 => all[all.len() - 1..].to_vec(),
            _ => all.clone(),
        };
        let mut builder = Engine::builder().clock(self.network.clock()).counters(32);
        for address in &addresses {
            builder = builder.fabric(self.network.provider_at(address));
        }
        let builder = builder.drive(Drive::Caller).polling(Polling::Busy);
        let engine = builder.deadline(ENGINE_DEADLINE).build().expect("the place is free");
        let life = self.lives.len();
        self.hosts[host].life = life;
        self.lives.push(Life {
            host,
            engine: Some(engine),
            addresses,
            shelf: 0,
            yards: Vec::new(),
            counters: Vec::new(),
            word: None,
            remotes: Vec::new(),
        });
        self.lives[life].shelf = self.region(life);
        for _ in 0..YARDS {
            let yard = self.region(life);
            self.lives[life].yards.push(yard);
        }
        for _ in 0..2 {
            let counter = self.count(life);
            self.lives[life].counters.push(counter);
        }
        // The whole shelf is open to readers; the window is as good as any other.
        self.offer(self.lives[life].shelf, 0, 0..SHELF_BYTES, Access::READ);
        self.watch(life);
    }

    /// A region with random bytes.
    pub(crate) fn region(&mut self, life: usize) -> usize {
        let engine = self.lives[life].engine.as_ref().expect("only the living get regions");
        let region = engine.alloc(HostMemory::new(REGION_BYTES as usize)).expect("it is small");
        let shadow = Shadow::new(region.memory(), self.dice.bytes(REGION_BYTES as usize));
        let memory = Arc::downgrade(region.memory());
        self.yards.push(Yard { life, region: Some(region), shadow, memory, lanes: [None; LANES] });
        self.yards.len() - 1
    }

    /// A window, if there is room for one.
    pub(crate) fn offer(&mut self, yard: usize, lane: usize, range: Range<u64>, access: Access) {
        let Some(region) = &self.yards[yard].region else { return };
        let Ok(window) = region.window_with(range.clone(), access) else { return };
        self.yards[yard].lanes[lane] = Some(self.offers.len());
        let descriptor = window.descriptor();
        let offer = Offer { yard, range, access, descriptor, window: Some(window), open: true };
        self.offers.push(offer);
    }

    /// A counter, of whatever generation comes.
    pub(crate) fn count(&mut self, life: usize) -> usize {
        let engine = self.lives[life].engine.as_ref().expect("only the living get counters");
        let counter = engine.counter().expect("there are enough");
        assert_eq!(counter.count(), 0, "a new generation begins with nothing");
        let slot = counter.slot();
        let counter = Some(counter);
        let count = Count { life, slot, counter, done: 0, last: 0 };
        self.counts.push(count);
        self.counts.len() - 1
    }

    /// What carried a counter's slot to where it is.
    pub(crate) fn carried(&mut self, count: usize) -> &mut Carried {
        let Count { life, slot, .. } = self.counts[count];
        self.carried.entry((self.lives[life].host, slot)).or_default()
    }

    pub(crate) fn now(&self) -> Time {
        self.network.clock().now()
    }

    pub(crate) fn host(&self, pick: u64) -> usize {
        pick as usize % self.hosts.len()
    }

    /// The life that is, or was last, at a host.
    pub(crate) fn host_life(&self, pick: u64) -> usize {
        self.hosts[self.host(pick)].life
    }

    /// The life at a host, if it lives.
    pub(crate) fn living(&self, pick: u64) -> Option<(usize, Engine)> {
        let life = self.host_life(pick);
        self.lives[life].engine.clone().map(|engine| (life, engine))
    }

    /// Where a host is, over all fabrics.
    pub(crate) fn addresses(&self, pick: u64) -> Vec<Address> {
        self.hosts[self.host(pick)].addresses.clone()
    }

    pub(crate) fn all_living(&self) -> Vec<(usize, Engine)> {
        let living = |(life, it): (usize, &Life)| it.engine.clone().map(|engine| (life, engine));
        self.lives.iter().enumerate().filter_map(living).collect()
    }

    /// The ways from an engine to where a life is or was.
    pub(crate) fn peers(&self, from: &Engine, to: usize) -> Vec<Peer> {
        let speaks = |to: &&Address| from.addresses().iter().any(|own| own.kind == to.kind);
        let peer = |to: &Address| from.peer(to).expect("both speak it");
        self.lives[to].addresses.iter().filter(speaks).map(peer).collect()
    }

    /// One of these ways, if there is any.
    pub(crate) fn peer(&self, from: &Engine, to: usize, way: u64) -> Option<Peer> {
        let peers = self.peers(from, to);
        peers.get(way as usize % peers.len().max(1)).copied()
    }

    /// An offer is fenced: what was on its way into it is not any more. Other windows of the region
    /// go on.
    pub(crate) fn fenced(&mut self, offer: usize) {
        let yard = self.offers[offer].yard;
        self.offers[offer].open = false;
        for flight in &mut self.flights {
            if flight.permit.is_some() && flight.offer == Some(offer) {
                flight.permit = None;
                self.yards[yard].shadow.fence(flight.id, &mut self.dice);
            }
        }
        for lane in &mut self.yards[yard].lanes {
            if *lane == Some(offer) {
                *lane = None;
            }
        }
    }

    /// No byte of a region can change any more.
    pub(crate) fn fence_yard(&mut self, yard: usize) {
        self.yards[yard].shadow.fence_all();
        self.yards[yard].lanes = [None; LANES];
        for flight in self.flights.iter_mut().filter(|flight| flight.permit == Some(yard)) {
            flight.permit = None;
        }
        for offer in self.offers.iter_mut().filter(|offer| offer.yard == yard) {
            offer.open = false;
            offer.window = None;
        }
    }

    /// Lets go of everything an engine had. What it had sent goes on.
    pub(crate) fn bury(&mut self, life: usize) -> Option<Engine> {
        self.look_at_word(life);
        self.tally.reached[2] += self.detours(life);
        self.flights.retain(|flight| flight.life != life);
        self.batches.retain(|(whose, _)| *whose != life);
        self.closing.retain(|(yard, _)| self.yards[*yard].life != life);
        for count in self.counts.iter_mut().filter(|count| count.life == life) {
            count.counter = None;
        }
        for member in self.meeting.iter_mut().filter(|member| member.life == life) {
            member.barrier = None;
        }
        for yard in 0..self.yards.len() {
            if self.yards[yard].life == life {
                self.fence_yard(yard);
                self.yards[yard].region = None;
            }
        }
        let buried = &mut self.lives[life];
        buried.remotes.clear();
        buried.word = None;
        buried.engine.take()
    }
}
