//! The daemon and its clients, end to end, on the simulated fabric: once with the arena mapped by its
//! clients, once without.

use std::time::Duration;

use tranship_cache::Key;
use tranship_cache::client::{BlockResult, Error, Event, Fetched, Grant, ReadError, Stored};
use tranship_cache::wire::{Committed, FaultCode, Hello, Item, Reply, Request, VERSION};
use tranship_tests::world::{Reach, World, chain, content, fill, identity};
use tranship_transport::{Drive, Engine, HostMemory, Incoming, Reason};

const LEN: usize = 10_000;
const NO_WAIT: Duration = Duration::ZERO;

fn keys(links: &[tranship_cache::Link]) -> Vec<Key> {
    links.iter().map(|link| link.key).collect()
}

fn what_one_client_stores_another_loads(reach: Reach) {
    for seed in 0..20 {
        let world = World::new(reach, seed, 1 << 20);
        let links = chain(1, 10);
        fill(&world.client().cache(identity()), &links, LEN);

        let cache = world.client().cache(identity());
        let mut wanted = keys(&links);
        wanted.push(chain(2, 1)[0].key);
        let found = cache.lookup(&wanted).unwrap();
        assert_eq!(found.prefix, 10);
        assert_eq!(found.by_tier().iter().sum::<usize>(), 10);
        let lease = cache.lease(&wanted, NO_WAIT).unwrap();
        for (index, link) in links.iter().enumerate() {
            let mut bytes = vec![0; LEN];
            lease.copy_to(index, &mut bytes).unwrap();
            assert_eq!(bytes, content(link, LEN), "seed {seed}");
        }
        assert_eq!(lease.results().last().unwrap().1, BlockResult::Gone);
        let not_ready = ReadError::NotReady { index: 10 };
        assert_eq!(lease.copy_to(10, &mut [0; LEN]).unwrap_err(), not_ready);
        drop(lease);
        world.run_for(Duration::from_millis(10));
        assert_eq!(world.store().stats()[0].gauges.leases, 0);
        world.store().audit().unwrap();
    }
}

fn identities_do_not_see_each_other(reach: Reach) {
    let world = World::new(reach, 1, 1 << 20);
    let client = world.client();
    let links = chain(1, 3);
    fill(&client.cache(identity()), &links, LEN);
    let mut other = identity();
    other.dtype = "fp8_e4m3".to_owned();
    assert_eq!(client.cache(other).lookup(&keys(&links)).unwrap().prefix, 0);
    let secret = world.builder().tenant("secret", "open sesame").connect(&world.address).unwrap();
    assert_eq!(secret.cache(identity()).lookup(&keys(&links)).unwrap().prefix, 0);
}

fn strangers_are_refused_with_a_reason(reach: Reach) {
    let world = World::new(reach, 1, 1 << 20);
    let code = |error| match error {
        Error::Refused(fault) => (fault.code, fault.text),
        other => panic!("{other}"),
    };
    let wrong = world.builder().tenant("secret", "guess").connect(&world.address).unwrap_err();
    let (kind, text) = code(wrong);
    assert_eq!(kind, FaultCode::Denied);
    assert!(text.contains("token is wrong"), "{text}");
    let nobody = world.builder().tenant("nobody", "").connect(&world.address).unwrap_err();
    let (kind, text) = code(nobody);
    assert_eq!(kind, FaultCode::Denied);
    assert!(text.contains("\"nobody\""), "{text}");
    let unreachable = world.builder().connect(&"sim:99".parse().unwrap()).unwrap_err();
    assert!(matches!(unreachable, Error::Unreachable { .. }), "{unreachable}");
    assert!(unreachable.to_string().contains("tranship serve"), "{unreachable}");
}

fn one_fills_and_the_others_wait(reach: Reach) {
    for seed in 0..20 {
        let world = World::new(reach, seed, 1 << 20);
        let (first, second) = (world.client().cache(identity()), world.client().cache(identity()));
        let links = chain(1, 1);
        let wanted = [(links[0], LEN as u64)];
        let Grant::Granted(mine) = first.reserve(&wanted).unwrap().remove(0) else { panic!() };
        assert!(matches!(second.reserve(&wanted).unwrap()[0], Grant::InFlight));
        // Nobody waits for ever.
        let late = second.lease(&keys(&links), Duration::from_millis(5)).unwrap();
        assert_eq!(late.results().next().unwrap().1, BlockResult::Late);
        // Given up: the block is gone for those who wait, and free to fill.
        drop(mine);
        let gone = second.lease(&keys(&links), Duration::from_millis(500)).unwrap();
        assert_eq!(gone.results().next().unwrap().1, BlockResult::Gone);
        let Grant::Granted(theirs) = second.reserve(&wanted).unwrap().remove(0) else { panic!() };
        let filled = theirs.write(&content(&links[0], LEN)).unwrap();
        second.commit(vec![filled]).unwrap().remove(0).unwrap();
        let ready = first.lease(&keys(&links), Duration::from_millis(500)).unwrap();
        assert_eq!(ready.results().next().unwrap().1, BlockResult::Ready { len: LEN as u64 });
    }
}

fn a_client_that_dies_loses_only_its_own(reach: Reach) {
    for seed in 0..20 {
        let world = World::new(reach, seed, 1 << 20);
        let survivor = world.client().cache(identity());
        let links = chain(1, 3);
        fill(&survivor, &links, LEN);
        {
            let victim = world.client();
            let address = victim.engine().addresses()[0].clone();
            let cache = victim.cache(identity());
            let lease = cache.lease(&keys(&links), NO_WAIT).unwrap();
            let grants = cache.reserve(&[(chain(2, 1)[0], LEN as u64)]).unwrap();
            assert!(matches!(grants[0], Grant::Granted(_)));
            world.network.kill(&address);
            drop((lease, grants));
        }
        world.run_for(Duration::from_secs(30));
        let stats = world.store().stats().remove(0);
        assert_eq!((stats.gauges.leases, stats.gauges.filling.blocks), (0, 0), "seed {seed}");
        assert_eq!(survivor.lookup(&keys(&links)).unwrap().prefix, 3);
        world.store().audit().unwrap();
    }
}

fn a_wrong_checksum_is_refused_at_commit_and_a_stray_write_is_a_miss(reach: Reach) {
    let world = World::new(reach, 3, 1 << 20);
    let cache = world.client().cache(identity());
    let links = chain(1, 2);
    // A stray write between filling and commit.
    let Grant::Granted(room) = cache.reserve(&[(links[0], LEN as u64)]).unwrap().remove(0) else {
        panic!()
    };
    let space = room.space().unwrap();
    let filled = room.write(&content(&links[0], LEN)).unwrap();
    // SAFETY: the block is still this client's, and nobody else touches it.
    unsafe { space.add(100).write(!space.add(100).read()) };
    let tenant = world.store().tenants().remove(0);
    let refused = cache.commit(vec![filled]).unwrap().remove(0).unwrap_err();
    assert!(refused.to_string().contains("checksum"), "{refused}");
    assert_eq!(cache.lookup(&keys(&links)).unwrap().prefix, 0);
    world.run_for(Duration::from_millis(5));
    // A stray write after the commit.
    fill(&cache, &links, LEN);
    tenant.arena().memory().write_at(100, b"stray").unwrap();
    let lease = cache.lease(&keys(&links), NO_WAIT).unwrap();
    let error = lease.copy_to(0, &mut vec![0; LEN]).unwrap_err();
    assert!(matches!(error, ReadError::Corrupt { .. }), "{error}");
    lease.copy_to(1, &mut vec![0; LEN]).unwrap();
    drop(lease);
    world.run_for(Duration::from_millis(5));
    assert_eq!(cache.lookup(&keys(&links)).unwrap().prefix, 0, "the corrupt block is gone");
    let counters = world.store().stats().remove(0).counters;
    assert_eq!((counters.mismatched, counters.corrupt), (1, 1));
}

fn the_daemon_writes_blocks_into_the_callers_window(reach: Reach) {
    for seed in 0..20 {
        let world = World::new(reach, seed, 1 << 20);
        let client = world.client();
        let cache = client.cache(identity());
        let links = chain(1, 4);
        fill(&cache, &links, LEN);
        let engine = client.engine();
        let pages = engine.alloc(HostMemory::new(4 * LEN)).unwrap();
        let mut wanted: Vec<_> =
            links.iter().enumerate().map(|(i, link)| (link.key, (i * LEN) as u64)).collect();
        wanted.push((chain(9, 1)[0].key, 0));
        let results = cache.fetch(&wanted, &pages, NO_WAIT).unwrap();
        assert_eq!(results[4], Fetched::Gone);
        for (i, link) in links.iter().enumerate() {
            let mut bytes = vec![0; LEN];
            pages.memory().read_at(i * LEN, &mut bytes).unwrap();
            assert_eq!(results[i], Fetched::Ready { len: LEN as u64 }, "seed {seed}");
            assert_eq!(bytes, content(link, LEN));
        }
        // Outside the window nothing is written, and the reason is told.
        let outside = [(links[0].key, (4 * LEN) as u64)];
        let results = cache.fetch(&outside, &pages, NO_WAIT).unwrap();
        assert_eq!(results, [Fetched::Failed(Reason::OutOfBounds)]);
    }
}

fn hostile_messages_are_answered_and_harm_nobody(reach: Reach) {
    let world = World::new(reach, 5, 1 << 20);
    let cache = world.client().cache(identity());
    let links = chain(1, 3);
    fill(&cache, &links, LEN);

    let stranger = Engine::builder()
        .fabric(world.network.provider())
        .clock(world.network.clock())
        .drive(Drive::Caller)
        .build()
        .unwrap();
    let daemon = stranger.connect(&world.address, Duration::from_secs(1)).unwrap();
    let ask = |bytes: Vec<u8>| -> Option<Reply> {
        let _ = stranger.send(daemon, bytes).wait();
        loop {
            match stranger.recv(Duration::from_millis(100))? {
                Incoming::Message { bytes, .. } => break Some(Reply::decode(&bytes).unwrap().1),
                Incoming::Connected(_) | Incoming::Disconnected { .. } => {}
            }
        }
    };
    let fault = |reply: Option<Reply>| match reply {
        Some(Reply::Fault(fault)) => fault,
        other => panic!("{other:?}"),
    };
    // Nothing goes before hello.
    let lookup = Request::Lookup { scope: 0, keys: keys(&links) }.encode(1);
    assert_eq!(fault(ask(lookup.clone())).code, FaultCode::Unknown);
    // Another version is told which one is spoken here.
    let (name, tenant, token) = ("x".to_owned(), "default".to_owned(), String::new());
    let hello = Hello { version: VERSION, name, tenant, token };
    let newer = Hello { version: VERSION + 1, ..hello.clone() };
    let told = fault(ask(Request::Hello(newer).encode(2)));
    assert_eq!(told.code, FaultCode::Version);
    assert!(told.text.contains("same release"), "{told}");
    assert!(matches!(ask(Request::Hello(hello).encode(3)), Some(Reply::Welcome(_))));
    // A scope and a reservation of nobody.
    assert_eq!(fault(ask(lookup)).code, FaultCode::Unknown);
    let commit = Request::Commit { blocks: vec![(1, 2), (u64::MAX, 0)] }.encode(4);
    let Some(Reply::Committed(answers)) = ask(commit) else { panic!() };
    assert!(answers.iter().all(|answer| matches!(answer, Committed::Refused { .. })));
    // Truncated at every byte, and random bytes in every kind.
    let whole = Request::Reserve {
        scope: 0,
        deadline_ms: 1,
        ttl_ms: 1,
        items: vec![Item { link: links[0], len: u64::MAX }],
    }
    .encode(5);
    for cut in 8..whole.len() {
        assert_eq!(fault(ask(whole[..cut].to_vec())).code, FaultCode::Malformed, "at {cut}");
    }
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..2000_u64 {
        let mut bytes = vec![(round % 20) as u8, 0, 0, 0, 0, 0, 0, 0];
        for _ in 0..round % 50 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round);
            bytes.push((random >> 33) as u8);
        }
        let _ = stranger.send(daemon, bytes).wait();
    }
    world.run_for(Duration::from_millis(100));
    // The daemon is there for others, and has lost nothing.
    assert_eq!(cache.lookup(&keys(&links)).unwrap().prefix, 3);
    world.store().audit().unwrap();
}

fn back_pressure_is_explicit_and_nothing_leased_is_evicted(reach: Reach) {
    let world = World::new(reach, 7, 8 * 12_288);
    let cache = world.client().cache(identity());
    let held = chain(1, 7);
    fill(&cache, &held, LEN);
    let lease = cache.lease(&keys(&held), NO_WAIT).unwrap();
    let more = chain(2, 3);
    let bytes: Vec<_> = more.iter().map(|link| content(link, LEN)).collect();
    let blocks: Vec<_> = more.iter().zip(&bytes).map(|(l, b)| (*l, b.as_slice())).collect();
    let stored = cache.store(&blocks).unwrap();
    assert_eq!(stored[0], Stored::Stored);
    let Stored::Refused { why, .. } = &stored[1] else { panic!("{stored:?}") };
    assert!(why.contains("release leases"), "{why}");
    for (index, link) in held.iter().enumerate() {
        let mut into = vec![0; LEN];
        lease.copy_to(index, &mut into).unwrap();
        assert_eq!(into, content(link, LEN));
    }
    drop(lease);
    assert_eq!(cache.store(&blocks[1..]).unwrap(), [Stored::Stored, Stored::Stored]);
    assert!(cache.lookup(&keys(&held)).unwrap().prefix < 7, "room came from eviction");
    world.store().audit().unwrap();
}

fn pins_ttl_and_removal(reach: Reach) {
    let world = World::new(reach, 8, 1 << 20);
    let cache = world.client().cache(identity());
    let links = chain(1, 4);
    fill(&cache, &links, LEN);
    assert_eq!(cache.pin(&keys(&links)).unwrap(), 4);
    assert_eq!(cache.unpin(&keys(&links[1..])).unwrap(), 3);
    assert_eq!(cache.remove(&keys(&links[3..])).unwrap(), 1);
    assert_eq!(cache.lookup(&keys(&links)).unwrap().prefix, 3);
    let short = chain(2, 1);
    let ttl = Some(Duration::from_millis(200));
    let grant = cache.reserve_for(&[(short[0], LEN as u64)], ttl).unwrap().remove(0);
    let Grant::Granted(room) = grant else { panic!() };
    let filled = room.write(&content(&short[0], LEN)).unwrap();
    cache.commit(vec![filled]).unwrap().remove(0).unwrap();
    assert_eq!(cache.lookup(&keys(&short)).unwrap().prefix, 1);
    world.run_for(Duration::from_secs(1));
    assert_eq!(cache.lookup(&keys(&short)).unwrap().prefix, 0);
}

fn subscribers_hear_of_every_change(reach: Reach) {
    let world = World::new(reach, 9, 1 << 20);
    let watcher = world.client().cache(identity());
    let events = watcher.subscribe(None).unwrap();
    let cache = world.client().cache(identity());
    let links = chain(1, 2);
    fill(&cache, &links, LEN);
    cache.remove(&keys(&links[1..])).unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.push(events.next(Duration::from_secs(1)).unwrap().expect("an event in time"));
    }
    assert!(matches!(&seen[0], Event::Stored { key, position: 0, .. } if *key == links[0].key));
    assert!(matches!(&seen[1], Event::Stored { parent: Some(p), .. } if *p == links[0].key));
    assert!(matches!(&seen[2], Event::Removed { key, .. } if *key == links[1].key));
    assert!(events.next(Duration::from_millis(200)).unwrap().is_none());
}

fn a_daemon_that_restarts_is_found_again(reach: Reach) {
    for seed in 0..20 {
        let mut world = World::new(reach, seed, 1 << 20);
        let cache = world.client().cache(identity());
        let links = chain(1, 3);
        fill(&cache, &links, LEN);
        let lease = cache.lease(&keys(&links), NO_WAIT).unwrap();
        world.kill();
        let error = cache.lookup(&keys(&links)).unwrap_err();
        let gone = matches!(error, Error::Disconnected { .. } | Error::Timeout { .. });
        assert!(gone || matches!(error, Error::Unreachable { .. }), "seed {seed}: {error}");
        // Bytes of the old session are a clean miss at worst, never wrong.
        let mut into = vec![0; LEN];
        if lease.copy_to(0, &mut into).is_ok() {
            assert_eq!(into, content(&links[0], LEN));
        }
        drop(lease);
        world.start();
        world.run_for(Duration::from_secs(10));
        assert_eq!(cache.lookup(&keys(&links)).unwrap().prefix, 0, "a new daemon is empty");
        fill(&cache, &links, LEN);
        assert_eq!(cache.lookup(&keys(&links)).unwrap().prefix, 3);
    }
}

fn a_listing_has_every_block_once(reach: Reach) {
    let world = World::new(reach, 12, 64 << 20);
    let client = world.client();
    let mut other = identity();
    other.model = "other".to_owned();
    let (links, few) = (chain(1, 2000), chain(2, 5));
    fill(&client.cache(identity()), &links, 64);
    fill(&client.cache(other), &few, 64);
    let all = client.list("", usize::MAX).unwrap();
    let mut found: Vec<_> = all.iter().map(|block| block.key).collect();
    found.sort_unstable();
    let mut wanted = keys(&[links.clone(), few].concat());
    wanted.sort_unstable();
    assert_eq!(found, wanted);
    assert!(all.iter().all(|block| block.len == 64 && !block.pinned && block.leases == 0));
    let first = links[700].key.to_string();
    let one = client.list(&first.to_uppercase(), 10).unwrap();
    assert_eq!(one.len(), 1);
    assert_eq!((one[0].key, one[0].parent), (links[700].key, Some(links[699].key)));
    assert_eq!(client.list("", 7).unwrap().len(), 7);
    let secret = world.builder().tenant("secret", "open sesame").connect(&world.address).unwrap();
    assert_eq!(secret.list("", 10).unwrap(), []);
}

fn large_batches_are_split(reach: Reach) {
    let world = World::new(reach, 11, 64 << 20);
    let cache = world.client().cache(identity());
    let links = chain(1, 3000);
    fill(&cache, &links, 64);
    assert_eq!(cache.lookup(&keys(&links)).unwrap().prefix, 3000);
    let lease = cache.lease(&keys(&links), NO_WAIT).unwrap();
    assert_eq!(lease.len(), 3000);
    let mut into = vec![0; 64];
    lease.copy_to(2999, &mut into).unwrap();
    assert_eq!(into, content(&links[2999], 64));
}

tranship_tests::both_ways! {
    what_one_client_stores_another_loads,
    identities_do_not_see_each_other,
    strangers_are_refused_with_a_reason,
    one_fills_and_the_others_wait,
    a_client_that_dies_loses_only_its_own,
    a_wrong_checksum_is_refused_at_commit_and_a_stray_write_is_a_miss,
    the_daemon_writes_blocks_into_the_callers_window,
    hostile_messages_are_answered_and_harm_nobody,
    back_pressure_is_explicit_and_nothing_leased_is_evicted,
    pins_ttl_and_removal,
    subscribers_hear_of_every_change,
    a_daemon_that_restarts_is_found_again,
    a_listing_has_every_block_once,
    large_batches_are_split,
}
