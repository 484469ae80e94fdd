//! What a call costs from another language, beside the same call in Rust.
//!
//! All callers have a connection of their own to one daemon, and ask for the same blocks in turns.

pub mod interpreter;
pub mod library;

use std::time::{Duration, Instant};

use tranship_cache::client::{Cache, Client, Stored};
use tranship_cache::identity::Geometry;
use tranship_cache::{Chain, Identity, Key, Link};

use super::line::{Called, Latency, Throughput};
use super::pages::{Pieces, Private};
use super::rounds::{Measured, Tally, in_turns};
use super::{Error, Line, Plan};

/// Blocks of one call while preparing.
const STORE_BATCH: usize = 64;

/// Somebody who calls the cache.
pub trait Caller {
    /// In results.
    fn name(&self) -> &'static str;

    /// How many keys, from the first, can be loaded.
    ///
    /// # Errors
    /// When the call fails.
    fn lookup(&mut self, keys: &[Key]) -> Result<(usize, Took), Error>;

    /// Lease, copy with the checksum verified, release. A caller of another process copies into as much
    /// memory of its own.
    ///
    /// # Errors
    /// When the call fails.
    fn get(&mut self, key: Key, into: &mut [u8]) -> Result<Took, Error>;
}

/// So many calls, one after the other, took so long together.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    /// One at least.
    pub calls: u32,
    /// Of all of them.
    pub time: Duration,
}

impl Took {
    /// One call, which began then and has just ended.
    fn one(began: Instant) -> Self {
        Self { calls: 1, time: began.elapsed() }
    }

    fn count(&self, tally: &mut Tally, units: u64, bytes: u64) {
        tally.took(self.time, u64::from(self.calls) * units, u64::from(self.calls) * bytes);
        tally.latency(self.time / self.calls.max(1));
    }
}

/// Rust, which the others are compared with.
struct Native<'a>(&'a Cache);

impl Caller for Native<'_> {
    fn name(&self) -> &'static str {
        "rust"
    }

    fn lookup(&mut self, keys: &[Key]) -> Result<(usize, Took), Error> {
        let began = Instant::now();
        let found = self.0.lookup(keys)?.prefix;
        Ok((found, Took::one(began)))
    }

    fn get(&mut self, key: Key, into: &mut [u8]) -> Result<Took, Error> {
        let began = Instant::now();
        self.0.lease(&[key], Duration::ZERO)?.copy_to(0, into)?;
        Ok(Took::one(began))
    }
}

/// What is measured of each caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Find the longest prefix of so many resident blocks.
    Lookup {
        /// Keys of one call.
        keys: u32,
    },
    /// Get one block.
    Get {
        /// Bytes of a block.
        size: u64,
    },
}

/// The identity that all callers use; blocks of another run are not to be found.
#[must_use]
pub fn identity(client: &Client, tenant: &str) -> Identity {
    let mut identity = Identity::new("tranship-bench", "1", "u8", Geometry::default(), 1);
    identity.salt = client.engine().id().to_string();
    identity.tenant = tenant.to_owned();
    identity
}

/// The arena a daemon needs for these measurements, bytes.
#[must_use]
pub fn capacity(plan: &Plan, size: u64) -> u64 {
    2 * plan.working_set_for(size) + (64 << 20)
}

/// Measures one operation of a caller beside Rust.
///
/// # Errors
/// When a call fails, or blocks do not stay.
pub fn measure(plan: &Plan, cache: &Cache, caller: &mut dyn Caller, op: Op) -> Result<Line, Error> {
    let name = caller.name();
    let (word, size, batch, [rust, other]) = match op {
        Op::Lookup { keys } => ("lookup", 0, keys, lookup(plan, cache, caller, keys)?),
        Op::Get { size } => ("get", size, 1, get(plan, cache, caller, size)?),
    };
    let get = size > 0;
    let called = Called {
        caller: name,
        rust_p50_us: rust.percentile_us(50.0),
        time_to_rust: rust.rate_to(&other),
    };
    Ok(Line {
        size,
        batch,
        throughput: get.then(|| Throughput::of(&other, &rust)),
        keys_per_s: (!get).then(|| other.units_per_s()),
        called: Some(called),
        working_set: if get { plan.working_set_for(size) } else { 0 },
        ..Line::new("ffi", word, Latency::Call, &other, plan)
    })
}

fn lookup(
    plan: &Plan,
    cache: &Cache,
    caller: &mut dyn Caller,
    count: u32,
) -> Result<[Measured; 2], Error> {
    let links = links(cache, "lookup", u64::from(count));
    store(cache, links.iter().map(|link| (*link, &[0; 64][..])))?;
    let keys: Vec<Key> = links.iter().map(|link| link.key).collect();
    let mut native = Native(cache);
    let step = |caller: &mut dyn Caller, tally: &mut Tally| {
        let (found, took) = caller.lookup(&keys)?;
        took.count(tally, keys.len() as u64, 0);
        match keys.len() - found {
            0 => Ok(()),
            missing => Err(Error::Evicted { missing, asked: keys.len() }),
        }
    };
    let measured = in_turns(
        plan.time,
        1000,
        [&mut |tally| step(&mut native, tally), &mut |tally| step(caller, tally)],
    )?;
    cache.remove(&keys)?;
    Ok(measured)
}

fn get(
    plan: &Plan,
    cache: &Cache,
    caller: &mut dyn Caller,
    size: u64,
) -> Result<[Measured; 2], Error> {
    let bytes = plan.working_set_for(size);
    let pieces = Pieces::new(size, bytes);
    let source = Private::new(bytes)?;
    let links = links(cache, "get", pieces.count());
    let placed =
        links.iter().enumerate().map(|(i, link)| (*link, source.bytes(&pieces.at(i as u64))));
    store(cache, placed)?;
    let keys: Vec<Key> = links.iter().map(|link| link.key).collect();
    let mut native = Native(cache);
    let step = |caller: &mut dyn Caller, turn: &mut Turn, tally: &mut Tally| {
        let block = turn.next % pieces.count();
        turn.next += 1;
        let into = turn.target.bytes_mut(&pieces.at(block));
        caller.get(keys[block as usize], into)?.count(tally, 1, size);
        Ok(())
    };
    let turn = || Ok::<_, Error>(Turn { next: 0, target: Private::new(bytes)? });
    let (mut ours, mut theirs) = (turn()?, turn()?);
    let measured = in_turns(
        plan.time,
        pieces.count(),
        [&mut |tally| step(&mut native, &mut ours, tally), &mut |tally| {
            step(caller, &mut theirs, tally)
        }],
    )?;
    cache.remove(&keys)?;
    Ok(measured)
}

/// Where one caller is in the blocks, and where it puts them.
struct Turn {
    next: u64,
    target: Private,
}

/// A chain of so many blocks of their own.
fn links(cache: &Cache, name: &str, count: u64) -> Vec<Link> {
    let mut chain = Chain::new(cache.identity());
    (0..count).map(|_| chain.push(name.as_bytes())).collect()
}

fn store<'a>(cache: &Cache, blocks: impl Iterator<Item = (Link, &'a [u8])>) -> Result<(), Error> {
    let blocks: Vec<_> = blocks.collect();
    for some in blocks.chunks(STORE_BATCH) {
        let stored = cache.store(some)?;
        if let Some(other) = stored.into_iter().find(|stored| *stored != Stored::Stored) {
            return Err(Error::NotStored(other));
        }
    }
    Ok(())
}
