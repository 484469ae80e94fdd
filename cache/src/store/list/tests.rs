//! Pages over memory and tiers below, while blocks come and go.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use tranship_transport::memory::HostMemory;

use super::*;
use crate::arena::checksum;
use crate::block::SessionId;
use crate::identity::{Geometry, Identity};
use crate::lineage::{Chain, Link};
use crate::store::{Grant, Item, Options, Store, TenantOptions};
use crate::tier::cold::{Cold, Done, Figures, Health, Job, Mark, Refusal, Refused};
use crate::tier::{Ingest, Stack};

const NOW: (Millis, Wall) = (Millis(5000), Wall(1_000_000));
const ME: SessionId = SessionId(1);

/// A tier that has what the test puts there, each block at a place, and is visited some places at a
/// time. It takes no jobs.
struct Shelf {
    tier: Tier,
    step: u64,
    places: Mutex<BTreeMap<u64, (Name, Found)>>,
}

impl Shelf {
    fn put(&self, place: u64, name: Name) {
        let mark = Mark { hits: 3, parent: false };
        let found = Found { len: 9, checksum: 8, expires: Some(Wall(1_000_070)), mark };
        self.places.lock().unwrap().insert(place, (name, found));
    }

    fn take(&self, place: u64) {
        self.places.lock().unwrap().remove(&place);
    }
}

impl Cold for Shelf {
    fn tier(&self) -> Tier {
        self.tier
    }

    fn find(&self, name: &Name) -> Option<Found> {
        let places = self.places.lock().unwrap();
        places.values().find(|(known, _)| known == name).map(|(_, found)| *found)
    }

    fn submit(&self, job: Job) -> Result<(), Box<Refused>> {
        Err(Box::new(Refused { job, why: Refusal::Closed }))
    }

    fn finished(&self, _: &mut Vec<Done>) {}

    fn visit(&self, from: u64, visit: &mut dyn FnMut(&Name, &Found)) -> Option<u64> {
        let places = self.places.lock().unwrap();
        let end = from + self.step;
        places.range(from..end).for_each(|(_, (name, found))| visit(name, found));
        places.range(end..).next().map(|_| end)
    }

    fn health(&self) -> Health {
        Health::ReadOnly("a test".to_owned())
    }

    fn figures(&self) -> Figures {
        Figures::default()
    }

    fn close(&self, _: Duration) {}
}

struct World {
    tenant: Tenant,
    scopes: Vec<Scope>,
    shelves: [Arc<Shelf>; 2],
}

impl World {
    /// Two identities; `step` places below are visited at once.
    fn new(step: u64) -> Self {
        let shelf = |tier| Arc::new(Shelf { tier, step, places: Mutex::default() });
        let shelves = [shelf(Tier::Nvme), shelf(Tier::Object)];
        let level = |shelf: &Arc<Shelf>| Level::new(Arc::clone(shelf) as _, Ingest::Evicted);
        let stack = Stack::new(shelves.iter().map(level).collect());
        let store = Store::new(Options { stack, ..Options::default() });
        let memory = HostMemory::new(3000 * 4096).build().unwrap();
        let tenant = store.open_tenant(TenantOptions::new("t", memory)).unwrap();
        let identity = |model: &str| {
            let mut identity = Identity::new(model, "r1", "bf16", Geometry::default(), 16);
            identity.tenant = "t".to_owned();
            identity
        };
        let scopes = ["a", "b"].map(|model| tenant.register(&identity(model)).unwrap()).into();
        Self { tenant, scopes, shelves }
    }

    fn store(&self, scope: usize, link: Link) {
        let item = Item { link, len: 5, ttl: None };
        let grant = self.scopes[scope].reserve(ME, &[item], None, Millis(1000)).pop();
        let Some(Grant::Granted(mut room)) = grant else { panic!("no room for {link:?}") };
        room.write_at(0, b"bytes").unwrap();
        room.commit(checksum(b"bytes"), Millis(1000)).unwrap();
    }

    fn name(&self, scope: usize, key: Key) -> Name {
        self.scopes[scope].name(key)
    }

    /// All pages, with `between` called after each.
    fn pages(
        &self,
        listing: &Listing,
        limits: PageLimits,
        mut between: impl FnMut(),
    ) -> Vec<Listed> {
        let (mut listed, mut at) = (Vec::new(), Some(Place::START));
        while let Some(from) = at {
            let page = self.tenant.list(listing, from, limits, NOW);
            assert!(page.blocks.len() <= limits.blocks);
            assert_ne!(page.next, Some(from), "it goes on");
            listed.extend(page.blocks);
            at = page.next;
            between();
        }
        listed
    }
}

fn all() -> Listing {
    Listing { tiers: Tiers::ALL, identity: None, keys: Filter::default() }
}

fn key(n: u64) -> Key {
    Key::from_digest(&n.to_le_bytes())
}

fn link(n: u64) -> Link {
    Link { key: key(n), parent: None, position: 0 }
}

#[test]
fn pages_list_each_block_of_memory_once() {
    let world = World::new(1);
    let mut chain = Chain::new(world.scopes[0].identity());
    let links: Vec<_> = (0..2500).map(|block| chain.push_tokens(&[block])).collect();
    links.iter().for_each(|link| world.store(0, *link));
    let limits = PageLimits { blocks: 700, visits: SCAN_BLOCKS };
    let mut listed: Vec<_> =
        world.pages(&all(), limits, || {}).iter().map(|block| block.key).collect();
    let mut keys: Vec<_> = links.iter().map(|link| link.key).collect();
    keys.sort_unstable();
    listed.sort_unstable();
    assert_eq!(listed, keys);
    let digits = links[7].key.to_string()[..20].to_uppercase();
    let some = Listing { keys: Filter::prefix(&digits), ..all() };
    let found = world.pages(&some, limits, || {});
    let [found] = &found[..] else { panic!("{found:?}") };
    assert_eq!((found.position, found.parent), (Some(7), Some(links[6].key)));
    assert_eq!((found.age_ms, found.expires_in_ms, found.tier), (Some(4000), None, Tier::Dram));
}

#[test]
fn a_key_is_found_in_each_tier_that_has_it() {
    let world = World::new(1);
    world.store(1, link(5));
    world.shelves[0].put(0, world.name(0, key(5)));
    world.shelves[0].put(1, world.name(0, key(6)));
    world.shelves[1].put(7, world.name(1, key(5)));
    let one = Listing { keys: Filter::prefix(&key(5).to_string().to_uppercase()), ..all() };
    let (a, b) = (world.scopes[0].id(), world.scopes[1].id());
    for blocks in [1, 2, 10] {
        let found = world.pages(&one, PageLimits { blocks, visits: 1 }, || {});
        let found: Vec<_> = found.iter().map(|block| (block.tier, block.identity)).collect();
        assert_eq!(found, [(Tier::Dram, b), (Tier::Nvme, a), (Tier::Object, b)]);
    }
    let nvme = Listing { tiers: Tiers::only(Tier::Nvme), ..one.clone() };
    let found = world.pages(&nvme, PageLimits { blocks: 9, visits: 9 }, || {});
    let [found] = &found[..] else { panic!("{found:?}") };
    assert_eq!((found.len, found.hits, found.expires_in_ms), (9, 3, Some(70)));
    assert_eq!((found.age_ms, found.position), (None, None), "unknown below memory");
    let theirs = Listing { identity: Some(a), ..one };
    assert_eq!(world.pages(&theirs, PageLimits { blocks: 9, visits: 9 }, || {}).len(), 1);
    for nothing in [format!("{}0", key(5)), "g".to_owned(), "é".to_owned()] {
        let none = Listing { keys: Filter::prefix(&nothing), ..all() };
        assert_eq!(world.pages(&none, PageLimits { blocks: 9, visits: 9 }, || {}), []);
    }
}

#[test]
fn blocks_of_strangers_are_not_listed() {
    let world = World::new(3);
    let stranger = Identity::new("x", "r1", "bf16", Geometry::default(), 16).id();
    for n in 0..20 {
        let theirs = Name { identity: stranger, key: key(n) };
        world.shelves[0].put(n, if n % 4 == 0 { world.name(0, key(n)) } else { theirs });
    }
    let listed = world.pages(&all(), PageLimits { blocks: 2, visits: 1 }, || {});
    assert_eq!(listed.len(), 5);
    assert!(listed.iter().all(|block| block.identity == world.scopes[0].id()));
}

#[derive(Clone, Debug)]
enum Change {
    Put(u64, usize),
    Take(u64),
}

proptest! {
    /// Even places have blocks that stay, odd ones what comes and goes between pages.
    #[test]
    fn what_stays_in_a_tier_is_listed_once(
        staying in proptest::collection::vec((0..2usize, 0..60u64), 0..60),
        changes in proptest::collection::vec((0..2usize, prop_oneof![
            (0..60u64, 0..2usize).prop_map(|(place, scope)| Change::Put(place, scope)),
            (0..60u64).prop_map(Change::Take),
        ]), 0..80),
        step in 1..50u64,
        blocks in 1..12usize,
        visits in 1..60usize,
    ) {
        let world = World::new(step);
        let mut wanted = HashMap::new();
        for (index, (shelf, place)) in staying.iter().enumerate() {
            let (tier, scope) = (world.shelves[*shelf].tier, index % 2);
            let key = key(1000 * *shelf as u64 + place);
            if wanted.insert((tier, 2 * place), (world.scopes[scope].id(), key)).is_none() {
                world.shelves[*shelf].put(2 * place, world.name(scope, key));
            } else {
                // The first owner of a place keeps it.
                let found = world.shelves[*shelf].places.lock().unwrap()[&(2 * place)].0;
                wanted.insert((tier, 2 * place), (found.identity, found.key));
            }
        }
        let mut changes = changes.into_iter();
        let listed = world.pages(&all(), PageLimits { blocks, visits }, || {
            for (shelf, change) in changes.by_ref().take(3) {
                let fresh = |place: u64| key(100_000 + 1000 * shelf as u64 + place);
                match change {
                    Change::Put(place, scope) => {
                        let name = world.name(scope, fresh(place));
                        world.shelves[shelf].put(2 * place + 1, name);
                    }
                    Change::Take(place) => world.shelves[shelf].take(2 * place + 1),
                }
            }
        });
        let mut times = HashMap::new();
        for block in &listed {
            *times.entry((block.tier, block.identity, block.key)).or_insert(0) += 1;
        }
        for ((tier, _), (identity, key)) in wanted {
            prop_assert_eq!(times.get(&(tier, identity, key)), Some(&1), "{} in {}", key, tier);
        }
    }
}
