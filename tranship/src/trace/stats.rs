//! What a trace offers a cache, before any cache is run.

use std::collections::HashSet;

use serde::Serialize;

use super::Request;

/// Counts over a whole trace.
///
/// A *lookup* is a full block that a request asks for. A lookup *hits ideally* when a cache that
/// never forgets would have it and every block before it: only a contiguous prefix is usable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Requests.
    pub requests: u64,
    /// Time from the first to the last request, in milliseconds.
    pub duration_ms: u64,
    /// Tokens of all prompts.
    pub input_tokens: u64,
    /// Tokens of all answers.
    pub output_tokens: u64,
    /// Block references, partial blocks included.
    pub blocks: u64,
    /// Distinct blocks among them.
    pub unique_blocks: u64,
    /// References to full blocks.
    pub lookups: u64,
    /// Distinct full blocks: what a cache that never forgets would hold in the end.
    pub unique_full_blocks: u64,
    /// Lookups that hit ideally.
    pub ideal_hits: u64,
}

impl Stats {
    /// The share of lookups that hit ideally; 0 without lookups.
    #[must_use]
    pub fn ideal_hit_ratio(&self) -> f64 {
        if self.lookups == 0 { 0.0 } else { self.ideal_hits as f64 / self.lookups as f64 }
    }
}

/// Counts requests one by one.
#[derive(Debug, Default)]
pub struct Counter {
    stats: Stats,
    first_ms: Option<u64>,
    seen: HashSet<u64>,
    stored: HashSet<u64>,
}

impl Counter {
    /// Counts one request.
    pub fn add(&mut self, request: &Request) {
        let stats = &mut self.stats;
        let reusable = request.reusable();
        stats.requests += 1;
        stats.duration_ms = request.at_ms - *self.first_ms.get_or_insert(request.at_ms);
        stats.input_tokens += u64::from(request.input_tokens);
        stats.output_tokens += u64::from(request.output_tokens);
        stats.blocks += request.hash_ids.len() as u64;
        stats.lookups += reusable.len() as u64;
        stats.ideal_hits +=
            reusable.iter().take_while(|id| self.stored.contains(id)).count() as u64;
        self.seen.extend(&request.hash_ids);
        self.stored.extend(reusable);
    }

    /// The counts so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            unique_blocks: self.seen.len() as u64,
            unique_full_blocks: self.stored.len() as u64,
            ..self.stats.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_contiguous_prefix_of_full_blocks_hits() {
        let mut counter = Counter::default();
        for (at_ms, input_tokens, ids) in [
            (10, 1030, &[1, 2, 3][..]), // 3 is partial: never stored
            (20, 1536, &[1, 2, 3]),     // hits 1 and 2
            (30, 1536, &[1, 9, 3]),     // hits 1; 3 is stored but not reachable past 9
        ] {
            let hash_ids = ids.to_vec();
            counter.add(&Request { at_ms, input_tokens, output_tokens: 1, hash_ids });
        }
        let stats = counter.stats();
        assert_eq!((stats.requests, stats.duration_ms), (3, 20));
        assert_eq!((stats.blocks, stats.unique_blocks), (9, 4));
        assert_eq!((stats.lookups, stats.unique_full_blocks, stats.ideal_hits), (8, 4, 3));
        assert!((stats.ideal_hit_ratio() - 3.0 / 8.0).abs() < 1e-12);
    }
}
