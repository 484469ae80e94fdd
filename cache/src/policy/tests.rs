//! What must hold of every policy, over random histories of a tree of blocks.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{BlockId, Mark, Name, Policy, Removal, Request, Traits};
use crate::key::Key;
use crate::time::Millis;

const CHAINS: u8 = 6;
/// Chains that have names of their own.
const NAMED: u8 = 4;
const DEPTH: u8 = 6;
const CAPACITY: usize = 12;

#[derive(Clone, Debug)]
enum Op {
    /// Looks up so many blocks of a chain, uses what is there and stores what is not.
    Ask {
        chain: u8,
        depth: u8,
        told: bool,
    },
    /// A lease begins or ends.
    Lease {
        chain: u8,
        depth: u8,
        on: bool,
    },
    /// Somebody removes a block.
    Remove {
        chain: u8,
        depth: u8,
        why: usize,
    },
    Wait {
        ms: u64,
    },
    Evict,
}

fn op() -> impl Strategy<Value = Op> {
    let block = || (0..CHAINS, 1..=DEPTH);
    prop_oneof![
        8 => (block(), prop::bool::weighted(0.8))
            .prop_map(|((chain, depth), told)| Op::Ask { chain, depth, told }),
        2 => (block(), any::<bool>()).prop_map(|((chain, depth), on)| Op::Lease { chain, depth, on }),
        1 => (block(), 0..4_usize).prop_map(|((chain, depth), why)| Op::Remove { chain, depth, why }),
        3 => (0..200_000_u64).prop_map(|ms| Op::Wait { ms }),
        1 => Just(Op::Evict),
    ]
}

/// Chains of odd number share the first half with the even one before them. The last two have the names of
/// the first two in the tables of policies, though not their keys.
fn key(chain: u8, position: u8) -> Key {
    let owner = if position < DEPTH / 2 { chain / 2 * 2 } else { chain };
    let mut bytes = [0x5a; 16];
    (bytes[0], bytes[9]) = (owner % NAMED + 1, position);
    let (low, high) = Key::from_bytes(bytes).words();
    let other = if owner < NAMED { 0 } else { 0xc0ff_ee00_dead_beef_u64 };
    let (low, high) = (low ^ other, high ^ other.rotate_right(32));
    Key::from_bytes((u128::from(high) << 64 | u128::from(low)).to_le_bytes())
}

#[test]
fn keys_may_have_one_name() {
    let named = |chain| super::name(0, key(chain, DEPTH - 1));
    assert!(
        (0..NAMED).all(|chain| key(chain, 0) != key(chain + NAMED, 0) || chain + NAMED >= CHAINS)
    );
    assert_eq!((named(0), named(1)), (named(NAMED), named(NAMED + 1)));
    assert_ne!(named(0), named(1));
}

struct Resident {
    id: BlockId,
    parent: Option<Key>,
    leased: bool,
    held: bool,
}

/// Tells a policy what happens as the store does, and checks what it answers.
struct World {
    policy: Box<dyn Policy>,
    blocks: BTreeMap<Key, Resident>,
    free: Vec<BlockId>,
    next: u32,
    now: Millis,
    marks: Vec<Mark>,
    log: Vec<(Key, bool)>,
}

impl World {
    fn new(name: Name) -> Self {
        let (blocks, free, marks, log) = Default::default();
        Self { policy: name.policy(), blocks, free, next: 0, now: Millis(7), marks, log }
    }

    fn weigh(&mut self, key: Key) {
        let children = self.blocks.values().filter(|block| block.parent == Some(key)).count();
        let Some(block) = self.blocks.get_mut(&key) else { return };
        let held = block.leased || children > 0;
        if held != block.held {
            block.held = held;
            if held { self.policy.on_hold(block.id) } else { self.policy.on_free(block.id) }
        }
    }

    fn evict(&mut self) -> bool {
        let Some(id) = self.policy.victim(self.now) else {
            assert!(self.blocks.values().all(|block| block.held), "a candidate was left out");
            return false;
        };
        let (key, block) = self.blocks.iter().find(|(_, b)| b.id == id).expect("it is resident");
        assert!(!block.held, "{} evicts what is held", self.policy.name());
        let key = *key;
        let mark = self.policy.mark(id);
        self.log.push((key, false));
        self.leave(key, Removal::Evicted);
        self.judge(mark);
        true
    }

    fn judge(&mut self, mark: Mark) {
        for age in [0, 1, 60_000, u64::MAX] {
            let worth = self.policy.worth(mark, Millis(age));
            assert!(worth.is_finite() && worth >= 0.0, "{worth}");
        }
        self.marks.push(mark);
    }

    fn leave(&mut self, key: Key, why: Removal) {
        let Some(block) = self.blocks.remove(&key) else { return };
        self.policy.on_remove(block.id, why);
        self.free.push(block.id);
        if let Some(parent) = block.parent {
            self.weigh(parent);
        }
    }

    fn insert(&mut self, key: Key, parent: Option<Key>) -> bool {
        let traits = Traits { scope: 0, key, parent, bytes: 4096 };
        while self.blocks.len() >= CAPACITY {
            let Some(victim) = self.policy.victim(self.now) else { return false };
            if !self.policy.admit(&traits, victim, self.now) {
                return false;
            }
            if !self.evict() {
                return false;
            }
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            BlockId(self.next - 1)
        });
        match self.marks.pop().filter(|_| id.0.is_multiple_of(2)) {
            Some(mark) => self.policy.on_return(id, &traits, mark, self.now),
            None => self.policy.on_insert(id, &traits, self.now),
        }
        self.blocks.insert(key, Resident { id, parent, leased: false, held: false });
        self.log.push((key, true));
        true
    }

    fn ask(&mut self, chain: u8, depth: u8, told: bool) {
        let keys: Vec<Key> = (0..depth).map(|position| key(chain, position)).collect();
        let present = keys.iter().take_while(|key| self.blocks.contains_key(key)).count();
        if told {
            self.policy.on_request(&Request { scope: 0, keys: &keys }, self.now);
        }
        for key in keys[..present].iter().rev() {
            self.policy.on_hit(self.blocks[key].id, self.now);
        }
        let mut parent: Option<Key> = None;
        for key in &keys {
            if !self.blocks.contains_key(key) {
                // As the store, which counts the child before it makes room for it.
                let was = parent.and_then(|parent| self.blocks.get_mut(&parent));
                let held = was.map(|block| std::mem::replace(&mut block.leased, true));
                parent.iter().for_each(|parent| self.weigh(*parent));
                let taken = self.insert(*key, parent);
                if let (Some(parent), Some(held)) = (parent, held) {
                    self.blocks.get_mut(&parent).expect("it was held").leased = held;
                    self.weigh(parent);
                }
                if !taken {
                    return;
                }
            }
            parent = Some(*key);
        }
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Ask { chain, depth, told } => self.ask(chain, depth, told),
            Op::Lease { chain, depth, on } => {
                let key = key(chain, depth - 1);
                if let Some(block) = self.blocks.get_mut(&key) {
                    block.leased = on;
                    self.weigh(key);
                }
            }
            Op::Remove { chain, depth, why } => {
                let whys = [Removal::Removed, Removal::Expired, Removal::Corrupt, Removal::Cleared];
                self.leave(key(chain, depth - 1), whys[why]);
            }
            Op::Wait { ms } => self.now = self.now + Millis(ms),
            Op::Evict => drop(self.evict()),
        }
        if let Some(mark) = self.marks.last().copied() {
            let mark = self.policy.on_hit_below(mark, Millis(40_000), self.now);
            self.judge(mark);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn every_policy_evicts_what_may_leave_and_repeats_itself(
        ops in prop::collection::vec(op(), 1..120),
    ) {
        for name in Name::ALL {
            let mut worlds = [World::new(name), World::new(name)];
            for world in &mut worlds {
                ops.iter().for_each(|op| world.run(op));
                prop_assert!(world.blocks.len() <= CAPACITY);
            }
            prop_assert_eq!(&worlds[0].log, &worlds[1].log, "{} is not deterministic", name);
            // Whatever was held meanwhile, everything can leave in the end.
            let world = &mut worlds[0];
            let keys: Vec<Key> = world.blocks.keys().copied().collect();
            for key in keys {
                world.blocks.get_mut(&key).expect("listed").leased = false;
                world.weigh(key);
            }
            while world.evict() {}
            prop_assert!(world.blocks.is_empty());
        }
    }
}

#[test]
fn names_are_unique_and_found() {
    for name in Name::ALL {
        assert_eq!(Name::find(name.as_str()), Some(name));
        assert_eq!(name.policy().name(), name.as_str());
    }
    assert_eq!(Name::find("opt"), None);
}

/// Chains of three blocks that come back, among twice as many that never do.
fn hits(name: Name) -> usize {
    let mut world = World::new(name);
    let (mut hits, mut once) = (0, 100_u32);
    let wide = |chain: u32, position: u8| {
        let mut bytes = [7; 16];
        bytes[..4].copy_from_slice(&(chain + 1).to_le_bytes());
        bytes[9] = position;
        Key::from_bytes(bytes)
    };
    for turn in 0..3_000_u32 {
        world.now = world.now + Millis(1_000);
        let chain = if turn % 3 == 0 {
            turn / 3 % 3
        } else {
            once += 1;
            once
        };
        let keys: Vec<Key> = (0..3).map(|position| wide(chain, position)).collect();
        let present = keys.iter().take_while(|key| world.blocks.contains_key(key)).count();
        hits += present;
        world.policy.on_request(&Request { scope: 0, keys: &keys }, world.now);
        for key in keys[..present].iter().rev() {
            world.policy.on_hit(world.blocks[key].id, world.now);
        }
        for (position, key) in keys.iter().enumerate().skip(present) {
            let parent = position.checked_sub(1).map(|before| keys[before]);
            if let Some(parent) = parent {
                world.blocks.get_mut(&parent).expect("just stored").leased = true;
                world.weigh(parent);
            }
            let taken = world.insert(*key, parent);
            if let Some(parent) = parent {
                world.blocks.get_mut(&parent).expect("it was held").leased = false;
                world.weigh(parent);
            }
            if !taken {
                break;
            }
        }
    }
    hits
}

#[test]
fn lineage_keeps_what_returns_from_what_does_not() {
    // Nine blocks return every nine seconds, eighteen strangers pass meanwhile; twelve fit.
    let (lru, lineage) = (hits(Name::Lru), hits(Name::Lineage));
    assert_eq!(lru, 0);
    assert!(lineage > 2_700, "{lineage} of 3,000");
}
