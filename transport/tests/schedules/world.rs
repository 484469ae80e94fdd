//! What a schedule acts on, with what the oracles know of each thing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tranship_transport::fabric::sim::{Config, Network};
use tranship_transport::{
    Access, Address, Counter, Descriptor, Drive, Engine, HostMemory, Memory, Outcome, Peer,
    Polling, Region, Slot, Time, Transfer, Window,
};

use crate::dice::Dice;
use crate::shadow::Shadow;

/// How long each region is.
pub(crate) const REGION_BYTES: u64 = 4096;
/// A region that is written to is divided into so many lanes, one window each at a time.
pub(crate) const LANES: usize = 4;
pub(crate) const LANE_BYTES: u64 = REGION_BYTES / LANES as u64;
/// Regions of each engine that are written to; one more is only read.
const YARDS: usize = 2;
/// What an engine waits for when its last handle goes.
const ENGINE_DEADLINE: Duration = Duration::from_millis(2);

/// An engine from its start to its end.
pub(crate) struct Life {
    /// None once it was closed or killed.
    pub(crate) engine: Option<Engine>,
    pub(crate) address: Address,
    /// Its constant region, to write from and to be read.
    pub(crate) shelf: usize,
    pub(crate) yards: Vec<usize>,
    pub(crate) counters: Vec<usize>,
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

/// What carries one slot to one address, whoever is there: only an address says where a message goes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Carried {
    pub(crate) sent: u64,
    pub(crate) rejected: u64,
    /// The first transfer that carries it.
    pub(crate) first: u64,
}

/// A transfer under way or ended.
pub(crate) struct Flight {
    pub(crate) id: u64,
    pub(crate) life: usize,
    pub(crate) transfer: Transfer,
    pub(crate) deadline: Time,
    pub(crate) outcome: Option<Outcome>,
    /// The region it may change, while it may.
    pub(crate) permit: Option<usize>,
    /// The window through which it changes it, when that is a peer's.
    pub(crate) offer: Option<usize>,
    pub(crate) count: Option<usize>,
    /// Nothing of it can have passed: its window was closed or its bounds were wrong.
    pub(crate) futile: bool,
    pub(crate) message: Option<u64>,
}

/// Everything.
pub(crate) struct World {
    pub(crate) network: Network,
    pub(crate) dice: Dice,
    /// The life that is, or was last, at each host.
    pub(crate) hosts: Vec<usize>,
    pub(crate) lives: Vec<Life>,
    pub(crate) yards: Vec<Yard>,
    pub(crate) offers: Vec<Offer>,
    pub(crate) counts: Vec<Count>,
    pub(crate) carried: BTreeMap<(Address, Slot), Carried>,
    pub(crate) flights: Vec<Flight>,
    /// Regions that could not be closed in time, to be tried again.
    pub(crate) closing: Vec<(usize, Region)>,
    pub(crate) next_id: u64,
    /// What was received: the last number of each connection, and all numbers.
    pub(crate) heard: BTreeMap<(usize, String), u64>,
    pub(crate) numbers: BTreeSet<u64>,
    /// Messages that must not have arrived.
    pub(crate) unsent: BTreeSet<u64>,
    /// How transfers ended: done, rejected, fenced, lost.
    pub(crate) ends: [u64; 4],
}

impl World {
    pub(crate) fn new(seed: u64, hosts: usize) -> Self {
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
        let mut world = Self {
            network: Network::new(config),
            dice: Dice::new(!seed),
            hosts: Vec::new(),
            lives: Vec::new(),
            yards: Vec::new(),
            offers: Vec::new(),
            counts: Vec::new(),
            carried: BTreeMap::new(),
            flights: Vec::new(),
            closing: Vec::new(),
            next_id: 0,
            heard: BTreeMap::new(),
            numbers: BTreeSet::new(),
            unsent: BTreeSet::new(),
            ends: [0; 4],
        };
        for _ in 0..hosts {
            let life = world.start(None);
            world.hosts.push(life);
        }
        world
    }

    /// Starts an engine, where another was or at a place of its own.
    pub(crate) fn start(&mut self, at: Option<&Address>) -> usize {
        let port = match at {
            Some(address) => self.network.provider_at(address),
            None => self.network.provider(),
        };
        let builder = Engine::builder().fabric(port).clock(self.network.clock()).counters(8);
        let builder = builder.drive(Drive::Caller).polling(Polling::Busy);
        let engine = builder.deadline(ENGINE_DEADLINE).build().expect("the place is free");
        let life = self.lives.len();
        let address = engine.addresses()[0].clone();
        let (yards, counters) = (Vec::new(), Vec::new());
        self.lives.push(Life { engine: Some(engine), address, shelf: 0, yards, counters });
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
        self.offer(self.lives[life].shelf, 0, 0..REGION_BYTES, Access::READ);
        life
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
        self.carried.entry((self.lives[life].address.clone(), slot)).or_default()
    }

    /// The life at a host, if it lives.
    pub(crate) fn living(&self, pick: u64) -> Option<(usize, &Engine)> {
        let life = self.hosts[pick as usize % self.hosts.len()];
        self.lives[life].engine.as_ref().map(|engine| (life, engine))
    }

    pub(crate) fn address(&self, pick: u64) -> Address {
        self.lives[self.hosts[pick as usize % self.hosts.len()]].address.clone()
    }

    pub(crate) fn all_living(&self) -> Vec<(usize, Engine)> {
        let living = |(life, it): (usize, &Life)| it.engine.clone().map(|engine| (life, engine));
        self.lives.iter().enumerate().filter_map(living).collect()
    }

    pub(crate) fn peer(&self, from: &Engine, to: &Address) -> Peer {
        from.peer(to).expect("all speak the same fabric")
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
        self.flights.retain(|flight| flight.life != life);
        self.closing.retain(|(yard, _)| self.yards[*yard].life != life);
        for count in self.counts.iter_mut().filter(|count| count.life == life) {
            count.counter = None;
        }
        for yard in 0..self.yards.len() {
            if self.yards[yard].life == life {
                self.fence_yard(yard);
                self.yards[yard].region = None;
            }
        }
        self.lives[life].engine.take()
    }
}
