//! Store, mover and tiers together, over random histories and with tiers that fail at will.

mod simulated;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use proptest::prelude::*;
use tranship_transport::memory::HostMemory;

use self::simulated::{Simulated, Weather};
use super::{Bell, Mover, Piece, Wanted};
use crate::arena::checksum;
use crate::block::{Lease, Outcome, SessionId, Waiter};
use crate::catalog::Presence;
use crate::error::Why;
use crate::events::Change;
use crate::identity::{Geometry, Identity};
use crate::key::Key;
use crate::lineage::{Chain, Link};
use crate::policy::Removal;
use crate::store::{Grant, Item, Options, Scope, Store, Tenant, TenantOptions};
use crate::tier::{Ingest, Lane, Level, Stack, Tier};
use crate::time::{Millis, Wall};

const GRANULE: u64 = 4096;
const CHAINS: usize = 4;
const DEPTH: usize = 6;
const ME: SessionId = SessionId(1);
const FINE: Weather = Weather { full: 0, failing: 0, damaged: 0 };
const FOUL: Weather = Weather { full: 25, failing: 15, damaged: 5 };

struct World {
    store: Store,
    tenant: Tenant,
    scope: Scope,
    mover: Mover,
    tiers: Vec<Arc<Simulated>>,
    links: Vec<Link>,
    now: Millis,
    tokens: u64,
    /// Waiters that were promised a call.
    waiting: HashSet<u64>,
    leases: Vec<Lease>,
    tickets: HashMap<u64, Vec<Key>>,
    /// Blocks that were removed and not put since: nobody may find them.
    removed: HashSet<Key>,
    /// Keys of parts: of which block, and which bytes.
    parts: HashMap<Key, (Key, Range<u64>)>,
}

/// What a block is filled with: a function of its key, as blocks are content-addressed.
fn bytes_of(key: Key, len: u64) -> Vec<u8> {
    key.as_bytes().iter().copied().cycle().take(len as usize).collect()
}

/// Blocks have different lengths, one or two granules.
fn len_of(link: Link) -> u64 {
    GRANULE + u64::from(link.position % 2) * (GRANULE - 100)
}

impl World {
    fn new(granules: u64, seed: u64, weather: Weather, ingest: &[(Tier, Ingest)]) -> Self {
        let tiers: Vec<_> = ingest
            .iter()
            .map(|(tier, _)| Arc::new(Simulated::new(*tier, seed ^ *tier as u64, weather, 15)))
            .collect();
        let levels = tiers.iter().zip(ingest);
        let levels = levels.map(|(tier, (_, ingest))| Level::new(Arc::clone(tier) as _, *ingest));
        let stack = Stack::new(levels.collect());
        let store = Store::new(Options { stack, ..Options::default() });
        let memory = HostMemory::new((granules * GRANULE) as usize).build().unwrap();
        let tenant = store.open_tenant(TenantOptions::new("default", memory)).unwrap();
        let identity = Identity::new("m", "r", "bf16", Geometry::default(), 16);
        let scope = tenant.register(&identity).unwrap();
        let mut links = Vec::new();
        for chain in 0..CHAINS as u32 {
            let mut blocks = Chain::new(&identity);
            links.extend((0..DEPTH as u32).map(|block| blocks.push_tokens(&[chain, block])));
        }
        let mover = Mover::new(store.clone(), Bell::new(|| {}), || Wall(1_000_000));
        let (waiting, removed, parts) = Default::default();
        let (leases, tickets) = Default::default();
        let (now, tokens) = (Millis(100), 0);
        Self {
            store,
            tenant,
            scope,
            mover,
            tiers,
            links,
            now,
            tokens,
            waiting,
            leases,
            tickets,
            removed,
            parts,
        }
    }

    fn put(&mut self, block: usize) -> bool {
        let link = self.links[block];
        let item = Item { link, len: len_of(link), ttl: None };
        match self.scope.reserve(ME, &[item], None, self.now).remove(0) {
            Grant::Granted(mut room) => {
                let bytes = bytes_of(link.key, item.len);
                room.write_at(0, &bytes).unwrap();
                room.commit(checksum(&bytes), self.now).unwrap();
                self.removed.remove(&link.key);
                true
            }
            Grant::Exists | Grant::InFlight => true,
            Grant::Refused(refusal) => {
                assert!(refusal.why.is_room(), "{refusal}");
                false
            }
        }
    }

    fn want(&mut self, block: usize, wait: bool) -> Wanted {
        self.tokens += 1;
        let waiter = wait.then_some(Waiter { session: ME, token: self.tokens });
        let key = self.links[block].key;
        let wanted = self.mover.want(&self.scope, key, Lane::Demand, waiter, self.now);
        if wait && wanted == Wanted::Coming {
            self.waiting.insert(self.tokens);
        }
        wanted
    }

    fn want_part(&mut self, block: usize, range: Range<u64>) -> (Key, Wanted) {
        let key = self.links[block].key;
        let checksum = self.scope.checksum_below(key).unwrap_or_default();
        let piece = Piece { key, range: Some((range.clone(), checksum)) };
        self.tokens += 1;
        let waiter = Some(Waiter { session: ME, token: self.tokens });
        let wanted = self.mover.want_piece(&self.scope, &piece, Lane::Demand, waiter, self.now);
        if wanted == Wanted::Coming {
            self.waiting.insert(self.tokens);
        }
        self.parts.insert(piece.key(), (piece.key, range));
        (piece.key(), wanted)
    }

    fn lease(&mut self, block: usize) -> bool {
        let link = self.links[block];
        let lease = self.scope.lease(ME, &[link.key], None, self.now);
        let ready = matches!(lease.results()[0], Outcome::Ready(_));
        assert!(!ready || !self.removed.contains(&link.key), "a removed block came back");
        self.leases.push(lease);
        ready
    }

    fn remove(&mut self, block: usize) {
        let key = self.links[block].key;
        self.scope.remove(&[key]);
        self.removed.insert(key);
    }

    fn persist(&mut self, blocks: std::ops::Range<usize>) {
        let keys: Vec<Key> = self.links[blocks].iter().map(|link| link.key).collect();
        let ticket = self.mover.persist(&self.scope, &keys, self.now).unwrap();
        self.tickets.insert(ticket, keys);
    }

    /// Lets the tiers end so many jobs each, and the mover act on it.
    fn work(&mut self, most: usize) {
        for tier in &self.tiers {
            tier.work(most);
        }
        self.now = self.now + Millis(1);
        self.mover.tick();
        self.mover.step(self.now);
        for woken in self.store.woken() {
            assert!(self.waiting.remove(&woken.waiter.token), "woken twice or for nothing");
        }
        for persisted in self.mover.persisted() {
            let keys = self.tickets.remove(&persisted.ticket).expect("a ticket ends once");
            assert_eq!(keys.len(), persisted.safe.len());
        }
    }

    fn check(&self) {
        self.store.audit().unwrap();
        for lease in &self.leases {
            for (index, view) in lease.ready() {
                let mut bytes = vec![0; view.len as usize];
                assert!(lease.read_at(index, 0, &mut bytes).unwrap());
                let right = match self.parts.get(&view.key) {
                    None => bytes == bytes_of(view.key, view.len),
                    Some((key, range)) => {
                        bytes == bytes_of(*key, range.end)[range.start as usize..]
                    }
                };
                assert!(right, "wrong bytes of {}", view.key);
            }
        }
    }

    /// Everything ends once the tiers work and leases are given back.
    fn settle(&mut self) {
        self.leases.clear();
        self.tiers.iter().for_each(|tier| tier.set_weather(FINE));
        for _ in 0..10_000 {
            self.work(usize::MAX);
            if self.mover.is_idle() && self.store.moves().is_empty() {
                break;
            }
        }
        assert!(self.mover.is_idle(), "something never ended: {:?}", self.mover);
        assert!(self.waiting.is_empty() && self.tickets.is_empty(), "somebody waits for ever");
        let gauges = self.tenant.stats().gauges;
        assert_eq!((gauges.moving.blocks, gauges.leases, gauges.held.blocks), (0, 0, 0));
        assert_eq!((gauges.filling.blocks, gauges.revoking.blocks), (0, 0));
        self.check();
    }
}

#[derive(Clone, Debug)]
enum Op {
    Put(usize),
    Want(usize, bool),
    Lease(usize),
    Part(usize, u64, u64),
    Release(prop::sample::Index),
    Remove(usize),
    Persist(usize, usize),
    Work(usize),
    Clear,
}

fn op() -> impl Strategy<Value = Op> {
    let block = || 0..CHAINS * DEPTH;
    prop_oneof![
        8 => block().prop_map(Op::Put),
        6 => (block(), any::<bool>()).prop_map(|(block, wait)| Op::Want(block, wait)),
        4 => block().prop_map(Op::Lease),
        2 => (block(), 0..GRANULE, 0..GRANULE)
            .prop_map(|(block, a, b)| Op::Part(block, a.min(b), a.max(b))),
        4 => any::<prop::sample::Index>().prop_map(Op::Release),
        1 => block().prop_map(Op::Remove),
        1 => (block(), 1_usize..4).prop_map(|(first, count)| Op::Persist(first, count)),
        6 => (0_usize..6).prop_map(Op::Work),
        1 => Just(Op::Clear),
    ]
}

fn play(world: &mut World, ops: &[Op]) {
    for op in ops {
        match op {
            Op::Put(block) => drop(world.put(*block)),
            Op::Want(block, wait) => drop(world.want(*block, *wait)),
            Op::Lease(block) => drop(world.lease(*block)),
            Op::Part(block, start, end) => {
                let (part, _) = world.want_part(*block, *start..*end);
                let lease = world.scope.lease(ME, &[part], None, world.now);
                world.leases.push(lease);
            }
            Op::Release(at) if !world.leases.is_empty() => {
                drop(world.leases.swap_remove(at.index(world.leases.len())));
            }
            Op::Release(_) => {}
            Op::Remove(block) => world.remove(*block),
            Op::Persist(first, count) => {
                world.persist(*first..(first + count).min(world.links.len()));
            }
            Op::Work(most) => world.work(*most),
            Op::Clear => {
                world.scope.clear();
            }
        }
        world.check();
    }
    world.settle();
}

fn ingest() -> impl Strategy<Value = Vec<(Tier, Ingest)>> {
    let one = || prop_oneof![Just(Ingest::All), Just(Ingest::Hot), Just(Ingest::Evicted)];
    (one(), prop::option::of(one())).prop_map(|(nvme, object)| {
        let object = object.map(|ingest| (Tier::Object, ingest));
        [(Tier::Nvme, nvme)].into_iter().chain(object).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn nothing_is_lost_or_wrong_whatever_the_tiers_do(
        ops in prop::collection::vec(op(), 1..150),
        seed: u64,
        foul: bool,
        ingest in ingest(),
    ) {
        let mut world = World::new(10, seed, if foul { FOUL } else { FINE }, &ingest);
        play(&mut world, &ops);
    }
}

fn tiers(world: &World) -> Vec<Presence> {
    world.links.iter().map(|link| world.scope.presence(link.key)).collect()
}

#[test]
fn blocks_that_leave_memory_live_on_below_and_come_up_again() {
    for ingest in [Ingest::All, Ingest::Evicted] {
        // Six granules: less than one chain.
        let mut world = World::new(6, 1, FINE, &[(Tier::Nvme, ingest)]);
        for block in 0..DEPTH {
            let mut tries = 0;
            while !world.put(block) {
                world.work(usize::MAX);
                tries += 1;
                assert!(tries < 10, "{ingest:?}: no room for block {block}");
            }
        }
        world.settle();
        let found = tiers(&world);
        let below = found.iter().filter(|p| **p == Presence::Resident(Tier::Nvme)).count();
        assert!(below > 0, "{ingest:?}: {found:?}");
        assert!(!found[..DEPTH].contains(&Presence::Absent), "{ingest:?}: {found:?}");

        let cold = (0..DEPTH).find(|b| found[*b] == Presence::Resident(Tier::Nvme)).unwrap();
        assert!(!world.lease(cold), "it is not in memory");
        assert_eq!(world.leases[0].results(), [Outcome::Late]);
        assert_eq!(world.want(cold, true), Wanted::Coming);
        assert_eq!(world.want(cold, true), Wanted::Coming, "one load for both");
        for _ in 0..4 {
            world.work(usize::MAX);
        }
        assert!(world.waiting.is_empty(), "both were woken");
        assert!(world.lease(cold));
        world.settle();
        assert_eq!(world.tenant.stats().counters.promoted, 1);
    }
}

#[test]
fn only_used_blocks_go_to_a_tier_that_takes_hot_ones() {
    let mut world = World::new(64, 1, FINE, &[(Tier::Object, Ingest::Hot)]);
    world.put(0);
    world.put(1);
    world.work(usize::MAX);
    assert_eq!(world.tiers[0].len(), 0);
    assert!(world.lease(1));
    world.settle();
    assert_eq!(world.tiers[0].len(), 1);
    let counters = world.tenant.stats().counters;
    assert_eq!(counters.demoted, [0, 0, 1]);
}

#[test]
fn a_tier_that_fails_is_replaced_by_the_next() {
    let both = [(Tier::Nvme, Ingest::All), (Tier::Object, Ingest::All)];
    let mut world = World::new(64, 1, FINE, &both);
    world.put(0);
    world.settle();
    world.tenant.evict(u64::MAX, world.now);
    assert_eq!(tiers(&world)[0], Presence::Resident(Tier::Nvme));
    world.tiers[0].set_weather(Weather { damaged: 100, ..FINE });
    assert_eq!(world.want(0, true), Wanted::Coming);
    world.work(usize::MAX);
    world.work(usize::MAX);
    assert!(world.waiting.is_empty() && world.lease(0));
    world.settle();
}

#[test]
fn a_tier_slower_than_the_puts_pushes_back() {
    let mut world = World::new(8, 1, FINE, &[(Tier::Nvme, Ingest::Evicted)]);
    let mut put = 0;
    while world.put(put) {
        put += 1;
    }
    let link = world.links[put];
    let item = Item { link, len: len_of(link), ttl: None };
    let refused = world.scope.reserve(ME, &[item], None, world.now).remove(0);
    let Grant::Refused(refusal) = refused else { panic!("{refused:?}") };
    assert!(matches!(refusal.why, Why::Demoting { .. }), "{refusal}");
    assert!(refusal.retry_after.is_some());
    world.work(usize::MAX);
    world.work(usize::MAX);
    assert!(world.put(put), "room was made");
    world.settle();
}

#[test]
fn a_block_removed_on_its_way_stays_removed() {
    let mut world = World::new(64, 1, FINE, &[(Tier::Nvme, Ingest::All)]);
    world.put(0);
    world.mover.step(world.now);
    world.remove(0);
    world.settle();
    assert_eq!((world.tiers[0].len(), tiers(&world)[0]), (0, Presence::Absent));

    world.put(1);
    world.settle();
    world.tenant.evict(u64::MAX, world.now);
    assert_eq!(world.want(1, true), Wanted::Coming);
    let mut cursor = world.store.subscribe();
    world.remove(1);
    let mut events = Vec::new();
    world.store.events(&mut cursor, usize::MAX, &mut events);
    let (key, tier, why) = (world.links[1].key, Tier::Nvme, Removal::Removed);
    assert_eq!(events.last().unwrap().change, Change::Removed { key, tier, why });
    world.settle();
    assert_eq!(tiers(&world)[1], Presence::Absent);
}

#[test]
fn of_a_block_below_no_more_than_the_part_comes_up() {
    let mut world = World::new(64, 1, FINE, &[(Tier::Nvme, Ingest::All)]);
    world.put(0);
    world.settle();
    world.tenant.evict(u64::MAX, world.now);
    assert_eq!(world.want_part(0, 5000..5001).1, Wanted::Absent, "it leaves the block");
    let (part, wanted) = world.want_part(0, 100..300);
    assert_eq!(wanted, Wanted::Coming);
    world.work(usize::MAX);
    world.work(usize::MAX);
    assert_eq!(world.tenant.stats().gauges.used_bytes, GRANULE);
    assert_eq!(tiers(&world)[0], Presence::Resident(Tier::Nvme), "the whole stayed below");
    let lease = world.scope.lease(ME, &[part], None, world.now);
    assert!(matches!(lease.results()[0], Outcome::Ready(view) if view.len == 200));
    world.leases.push(lease);
    world.check();
    world.settle();
    assert_eq!(world.tiers[0].len(), 1, "a part is not sent down");
}

#[test]
fn what_is_persisted_is_below_when_that_is_said() {
    let mut world = World::new(64, 1, FINE, &[(Tier::Nvme, Ingest::Hot)]);
    world.put(0);
    world.put(1);
    let keys: Vec<Key> = world.links[..3].iter().map(|link| link.key).collect();
    let ticket = world.mover.persist(&world.scope, &keys, world.now).unwrap();
    let mut persisted = Vec::new();
    for _ in 0..4 {
        world.tiers[0].work(usize::MAX);
        world.mover.step(world.now);
        persisted.extend(world.mover.persisted());
    }
    assert_eq!(persisted.len(), 1);
    assert_eq!((persisted[0].ticket, &persisted[0].safe[..]), (ticket, &[true, true, false][..]));
    world.settle();
}

#[test]
fn everything_can_be_sent_down() {
    for (ingest, below) in [(Ingest::All, 3), (Ingest::Evicted, 3), (Ingest::Hot, 1)] {
        let mut world = World::new(64, 1, FINE, &[(Tier::Nvme, ingest)]);
        for block in 0..3 {
            world.put(block);
        }
        assert!(world.lease(1));
        let mut from = Some(0);
        while let Some(place) = from {
            from = world.tenant.evacuate(place, GRANULE);
            world.work(usize::MAX);
        }
        world.settle();
        assert_eq!(world.tiers[0].len(), below, "{ingest:?}");
        assert_eq!(world.tenant.stats().gauges.resident.blocks, 3, "and stays in memory");
    }
}

#[test]
fn a_tenant_without_room_does_not_hold_up_another() {
    let mut world = World::new(4, 1, FINE, &[(Tier::Nvme, Ingest::All)]);
    let memory = HostMemory::new(4 * GRANULE as usize).build().unwrap();
    let other = world.store.open_tenant(TenantOptions::new("other", memory)).unwrap();
    let mut identity = world.scope.identity().clone();
    identity.tenant = "other".to_owned();
    let other = other.register(&identity).unwrap();
    for block in [0, DEPTH, 2 * DEPTH] {
        assert!(world.put(block));
        world.settle();
    }
    let link = Chain::new(&identity).push_tokens(&[1]);
    let bytes = bytes_of(link.key, GRANULE);
    let item = Item { link, len: GRANULE, ttl: None };
    let Grant::Granted(mut room) = other.reserve(ME, &[item], None, world.now).remove(0) else {
        panic!("there is room")
    };
    room.write_at(0, &bytes).unwrap();
    room.commit(checksum(&bytes), world.now).unwrap();
    world.settle();
    for tenant in world.store.tenants() {
        tenant.evict(u64::MAX, world.now);
    }

    // All room of the first tenant is taken by somebody who fills it.
    let taken: Vec<_> = (0..4)
        .map(|chain| Chain::new(world.scope.identity()).push_tokens(&[90 + chain]))
        .map(|link| Item { link, len: GRANULE, ttl: None })
        .collect();
    let grants = world.scope.reserve(ME, &taken, None, world.now);
    assert!(grants.iter().all(|grant| matches!(grant, Grant::Granted(_))), "{grants:?}");
    assert_eq!(world.want(0, true), Wanted::Coming, "it waits for room");
    assert_eq!(world.want(0, true), Wanted::Coming, "and so does the next");
    assert_eq!(world.want(DEPTH, false), Wanted::Absent, "for which nobody else waits");

    let waiter = Some(Waiter { session: ME, token: 1_000 });
    assert_eq!(world.mover.want(&other, link.key, Lane::Demand, waiter, world.now), Wanted::Coming);
    world.waiting.insert(1_000);
    world.work(usize::MAX);
    world.work(usize::MAX);
    assert_eq!(other.presence(link.key), Presence::Resident(Tier::Dram));
    assert_eq!(world.waiting.len(), 2, "the first tenant's still wait");
    drop(grants);
    world.work(usize::MAX);
    world.work(usize::MAX);
    assert!(world.waiting.is_empty() && world.lease(0));
    world.settle();
}

#[test]
fn who_waits_for_room_gives_up_in_the_end() {
    let mut world = World::new(1, 1, FINE, &[(Tier::Nvme, Ingest::All)]);
    world.put(0);
    world.settle();
    world.tenant.evict(u64::MAX, world.now);
    let link = world.links[DEPTH];
    let item = Item { link, len: GRANULE, ttl: None };
    let grants = world.scope.reserve(ME, &[item], None, world.now);
    assert_eq!(world.want(0, true), Wanted::Coming);
    world.now = world.now + Millis(4_990);
    world.work(usize::MAX);
    assert_eq!(world.waiting.len(), 1);
    world.now = world.now + Millis(20);
    world.work(usize::MAX);
    assert!(world.waiting.is_empty(), "told that it did not come");
    drop(grants);
    world.settle();
}
