//! Traces of our own making, in the same format.
//!
//! People start conversations at random times. Each conversation begins with one of a few shared
//! system prompts (Zipf popularity: the k-th most popular is used 1/k as often as the first), and
//! each turn sends the whole conversation so far plus a new message. Between turns a person reads
//! and thinks. The generator uses only integer and exactly rounded float operations, so a seed
//! gives the same trace on every machine.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::Request;
use super::random::{Random, mix};
use crate::presets::BLOCK_TOKENS;

/// What to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipe {
    /// Number of requests.
    pub requests: usize,
    /// The same seed makes the same trace.
    pub seed: u64,
}

/// Shared system prompts, most popular first.
const SYSTEM_PROMPTS: usize = 24;
const SYSTEM_TOKENS: (u32, u32) = (200, 2_600);
/// The first message often carries a document.
const OPENING_TOKENS_MEAN: f64 = 6_000.0;
const MESSAGE_TOKENS_MEAN: f64 = 900.0;
const ANSWER_TOKENS_MEAN: f64 = 350.0;
/// Chance of another turn after each one.
const CONTINUE: f64 = 0.4;
const ARRIVAL_GAP_MEAN_MS: f64 = 2_000.0;
const THINKING_MEAN_MS: f64 = 40_000.0;
/// Time to write one token of an answer.
const TOKEN_MS: f64 = 20.0;
/// A conversation ends before it outgrows a context window.
const CONTEXT_TOKENS_MAX: u32 = 64_000;

/// Makes a trace.
#[must_use]
pub fn synthesise(recipe: Recipe) -> Vec<Request> {
    let mut generator = Generator::new(recipe.seed);
    let mut requests = Vec::with_capacity(recipe.requests);
    // Turns in order of time; the sequence number breaks ties the same way everywhere.
    let mut turns = BinaryHeap::from([Reverse((0, 0, None))]);
    let mut conversations: Vec<Conversation> = Vec::new();
    let mut sequence = 0u64;
    while requests.len() < recipe.requests {
        let Some(Reverse((at_ms, _, turn))) = turns.pop() else { break };
        sequence += 1;
        let current = turn.unwrap_or_else(|| {
            // Someone arrives, and somebody else will after a while.
            let gap_ms = generator.random.exponential(ARRIVAL_GAP_MEAN_MS) as u64;
            turns.push(Reverse((at_ms + gap_ms, sequence, None)));
            conversations.push(generator.open());
            conversations.len() - 1
        });
        let (request, pause_ms) = generator.turn(&mut conversations[current], current, at_ms);
        requests.push(request);
        if let Some(pause_ms) = pause_ms {
            turns.push(Reverse((at_ms + pause_ms, sequence, Some(current))));
        }
    }
    requests
}

struct Conversation {
    system: usize,
    /// Tokens so far, answers included.
    tokens: u32,
}

/// What makes a block the same: whose text it ends in, where it stands and how full it is.
#[derive(PartialEq, Eq, Hash)]
enum Lineage {
    System { prompt: usize, position: u32 },
    Conversation { number: usize, position: u32, tokens: u32 },
}

struct Generator {
    random: Random,
    system_tokens: Vec<u32>,
    /// Ids in order of first appearance, as in published traces.
    ids: HashMap<Lineage, u64>,
}

impl Generator {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(mix(seed));
        let (low, high) = SYSTEM_TOKENS;
        let span = f64::from(high - low);
        let system_tokens =
            (0..SYSTEM_PROMPTS).map(|_| low + (random.unit() * span) as u32).collect();
        Self { random, system_tokens, ids: HashMap::new() }
    }

    fn open(&mut self) -> Conversation {
        let system = self.random.zipf(SYSTEM_PROMPTS);
        let opening = self.random.exponential(OPENING_TOKENS_MEAN) as u32;
        let tokens = (self.system_tokens[system] + opening).min(CONTEXT_TOKENS_MAX);
        Conversation { system, tokens }
    }

    /// One turn, and the time until the next one if there is one.
    fn turn(
        &mut self,
        conversation: &mut Conversation,
        number: usize,
        at_ms: u64,
    ) -> (Request, Option<u64>) {
        let message = 1 + self.random.exponential(MESSAGE_TOKENS_MEAN) as u32;
        let answer = 1 + self.random.exponential(ANSWER_TOKENS_MEAN) as u32;
        let input_tokens = conversation.tokens + message;
        let hash_ids = self.blocks(conversation.system, number, input_tokens);
        conversation.tokens = input_tokens + answer;
        let request = Request { at_ms, input_tokens, output_tokens: answer, hash_ids };
        let goes_on = self.random.unit() < CONTINUE && conversation.tokens < CONTEXT_TOKENS_MAX;
        let pause_ms = self.random.exponential(THINKING_MEAN_MS) + f64::from(answer) * TOKEN_MS;
        (request, goes_on.then_some(pause_ms as u64))
    }

    fn blocks(&mut self, system: usize, number: usize, input_tokens: u32) -> Vec<u64> {
        let shared = self.system_tokens[system] / BLOCK_TOKENS;
        (0..input_tokens.div_ceil(BLOCK_TOKENS))
            .map(|position| {
                let lineage = if position < shared {
                    Lineage::System { prompt: system, position }
                } else {
                    let tokens = (input_tokens - position * BLOCK_TOKENS).min(BLOCK_TOKENS);
                    Lineage::Conversation { number, position, tokens }
                };
                let next = self.ids.len() as u64;
                *self.ids.entry(lineage).or_insert(next)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::stats::Counter;
    use crate::trace::{Error, Reader};

    /// What `samples/conversation.jsonl` was made with.
    const SAMPLE: Recipe = Recipe { requests: 500, seed: 2 };

    #[test]
    fn the_shipped_sample_is_what_the_recipe_makes() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../samples/conversation.jsonl");
        let shipped: Vec<Request> =
            Reader::open(path.as_ref()).unwrap().collect::<Result<_, Error>>().unwrap();
        assert!(shipped == synthesise(SAMPLE), "make it again: see CONTRIBUTING.md");
        assert!(std::fs::metadata(path).unwrap().len() < 300_000);
    }

    #[test]
    fn it_is_well_formed_and_reuses_a_realistic_share() {
        let mut counter = Counter::default();
        let mut last_ms = 0;
        for request in synthesise(SAMPLE) {
            let line = serde_json::to_vec(&request).unwrap();
            assert_eq!(Request::parse(&line), Ok(request.clone()));
            assert!(request.at_ms >= last_ms);
            last_ms = request.at_ms;
            counter.add(&request);
        }
        let stats = counter.stats();
        assert_eq!(stats.requests, 500);
        let ratio = stats.ideal_hit_ratio();
        assert!((0.3..0.5).contains(&ratio), "ideal hit ratio {ratio}");
    }

    #[test]
    fn an_id_always_stands_at_the_same_position() {
        let mut positions = HashMap::new();
        for request in synthesise(Recipe { requests: 2_000, seed: 1 }) {
            for (position, id) in request.hash_ids.iter().enumerate() {
                assert_eq!(*positions.entry(*id).or_insert(position), position);
            }
        }
    }
}
