//! What was removed here: it voids stores that were taken before and are not packed yet, and hides what
//! packs bring back that were made before and are heard of after.

use std::collections::VecDeque;
use std::hash::Hash;
use std::time::Duration;

use hashbrown::HashMap;

use super::super::cold::Name;
use crate::identity::IdentityId;
use crate::time::Wall;

/// Removed blocks, and cleared identities, that are remembered; the oldest are forgotten.
const REMEMBERED: usize = 1 << 16;
/// What one of them takes in memory, bytes.
const REMEMBERED_BYTES: u64 = 2 * (size_of::<(Name, Wall)>() as u64) + 16;

/// Stores that were taken and are not in a pack.
#[derive(Debug, Default)]
pub(super) struct Queue {
    taken: u64,
    waiting: HashMap<Name, Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    stores: u32,
    /// Those up to this one are void.
    void: u64,
}

impl Queue {
    /// A store was taken: its number.
    pub(super) fn take(&mut self, name: Name) -> u64 {
        self.taken += 1;
        self.waiting.entry(name).or_default().stores += 1;
        self.taken
    }

    /// Whether the block was removed after this store was taken.
    pub(super) fn is_void(&self, name: &Name, store: u64) -> bool {
        self.waiting.get(name).is_some_and(|waiting| store <= waiting.void)
    }

    /// A store is packed, or never will be.
    pub(super) fn end(&mut self, name: &Name) {
        if let Some(waiting) = self.waiting.get_mut(name) {
            waiting.stores -= 1;
            if waiting.stores == 0 {
                self.waiting.remove(name);
            }
        }
    }

    /// The block is removed: stores of it that were taken are void.
    pub(super) fn remove(&mut self, name: &Name) {
        if let Some(waiting) = self.waiting.get_mut(name) {
            waiting.void = self.taken;
        }
    }

    /// The same for an identity. There are no more of them than a lane has jobs.
    pub(super) fn clear(&mut self, identity: IdentityId) {
        for (_, waiting) in self.waiting.iter_mut().filter(|(name, _)| name.identity == identity) {
            waiting.void = self.taken;
        }
    }
}

/// Removals that are remembered.
#[derive(Debug, Default)]
pub(super) struct Removed {
    names: Times<Name>,
    identities: Times<IdentityId>,
}

impl Removed {
    pub(super) fn remove(&mut self, name: Name, now: Wall) {
        self.names.note(name, now);
    }

    pub(super) fn clear(&mut self, identity: IdentityId, now: Wall) {
        self.identities.note(identity, now);
    }

    /// Whether a block was removed after a pack that has it was made at `created`, as far as can be said:
    /// clocks of nodes may be apart by `apart`.
    pub(super) fn hides(&self, name: &Name, created: Wall, apart: Duration) -> bool {
        let before = |at: &Wall| created <= at.after(apart.into());
        self.names.of.get(name).is_some_and(before)
            || self.identities.of.get(&name.identity).is_some_and(before)
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        (self.names.order.len() + self.identities.order.len()) as u64 * REMEMBERED_BYTES
    }
}

#[derive(Debug)]
struct Times<K> {
    of: HashMap<K, Wall>,
    /// Oldest first, those that were noted again or forgotten too.
    order: VecDeque<(K, Wall)>,
}

impl<K> Default for Times<K> {
    fn default() -> Self {
        Self { of: HashMap::new(), order: VecDeque::new() }
    }
}

impl<K: Copy + Eq + Hash> Times<K> {
    fn note(&mut self, key: K, at: Wall) {
        if self.of.insert(key, at) == Some(at) {
            return;
        }
        self.order.push_back((key, at));
        if self.order.len() > REMEMBERED
            && let Some((oldest, at)) = self.order.pop_front()
            && self.of.get(&oldest) == Some(&at)
        {
            self.of.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    fn name(identity: u8, number: u32) -> Name {
        let key = Key::from_digest(&number.to_le_bytes());
        Name { identity: IdentityId::from_bytes([identity; 16]), key }
    }

    #[test]
    fn a_removal_voids_what_was_taken_before_it() {
        let mut queue = Queue::default();
        let (first, other) = (queue.take(name(1, 1)), queue.take(name(2, 2)));
        queue.remove(&name(1, 1));
        let second = queue.take(name(1, 1));
        assert!(queue.is_void(&name(1, 1), first) && !queue.is_void(&name(1, 1), second));
        assert!(!queue.is_void(&name(2, 2), other));
        queue.clear(name(2, 0).identity);
        assert!(queue.is_void(&name(2, 2), other) && !queue.is_void(&name(1, 1), second));
        for name in [name(1, 1), name(1, 1), name(2, 2)] {
            queue.end(&name);
        }
        assert!(queue.waiting.is_empty());
    }

    #[test]
    fn removals_hide_what_was_made_before_them() {
        let mut removed = Removed::default();
        let apart = Duration::from_secs(1);
        removed.remove(name(1, 1), Wall(5000));
        removed.clear(name(2, 0).identity, Wall(5000));
        for (block, created, hidden) in [
            (name(1, 1), 6000, true),
            (name(1, 1), 6001, false),
            (name(1, 2), 1, false),
            (name(2, 7), 6000, true),
            (name(2, 7), 6001, false),
        ] {
            assert_eq!(removed.hides(&block, Wall(created), apart), hidden, "{block:?} {created}");
        }
    }

    #[test]
    fn the_oldest_removals_are_forgotten() {
        let mut removed = Removed::default();
        removed.remove(name(1, 0), Wall(0));
        for number in 0..REMEMBERED as u32 {
            removed.remove(name(1, number), Wall(1));
        }
        // It was removed again since.
        assert!(removed.hides(&name(1, 0), Wall(0), Duration::ZERO));
        removed.remove(name(1, 0), Wall(2));
        removed.remove(name(2, 0), Wall(2));
        assert!(!removed.hides(&name(1, 1), Wall(0), Duration::ZERO));
        assert_eq!(removed.names.order.len(), REMEMBERED);
        assert_eq!(removed.memory_bytes(), REMEMBERED as u64 * REMEMBERED_BYTES);
    }
}
