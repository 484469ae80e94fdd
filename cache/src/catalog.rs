//! From key to where the block lives, for the blocks of one scope.
//!
//! Besides blocks that are somewhere, the catalog keeps an entry for each absent block that a
//! present one names as its parent. So the number of children of a block is known whatever order
//! they come and go in, and positions along a chain always agree, which rules cycles out.

use std::hash::{BuildHasher, Hasher, RandomState};

use hashbrown::HashTable;

use crate::key::Key;
use crate::lineage::Link;
use crate::tier::{Tier, Tiers};

/// Where a lookup found a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Nowhere.
    Absent,
    /// Somebody is filling it.
    InFlight,
    /// In this tier, the fastest that has it.
    Resident(Tier),
}

/// Index of a block in its tenant's DRAM bookkeeping.
pub(crate) type Slot = u32;

/// Position of a block that comes up from a tier below, until its place in its chain came with it.
const UNPLACED: u32 = u32::MAX;

/// What is known about one key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    key: Key,
    /// Position of the block, or the one its children expect; [`UNPLACED`] while nobody knows.
    position: u32,
    /// Present (filling or resident) blocks that name this one as their parent.
    children: u32,
    /// The block in DRAM, being filled or resident there.
    dram: Option<std::num::NonZeroU32>,
    tiers: Tiers,
}

impl Entry {
    pub(crate) fn slot(&self) -> Option<Slot> {
        self.dram.map(|slot| slot.get() - 1)
    }

    pub(crate) fn children(&self) -> u32 {
        self.children
    }

    pub(crate) fn presence(&self) -> Presence {
        match self.tiers.fastest() {
            Some(tier) => Presence::Resident(tier),
            None if self.dram.is_some() => Presence::InFlight,
            None => Presence::Absent,
        }
    }

    fn is_forgettable(&self) -> bool {
        self.children == 0 && self.dram.is_none() && self.tiers.is_empty()
    }
}

/// A link that contradicts the blocks around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contradiction {
    pub(crate) key: Key,
    pub(crate) known: u32,
    pub(crate) told: u32,
}

/// The blocks of one scope.
pub(crate) struct Catalog {
    table: HashTable<Entry>,
    hash: KeyHash,
}

impl Catalog {
    pub(crate) fn new() -> Self {
        Self { table: HashTable::new(), hash: KeyHash::random() }
    }

    /// Entries, those of absent parents included.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn get(&self, key: Key) -> Option<&Entry> {
        self.table.find(self.hash.of(key), |entry| entry.key == key)
    }

    pub(crate) fn presence(&self, key: Key) -> Presence {
        self.get(key).map_or(Presence::Absent, Entry::presence)
    }

    /// The resident block of `key` in DRAM.
    pub(crate) fn resident(&self, key: Key) -> Option<Slot> {
        self.get(key).filter(|entry| entry.tiers.contains(Tier::Dram)).and_then(Entry::slot)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &Entry)> {
        self.table.iter().map(|entry| (entry.key, entry))
    }

    /// Checks `link` against what is known, and counts it as a child of its parent.
    /// Returns the parent's slot when the parent is in DRAM.
    pub(crate) fn adopt(&mut self, link: Link) -> Result<Option<Slot>, Contradiction> {
        if link.position == UNPLACED {
            let known = UNPLACED - 1;
            return Err(Contradiction { key: link.key, known, told: link.position });
        }
        if let Some(entry) = self.get(link.key)
            && entry.position != link.position
            && entry.position != UNPLACED
        {
            let known = entry.position;
            return Err(Contradiction { key: link.key, known, told: link.position });
        }
        let Some(parent) = link.parent else { return Ok(None) };
        let Some(position) = link.position.checked_sub(1) else {
            return Err(Contradiction { key: link.key, known: 1, told: 0 });
        };
        if parent == link.key {
            return Err(Contradiction { key: parent, known: position, told: link.position });
        }
        let entry = self.entry(parent, position);
        if entry.position == UNPLACED {
            entry.position = position;
        }
        if entry.position != position {
            let known = entry.position;
            return Err(Contradiction { key: parent, known, told: position });
        }
        entry.children += 1;
        Ok(entry.slot())
    }

    /// Undoes [`adopt`](Self::adopt).
    pub(crate) fn orphan(&mut self, link: Link) -> Option<Slot> {
        let parent = link.parent?;
        let entry = self.get_mut(parent).expect("a child's parent has an entry");
        entry.children -= 1;
        let slot = entry.slot();
        self.forget(parent);
        slot
    }

    /// Says where a block belongs that was filled [unplaced](Self::fill_unplaced), and counts it as a child
    /// of its parent, as [`adopt`](Self::adopt) does.
    pub(crate) fn place(&mut self, link: Link) -> Result<Option<Slot>, Contradiction> {
        let parent = self.adopt(link)?;
        self.get_mut(link.key).expect("a filling block has an entry").position = link.position;
        Ok(parent)
    }

    /// Records that `slot` is being filled with the block of `key`, whose place in its chain is not known
    /// yet.
    pub(crate) fn fill_unplaced(&mut self, key: Key, slot: Slot) {
        self.fill(Link { key, parent: None, position: UNPLACED }, slot);
    }

    /// Records that `slot` is being filled with the block of `link`.
    pub(crate) fn fill(&mut self, link: Link, slot: Slot) {
        let entry = self.entry(link.key, link.position);
        debug_assert!(entry.dram.is_none());
        entry.dram = std::num::NonZeroU32::new(slot + 1);
    }

    /// Records that the block is whole in DRAM.
    pub(crate) fn settle(&mut self, key: Key) {
        self.get_mut(key).expect("a filling block has an entry").tiers.insert(Tier::Dram);
    }

    /// Records that the block is no longer in DRAM, nor being filled.
    pub(crate) fn unlink(&mut self, key: Key) {
        let entry = self.get_mut(key).expect("a present block has an entry");
        entry.dram = None;
        entry.tiers.remove(Tier::Dram);
        self.forget(key);
    }

    fn get_mut(&mut self, key: Key) -> Option<&mut Entry> {
        self.table.find_mut(self.hash.of(key), |entry| entry.key == key)
    }

    fn entry(&mut self, key: Key, position: u32) -> &mut Entry {
        let hash = self.hash;
        self.table
            .entry(hash.of(key), |entry| entry.key == key, |entry| hash.of(entry.key))
            .or_insert(Entry { key, position, children: 0, dram: None, tiers: Tiers::NONE })
            .into_mut()
    }

    fn forget(&mut self, key: Key) {
        let found = self.table.find_entry(self.hash.of(key), |entry| entry.key == key);
        if let Ok(entry) = found
            && entry.get().is_forgettable()
        {
            entry.remove();
        }
    }
}

/// Hash of a key: its own bits, folded by one multiplication with a secret.
///
/// Keys are hashes already, but an engine may bring bad or hostile ones; without the secret nobody
/// can choose keys that fall together.
#[derive(Clone, Copy)]
struct KeyHash(u64, u64);

impl KeyHash {
    fn random() -> Self {
        let draw = || RandomState::new().build_hasher().finish();
        Self(draw(), draw())
    }

    #[inline]
    fn of(self, key: Key) -> u64 {
        let (low, high) = key.words();
        let wide = u128::from(low ^ self.0) * u128::from(high ^ self.1);
        wide as u64 ^ (wide >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> Key {
        Key::from_bytes([n; 16])
    }

    fn link(n: u8, parent: Option<u8>, position: u32) -> Link {
        Link { key: key(n), parent: parent.map(key), position }
    }

    #[test]
    fn children_are_known_before_their_parent() {
        let mut catalog = Catalog::new();
        assert_eq!(catalog.adopt(link(2, Some(1), 1)), Ok(None));
        catalog.fill(link(2, Some(1), 1), 0);
        assert_eq!(catalog.presence(key(1)), Presence::Absent);
        assert_eq!(catalog.adopt(link(1, None, 0)), Ok(None));
        catalog.fill(link(1, None, 0), 7);
        assert_eq!(catalog.presence(key(1)), Presence::InFlight);
        assert_eq!(catalog.get(key(1)).unwrap().children(), 1);
        catalog.settle(key(1));
        assert_eq!(catalog.resident(key(1)), Some(7));
        catalog.unlink(key(1));
        assert_eq!(catalog.len(), 2, "the absent parent is remembered");
        catalog.unlink(key(2));
        assert_eq!(catalog.orphan(link(2, Some(1), 1)), None);
        assert_eq!(catalog.len(), 0);
    }

    #[test]
    fn a_block_may_be_placed_late() {
        let mut catalog = Catalog::new();
        catalog.fill_unplaced(key(3), 0);
        assert_eq!(catalog.adopt(link(4, Some(3), 4)), Ok(Some(0)), "its child places it");
        let wrong = Contradiction { key: key(3), known: 3, told: 2 };
        assert_eq!(catalog.place(link(3, Some(2), 2)), Err(wrong));
        assert_eq!(catalog.place(link(3, Some(2), 3)), Ok(None));
        assert_eq!(catalog.get(key(2)).unwrap().children(), 1);

        catalog.fill_unplaced(key(7), 1);
        assert_eq!(catalog.place(link(7, None, 0)), Ok(None));
        assert!(catalog.adopt(link(8, Some(7), 9)).is_err(), "it is placed now");
    }

    #[test]
    fn cycles_cannot_be_told() {
        let mut catalog = Catalog::new();
        let own = catalog.adopt(link(1, Some(1), 3));
        assert_eq!(own, Err(Contradiction { key: key(1), known: 2, told: 3 }));
        assert_eq!(catalog.adopt(link(2, Some(1), 3)), Ok(None));
        let round = catalog.adopt(link(1, Some(2), 4));
        assert_eq!(round, Err(Contradiction { key: key(1), known: 2, told: 4 }));
        assert!(catalog.adopt(link(9, Some(8), 0)).is_err(), "a first block has no parent");
    }

    #[test]
    fn entries_stay_small() {
        assert!(size_of::<Entry>() <= 32, "{}", size_of::<Entry>());
    }
}
