//! What policies cost for each block, without a store: a cache of a tree of chains that is full.
//!
//! One round asks for a chain: half of them are known sessions of 16 to 30 blocks that go on by two, half are
//! strangers of 32. Every lookup, hit, hold, insertion and eviction of a block is in the time, and
//! so is the bookkeeping of who is a candidate, which is the same for all.

use std::collections::HashMap;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tranship_cache::policy::{BlockId, Name, Policy, Removal, Request, Traits};
use tranship_cache::{Key, Millis};

const CHAIN: usize = 32;
const SESSIONS: u64 = 256;

/// A cache of blocks under a policy.
struct World {
    policy: Box<dyn Policy>,
    capacity: usize,
    at: HashMap<Key, BlockId>,
    blocks: Vec<(Key, Option<BlockId>, u32)>,
    free: Vec<BlockId>,
    now: Millis,
    round: u64,
}

fn key(chain: u64, position: usize) -> Key {
    let word = (chain << 16 | position as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Key::from_bytes((u128::from(word) << 64 | u128::from(word.rotate_left(29))).to_le_bytes())
}

impl World {
    fn new(name: Name, capacity: usize) -> Self {
        Self {
            policy: name.policy(),
            capacity,
            at: HashMap::new(),
            blocks: Vec::new(),
            free: Vec::new(),
            now: Millis(0),
            round: 0,
        }
    }

    /// A session that goes on, or a stranger.
    fn round(&mut self) -> usize {
        self.round += 1;
        self.now = self.now + Millis(40);
        let mixed = self.round.wrapping_mul(0xd134_2543_de82_ef95) >> 32;
        let keys: Vec<Key> = if self.round.is_multiple_of(2) {
            let (session, turn) = (mixed % SESSIONS, self.round / SESSIONS / 2 % 8);
            let len = CHAIN - 16 + 2 * turn as usize;
            (0..len).map(|position| key(session, position)).collect()
        } else {
            (0..CHAIN).map(|position| key(SESSIONS + self.round, position)).collect()
        };
        self.ask(&keys);
        keys.len()
    }

    fn ask(&mut self, keys: &[Key]) {
        let present = keys.iter().take_while(|key| self.at.contains_key(key)).count();
        self.policy.on_request(&Request { scope: 0, keys }, self.now);
        for key in keys[..present].iter().rev() {
            self.policy.on_hit(self.at[key], self.now);
        }
        let mut parent = present.checked_sub(1).map(|last| self.at[&keys[last]]);
        for (position, key) in keys.iter().enumerate().skip(present) {
            let before = position.checked_sub(1).map(|before| keys[before]);
            let block = Traits { scope: 0, key: *key, parent: before, bytes: 1 << 20 };
            match self.insert(&block, parent) {
                Some(id) => parent = Some(id),
                None => return,
            }
        }
    }

    fn insert(&mut self, block: &Traits, parent: Option<BlockId>) -> Option<BlockId> {
        self.count(parent, 1);
        while self.at.len() >= self.capacity {
            let victim = self.policy.victim(self.now);
            let victim = victim.filter(|id| self.policy.admit(block, *id, self.now));
            let Some(victim) = victim else {
                self.count(parent, -1);
                return None;
            };
            self.policy.on_remove(victim, Removal::Evicted);
            let (key, above, _) = self.blocks[victim.0 as usize];
            self.at.remove(&key);
            self.free.push(victim);
            self.count(above, -1);
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.blocks.push((block.key, None, 0));
            BlockId(self.blocks.len() as u32 - 1)
        });
        self.blocks[id.0 as usize] = (block.key, parent, 0);
        self.at.insert(block.key, id);
        self.policy.on_insert(id, block, self.now);
        Some(id)
    }

    fn count(&mut self, id: Option<BlockId>, more: i32) {
        let Some(id) = id else { return };
        let children = &mut self.blocks[id.0 as usize].2;
        let before = *children;
        *children = before.checked_add_signed(more).expect("as many leave as came");
        match (before, *children) {
            (0, _) => self.policy.on_hold(id),
            (_, 0) => self.policy.on_free(id),
            _ => {}
        }
    }
}

fn decide(c: &mut Criterion) {
    for capacity in [6_000, 200_000] {
        let mut group = c.benchmark_group(format!("decide_{capacity}"));
        for name in Name::ALL {
            let mut world = World::new(name, capacity);
            while world.at.len() < capacity || world.round < 20_000 {
                world.round();
            }
            let rounds = 64;
            let blocks: usize = (0..rounds).map(|_| world.round()).sum();
            group.throughput(Throughput::Elements(blocks as u64));
            group.bench_function(name.as_str(), |b| {
                b.iter(|| (0..rounds).map(|_| black_box(world.round())).sum::<usize>());
            });
        }
        group.finish();
    }
}

criterion_group!(benches, decide);
criterion_main!(benches);
