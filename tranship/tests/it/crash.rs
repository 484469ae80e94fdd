//! A daemon with an NVMe tier killed with -9 at random moments under load, fifty times: what was said
//! to be safe is there after every restart, and no byte is ever wrong.

use std::collections::HashMap;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use tranship_cache::catalog::Presence;
use tranship_cache::client::{BlockResult, Cache, Client, Stored};
use tranship_cache::identity::Geometry;
use tranship_cache::{Chain, Identity, Key, Link};
use tranship_transport::{Address, Kind};

use crate::common::{Dice, Scene, seed};

/// How often the daemon is killed.
const KILLS: u64 = 50;
/// Clients that store meanwhile.
const WRITERS: u64 = 2;
/// Blocks of one chain, which are stored together.
const CHAIN: u64 = 4;
/// At most so many chains are stored by one client before the daemon is killed.
const CHAINS: u64 = 12;
/// After a kill one in so many of the older blocks is read, others each time; after the last all are.
const READ_ONE_IN: usize = 8;
/// How long a client waits for what it asked for.
const PATIENCE: Duration = Duration::from_secs(20);

fn identity() -> Identity {
    Identity::new("m", "r", "bf16", Geometry::default(), 16)
}

/// Bytes of a block, a function of its key: up to 96 KiB, mostly not whole pages.
fn content(key: Key) -> Vec<u8> {
    let bytes = key.as_bytes();
    let len = 1 + u64::from(u32::from_le_bytes(bytes[..4].try_into().unwrap())) % (96 << 10);
    bytes.iter().copied().cycle().take(len as usize).collect()
}

fn open(scene: &Scene) -> Cache {
    let address = Address::new(Kind::Shm, scene.path("tranship.sock").display().to_string());
    Client::builder().timeout(PATIENCE).connect(&address).expect("it serves").cache(identity())
}

/// What a client has done.
enum Told {
    /// Stored, and maybe lost with the next kill.
    Put(Vec<Link>),
    /// Told to be safe.
    Safe(Vec<Key>),
    /// Removed; it may come back with a kill, but not without.
    Removed(Key),
}

/// Stores chains, makes some safe and removes some, until the daemon is gone.
fn write(cache: &Cache, mut dice: Dice, numbers: std::ops::Range<u64>, told: &Sender<Told>) {
    for number in numbers {
        let mut chain = Chain::new(&identity());
        let links: Vec<Link> =
            (0..CHAIN).map(|block| chain.push_tokens(&[number as u32, block as u32])).collect();
        let _ = told.send(Told::Put(links.clone()));
        let Some(()) = one(cache, &mut dice, &links, told) else { return };
    }
}

/// None once the daemon is gone.
fn one(cache: &Cache, dice: &mut Dice, links: &[Link], told: &Sender<Told>) -> Option<()> {
    let contents: Vec<Vec<u8>> = links.iter().map(|link| content(link.key)).collect();
    let blocks: Vec<(Link, &[u8])> =
        links.iter().zip(&contents).map(|(link, bytes)| (*link, bytes.as_slice())).collect();
    let began = Instant::now();
    for block in &blocks {
        // Memory is small; room comes as blocks get to the tier below.
        while let Stored::Refused { why, retry_after } = cache.store(&[*block]).ok()?.remove(0) {
            let Some(retry) = retry_after else {
                assert!(why.contains("session"), "{why}");
                return None;
            };
            assert!(began.elapsed() < PATIENCE, "{why}");
            // As the daemon advises; it is not the test that waits for something here.
            thread::sleep(retry);
        }
    }
    if dice.roll(3) > 0 {
        let keys: Vec<Key> = links.iter().map(|link| link.key).collect();
        let safe = cache.persist(&keys, PATIENCE).ok()?;
        let keys = keys.iter().zip(safe).filter(|(_, safe)| *safe).map(|(key, _)| *key).collect();
        let _ = told.send(Told::Safe(keys));
    }
    if dice.roll(8) == 0 {
        let last = links[links.len() - 1].key;
        let _ = told.send(Told::Removed(last));
        cache.remove(&[last]).ok()?;
    }
    Some(())
}

#[derive(Default)]
struct Recorder {
    put: Vec<Key>,
    safe: HashMap<Key, bool>,
}

impl Recorder {
    fn hear(&mut self, told: Told) {
        match told {
            Told::Put(links) => self.put.extend(links.iter().map(|link| link.key)),
            Told::Safe(keys) => self.safe.extend(keys.into_iter().map(|key| (key, true))),
            Told::Removed(key) => drop(self.safe.insert(key, false)),
        }
    }

    /// Reads what was stored since `since`, and some of what was stored before.
    fn check_some(&self, cache: &Cache, kill: u64, since: usize) {
        let turn = kill as usize % READ_ONE_IN;
        let old = self.put[..since].iter().copied().skip(turn).step_by(READ_ONE_IN);
        self.check(cache, kill, &old.chain(self.put[since..].iter().copied()).collect::<Vec<_>>());
    }

    /// Reads blocks; how many were there.
    fn check(&self, cache: &Cache, kill: u64, keys: &[Key]) -> usize {
        let mut there = 0;
        for keys in keys.chunks(8) {
            let lease = cache.lease(keys, PATIENCE).expect("the daemon answers");
            for (index, (key, result)) in lease.results().enumerate() {
                let safe = self.safe.get(&key) == Some(&true);
                match result {
                    BlockResult::Ready { len } => {
                        let mut bytes = vec![0; len as usize];
                        lease.copy_to(index, &mut bytes).expect("the daemon checked it");
                        assert!(bytes == content(key), "wrong bytes of {key} after kill {kill}");
                        there += 1;
                    }
                    other => assert!(!safe, "{key} was safe, but is {other:?} after kill {kill}"),
                }
            }
        }
        there
    }
}

#[test]
fn what_is_safe_outlives_fifty_kills_and_no_byte_is_wrong() {
    let scene = Scene::new();
    let log = scene.path("nvme.log").display().to_string();
    let serve = ["--capacity", "2MiB", "--nvme", &log];
    let serve = [&serve[..], &["--nvme-capacity", "1GiB", "--nvme-segment", "4MiB"]].concat();
    let seed = seed();
    let mut dice = Dice(seed);
    let mut recorder = Recorder::default();
    let mut checked = 0;
    for kill in 0..KILLS {
        let mut daemon = scene.serve(&serve);
        recorder.check_some(&open(&scene), kill, checked);
        checked = recorder.put.len();
        let (told, heard) = channel();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (cache, told) = (open(&scene), told.clone());
                let first = (kill * WRITERS + writer) * CHAINS;
                let dice = Dice(seed ^ first << 20);
                thread::spawn(move || write(&cache, dice, first..first + CHAINS, &told))
            })
            .collect();
        drop(told);
        // Somewhere in the middle of what they do.
        for _ in 0..dice.roll((CHAINS * WRITERS) as usize) {
            let Ok(told) = heard.recv() else { break };
            recorder.hear(told);
        }
        daemon.kill();
        writers.into_iter().for_each(|writer| writer.join().expect("no client panics"));
        heard.into_iter().for_each(|told| recorder.hear(told));
    }
    let mut daemon = scene.serve(&serve);
    let cache = open(&scene);
    let last = recorder.check(&cache, KILLS, &recorder.put);
    let safe = recorder.safe.values().filter(|safe| **safe).count();
    assert!(safe as u64 > KILLS, "only {safe} blocks were ever safe");
    // After a clean end everything is as it was, and what was removed stays so.
    let removed = recorder.safe.iter().filter(|(_, safe)| !**safe).map(|(key, _)| *key);
    let removed: Vec<Key> = removed.collect();
    let back = cache.remove(&removed).expect("the daemon answers") as usize;
    assert_eq!(daemon.terminate(), Some(0));
    let _daemon = scene.serve(&serve);
    let cache = open(&scene);
    assert_eq!(recorder.check(&cache, KILLS + 1, &recorder.put), last - back);
    let found = cache.lookup(&removed).expect("the daemon answers");
    assert!(found.presence.iter().all(|presence| *presence == Presence::Absent), "{found:?}");
}
