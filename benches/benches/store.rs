//! The store's bookkeeping, without any bytes moving: what each request costs the daemon.
//!
//! `lookup` finds 64 keys of a resident chain; once in a small cache, where everything is hot, and
//! once over chains spread through a million blocks, where the table is not. `reserve_commit`
//! stores a chain of 64 blocks without checking bytes, in an empty arena and in a full one, where
//! each evicts another. `lease_release` leases and releases 64 blocks.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tranship_cache::block::SessionId;
use tranship_cache::identity::{Geometry, Identity};
use tranship_cache::store::{Grant, Item, Options, Scope, Store, TenantOptions};
use tranship_cache::{Chain, Key, Link, Millis};
use tranship_transport::memory::HostMemory;

const KEYS: usize = 64;
const GRANULE: u64 = 4096;
const ME: SessionId = SessionId(1);
const NOW: Millis = Millis(1);

/// A scope with room for so many blocks of one granule; its memory is never touched.
fn scope(blocks: usize) -> Scope {
    let store = Store::new(Options { verify_on_commit: false, ..Options::default() });
    let memory = HostMemory::new(blocks * GRANULE as usize).sparse().build().expect("memory");
    let tenant = store.open_tenant(TenantOptions::new("default", memory)).expect("a new tenant");
    let identity = Identity::new("m", "r", "bf16", Geometry::default(), 16);
    tenant.register(&identity).expect("a valid identity")
}

fn chain(scope: &Scope, seed: u32) -> Vec<Link> {
    let mut chain = Chain::new(scope.identity());
    (0..KEYS as u32).map(|block| chain.push_tokens(&[seed, block])).collect()
}

fn keys(chain: &[Link]) -> Vec<Key> {
    chain.iter().map(|link| link.key).collect()
}

fn items(chain: &[Link]) -> Vec<Item> {
    chain.iter().map(|link| Item { link: *link, len: GRANULE, ttl: None }).collect()
}

fn put(scope: &Scope, items: &[Item]) {
    for grant in scope.reserve(ME, items, None, NOW) {
        let Grant::Granted(room) = grant else { panic!("{grant:?}") };
        black_box(room.commit(0, NOW).expect("unchecked"));
    }
}

fn lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("lookup");
    group.throughput(Throughput::Elements(KEYS as u64));
    for (name, chains) in [("64_of_64", 1), ("64_of_1M", 16_384)] {
        let scope = scope(chains * KEYS);
        let mut asked = Vec::new();
        for seed in 0..chains as u32 {
            let chain = chain(&scope, seed);
            put(&scope, &items(&chain));
            asked.push(keys(&chain));
        }
        let mut presence = Vec::new();
        let mut at = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                // A stride that is coprime to the count, so that neighbours are not asked in turn.
                at = (at + 7919) % chains;
                let found = scope.lookup(black_box(&asked[at]), &mut presence, NOW);
                assert_eq!(found.prefix, KEYS);
            });
        });
    }
    group.finish();
}

fn reserve_commit(c: &mut Criterion) {
    let mut group = c.benchmark_group("reserve_commit");
    group.throughput(Throughput::Elements(KEYS as u64));
    group.bench_function("64_empty", |b| {
        let scope = scope(KEYS);
        let items = items(&chain(&scope, 0));
        let clear = || assert!(scope.clear() <= KEYS);
        b.iter_batched(clear, |()| put(&scope, &items), BatchSize::PerIteration);
    });
    group.bench_function("64_evicting", |b| {
        let scope = scope(64 * KEYS);
        let chains: Vec<_> = (0..128).map(|seed| items(&chain(&scope, seed))).collect();
        let mut next = chains.iter().cycle();
        b.iter(|| put(&scope, next.next().expect("an endless cycle")));
    });
    group.finish();
}

fn lease_release(c: &mut Criterion) {
    let scope = scope(KEYS);
    let chain = chain(&scope, 0);
    put(&scope, &items(&chain));
    let keys = keys(&chain);
    let mut group = c.benchmark_group("lease_release");
    group.throughput(Throughput::Elements(KEYS as u64));
    group.bench_function("64", |b| {
        b.iter(|| drop(black_box(scope.lease(ME, &keys, None, NOW))));
    });
    group.finish();
}

criterion_group!(benches, lookup, reserve_commit, lease_release);
criterion_main!(benches);
