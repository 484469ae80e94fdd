//! Everything a simulated network is, and the order in which it happens.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::config::Config;
use super::faults::Action;
use super::link::Link;
use super::log::{Entry, Happened, Log};
use super::operation::Operation;
use super::port::PortState;
use super::queue::Queue;
use crate::address::Address;
use crate::outcome::Reason;
use crate::time::Time;
use crate::window::WindowId;

/// Something that is going to happen.
pub(super) enum Happening {
    /// A packet reaches its target.
    Land { serial: u64, packet: u32 },
    /// A packet of a write is in memory.
    Landed { serial: u64, packet: u32, port: usize, window: WindowId },
    /// The target's word about an operation reaches its initiator.
    Answered { serial: u64 },
    /// The initiator has flushed an operation out of its queue.
    Flushed { serial: u64 },
    /// A call reaches the called.
    Dial { link: usize },
    /// Its answer reaches the caller.
    Accept { link: usize },
    /// An end learns that the connection is gone.
    Notice { link: usize, end: usize, reason: Reason },
    /// A connection has been cut for too long, if it still is the same cut.
    Break { link: usize, cut: u64 },
    /// A port that was out of room for no visible reason has some again.
    Room,
    /// Somebody does something to the network.
    Act(Action),
}

/// The network. All ports share it under one lock.
pub(super) struct State {
    pub(super) config: Config,
    pub(super) now: Time,
    pub(super) queue: Queue<Happening>,
    pub(super) ports: Vec<PortState>,
    /// The newest port of each address.
    pub(super) addresses: BTreeMap<Address, usize>,
    pub(super) links: Vec<Link>,
    pub(super) operations: BTreeMap<u64, Operation>,
    pub(super) serial: u64,
    /// Pairs of addresses between which nothing passes, each in order, and which cut it is.
    pub(super) cuts: BTreeMap<(Address, Address), u64>,
    pub(super) ports_named: u32,
    cuts_made: u64,
    paused: BTreeSet<Address>,
    rng: Pcg64Mcg,
    log: Log,
}

impl State {
    pub(super) fn new(config: Config) -> Self {
        Self {
            now: Time::ZERO,
            queue: Queue::new(),
            ports: Vec::new(),
            addresses: BTreeMap::new(),
            links: Vec::new(),
            operations: BTreeMap::new(),
            serial: 0,
            cuts: BTreeMap::new(),
            ports_named: 0,
            cuts_made: 0,
            paused: BTreeSet::new(),
            rng: Pcg64Mcg::seed_from_u64(config.seed),
            log: Log::new(config.trace_entries),
            config,
        }
    }

    pub(super) fn log(&mut self, port: usize, what: Happened, a: u64, b: u64) {
        self.log.add(Entry { at: self.now, port: port as u32, what, a, b });
    }

    pub(super) fn trace(&self) -> super::log::Trace {
        self.log.trace()
    }

    /// Sixty-four random bits.
    pub(super) fn bits(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// Whether something of this probability happens now.
    pub(super) fn chance(&mut self, probability: f64) -> bool {
        // A certain thing draws no bits, so that a fault that is off changes no other draw.
        probability > 0.0 && (self.bits() >> 11) as f64 / ((1u64 << 53) as f64) < probability
    }

    /// A span from a range, evenly.
    pub(super) fn span(&mut self, range: &Range<Duration>) -> Duration {
        let width = range.end.saturating_sub(range.start).as_nanos() as u64;
        let extra = if width == 0 { 0 } else { self.bits() % width };
        range.start + Duration::from_nanos(extra)
    }

    /// How long something travels.
    pub(super) fn latency(&mut self) -> Duration {
        let range = self.config.latency.clone();
        self.span(&range)
    }

    /// How late something is that is late with this probability.
    pub(super) fn lateness(&mut self, probability: f64) -> Duration {
        if self.chance(probability) {
            let most = self.config.faults.late_by;
            self.span(&(Duration::ZERO..most))
        } else {
            Duration::ZERO
        }
    }

    /// Schedules something.
    pub(super) fn after(&mut self, span: Duration, what: Happening) {
        self.queue.push(self.now + span, what);
    }

    /// Whether an address hangs.
    pub(super) fn hangs(&self, port: usize) -> bool {
        self.paused.contains(&self.ports[port].address)
    }

    /// Whether nothing passes between two ports.
    pub(super) fn is_cut(&self, a: &Address, b: &Address) -> bool {
        !self.cuts.is_empty() && self.cuts.contains_key(&pair(a, b))
    }

    /// Lets the next thing happen if it is due by `until`, else lets time pass until then.
    /// Returns `false` when nothing will ever happen.
    pub(super) fn move_on(&mut self, until: Time) -> bool {
        match self.queue.next() {
            Some(at) if at <= until.max(self.now) => {
                self.now = self.now.max(at);
                if let Some(what) = self.queue.pop(self.now) {
                    self.happen(what);
                }
                true
            }
            _ if until == Time::NEVER => false,
            _ => {
                self.now = self.now.max(until);
                true
            }
        }
    }

    fn happen(&mut self, what: Happening) {
        if let Some(port) = self.place(&what)
            && self.hangs(port)
        {
            self.log(port, Happened::Held, 0, 0);
            self.ports[port].held.push(what);
            return;
        }
        match what {
            Happening::Land { serial, packet } => self.land(serial, packet),
            Happening::Landed { serial, packet, port, window } => {
                self.landed(serial, packet, port, window);
            }
            Happening::Answered { serial } => self.answered(serial),
            Happening::Flushed { serial } => self.flushed(serial),
            Happening::Dial { link } => self.dialled(link),
            Happening::Accept { link } => self.up(link, 0),
            Happening::Notice { link, end, reason } => self.noticed(link, end, reason),
            Happening::Break { link, cut } => self.cut_too_long(link, cut),
            Happening::Room => {}
            Happening::Act(action) => self.act(action),
        }
    }

    /// The port where something happens; a hung one makes it wait.
    fn place(&self, what: &Happening) -> Option<usize> {
        match *what {
            Happening::Land { serial, packet } => {
                let operation = self.operations.get(&serial)?;
                // What a hung initiator had not sent yet waits with it.
                let from = operation.port;
                if operation.sent_at(packet) > self.ports[from].paused_at && self.hangs(from) {
                    return Some(from);
                }
                self.links[operation.link].port_at(1 - operation.end)
            }
            Happening::Answered { serial } | Happening::Flushed { serial } => {
                self.operations.get(&serial).map(|operation| operation.port)
            }
            Happening::Dial { link } => self.addresses.get(&self.links[link].to).copied(),
            Happening::Accept { link } => self.links[link].port_at(0),
            Happening::Notice { link, end, .. } => self.links[link].port_at(end),
            Happening::Landed { .. }
            | Happening::Break { .. }
            | Happening::Room
            | Happening::Act(_) => None,
        }
    }

    /// Does something to the network.
    pub(super) fn act(&mut self, action: Action) {
        match action {
            Action::Kill(address) => self.kill(&address),
            Action::Pause(address) => {
                if let Some(&port) = self.addresses.get(&address) {
                    self.log(port, Happened::Paused, 0, 0);
                    self.ports[port].paused_at = self.now;
                    self.paused.insert(address);
                }
            }
            Action::Resume(address) => {
                self.paused.remove(&address);
                if let Some(&port) = self.addresses.get(&address) {
                    self.log(port, Happened::Resumed, 0, 0);
                    self.ports[port].paused_at = Time::NEVER;
                }
                // Also what an engine that was there before has under way.
                let there = self.ports.iter_mut().filter(|port| port.address == address);
                for what in there.flat_map(|port| std::mem::take(&mut port.held)) {
                    self.queue.push(self.now, what);
                }
            }
            Action::Cut(a, b) => {
                self.cuts_made += 1;
                let cut = self.cuts_made;
                self.cuts.insert(pair(&a, &b), cut);
                self.log(0, Happened::Cut, cut, 0);
                let wait = self.config.break_after;
                for link in 0..self.links.len() {
                    if self.crosses(link, &a, &b) {
                        self.after(wait, Happening::Break { link, cut });
                    }
                }
            }
            Action::Heal(a, b) => {
                let cut = self.cuts.remove(&pair(&a, &b)).unwrap_or(0);
                self.log(0, Happened::Healed, cut, 0);
            }
            Action::Faults(faults) => self.config.faults = faults,
        }
    }

    fn kill(&mut self, address: &Address) {
        let Some(&port) = self.addresses.get(address) else { return };
        if !self.ports[port].is_alive() {
            return;
        }
        self.log(port, Happened::Killed, 0, 0);
        self.ports[port].dead = true;
        self.paused.remove(address);
        self.ports[port].held.clear();
        let noticed = self.config.death_noticed.clone();
        for link in 0..self.links.len() {
            for end in 0..2 {
                if self.links[link].port_at(end) == Some(port) && !self.links[link].broken {
                    let span = self.span(&noticed);
                    let reason = Reason::PeerGone;
                    self.after(span, Happening::Notice { link, end: 1 - end, reason });
                }
            }
        }
    }
}

/// Two addresses in order.
pub(super) fn pair(a: &Address, b: &Address) -> (Address, Address) {
    if a <= b { (a.clone(), b.clone()) } else { (b.clone(), a.clone()) }
}
