//! Scrapes agree with `docs/metrics.md` and with themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use tranship_cache::mover::{Bell, Mover};
use tranship_cache::tier::cold::Health;
use tranship_cache::tier::{Lane, Tier};
use tranship_cache::time::Wall;
use tranship_tests::below::{self, Scripted};
use tranship_transport::Engine;
use tranship_transport::fabric::sim::{Config, Network};

use super::page::{Page, get};
use super::*;

/// Chains of eight blocks that the work is about; more than fit into memory.
const CHAINS: u64 = 40;

const DOCUMENT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md"));

/// Type and labels by name, as documented.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let rows = DOCUMENT.lines().filter(|line| line.starts_with("| `tranship_"));
    let row = |row: &str| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let words = |cell: &str| -> BTreeSet<String> {
            cell.split(',').map(|word| word.trim().trim_matches('`').to_owned()).collect()
        };
        let labels = words(cells[3]).into_iter().filter(|label| !label.is_empty()).collect();
        (cells[1].trim_matches('`').to_owned(), (cells[2].to_owned(), labels))
    };
    rows.map(row).collect()
}

fn exported(page: &Page) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let suffix = |kind: &str| if kind == "counter" { "_total" } else { "" };
    let metric = |(name, kind): (&String, &String)| {
        (format!("{name}{}", suffix(kind)), (kind.clone(), page.labels(name)))
    };
    page.kinds.iter().map(metric).collect()
}

/// The sums of one tenant.
fn check(page: &Page, tenant: &str) {
    let mine = ("tenant", tenant);
    let sum = |name: &str, label: &[(&str, &str)]| {
        page.sum(&format!("tranship_{name}"), &[&[mine], label].concat())
    };
    let ended = |outcome| sum("reservations_ended_total", &[("outcome", outcome)]);
    let blocks = |state| sum("blocks", &[("state", state)]);
    assert_eq!(sum("hits_total", &[]) + sum("misses_total", &[]), sum("lookups_total", &[]));
    let promoted = sum("promoted_blocks_total", &[]);
    assert_eq!(
        ended("committed") + promoted + ended("abandoned") + blocks("filling") + blocks("revoking"),
        sum("reservations_total", &[("outcome", "granted")]) + sum("promotions_total", &[])
    );
    assert_eq!(
        blocks("resident") + sum("departed_blocks_total", &[]),
        ended("committed") + promoted
    );
    assert!(sum("moving_blocks", &[]) <= sum("held_blocks", &[("by", "any")]) + blocks("doomed"));
    assert!(sum("moving_bytes", &[]) <= sum("used_bytes", &[]));
    assert_eq!(sum("block_bytes", &[]), sum("used_bytes", &[]));
    assert!(sum("used_bytes", &[]) <= sum("capacity_bytes", &[]));
    let held = |by| sum("held_blocks", &[("by", by)]);
    assert!(held("pin") <= held("any") && held("any") <= blocks("resident"));
}

/// What clients of a cache do, some of it in vain.
fn work(scope: &Scope, session: u64, rounds: u64) {
    let session = SessionId(session);
    for round in 0..rounds {
        let links = chain(scope, round);
        let keys: Vec<_> = links.iter().map(|link| link.key).collect();
        scope.lookup(&keys, &mut Vec::new(), NOW);
        let items: Vec<_> =
            links.iter().map(|link| Item { link: *link, len: 3000, ttl: None }).collect();
        let grants = scope.reserve(session, &items, None, Millis(round));
        for (index, grant) in grants.into_iter().enumerate() {
            if let Grant::Granted(mut room) = grant {
                room.write_at(0, &[index as u8; 3000]).unwrap();
                if index as u64 != round % 8 {
                    room.commit(checksum(&[index as u8; 3000]), Millis(round)).unwrap();
                }
            }
        }
        drop(scope.lease(session, &keys, None, Millis(round)));
        if round % 7 == 0 {
            scope.remove(&keys[6..]);
        }
    }
}

fn move_bytes() -> Engine {
    let network = Network::new(Config::new(1));
    let engine =
        || Engine::builder().fabric(network.provider()).clock(network.clock()).build().unwrap();
    let (from, to) = (engine(), engine());
    let pages = to.alloc(HostMemory::new(1 << 16)).unwrap();
    let window = pages.window(0..4096).unwrap();
    let source = from.alloc(HostMemory::new(4096)).unwrap();
    let target = from.open(&window.descriptor()).unwrap();
    for _ in 0..5 {
        let local = source.slice(0..4096).unwrap();
        assert!(from.write(local, target.slice(0..4096).unwrap()).wait().is_done());
    }
    from
}

/// The keys that the work is about.
fn chain(scope: &Scope, round: u64) -> Vec<Link> {
    let mut chain = Chain::new(scope.identity());
    (0..8).map(|n| chain.push(&[(round % CHAINS) as u8, n])).collect()
}

fn want(mover: &mut Mover, scope: &Scope, round: u64) {
    for link in chain(scope, round) {
        mover.want(scope, link.key, Lane::Prefetch, None, NOW);
    }
    mover.step(NOW);
}

/// Brings blocks down and up while others work.
fn move_blocks(mover: &mut Mover, scope: &Scope, at_work: &AtomicUsize) {
    for round in 0.. {
        if at_work.load(Ordering::Acquire) == 0 {
            return;
        }
        want(mover, scope, round);
        std::thread::yield_now();
    }
}

/// Waits until everything has arrived; what finds no room is given up after a while.
fn settle(mover: &mut Mover) {
    for later in 0..20_000 {
        mover.step(NOW + Millis(later));
        if mover.is_idle() {
            return;
        }
    }
    panic!("{mover:?} does not end");
}

/// Has some blocks leave memory now that nobody uses them, and come back.
fn go_and_come(daemon: &Daemon, mover: &mut Mover, scope: &Scope) {
    settle(mover);
    daemon.tenant().evict(ARENA_BYTES as u64 / 8, NOW);
    settle(mover);
    (0..CHAINS).for_each(|round| want(mover, scope, round));
    settle(mover);
}

#[test]
fn scrapes_are_as_documented_and_add_up() {
    const THREADS: u64 = 4;
    let engine = move_bytes();
    let stats = engine.clone();
    let tiers = [Scripted::new(Tier::Nvme), Scripted::new(Tier::Object)];
    tiers[1].is(Health::Off("no credentials".to_owned()));
    let stack = below::stack(&tiers);
    let daemon = Daemon::over(stack, |observe| observe.engine = Arc::new(move || stats.stats()));
    open_tenant(&daemon.store, "other");
    let address = daemon.running.metrics().unwrap();
    let scope = register(&daemon.tenant(), "llama");
    let scrape = || {
        let (head, body) = get(address, "/metrics");
        assert!(head.contains("application/openmetrics-text; version=1.0.0"), "{head}");
        Page::read(&body)
    };

    let mut mover = Mover::new(daemon.store.clone(), Bell::new(|| {}), Wall::now);
    // It finds out which tiers take nothing.
    mover.tick();
    let at_work = AtomicUsize::new(THREADS as usize);
    std::thread::scope(|threads| {
        for session in 0..THREADS {
            let (scope, at_work) = (&scope, &at_work);
            threads.spawn(move || {
                work(scope, session, 120);
                at_work.fetch_sub(1, Ordering::Release);
            });
        }
        threads.spawn(|| move_blocks(&mut mover, &scope, &at_work));
        while at_work.load(Ordering::Acquire) > 0 {
            check(&scrape(), "default");
        }
    });
    go_and_come(&daemon, &mut mover, &scope);
    daemon.store.audit().unwrap();

    let page = scrape();
    assert_eq!(exported(&page), documented());
    assert!(page.help.len() == page.kinds.len() && page.help.values().all(|help| help.len() > 5));
    for tenant in ["default", "other"] {
        check(&page, tenant);
    }
    let of = |name, outcome| page.sum(name, &[("outcome", outcome)]);
    assert!(of("tranship_reservations_total", "existing") > 0.0, "the work hit something");
    assert!(page.sum("tranship_departed_blocks_total", &[("reason", "evicted")]) > 0.0);
    assert_eq!(page.sum("tranship_leases", &[]), 0.0);

    assert!(page.sum("tranship_promoted_blocks_total", &[]) > 0.0, "blocks came up");
    let nvme = ("tier", "nvme");
    assert!(page.sum("tranship_demotions_total", &[nvme, ("outcome", "taken")]) > 0.0);
    assert_eq!(page.sum("tranship_demotions_total", &[("tier", "object")]), 0.0, "it is off");
    assert_eq!(page.sum("tranship_moving_blocks", &[]), 0.0, "all has arrived");
    let state = |tier, state| page.sum("tranship_tier_state", &[("tier", tier), ("state", state)]);
    assert_eq!((state("nvme", "ready"), state("nvme", "off")), (1.0, 0.0));
    assert_eq!((state("object", "ready"), state("object", "off")), (0.0, 1.0));

    assert_eq!(page.sum("tranship_transfers_submitted_total", &[]), 5.0);
    assert_eq!(page.sum("tranship_transfers_ended_total", &[]), 5.0);
    assert_eq!(page.sum("tranship_transferred_bytes_total", &[("direction", "write")]), 20480.0);
    let requests = |request| page.sum("tranship_requests_total", &[("request", request)]);
    let durations = "tranship_request_duration_seconds";
    for request in ["lookup", "hello"] {
        let kind = ("request", request);
        let count = page.sum(&format!("{durations}_count"), &[kind]);
        assert_eq!(requests(request), count);
        assert_eq!(page.sum(&format!("{durations}_bucket"), &[kind, ("le", "+Inf")]), count);
    }
    let faster = [("request", "lookup"), ("le", "0.01")];
    assert_eq!(page.sum(&format!("{durations}_bucket"), &faster), 9.0);
    assert!(page.sum("tranship_sessions", &[]) <= page.sum("tranship_sessions_opened_total", &[]));
    assert_eq!(page.sum("tranship_state", &[("state", "serving")]), 1.0);
}
