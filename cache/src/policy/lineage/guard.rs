//! Lets the cache follow a plain policy where that does better.
//!
//! Miniatures of the cache run lineage's own order and that of each *expert* side by side. While an
//! expert's miniature has hit more, its order rules the cache. What an expert needs to know of the
//! blocks of the cache itself is kept all the time, so that it is warm when it takes over.

use std::fmt;

use super::mini::{Mini, Ranking};
use super::order::{Order, Rank};
use crate::policy::{BlockId, Lru, Policy, Removal, S3Fifo, Traits, spread};
use crate::time::Millis;

/// Blocks of a miniature, about; of smaller caches they are copies.
const MINI_BLOCKS: usize = 1_000;
/// The sample is at least one in so many.
const SAMPLE_BITS_MAX: u32 = 16;
/// What is left of a request's weight after each request.
const KEPT: f32 = 0.9995;
/// An expert takes over when its lead is so much of a standard deviation, and stays while it has a
/// lead. Little is enough: where both do the same, it does not matter who rules.
const LEAD: f32 = 0.1;
/// Lead of one expert over another that takes over from it.
const BETTER: f32 = 1.2;

/// Whose order rules the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// Lineage's own.
    Worth,
    /// The oldest use leaves first; the cache knows that order without an expert's help.
    Recency,
    /// First in, first out, in two queues: recency and frequency without any history.
    Queues,
}

/// Experts and miniatures.
pub(super) struct Guard {
    experts: [Expert; 2],
    ours: Mini,
    rule: Rule,
    /// Hears of every block of the cache, so that it is warm when it takes over.
    queues: S3Fifo,
    /// Blocks resident in the cache, and whether it ever was full.
    resident: usize,
    full: bool,
    sample_bits: u32,
    names: Vec<u64>,
}

struct Expert {
    rule: Rule,
    mini: Mini,
    /// Hits that its miniature has had more than ours, and the sum of squares, fading.
    lead: f32,
    squares: f32,
}

impl Expert {
    fn new(rule: Rule, policy: Box<dyn Policy>) -> Self {
        Self { rule, mini: Mini::new(Ranking::Policy(policy)), lead: 0.0, squares: 0.0 }
    }

    fn leads(&self) -> bool {
        self.lead > LEAD * self.squares.sqrt()
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let leads = self.experts.iter().map(|expert| (expert.rule, expert.lead));
        f.debug_struct("Guard")
            .field("rule", &self.rule)
            .field("leads", &leads.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl Guard {
    pub(super) fn new() -> Self {
        let experts = [
            Expert::new(Rule::Recency, Box::new(Lru::new())),
            Expert::new(Rule::Queues, Box::new(S3Fifo::new())),
        ];
        Self {
            experts,
            ours: Mini::new(Ranking::Worth(Order::new())),
            rule: Rule::Worth,
            queues: S3Fifo::new(),
            resident: 0,
            full: false,
            sample_bits: 0,
            names: Vec::new(),
        }
    }

    fn samples(&self, name: u64) -> bool {
        sampled(name, self.sample_bits)
    }

    /// A request for these blocks came; `worth` is how lineage ranks a block.
    pub(super) fn watch(&mut self, names: &[u64], worth: &impl Fn(u64) -> Rank, now: Millis) {
        self.fit();
        let mut sample = std::mem::take(&mut self.names);
        sample.clear();
        sample.extend(names.iter().copied().filter(|name| self.samples(*name)));
        if !sample.is_empty() {
            let capacity = match self.full {
                true => (self.resident >> self.sample_bits).max(1),
                false => usize::MAX,
            };
            let ours = self.ours.request(&sample, capacity, worth, now) as f32;
            for expert in &mut self.experts {
                let theirs = expert.mini.request(&sample, capacity, worth, now) as f32;
                let more = theirs - ours;
                expert.lead = expert.lead * KEPT + more;
                expert.squares = expert.squares * KEPT + more * more;
            }
            self.choose();
        }
        self.names = sample;
    }

    fn choose(&mut self) {
        let [a, b] = &self.experts;
        let (best, other) = if b.lead > a.lead { (b, a) } else { (a, b) };
        if self.experts.iter().any(|expert| expert.rule == self.rule && expert.lead <= 0.0) {
            self.rule = Rule::Worth;
        }
        let beaten = self.rule == Rule::Worth || best.lead > BETTER * other.lead;
        if best.leads() && beaten {
            self.rule = best.rule;
        }
    }

    /// Keeps the miniatures small as the cache grows.
    fn fit(&mut self) {
        while self.resident >> self.sample_bits > 2 * MINI_BLOCKS
            && self.sample_bits < SAMPLE_BITS_MAX
        {
            self.sample_bits += 1;
            let bits = self.sample_bits;
            self.ours.thin(|name| sampled(name, bits));
            self.experts.iter_mut().for_each(|e| e.mini.thin(|name| sampled(name, bits)));
        }
    }

    pub(super) const fn rule(&self) -> Rule {
        self.rule
    }

    /// Room is needed: the cache is full.
    pub(super) const fn room_needed(&mut self) {
        self.full = true;
    }

    /// The blocks of the cache, as [`Rule::Queues`] sees them.
    pub(super) const fn queues(&mut self) -> &mut S3Fifo {
        &mut self.queues
    }

    pub(super) fn on_insert(&mut self, id: BlockId, block: &Traits, now: Millis) {
        self.resident += 1;
        self.queues.on_insert(id, block, now);
    }

    pub(super) fn on_remove(&mut self, id: BlockId, why: Removal) {
        self.resident -= 1;
        self.queues.on_remove(id, why);
    }
}

/// Whether a block is in the sample of one in two to the `bits`; smaller samples are parts of larger.
const fn sampled(name: u64, bits: u32) -> bool {
    (spread(name ^ 0x5bd1_e995) >> 20) & ((1 << bits) - 1) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks that are used again soon or never, under a worth that has it the wrong way round.
    fn watch(guard: &mut Guard, turns: std::ops::Range<u64>, worth: impl Fn(u64) -> Rank) {
        for turn in turns {
            // Each name comes three times within a few turns.
            for name in [turn, turn.saturating_sub(5), turn.saturating_sub(11)] {
                guard.watch(&[spread(name + 1)], &worth, Millis(turn));
            }
        }
    }

    fn full() -> Guard {
        let mut guard = Guard::new();
        guard.resident = 40;
        guard.room_needed();
        guard
    }

    #[test]
    fn an_expert_takes_over_where_ours_fails() {
        let mut guard = full();
        assert_eq!(guard.rule(), Rule::Worth);
        // A worth by chance keeps what never comes again.
        watch(&mut guard, 0..2_000, |name| ((name >> 40) as f32, 0));
        assert_ne!(guard.rule(), Rule::Worth, "{guard:?}");
    }

    #[test]
    fn ours_returns_when_the_expert_fails() {
        let mut guard = full();
        watch(&mut guard, 0..2_000, |name| ((name >> 40) as f32, 0));
        assert_ne!(guard.rule(), Rule::Worth);
        // A loop that is larger than the cache: experts hit nothing, a fixed choice does.
        for turn in 0..40_000_u64 {
            let name = spread(turn % 60 + 1);
            guard.watch(&[name], &|name| ((name >> 40) as f32, 0), Millis(turn));
        }
        assert_eq!(guard.rule(), Rule::Worth, "{guard:?}");
    }

    #[test]
    fn miniatures_stay_small() {
        let mut guard = Guard::new();
        for turn in 0..40_000_u64 {
            guard.resident = turn as usize;
            guard.watch(&[spread(turn + 1)], &|_| (0.0, 0), Millis(turn));
        }
        assert!(guard.sample_bits >= 4, "{}", guard.sample_bits);
        for mini in guard.experts.iter().map(|expert| &expert.mini).chain([&guard.ours]) {
            assert!((500..4 * MINI_BLOCKS).contains(&mini.len()), "{}", mini.len());
        }
    }
}
