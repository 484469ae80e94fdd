//! The network as tests hold it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::census::Census;
use super::clock::{Steps, VirtualClock};
use super::config::Config;
use super::faults::{Action, Faults};
use super::log::{Happened, Trace};
use super::port::{Nic, PortState};
use super::state::{Happening, State};
use crate::address::{Address, Kind};
use crate::fabric::{Fabric, OpenError, Provider, Setup};
use crate::time::{Clock, Time};

/// A simulated network. Clones are the same network.
#[derive(Clone)]
pub struct Network {
    shared: Arc<Shared>,
}

/// What ports and clock share.
pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) steps: Steps,
    seed: u64,
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn move_on(&self, until: Time) -> bool {
        let mut state = self.state();
        let moved = state.move_on(until);
        self.steps.set(state.now);
        moved
    }
}

impl Network {
    /// A network without ports, at time zero.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let (seed, state) = (config.seed, Mutex::new(State::new(config)));
        Self { shared: Arc::new(Shared { state, steps: Steps::default(), seed }) }
    }

    /// The time all engines of this network live in; give it to their builders.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(VirtualClock { network: Arc::clone(&self.shared) })
    }

    /// A port with an address of its own.
    #[must_use]
    pub fn provider(&self) -> Port {
        self.provider_as(Kind::Sim)
    }

    /// A port that passes for one of another fabric, so that an engine has several ways to its
    /// peers, each with faults of its own. What is one kind reaches what is the same.
    #[must_use]
    pub fn provider_as(&self, kind: Kind) -> Port {
        let mut state = self.shared.state();
        state.ports_named += 1;
        let address = Address::new(kind, state.ports_named.to_string());
        Port { network: Arc::clone(&self.shared), address }
    }

    /// A port for an engine that takes over the address of one that died or was closed.
    #[must_use]
    pub fn provider_at(&self, address: &Address) -> Port {
        Port { network: Arc::clone(&self.shared), address: address.clone() }
    }

    /// Does something to the network now.
    pub fn act(&self, action: Action) {
        self.shared.state().act(action);
    }

    /// Does something to the network once `span` has passed.
    pub fn at(&self, span: Duration, action: Action) {
        self.shared.state().after(span, Happening::Act(action));
    }

    /// Kills the engine at an address; see [`Action::Kill`].
    pub fn kill(&self, address: &Address) {
        self.act(Action::Kill(address.clone()));
    }

    /// Makes the host at an address hang; see [`Action::Pause`].
    pub fn pause(&self, address: &Address) {
        self.act(Action::Pause(address.clone()));
    }

    /// Lets it go on; see [`Action::Resume`].
    pub fn resume(&self, address: &Address) {
        self.act(Action::Resume(address.clone()));
    }

    /// Cuts what lies between two addresses; see [`Action::Cut`].
    pub fn cut(&self, a: &Address, b: &Address) {
        self.act(Action::Cut(a.clone(), b.clone()));
    }

    /// Heals it; see [`Action::Heal`].
    pub fn heal(&self, a: &Address, b: &Address) {
        self.act(Action::Heal(a.clone(), b.clone()));
    }

    /// From now on these faults.
    pub fn set_faults(&self, faults: Faults) {
        self.act(Action::Faults(faults));
    }

    /// Lets `span` of virtual time pass, stepping all engines.
    pub fn run_for(&self, span: Duration) {
        let clock = self.clock();
        let until = clock.now() + span;
        while clock.now() < until && clock.advance(until) {}
    }

    /// What happened so far.
    #[must_use]
    pub fn trace(&self) -> Trace {
        self.shared.state().trace()
    }

    /// What it holds now.
    #[must_use]
    pub fn census(&self) -> Census {
        self.shared.state().census()
    }

    /// The seed it was made with.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.shared.seed
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Network(seed {}, {:?})", self.shared.seed, self.shared.steps.now())
    }
}

/// A port that an engine is about to open.
pub struct Port {
    network: Arc<Shared>,
    address: Address,
}

impl Port {
    /// Where its engine will be reached.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }
}

impl Provider for Port {
    fn kind(&self) -> Kind {
        self.address.kind
    }

    fn open(self: Box<Self>, setup: &Setup) -> Result<Box<dyn Fabric>, OpenError> {
        let Self { network, address } = *self;
        let mut state = network.state();
        if state.addresses.get(&address).is_some_and(|&port| state.ports[port].is_alive()) {
            let what = format!("{address} is in use; kill or close the engine there first");
            return Err(OpenError { kind: address.kind, what });
        }
        let port = state.ports.len();
        state.ports.push(PortState::new(address.clone(), setup.engine));
        state.addresses.insert(address.clone(), port);
        state.log(port, Happened::Opened, 0, 0);
        drop(state);
        Ok(Box::new(Nic { network, port, address }))
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Port({})", self.address)
    }
}
