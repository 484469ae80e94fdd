//! Several sessions at once, on real threads: whoever reads, reads what was written.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::thread;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use tranship_transport::memory::HostMemory;

use super::{Grant, Item, Options, Scope, Store, TenantOptions, Watch};
use crate::arena::checksum;
use crate::block::{CommitError, SessionId, Waiter};
use crate::identity::{Geometry, Identity};
use crate::key::Key;
use crate::lineage::{Chain, Link};
use crate::time::Millis;

const SESSIONS: u64 = 4;
const ROUNDS: u64 = 400;
const CHAINS: usize = 24;
const DEPTH: usize = 4;
const BLOCK_BYTES: usize = 6000;
/// A third of all blocks fit, so eviction is always at work.
const ARENA_BYTES: usize = CHAINS * DEPTH / 3 * 8192;
const NOW: Millis = Millis(1);

/// The one right content of a block.
fn content(key: Key) -> Vec<u8> {
    key.as_bytes().iter().copied().cycle().take(BLOCK_BYTES).collect()
}

struct Session {
    id: SessionId,
    scope: Scope,
    rng: Pcg64,
    read: u64,
}

impl Session {
    /// What an engine does: look up, load what is there, store what is not.
    fn serve(&mut self, chain: &[Link]) {
        let keys: Vec<Key> = chain.iter().map(|link| link.key).collect();
        let mut presence = Vec::new();
        let prefix = self.scope.lookup(&keys, &mut presence, NOW).prefix;
        let lease = self.scope.lease(self.id, &keys[..prefix], None, NOW);
        for (index, view) in lease.ready() {
            let mut bytes = vec![0; BLOCK_BYTES];
            assert!(lease.read_at(index, 0, &mut bytes).unwrap());
            assert_eq!(bytes, content(view.key), "wrong bytes");
            self.read += 1;
        }
        let missing: Vec<Item> = chain[prefix..]
            .iter()
            .map(|link| Item { link: *link, len: BLOCK_BYTES as u64, ttl: None })
            .collect();
        for grant in self.scope.reserve(self.id, &missing, None, NOW) {
            let Grant::Granted(mut room) = grant else { continue };
            let bytes = content(room.key());
            // The space may hold this very block from an earlier time, so make half of it wrong.
            room.write_at(0, &bytes.iter().map(|byte| !byte).collect::<Vec<_>>()[..99]).unwrap();
            if self.rng.random_bool(0.1) {
                continue; // An engine that gives up half-way.
            }
            let sum = checksum(&bytes);
            room = match room.commit(sum, NOW) {
                Err(CommitError::Mismatch { reserved, .. }) => reserved,
                other => panic!("a half-filled block was taken: {other:?}"),
            };
            room.write_at(0, &bytes).unwrap();
            room.commit(sum, NOW).unwrap();
        }
        match self.rng.random_range(0..20) {
            0 => drop(self.scope.remove(&keys[prefix / 2..])),
            1 => drop(self.scope.pin(&keys[..1])),
            2 => drop(self.scope.unpin(&keys)),
            _ => {}
        }
    }
}

#[test]
fn sessions_share_blocks_and_every_byte_is_right() {
    let store = Store::new(Options::default());
    let memory = HostMemory::new(ARENA_BYTES).build().unwrap();
    let tenant = store.open_tenant(TenantOptions::new("default", memory)).unwrap();
    let identity = Identity::new("m", "r", "bf16", Geometry::default(), 16);
    let scope = tenant.register(&identity).unwrap();
    let chains: Vec<Vec<Link>> = (0..CHAINS as u32)
        .map(|seed| {
            let mut chain = Chain::new(&identity);
            (0..DEPTH as u32).map(|block| chain.push_tokens(&[seed, block])).collect()
        })
        .collect();
    let start = Barrier::new(SESSIONS as usize + 1);
    let (done, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|threads| {
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|id| {
                let (scope, chains, start, reads) = (scope.clone(), &chains, &start, &reads);
                let rng = Pcg64::seed_from_u64(id);
                threads.spawn(move || {
                    let mut session = Session { id: SessionId(id), scope, rng, read: 0 };
                    start.wait();
                    for _ in 0..ROUNDS {
                        let chain = session.rng.random_range(0..chains.len());
                        session.serve(&chains[chain]);
                    }
                    reads.fetch_add(session.read, Ordering::Relaxed);
                })
            })
            .collect();
        // An administrator looks on, evicts, and counts again and again meanwhile.
        let (store, tenant, done, start) = (&store, &tenant, &done, &start);
        threads.spawn(move || {
            start.wait();
            while !done.load(Ordering::Relaxed) {
                store.audit().unwrap();
                tenant.evict(8192, NOW);
                store.reclaim(NOW);
            }
        });
        let ends: Vec<_> = sessions.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        assert!(ends.iter().all(Result::is_ok), "a session failed");
    });
    store.audit().unwrap();
    let stats = tenant.stats();
    assert!(reads.load(Ordering::Relaxed) > 0 && stats.counters.evicted > 0, "{stats:?}");
    assert_eq!(stats.counters.corrupt, 0);
    assert_eq!((stats.gauges.filling.blocks, stats.gauges.leases), (0, 0));
}

/// A bell that a waiting thread hears even if it rang before.
#[derive(Default)]
struct Bell(Mutex<bool>, Condvar);

impl Bell {
    fn ring(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }

    fn wait(&self) {
        let rung = self.0.lock().unwrap();
        drop(self.1.wait_while(rung, |rung| !*rung).unwrap());
    }
}

#[test]
fn a_parked_reader_is_woken_by_the_commit_of_another_thread() {
    let bell = Arc::new(Bell::default());
    let ring = Arc::clone(&bell);
    let notify: super::Notify = Box::new(move || ring.ring());
    let store = Store::new(Options { notify: Some(notify), ..Options::default() });
    let memory = HostMemory::new(1 << 16).build().unwrap();
    let tenant = store.open_tenant(TenantOptions::new("default", memory)).unwrap();
    let identity = Identity::new("m", "r", "bf16", Geometry::default(), 16);
    let scope = tenant.register(&identity).unwrap();
    let link = Chain::new(&identity).push_tokens(&[1]);
    let item = Item { link, len: BLOCK_BYTES as u64, ttl: None };
    let parked = Barrier::new(2);
    thread::scope(|threads| {
        let Grant::Granted(mut room) = scope.reserve(SessionId(0), &[item], None, NOW).remove(0)
        else {
            panic!("an empty arena has room")
        };
        let reader = threads.spawn(|| {
            let waiter = Waiter { session: SessionId(1), token: 5 };
            assert_eq!(scope.watch(link.key, waiter), Watch::Waiting);
            parked.wait();
            bell.wait();
            assert_eq!(store.woken()[0].waiter, waiter);
            let lease = scope.lease(SessionId(1), &[link.key], None, NOW);
            let mut bytes = vec![0; BLOCK_BYTES];
            assert!(lease.read_at(0, 0, &mut bytes).unwrap());
            assert_eq!(bytes, content(link.key));
        });
        parked.wait();
        let bytes = content(link.key);
        room.write_at(0, &bytes).unwrap();
        room.commit(checksum(&bytes), NOW).unwrap();
        reader.join().unwrap();
    });
}
