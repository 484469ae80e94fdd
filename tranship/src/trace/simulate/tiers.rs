//! Several tiers under one policy, and the time that they save.
//!
//! The first tier is memory and runs the policy. What leaves it, or is not admitted to it, is written
//! to the tier below, unless its worth is below the *price*: what a block that had to leave that tier
//! was worth of late. A
//! tier below is a log: the oldest block leaves first, unless it is worth several times the price,
//! then it is written again. What is used in a tier below comes back to memory as far as the policy
//! admits it, and stays below too.
//!
//! A request loads a prefix and computes the rest. It loads as much as saves most time: computing a
//! token costs `recompute_us`, loading costs each tier's latency once and its bandwidth.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use serde::Serialize;
use tranship_cache::policy::{Mark, Policy, Price};
use tranship_cache::{Key, Millis};

use super::cache::{Cache, Evicted};
use super::opt::Future;
use super::{Contender, Requests};
use crate::presets::BLOCK_TOKENS;

/// A tier to simulate.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// Tokens that fit.
    pub tokens: u64,
    /// Bytes that it loads in a second.
    pub bytes_per_second: u64,
    /// Time until the first byte of a load.
    pub latency: Duration,
}

/// What a token costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Costs {
    /// Bytes in a tier.
    pub token_bytes: u64,
    /// Microseconds to compute it again.
    pub recompute_us: f64,
}

impl Costs {
    const fn block_bytes(self) -> u64 {
        self.token_bytes * BLOCK_TOKENS as u64
    }

    fn block_seconds(self) -> f64 {
        self.recompute_us / 1e6 * f64::from(BLOCK_TOKENS)
    }
}

/// What one tier did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Served {
    /// The tier.
    pub tier: String,
    /// Tokens that fit.
    pub capacity_tokens: u64,
    /// Lookups that loaded from it.
    pub hits: u64,
    /// Bytes loaded.
    pub loaded_bytes: u64,
    /// Bytes written, blocks written again included; memory counts every block stored.
    pub written_bytes: u64,
    /// The same for each day of the trace.
    pub written_bytes_per_day: f64,
}

/// What all of them did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// The policy.
    pub policy: &'static str,
    /// Blocks asked for.
    pub lookups: u64,
    /// Blocks loaded.
    pub hits: u64,
    /// Their share.
    pub hit_ratio: f64,
    /// Blocks that could have been loaded, but computing them was faster.
    pub passed_over: u64,
    /// Each tier, fastest first.
    pub tiers: Vec<Served>,
    /// What computing everything takes, seconds.
    pub recompute_seconds: f64,
    /// What loading saves of that, the time to load taken off.
    pub saved_seconds: f64,
    /// Its share.
    pub saved_ratio: f64,
}

/// Runs one policy over a trace with these tiers, fastest first.
#[must_use]
pub fn run(
    contender: Contender,
    specs: &[Spec],
    costs: Costs,
    requests: &Requests,
    future: &Future,
) -> Outcome {
    let mut stack = Stack::new(contender, specs, costs, future);
    for (now, keys) in requests.iter() {
        stack.request(keys, now);
    }
    stack.outcome(contender, specs, requests.duration_ms())
}

struct Stack<'a> {
    memory: Cache<'a>,
    below: Vec<Log>,
    specs: &'a [Spec],
    costs: Costs,
    lookups: u64,
    passed_over: u64,
    hits: Vec<u64>,
    written: Vec<u64>,
    saved_seconds: f64,
    /// Tier of each block of the request that is on.
    found: Vec<usize>,
}

impl<'a> Stack<'a> {
    fn new(contender: Contender, specs: &'a [Spec], costs: Costs, future: &'a Future) -> Self {
        let blocks = |spec: &Spec| {
            usize::try_from(spec.tokens / u64::from(BLOCK_TOKENS)).unwrap_or(usize::MAX)
        };
        let policy = contender.policy(future);
        Self {
            memory: Cache::new(policy, blocks(&specs[0]), costs.block_bytes()),
            below: specs[1..].iter().map(|spec| Log::new(blocks(spec))).collect(),
            specs,
            costs,
            lookups: 0,
            passed_over: 0,
            hits: vec![0; specs.len()],
            written: vec![0; specs.len()],
            saved_seconds: 0.0,
            found: Vec::new(),
        }
    }

    fn request(&mut self, keys: &[Key], now: Millis) {
        self.lookups += keys.len() as u64;
        let present = self.memory.prefix(keys);
        self.found.clear();
        self.found.resize(present, 0);
        for key in &keys[present..] {
            let log = self.below.iter().position(|log| log.blocks.contains_key(key));
            let Some(log) = log else { break };
            self.found.push(log + 1);
        }
        let (loaded, saved) = self.best();
        self.passed_over += (self.found.len() - loaded) as u64;
        self.saved_seconds += saved;
        let mut marks = HashMap::new();
        for (key, tier) in keys.iter().zip(&self.found).take(loaded) {
            self.hits[*tier] += 1;
            if let Some(log) = tier.checked_sub(1) {
                let mark = self.below[log].hit(*key, self.memory.policy_mut(), now);
                marks.insert(*key, mark);
            }
        }
        let mut left = Vec::new();
        let known = |key| marks.get(&key).copied();
        let here = self.memory.request(keys, present, known, |out| left.push(out), now);
        self.written[0] += (here - present) as u64;
        for out in left {
            self.demote(out, 0, now);
        }
        // What memory is too small for may still be worth its place below.
        for key in &keys[here..] {
            let recalled = self.memory.policy().recall(0, *key, now);
            let mark = recalled.map_or(Mark::default(), |(mark, _)| mark);
            self.demote(Evicted { key: *key, mark, last: now }, 0, now);
        }
    }

    /// How many of the blocks found are loaded, and what that saves.
    fn best(&self) -> (usize, f64) {
        let (mut loaded, mut best) = (0, 0.0);
        let (mut seconds, mut seen) = (0.0, 0_u64);
        for (index, tier) in self.found.iter().enumerate() {
            let spec = &self.specs[*tier];
            if seen & 1 << tier == 0 {
                seen |= 1 << tier;
                seconds += spec.latency.as_secs_f64();
            }
            seconds += self.costs.block_bytes() as f64 / spec.bytes_per_second as f64;
            let saved = (index + 1) as f64 * self.costs.block_seconds() - seconds;
            if saved > best {
                (loaded, best) = (index + 1, saved);
            }
        }
        (loaded, best)
    }

    /// A block left a tier for the one below.
    fn demote(&mut self, out: Evicted, log: usize, now: Millis) {
        let Some(tier) = self.below.get_mut(log) else { return };
        let policy = self.memory.policy();
        let age = now - out.last;
        if let Some(block) = tier.blocks.get_mut(&out.key) {
            (block.mark, block.last) = (out.mark, out.last);
            return;
        }
        if !tier.price.is_met(policy.worth(out.mark, age)) {
            return self.demote(out, log + 1, now);
        }
        let mut dropped = Vec::new();
        self.written[log + 1] += tier.write(&out, policy, now, &mut dropped);
        for out in dropped {
            self.demote(out, log + 1, now);
        }
    }

    fn outcome(self, contender: Contender, specs: &[Spec], duration_ms: u64) -> Outcome {
        let hits: u64 = self.hits.iter().sum();
        let bytes = self.costs.block_bytes();
        let days = duration_ms as f64 / 86_400e3;
        let ratio = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        let recompute_seconds = self.lookups as f64 * self.costs.block_seconds();
        let served = |((spec, hits), written): ((&Spec, &u64), &u64)| Served {
            tier: spec.name.clone(),
            capacity_tokens: spec.tokens,
            hits: *hits,
            loaded_bytes: hits.saturating_mul(bytes),
            written_bytes: written.saturating_mul(bytes),
            written_bytes_per_day: ratio(written.saturating_mul(bytes) as f64, days),
        };
        Outcome {
            policy: contender.name(),
            lookups: self.lookups,
            hits,
            hit_ratio: ratio(hits as f64, self.lookups as f64),
            passed_over: self.passed_over,
            tiers: specs.iter().zip(&self.hits).zip(&self.written).map(served).collect(),
            recompute_seconds,
            saved_seconds: self.saved_seconds,
            saved_ratio: ratio(self.saved_seconds, recompute_seconds),
        }
    }
}

/// A tier below memory: blocks in the order in which they were written.
struct Log {
    capacity: usize,
    blocks: HashMap<Key, Kept>,
    order: VecDeque<Key>,
    price: Price,
}

struct Kept {
    mark: Mark,
    last: Millis,
}

impl Log {
    /// Blocks written again for one that comes in, at most.
    const AGAIN_MAX: usize = 4;

    fn new(capacity: usize) -> Self {
        Self { capacity, blocks: HashMap::new(), order: VecDeque::new(), price: Price::default() }
    }

    fn hit(&mut self, key: Key, policy: &mut dyn Policy, now: Millis) -> Mark {
        let kept = self.blocks.get_mut(&key).expect("it was found here");
        kept.mark = policy.on_hit_below(kept.mark, now - kept.last, now);
        kept.last = now;
        kept.mark
    }

    /// Writes a block, and those again that are worth more than what leaves; returns how many.
    fn write(
        &mut self,
        out: &Evicted,
        policy: &dyn Policy,
        now: Millis,
        dropped: &mut Vec<Evicted>,
    ) -> u64 {
        let mut written = 1;
        let mut again = 0;
        while self.blocks.len() >= self.capacity
            && let Some(key) = self.order.pop_front()
        {
            let kept = &self.blocks[&key];
            let worth = policy.worth(kept.mark, now - kept.last);
            if again < Self::AGAIN_MAX && self.price.again(worth) >= 1.0 {
                again += 1;
                written += 1;
                self.order.push_back(key);
                continue;
            }
            self.price.learn(worth);
            if let Some(Kept { mark, last }) = self.blocks.remove(&key) {
                dropped.push(Evicted { key, mark, last });
            }
        }
        if self.blocks.len() < self.capacity {
            self.blocks.insert(out.key, Kept { mark: out.mark, last: out.last });
            self.order.push_back(out.key);
        }
        written
    }
}
