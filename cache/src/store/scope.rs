//! One identity of one tenant: where blocks are looked up, reserved and leased.

use std::fmt;
use std::sync::Arc;

use super::{Shard, TenantId};
use crate::block::{Generation, Info, Lease, Outcome, Reserved, SessionId, Waiter};
use crate::catalog::Presence;
use crate::error::Refusal;
use crate::identity::{Identity, IdentityId};
use crate::key::Key;
use crate::lineage::Link;
use crate::tier::cold::{Job, Name};
use crate::tier::dram::{Begun, Purpose, ScopeRef, Source};
use crate::tier::{Tier, Tiers};
use crate::time::Millis;

/// A block to be reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// The block and its place in its chain.
    pub link: Link,
    /// Bytes.
    pub len: u64,
    /// Time to live after the commit; none keeps the block until it is evicted or removed.
    pub ttl: Option<Millis>,
}

/// The answer to one item of a reservation.
#[derive(Debug)]
pub enum Grant {
    /// Fill it.
    Granted(Reserved),
    /// The block is resident; there is nothing to do.
    Exists,
    /// Somebody is filling it; [`Scope::watch`] tells when that ends.
    InFlight,
    /// Not taken.
    Refused(Refusal),
}

/// The answer to a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Keys, from the first, that are resident without a break.
    pub prefix: usize,
}

/// The answer to a wish to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// The waiter will be woken.
    Waiting,
    /// The block is resident already.
    Resident,
    /// Nobody is filling the block.
    Absent,
    /// Too many wait for the block already; ask again later.
    Full,
}

/// What a check of resident bytes found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Blocks whose bytes were read.
    pub checked: usize,
    /// Blocks that did not match their checksum and were dropped.
    pub corrupt: usize,
}

/// The blocks of one identity of one tenant.
///
/// After its identity was removed a scope finds nothing and refuses reservations.
#[derive(Clone)]
pub struct Scope {
    shard: Arc<Shard>,
    at: ScopeRef,
    identity: Arc<Identity>,
}

impl Scope {
    pub(super) fn new(shard: Arc<Shard>, at: ScopeRef, identity: Arc<Identity>) -> Self {
        Self { shard, at, identity }
    }

    /// The identity.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The identity's name.
    pub fn id(&self) -> IdentityId {
        self.at.id
    }

    /// The tenant.
    pub fn tenant(&self) -> TenantId {
        self.shard.tenant()
    }

    /// Finds `keys`, the blocks of one sequence in order.
    ///
    /// `presence` is overwritten with one entry a key, also beyond the prefix; a caller that passes
    /// the same vector again makes the lookup free of allocation. A lookup does not count as a use,
    /// but tells the policy what is wanted.
    pub fn lookup(&self, keys: &[Key], presence: &mut Vec<Presence>, now: Millis) -> Found {
        Found { prefix: self.shard.look(|dram| dram.lookup(&self.at, keys, presence, now)) }
    }

    /// Reserves room for blocks; one answer an item, in order.
    ///
    /// `ttl` is how long the reservations stand. Room is made by evicting; items of one sequence
    /// come in order, so that none evicts its own ancestors. Once an item finds no room, the items
    /// after it that are not there either are refused likewise.
    pub fn reserve(
        &self,
        session: SessionId,
        items: &[Item],
        ttl: Option<Millis>,
        now: Millis,
    ) -> Vec<Grant> {
        self.begin((session, Source::Put), items, ttl.map(|ttl| now + ttl), now)
    }

    /// Reserves room for a block that comes up from a tier below; `ttl` is what is left of its time to
    /// live.
    pub(crate) fn reserve_promotion(
        &self,
        session: SessionId,
        (key, len): (Key, u64),
        ttl: Option<Millis>,
        now: Millis,
    ) -> Grant {
        // Its place in its chain comes with the bytes.
        let link = Link { key, parent: None, position: 0 };
        let item = Item { link, len, ttl };
        let grants = self.begin((session, Source::Promotion), &[item], None, now);
        grants.into_iter().next().expect("one answer an item")
    }

    /// Reserves room for some bytes of a block that a tier below has.
    pub(crate) fn reserve_part(
        &self,
        session: SessionId,
        (part, len): (Key, u64),
        ttl: Millis,
        now: Millis,
    ) -> Grant {
        let link = Link { key: part, parent: None, position: 0 };
        let item = Item { link, len, ttl: Some(ttl) };
        let grants = self.begin((session, Source::Part), &[item], None, now);
        grants.into_iter().next().expect("one answer an item")
    }

    fn begin(
        &self,
        by: (SessionId, Source),
        items: &[Item],
        deadline: Option<Millis>,
        now: Millis,
    ) -> Vec<Grant> {
        let begun = self.shard.change(|dram| {
            let mut full = None;
            let mut begin = |item| {
                let begun = dram.begin(by, &self.at, item, deadline, full, now);
                if let Begun::Refused(refusal) = begun
                    && refusal.why.is_room()
                {
                    full = Some(refusal);
                }
                begun
            };
            items.iter().map(&mut begin).collect::<Vec<_>>()
        });
        let grant = |(begun, item): (Begun, &Item)| match begun {
            Begun::Granted { slot, generation, offset } => {
                let shard = Arc::clone(&self.shard);
                let space = (offset, item.len);
                Grant::Granted(Reserved::new(shard, slot, generation, item.link, space))
            }
            Begun::Exists => Grant::Exists,
            Begun::InFlight => Grant::InFlight,
            Begun::Refused(refusal) => Grant::Refused(refusal),
        };
        begun.into_iter().zip(items).map(grant).collect()
    }

    /// Leases those of `keys` that are resident; one result a key, in order. Counts as a use.
    ///
    /// `ttl` is how long the lease stands before [`expire`](super::Store::expire) names it.
    pub fn lease(
        &self,
        session: SessionId,
        keys: &[Key],
        ttl: Option<Millis>,
        now: Millis,
    ) -> Lease {
        self.lease_for(Purpose::Use, session, keys, ttl, now)
    }

    /// Keeps the resident ones of `keys` in place, which is no use of theirs.
    pub(crate) fn hold(&self, session: SessionId, keys: &[Key], now: Millis) -> Lease {
        self.lease_for(Purpose::Check, session, keys, None, now)
    }

    fn lease_for(
        &self,
        purpose: Purpose,
        session: SessionId,
        keys: &[Key],
        ttl: Option<Millis>,
        now: Millis,
    ) -> Lease {
        let deadline = ttl.map(|ttl| now + ttl);
        let (id, results, slots) =
            self.shard.change(|dram| dram.lease(session, &self.at, keys, deadline, purpose, now));
        Lease::new(Arc::clone(&self.shard), self.at.id, id, results, slots)
    }

    /// Parks a waiter until the filling of `key` ends; [`Store::woken`](super::Store::woken) then
    /// tells it, once.
    pub fn watch(&self, key: Key, waiter: Waiter) -> Watch {
        self.shard.look(|dram| dram.watch(&self.at, key, waiter))
    }

    /// Protects the resident ones of `keys` from eviction, until they are unpinned; a pin outlives
    /// its session, but not removal or the end of the block's time to live. Returns how many were
    /// pinned that were not before.
    pub fn pin(&self, keys: &[Key]) -> usize {
        self.shard.look(|dram| dram.pin(&self.at, keys, true))
    }

    /// Takes pins off; returns how many.
    pub fn unpin(&self, keys: &[Key]) -> usize {
        self.shard.look(|dram| dram.pin(&self.at, keys, false))
    }

    /// The name of one of its blocks in the tiers below.
    pub(crate) fn name(&self, key: Key) -> Name {
        Name { identity: self.at.id, key }
    }

    /// Where a block is: in memory, in the fastest tier below that has it, or nowhere. That is no
    /// lookup, and no use.
    pub fn presence(&self, key: Key) -> Presence {
        self.shard.look(|dram| dram.find(&self.at, key))
    }

    /// How long a block is, in memory or in a tier below.
    pub(crate) fn len(&self, key: Key) -> Option<u64> {
        let here = self.info(key).map(|info| info.view.len);
        let below = || self.shard.stack().find(&self.name(key), Tiers::NONE);
        here.or_else(|| below().map(|(_, found)| found.len))
    }

    /// Checksum of a block in the fastest tier below memory that has it.
    pub(crate) fn checksum_below(&self, key: Key) -> Option<u64> {
        let found = self.shard.stack().find(&self.name(key), Tiers::NONE);
        found.map(|(_, found)| found.checksum)
    }

    /// CRC-64/NVMe of bytes of the tenant's arena.
    pub(crate) fn checksum(&self, offset: u64, len: u64) -> u64 {
        self.shard.arena().checksum(offset, len)
    }

    /// Those of `keys` that are not in memory, whether or not they are anywhere else.
    pub(crate) fn not_in_memory(&self, keys: &[Key]) -> Vec<Key> {
        self.shard.look(|dram| dram.not_resident(&self.at, keys))
    }

    /// Sends the resident ones of `keys` to `tier`, unless they are there; which of them are on their way.
    pub(crate) fn persist(&self, keys: &[Key], tier: Tier) -> Vec<Key> {
        self.shard.change(|dram| dram.persist(&self.at, keys, tier))
    }

    /// Removes `keys` from all tiers, pinned or not; returns how many were somewhere. A leased block
    /// disappears from lookups at once, and stays in place for its readers.
    pub fn remove(&self, keys: &[Key]) -> usize {
        let there = |key: &&Key| matches!(self.presence(**key), Presence::Resident(_));
        let removed = keys.iter().filter(there).count();
        let mut below = Vec::new();
        for level in self.shard.stack().levels() {
            let held = keys.iter().filter(|key| level.cold.contains(&self.name(**key)));
            below.extend(held.map(|key| (*key, level.cold.tier())));
        }
        // First below, so that none begins to come up; again after, for what got there meanwhile.
        self.forget_below(keys);
        self.shard.change(|dram| dram.remove(&self.at, keys, &below));
        self.forget_below(keys);
        removed
    }

    fn forget_below(&self, keys: &[Key]) {
        for level in self.shard.stack().levels() {
            for key in keys {
                level.forget(Job::Remove { name: self.name(*key) });
            }
        }
    }

    /// Drops a block in which a reader found a wrong checksum, unless it was replaced since.
    pub fn mark_corrupt(&self, key: Key, generation: Generation) -> bool {
        self.shard.change(|dram| dram.mark_corrupt(self.at.id, key, generation))
    }

    /// Checks the resident ones of `keys` against their checksums, and drops what is wrong.
    /// That is no use of theirs, but keeps them in place meanwhile.
    pub fn scrub(&self, session: SessionId, keys: &[Key], now: Millis) -> Scrubbed {
        let mut lease = self.hold(session, keys, now);
        let checked = lease.results().iter().filter(|o| matches!(o, Outcome::Ready(_))).count();
        Scrubbed { checked, corrupt: lease.verify() }
    }

    /// What is known of a resident block.
    pub fn info(&self, key: Key) -> Option<Info> {
        self.shard.look(|dram| dram.info(&self.at, key))
    }

    /// Up to `max` resident blocks whose key is `wanted`, from `from` on, and where to go on. Visits
    /// [`SCAN_BLOCKS`](crate::limits::SCAN_BLOCKS) places, so it may find nothing although more
    /// follows.
    pub(super) fn list_some(
        &self,
        wanted: &dyn Fn(Key) -> bool,
        from: usize,
        max: usize,
    ) -> (Vec<Info>, Option<usize>) {
        let mut out = Vec::new();
        let next = self.shard.look(|dram| dram.list_some(&self.at, from, wanted, max, &mut out));
        (out, next)
    }

    /// Removes all blocks stored before this call from all tiers, pinned or not; returns how many were
    /// in memory. Open reservations go on.
    pub fn clear(&self) -> usize {
        // First below, so that nothing begins to come up; again after, for what got there meanwhile.
        self.clear_below();
        let cleared = self.clear_memory();
        self.clear_below();
        cleared
    }

    fn clear_below(&self) {
        for level in self.shard.stack().levels() {
            level.forget(Job::Clear { identity: self.at.id });
        }
    }

    fn clear_memory(&self) -> usize {
        let Some(mut sweep) = self.shard.change(|dram| dram.begin_clear(&self.at)) else {
            return 0;
        };
        let mut cleared = 0;
        loop {
            let (some, more) = self.shard.change(|dram| dram.clear_some(&self.at, &mut sweep));
            cleared += some;
            if !more {
                return cleared;
            }
        }
    }

    /// Removes the identity with all its blocks, and revokes what is being filled under it; returns
    /// how many blocks there were.
    pub fn close(&self) -> usize {
        let cleared = self.clear();
        let rest = self.shard.change(|dram| dram.close_scope(&self.at)).unwrap_or(0);
        self.clear_below();
        cleared + rest
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field("tenant", &self.tenant())
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}
