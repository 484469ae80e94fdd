//! The cache, as a client of a daemon in another process sees it.

pub mod tiers;

use std::time::{Duration, Instant};

use tranship_cache::client::{Cache, Client, Stored};
use tranship_cache::identity::Geometry;
use tranship_cache::{Chain, Identity, Key, Link};

use super::line::{Latency, Throughput};
use super::pages::{self, Pieces, Private};
use super::rounds::{Measured, Tally, in_turns};
use super::{Error, Line, Plan};

/// Blocks of one call while preparing.
const STORE_BATCH: usize = 64;
/// Blocks that are resident, at least, while keys are looked up: more entries of the catalog than a
/// core keeps close.
const CATALOG_KEYS: u32 = 32_768;
/// Bytes of the blocks that are looked up and never read; each takes a page of the arena.
const TOKEN_BYTES: usize = 64;
const PAGE_BYTES: u64 = 4096;

/// An operation to be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Lease, copy into engine memory with the checksum verified, release.
    Get {
        /// Bytes of a block.
        size: u64,
        /// Blocks of one lease.
        batch: u32,
    },
    /// Reserve, copy into the arena, commit with the checksum verified by the daemon.
    Put {
        /// Bytes of a block.
        size: u64,
    },
    /// Find the longest prefix of resident blocks, of one chain after the other.
    Lookup {
        /// Keys of one lookup.
        keys: u32,
    },
}

/// The measuring side.
pub struct Bench {
    plan: Plan,
    cache: Cache,
}

impl Bench {
    /// The arena a daemon needs for these measurements, bytes: the blocks of a working set twice,
    /// and room.
    #[must_use]
    pub fn capacity(plan: &Plan, ops: &[Op]) -> u64 {
        let bytes = ops.iter().map(|op| match *op {
            Op::Get { size, .. } | Op::Put { size } => plan.working_set_for(size),
            Op::Lookup { keys } => u64::from(CATALOG_KEYS + keys) * PAGE_BYTES,
        });
        3 * bytes.max().unwrap_or(0) + (64 << 20)
    }

    /// Measures the daemon that `client` is connected to.
    #[must_use]
    pub fn new(plan: Plan, client: &Client, tenant: &str) -> Self {
        let mut identity = Identity::new("tranship-bench", "1", "u8", Geometry::default(), 1);
        // Blocks of another run are not to be found.
        identity.salt = client.engine().id().to_string();
        identity.tenant = tenant.to_owned();
        Self { plan, cache: client.cache(identity) }
    }

    /// Measures one operation.
    ///
    /// # Errors
    /// When the daemon refuses, blocks do not stay, or memory is short.
    pub fn measure(&self, op: Op) -> Result<Line, Error> {
        let set = |size| self.plan.working_set_for(size);
        let (name, size, batch, working_set, throughput, measured) = match op {
            Op::Get { size, batch } => {
                let [limit, get] = self.get(size, batch)?;
                ("get", size, batch, set(size), Some(Throughput::of(&get, &limit)), get)
            }
            Op::Put { size } => {
                let [limit, put] = self.put(size)?;
                ("put", size, 1, set(size), Some(Throughput::of(&put, &limit)), put)
            }
            Op::Lookup { keys } => ("lookup", 0, keys, 0, None, self.lookup(keys)?),
        };
        let lookup = name == "lookup";
        Ok(Line {
            fabric: self.cache.client().address().kind.name(),
            size,
            batch,
            throughput,
            keys_per_s: lookup.then(|| measured.units_per_s()),
            resident_keys: lookup.then(|| chains(batch) * u64::from(batch)),
            working_set,
            ..Line::new("cache", name, Latency::Call, &measured, &self.plan)
        })
    }

    /// The limit and the operation.
    fn get(&self, size: u64, batch: u32) -> Result<[Measured; 2], Error> {
        let bytes = self.plan.working_set_for(size);
        let pieces = Pieces::new(size, bytes);
        let batch = u64::from(batch).min(pieces.count());
        let (source, mut target) = (Private::new(bytes)?, Private::new(bytes)?);
        let links = self.links("get", pieces.count());
        let keys = keys(&links);
        self.store(
            links.iter().enumerate().map(|(i, link)| (*link, source.bytes(&pieces.at(i as u64)))),
        )?;
        let (from, to) = (pages::memory(bytes)?, pages::memory(bytes)?);
        let mut limit = pages::copies(&from, &to, pieces);
        let mut first = 0;
        let mut get = |tally: &mut Tally| {
            let range = first..first + batch;
            let began = Instant::now();
            let lease =
                self.cache.lease(&keys[first as usize..][..batch as usize], Duration::ZERO)?;
            for (index, block) in range.enumerate() {
                lease.copy_to(index, target.bytes_mut(&pieces.at(block)))?;
            }
            drop(lease);
            let took = tally.worked(began, batch, batch * size);
            tally.latency(took);
            first = if first + 2 * batch <= pieces.count() { first + batch } else { 0 };
            Ok(())
        };
        let measured = in_turns(self.plan.time, pieces.count() / batch, [&mut limit, &mut get])?;
        self.cache.remove(&keys)?;
        Ok(measured)
    }

    /// The limit and the operation.
    fn put(&self, size: u64) -> Result<[Measured; 2], Error> {
        let bytes = self.plan.working_set_for(size);
        let pieces = Pieces::new(size, bytes);
        let source = Private::new(bytes)?;
        let links = self.links("put", pieces.count());
        let keys = keys(&links);
        let (from, to) = (pages::memory(bytes)?, pages::memory(bytes)?);
        let mut limit = pages::copies(&from, &to, pieces);
        let mut next = links.iter().cycle();
        let mut put = |tally: &mut Tally| {
            let link = *next.next().expect("links go round and round");
            if link.position == 0 {
                // Not measured: all blocks of the last rotation leave.
                self.cache.remove(&keys)?;
            }
            let block = source.bytes(&pieces.at(u64::from(link.position)));
            let began = Instant::now();
            let stored = self.cache.store(&[(link, block)])?;
            let took = tally.worked(began, 1, size);
            tally.latency(took);
            all_stored(stored)
        };
        let measured = in_turns(self.plan.time, pieces.count(), [&mut limit, &mut put])?;
        self.cache.remove(&keys)?;
        Ok(measured)
    }

    fn lookup(&self, count: u32) -> Result<Measured, Error> {
        let chain = |number| self.links(&format!("lookup {number}"), u64::from(count));
        let links: Vec<Vec<Link>> = (0..chains(count)).map(chain).collect();
        self.store(links.iter().flatten().map(|link| (*link, &[0; TOKEN_BYTES][..])))?;
        let keys: Vec<Vec<Key>> = links.iter().map(|links| keys(links)).collect();
        let mut next = keys.iter().cycle();
        let mut lookup = |tally: &mut Tally| {
            let asked = next.next().expect("chains go round and round");
            let began = Instant::now();
            let found = self.cache.lookup(asked)?;
            let took = tally.worked(began, u64::from(count), 0);
            tally.latency(took);
            match asked.len() - found.prefix {
                0 => Ok(()),
                missing => Err(Error::Evicted { missing, asked: asked.len() }),
            }
        };
        let [measured] = in_turns(self.plan.time, chains(count), [&mut lookup])?;
        self.cache.remove(&keys.concat())?;
        Ok(measured)
    }

    /// A chain of so many blocks of their own.
    fn links(&self, name: &str, count: u64) -> Vec<Link> {
        let mut chain = Chain::new(self.cache.identity());
        (0..count).map(|_| chain.push(name.as_bytes())).collect()
    }

    fn store<'a>(&self, blocks: impl Iterator<Item = (Link, &'a [u8])>) -> Result<(), Error> {
        let blocks: Vec<_> = blocks.collect();
        blocks.chunks(STORE_BATCH).try_for_each(|some| all_stored(self.cache.store(some)?))
    }
}

/// How many chains of `keys` blocks make a full catalog.
fn chains(keys: u32) -> u64 {
    u64::from(CATALOG_KEYS.div_ceil(keys))
}

fn all_stored(stored: Vec<Stored>) -> Result<(), Error> {
    match stored.into_iter().find(|stored| *stored != Stored::Stored) {
        None => Ok(()),
        Some(other) => Err(Error::NotStored(other)),
    }
}

fn keys(links: &[Link]) -> Vec<Key> {
    links.iter().map(|link| link.key).collect()
}
