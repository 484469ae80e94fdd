//! The daemon and its clients over shared memory: blocks are read and filled in place.

use std::time::{Duration, Instant};

use tranship_cache::client::{BlockResult, Cache, Client, Fetched, Grant, ReadError, Stored};
use tranship_cache::wire::{FaultCode, Hello, Item, Reply, Request, Reserved, VERSION};
use tranship_cache::{Key, Link};
use tranship_tests::daemon::Daemon;
use tranship_tests::world::{chain, content, fill, identity};
use tranship_transport::{Drive, Engine, HostMemory, Incoming, Kind, Peer};

const LEN: usize = 100_000;

fn open(daemon: &Daemon) -> Cache {
    Client::builder().connect(&daemon.address(Kind::Shm)).unwrap().cache(identity())
}

fn keys(links: &[Link]) -> Vec<Key> {
    links.iter().map(|link| link.key).collect()
}

#[test]
fn blocks_are_filled_and_read_in_place() {
    let daemon = Daemon::start(16 << 20);
    let cache = open(&daemon);
    assert!(cache.client().is_mapped().unwrap());
    let links = chain(1, 2);
    let grant = cache.reserve(&[(links[0], LEN as u64)]).unwrap().remove(0);
    let Grant::Granted(room) = grant else { panic!("{grant:?}") };
    let bytes = content(&links[0], LEN);
    let space = room.space().unwrap();
    // SAFETY: the space is as long as the block, and nobody else may touch it before the commit.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), space, LEN) };
    let filled = room.seal().unwrap();
    assert_eq!(filled.checksum(), tranship_transport::checksum::crc64(&bytes));
    cache.commit(vec![filled]).unwrap().remove(0).unwrap();

    let reader = open(&daemon);
    let lease = reader.lease(&keys(&links), Duration::ZERO).unwrap();
    let (at, len) = lease.view(0).unwrap();
    // SAFETY: the lease keeps the block in place and nobody writes to it in this test.
    let view = unsafe { std::slice::from_raw_parts(at, len) };
    assert_eq!(view, bytes);
    assert_eq!(lease.view(1).unwrap_err(), ReadError::NotReady { index: 1 });
}

#[test]
fn a_stray_write_through_the_mapping_is_caught() {
    let daemon = Daemon::start(16 << 20);
    let (cache, reader) = (open(&daemon), open(&daemon));
    let links = chain(1, 3);
    fill(&cache, &links, LEN);
    let lease = cache.lease(&keys(&links), Duration::ZERO).unwrap();
    let (at, _) = lease.view(1).unwrap();
    // SAFETY: memory of the mapped arena; nobody reads it in this process meanwhile.
    unsafe { at.cast_mut().add(77).write_volatile(!at.add(77).read_volatile()) };
    let other = reader.lease(&keys(&links), Duration::ZERO).unwrap();
    let mut into = vec![0; LEN];
    other.copy_to(0, &mut into).unwrap();
    assert!(matches!(other.copy_to(1, &mut into), Err(ReadError::Corrupt { .. })));
    other.copy_to(2, &mut into).unwrap();
    assert_eq!(into, content(&links[2], LEN));
    assert_eq!(reader.lookup(&keys(&links)).unwrap().prefix, 1);
}

#[test]
fn the_daemon_writes_into_the_callers_memory() {
    let daemon = Daemon::start(16 << 20);
    let cache = open(&daemon);
    let links = chain(1, 8);
    fill(&cache, &links, LEN);
    let engine = cache.client().engine();
    let pages = engine.alloc(HostMemory::new(8 * LEN)).unwrap();
    let wanted: Vec<_> =
        links.iter().enumerate().map(|(i, link)| (link.key, (i * LEN) as u64)).collect();
    let results = cache.fetch(&wanted, &pages, Duration::from_secs(1)).unwrap();
    for (i, link) in links.iter().enumerate() {
        let mut bytes = vec![0; LEN];
        pages.memory().read_at(i * LEN, &mut bytes).unwrap();
        assert_eq!(results[i], Fetched::Ready { len: LEN as u64 });
        assert_eq!(bytes, content(link, LEN));
    }
    // A stray write into the arena is caught where the block arrives.
    let other = open(&daemon);
    let lease = other.lease(&keys(&links), Duration::ZERO).unwrap();
    let (mapped, _) = lease.view(3).unwrap();
    // SAFETY: memory of the mapped arena, held by the lease; nobody reads it meanwhile.
    unsafe { mapped.cast_mut().write_volatile(!mapped.read_volatile()) };
    drop(lease);
    let results = cache.fetch(&wanted, &pages, Duration::from_secs(1)).unwrap();
    assert_eq!(results[3], Fetched::Corrupt);
    assert_eq!(results[4], Fetched::Ready { len: LEN as u64 });
}

#[test]
fn a_void_reservation_is_not_reused_under_its_late_writer() {
    let daemon = Daemon::start(16 << 20);
    let writer = open(&daemon);
    let links = chain(1, 1);
    let Grant::Granted(room) = writer.reserve(&[(links[0], LEN as u64)]).unwrap().remove(0) else {
        panic!()
    };
    // The identity goes away under the writer, and with it the reservation.
    let tenant = daemon.store.tenants().remove(0);
    tenant.scopes().remove(0).close();
    let space = room.space().unwrap();
    let other = open(&daemon);
    fill(&other, &chain(2, 10), LEN);
    // The late write.
    // SAFETY: the space is as long as the block.
    unsafe { std::ptr::write_bytes(space, 0xee, LEN) };
    let refused = writer.commit(vec![room.seal().unwrap()]).unwrap().remove(0).unwrap_err();
    assert!(refused.to_string().contains("identity was removed"), "{refused}");
    // It landed in nobody's block.
    let lease = other.lease(&keys(&chain(2, 10)), Duration::ZERO).unwrap();
    for (index, link) in chain(2, 10).iter().enumerate() {
        let mut into = vec![0; LEN];
        lease.copy_to(index, &mut into).unwrap();
        assert_eq!(into, content(link, LEN));
    }
}

/// Polls until `done` holds.
fn until(done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "waited for 10 s");
        std::thread::yield_now();
    }
}

/// A client that reserves a block, then asks without ever reading the answers, until the daemon
/// ends its session.
fn deaf(daemon: &Daemon) -> (Engine, Peer, u64) {
    let second = Duration::from_secs(1);
    let engine = Engine::builder().drive(Drive::Caller).build().unwrap();
    let peer = engine.connect(&daemon.address(Kind::Shm), second).unwrap();
    let answer = || loop {
        match engine.recv(second).expect("an answer in time") {
            Incoming::Message { bytes, .. } => break Reply::decode(&bytes).unwrap().1,
            Incoming::Connected(_) => {}
            Incoming::Disconnected { reason, .. } => panic!("hung up: {reason}"),
        }
    };
    let ask = |request: Request| {
        let _ = engine.send(peer, request.encode(1)).wait();
        answer()
    };
    let (name, tenant, token) = ("deaf".into(), "default".into(), String::new());
    let hello = Request::Hello(Hello { version: VERSION, name, tenant, token });
    assert!(matches!(ask(hello), Reply::Welcome(_)));
    let identity = identity().encode().unwrap();
    assert_eq!(ask(Request::Identify { identity }), Reply::Scope(0));
    let items = vec![Item { link: chain(1, 1)[0], len: LEN as u64 }];
    let reserve = Request::Reserve { scope: 0, deadline_ms: 60_000, ttl_ms: 0, items };
    let Reply::Reserved(answers) = ask(reserve) else { panic!() };
    let Reserved::Granted { reservation, .. } = answers[0] else { panic!("{answers:?}") };
    // Answers are longer than questions, so the rings to here fill up first.
    let stats = Request::Stats.encode(2);
    let expelled = || daemon.store.stats().remove(0).gauges.revoking.blocks == 1;
    until(|| {
        let _ = engine.send(peer, stats.clone()).submit();
        expelled()
    });
    (engine, peer, reservation)
}

#[test]
fn space_of_a_client_that_was_ended_comes_back_when_it_gives_it_back() {
    let daemon = Daemon::start(16 << 20);
    let (engine, peer, reservation) = deaf(&daemon);
    // The block is free for others at once, its space is not.
    let links = chain(1, 1);
    fill(&open(&daemon), &links, LEN);
    assert_eq!(daemon.store.stats().remove(0).gauges.revoking.blocks, 1);
    // It reads again, learns that its session is over, and says hello once more.
    let abort = Request::Abort { reservations: vec![reservation] }.encode(9);
    let lookup = Request::Lookup { scope: 0, keys: keys(&links) }.encode(8);
    let (mut over, mut given_back) = (false, false);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !given_back {
        assert!(Instant::now() < deadline, "waited for 10 s");
        let request = if over { &abort } else { &lookup };
        let _ = engine.send(peer, request.clone()).submit();
        while let Some(incoming) = engine.recv(Duration::from_millis(10)) {
            let Incoming::Message { bytes, .. } = incoming else { continue };
            match Reply::decode(&bytes).unwrap() {
                (8, Reply::Fault(fault)) => over |= fault.code == FaultCode::Over,
                (9, Reply::Count(count)) => given_back |= count == 1,
                _ => {}
            }
        }
    }
    assert_eq!(daemon.store.stats().remove(0).gauges.revoking.blocks, 0);
}

#[test]
fn space_of_a_client_that_was_ended_comes_back_when_it_dies() {
    let daemon = Daemon::start(16 << 20);
    let (engine, _, _) = deaf(&daemon);
    drop(engine);
    until(|| daemon.store.stats().remove(0).gauges.revoking.blocks == 0);
}

#[test]
fn a_client_whose_session_was_ended_opens_another_and_gives_back_what_it_held() {
    let daemon = Daemon::start(16 << 20);
    let client =
        Client::builder().drive(Drive::Caller).connect(&daemon.address(Kind::Shm)).unwrap();
    let cache = client.cache(identity());
    let links = chain(1, 1);
    let Grant::Granted(room) = cache.reserve(&[(links[0], LEN as u64)]).unwrap().remove(0) else {
        panic!()
    };
    // Answers pile up while nobody drives the client.
    let engine = client.engine();
    let peer = engine.connect(&daemon.address(Kind::Shm), Duration::from_secs(1)).unwrap();
    let revoking = || daemon.store.stats().remove(0).gauges.revoking.blocks;
    until(|| {
        let _ = engine.send(peer, Request::Stats.encode(u32::MAX)).submit();
        revoking() == 1
    });
    until(|| cache.lookup(&keys(&links)).is_ok());
    // In the new session, over the same connection, while the old one's reservation is still held.
    fill(&cache, &links, LEN);
    assert_eq!(revoking(), 1);
    let refused = cache.commit(vec![room.seal().unwrap()]).unwrap().remove(0).unwrap_err();
    assert!(refused.to_string().contains("session"), "{refused}");
    until(|| cache.lookup(&keys(&links)).is_ok() && revoking() == 0);
}

#[test]
fn many_clients_share_one_cache_under_pressure() {
    const BLOCK: usize = 50_000;
    // Room for half of what is stored.
    let daemon = Daemon::start(100 * 53_248);
    std::thread::scope(|scope| {
        for engine in 0..4_u32 {
            let daemon = &daemon;
            scope.spawn(move || {
                let cache = open(daemon);
                let mut into = vec![0; BLOCK];
                for round in 0..60_u32 {
                    // Chains shared by all, met in different orders.
                    let links = chain((round * 7 + engine * 3) % 20, 10);
                    let found = cache.lookup(&keys(&links)).unwrap().prefix;
                    let lease = cache.lease(&keys(&links[..found]), Duration::ZERO).unwrap();
                    for (index, (_, result)) in lease.results().enumerate() {
                        match result {
                            BlockResult::Ready { .. } => {
                                lease.copy_to(index, &mut into).unwrap();
                                assert_eq!(into, content(&links[index], BLOCK));
                            }
                            BlockResult::Gone | BlockResult::Late => {}
                            BlockResult::Corrupt => panic!("corrupt"),
                        }
                    }
                    drop(lease);
                    let bytes: Vec<_> =
                        links[found..].iter().map(|link| content(link, BLOCK)).collect();
                    let blocks: Vec<_> =
                        links[found..].iter().zip(&bytes).map(|(l, b)| (*l, &b[..])).collect();
                    for stored in cache.store(&blocks).unwrap() {
                        if let Stored::Refused { why, .. } = stored {
                            // Held by others, or worth less than what is there.
                            let known = ["release leases", "was not admitted"];
                            assert!(known.iter().any(|text| why.contains(text)), "{why}");
                        }
                    }
                }
            });
        }
    });
    let counters = daemon.store.stats().remove(0).counters;
    assert_eq!((counters.corrupt, counters.mismatched), (0, 0));
    assert!(counters.evicted > 0 && counters.hits[0] > 0, "{counters:?}");
}
