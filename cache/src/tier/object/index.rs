//! What is known to be where: all blocks of all packs, in memory.
//!
//! A block takes 56 bytes ([`ENTRY_MEMORY_BYTES`]) for what is known of it and some 14 of a hash table
//! that finds it. A block may be in several packs (two nodes stored it); whichever is better is found.

mod entry;
mod pack;
#[cfg(test)]
mod tests;
mod walk;

use std::hash::{BuildHasher, Hasher, RandomState};

use bytes::Bytes;
use hashbrown::{HashMap, HashTable};

use self::entry::{ENTRY_MEMORY_BYTES, Entry};
use super::super::cold::{Found, Name};
use super::format::Listed;
use super::paths::PackId;
use crate::identity::IdentityId;
use crate::key::Key;
use crate::time::Wall;

pub(super) use self::pack::{Body, Pack, Place, Serial};

/// What an element of the hash table takes, bytes: the place, its byte of control, and room to grow.
const PLACE_MEMORY_BYTES: u64 = 14;
/// What a pack takes besides its entries, bytes.
const PACK_MEMORY_BYTES: u64 = size_of::<Pack>() as u64 + 64;
/// Identities that may be known at the same time, those that were cleared and not yet swept included.
const IDENTITIES_MAX: usize = 60_000;

/// One identity, or what is left of one that was cleared.
#[derive(Debug)]
struct Slot {
    id: IdentityId,
    /// Entries that say they are of it, dead ones too.
    entries: u64,
    /// Distinct blocks, and their bytes, that are found under it.
    blocks: u64,
    bytes: u64,
    cleared: bool,
}

/// A block that was found.
#[derive(Clone, Debug)]
pub(super) struct Hit {
    pub(super) place: Place,
    pub(super) listed: Listed,
    pub(super) source: Source,
}

/// Where its bytes are.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// Head and chunks.
    Memory(Bytes),
    /// In this pack.
    Stored(PackId),
}

/// The index.
#[derive(Debug)]
pub(super) struct Index {
    packs: Vec<Option<Box<Pack>>>,
    table: HashTable<Place>,
    slots: Vec<Option<Slot>>,
    identities: HashMap<IdentityId, u16>,
    secret: (u64, u64),
    ticks: u64,
    entries: u64,
    blocks: u64,
    bytes: u64,
    /// Packs that are known, and bytes of this node's among them in the bucket.
    known: u64,
    own_bytes: u64,
}

impl Index {
    pub(super) fn new() -> Self {
        let draw = || RandomState::new().build_hasher().finish();
        Self {
            packs: Vec::new(),
            table: HashTable::new(),
            slots: Vec::new(),
            identities: HashMap::new(),
            secret: (draw(), draw()),
            ticks: 0,
            entries: 0,
            blocks: 0,
            bytes: 0,
            known: 0,
            own_bytes: 0,
        }
    }

    /// Distinct blocks, and their bytes.
    pub(super) fn totals(&self) -> (u64, u64) {
        (self.blocks, self.bytes)
    }

    /// What the index takes, bytes.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.entries * ENTRY_MEMORY_BYTES
            + self.table.len() as u64 * PLACE_MEMORY_BYTES
            + self.known * PACK_MEMORY_BYTES
            + self.packs.len() as u64 * 8
    }

    /// What so many more entries would take.
    pub(super) fn memory_of(entries: usize) -> u64 {
        entries as u64 * (ENTRY_MEMORY_BYTES + PLACE_MEMORY_BYTES)
    }

    pub(super) fn add(&mut self, mut pack: Pack) -> Serial {
        self.ticks += 1;
        pack.used = self.ticks;
        self.known += 1;
        self.own_bytes += if pack.ours { pack.size } else { 0 };
        self.packs.push(Some(Box::new(pack)));
        u32::try_from(self.packs.len() - 1).expect("fewer packs in the life of a process")
    }

    pub(super) fn pack(&self, serial: Serial) -> Option<&Pack> {
        self.packs.get(serial as usize)?.as_deref()
    }

    pub(super) fn pack_mut(&mut self, serial: Serial) -> Option<&mut Pack> {
        self.packs.get_mut(serial as usize)?.as_deref_mut()
    }

    /// All packs, oldest first.
    pub(super) fn packs(&self) -> impl Iterator<Item = (Serial, &Pack)> {
        let packs = self.packs.iter().enumerate();
        packs.filter_map(|(serial, pack)| Some((serial as Serial, pack.as_deref()?)))
    }

    /// Adds a block to a pack; false when the pack is gone or there are too many identities.
    pub(super) fn push(&mut self, serial: Serial, listed: &Listed, image: Option<Bytes>) -> bool {
        let Some(slot) = self.slot(listed.name.identity) else { return false };
        let Some(pack) = self.packs.get_mut(serial as usize).and_then(Option::as_deref_mut) else {
            return false;
        };
        let place = Place { pack: serial, entry: pack.entries.len() as u32 };
        pack.entries.push(Entry::new(listed, slot));
        pack.live += 1;
        pack.live_stored_bytes += listed.stored;
        if let (Body::Memory(images), Some(image)) = (&mut pack.body, image) {
            images.push(image);
        }
        self.entries += 1;
        self.slots[usize::from(slot)].as_mut().expect("a slot in use").entries += 1;
        if self.find_place(slot, listed.name.key, None).is_none() {
            self.count(place, slot);
        }
        let (secret, packs) = (self.secret, &self.packs);
        let hash = hash(secret, slot, listed.name.key);
        self.table.insert_unique(hash, place, |place| {
            let entry = entry_of(packs, *place).expect("a place in the table is in use");
            self::hash(secret, entry.identity, entry.key)
        });
        true
    }

    /// The best place of a block whose time is not over, if it is known.
    pub(super) fn find(&self, name: &Name, now: Wall) -> Option<Hit> {
        let slot = *self.identities.get(&name.identity)?;
        let place = self.find_place(slot, name.key, Some(now))?;
        let pack = self.pack(place.pack)?;
        let entry = &pack.entries[place.entry as usize];
        let source = match &pack.body {
            Body::Memory(images) => Source::Memory(images[place.entry as usize].clone()),
            Body::Stored(id) => Source::Stored(*id),
        };
        Some(Hit { place, listed: entry.listed(name.identity), source })
    }

    /// What [`find`](Self::find) would tell, without where it is.
    pub(super) fn found(&self, name: &Name, now: Wall) -> Option<Found> {
        let slot = *self.identities.get(&name.identity)?;
        let place = self.find_place(slot, name.key, Some(now))?;
        Some(entry_of(&self.packs, place)?.found())
    }

    /// Notes that a block was of use.
    pub(super) fn used(&mut self, place: Place) {
        self.ticks += 1;
        let tick = self.ticks;
        if let Some(pack) = self.pack_mut(place.pack) {
            pack.used = tick;
            pack.entries[place.entry as usize].hit();
        }
    }

    /// Notes that a block that follows this one was stored.
    pub(super) fn has_child(&mut self, name: &Name) {
        let Some(slot) = self.identities.get(&name.identity).copied() else { return };
        if let Some(place) = self.find_place(slot, name.key, None)
            && let Some(pack) = self.pack_mut(place.pack)
        {
            pack.entries[place.entry as usize].has_child();
        }
    }

    /// Whether a place is one where its block can be found: it was not removed, cleared or replaced, and its
    /// pack is there.
    pub(super) fn has(&self, place: Place) -> bool {
        entry_of(&self.packs, place).is_some_and(|entry| {
            let slot = self.slots[usize::from(entry.identity)].as_ref();
            entry.is_live() && slot.is_some_and(|slot| !slot.cleared)
        })
    }

    /// Gives half of the hits of a place to the newest place of the same block.
    pub(super) fn inherit(&mut self, from: Place, to: Serial) {
        let Some(hits) = entry_of(&self.packs, from).map(Entry::hits) else { return };
        if let Some(entry) = self.pack_mut(to).and_then(|pack| pack.entries.last_mut()) {
            entry.set_hits(hits / 2);
        }
    }

    /// Forgets a block wherever it is; the packs of this node that had it.
    pub(super) fn remove(&mut self, name: &Name) -> Vec<Serial> {
        let Some(slot) = self.identities.get(&name.identity).copied() else { return Vec::new() };
        let mut ours = Vec::new();
        while let Some(place) = self.find_place(slot, name.key, None) {
            self.forget(place);
            if self.pack(place.pack).is_some_and(|pack| pack.ours) {
                ours.push(place.pack);
            }
        }
        ours
    }

    /// Forgets what is at one place.
    pub(super) fn forget(&mut self, place: Place) {
        let Some(entry) = entry_of(&self.packs, place).copied().filter(Entry::is_live) else {
            return;
        };
        let hash = hash(self.secret, entry.identity, entry.key);
        let found = self.table.find_entry(hash, |other| *other == place);
        if let Ok(found) = found {
            found.remove();
        }
        let pack = self.pack_mut(place.pack).expect("it has the entry");
        pack.entries[place.entry as usize].kill();
        pack.live -= 1;
        pack.live_stored_bytes -= entry.stored;
        let slot = self.slots[usize::from(entry.identity)].as_mut().expect("a slot in use");
        if !entry.is_counted() || slot.cleared {
            return;
        }
        slot.blocks -= 1;
        slot.bytes -= entry.len;
        self.blocks -= 1;
        self.bytes -= entry.len;
        if let Some(other) = self.find_place(entry.identity, entry.key, None) {
            self.count(other, entry.identity);
        }
    }

    /// Counts a block at this place; at another of its places it is not.
    fn count(&mut self, place: Place, slot: u16) {
        let pack = self.packs[place.pack as usize].as_deref_mut().expect("a pack in use");
        let entry = &mut pack.entries[place.entry as usize];
        entry.count();
        let slot = self.slots[usize::from(slot)].as_mut().expect("a slot in use");
        slot.blocks += 1;
        slot.bytes += entry.len;
        self.blocks += 1;
        self.bytes += entry.len;
    }

    /// Forgets all blocks of an identity, at once; [`sweep`](Self::sweep) takes what is left of them
    /// away.
    pub(super) fn clear(&mut self, identity: IdentityId) {
        let Some(slot) = self.identities.remove(&identity) else { return };
        let slot = self.slots[usize::from(slot)].as_mut().expect("a slot in use");
        slot.cleared = true;
        self.blocks -= slot.blocks;
        self.bytes -= slot.bytes;
    }

    /// True when an identity was cleared, and not all that is left of it was swept away.
    pub(super) fn has_cleared(&self) -> bool {
        self.slots.iter().flatten().any(|slot| slot.cleared)
    }

    /// Kills entries of a pack that nobody will find any more: expired, or of cleared identities; whether
    /// there were any of these.
    pub(super) fn sweep(&mut self, serial: Serial, now: Wall) -> bool {
        let Some(pack) = self.pack(serial) else { return false };
        let cleared = |entry: &Entry| {
            self.slots[usize::from(entry.identity)].as_ref().is_some_and(|slot| slot.cleared)
        };
        let over = |entry: &Entry| entry.is_live() && (cleared(entry) || entry.is_over(now));
        let dead: Vec<u32> =
            (0..).zip(&pack.entries).filter(|(_, e)| over(e)).map(|(n, _)| n).collect();
        let any_cleared = dead.iter().any(|entry| cleared(&pack.entries[*entry as usize]));
        for entry in dead {
            self.forget(Place { pack: serial, entry });
        }
        any_cleared
    }

    /// Forgets a pack and all its blocks; how many of them there were.
    pub(super) fn drop_pack(&mut self, serial: Serial) -> u64 {
        let Some(count) = self.pack(serial).map(|pack| pack.entries.len() as u32) else { return 0 };
        let live = u64::from(self.pack(serial).map_or(0, Pack::live));
        for entry in 0..count {
            self.forget(Place { pack: serial, entry });
        }
        let pack = self.packs[serial as usize].take().expect("it was there");
        self.known -= 1;
        self.own_bytes -= if pack.ours { pack.size } else { 0 };
        self.entries -= u64::from(count);
        for entry in &pack.entries {
            self.leave(entry.identity);
        }
        live
    }

    /// Bytes of this node's packs in the bucket.
    pub(super) fn own_bytes(&self) -> u64 {
        self.own_bytes
    }

    /// The pack is in the bucket now.
    pub(super) fn stored(&mut self, serial: Serial, id: PackId, size: u64) {
        let Some(pack) = self.packs.get_mut(serial as usize).and_then(Option::as_deref_mut) else {
            return;
        };
        pack.body = Body::Stored(id);
        let before = std::mem::replace(&mut pack.size, size);
        if pack.ours {
            self.own_bytes = self.own_bytes - before + size;
        }
    }

    /// Where a block is: the place where it lives longest, of several the first that came. Without
    /// `now`, whether or not its time is over.
    fn find_place(&self, slot: u16, key: Key, now: Option<Wall>) -> Option<Place> {
        let mut best: Option<(Place, &Entry)> = None;
        for place in self.table.iter_hash(hash(self.secret, slot, key)) {
            let Some(entry) = entry_of(&self.packs, *place) else { continue };
            let alive = entry.identity == slot
                && entry.key == key
                && !now.is_some_and(|now| entry.is_over(now));
            if alive && best.is_none_or(|(at, best)| better(*place, entry, at, best)) {
                best = Some((*place, entry));
            }
        }
        best.map(|(place, _)| place)
    }

    fn slot(&mut self, id: IdentityId) -> Option<u16> {
        if let Some(slot) = self.identities.get(&id) {
            return Some(*slot);
        }
        let new = Some(Slot { id, entries: 0, blocks: 0, bytes: 0, cleared: false });
        let free = self.slots.iter().position(Option::is_none);
        let at = match free {
            Some(at) => {
                self.slots[at] = new;
                at
            }
            None if self.slots.len() < IDENTITIES_MAX => {
                self.slots.push(new);
                self.slots.len() - 1
            }
            None => return None,
        };
        self.identities.insert(id, at as u16);
        Some(at as u16)
    }

    /// An entry of it is gone for good.
    fn leave(&mut self, slot: u16) {
        let found = &mut self.slots[usize::from(slot)];
        let Some(there) = found.as_mut() else { return };
        there.entries -= 1;
        if there.entries == 0 {
            if !there.cleared {
                self.identities.remove(&there.id);
            }
            *found = None;
        }
    }
}

fn better(place: Place, entry: &Entry, than_at: Place, than: &Entry) -> bool {
    let order = |place: Place, entry: &Entry| {
        (entry.expires_or_never(), std::cmp::Reverse((place.pack, place.entry)))
    };
    order(place, entry) > order(than_at, than)
}

fn entry_of(packs: &[Option<Box<Pack>>], place: Place) -> Option<&Entry> {
    packs.get(place.pack as usize)?.as_deref()?.entries.get(place.entry as usize)
}

/// Keys are hashes already, but an engine may bring hostile ones: folded with a secret, as the
/// catalog does.
fn hash((a, b): (u64, u64), slot: u16, key: Key) -> u64 {
    let (low, high) = key.words();
    let wide = u128::from(low ^ a) * u128::from((high ^ b).wrapping_add(u64::from(slot) << 48 | 1));
    wide as u64 ^ (wide >> 64) as u64
}
