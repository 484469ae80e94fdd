//! The daemon's policies over a trace, without a daemon.
//!
//! | module | what it holds |
//! |---|---|
//! | [`cache`] | one tier under a policy, as the store keeps it |
//! | [`opt`] | the clairvoyant bound |
//! | [`tiers`] | several tiers, and the time that they save |
//! | [`plot`] | hit ratio by capacity, as SVG |
//!
//! Every entry of `hash_ids` is a lookup, that of a last, partial block too. A lookup hits when the
//! block and all blocks before it are there. Capacity counts blocks of
//! [`BLOCK_TOKENS`] tokens, partial ones as whole ones.

pub mod cache;
pub mod opt;
pub mod plot;
pub mod tiers;

use std::time::Duration;

use serde::Serialize;
use tranship_cache::policy::{self, Policy};
use tranship_cache::{Key, Millis};

use self::cache::Cache;
use self::opt::{Future, Opt};
use super::random::mix;
use super::{Error, Request};
use crate::presets::BLOCK_TOKENS;

/// The requests of a trace, as a cache hears of them.
#[derive(Debug, Default)]
pub struct Requests {
    keys: Vec<Key>,
    /// Arrival, and where in `keys` the blocks end.
    ends: Vec<(Millis, usize)>,
}

impl Requests {
    /// Reads a whole trace.
    ///
    /// # Errors
    /// The first of the trace.
    pub fn read(trace: impl Iterator<Item = Result<Request, Error>>) -> Result<Self, Error> {
        let mut requests = Self::default();
        for request in trace {
            requests.push(&request?);
        }
        Ok(requests)
    }

    /// Adds a request.
    pub fn push(&mut self, request: &Request) {
        self.keys.extend(request.hash_ids.iter().map(|id| key(*id)));
        self.ends.push((Millis(request.at_ms), self.keys.len()));
    }

    /// Arrival and blocks of each request, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (Millis, &[Key])> + Clone {
        (0..self.ends.len()).map(|index| {
            let from = index.checked_sub(1).map_or(0, |before| self.ends[before].1);
            let (at, end) = self.ends[index];
            (at, &self.keys[from..end])
        })
    }

    /// Milliseconds from the first to the last request.
    #[must_use]
    pub fn duration_ms(&self) -> u64 {
        match (self.ends.first(), self.ends.last()) {
            (Some((first, _)), Some((last, _))) => (*last - *first).0,
            _ => 0,
        }
    }

    /// What comes, for [`Opt`].
    #[must_use]
    pub fn future(&self) -> Future {
        Future::of(self.iter().map(|(_, keys)| keys))
    }
}

impl FromIterator<Request> for Requests {
    fn from_iter<T: IntoIterator<Item = Request>>(requests: T) -> Self {
        let mut all = Self::default();
        requests.into_iter().for_each(|request| all.push(&request));
        all
    }
}

/// A key as good as a hash, the same for the same id.
fn key(id: u64) -> Key {
    let (low, high) = (mix(id.wrapping_add(1)), mix(id ^ 0x9e37_79b9_7f4a_7c15));
    Key::from_bytes((u128::from(high) << 64 | u128::from(low)).to_le_bytes())
}

/// A policy that can be simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contender {
    /// One that daemons run.
    Online(policy::Name),
    /// The bound.
    Opt,
}

impl Contender {
    /// All of them, the bound last.
    pub fn all() -> impl Iterator<Item = Self> {
        policy::Name::ALL.into_iter().map(Self::Online).chain([Self::Opt])
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Online(name) => name.as_str(),
            Self::Opt => "opt",
        }
    }

    fn policy(self, future: &Future) -> Box<dyn Policy + '_> {
        match self {
            Self::Online(name) => name.policy(),
            Self::Opt => Box::new(Opt::new(future)),
        }
    }
}

/// What one policy made of a trace at one capacity.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// The policy.
    pub policy: &'static str,
    /// Tokens that fit.
    pub capacity_tokens: u64,
    /// Blocks that fit.
    pub capacity_blocks: usize,
    /// Tokens of a block.
    pub block_tokens: u32,
    /// Requests.
    pub requests: u64,
    /// Blocks that were asked for.
    pub lookups: u64,
    /// Those that were there, with all before them.
    pub hits: u64,
    /// Their share.
    pub hit_ratio: f64,
    /// Blocks that were stored.
    pub stored: u64,
    /// Blocks that were not, since something better was there.
    pub not_stored: u64,
    /// Processor time for each lookup, the simulator's own bookkeeping included.
    pub ns_per_block: f64,
}

/// Runs one policy over a trace.
#[must_use]
pub fn run(
    contender: Contender,
    capacity_tokens: u64,
    requests: &Requests,
    future: &Future,
) -> Outcome {
    let capacity_blocks =
        usize::try_from(capacity_tokens / u64::from(BLOCK_TOKENS)).unwrap_or(usize::MAX);
    let mut cache = Cache::new(contender.policy(future), capacity_blocks, BLOCK_BYTES);
    let (mut lookups, mut hits, mut stored) = (0, 0, 0);
    let start = thread_time();
    for (now, keys) in requests.iter() {
        let present = cache.prefix(keys);
        let here = cache.request(keys, present, |_| None, |_| (), now);
        lookups += keys.len() as u64;
        hits += present as u64;
        stored += (here - present) as u64;
    }
    let nanos = thread_time().saturating_sub(start).as_nanos() as f64;
    let of_lookups = |value: f64| if lookups == 0 { 0.0 } else { value / lookups as f64 };
    Outcome {
        policy: contender.name(),
        capacity_tokens,
        capacity_blocks,
        block_tokens: BLOCK_TOKENS,
        requests: requests.ends.len() as u64,
        lookups,
        hits,
        hit_ratio: of_lookups(hits as f64),
        stored,
        not_stored: lookups - hits - stored,
        ns_per_block: of_lookups(nanos),
    }
}

/// Time that this thread has been running: other work on the machine counts little in it.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// Space of a block where only its being the same for all matters.
const BLOCK_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests;
