//! Bookkeeping of one tenant's blocks in memory: what the tenant's mutex guards.
//!
//! Invariants, all checked by [`Dram::audit`]:
//! 1. Each slot owns one extent; extents are disjoint, and their sum is what the arena counts used.
//! 2. The catalog names exactly the filling and resident blocks, and counts the children of each.
//! 3. The policy's candidates are exactly the resident blocks without lease, pin and children.
//! 4. A slot is freed only when no [`Reserved`](crate::Reserved) and no [`Lease`](crate::Lease)
//!    names it; so the slots they carry are always valid.

mod audit;
mod fill;
mod hold;
mod inspect;
mod leave;
mod moves;

pub(crate) use fill::{Begun, Source};
pub(crate) use hold::Purpose;
pub(crate) use moves::Departing;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use slab::Slab;

use crate::arena::{Extent, Extents};
use crate::block::{Generation, LeaseId, Revocation, SessionId, View, Waiter, Woken};
use crate::catalog::{Catalog, Presence, Slot};
use crate::events::Change;
use crate::identity::{Identity, IdentityId};
use crate::key::Key;
use crate::lineage::Link;
use crate::policy::{BlockId, Policy, Request, Traits};
use crate::stats::{Amount, Counters};
use crate::tier::cold::Name;
use crate::tier::{Stack, Tier, Tiers};
use crate::time::Millis;

/// Index of a scope in its tenant.
pub(crate) type ScopeIndex = u32;

/// One block, from reservation to its last release.
struct Block {
    link: Link,
    scope: ScopeIndex,
    extent: Extent,
    len: u64,
    checksum: u64,
    generation: Generation,
    state: State,
    leases: u32,
    /// Tiers below that it is on its way to; each counts as a lease.
    moves: Tiers,
    /// Set when it shall leave once it got there; its hits at that time.
    leaving: Option<u64>,
    pinned: bool,
    /// Some bytes of another block, which the tiers below have: not for them.
    part: bool,
    /// Protected by a lease or a pin, as last counted.
    held: bool,
    /// Known to the policy as free to go.
    candidate: bool,
    ttl: Option<Millis>,
    committed: Millis,
    /// Number of the commit, in the order of all commits and clearings of the store.
    stored: u64,
    hits: u64,
}

enum State {
    Filling(Filling),
    Revoked(Revocation),
    Resident,
    Doomed,
}

/// A reservation that is open.
struct Filling {
    session: SessionId,
    source: Source,
    deadline: Option<Millis>,
    waiters: Vec<Waiter>,
}

impl Block {
    fn view(&self) -> View {
        View {
            key: self.link.key,
            offset: self.extent.offset(),
            len: self.len,
            checksum: self.checksum,
            generation: self.generation,
        }
    }

    fn expires(&self) -> Option<Millis> {
        self.ttl.map(|ttl| self.committed + ttl)
    }

    fn is_resident(&self) -> bool {
        matches!(self.state, State::Resident)
    }
}

/// One registered identity.
struct ScopeState {
    id: IdentityId,
    identity: Arc<Identity>,
    catalog: Catalog,
}

/// What a session has open.
#[derive(Default)]
struct Holdings {
    fills: BTreeSet<Slot>,
    leases: BTreeSet<LeaseId>,
}

struct LeaseRecord {
    session: SessionId,
    deadline: Option<Millis>,
}

/// What a deadline is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Fill(Slot),
    Lease(LeaseId),
    Block(Slot),
}

/// Amounts by state.
#[derive(Default)]
struct Tally {
    filling: Amount,
    revoking: Amount,
    resident: Amount,
    doomed: Amount,
    held: Amount,
    pinned: Amount,
    moving: Amount,
}

/// What a change leaves to be told once the bookkeeping is done, still under the lock.
#[derive(Default)]
pub(crate) struct Effects {
    pub(crate) woken: Vec<Woken>,
    pub(crate) changes: Vec<(IdentityId, Change)>,
    pub(crate) departing: Vec<Departing>,
}

impl Effects {
    pub(crate) fn is_empty(&self) -> bool {
        self.woken.is_empty() && self.changes.is_empty() && self.departing.is_empty()
    }
}

/// When background eviction starts and stops, percent of the quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// Use above which [`reclaim`](crate::Store::reclaim) evicts.
    pub high: u8,
    /// Use down to which it evicts.
    pub low: u8,
}

impl Default for Watermarks {
    fn default() -> Self {
        Self { high: 95, low: 90 }
    }
}

/// The blocks of one tenant.
pub(crate) struct Dram {
    extents: Extents,
    quota: u64,
    watermarks: Watermarks,
    policy: Box<dyn Policy>,
    /// When deadlines were last looked at: what nobody uses grows older, too.
    now: Millis,
    /// What is below.
    stack: Stack,
    blocks: Slab<Block>,
    scopes: Slab<ScopeState>,
    sessions: HashMap<SessionId, Holdings>,
    leases: HashMap<LeaseId, LeaseRecord>,
    deadlines: BTreeSet<(Millis, Due)>,
    draining: bool,
    tally: Tally,
    /// Space of blocks that leave once a tier below has them.
    leaving_bytes: u64,
    /// Where the search for blocks that others follow goes on.
    hand: usize,
    counters: Counters,
    numbers: Arc<AtomicU64>,
    pub(crate) effects: Effects,
}

impl Dram {
    pub(crate) fn new(
        capacity: u64,
        quota: u64,
        watermarks: Watermarks,
        policy: Box<dyn Policy>,
        stack: Stack,
        numbers: Arc<AtomicU64>,
    ) -> Self {
        Self {
            extents: Extents::new(capacity),
            quota,
            watermarks,
            policy,
            now: Millis(0),
            stack,
            blocks: Slab::new(),
            scopes: Slab::new(),
            sessions: HashMap::new(),
            leases: HashMap::new(),
            deadlines: BTreeSet::new(),
            draining: false,
            tally: Tally::default(),
            leaving_bytes: 0,
            hand: 0,
            counters: Counters::default(),
            numbers,
            effects: Effects::default(),
        }
    }

    /// The scope of `identity`, registered now if it was not.
    pub(crate) fn register(&mut self, identity: &Identity, max: usize) -> Option<ScopeIndex> {
        let id = identity.id();
        if let Some((index, _)) = self.scopes.iter().find(|(_, scope)| scope.id == id) {
            return Some(index as ScopeIndex);
        }
        if self.scopes.len() >= max {
            return None;
        }
        let catalog = Catalog::new();
        let identity = Arc::new(identity.clone());
        Some(self.scopes.insert(ScopeState { id, identity, catalog }) as ScopeIndex)
    }

    pub(crate) fn identities(&self) -> Vec<(ScopeIndex, IdentityId, Arc<Identity>)> {
        let scopes = self.scopes.iter();
        scopes.map(|(index, s)| (index as ScopeIndex, s.id, Arc::clone(&s.identity))).collect()
    }

    /// Finds keys, in `out`; returns the length of the longest unbroken resident prefix.
    pub(crate) fn lookup(
        &mut self,
        scope: &ScopeRef,
        keys: &[Key],
        out: &mut Vec<Presence>,
        now: Millis,
    ) -> usize {
        out.clear();
        match self.catalog(scope) {
            Some(catalog) => out.extend(keys.iter().map(|key| self.presence(scope, catalog, *key))),
            None => out.resize(keys.len(), Presence::Absent),
        }
        let mut prefix = 0;
        for presence in out.iter() {
            let Presence::Resident(tier) = presence else { break };
            self.counters.hits[*tier as usize] += 1;
            prefix += 1;
        }
        self.counters.lookups += keys.len() as u64;
        self.counters.misses += (keys.len() - prefix) as u64;
        // Of an identity that was removed its number may be another's by now.
        if self.catalog(scope).is_some() {
            self.policy.on_request(&Request { scope: scope.index, keys }, now);
        }
        prefix
    }

    /// Where a block is.
    pub(crate) fn find(&self, scope: &ScopeRef, key: Key) -> Presence {
        let catalog = self.catalog(scope);
        catalog.map_or(Presence::Absent, |catalog| self.presence(scope, catalog, key))
    }

    /// Where a block is, memory and the tiers below together.
    fn presence(&self, scope: &ScopeRef, catalog: &Catalog, key: Key) -> Presence {
        match catalog.presence(key) {
            resident @ Presence::Resident(_) => resident,
            other => {
                let holder = self.stack.holder(&Name { identity: scope.id, key });
                holder.map_or(other, Presence::Resident)
            }
        }
    }

    pub(crate) fn set_quota(&mut self, bytes: u64) {
        self.quota = bytes;
    }

    pub(crate) fn set_draining(&mut self, draining: bool) {
        self.draining = draining;
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// The catalog of a scope, unless its identity was removed.
    fn catalog(&self, scope: &ScopeRef) -> Option<&Catalog> {
        let state = self.scopes.get(scope.index as usize)?;
        (state.id == scope.id).then_some(&state.catalog)
    }

    fn resident(&self, scope: &ScopeRef, key: Key) -> Option<Slot> {
        self.catalog(scope)?.resident(key)
    }

    fn block(&self, slot: Slot) -> &Block {
        &self.blocks[slot as usize]
    }

    fn block_mut(&mut self, slot: Slot) -> &mut Block {
        &mut self.blocks[slot as usize]
    }

    /// The block's traits, for the policy.
    fn traits(&self, slot: Slot) -> Traits {
        let block = self.block(slot);
        let Link { key, parent, .. } = block.link;
        Traits { scope: block.scope, key, parent, bytes: block.extent.bytes() }
    }

    /// Brings what is counted and what the policy knows in line with the block's state; to be
    /// called after any change of its leases, pin or children.
    fn weigh(&mut self, slot: Slot) {
        let block = &self.blocks[slot as usize];
        if !block.is_resident() {
            return;
        }
        let held = block.leases > 0 || block.pinned;
        let idle = !held && self.children(slot) == 0;
        let block = &mut self.blocks[slot as usize];
        if held != block.held {
            block.held = held;
            let bytes = block.extent.bytes();
            if held { self.tally.held.add(bytes) } else { self.tally.held.sub(bytes) }
        }
        if idle != block.candidate {
            block.candidate = idle;
            let id = BlockId(slot);
            if idle { self.policy.on_free(id) } else { self.policy.on_hold(id) }
        }
    }

    /// Present blocks that follow this one, which is present itself.
    fn children(&self, slot: Slot) -> u32 {
        let block = self.block(slot);
        let entry = self.scopes[block.scope as usize].catalog.get(block.link.key);
        entry.map_or(0, crate::catalog::Entry::children)
    }

    /// Lets go of the parent that `slot` kept from being evicted.
    fn orphan(&mut self, scope: ScopeIndex, link: Link) {
        let parent = self.scopes[scope as usize].catalog.orphan(link);
        if let Some(parent) = parent {
            self.weigh(parent);
        }
    }

    /// Ends a slot; its space is free again.
    fn free(&mut self, slot: Slot) {
        let block = self.blocks.remove(slot as usize);
        self.extents.give_back(block.extent);
    }

    fn tell(&mut self, scope: ScopeIndex, change: Change) {
        let id = self.scopes[scope as usize].id;
        self.effects.changes.push((id, change));
    }

    fn wake(&mut self, key: Key, waiters: Vec<Waiter>, filled: bool) -> usize {
        let count = waiters.len();
        self.effects.woken.extend(waiters.into_iter().map(|waiter| Woken { waiter, key, filled }));
        count
    }

    fn holdings(&mut self, session: SessionId) -> &mut Holdings {
        self.sessions.entry(session).or_default()
    }

    /// Drops a session's record once nothing is in it.
    fn tidy(&mut self, session: SessionId) {
        let empty = |held: &Holdings| held.fills.is_empty() && held.leases.is_empty();
        if self.sessions.get(&session).is_some_and(empty) {
            self.sessions.remove(&session);
        }
    }

    fn due(&mut self, at: Option<Millis>, due: Due) {
        if let Some(at) = at {
            self.deadlines.insert((at, due));
        }
    }

    fn not_due(&mut self, at: Option<Millis>, due: Due) {
        if let Some(at) = at {
            self.deadlines.remove(&(at, due));
        }
    }
}

/// Names a scope of a tenant; stale once the identity was removed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScopeRef {
    pub(crate) index: ScopeIndex,
    pub(crate) id: IdentityId,
}

const TIER: Tier = Tier::Dram;
