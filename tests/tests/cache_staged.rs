//! Clients that cannot map the daemon's arena: what they may do, what it costs, and what is left
//! when they die in the middle of it.

use std::time::Duration;

use tranship_cache::Key;
use tranship_cache::client::{Grant, ReadError, StagingError, Stored};
use tranship_cache::wire::{
    Committed, FaultCode, Hello, Item, Put, Reply, Request, Reserved, Source, VERSION,
};
use tranship_tests::world::{Reach, World, chain, content, fill, identity};
use tranship_transport::checksum::crc64;
use tranship_transport::fabric::sim::Faults;
use tranship_transport::{
    Access, Drive, Engine, HostMemory, Incoming, Outcome, Peer, Reason, RemoteWindow, Window,
};

const LEN: usize = 10_000;
const NO_WAIT: Duration = Duration::ZERO;
const SECOND: Duration = Duration::from_secs(1);

fn keys(links: &[tranship_cache::Link]) -> Vec<Key> {
    links.iter().map(|link| link.key).collect()
}

/// A peer that speaks the protocol by hand.
struct Stranger {
    engine: Engine,
    daemon: Peer,
    arena: RemoteWindow,
}

impl Stranger {
    fn new(world: &World) -> Self {
        let engine = Engine::builder()
            .fabric(world.network.provider())
            .clock(world.network.clock())
            .drive(Drive::Caller)
            .build()
            .unwrap();
        let daemon = engine.connect(&world.address, SECOND).unwrap();
        let (name, tenant, token) = ("stranger".into(), "default".into(), String::new());
        let hello = Request::Hello(Hello { version: VERSION, name, tenant, token });
        let Reply::Welcome(welcome) = ask(&engine, daemon, &hello) else { panic!() };
        let arena = engine.open_at(daemon, &welcome.arena).unwrap();
        let stranger = Self { engine, daemon, arena };
        let identify = Request::Identify { identity: identity().encode().unwrap() };
        assert_eq!(stranger.ask(&identify), Reply::Scope(0));
        stranger
    }

    fn ask(&self, request: &Request) -> Reply {
        ask(&self.engine, self.daemon, request)
    }

    fn reserve(&self, salt: u32) -> (u64, u64) {
        let items = vec![Item { link: chain(salt, 1)[0], len: LEN as u64 }];
        let reserve = Request::Reserve { scope: 0, deadline_ms: 30_000, ttl_ms: 0, items };
        let Reply::Reserved(answers) = self.ask(&reserve) else { panic!() };
        let Reserved::Granted { reservation, offset } = answers[0] else { panic!("{answers:?}") };
        (reservation, offset)
    }

    fn put(&self, window: &Window, blocks: Vec<Source>) -> Vec<Committed> {
        let put = Put { deadline_ms: 1000, window: window.descriptor(), blocks };
        match self.ask(&Request::Put(put)) {
            Reply::Committed(answers) => answers,
            other => panic!("{other:?}"),
        }
    }
}

fn ask(engine: &Engine, daemon: Peer, request: &Request) -> Reply {
    assert_eq!(engine.send(daemon, request.encode(7)).wait(), Outcome::Done);
    loop {
        match engine.recv(2 * SECOND).expect("an answer in time") {
            Incoming::Message { bytes, .. } => break Reply::decode(&bytes).unwrap().1,
            Incoming::Connected(_) => {}
            Incoming::Disconnected { reason, .. } => panic!("hung up: {reason}"),
        }
    }
}

#[test]
fn who_cannot_map_cannot_write_to_the_arena() {
    let world = World::new(Reach::Staged, 1, 1 << 20);
    let stranger = Stranger::new(&world);
    assert_eq!(stranger.arena.access(), Access::READ);
    let (reservation, offset) = stranger.reserve(1);
    let source = stranger.engine.alloc(HostMemory::new(LEN)).unwrap();
    let whole = source.slice(0..LEN as u64).unwrap();
    // Not even what it has reserved.
    let to = stranger.arena.slice(offset..offset + LEN as u64).unwrap();
    let outcome = stranger.engine.write(whole, to).deadline(SECOND).wait();
    assert_eq!(outcome, Outcome::Rejected(Reason::Denied));
    // The daemon takes nothing that was not put.
    let commit = Request::Commit { blocks: vec![(reservation, crc64(&[9; LEN]))] };
    let Reply::Committed(answers) = stranger.ask(&commit) else { panic!() };
    assert!(matches!(answers[0], Committed::Mismatch { .. }), "{answers:?}");
    // Where the arena can be mapped the window says so.
    let mapped = World::new(Reach::Mapped, 1, 1 << 20);
    assert!(Stranger::new(&mapped).arena.access().allows(Access::MAP));
}

#[test]
fn a_put_that_names_what_it_should_not_costs_only_itself() {
    let world = World::new(Reach::Staged, 2, 1 << 20);
    let (stranger, other) = (Stranger::new(&world), Stranger::new(&world));
    let pages = stranger.engine.alloc(HostMemory::new(4 * LEN)).unwrap();
    let bytes = content(&chain(1, 1)[0], LEN);
    pages.memory().write_at(LEN, &bytes).unwrap();
    let window = pages.window_with(0..4 * LEN as u64, Access::READ).unwrap();
    let (mine, beyond, wrong) =
        (stranger.reserve(1).0, stranger.reserve(2).0, stranger.reserve(3).0);
    let theirs = other.reserve(4).0;
    let checksum = crc64(&bytes);
    let source = |reservation, offset| Source { reservation, checksum, offset };
    let answers = stranger.put(
        &window,
        vec![
            source(theirs, LEN as u64),
            source(beyond, 4 * LEN as u64 - 1),
            source(wrong, 0),
            source(mine, LEN as u64),
            source(mine, LEN as u64),
            source(u64::MAX, u64::MAX),
        ],
    );
    let why = |answer: &Committed| match answer {
        Committed::Refused { why } => why.clone(),
        other => panic!("{other:?}"),
    };
    assert!(why(&answers[0]).contains("not open in this session"), "{answers:?}");
    assert!(why(&answers[1]).contains("outside the window"), "{answers:?}");
    assert!(matches!(answers[2], Committed::Mismatch { .. }), "{answers:?}");
    assert_eq!(answers[3], Committed::Stored);
    assert!(why(&answers[4]).contains("not open"), "{answers:?}");
    assert!(why(&answers[5]).contains("not open"), "{answers:?}");
    // After a mismatch the reservation stands, and the right bytes are taken.
    assert_eq!(stranger.put(&window, vec![source(wrong, LEN as u64)]), [Committed::Stored]);
    // A window that may not be read, and one that was taken back.
    let closed = pages.window(0..LEN as u64).unwrap();
    let reservation = stranger.reserve(5).0;
    assert!(why(&stranger.put(&closed, vec![source(reservation, 0)])[0]).contains("not grant"));
    let descriptor = closed.descriptor();
    closed.revoke().unwrap();
    let reservation = stranger.reserve(5).0;
    let put = Put { deadline_ms: 1000, window: descriptor, blocks: vec![source(reservation, 0)] };
    let Reply::Committed(answers) = stranger.ask(&Request::Put(put)) else { panic!() };
    assert!(why(&answers[0]).contains("could not be read"), "{answers:?}");
    // The other's reservation was not touched by it, and no space is held for nobody.
    world.run_for(Duration::from_millis(100));
    let gauges = world.store().stats().remove(0).gauges;
    assert_eq!((gauges.filling.blocks, gauges.revoking.blocks), (1, 0));
    world.store().audit().unwrap();
}

#[test]
fn put_needs_a_hello() {
    let world = World::new(Reach::Staged, 3, 1 << 20);
    let engine = Engine::builder()
        .fabric(world.network.provider())
        .clock(world.network.clock())
        .drive(Drive::Caller)
        .build()
        .unwrap();
    let pages = engine.alloc(HostMemory::new(LEN)).unwrap();
    let window = pages.window_with(0..LEN as u64, Access::READ).unwrap().descriptor();
    let daemon = engine.connect(&world.address, SECOND).unwrap();
    let put = Put { deadline_ms: 1000, window, blocks: Vec::new() };
    let Reply::Fault(fault) = ask(&engine, daemon, &Request::Put(put)) else { panic!() };
    assert_eq!(fault.code, FaultCode::Unknown);
}

#[test]
fn more_than_fits_into_staging_memory_is_stored_and_loaded_in_parts() {
    let world = World::new(Reach::Staged, 4, 4 << 20);
    let small = world.builder().staging(64 << 10).connect(&world.address).unwrap();
    assert!(!small.is_mapped().unwrap());
    let cache = small.cache(identity());
    let links = chain(1, 200);
    fill(&cache, &links, LEN);
    let lease = cache.lease(&keys(&links), NO_WAIT).unwrap();
    // In order, against it, and the same twice.
    let mut order: Vec<usize> = (0..200).chain((0..200).rev()).collect();
    order.extend([7, 7, 100, 3]);
    for index in order {
        let mut into = vec![0; LEN];
        lease.copy_to(index, &mut into).unwrap();
        assert_eq!(into, content(&links[index], LEN));
    }
}

#[test]
fn the_limit_of_staging_memory_is_told() {
    let world = World::new(Reach::Staged, 5, 4 << 20);
    let limit = 5 * 12_288;
    let small = world.builder().staging(limit).connect(&world.address).unwrap();
    let cache = small.cache(identity());
    // A block that never fits.
    let long = vec![1; limit + 1];
    let stored = cache.store(&[(chain(1, 1)[0], &long)]).unwrap().remove(0);
    let Stored::Refused { why, .. } = stored else { panic!("{stored:?}") };
    assert!(
        why.contains("61441 bytes do not fit") && why.contains("give the client more"),
        "{why}"
    );
    // More reservations filled at a time than fit: one error, which names who holds what.
    let links = chain(2, 6);
    let wanted: Vec<_> = links.iter().map(|link| (*link, LEN as u64)).collect();
    let mut filled = Vec::new();
    let mut grants = cache.reserve(&wanted).unwrap().into_iter();
    for (grant, link) in grants.by_ref().take(5).zip(&links) {
        let Grant::Granted(room) = grant else { panic!("{grant:?}") };
        filled.push(room.write(&content(link, LEN)).unwrap());
    }
    let Some(Grant::Granted(last)) = grants.next() else { panic!() };
    let error = last.space().unwrap_err();
    let (key, len, used, limit) = (links[5].key, LEN as u64, limit as u64, limit as u64);
    let full = StagingError::Full { len, used, limit };
    assert_eq!(error, ReadError::Staging { key, error: full });
    // Committing makes room.
    for committed in cache.commit(filled).unwrap() {
        committed.unwrap();
    }
    let space = last.space().unwrap();
    let bytes = content(&links[5], LEN);
    // SAFETY: the space has as many bytes, and is this reservation's alone.
    unsafe { space.copy_from_nonoverlapping(bytes.as_ptr(), LEN) };
    cache.commit(vec![last.seal().unwrap()]).unwrap().remove(0).unwrap();
    // Views stay in staging memory until their lease ends.
    let lease = cache.lease(&keys(&links), NO_WAIT).unwrap();
    for (index, link) in links.iter().enumerate().take(5) {
        let (at, len) = lease.view(index).unwrap();
        // SAFETY: the lease holds the bytes, and nobody writes to them.
        assert_eq!(unsafe { std::slice::from_raw_parts(at, len) }, content(link, LEN));
        assert_eq!(lease.view(index).unwrap(), (at, len), "a view does not move");
    }
    assert!(matches!(lease.view(5), Err(ReadError::Staging { .. })));
    drop(lease);
    let lease = cache.lease(&keys(&links), NO_WAIT).unwrap();
    lease.view(5).unwrap();
}

#[test]
fn a_client_that_dies_in_a_put_leaves_nothing() {
    let (mut whole, mut none) = (0, 0);
    for seed in 0..200 {
        let world = World::new(Reach::Staged, seed, 1 << 20);
        let stranger = Stranger::new(&world);
        let victim = stranger.engine.addresses()[0].clone();
        let pages = stranger.engine.alloc(HostMemory::new(20 * LEN)).unwrap();
        let window = pages.window_with(0..20 * LEN as u64, Access::READ).unwrap();
        let blocks = (0..20_u32).map(|n| {
            let (bytes, offset) = (content(&chain(n, 1)[0], LEN), n as usize * LEN);
            pages.memory().write_at(offset, &bytes).unwrap();
            let (reservation, checksum) = (stranger.reserve(n).0, crc64(&bytes));
            Source { reservation, checksum, offset: offset as u64 }
        });
        let put = Put { deadline_ms: 1000, window: window.descriptor(), blocks: blocks.collect() };
        let sent = stranger.engine.send(stranger.daemon, Request::Put(put).encode(1)).submit();
        drop(sent);
        // Somewhere between the request on its way and the answer.
        world.run_for(Duration::from_micros(seed));
        world.network.kill(&victim);
        world.run_for(Duration::from_secs(30));
        let gauges = world.store().stats().remove(0).gauges;
        let open = (gauges.filling.blocks, gauges.revoking.blocks, gauges.leases);
        assert_eq!(open, (0, 0, 0), "seed {seed}");
        world.store().audit().unwrap();
        // What was stored is whole; the rest can be stored by another, in the same space.
        let cache = world.client().cache(identity());
        for n in 0..20 {
            let links = chain(n, 1);
            if cache.lookup(&keys(&links)).unwrap().prefix == 1 {
                whole += 1;
            } else {
                none += 1;
                fill(&cache, &links, LEN);
            }
            let lease = cache.lease(&keys(&links), NO_WAIT).unwrap();
            let mut into = vec![0; LEN];
            lease.copy_to(0, &mut into).unwrap();
            assert_eq!(into, content(&links[0], LEN), "seed {seed}");
        }
    }
    assert!(whole > 0 && none > 0, "died before or after, never within: {whole} and {none}");
}

#[test]
fn space_is_not_given_away_while_a_read_that_was_given_up_may_land_in_it() {
    // Packets that take up to a second, and cancellations that achieve nothing.
    let late_by = SECOND;
    let faults = Faults { late: 1.0, late_by, failed_flush: 1.0, ..Faults::none() };
    let mut held = 0;
    for seed in 0..20 {
        let world = World::with_faults(Reach::Staged, seed, 1 << 20, faults);
        let stranger = Stranger::new(&world);
        let pages = stranger.engine.alloc(HostMemory::new(LEN)).unwrap();
        let window = pages.window_with(0..LEN as u64, Access::READ).unwrap();
        let (reservation, at) = stranger.reserve(1);
        let bytes = content(&chain(1, 1)[0], LEN);
        pages.memory().write_at(0, &bytes).unwrap();
        let checksum = crc64(&bytes);
        let blocks = vec![Source { reservation, checksum, offset: 0 }];
        let put = Put { deadline_ms: 10, window: window.descriptor(), blocks };
        let Reply::Committed(answers) = stranger.ask(&Request::Put(put)) else { panic!() };
        let Committed::Refused { why } = &answers[0] else { continue };
        assert!(why.contains("deadline"), "seed {seed}: {why}");
        // Others fill all the room there is; none of it is that of the read.
        let tenant = world.store().tenants().remove(0);
        let before = tenant.stats().gauges.filling.blocks;
        let landed = || {
            let mut now = vec![0; LEN];
            tenant.arena().memory().read_at(at as usize, &mut now).unwrap();
            now == bytes
        };
        if before == 1 && !landed() {
            held += 1;
            let other = Stranger::new(&world);
            let spaces: Vec<_> = (2..82).map(|salt| other.reserve(salt).1).collect();
            assert!(!spaces.contains(&at) || landed(), "seed {seed}");
        }
        world.run_for(Duration::from_secs(20));
        let gauges = world.store().stats().remove(0).gauges;
        assert_eq!(gauges.revoking.blocks, 0, "seed {seed}");
        world.store().audit().unwrap();
    }
    assert!(held > 0, "no read was under way when it was given up");
}

#[test]
fn lost_reads_hold_their_space_until_the_connection_ends() {
    // Completions that never come: nobody can tell whether a read still puts bytes somewhere.
    let faults = Faults { lost_completion: 0.05, late: 0.2, ..Faults::none() };
    let (mut stored, mut refused) = (0, 0);
    for seed in 0..30 {
        let world = World::with_faults(Reach::Staged, seed, 1 << 20, faults);
        let connected = world.builder().timeout(SECOND / 2).connect(&world.address);
        let Ok(client) = connected else { continue };
        let cache = client.cache(identity());
        for salt in 0..5 {
            let links = chain(salt, 4);
            let bytes: Vec<_> = links.iter().map(|link| content(link, LEN)).collect();
            let blocks: Vec<_> = links.iter().zip(&bytes).map(|(l, b)| (*l, &b[..])).collect();
            // A call may fail as a whole: its answer was lost.
            let Ok(results) = cache.store(&blocks) else { continue };
            for result in results {
                match result {
                    Stored::Stored => stored += 1,
                    Stored::Refused { .. } => refused += 1,
                    Stored::Exists | Stored::InFlight => {}
                }
            }
            let Ok(lease) = cache.lease(&keys(&links), NO_WAIT) else { continue };
            for (index, link) in links.iter().enumerate() {
                let mut into = vec![0; LEN];
                if lease.copy_to(index, &mut into).is_ok() {
                    assert_eq!(into, content(link, LEN), "seed {seed}");
                }
            }
        }
        world.store().audit().unwrap();
        world.network.kill(&client.engine().addresses()[0]);
        world.run_for(Duration::from_secs(60));
        let stats = world.store().stats().remove(0);
        let (filling, revoking) = (stats.gauges.filling.blocks, stats.gauges.revoking.blocks);
        assert_eq!((filling, revoking, stats.gauges.leases), (0, 0, 0), "seed {seed}");
        assert_eq!(stats.counters.corrupt, 0, "seed {seed}");
    }
    assert!(stored > 100 && refused > 0, "{stored} stored, {refused} refused");
}

#[test]
fn a_reservation_past_its_deadline_gives_its_space_back_at_once() {
    let world = World::new(Reach::Staged, 6, 1 << 20);
    let stranger = Stranger::new(&world);
    let items = vec![Item { link: chain(1, 1)[0], len: LEN as u64 }];
    let reserve = Request::Reserve { scope: 0, deadline_ms: 10, ttl_ms: 0, items };
    let Reply::Reserved(answers) = stranger.ask(&reserve) else { panic!() };
    assert!(matches!(answers[0], Reserved::Granted { .. }));
    world.run_for(Duration::from_millis(200));
    let gauges = world.store().stats().remove(0).gauges;
    assert_eq!((gauges.filling.blocks, gauges.revoking.blocks), (0, 0));
}

#[test]
fn a_lease_that_is_given_up_early_frees_its_staging_memory() {
    let world = World::new(Reach::Staged, 7, 1 << 20);
    let small = world.builder().staging(10 * 12_288).connect(&world.address).unwrap();
    let cache = small.cache(identity());
    let links = chain(1, 20);
    fill(&cache, &links, LEN);
    for _ in 0..50 {
        let lease = cache.lease(&keys(&links), NO_WAIT).unwrap();
        let mut into = vec![0; LEN];
        // Those after it are on their way when the lease ends.
        lease.copy_to(0, &mut into).unwrap();
        assert_eq!(into, content(&links[0], LEN));
        drop(lease);
    }
    world.run_for(Duration::from_millis(100));
    let all = vec![3; 10 * 12_288];
    assert_eq!(cache.store(&[(chain(2, 1)[0], &all)]).unwrap(), [Stored::Stored]);
}

#[test]
fn staging_memory_is_not_reused_while_a_read_may_land_in_it() {
    let late_by = Duration::from_millis(2);
    let faults = Faults { late: 0.5, late_by, failed_flush: 1.0, ..Faults::none() };
    for seed in 0..10 {
        let world = World::with_faults(Reach::Staged, seed, 8 << 20, faults);
        let small = world.builder().staging(12 * 12_288).connect(&world.address).unwrap();
        let cache = small.cache(identity());
        let links = chain(1, 7);
        for link in &links {
            fill(&cache, &[*link], LEN);
        }
        for salt in 2..30 {
            let lease = cache.lease(&keys(&links), NO_WAIT).unwrap();
            let mut into = vec![0; LEN];
            lease.copy_to(0, &mut into).unwrap();
            assert_eq!(into, content(&links[0], LEN), "seed {seed}");
            // Five more are on their way. What is put next passes through the same memory, but not
            // through what they still land in.
            drop(lease);
            let next = chain(salt, 3);
            fill(&cache, &next, LEN);
        }
        let counters = world.store().stats().remove(0).counters;
        assert_eq!((counters.mismatched, counters.corrupt), (0, 0), "seed {seed}");
    }
}
