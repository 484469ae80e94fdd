//! What a daemon serves: tenants, their scopes, and the blocks in them.
//!
//! A [`Store`] has tenants; a [`Tenant`] has an arena, a quota and an eviction policy; a [`Scope`]
//! is one identity of one tenant, and where blocks are looked up, reserved and leased. All three
//! are handles, cheap to clone, `Send` and `Sync`.
//!
//! The store never blocks and reads no clock: time is passed in, waiting is done by the caller,
//! who is told of woken waiters ([`Store::woken`]).
//!
//! # Locks
//! In this order, enforced in debug builds: registry of tenants → one tenant's DRAM bookkeeping →
//! queue of woken waiters → event ring → queue of moves. Two tenants' bookkeeping is never locked together. Under
//! the bookkeeping lock only maps are changed; bytes are copied and checked outside of it. What
//! visits all blocks (listing, clearing, expiry) lets go of the lock every
//! [`SCAN_BLOCKS`](crate::limits::SCAN_BLOCKS).
//!
//! ```
//! use tranship_cache::arena::checksum;
//! use tranship_cache::block::SessionId;
//! use tranship_cache::identity::{Geometry, Identity};
//! use tranship_cache::store::{Grant, Item, Options, Store, TenantOptions};
//! use tranship_cache::{Chain, Millis};
//! use tranship_transport::memory::HostMemory;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = Store::new(Options::default());
//! let tenant = store.open_tenant(TenantOptions::new("default", HostMemory::new(1 << 20).build()?))?;
//! let identity = Identity::new("llama", "r1", "bf16", Geometry::default(), 16);
//! let scope = tenant.register(&identity)?;
//! let (me, now) = (SessionId(1), Millis(0));
//!
//! let link = Chain::new(&identity).push_tokens(&[1, 2, 3]);
//! let item = Item { link, len: 5, ttl: None };
//! let Some(Grant::Granted(mut room)) = scope.reserve(me, &[item], None, now).pop() else {
//!     return Err("refused".into());
//! };
//! room.write_at(0, b"bytes")?;
//! room.commit(checksum(b"bytes"), now)?;
//!
//! let lease = scope.lease(me, &[link.key], None, now);
//! let mut bytes = [0; 5];
//! assert!(lease.read_at(0, 0, &mut bytes)?);
//! assert_eq!(&bytes, b"bytes");
//! # Ok(())
//! # }
//! ```

mod list;
mod moves;
mod outlook;
mod scope;
mod shard;
mod tenant;

#[cfg(test)]
mod model;
#[cfg(test)]
mod stress;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::block::{Generation, LeaseId, SessionId, Woken};
use crate::error::Error;
use crate::events::{Cursor, Event, Gap, Ring};
use crate::limits::TENANTS_MAX;
use crate::stats::TenantStats;
use crate::sync::{EVENTS, MOVES, REGISTRY, Ranked, WAKES};
use crate::tier::Stack;
use crate::tier::dram::Dram;
use crate::time::Millis;

pub use crate::tier::dram::Watermarks;
pub use list::{Filter, Listed, Listing, Page, PageLimits, Place};
pub use moves::Move;
pub use outlook::Outlook;
pub use scope::{Found, Grant, Item, Scope, Scrubbed, Watch};
pub(crate) use shard::Shard;
pub use tenant::{Tenant, TenantId, TenantOptions};

/// Called, without any lock, when [`Store::woken`] or [`Store::moves`] has something to tell.
pub type Notify = Box<dyn Fn() + Send + Sync>;

/// How a store behaves.
pub struct Options {
    /// Check the bytes in the arena against the checksum before a commit is taken.
    pub verify_on_commit: bool,
    /// Events kept for readers.
    pub events: usize,
    /// Rings a bell for the thread that serves waiters and moves, which other threads may bring.
    pub notify: Option<Notify>,
    /// The tiers below memory.
    pub stack: Stack,
}

impl Default for Options {
    fn default() -> Self {
        let stack = Stack::default();
        Self { verify_on_commit: true, events: 1 << 16, notify: None, stack }
    }
}

/// What all tenants share.
pub(crate) struct Hub {
    pub(crate) verify_on_commit: bool,
    pub(crate) wakes: Ranked<Vec<Woken>, WAKES>,
    pub(crate) events: Ranked<Ring, EVENTS>,
    pub(crate) moves: Ranked<Vec<Move>, MOVES>,
    pub(crate) notify: Option<Notify>,
    pub(crate) stack: Stack,
    /// Gives out generations and lease ids.
    pub(crate) numbers: Arc<AtomicU64>,
    draining: AtomicBool,
}

/// The tenants of one daemon.
#[derive(Clone)]
pub struct Store {
    hub: Arc<Hub>,
    tenants: Arc<Ranked<Vec<Tenant>, REGISTRY>>,
}

impl Store {
    /// A store without tenants.
    pub fn new(options: Options) -> Self {
        let hub = Hub {
            verify_on_commit: options.verify_on_commit,
            wakes: Ranked::new(Vec::new()),
            events: Ranked::new(Ring::new(options.events)),
            moves: Ranked::new(Vec::new()),
            notify: options.notify,
            stack: options.stack,
            numbers: Arc::new(AtomicU64::new(1)),
            draining: AtomicBool::new(false),
        };
        Self { hub: Arc::new(hub), tenants: Arc::new(Ranked::new(Vec::new())) }
    }

    /// Takes a tenant in.
    ///
    /// # Errors
    /// When its name is taken or out of limits, its watermarks make no sense, or too many tenants
    /// are open.
    pub fn open_tenant(&self, options: TenantOptions) -> Result<Tenant, Error> {
        options.check()?;
        let mut tenants = self.tenants.lock();
        if tenants.iter().any(|tenant| tenant.name() == options.name) {
            return Err(Error::TenantExists(options.name));
        }
        if tenants.len() >= TENANTS_MAX {
            return Err(Error::TooManyTenants);
        }
        let id = TenantId(tenants.len() as u32);
        let tenant = Tenant::open(Arc::clone(&self.hub), id, options);
        tenant.set_draining(self.is_draining());
        tenants.push(tenant.clone());
        Ok(tenant)
    }

    /// The tenant of this name.
    pub fn tenant(&self, name: &str) -> Option<Tenant> {
        self.tenants.lock().iter().find(|tenant| tenant.name() == name).cloned()
    }

    /// All tenants, in the order in which they were opened.
    pub fn tenants(&self) -> Vec<Tenant> {
        self.tenants.lock().clone()
    }

    /// Takes back all that a session has open: its reservations are revoked and their waiters
    /// woken, its leases are over, its own waiters are forgotten. Nothing else is lost. Space and
    /// places come back as the caller drops the session's [`Reserved`](crate::Reserved) and
    /// [`Lease`](crate::Lease) values, before or after this call.
    pub fn disconnect(&self, session: SessionId) -> Disconnected {
        let mut sum = Disconnected::default();
        for tenant in self.tenants() {
            let (reservations, leases) = tenant.shard().change(|dram| dram.disconnect(session));
            sum.reservations += reservations;
            sum.leases += leases;
        }
        self.hub.wakes.lock().retain(|woken| woken.waiter.session != session);
        sum
    }

    /// Acts on all deadlines up to `now`: expired blocks leave; reservations are revoked and leases
    /// lapse, and are named once so that the caller drops them.
    pub fn expire(&self, now: Millis) -> Expired {
        let mut expired = Expired::default();
        for tenant in self.tenants() {
            let Expired { reservations, leases, blocks } = &mut expired;
            let mut more = true;
            while more {
                let expire = |dram: &mut Dram| dram.expire_some(now, reservations, leases);
                let some = tenant.shard().change(expire);
                *blocks += some.0;
                more = some.1;
            }
        }
        expired
    }

    /// When [`expire`](Self::expire) has something to do next.
    pub fn next_deadline(&self) -> Option<Millis> {
        self.tenants().iter().filter_map(|tenant| tenant.shard().look(|d| d.next_deadline())).min()
    }

    /// Evicts, in every tenant above its high watermark, down to the low one, so that reservations
    /// rarely have to. Returns the space that came back, bytes.
    pub fn reclaim(&self, now: Millis) -> u64 {
        self.tenants().iter().map(|tenant| tenant.reclaim(now)).sum()
    }

    /// Refuses new reservations from now on (or takes them again); reads and open reservations go
    /// on.
    pub fn drain(&self, draining: bool) {
        let tenants = self.tenants.lock();
        self.hub.draining.store(draining, Ordering::Relaxed);
        for tenant in tenants.iter() {
            tenant.set_draining(draining);
        }
    }

    /// True while new reservations are refused.
    pub fn is_draining(&self) -> bool {
        self.hub.draining.load(Ordering::Relaxed)
    }

    /// Takes the waiters that were woken since the last call.
    pub fn woken(&self) -> Vec<Woken> {
        std::mem::take(&mut *self.hub.wakes.lock())
    }

    /// Takes the blocks that shall go to the tiers below, as of now.
    pub fn moves(&self) -> Vec<Move> {
        std::mem::take(&mut *self.hub.moves.lock())
    }

    /// The tiers below memory.
    pub fn stack(&self) -> &Stack {
        &self.hub.stack
    }

    /// Tells of waiters whose wait ended outside of the store.
    pub(crate) fn wake(&self, woken: impl IntoIterator<Item = Woken>) {
        self.hub.wakes.lock().extend(woken);
        if let Some(notify) = &self.hub.notify {
            notify();
        }
    }

    /// A place to read events from: those that are yet to come.
    pub fn subscribe(&self) -> Cursor {
        self.hub.events.lock().end()
    }

    /// Moves up to `max` events to `out` and the cursor past them. Events that were dropped before
    /// the cursor got there are told as a gap, and skipped.
    pub fn events(&self, cursor: &mut Cursor, max: usize, out: &mut Vec<Event>) -> Option<Gap> {
        self.hub.events.lock().read(cursor, max, out)
    }

    /// The figures of every tenant.
    pub fn stats(&self) -> Vec<TenantStats> {
        self.tenants().iter().map(Tenant::stats).collect()
    }

    /// Recounts all bookkeeping, holding each tenant's lock throughout; for tests and for an
    /// administrator in doubt.
    ///
    /// # Errors
    /// Says what does not add up.
    pub fn audit(&self) -> Result<(), String> {
        for tenant in self.tenants() {
            tenant.shard().look(|dram| dram.audit())?;
            tenant.stats().check()?;
        }
        Ok(())
    }
}

/// What a session left behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disconnected {
    /// Reservations that were revoked.
    pub reservations: usize,
    /// Leases that were over.
    pub leases: usize,
}

/// What was due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Reservations that were revoked, to be dropped.
    pub reservations: Vec<Generation>,
    /// Leases that lapsed, to be dropped.
    pub leases: Vec<LeaseId>,
    /// Blocks that left.
    pub blocks: usize,
}
