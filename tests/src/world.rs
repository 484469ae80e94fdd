//! A daemon and its clients on a simulated network: one thread, virtual time, replayed exactly by
//! its seed.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tranship_cache::client::{Builder, Cache, Client};
use tranship_cache::identity::Geometry;
use tranship_cache::mover::Bell;
use tranship_cache::policy::Name;
use tranship_cache::server::{Options, Server, TenantConfig};
use tranship_cache::store::{Store, Watermarks};
use tranship_cache::{Chain, Identity, Link};
use tranship_transport::fabric::sim::{Config, Faults, Network};
use tranship_transport::{Address, Drive, Engine, HostMemory, Steppable, Time};

use crate::below::{Scripted, stack};

/// How clients get at the daemon's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// They map it, as on one host.
    Mapped,
    /// By transfers through memory of their own, as across hosts.
    Staged,
}

/// Two tests of each function that takes a [`Reach`]: one for each.
#[macro_export]
macro_rules! both_ways {
    ($($name:ident,)*) => {
        mod mapped {
            $(#[test] fn $name() { super::$name($crate::world::Reach::Mapped) })*
        }
        mod staged {
            $(#[test] fn $name() { super::$name($crate::world::Reach::Staged) })*
        }
    };
}

/// A daemon on a simulated network.
pub struct World {
    /// The network.
    pub network: Network,
    /// The daemon, unless it was killed.
    pub server: Option<Arc<Daemon>>,
    /// Where the daemon is, or was.
    pub address: Address,
    arena_bytes: usize,
    /// Tiers below memory.
    below: Vec<Arc<Scripted>>,
}

/// The server, stepped by the network's clock like the engines.
pub struct Daemon(Mutex<Server>);

impl Steppable for Daemon {
    fn step(&self) -> bool {
        // A step of the server drives nothing, so that it never re-enters the clock.
        self.0.try_lock().is_ok_and(|mut server| server.step())
    }

    fn next_deadline(&self) -> Time {
        self.0.try_lock().map_or(Time::NEVER, |server| server.next_deadline())
    }
}

impl World {
    /// A network with one daemon: tenant `default`, and tenant `secret` with the token
    /// "open sesame", each with an arena of `arena_bytes`.
    ///
    /// # Panics
    /// When memory or the daemon cannot be set up.
    #[must_use]
    pub fn new(reach: Reach, seed: u64, arena_bytes: usize) -> Self {
        Self::with_faults(reach, seed, arena_bytes, Faults::none())
    }

    /// [`World::new`], with these tiers below memory, the fastest first.
    ///
    /// # Panics
    /// When memory or the daemon cannot be set up.
    #[must_use]
    pub fn over(reach: Reach, seed: u64, arena_bytes: usize, below: &[Arc<Scripted>]) -> Self {
        Self::build(reach, seed, arena_bytes, Faults::none(), below)
    }

    /// [`World::new`], on a network on which things go wrong.
    ///
    /// # Panics
    /// When memory or the daemon cannot be set up.
    #[must_use]
    pub fn with_faults(reach: Reach, seed: u64, arena_bytes: usize, faults: Faults) -> Self {
        Self::build(reach, seed, arena_bytes, faults, &[])
    }

    fn build(
        reach: Reach,
        seed: u64,
        arena_bytes: usize,
        faults: Faults,
        below: &[Arc<Scripted>],
    ) -> Self {
        let config = Config::new(seed).faults(faults);
        let network = Network::new(match reach {
            Reach::Mapped => config,
            Reach::Staged => config.unmapped(),
        });
        let address = network.provider().address().clone();
        let below = below.to_vec();
        let mut world = Self { network, server: None, address, arena_bytes, below };
        world.start();
        world
    }

    /// Starts the daemon, empty, at its address.
    ///
    /// # Panics
    /// When it cannot be set up.
    pub fn start(&mut self) {
        let engine = Engine::builder()
            .fabric(self.network.provider_at(&self.address))
            .clock(self.network.clock())
            .drive(Drive::Caller)
            .build()
            .unwrap();
        let tenant = |name: &str, token: Option<&str>| TenantConfig {
            name: name.to_owned(),
            token: token.map(str::to_owned),
            memory: Arc::new(HostMemory::new(self.arena_bytes).build().unwrap()),
            watermarks: Watermarks::default(),
            policy: Name::default(),
        };
        let tenants = vec![tenant("default", None), tenant("secret", Some("open sesame"))];
        let bell = Bell::of(&engine);
        self.below.iter().for_each(|tier| tier.rings(bell.notify()));
        let options = Options { stack: stack(&self.below), bell, ..Options::default() };
        let server = Server::new(engine, options, tenants).unwrap();
        let daemon = Arc::new(Daemon(Mutex::new(server)));
        let weak: Weak<Daemon> = Arc::downgrade(&daemon);
        self.network.clock().attach(weak as Weak<dyn Steppable>);
        self.server = Some(daemon);
    }

    /// Kills the daemon's engine in the middle of whatever it does.
    pub fn kill(&mut self) {
        self.network.kill(&self.address);
        self.server = None;
    }

    /// A client to be connected, on an engine of its own.
    pub fn builder(&self) -> Builder {
        Client::builder()
            .fabric(self.network.provider())
            .clock(self.network.clock())
            .drive(Drive::Caller)
    }

    /// A client of tenant `default`.
    ///
    /// # Panics
    /// When the daemon does not let it in.
    #[must_use]
    pub fn client(&self) -> Client {
        self.builder().connect(&self.address).unwrap()
    }

    /// The daemon's store.
    ///
    /// # Panics
    /// When the daemon was killed.
    #[must_use]
    pub fn store(&self) -> Store {
        self.server.as_ref().unwrap().0.lock().unwrap().store().clone()
    }

    /// Lets time pass.
    pub fn run_for(&self, span: Duration) {
        self.network.run_for(span);
    }
}

/// An identity.
#[must_use]
pub fn identity() -> Identity {
    Identity::new("model", "r1", "bf16", Geometry::default(), 16)
}

/// `n` links of one chain; different `salt`s give different chains.
#[must_use]
pub fn chain(salt: u32, n: u32) -> Vec<Link> {
    let mut chain = Chain::new(&identity());
    (0..n).map(|i| chain.push_tokens(&[salt, i])).collect()
}

/// Bytes that tell which block they are of.
#[must_use]
pub fn content(link: &Link, len: usize) -> Vec<u8> {
    let seed = link.key.as_bytes();
    (0..len).map(|i| seed[i % 16] ^ (i / 16) as u8).collect()
}

/// Stores blocks of `len` bytes each.
///
/// # Panics
/// When one is not taken.
pub fn fill(cache: &Cache, links: &[Link], len: usize) {
    let bytes: Vec<_> = links.iter().map(|link| content(link, len)).collect();
    let blocks: Vec<_> = links.iter().zip(&bytes).map(|(l, b)| (*l, b.as_slice())).collect();
    for stored in cache.store(&blocks).unwrap() {
        assert_eq!(stored, tranship_cache::client::Stored::Stored);
    }
}
