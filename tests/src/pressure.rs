//! More blocks than fit, from several clients at once.

use std::time::Duration;

use tranship_cache::client::Client;
use tranship_cache::{Key, Link};

use crate::daemon::Daemon;
use crate::world::{chain, content, identity};

/// The memory of a daemon that is to be pressed: far from enough.
pub const PRESSED_BYTES: usize = 100 * 53_248;

/// Three clients load what they find and store the rest, for so many rounds: none ever sees wrong bytes,
/// though blocks are evicted all the time.
///
/// # Panics
/// When one does, or nothing was evicted or found.
pub fn press(daemon: &Daemon, rounds: u32, connect: impl Fn() -> Client + Sync) {
    const LEN: usize = 50_000;
    let keys = |links: &[Link]| links.iter().map(|link| link.key).collect::<Vec<Key>>();
    std::thread::scope(|scope| {
        for engine in 0..3_u32 {
            let connect = &connect;
            scope.spawn(move || {
                let cache = connect().cache(identity());
                let mut into = vec![0; LEN];
                for round in 0..rounds {
                    let links = chain((round * 7 + engine * 3) % 20, 10);
                    let found = cache.lookup(&keys(&links)).unwrap().prefix;
                    let lease = cache.lease(&keys(&links[..found]), Duration::ZERO).unwrap();
                    for (index, link) in links[..found].iter().enumerate() {
                        if lease.copy_to(index, &mut into).is_ok() {
                            assert!(into == content(link, LEN), "block {index} has other bytes");
                        }
                    }
                    drop(lease);
                    let bytes: Vec<_> =
                        links[found..].iter().map(|link| content(link, LEN)).collect();
                    let blocks: Vec<_> =
                        links[found..].iter().zip(&bytes).map(|(l, b)| (*l, &b[..])).collect();
                    cache.store(&blocks).unwrap();
                }
            });
        }
    });
    let counters = daemon.store.stats().remove(0).counters;
    assert_eq!((counters.corrupt, counters.mismatched), (0, 0));
    assert!(counters.evicted > 0 && counters.hits[0] > 0, "{counters:?}");
}
