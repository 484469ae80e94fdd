//! The daemon over tiers below memory, as its clients see it: on the simulated fabric, once with the arena
//! mapped by its clients, once without.

use std::sync::Arc;
use std::time::Duration;

use tranship_cache::arena::checksum;
use tranship_cache::client::{BlockResult, Cache};
use tranship_cache::tier::Tier;
use tranship_cache::tier::cold::{Cold, Name, Record};
use tranship_cache::{Key, Link, Millis};
use tranship_tests::below::Scripted;
use tranship_tests::world::{Reach, World, chain, content, fill, identity};

const LEN: usize = 10_000;
const NO_WAIT: Duration = Duration::ZERO;
const AMPLE: Duration = Duration::from_secs(10);

fn keys(links: &[Link]) -> Vec<Key> {
    links.iter().map(|link| link.key).collect()
}

/// A daemon over one tier that has these blocks, and a client.
fn over(reach: Reach, below: &[Link]) -> (World, Arc<Scripted>, Cache) {
    let tier = Scripted::new(Tier::Nvme);
    for link in below {
        let (bytes, identity) = (content(link, LEN), identity().id());
        let (len, checksum) = (LEN as u64, checksum(&bytes));
        tier.has(Record { identity, link: *link, len, checksum, expires: None }, &bytes);
    }
    let world = World::over(reach, 1, 1 << 20, &[Arc::clone(&tier)]);
    let cache = world.client().cache(identity());
    (world, tier, cache)
}

fn read(cache: &Cache, parts: &[(Key, std::ops::Range<u64>)]) -> Vec<Option<Vec<u8>>> {
    let lease = cache.lease_parts(parts, AMPLE).unwrap();
    let read = |(index, (_, result))| match result {
        BlockResult::Ready { len } => {
            let mut bytes = vec![0; len as usize];
            lease.copy_to(index, &mut bytes).unwrap();
            Some(bytes)
        }
        BlockResult::Gone => None,
        other => panic!("{other:?}"),
    };
    lease.results().enumerate().map(read).collect()
}

fn parts_come_from_memory_and_from_below(reach: Reach) {
    let links = chain(1, 3);
    let (world, _tier, cache) = over(reach, &links[..1]);
    fill(&cache, &links[1..2], LEN);
    let parts = [
        (links[0].key, 4_000..4_100),
        (links[0].key, 9_999..10_000),
        (links[1].key, 4_000..4_100),
        (links[2].key, 0..1),
    ];
    // The second time what came up is in memory.
    for _ in 0..2 {
        let found = read(&cache, &parts);
        for ((_, range), (link, bytes)) in
            parts.iter().zip([links[0], links[0], links[1]].iter().zip(&found))
        {
            let whole = content(link, LEN);
            let part = &whole[range.start as usize..range.end as usize];
            assert_eq!(bytes.as_deref(), Some(part));
        }
        assert_eq!(found[3], None, "nobody has it");
    }
    let stats = &world.store().stats()[0];
    // A whole block takes three granules.
    let most = (3 + 2) * 4_096;
    assert_eq!(stats.gauges.resident.bytes, most, "the rest of the block stays below");
    world.store().audit().unwrap();
}

fn parts_that_leave_their_block_are_refused(reach: Reach) {
    let links = chain(1, 2);
    let (_world, _tier, cache) = over(reach, &links[..1]);
    fill(&cache, &links[1..], LEN);
    for link in &links {
        let past = [(link.key, 0..LEN as u64 + 1)];
        let told = cache.lease_parts(&past, AMPLE).unwrap_err().to_string();
        assert!(told.contains("bytes 0..10001 leave block") && told.contains("10000"), "{told}");
    }
    // The session goes on.
    assert!(read(&cache, &[(links[0].key, 0..10)])[0].is_some());
}

fn what_is_persisted_is_below_and_whoever_waits_in_vain_is_told(reach: Reach) {
    let links = chain(1, 4);
    let (world, tier, cache) = over(reach, &links[..1]);
    fill(&cache, &links[1..3], LEN);
    let safe = cache.persist(&keys(&links), AMPLE).unwrap();
    assert_eq!(safe, [true, true, true, false], "the last was never stored");
    let below = |link: &Link| tier.contains(&Name { identity: identity().id(), key: link.key });
    assert_eq!(links.iter().filter(|link| below(link)).count(), 3);

    fill(&cache, &links[3..], LEN);
    tier.holds_answers();
    let safe = cache.persist(&keys(&links), Duration::from_millis(200)).unwrap();
    assert_eq!(safe, [false; 4], "nothing is known to be safe");
    tier.lets_go();
    assert_eq!(cache.persist(&keys(&links), AMPLE).unwrap(), [true; 4], "the blocks went on");
    world.run_for(Duration::from_millis(10));
    world.store().audit().unwrap();
}

fn what_is_prefetched_waits_for_nobody(reach: Reach) {
    let links = chain(1, 3);
    let (world, tier, cache) = over(reach, &links[..2]);
    tier.holds_answers();
    assert_eq!(cache.prefetch(&keys(&links)).unwrap(), 2, "on their way");
    let late = cache.lease(&keys(&links), NO_WAIT).unwrap();
    let results: Vec<_> = late.results().map(|(_, result)| result).collect();
    assert_eq!(results, [BlockResult::Late, BlockResult::Late, BlockResult::Gone]);
    drop(late);
    tier.lets_go();
    let lease = cache.lease(&keys(&links[..2]), AMPLE).unwrap();
    for (index, link) in links[..2].iter().enumerate() {
        let mut bytes = vec![0; LEN];
        lease.copy_to(index, &mut bytes).unwrap();
        assert_eq!(bytes, content(link, LEN));
    }
    assert_eq!(cache.prefetch(&keys(&links)).unwrap(), 2, "they are there");
    drop(lease);
    // Whatever was in flight is over, and everything may leave.
    world.run_for(Duration::from_millis(10));
    world.store().tenants()[0].evict(u64::MAX, Millis(u64::MAX / 2));
    world.store().audit().unwrap();
}

tranship_tests::both_ways! {
    parts_come_from_memory_and_from_below,
    parts_that_leave_their_block_are_refused,
    what_is_persisted_is_below_and_whoever_waits_in_vain_is_told,
    what_is_prefetched_waits_for_nobody,
}
