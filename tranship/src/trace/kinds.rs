//! Traces of kinds that differ in what a cache should keep, to judge policies by.
//!
//! None is measured from life; each exaggerates one habit of traffic. The conversations of
//! [`synth`](super::synth) are another kind.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Request;
use super::random::{Random, mix};
use super::synth::{Recipe, synthesise};
use crate::presets::BLOCK_TOKENS;

/// A kind of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// People who talk: what [`synthesise`] makes.
    Conversation,
    /// Tool calls at short intervals behind a few long, shared system prompts.
    Agents,
    /// Questions to documents of unlike popularity; each question is asked once.
    Documents,
    /// Long prompts that never come again, and a few hot prefixes.
    OneShot,
    /// The same prompts over and over in the same order.
    Loops,
    /// Conversations and documents in turn, each time other documents.
    Phases,
    /// Agents, documents, one-shot prompts and loops at the same time.
    Tenants,
    /// What was asked last is asked again, and nothing stays popular.
    Recency,
    /// Popularity that never changes, and no other pattern.
    Frequency,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Conversation,
        Self::Agents,
        Self::Documents,
        Self::OneShot,
        Self::Loops,
        Self::Phases,
        Self::Tenants,
        Self::Recency,
        Self::Frequency,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Conversation => "conversation",
            Self::Agents => "agents",
            Self::Documents => "documents",
            Self::OneShot => "one-shot",
            Self::Loops => "loops",
            Self::Phases => "phases",
            Self::Tenants => "tenants",
            Self::Recency => "recency",
            Self::Frequency => "frequency",
        }
    }

    /// Makes a trace of this kind.
    #[must_use]
    pub fn trace(self, Recipe { requests, seed }: Recipe) -> Vec<Request> {
        let mut maker = Maker::new(seed);
        match self {
            Self::Conversation => return synthesise(Recipe { requests, seed }),
            Self::Agents => maker.agents(0, requests),
            Self::Documents => maker.documents(0, requests, 1),
            Self::OneShot => maker.one_shot(0, requests),
            Self::Loops => maker.loops(0, requests),
            Self::Phases => maker.phases(requests),
            Self::Tenants => maker.tenants(requests),
            Self::Recency => maker.recency(requests),
            Self::Frequency => maker.frequency(requests),
        }
        maker.finish(requests)
    }
}

/// Two texts have the same blocks as far as they are the same from the start.
#[derive(Clone)]
struct Text(Vec<u64>);

impl Text {
    fn new() -> Self {
        Self(Vec::new())
    }

    /// Goes on with so many blocks that only depend on `what` and on what is before them.
    fn and(mut self, what: u64, blocks: u32) -> Self {
        for _ in 0..blocks {
            let before = self.0.last().copied().unwrap_or(0);
            // Ids are JSON numbers in the file: 53 bits survive every reader.
            self.0.push(mix(before ^ mix(what.wrapping_add(1))) >> 11);
        }
        self
    }
}

struct Maker {
    random: Random,
    made: Vec<(u64, Text)>,
    fresh: u64,
}

impl Maker {
    fn new(seed: u64) -> Self {
        Self { random: Random::new(mix(seed)), made: Vec::new(), fresh: 1 << 40 }
    }

    fn ask(&mut self, at_ms: u64, text: Text) {
        self.made.push((at_ms, text));
    }

    /// Names something that did not exist before.
    fn fresh(&mut self) -> u64 {
        self.fresh += 1;
        self.fresh
    }

    fn wait(&mut self, mean_ms: f64) -> u64 {
        self.random.exponential(mean_ms) as u64
    }

    fn finish(mut self, requests: usize) -> Vec<Request> {
        self.made.sort_by_key(|(at_ms, _)| *at_ms);
        self.made.truncate(requests);
        let request = |(at_ms, Text(hash_ids)): (u64, Text)| Request {
            at_ms,
            input_tokens: hash_ids.len() as u32 * BLOCK_TOKENS,
            output_tokens: 1,
            hash_ids,
        };
        self.made.into_iter().map(request).collect()
    }

    fn agents(&mut self, from_ms: u64, requests: usize) {
        let prompts: Vec<u32> = (0..8).map(|_| self.random.range(8, 40)).collect();
        let mut turns = BinaryHeap::from([Reverse((from_ms, 0, None))]);
        let mut sessions: Vec<(Text, u32)> = Vec::new();
        for number in 1..=requests as u64 {
            let Some(Reverse((at_ms, _, session))) = turns.pop() else { break };
            let session = session.unwrap_or_else(|| {
                turns.push(Reverse((at_ms + self.wait(9_000.0), number, None)));
                let prompt = self.random.zipf(prompts.len());
                let text = Text::new().and(prompt as u64, prompts[prompt]);
                sessions.push((text, self.random.range(2, 30)));
                sessions.len() - 1
            });
            let (added, news) = (self.random.range(1, 4), self.fresh());
            let (text, left) = &mut sessions[session];
            *text = text.clone().and(news, added);
            let (text, more) = (text.clone(), *left > 0);
            *left = left.saturating_sub(1);
            self.ask(at_ms, text);
            if more {
                let pause = 500 + self.wait(6_000.0);
                turns.push(Reverse((at_ms + pause, number, Some(session))));
            }
        }
    }

    fn documents(&mut self, from_ms: u64, requests: usize, library: u64) {
        const DOCUMENTS: usize = 300;
        let sizes: Vec<u32> = (0..DOCUMENTS).map(|_| self.random.range(8, 64)).collect();
        let mut at_ms = from_ms;
        for _ in 0..requests {
            at_ms += self.wait(1_000.0);
            let document = self.random.zipf(DOCUMENTS);
            let (question, blocks) = (self.fresh(), self.random.range(1, 2));
            let name = library << 20 | document as u64;
            self.ask(at_ms, Text::new().and(name, sizes[document]).and(question, blocks));
        }
    }

    fn one_shot(&mut self, from_ms: u64, requests: usize) {
        let mut at_ms = from_ms;
        for _ in 0..requests {
            at_ms += self.wait(700.0);
            let news = self.fresh();
            let text = if self.random.unit() < 0.3 {
                Text::new().and(500 + self.random.zipf(12) as u64, 12).and(news, 1)
            } else {
                let blocks = self.random.range(4, 50);
                Text::new().and(news, blocks)
            };
            self.ask(at_ms, text);
        }
    }

    fn loops(&mut self, from_ms: u64, requests: usize) {
        const PROMPTS: u64 = 150;
        for turn in 0..requests as u64 {
            let at_ms = from_ms + turn * 800 + self.wait(100.0);
            self.ask(at_ms, Text::new().and(9_000 + turn % PROMPTS, 16));
        }
    }

    fn phases(&mut self, requests: usize) {
        const PHASES: u64 = 6;
        let each = requests / PHASES as usize + 1;
        let mut at_ms = 0;
        for phase in 0..PHASES {
            match phase % 3 {
                0 => self.agents(at_ms, each),
                1 => self.documents(at_ms, each, phase + 2),
                _ => self.loops(at_ms, each),
            }
            at_ms = self.made.iter().map(|(at_ms, _)| *at_ms).max().unwrap_or(0) + 1;
        }
    }

    fn tenants(&mut self, requests: usize) {
        let each = requests / 4 + 1;
        self.agents(0, each);
        self.documents(0, each, 1);
        self.one_shot(0, each);
        self.loops(0, each);
    }

    /// The next prompt is the k-th last one, small k more likely, or a new one.
    fn recency(&mut self, requests: usize) {
        let mut recent: Vec<(u64, u32)> = Vec::new();
        for turn in 0..requests as u64 {
            let back = self.random.exponential(25.0) as usize;
            let prompt = if self.random.unit() < 0.35 || back >= recent.len() {
                (self.fresh(), self.random.range(4, 24))
            } else {
                recent.remove(recent.len() - 1 - back)
            };
            recent.push(prompt);
            let at_ms = turn * 1_000;
            self.ask(at_ms, Text::new().and(prompt.0, prompt.1));
        }
    }

    fn frequency(&mut self, requests: usize) {
        const PROMPTS: usize = 1_500;
        for turn in 0..requests as u64 {
            let prompt = self.random.zipf(PROMPTS) as u64;
            let blocks = 4 + (mix(prompt) % 16) as u32;
            self.ask(turn * 500, Text::new().and(20_000 + prompt, blocks));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn each_kind_is_well_formed_and_repeats_itself() {
        for kind in Kind::ALL {
            let recipe = Recipe { requests: 400, seed: 7 };
            let trace = kind.trace(recipe);
            assert_eq!(trace.len(), 400, "{}", kind.name());
            assert!(trace == kind.trace(recipe), "{}", kind.name());
            assert!(trace.is_sorted_by_key(|request| request.at_ms), "{}", kind.name());
            let mut before: HashMap<u64, Option<u64>> = HashMap::new();
            for request in &trace {
                let line = serde_json::to_vec(request).unwrap();
                assert_eq!(Request::parse(&line).as_ref(), Ok(request));
                let mut parent = None;
                for id in &request.hash_ids {
                    assert_eq!(*before.entry(*id).or_insert(parent), parent, "{}", kind.name());
                    parent = Some(*id);
                }
            }
        }
    }
}
