//! Each promise of the store, by name.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tranship_transport::memory::{HostMemory, Memory};

use super::{Grant, Item, Options, Scope, Store, Tenant, TenantOptions, Watch};
use crate::arena::checksum;
use crate::block::{CommitError, Lease, Outcome, Reserved, Revocation, SessionId, Waiter};
use crate::catalog::Presence;
use crate::error::{Error, Refusal, Why};
use crate::events::{Change, Gap};
use crate::identity::{Geometry, Identity};
use crate::key::Key;
use crate::lineage::{Chain, Link};
use crate::policy::{BlockId, Mark, Policy, Removal, Traits};
use crate::tier::Tier;
use crate::time::Millis;

const GRANULE: u64 = 4096;
const NOW: Millis = Millis(1000);
const ALICE: SessionId = SessionId(1);
const BOB: SessionId = SessionId(2);

fn identity(tenant: &str, model: &str) -> Identity {
    let mut identity = Identity::new(model, "r1", "bf16", Geometry::default(), 16);
    identity.tenant = tenant.into();
    identity
}

struct World {
    store: Store,
    tenant: Tenant,
    scope: Scope,
}

impl World {
    fn new(granules: u64) -> Self {
        Self::with(granules, Options::default())
    }

    fn with(granules: u64, options: Options) -> Self {
        let store = Store::new(options);
        let memory = HostMemory::new((granules * GRANULE) as usize).build().unwrap();
        let tenant = store.open_tenant(TenantOptions::new("t", memory)).unwrap();
        let scope = tenant.register(&identity("t", "m")).unwrap();
        Self { store, tenant, scope }
    }

    fn chain(&self, seed: u32, blocks: u32) -> Vec<Link> {
        let mut chain = Chain::new(self.scope.identity());
        (0..blocks).map(|block| chain.push_tokens(&[seed, block])).collect()
    }

    fn reserve(&self, session: SessionId, link: Link) -> Grant {
        let item = Item { link, len: GRANULE, ttl: None };
        self.scope.reserve(session, &[item], None, NOW).pop().unwrap()
    }

    fn granted(&self, session: SessionId, link: Link) -> Reserved {
        granted(self.reserve(session, link))
    }

    fn refused(&self, link: Link) -> Refusal {
        match self.reserve(ALICE, link) {
            Grant::Refused(refusal) => refusal,
            other => panic!("not refused: {other:?}"),
        }
    }

    fn store(&self, links: &[Link]) {
        for link in links {
            commit(self.granted(ALICE, *link));
        }
    }

    fn resident(&self, links: &[Link]) -> Vec<bool> {
        let mut presence = Vec::new();
        self.scope.lookup(&keys(links), &mut presence, NOW);
        presence.iter().map(|p| matches!(p, Presence::Resident(Tier::Dram))).collect()
    }

    fn lease(&self, session: SessionId, links: &[Link]) -> Lease {
        self.scope.lease(session, &keys(links), None, NOW)
    }
}

/// Whatever a test did, the sums must come out at its end.
impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.store.audit().unwrap();
        }
    }
}

fn granted(grant: Grant) -> Reserved {
    match grant {
        Grant::Granted(reserved) => reserved,
        other => panic!("not granted: {other:?}"),
    }
}

fn commit(mut reserved: Reserved) {
    let bytes = vec![reserved.key().as_bytes()[0]; reserved.len() as usize];
    reserved.write_at(0, &bytes).unwrap();
    reserved.commit(checksum(&bytes), NOW).unwrap();
}

fn keys(links: &[Link]) -> Vec<Key> {
    links.iter().map(|link| link.key).collect()
}

#[test]
fn what_never_committed_never_existed() {
    let world = World::new(8);
    let links = world.chain(0, 2);
    let mut presence = Vec::new();
    let room = world.granted(ALICE, links[0]);
    world.scope.lookup(&keys(&links), &mut presence, NOW);
    assert_eq!(presence, [Presence::InFlight, Presence::Absent]);
    assert_eq!(world.lease(BOB, &links).results(), [Outcome::Late, Outcome::Gone]);
    drop(room);
    world.scope.lookup(&keys(&links), &mut presence, NOW);
    assert_eq!(presence, [Presence::Absent; 2]);
    assert_eq!(world.tenant.stats().gauges.used_bytes, 0);
}

#[test]
fn lookup_finds_the_longest_unbroken_prefix() {
    let world = World::new(8);
    let links = world.chain(0, 5);
    world.store(&links);
    world.scope.remove(&[links[2].key]);
    let mut presence = Vec::new();
    assert_eq!(world.scope.lookup(&keys(&links), &mut presence, NOW).prefix, 2);
    assert_eq!(presence[3], Presence::Resident(Tier::Dram));
    let counters = world.tenant.stats().counters;
    assert_eq!((counters.lookups, counters.hits, counters.misses), (5, [2, 0, 0], 3));
}

#[test]
fn a_wrong_checksum_gives_the_reservation_back() {
    let world = World::new(8);
    let [link] = world.chain(0, 1)[..] else { unreachable!() };
    let mut room = world.granted(ALICE, link);
    room.write_at(1, b"half").unwrap();
    let error = room.commit(7, NOW).unwrap_err();
    let told = error.to_string();
    let CommitError::Mismatch { reserved, expected: 7, found } = error else { panic!("{told}") };
    assert!(told.contains(&format!("{found:016x}")), "{told}");
    assert_eq!(world.resident(&[link]), [false]);
    commit(reserved);
    assert_eq!(world.resident(&[link]), [true]);
    assert_eq!(world.tenant.stats().counters.mismatched, 1);
}

#[test]
fn commits_are_trusted_when_told_so() {
    let world = World::with(8, Options { verify_on_commit: false, ..Options::default() });
    let [link] = world.chain(0, 1)[..] else { unreachable!() };
    world.granted(ALICE, link).commit(7, NOW).unwrap();
    let mut lease = world.lease(ALICE, &[link]);
    assert_eq!(lease.verify(), 1);
    assert_eq!(lease.results(), [Outcome::Corrupt]);
    assert_eq!(world.resident(&[link]), [false]);
}

#[test]
fn one_session_fills_and_the_others_are_woken() {
    let rung = Arc::new(AtomicUsize::new(0));
    let bell = Arc::clone(&rung);
    let notify = Box::new(move || {
        bell.fetch_add(1, Ordering::Relaxed);
    });
    let world = World::with(8, Options { notify: Some(notify), ..Options::default() });
    let links = world.chain(0, 2);
    let waiter = Waiter { session: BOB, token: 9 };
    assert_eq!(world.scope.watch(links[0].key, waiter), Watch::Absent);
    for filled in [false, true] {
        let room = world.granted(ALICE, links[0]);
        assert!(matches!(world.reserve(BOB, links[0]), Grant::InFlight));
        assert_eq!(world.scope.watch(links[0].key, waiter), Watch::Waiting);
        assert!(world.store.woken().is_empty());
        if filled {
            commit(room);
        } else {
            drop(room);
        }
        let woken = world.store.woken();
        assert_eq!(woken.len(), 1);
        assert_eq!((woken[0].waiter, woken[0].filled), (waiter, filled));
    }
    assert_eq!(world.scope.watch(links[0].key, waiter), Watch::Resident);
    assert!(matches!(world.reserve(BOB, links[0]), Grant::Exists));
    assert_eq!(rung.load(Ordering::Relaxed), 2);
}

#[test]
fn a_disconnect_takes_uncommitted_reservations_and_leases_and_nothing_else() {
    let world = World::new(8);
    let links = world.chain(0, 4);
    world.store(&links[..1]);
    let lease = world.lease(BOB, &links[..1]);
    let _also = world.lease(ALICE, &links[..1]);
    let late = world.granted(BOB, links[1]);
    let kept = world.granted(ALICE, links[2]);
    let waiter = |session| Waiter { session, token: 0 };
    assert_eq!(world.scope.watch(links[1].key, waiter(ALICE)), Watch::Waiting);
    assert_eq!(world.scope.watch(links[2].key, waiter(BOB)), Watch::Waiting);

    let left = world.store.disconnect(BOB);
    assert_eq!((left.reservations, left.leases), (1, 1));
    let woken = world.store.woken();
    assert_eq!((woken.len(), woken[0].waiter, woken[0].filled), (1, waiter(ALICE), false));

    // The key is free at once; the bytes are not, until nobody can write them any more.
    let again = world.granted(ALICE, links[1]);
    assert_ne!(again.offset(), late.offset());
    let offset = late.offset();
    let void = late.commit(checksum(&vec![0; GRANULE as usize]), NOW).unwrap_err();
    assert!(matches!(void, CommitError::Revoked { why: Revocation::Disconnected, .. }), "{void}");
    let reused = world.granted(ALICE, links[3]);
    assert_eq!(reused.offset(), offset);

    drop(lease);
    commit(again);
    commit(kept);
    assert!(world.store.woken().is_empty(), "the waiter of a lost session is forgotten");
    assert_eq!(world.resident(&links), [true, true, true, false]);
}

#[test]
fn eviction_takes_leaves_first_and_leaves_no_hole() {
    let world = World::new(6);
    let (a, b) = (world.chain(0, 3), world.chain(1, 3));
    world.store(&a);
    world.store(&b);
    drop(world.lease(ALICE, &a));
    let c = world.chain(2, 6);
    for (stored, gone) in [(1, 1), (2, 2), (3, 3)] {
        world.store(&c[stored - 1..stored]);
        let left = world.resident(&b);
        assert_eq!(left, [gone < 3, gone < 2, gone < 1]);
        assert_eq!(world.resident(&a), [true; 3]);
    }
}

#[test]
fn a_block_being_filled_keeps_its_ancestors() {
    let world = World::new(3);
    let links = world.chain(0, 4);
    world.store(&links[..2]);
    let _room = world.granted(ALICE, links[2]);
    let refusal = world.refused(links[3]);
    assert!(matches!(refusal.why, Why::OverQuota { .. }), "{refusal}");
    assert_eq!(world.resident(&links[..2]), [true; 2]);
}

#[test]
fn leased_and_pinned_blocks_are_never_evicted() {
    let world = World::new(3);
    let links: Vec<Link> = (0..6).map(|seed| world.chain(seed, 1)[0]).collect();
    world.store(&links[..3]);
    let lease = world.lease(ALICE, &links[..1]);
    assert_eq!(world.scope.pin(&keys(&links[1..2])), 1);
    assert_eq!(world.scope.pin(&keys(&links[1..2])), 0);
    world.store(&links[3..4]);
    assert_eq!(world.resident(&links[..4]), [true, true, false, true]);
    let _room = world.lease(ALICE, &links[3..4]);
    let refusal = world.refused(links[4]);
    assert!(matches!(refusal.why, Why::OverQuota { held, .. } if held == 3 * GRANULE));
    assert!(refusal.retry_after.is_some());
    drop(lease);
    world.store(&links[4..5]);
    assert_eq!(world.resident(&links[..2]), [false, true]);
    assert_eq!(world.scope.unpin(&keys(&links[1..2])), 1);
    assert_eq!(world.tenant.evict(u64::MAX, NOW), 2 * GRANULE);
}

#[test]
fn a_removed_block_stays_in_place_for_its_readers() {
    let world = World::new(2);
    let links = world.chain(0, 1);
    world.store(&links);
    let lease = world.lease(ALICE, &links);
    let second = world.lease(BOB, &links);
    assert_eq!(world.scope.remove(&keys(&links)), 1);
    assert_eq!(world.resident(&links), [false]);
    let again = world.granted(BOB, links[0]);
    let Outcome::Ready(view) = lease.results()[0] else { unreachable!() };
    assert_ne!(view.offset, again.offset());
    drop(again);
    let mut bytes = vec![0; GRANULE as usize];
    assert!(lease.read_at(0, 0, &mut bytes).unwrap());
    assert_eq!(checksum(&bytes), view.checksum);
    drop(lease);
    assert_eq!(world.tenant.stats().gauges.doomed.blocks, 1);
    drop(second);
    assert_eq!(world.tenant.stats().gauges.used_bytes, 0);
}

#[test]
fn deadlines_end_reservations_leases_and_blocks() {
    let world = World::new(8);
    let links = world.chain(0, 2);
    let ttl = Some(Millis(10));
    let item = |link, ttl| Item { link, len: GRANULE, ttl };
    let first = world.scope.reserve(ALICE, &[item(links[0], Some(Millis(30)))], ttl, NOW).remove(0);
    commit(granted(first));
    let slow = granted(world.scope.reserve(ALICE, &[item(links[1], None)], ttl, NOW).remove(0));
    let lease = world.scope.lease(BOB, &keys(&links[..1]), Some(Millis(20)), NOW);
    assert_eq!(world.store.next_deadline(), Some(Millis(1010)));
    assert_eq!(world.store.expire(Millis(1009)), super::Expired::default());

    let due = world.store.expire(Millis(1010));
    assert_eq!(due.reservations, [slow.generation()]);
    let void = slow.commit(checksum(&vec![0; GRANULE as usize]), NOW).unwrap_err();
    assert!(matches!(void, CommitError::Revoked { why: Revocation::Deadline, .. }));

    assert_eq!(world.store.expire(Millis(1025)).leases, [lease.id()]);
    assert_eq!(world.store.expire(Millis(1030)).blocks, 1);
    assert_eq!(world.resident(&links[..1]), [false]);
    assert_eq!(world.tenant.stats().gauges.doomed.blocks, 1, "its reader still has it");
    drop(lease);
    assert_eq!(world.tenant.stats().gauges.used_bytes, 0);
    assert_eq!(world.store.next_deadline(), None);
}

#[test]
fn refusals_say_why_and_when_to_come_back() {
    let world = World::new(4);
    let links = world.chain(0, 3);
    let item = |link, len| Item { link, len, ttl: None };
    let refuse = |item| match world.scope.reserve(ALICE, &[item], None, NOW).remove(0) {
        Grant::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    };
    let large = refuse(item(links[0], 5 * GRANULE));
    assert_eq!(large.why, Why::TooLarge { len: 5 * GRANULE, max: 4 * GRANULE });
    assert_eq!(large.retry_after, None);
    assert!(matches!(refuse(item(links[0], u64::MAX)).why, Why::TooLarge { .. }));

    world.store(&links[..1]);
    let odd = Link { position: 7, ..links[1] };
    assert!(matches!(refuse(item(odd, 1)).why, Why::Lineage { known: 0, told: 6, .. }));

    world.store.drain(true);
    assert_eq!(refuse(item(links[1], 1)).why, Why::Draining);
    assert_eq!(world.resident(&links[..1]), [true], "reads go on");
    world.store.drain(false);

    let all = [item(links[1], 2 * GRANULE), item(links[2], 3 * GRANULE), item(links[0], 1)];
    let ttl = Some(Millis(50));
    let grants = world.scope.reserve(ALICE, &all, ttl, NOW);
    let Grant::Refused(full) = grants[1] else { panic!("{grants:?}") };
    assert_eq!(full.retry_after, Some(Millis(50)), "when the first reservation is due");
    assert!(full.to_string().contains("release leases"), "{full}");
    assert!(matches!(grants[2], Grant::Exists), "what is there is told in any case");
}

#[test]
fn fragments_are_not_cured_by_emptying_the_cache() {
    let world = World::new(40);
    let small: Vec<Link> = (0..40).map(|seed| world.chain(seed, 1)[0]).collect();
    world.store(&small);
    let every_third: Vec<Link> = small.iter().copied().step_by(3).collect();
    world.scope.pin(&keys(&every_third));
    let link = world.chain(99, 1)[0];
    let item = Item { link, len: 3 * GRANULE, ttl: None };
    let grant = world.scope.reserve(ALICE, &[item], None, NOW).remove(0);
    let Grant::Refused(Refusal { why: Why::NoRoom { largest, .. }, .. }) = grant else {
        panic!("{grant:?}")
    };
    assert_eq!(largest, 2 * GRANULE);
    assert_eq!(world.tenant.stats().counters.evicted, 24);
}

#[test]
fn an_arena_is_host_memory() {
    let world = World::new(8);
    let host = HostMemory::new(8 * GRANULE as usize).build().unwrap();
    let (descriptor, len) = (host.fd().unwrap().try_clone_to_owned().unwrap(), host.len());
    #[expect(unsafe_code, reason = "memory of a device is made so")]
    // SAFETY: no device is given it.
    let memory = unsafe { Memory::device(std::ptr::null_mut(), len, descriptor, 0, Box::new(())) };
    let refused = world.store.open_tenant(TenantOptions::new("u", memory)).unwrap_err();
    assert_eq!(refused, Error::ArenaOnDevice);
    world.store.open_tenant(TenantOptions::new("u", host)).unwrap();
}

#[test]
fn tenants_and_identities_are_kept_apart() {
    let world = World::new(8);
    let memory = || HostMemory::new(8 * GRANULE as usize).build().unwrap();
    let twice = world.store.open_tenant(TenantOptions::new("t", memory()));
    assert_eq!(twice.unwrap_err(), Error::TenantExists("t".into()));
    let other = world.store.open_tenant(TenantOptions::new("u", memory())).unwrap();
    let foreign = world.tenant.register(&identity("u", "m")).unwrap_err();
    assert!(matches!(foreign, Error::ForeignIdentity { .. }), "{foreign}");

    let links = world.chain(0, 1);
    world.store(&links);
    let mut presence = Vec::new();
    for scope in [
        other.register(&identity("u", "m")).unwrap(),
        world.tenant.register(&identity("t", "another")).unwrap(),
    ] {
        assert_eq!(scope.lookup(&keys(&links), &mut presence, NOW).prefix, 0);
    }
    let same = world.tenant.register(&identity("t", "m")).unwrap();
    assert_eq!(same.lookup(&keys(&links), &mut presence, NOW).prefix, 1);
    assert_eq!(world.tenant.scopes().len(), 2);
}

#[test]
fn clearing_spares_what_is_stored_after_it_and_closing_spares_nothing() {
    let world = World::new(8);
    let links = world.chain(0, 4);
    world.store(&links[..2]);
    world.scope.pin(&keys(&links[..1]));
    let open = world.granted(ALICE, links[2]);
    assert_eq!(world.tenant.clear(), 2);
    commit(open);
    assert_eq!(world.resident(&links), [false, false, true, false]);

    let late = world.granted(ALICE, links[3]);
    assert_eq!(world.scope.close(), 1);
    let void = late.commit(checksum(&vec![0; GRANULE as usize]), NOW);
    assert!(void.is_err());
    assert!(matches!(world.refused(links[0]).why, Why::Closed(_)));
    let fresh = world.tenant.register(&identity("t", "other")).unwrap();
    assert_eq!(world.resident(&links), [false; 4]);
    let item = Item { link: links[0], len: 1, ttl: None };
    assert!(matches!(fresh.reserve(ALICE, &[item], None, NOW)[0], Grant::Granted(_)));
}

#[test]
fn a_corrupt_block_is_dropped_unless_it_was_replaced() {
    let world = World::new(8);
    let links = world.chain(0, 2);
    world.store(&links);
    let found = world.scope.info(links[1].key).unwrap().view;
    world.tenant.arena().write(found.offset + 5, b"stray");
    let scrubbed = world.scope.scrub(ALICE, &keys(&links), NOW);
    assert_eq!((scrubbed.checked, scrubbed.corrupt), (2, 1));
    assert_eq!(world.resident(&links), [true, false]);
    world.store(&links[1..]);
    assert!(!world.scope.mark_corrupt(links[1].key, found.generation));
    let now = world.scope.info(links[1].key).unwrap().view.generation;
    assert!(world.scope.mark_corrupt(links[1].key, now));
    assert_eq!(world.tenant.stats().counters.corrupt, 2);
}

#[test]
fn events_tell_every_change_in_order_and_gaps() {
    let world = World::with(8, Options { events: 3, ..Options::default() });
    let mut cursor = world.store.subscribe();
    let mut slow = cursor.clone();
    let links = world.chain(0, 2);
    world.store(&links);
    world.scope.remove(&keys(&links[1..]));
    let mut events = Vec::new();
    assert_eq!(world.store.events(&mut cursor, 9, &mut events), None);
    let changes: Vec<_> = events.iter().map(|event| event.change).collect();
    let stored = |link| Change::Stored { link, len: GRANULE, tier: Tier::Dram };
    let (key, why) = (links[1].key, Removal::Removed);
    let removed = Change::Removed { key, tier: Tier::Dram, why };
    assert_eq!(changes, [stored(links[0]), stored(links[1]), removed]);
    assert!(events.iter().all(|event| event.identity == world.scope.id()));

    world.scope.clear();
    events.clear();
    let gap = world.store.events(&mut slow, 1, &mut events);
    assert_eq!(gap, Some(Gap { from: 1, to: 1 }));
    assert_eq!(events[0].change, stored(links[1]));
    world.store.events(&mut slow, 9, &mut events);
    assert_eq!(events.last().unwrap().change, Change::Cleared);
}

#[test]
fn watermarks_are_restored_in_the_background() {
    let world = World::new(100);
    let links: Vec<Link> = (0..96).map(|seed| world.chain(seed, 1)[0]).collect();
    world.store(&links[..95]);
    assert_eq!(world.store.reclaim(NOW), 0);
    world.store(&links[95..]);
    assert_eq!(world.store.reclaim(NOW), 6 * GRANULE);
    world.tenant.set_quota(50 * GRANULE);
    assert_eq!(world.store.reclaim(NOW), 45 * GRANULE);
    assert_eq!(world.tenant.stats().gauges.used_bytes, 45 * GRANULE);
}

#[test]
fn accesses_stay_inside_their_block() {
    let world = World::new(2);
    let [link] = world.chain(0, 1)[..] else { unreachable!() };
    let mut room = world.granted(ALICE, link);
    assert!(room.write_at(GRANULE - 1, b"ab").is_err());
    assert!(room.write_at(u64::MAX, b"ab").is_err());
    room.write_at(GRANULE, b"").unwrap();
    commit(room);
    let lease = world.lease(ALICE, &[link]);
    assert!(lease.read_at(0, GRANULE - 1, &mut [0; 2]).is_err());
    assert_eq!(lease.read_at(1, 0, &mut [0; 2]), Ok(false));
}

/// Proposes the block that came last, whatever it was told, and lets nobody in for it.
struct Stubborn(Option<BlockId>);

impl Policy for Stubborn {
    fn name(&self) -> &'static str {
        "stubborn"
    }
    fn on_insert(&mut self, id: BlockId, _: &Traits, _: Millis) {
        self.0 = Some(id);
    }
    fn on_hit(&mut self, _: BlockId, _: Millis) {}
    fn on_hold(&mut self, _: BlockId) {}
    fn on_free(&mut self, _: BlockId) {}
    fn on_remove(&mut self, _: BlockId, _: Removal) {}
    fn victim(&mut self, _: Millis) -> Option<BlockId> {
        self.0
    }
    fn admit(&mut self, _: &Traits, _: BlockId, _: Millis) -> bool {
        false
    }
    fn mark(&self, _: BlockId) -> Mark {
        Mark::default()
    }
    fn on_hit_below(&mut self, mark: Mark, _: Millis, _: Millis) -> Mark {
        mark
    }
    fn worth(&self, _: Mark, _: Millis) -> f32 {
        0.0
    }
}

#[test]
fn a_policy_cannot_evict_what_is_held() {
    let world = World::new(1);
    let memory = HostMemory::new(4 * GRANULE as usize).build().unwrap();
    let options =
        TenantOptions { policy: Box::new(Stubborn(None)), ..TenantOptions::new("u", memory) };
    let tenant = world.store.open_tenant(options).unwrap();
    let scope = tenant.register(&identity("u", "m")).unwrap();
    let link = Chain::new(scope.identity()).push(b"only");
    let item = Item { link, len: 1, ttl: None };
    commit(granted(scope.reserve(ALICE, &[item], None, NOW).remove(0)));
    let lease = scope.lease(BOB, &[link.key], None, NOW);
    assert_eq!(tenant.evict(1, NOW), 0);
    assert_eq!(tenant.stats().counters.policy_faults, 1);
    drop(lease);
    assert_eq!(tenant.evict(1, NOW), GRANULE);
}

#[test]
fn what_is_not_admitted_displaces_nothing() {
    let world = World::new(1);
    let memory = HostMemory::new(2 * GRANULE as usize).build().unwrap();
    let options =
        TenantOptions { policy: Box::new(Stubborn(None)), ..TenantOptions::new("u", memory) };
    let tenant = world.store.open_tenant(options).unwrap();
    let scope = tenant.register(&identity("u", "m")).unwrap();
    let mut links = Vec::new();
    for seed in [b"old", b"new"] {
        let mut chain = Chain::new(scope.identity());
        links.extend([chain.push(seed), chain.push(seed)]);
    }
    let items: Vec<Item> =
        links.iter().map(|link| Item { link: *link, len: GRANULE, ttl: None }).collect();
    // Free space is given without asking.
    for item in &items[..2] {
        commit(granted(scope.reserve(ALICE, &[*item], None, NOW).remove(0)));
    }
    let answers = scope.reserve(ALICE, &items[2..], None, NOW);
    for answer in &answers {
        let Grant::Refused(refusal) = answer else { panic!("{answer:?}") };
        assert_eq!(refusal.why, Why::NotAdmitted(links[2].key), "what follows it is not asked for");
        assert_eq!(refusal.retry_after, None);
    }
    assert_eq!(scope.lookup(&keys(&links[..2]), &mut Vec::new(), NOW).prefix, 2);
    let counters = tenant.stats().counters;
    assert_eq!((counters.not_admitted, counters.refused, counters.evicted), (1, 2, 0));
    assert_eq!(tenant.evict(GRANULE, NOW), GRANULE, "eviction itself asks nobody");
}

#[test]
fn a_check_is_no_use() {
    let world = World::new(2);
    let links: Vec<Link> = (0..3).map(|seed| world.chain(seed, 1)[0]).collect();
    world.store(&links[..2]);
    assert_eq!(world.scope.scrub(BOB, &keys(&links), NOW).checked, 2);
    world.scope.scrub(BOB, &keys(&links[..1]), NOW);
    assert_eq!(world.scope.info(links[0].key).unwrap().hits, 0);
    world.store(&links[2..]);
    assert_eq!(world.resident(&links), [false, true, true]);
}

#[test]
fn handles_travel_between_threads() {
    fn travels<T: Send + Sync>() {}
    travels::<Store>();
    travels::<Tenant>();
    travels::<Scope>();
    travels::<Reserved>();
    travels::<Lease>();
}
