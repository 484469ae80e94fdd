//! The clairvoyant bound.

use std::collections::{BTreeSet, HashMap};

use tranship_cache::policy::{BlockId, Mark, Policy, Removal, Request, Traits};
use tranship_cache::{Key, Millis};

/// Number of the request that uses a block next; the last of all is never.
type Turn = u32;
const NEVER: Turn = Turn::MAX;

/// When each block of each request of a trace is used next.
#[derive(Debug, Default)]
pub struct Future {
    next: Vec<Turn>,
    /// Where the blocks of each request begin.
    starts: Vec<usize>,
}

impl Future {
    /// Reads the future out of a trace, from its end.
    pub fn of<'a>(requests: impl DoubleEndedIterator<Item = &'a [Key]> + Clone) -> Self {
        let mut starts = vec![0];
        for keys in requests.clone() {
            starts.push(starts[starts.len() - 1] + keys.len());
        }
        let mut next = vec![NEVER; starts[starts.len() - 1]];
        let mut coming: HashMap<Key, Turn> = HashMap::new();
        for (back, keys) in requests.rev().enumerate() {
            let turn = starts.len() - 2 - back;
            for (index, key) in keys.iter().enumerate() {
                next[starts[turn] + index] = coming.insert(*key, turn as Turn).unwrap_or(NEVER);
            }
        }
        Self { next, starts }
    }
}

/// Evicts the candidate whose next use is furthest ahead, and admits only what is used before it
/// (Belady, "A study of replacement algorithms for a virtual-storage computer", IBM Systems Journal
/// 1966; with bypass). A block is never used later than what follows it, so chains get no holes.
#[derive(Debug)]
pub struct Opt<'a> {
    future: &'a Future,
    turn: usize,
    /// Of the blocks of the request that is on.
    coming: HashMap<Key, Turn>,
    blocks: Vec<(Turn, Key, bool)>,
    candidates: BTreeSet<(Turn, BlockId)>,
}

impl<'a> Opt<'a> {
    /// A policy that will see exactly the requests of this future.
    #[must_use]
    pub fn new(future: &'a Future) -> Self {
        Self {
            future,
            turn: 0,
            coming: HashMap::new(),
            blocks: Vec::new(),
            candidates: BTreeSet::new(),
        }
    }

    fn entry(&self, id: BlockId) -> (Turn, BlockId) {
        (self.blocks[id.0 as usize].0, id)
    }
}

impl Policy for Opt<'_> {
    fn name(&self) -> &'static str {
        "opt"
    }

    fn on_request(&mut self, request: &Request<'_>, _now: Millis) {
        let from = self.future.starts[self.turn];
        let next = &self.future.next[from..self.future.starts[self.turn + 1]];
        self.coming.clear();
        self.coming.extend(request.keys.iter().copied().zip(next.iter().copied()));
        self.turn += 1;
    }

    fn on_insert(&mut self, id: BlockId, block: &Traits, _now: Millis) {
        let index = id.0 as usize;
        if index >= self.blocks.len() {
            self.blocks.resize(index + 1, (NEVER, block.key, false));
        }
        self.blocks[index] = (self.coming[&block.key], block.key, false);
        self.candidates.insert(self.entry(id));
    }

    fn on_hit(&mut self, id: BlockId, _now: Millis) {
        let free = self.candidates.remove(&self.entry(id));
        let block = &mut self.blocks[id.0 as usize];
        block.0 = self.coming[&block.1];
        if free {
            self.candidates.insert(self.entry(id));
        }
    }

    fn on_hold(&mut self, id: BlockId) {
        self.candidates.remove(&self.entry(id));
    }

    fn on_free(&mut self, id: BlockId) {
        self.candidates.insert(self.entry(id));
    }

    fn on_remove(&mut self, id: BlockId, _why: Removal) {
        self.candidates.remove(&self.entry(id));
    }

    fn victim(&mut self, _now: Millis) -> Option<BlockId> {
        self.candidates.last().map(|&(_, id)| id)
    }

    fn admit(&mut self, block: &Traits, victim: BlockId, _now: Millis) -> bool {
        self.coming[&block.key] < self.blocks[victim.0 as usize].0
    }

    fn mark(&self, id: BlockId) -> Mark {
        Mark(self.blocks[id.0 as usize].0)
    }

    fn on_hit_below(&mut self, mark: Mark, _age: Millis, _now: Millis) -> Mark {
        mark
    }

    fn worth(&self, mark: Mark, _age: Millis) -> f32 {
        if mark.0 == NEVER { 0.0 } else { 1.0 / (1.0 + mark.0 as f32 - self.turn as f32).max(1.0) }
    }
}
