//! The store against a plain model, over random histories.
//!
//! The model keeps one record a key and recomputes everything else. It predicts the answer to each
//! call, follows evictions through the event stream, and demands of each that it was the least
//! recently used block that nothing held. After every step the store's own audit must pass and
//! every leased byte must still be right.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use tranship_transport::memory::HostMemory;

use super::{Grant, Item, Options, Scope, Store, Tenant, TenantOptions, Watch};
use crate::arena::checksum;
use crate::block::{CommitError, Generation, Lease, Outcome, Reserved, SessionId, Waiter};
use crate::catalog::Presence;
use crate::error::Why;
use crate::events::{Change, Cursor};
use crate::identity::{Geometry, Identity};
use crate::key::Key;
use crate::lineage::{Chain, Link};
use crate::policy::Removal;
use crate::tier::Tier;
use crate::time::Millis;

const GRANULE: u64 = 4096;
const CAPACITY_GRANULES: u64 = 12;
const SESSIONS: u64 = 3;
const CHAINS: usize = 3;
const DEPTH: usize = 5;

#[derive(Clone, Debug)]
enum Op {
    Reserve { session: u64, block: usize, granules: u64, ttl: Option<u64>, hold: Option<u64> },
    Commit { at: prop::sample::Index, right: bool },
    Abandon { at: prop::sample::Index },
    Lease { session: u64, first: usize, count: usize, ttl: Option<u64> },
    Release { at: prop::sample::Index },
    Watch { session: u64, block: usize },
    Pin { block: usize, on: bool },
    Remove { block: usize },
    Stray { block: usize },
    Disconnect { session: u64, drop_first: bool },
    Advance { ms: u64 },
    Evict { granules: u64 },
    Clear,
    Drain { on: bool },
}

fn op() -> impl Strategy<Value = Op> {
    let session = || 0..SESSIONS;
    let block = || 0..CHAINS * DEPTH;
    let at = any::<prop::sample::Index>;
    let ttl = || prop::option::weighted(0.3, 1_u64..40);
    prop_oneof![
        8 => (session(), block(), 1_u64..4, ttl(), ttl()).prop_map(
            |(session, block, granules, ttl, hold)| Op::Reserve { session, block, granules, ttl, hold }
        ),
        8 => (at(), prop::bool::weighted(0.9)).prop_map(|(at, right)| Op::Commit { at, right }),
        1 => at().prop_map(|at| Op::Abandon { at }),
        4 => (session(), block(), 1_usize..5, ttl()).prop_map(
            |(session, first, count, ttl)| Op::Lease { session, first, count, ttl }
        ),
        3 => at().prop_map(|at| Op::Release { at }),
        2 => (session(), block()).prop_map(|(session, block)| Op::Watch { session, block }),
        1 => (block(), any::<bool>()).prop_map(|(block, on)| Op::Pin { block, on }),
        1 => block().prop_map(|block| Op::Remove { block }),
        1 => block().prop_map(|block| Op::Stray { block }),
        1 => (session(), any::<bool>())
            .prop_map(|(session, drop_first)| Op::Disconnect { session, drop_first }),
        2 => (1_u64..25).prop_map(|ms| Op::Advance { ms }),
        1 => (1_u64..4).prop_map(|granules| Op::Evict { granules }),
        1 => Just(Op::Clear),
        1 => prop::bool::weighted(0.2).prop_map(|on| Op::Drain { on }),
    ]
}

/// A present block, as the model knows it.
struct Present {
    link: Link,
    generation: Generation,
    /// Set once it is resident.
    stored: Option<Stored>,
    session: SessionId,
    due: Option<Millis>,
    ttl: Option<u64>,
    waiters: Vec<u64>,
}

struct Stored {
    used: u64,
    pinned: bool,
    expires: Option<Millis>,
}

struct Open {
    room: Reserved,
    session: SessionId,
    revoked: bool,
}

struct Reading {
    lease: Lease,
    session: SessionId,
    due: Option<Millis>,
}

struct World {
    store: Store,
    tenant: Tenant,
    scope: Scope,
    links: Vec<Link>,
    cursor: Cursor,
    now: Millis,
    uses: u64,
    tokens: u64,
    draining: bool,
    present: HashMap<Key, Present>,
    open: Vec<Open>,
    reading: Vec<Reading>,
    /// Fillings whose bytes were overwritten on purpose.
    spoilt: HashSet<Generation>,
    woken: Vec<(u64, bool)>,
}

/// What a filling is filled with.
fn pattern(generation: Generation) -> u8 {
    (generation.0 as u8).wrapping_mul(31).wrapping_add(7)
}

impl World {
    fn new() -> Self {
        let store = Store::new(Options::default());
        let memory = HostMemory::new((CAPACITY_GRANULES * GRANULE) as usize).build().unwrap();
        let tenant = store.open_tenant(TenantOptions::new("default", memory)).unwrap();
        let identity = Identity::new("m", "r", "bf16", Geometry::default(), 16);
        let scope = tenant.register(&identity).unwrap();
        let mut links = Vec::new();
        for chain in 0..CHAINS as u32 {
            let mut blocks = Chain::new(&identity);
            links.extend((0..DEPTH as u32).map(|block| blocks.push_tokens(&[chain, block])));
        }
        let cursor = store.subscribe();
        Self {
            store,
            tenant,
            scope,
            links,
            cursor,
            now: Millis(100),
            uses: 0,
            tokens: 0,
            draining: false,
            present: HashMap::new(),
            open: Vec::new(),
            reading: Vec::new(),
            spoilt: HashSet::new(),
            woken: Vec::new(),
        }
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Reserve { session, block, granules, ttl, hold } => {
                self.reserve(SessionId(session), self.links[block], granules, ttl, hold);
            }
            Op::Commit { ref at, right } if !self.open.is_empty() => {
                let open = self.open.swap_remove(at.index(self.open.len()));
                self.commit(open, right);
            }
            Op::Abandon { ref at } if !self.open.is_empty() => {
                let open = self.open.swap_remove(at.index(self.open.len()));
                self.abandon(open);
            }
            Op::Lease { session, first, count, ttl } => {
                let end = (first + count).min(self.links.len());
                self.lease(SessionId(session), first..end, ttl);
            }
            Op::Release { ref at } if !self.reading.is_empty() => {
                drop(self.reading.swap_remove(at.index(self.reading.len())));
            }
            Op::Commit { .. } | Op::Abandon { .. } | Op::Release { .. } => {}
            Op::Watch { session, block } => self.watch(SessionId(session), self.links[block].key),
            Op::Pin { block, on } => {
                let key = self.links[block].key;
                let stored = self.present.get_mut(&key).and_then(|p| p.stored.as_mut());
                let changed = stored.filter(|stored| stored.pinned != on);
                let count = if on { self.scope.pin(&[key]) } else { self.scope.unpin(&[key]) };
                assert_eq!(count, usize::from(changed.is_some()));
                changed.into_iter().for_each(|stored| stored.pinned = on);
            }
            Op::Remove { block } => {
                let key = self.links[block].key;
                let there = self.is_resident(key);
                assert_eq!(self.scope.remove(&[key]), usize::from(there));
                self.forget_if(|p| p.link.key == key);
            }
            Op::Stray { block } => self.stray(self.links[block].key),
            Op::Disconnect { session, drop_first } => {
                self.disconnect(SessionId(session), drop_first);
            }
            Op::Advance { ms } => self.advance(ms),
            Op::Evict { granules } => {
                let before = self.tenant.stats().gauges;
                let freed = self.tenant.evict(granules * GRANULE, self.now);
                let after = self.tenant.stats().gauges;
                assert_eq!(before.used_bytes - after.used_bytes, freed);
                self.follow_evictions(None);
                assert!(freed >= granules * GRANULE || self.candidates(None).is_empty());
            }
            Op::Clear => {
                let there = self.present.values().filter(|p| p.stored.is_some()).count();
                assert_eq!(self.scope.clear(), there);
                self.forget_if(|_| true);
            }
            Op::Drain { on } => {
                self.store.drain(on);
                self.draining = on;
            }
        }
        self.check();
    }

    fn reserve(
        &mut self,
        session: SessionId,
        link: Link,
        granules: u64,
        ttl: Option<u64>,
        hold: Option<u64>,
    ) {
        let item = Item { link, len: granules * GRANULE - 17, ttl: ttl.map(Millis) };
        let grant = self.scope.reserve(session, &[item], hold.map(Millis), self.now).remove(0);
        self.follow_evictions(link.parent);
        let there = self.present.get(&link.key).map(|p| p.stored.is_some());
        match (grant, there) {
            (Grant::Exists, Some(true)) | (Grant::InFlight, Some(false)) => {}
            (Grant::Granted(mut room), None) => {
                assert!(!self.draining);
                let generation = room.generation();
                room.write_at(0, &vec![pattern(generation); room.len() as usize]).unwrap();
                let due = hold.map(|hold| self.now + Millis(hold));
                let waiters = Vec::new();
                let fresh = Present { link, generation, stored: None, session, due, ttl, waiters };
                self.present.insert(link.key, fresh);
                self.open.push(Open { room, session, revoked: false });
            }
            (Grant::Refused(refusal), None) if self.draining => {
                assert_eq!(refusal.why, Why::Draining);
            }
            (Grant::Refused(refusal), None) => {
                assert!(refusal.retry_after.is_some(), "{refusal}");
                assert!(matches!(refusal.why, Why::OverQuota { .. } | Why::NoRoom { .. }));
                let idle = self.candidates(link.parent);
                assert!(granules > 1 || idle.is_empty(), "one granule always fits somewhere");
            }
            (grant, there) => panic!("{grant:?}, but the model has {there:?}"),
        }
    }

    fn commit(&mut self, mut open: Open, right: bool) {
        let (key, generation) = (open.room.key(), open.room.generation());
        let sum = checksum(&vec![pattern(generation); open.room.len() as usize]);
        match open.room.commit(sum ^ u64::from(!right), self.now) {
            Err(CommitError::Mismatch { reserved, .. }) => {
                assert!(!right);
                open.room = reserved;
                self.open.push(open);
            }
            Err(CommitError::Revoked { .. }) => assert!(open.revoked),
            Ok(committed) => {
                assert!(right && !open.revoked);
                self.uses += 1;
                let present = self.present.get_mut(&key).unwrap();
                let expires = present.ttl.map(|ttl| self.now + Millis(ttl));
                present.stored = Some(Stored { used: self.uses, pinned: false, expires });
                let waiters = std::mem::take(&mut present.waiters);
                assert_eq!(committed.woken, waiters.len());
                self.woken.extend(waiters.into_iter().map(|token| (token, true)));
            }
        }
    }

    fn abandon(&mut self, open: Open) {
        if !open.revoked {
            self.give_up(open.room.key());
        }
        drop(open);
    }

    /// The filling of `key` ended without a commit.
    fn give_up(&mut self, key: Key) {
        let gone = self.present.remove(&key).unwrap();
        self.woken.extend(gone.waiters.into_iter().map(|token| (token, false)));
    }

    fn lease(&mut self, session: SessionId, blocks: std::ops::Range<usize>, ttl: Option<u64>) {
        let keys: Vec<Key> = self.links[blocks].iter().map(|link| link.key).collect();
        let lease = self.scope.lease(session, &keys, ttl.map(Millis), self.now);
        for (key, outcome) in keys.iter().zip(lease.results()) {
            let there = self.present.get(key).map(|p| (p.stored.is_some(), p.generation));
            match (outcome, there) {
                (Outcome::Ready(view), Some((true, generation))) => {
                    assert_eq!((view.key, view.generation), (*key, generation));
                }
                (Outcome::Late, Some((false, _))) | (Outcome::Gone, None) => {}
                (outcome, there) => panic!("{outcome:?}, but the model has {there:?}"),
            }
        }
        for key in keys.iter().rev() {
            if let Some(stored) = self.present.get_mut(key).and_then(|p| p.stored.as_mut()) {
                self.uses += 1;
                stored.used = self.uses;
            }
        }
        let due = ttl.map(|ttl| self.now + Millis(ttl));
        self.reading.push(Reading { lease, session, due });
    }

    fn watch(&mut self, session: SessionId, key: Key) {
        self.tokens += 1;
        let token = self.tokens * SESSIONS + session.0;
        let answer = self.scope.watch(key, Waiter { session, token });
        let expected = match self.present.get_mut(&key) {
            None => Watch::Absent,
            Some(Present { stored: Some(_), .. }) => Watch::Resident,
            Some(filling) => {
                filling.waiters.push(token);
                Watch::Waiting
            }
        };
        assert_eq!(answer, expected);
    }

    fn stray(&mut self, key: Key) {
        let Some(info) = self.scope.info(key) else { return assert!(!self.is_resident(key)) };
        self.tenant.arena().write(info.view.offset, &[!pattern(info.view.generation)]);
        self.spoilt.insert(info.view.generation);
        let scrubbed = self.scope.scrub(SessionId(77), &[key], self.now);
        assert_eq!((scrubbed.checked, scrubbed.corrupt), (1, 1));
        self.forget_if(|p| p.link.key == key);
    }

    fn disconnect(&mut self, session: SessionId, drop_first: bool) {
        if drop_first {
            while let Some(at) = self.open.iter().position(|open| open.session == session) {
                let open = self.open.swap_remove(at);
                self.abandon(open);
            }
            self.reading.retain(|reading| reading.session != session);
        }
        self.store.disconnect(session);
        self.woken.retain(|(token, _)| token % SESSIONS != session.0);
        for present in self.present.values_mut() {
            present.waiters.retain(|token| token % SESSIONS != session.0);
        }
        let keys: Vec<Key> = self
            .present
            .values()
            .filter(|p| p.stored.is_none() && p.session == session)
            .map(|p| p.link.key)
            .collect();
        for key in keys {
            self.give_up(key);
        }
        for open in self.open.iter_mut().filter(|open| open.session == session) {
            open.revoked = true;
        }
        for reading in self.reading.iter_mut().filter(|reading| reading.session == session) {
            reading.due = None;
        }
    }

    fn advance(&mut self, ms: u64) {
        self.now = self.now + Millis(ms);
        let now = self.now;
        let expired = self.store.expire(now);
        let due = |at: Option<Millis>| at.is_some_and(|at| at <= now);
        let late: Vec<(Key, Generation)> = self
            .present
            .values()
            .filter(|p| p.stored.is_none() && due(p.due))
            .map(|p| (p.link.key, p.generation))
            .collect();
        assert_eq!(expired.reservations.len(), late.len());
        for (key, generation) in late {
            assert!(expired.reservations.contains(&generation));
            self.give_up(key);
            let open = self.open.iter_mut().find(|open| open.room.generation() == generation);
            open.unwrap().revoked = true;
        }
        let mut lapsed = 0;
        for reading in self.reading.iter_mut().filter(|reading| due(reading.due)) {
            assert!(expired.leases.contains(&reading.lease.id()));
            reading.due = None;
            lapsed += 1;
        }
        assert_eq!(expired.leases.len(), lapsed);
        let before = self.present.len();
        self.forget_if(|p| p.stored.as_ref().is_some_and(|stored| due(stored.expires)));
        assert_eq!(expired.blocks, before - self.present.len());
    }

    fn is_resident(&self, key: Key) -> bool {
        self.present.get(&key).is_some_and(|p| p.stored.is_some())
    }

    fn forget_if(&mut self, leaves: impl Fn(&Present) -> bool) {
        self.present.retain(|_, p| p.stored.is_none() || !leaves(p));
    }

    fn is_leased(&self, generation: Generation) -> bool {
        let mut views = self.reading.iter().flat_map(|reading| reading.lease.ready());
        views.any(|(_, view)| view.generation == generation)
    }

    /// Blocks that may be evicted, the least recently used first; `parent` is that of a block about
    /// to be filled.
    fn candidates(&self, parent: Option<Key>) -> Vec<Key> {
        let parents: HashSet<Key> =
            self.present.values().filter_map(|p| p.link.parent).chain(parent).collect();
        let mut idle: Vec<(u64, Key)> = self
            .present
            .values()
            .filter_map(|p| p.stored.as_ref().map(|stored| (p, stored)))
            .filter(|(p, stored)| !stored.pinned && !self.is_leased(p.generation))
            .filter(|(p, _)| !parents.contains(&p.link.key))
            .map(|(p, stored)| (stored.used, p.link.key))
            .collect();
        idle.sort_unstable();
        idle.into_iter().map(|(_, key)| key).collect()
    }

    /// Applies evictions as the events tell them, each of which must have been the right one.
    fn follow_evictions(&mut self, parent: Option<Key>) {
        let mut events = Vec::new();
        assert_eq!(self.store.events(&mut self.cursor, usize::MAX, &mut events), None);
        for event in events {
            if let Change::Removed { key, why: Removal::Evicted, .. } = event.change {
                assert_eq!(self.candidates(parent).first(), Some(&key), "the wrong block left");
                self.present.remove(&key);
            }
        }
    }

    fn check(&mut self) {
        self.follow_evictions(None);
        self.store.audit().unwrap();
        self.check_lookup();
        self.check_bytes();
        let mut woken: Vec<_> =
            self.store.woken().iter().map(|w| (w.waiter.token, w.filled)).collect();
        let mut expected = std::mem::take(&mut self.woken);
        woken.sort_unstable();
        expected.sort_unstable();
        assert_eq!(woken, expected);
        let gauges = self.tenant.stats().gauges;
        let revoked = self.open.iter().filter(|open| open.revoked).count() as u64;
        assert_eq!(gauges.revoking.blocks, revoked);
        assert_eq!(gauges.filling.blocks, self.open.len() as u64 - revoked);
    }

    fn check_lookup(&self) {
        let mut presence = Vec::new();
        for chain in self.links.chunks(DEPTH) {
            let keys: Vec<Key> = chain.iter().map(|link| link.key).collect();
            let found = self.scope.lookup(&keys, &mut presence, self.now);
            let expected = |key: &Key| match self.present.get(key) {
                None => Presence::Absent,
                Some(Present { stored: None, .. }) => Presence::InFlight,
                Some(_) => Presence::Resident(Tier::Dram),
            };
            assert_eq!(presence, keys.iter().map(expected).collect::<Vec<_>>());
            let prefix = keys.iter().take_while(|key| self.is_resident(**key)).count();
            assert_eq!(found.prefix, prefix);
        }
    }

    fn check_bytes(&self) {
        for reading in &self.reading {
            for (index, view) in reading.lease.ready() {
                let mut bytes = vec![0; view.len as usize];
                assert!(reading.lease.read_at(index, 0, &mut bytes).unwrap());
                let right = bytes.iter().all(|byte| *byte == pattern(view.generation));
                assert!(right || self.spoilt.contains(&view.generation), "leased bytes moved");
            }
        }
    }

    /// Lets everything go; the arena must be whole again.
    fn finish(mut self) {
        self.open.clear();
        self.reading.clear();
        self.scope.clear();
        self.store.audit().unwrap();
        let gauges = self.tenant.stats().gauges;
        assert_eq!((gauges.used_bytes, gauges.free_runs), (0, 1));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_history_agrees_with_the_model(ops in prop::collection::vec(op(), 1..120)) {
        let mut world = World::new();
        for op in ops {
            world.step(&op);
        }
        world.finish();
    }
}
