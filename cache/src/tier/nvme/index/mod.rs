//! Where each block is: the one structure that grows with the number of blocks.
//!
//! A block costs 44 bytes in a slab and 2 in the table of buckets. Both grow in pieces of
//! a fixed size and the table one bucket at a time (linear hashing), so that no insertion copies the
//! whole, and what is allocated never runs ahead of what is used by more than a piece.

mod identities;
mod slot;

use std::collections::HashMap;

use crate::identity::IdentityId;
use crate::key::Key;
use crate::tier::cold::{Found, Mark, Name};
use crate::time::Wall;

use identities::Identities;
pub(crate) use slot::Place;
use slot::{NONE, Slot};

/// Slots, or buckets, that are allocated at once.
const PIECE: usize = 1024;
/// Blocks to a bucket, on average.
const LOAD: usize = 2;

/// The index. Slots are numbers below [`slots`](Self::slots), used again after a removal.
#[derive(Debug, Default)]
pub(crate) struct Index {
    slabs: Vec<Box<[Slot; PIECE]>>,
    /// Slots that were ever used; all above are free.
    used: u32,
    /// First of the chain of slots that are free below it.
    free: Option<u32>,
    buckets: Vec<Box<[u32; PIECE]>>,
    /// Buckets in use.
    split: usize,
    len: u64,
    bytes: u64,
    /// Blocks whose time to live ends.
    mortal: u64,
    identities: Identities,
    /// What is being forgotten: a block is found again once the last removal of it was carried out.
    barred: HashMap<Name, u32>,
    barred_identities: HashMap<IdentityId, u32>,
}

/// A block as the index has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) slot: u32,
    pub(crate) place: Place,
    pub(crate) found: Found,
}

/// What came of [`Index::add`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Added {
    New,
    There(Known),
}

impl Index {
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Payload bytes of all blocks.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether some block's time to live ends.
    pub(crate) fn has_mortals(&self) -> bool {
        self.mortal > 0
    }

    pub(crate) fn slots(&self) -> u32 {
        self.used
    }

    /// Memory, bytes.
    pub(crate) fn allocated_bytes(&self) -> u64 {
        let slabs = self.slabs.len() * size_of::<[Slot; PIECE]>();
        let buckets = self.buckets.len() * size_of::<[u32; PIECE]>();
        let lists = (self.slabs.capacity() + self.buckets.capacity()) * size_of::<usize>();
        (slabs + buckets + lists) as u64 + self.identities.allocated_bytes()
    }

    /// What is known of a block that may be told of.
    pub(crate) fn find(&self, name: &Name, now: Wall) -> Option<Known> {
        if !self.barred.is_empty() && self.barred.contains_key(name)
            || !self.barred_identities.is_empty()
                && self.barred_identities.contains_key(&name.identity)
        {
            return None;
        }
        let known = self.get(name)?;
        known.found.expires.is_none_or(|at| at > now).then_some(known)
    }

    /// What is known of a block, whether or not it may be told of.
    pub(crate) fn get(&self, name: &Name) -> Option<Known> {
        let number = self.identities.number(&name.identity)?;
        self.search(number, name.key).map(|slot| self.known(slot))
    }

    /// The block in a slot; none when the slot is free or its identity was cleared.
    pub(crate) fn at(&self, slot: u32) -> Option<(Name, Known)> {
        if slot >= self.used {
            return None;
        }
        let inside = self.slot(slot);
        let number = inside.number()?;
        let identity = self.identities.id(number)?;
        Some((Name { identity, key: inside.key() }, self.known(slot)))
    }

    /// What is in a slot, even if its identity was cleared.
    pub(crate) fn inside(&self, slot: u32) -> Option<Known> {
        (slot < self.used && self.slot(slot).number().is_some()).then(|| self.known(slot))
    }

    /// Whether the slot holds a block of an identity that was cleared.
    pub(crate) fn is_cleared(&self, slot: u32) -> bool {
        slot < self.used
            && self.slot(slot).number().is_some_and(|number| self.identities.id(number).is_none())
    }

    /// Puts a block in, in place of the one of the same name; tells where that was. None when there
    /// are too many identities.
    pub(crate) fn insert(
        &mut self,
        name: &Name,
        place: Place,
        found: &Found,
    ) -> Option<Option<Known>> {
        match self.add(name, place, found)? {
            Added::New => Some(None),
            Added::There(before) => {
                self.replace(before.slot, place, found);
                Some(Some(before))
            }
        }
    }

    /// Puts a block in, unless there is one of its name. None when there are too many identities.
    pub(crate) fn add(&mut self, name: &Name, place: Place, found: &Found) -> Option<Added> {
        let number = self.identities.take(&name.identity)?;
        if let Some(slot) = self.search(number, name.key) {
            return Some(Added::There(self.known(slot)));
        }
        let slot = self.vacant();
        self.slot_mut(slot).fill(number, name.key);
        self.slot_mut(slot).set(place, found);
        self.identities.add(number);
        self.count(found);
        self.len += 1;
        self.grow();
        self.link(slot);
        Some(Added::New)
    }

    /// Puts another version of a block in its slot.
    pub(crate) fn replace(&mut self, slot: u32, place: Place, found: &Found) {
        let before = self.known(slot);
        self.uncount(&before.found);
        self.slot_mut(slot).set(place, found);
        self.count(found);
    }

    /// Says that a block is somewhere else now.
    pub(crate) fn relocate(&mut self, slot: u32, place: Place, mark: Mark) {
        let found = Found { mark, ..self.known(slot).found };
        self.slot_mut(slot).set(place, &found);
    }

    /// Changes what is remembered of a block's use.
    pub(crate) fn mark(&mut self, slot: u32, change: impl FnOnce(&mut Mark)) {
        let slot = self.slot_mut(slot);
        let mut mark = slot.mark();
        change(&mut mark);
        slot.set_mark(mark);
    }

    /// Takes the block in a slot out.
    pub(crate) fn remove(&mut self, slot: u32) -> Known {
        let known = self.known(slot);
        self.uncount(&known.found);
        self.unlink(slot);
        let number = self.slot(slot).number().expect("a slot that is taken has an identity");
        self.identities.sub(number);
        let next = self.free.unwrap_or(NONE);
        self.slot_mut(slot).clear(next);
        self.free = Some(slot);
        self.len -= 1;
        self.shrink();
        known
    }

    /// Forgets an identity: its blocks are not found any more, and wait to be taken out. Returns
    /// whether there are any.
    pub(crate) fn clear(&mut self, identity: &IdentityId) -> bool {
        self.identities.retire(identity)
    }

    /// Whether some blocks of cleared identities wait to be taken out.
    pub(crate) fn has_cleared(&self) -> bool {
        self.identities.has_retired()
    }

    /// Hides a block until [`unbar`](Self::unbar) was called as often.
    pub(crate) fn bar(&mut self, name: Name) {
        *self.barred.entry(name).or_default() += 1;
    }

    pub(crate) fn unbar(&mut self, name: &Name) {
        release(&mut self.barred, name);
    }

    pub(crate) fn bar_identity(&mut self, identity: IdentityId) {
        *self.barred_identities.entry(identity).or_default() += 1;
    }

    pub(crate) fn unbar_identity(&mut self, identity: &IdentityId) {
        release(&mut self.barred_identities, identity);
    }

    /// Calls `visit` for the blocks in some slots from `from` on; where to go on.
    pub(crate) fn visit(
        &self,
        from: u32,
        slots: u32,
        now: Wall,
        visit: &mut dyn FnMut(&Name, &Found),
    ) -> Option<u32> {
        let end = from.saturating_add(slots).min(self.used);
        for slot in from..end {
            let Some((name, _)) = self.at(slot) else { continue };
            if let Some(known) = self.find(&name, now) {
                visit(&name, &known.found);
            }
        }
        (end < self.used).then_some(end)
    }

    fn count(&mut self, found: &Found) {
        self.bytes += found.len;
        self.mortal += u64::from(found.expires.is_some());
    }

    fn uncount(&mut self, found: &Found) {
        self.bytes -= found.len;
        self.mortal -= u64::from(found.expires.is_some());
    }

    fn known(&self, slot: u32) -> Known {
        let inside = self.slot(slot);
        Known { slot, place: inside.place(), found: inside.found() }
    }

    fn slot(&self, slot: u32) -> &Slot {
        &self.slabs[slot as usize / PIECE][slot as usize % PIECE]
    }

    fn slot_mut(&mut self, slot: u32) -> &mut Slot {
        &mut self.slabs[slot as usize / PIECE][slot as usize % PIECE]
    }

    fn vacant(&mut self) -> u32 {
        if let Some(slot) = self.free {
            let next = self.slot(slot).next();
            self.free = (next != NONE).then_some(next);
            return slot;
        }
        let slot = self.used;
        assert!(slot != NONE, "fewer blocks than pages");
        if slot as usize / PIECE == self.slabs.len() {
            push(&mut self.slabs, Slot::VACANT);
        }
        self.used += 1;
        slot
    }

    fn search(&self, number: u16, key: Key) -> Option<u32> {
        if self.split == 0 {
            return None;
        }
        let mut slot = self.head(self.bucket(hash(number, key)));
        while slot != NONE {
            let inside = self.slot(slot);
            if inside.key() == key && inside.number() == Some(number) {
                return Some(slot);
            }
            slot = inside.next();
        }
        None
    }

    fn head(&self, bucket: usize) -> u32 {
        self.buckets[bucket / PIECE][bucket % PIECE]
    }

    fn head_mut(&mut self, bucket: usize) -> &mut u32 {
        &mut self.buckets[bucket / PIECE][bucket % PIECE]
    }

    /// The bucket of a hash: its low bits, one fewer where the bucket they name is not there yet.
    fn bucket(&self, hash: u64) -> usize {
        let mask = self.split.next_power_of_two() - 1;
        let bucket = hash as usize & mask;
        if bucket < self.split { bucket } else { bucket & (mask >> 1) }
    }

    fn bucket_of(&self, slot: u32) -> usize {
        let inside = self.slot(slot);
        self.bucket(hash(inside.number().expect("a slot in a bucket is taken"), inside.key()))
    }

    fn link(&mut self, slot: u32) {
        let bucket = self.bucket_of(slot);
        let next = std::mem::replace(self.head_mut(bucket), slot);
        self.slot_mut(slot).set_next(next);
    }

    fn unlink(&mut self, slot: u32) {
        let bucket = self.bucket_of(slot);
        let next = self.slot(slot).next();
        let mut at = self.head(bucket);
        if at == slot {
            *self.head_mut(bucket) = next;
            return;
        }
        while self.slot(at).next() != slot {
            at = self.slot(at).next();
        }
        self.slot_mut(at).set_next(next);
    }

    /// Adds a bucket when there are too many blocks to each: it takes its part of one that is split.
    fn grow(&mut self) {
        if self.split * LOAD >= self.len as usize {
            return;
        }
        if self.split / PIECE == self.buckets.len() {
            push(&mut self.buckets, NONE);
        }
        let added = self.split;
        *self.head_mut(added) = NONE;
        self.split += 1;
        if added > 0 {
            let mask = self.split.next_power_of_two() - 1;
            self.move_all(added & (mask >> 1));
        }
    }

    /// Gives a bucket back when there are far too many: its blocks go to the one it was split from.
    fn shrink(&mut self) {
        if self.split <= 1 || self.split * LOAD <= 2 * self.len as usize {
            return;
        }
        self.split -= 1;
        self.move_all(self.split);
    }

    fn move_all(&mut self, bucket: usize) {
        let mut slot = std::mem::replace(self.head_mut(bucket), NONE);
        while slot != NONE {
            let next = self.slot(slot).next();
            self.link(slot);
            slot = next;
        }
    }

    /// Recounts everything, the slow and plain way.
    pub(crate) fn audit(&self) -> Result<(), String> {
        let taken = (0..self.used).filter(|slot| self.slot(*slot).number().is_some());
        let taken: Vec<u32> = taken.collect();
        let (mut bytes, mut mortal) = (0, 0);
        for slot in &taken {
            let inside = self.slot(*slot);
            bytes += inside.found().len;
            mortal += u64::from(inside.found().expires.is_some());
            let number = inside.number().unwrap_or_default();
            if self.search(number, inside.key()) != Some(*slot) {
                return Err(format!("slot {slot} is not in its bucket"));
            }
        }
        let real = (taken.len() as u64, bytes, mortal);
        let counted = (self.len, self.bytes, self.mortal);
        if real != counted {
            return Err(format!(
                "blocks, bytes, mortals are {real:?}, but {counted:?} are counted"
            ));
        }
        self.identities.audit(taken.iter().filter_map(|slot| self.slot(*slot).number()))
    }
}

/// Adds a piece; the list of pieces grows by a quarter at a time.
fn push<T: Copy>(to: &mut Vec<Box<[T; PIECE]>>, with: T) {
    if to.len() == to.capacity() {
        to.reserve_exact((to.len() / 4).max(4));
    }
    to.push(Box::new([with; PIECE]));
}

fn release<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// Mixes all bits of the key into the low ones: engines may bring keys that are no hashes.
fn hash(number: u16, key: Key) -> u64 {
    let (low, high) = key.words();
    let mut mixed =
        low ^ high.rotate_left(32) ^ u64::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for _ in 0..2 {
        mixed = (mixed ^ mixed >> 32).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    }
    mixed ^ mixed >> 32
}

#[cfg(test)]
mod tests;
