//! One tenant: an arena, a quota, a policy, and its identities.

use std::fmt;
use std::sync::Arc;

use tranship_transport::memory::Memory;

use super::{Hub, Scope, Shard, Watermarks};
use crate::arena::Arena;
use crate::error::Error;
use crate::identity::Identity;
use crate::limits::{IDENTITY_STRING_BYTES_MAX, SCOPES_MAX};
use crate::policy::{Lru, Policy};
use crate::stats::TenantStats;
use crate::tier::dram::{Dram, ScopeRef};
use crate::time::Millis;

/// Number of a tenant in its store, from 0.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct TenantId(pub u32);

/// What a tenant is opened with.
pub struct TenantOptions {
    /// Name; identities of the tenant carry the same.
    pub name: String,
    /// The arena, writable. Nobody else writes to it but through reservations of this store.
    pub memory: Arc<Memory>,
    /// Most space that the tenant may use, bytes; the whole arena by default.
    pub quota: u64,
    /// When background eviction starts and stops.
    pub watermarks: Watermarks,
    /// Which block leaves first.
    pub policy: Box<dyn Policy>,
}

impl TenantOptions {
    /// A tenant that may use the whole of `memory` and evicts the least recently used.
    pub fn new(name: impl Into<String>, memory: impl Into<Arc<Memory>>) -> Self {
        let memory = memory.into();
        Self {
            name: name.into(),
            quota: memory.len() as u64,
            memory,
            watermarks: Watermarks::default(),
            policy: Box::new(Lru::new()),
        }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        if self.name.is_empty() || self.name.len() > IDENTITY_STRING_BYTES_MAX {
            return Err(Error::TenantName(self.name.len()));
        }
        let Watermarks { low, high } = self.watermarks;
        if low == 0 || low > high || high > 100 {
            return Err(Error::Watermarks { low, high });
        }
        if !self.memory.is_host() {
            return Err(Error::ArenaOnDevice);
        }
        Ok(())
    }
}

/// One tenant of a store.
#[derive(Clone)]
pub struct Tenant {
    name: Arc<str>,
    shard: Arc<Shard>,
}

impl Tenant {
    pub(super) fn open(hub: Arc<Hub>, id: TenantId, options: TenantOptions) -> Self {
        let arena = Arena::new(options.memory);
        let numbers = Arc::clone(&hub.numbers);
        let TenantOptions { quota, watermarks, policy, .. } = options;
        let stack = hub.stack.clone();
        let dram = Dram::new(arena.len(), quota, watermarks, policy, stack, numbers);
        let shard = Arc::new(Shard::new(id, arena, dram, hub));
        Self { name: options.name.into(), shard }
    }

    pub(super) fn shard(&self) -> &Arc<Shard> {
        &self.shard
    }

    /// The tenant's number.
    pub fn id(&self) -> TenantId {
        self.shard.tenant()
    }

    /// The tenant's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tenant's arena; its memory is what clients of this tenant, and no others, may map.
    pub fn arena(&self) -> &Arena {
        self.shard.arena()
    }

    /// The scope of an identity, registered now unless it was before.
    ///
    /// # Errors
    /// When the identity breaks a limit, is of another tenant, or is one too many.
    pub fn register(&self, identity: &Identity) -> Result<Scope, Error> {
        identity.validate()?;
        if identity.tenant != *self.name {
            let (ours, theirs) = (self.name.to_string(), identity.tenant.clone());
            return Err(Error::ForeignIdentity { ours, theirs });
        }
        let index = self.shard.look(|dram| dram.register(identity, SCOPES_MAX));
        let index = index.ok_or_else(|| Error::TooManyScopes(self.name.to_string()))?;
        let at = ScopeRef { index, id: identity.id() };
        Ok(Scope::new(Arc::clone(&self.shard), at, Arc::new(identity.clone())))
    }

    /// The scopes of all registered identities.
    pub fn scopes(&self) -> Vec<Scope> {
        let known = self.shard.look(|dram| dram.identities());
        let scope = |(index, id, identity)| {
            Scope::new(Arc::clone(&self.shard), ScopeRef { index, id }, identity)
        };
        known.into_iter().map(scope).collect()
    }

    /// Changes the quota, bytes. Blocks above a lowered quota leave with the next
    /// [`reclaim`](super::Store::reclaim) or reservation.
    pub fn set_quota(&self, bytes: u64) {
        self.shard.look(|dram| dram.set_quota(bytes));
    }

    /// Evicts until `bytes` of space came back or nothing is left that may leave; returns what came
    /// back.
    pub fn evict(&self, bytes: u64, now: Millis) -> u64 {
        let mut freed = 0;
        loop {
            let (some, more) = self.shard.change(|dram| dram.evict_some(bytes - freed, now));
            freed += some;
            if !more || freed >= bytes {
                return freed;
            }
        }
    }

    /// Sends blocks to the tiers below that would get them when they are evicted; see
    /// [`Server::close_tiers`](crate::server::Server::close_tiers).
    pub(crate) fn evacuate(&self, from: usize, bytes: u64) -> Option<usize> {
        self.shard.change(|dram| dram.evacuate_some(from, bytes))
    }

    pub(super) fn reclaim(&self, now: Millis) -> u64 {
        match self.shard.look(|dram| dram.excess()) {
            0 => 0,
            excess => self.evict(excess, now),
        }
    }

    /// Removes all blocks stored before this call, pinned or not, under every identity; returns how
    /// many.
    pub fn clear(&self) -> usize {
        self.scopes().iter().map(Scope::clear).sum()
    }

    /// The tenant's figures, all of one moment.
    pub fn stats(&self) -> TenantStats {
        let tenant = self.name.to_string();
        self.shard.look(|dram| TenantStats {
            tenant,
            policy: dram.policy_name(),
            counters: dram.counters(),
            gauges: dram.gauges(),
        })
    }

    pub(super) fn set_draining(&self, draining: bool) {
        self.shard.look(|dram| dram.set_draining(draining));
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenant")
            .field("name", &self.name)
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}
