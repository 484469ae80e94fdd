//! One tier of blocks of one size under a policy, as the daemon's memory keeps them.
//!
//! What is a candidate is decided as in the store: a block leaves only when nothing that follows it
//! is there, and the parent of a block that comes in is held before room is made for it.

use std::collections::HashMap;

use tranship_cache::policy::{BlockId, Mark, Policy, Removal, Request, Traits};
use tranship_cache::{Key, Millis};

/// The scope of all blocks of a trace.
const SCOPE: u32 = 0;

/// Resident blocks, at most `capacity` of them.
pub struct Cache<'a> {
    policy: Box<dyn Policy + 'a>,
    capacity: usize,
    /// Space of a block, as the policy hears it.
    bytes: u64,
    at: HashMap<Key, BlockId>,
    blocks: Vec<Block>,
    free: Vec<BlockId>,
}

#[derive(Clone, Copy)]
struct Block {
    key: Key,
    parent: Option<BlockId>,
    children: u32,
    last: Millis,
}

/// A block that left to make room.
#[derive(Clone, Copy, Debug)]
pub struct Evicted {
    /// Which.
    pub key: Key,
    /// What its policy remembers of it.
    pub mark: Mark,
    /// When it was used last.
    pub last: Millis,
}

impl<'a> Cache<'a> {
    /// An empty cache.
    #[must_use]
    pub fn new(policy: Box<dyn Policy + 'a>, capacity: usize, bytes: u64) -> Self {
        Self { policy, capacity, bytes, at: HashMap::new(), blocks: Vec::new(), free: Vec::new() }
    }

    /// The policy, to ask it about other tiers.
    #[must_use]
    pub fn policy(&self) -> &(dyn Policy + 'a) {
        &*self.policy
    }

    /// The policy, to tell it of other tiers.
    pub fn policy_mut(&mut self) -> &mut (dyn Policy + 'a) {
        &mut *self.policy
    }

    /// How many of `keys`, from the first, are here.
    #[must_use]
    pub fn prefix(&self, keys: &[Key]) -> usize {
        keys.iter().take_while(|key| self.at.contains_key(key)).count()
    }

    /// Uses the `present` first of `keys`, which are here, and stores what follows as far as the
    /// policy admits it. `known` are marks of those that come from below. Returns how many of the
    /// chain are here then.
    pub fn request(
        &mut self,
        keys: &[Key],
        present: usize,
        mut known: impl FnMut(Key) -> Option<Mark>,
        mut left: impl FnMut(Evicted),
        now: Millis,
    ) -> usize {
        self.policy.on_request(&Request { scope: SCOPE, keys }, now);
        let mut parent = None;
        // From the end to the start, as the store does: the root counts as used last.
        for (index, key) in keys[..present].iter().enumerate().rev() {
            let id = self.at[key];
            if index + 1 == present {
                parent = Some(id);
            }
            self.blocks[id.0 as usize].last = now;
            self.policy.on_hit(id, now);
        }
        for (position, key) in keys.iter().enumerate().skip(present) {
            let traits = Traits {
                scope: SCOPE,
                key: *key,
                parent: position.checked_sub(1).map(|before| keys[before]),
                bytes: self.bytes,
            };
            match self.insert(&traits, parent, known(*key), &mut left, now) {
                Some(id) => parent = Some(id),
                None => return position,
            }
        }
        keys.len()
    }

    fn insert(
        &mut self,
        traits: &Traits,
        parent: Option<BlockId>,
        mark: Option<Mark>,
        left: &mut impl FnMut(Evicted),
        now: Millis,
    ) -> Option<BlockId> {
        self.adopt(parent);
        while self.at.len() >= self.capacity {
            let victim = self.policy.victim(now);
            match victim.filter(|victim| self.policy.admit(traits, *victim, now)) {
                Some(victim) => {
                    let Block { key, last, .. } = self.blocks[victim.0 as usize];
                    left(Evicted { key, mark: self.policy.mark(victim), last });
                    self.evict(victim);
                }
                None => {
                    self.orphan(parent);
                    return None;
                }
            }
        }
        let block = Block { key: traits.key, parent, children: 0, last: now };
        let id = match self.free.pop() {
            Some(id) => {
                self.blocks[id.0 as usize] = block;
                id
            }
            None => {
                self.blocks.push(block);
                BlockId(self.blocks.len() as u32 - 1)
            }
        };
        self.at.insert(traits.key, id);
        match mark {
            Some(mark) => self.policy.on_return(id, traits, mark, now),
            None => self.policy.on_insert(id, traits, now),
        }
        Some(id)
    }

    fn evict(&mut self, id: BlockId) {
        let Block { key, parent, children, .. } = self.blocks[id.0 as usize];
        assert_eq!(children, 0, "policy {} evicts what something follows", self.policy.name());
        self.policy.on_remove(id, Removal::Evicted);
        self.at.remove(&key);
        self.free.push(id);
        self.orphan(parent);
    }

    fn adopt(&mut self, parent: Option<BlockId>) {
        let Some(id) = parent else { return };
        let block = &mut self.blocks[id.0 as usize];
        block.children += 1;
        if block.children == 1 {
            self.policy.on_hold(id);
        }
    }

    fn orphan(&mut self, parent: Option<BlockId>) {
        let Some(id) = parent else { return };
        let block = &mut self.blocks[id.0 as usize];
        block.children -= 1;
        if block.children == 0 {
            self.policy.on_free(id);
        }
    }
}
