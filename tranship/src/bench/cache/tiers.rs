//! Gets from each tier, and what a daemon that was killed finds again.
//!
//! Every block is gotten once a round, in an order drawn by chance, by lease (with a wait where it is
//! below memory), copy with the checksum verified, and comparison with what it should be.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use tranship_cache::client::{BlockResult, Cache, Client, Stored};
use tranship_cache::identity::Geometry;
use tranship_cache::tier::Tier;
use tranship_cache::{Chain, Identity, Key, Link};

use super::super::line::Noise;
use super::super::{Error, Plan};
use crate::trace::random::Random;

/// How long a block may take from a tier below memory.
const WAIT: Duration = Duration::from_secs(30);
/// How long blocks may take to be safe there.
const PERSIST_WITHIN: Duration = Duration::from_secs(60);
/// Longest latency that is told apart, and the digits kept of it.
const LATENCY_MAX_NS: u64 = 60_000_000_000;
const DIGITS: u8 = 3;

/// What the results count, for their readers.
pub const RULE: &str = "payload bytes count once; 1 GB is 10^9 bytes; one block at a time: lease, copy with checksum, \
     compare; attach: what the tier took at start to know its blocks again";

/// Gets of blocks that were all in one tier.
#[derive(Debug, Serialize)]
pub struct Gets {
    /// Where they were.
    pub tier: Tier,
    /// Bytes of a block.
    pub size: u64,
    /// Blocks gotten.
    pub n: u64,
    /// 10⁹ payload bytes a second.
    pub gb_per_s: f64,
    /// Half of the gets took no longer, µs.
    pub p50_us: f64,
    /// 99 of 100 took no longer, µs.
    pub p99_us: f64,
    /// Blocks that were not there, or late.
    pub missing: u64,
    /// Blocks with wrong bytes.
    pub corrupt: u64,
    /// The machine and its load.
    #[serde(flatten)]
    pub noise: Noise,
}

/// What a daemon found again after it was killed.
#[derive(Debug, Serialize)]
pub struct Restart {
    /// In which tier.
    pub tier: Tier,
    /// Bytes of a block.
    pub size: u64,
    /// Blocks that were safe when the daemon was killed.
    pub blocks: u64,
    /// Blocks that the tier found at its start.
    pub recovered: u64,
    /// How long the tier took for that, ms.
    pub attach_ms: f64,
    /// The blocks, gotten one by one.
    pub after: Gets,
}

/// Blocks of one size, and who gets them.
pub struct Blocks {
    cache: Cache,
    links: Vec<Link>,
    size: usize,
    /// For the order.
    dice: Random,
}

impl Blocks {
    /// So many blocks as fill the working set, not stored yet.
    #[must_use]
    pub fn new(plan: &Plan, client: &Client, tenant: &str, size: u64) -> Self {
        let mut identity = Identity::new("tranship-bench-tiers", "1", "u8", Geometry::default(), 1);
        identity.tenant = tenant.to_owned();
        let mut links = Vec::new();
        // Each block is a chain of its own, so that any may leave memory.
        for number in 0..plan.working_set_for(size) / size {
            links.push(Chain::new(&identity).push(&(size << 32 | number).to_le_bytes()));
        }
        Self { cache: client.cache(identity), links, size: size as usize, dice: Random::new(1) }
    }

    /// Asks another daemon from now on.
    pub fn ask(&mut self, client: &Client) {
        self.cache = client.cache(self.cache.identity().clone());
    }

    /// Stores all of them.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub fn store(&self) -> Result<(), Error> {
        let began = Instant::now();
        let mut bytes = vec![0; self.size];
        for link in &self.links {
            content(link.key, &mut bytes);
            loop {
                match self.cache.store(&[(*link, &bytes)])?.remove(0) {
                    Stored::Stored | Stored::Exists => break,
                    // Room comes as blocks go below.
                    Stored::Refused { retry_after: Some(wait), .. } if began.elapsed() < WAIT => {
                        std::thread::sleep(wait);
                    }
                    other => return Err(Error::NotStored(other)),
                }
            }
        }
        Ok(())
    }

    /// Makes all of them safe below memory; how many are.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub fn persist(&self) -> Result<u64, Error> {
        let keys: Vec<Key> = self.links.iter().map(|link| link.key).collect();
        let safe = self.cache.persist(&keys, PERSIST_WITHIN)?;
        Ok(safe.into_iter().filter(|safe| *safe).count() as u64)
    }

    /// Gets all of them once.
    ///
    /// # Errors
    /// When the daemon cannot be reached.
    pub fn get(&mut self, tier: Tier) -> Result<Gets, Error> {
        let mut order: Vec<usize> = (0..self.links.len()).collect();
        for last in (1..order.len()).rev() {
            let other = (self.dice.next() % (last as u64 + 1)) as usize;
            order.swap(last, other);
        }
        let mut latencies =
            Histogram::<u64>::new_with_max(LATENCY_MAX_NS, DIGITS).expect("possible bounds");
        let (mut bytes, mut expected) = (vec![0; self.size], vec![0; self.size]);
        let (mut took, mut n, mut missing, mut corrupt) = (Duration::ZERO, 0, 0, 0);
        for block in order {
            let key = self.links[block].key;
            let began = Instant::now();
            let lease = self.cache.lease(&[key], WAIT)?;
            let ready = matches!(lease.results().next(), Some((_, BlockResult::Ready { .. })));
            let copied = ready.then(|| lease.copy_to(0, &mut bytes));
            let call = began.elapsed();
            content(key, &mut expected);
            match copied {
                None => missing += 1,
                Some(Ok(())) if bytes == expected => {
                    n += 1;
                    took += call;
                    latencies.saturating_record(u64::try_from(call.as_nanos()).unwrap_or(u64::MAX));
                }
                Some(_) => corrupt += 1,
            }
        }
        let percentile = |percent| latencies.value_at_percentile(percent) as f64 / 1e3;
        Ok(Gets {
            tier,
            size: self.size as u64,
            n,
            gb_per_s: (n * self.size as u64) as f64 / took.as_nanos().max(1) as f64,
            p50_us: percentile(50.0),
            p99_us: percentile(99.0),
            missing,
            corrupt,
            noise: Noise::now(),
        })
    }
}

/// What a block holds, a function of its key.
fn content(key: Key, bytes: &mut [u8]) {
    let key = u128::from_le_bytes(*key.as_bytes());
    for (number, word) in (0_u64..).zip(bytes.chunks_mut(8)) {
        let value = (key as u64).wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        word.copy_from_slice(&value.to_le_bytes()[..word.len()]);
    }
}
