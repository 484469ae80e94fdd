//! Going through what is known: packs one by one, and all blocks.

use super::super::super::cold::{Found, Name};
use super::super::format::Listed;
use super::{Index, Place, Serial, entry_of, hash};
use crate::time::Wall;

impl Index {
    /// The blocks of a pack that can be found: what a manifest says of it.
    pub(in super::super) fn listed(&self, serial: Serial) -> Vec<Listed> {
        let Some(pack) = self.pack(serial) else { return Vec::new() };
        let live = pack.entries.iter().filter(|entry| entry.is_live());
        live.filter_map(|entry| {
            let slot = self.slots[usize::from(entry.identity)].as_ref()?;
            (!slot.cleared).then(|| entry.listed(slot.id))
        })
        .collect()
    }

    /// The blocks of a pack that can be found, and where they are.
    pub(in super::super) fn live_places(&self, serial: Serial) -> Vec<(Place, Listed)> {
        let Some(pack) = self.pack(serial) else { return Vec::new() };
        let live = (0..).zip(&pack.entries).filter(|(_, entry)| entry.is_live());
        live.filter_map(|(entry, there)| {
            let slot = self.slots[usize::from(there.identity)].as_ref()?;
            (!slot.cleared).then(|| (Place { pack: serial, entry }, there.listed(slot.id)))
        })
        .collect()
    }

    /// True when each block of a pack is in another pack of this node too, one that a manifest names.
    pub(in super::super) fn is_elsewhere(&self, serial: Serial) -> bool {
        let Some(pack) = self.pack(serial) else { return false };
        pack.entries.iter().filter(|entry| entry.is_live()).all(|entry| {
            let hash = hash(self.secret, entry.identity, entry.key);
            self.table.iter_hash(hash).any(|place| {
                let other = entry_of(&self.packs, *place);
                let same = other.is_some_and(|other| {
                    other.identity == entry.identity && other.key == entry.key
                });
                let named = self.pack(place.pack).is_some_and(|pack| pack.ours && pack.named > 0);
                place.pack != serial && same && named
            })
        })
    }

    /// Up to `max` entries from `from` on, those of them that are the ones to be found, and where to
    /// go on.
    pub(in super::super) fn visit(
        &self,
        from: u64,
        max: usize,
        now: Wall,
    ) -> (Vec<(Name, Found)>, Option<u64>) {
        let (mut serial, mut entry) = ((from >> 32) as usize, from as u32 as usize);
        let (mut found, mut left) = (Vec::new(), max);
        while serial < self.packs.len() {
            let Some(pack) = self.packs[serial].as_deref() else {
                (serial, entry) = (serial + 1, 0);
                continue;
            };
            while entry < pack.entries.len() {
                if left == 0 {
                    return (found, Some((serial as u64) << 32 | entry as u64));
                }
                left -= 1;
                let place = Place { pack: serial as Serial, entry: entry as u32 };
                found.extend(self.canonical(place, now));
                entry += 1;
            }
            (serial, entry) = (serial + 1, 0);
        }
        (found, None)
    }

    /// What is at a place, if that is where its block is found.
    fn canonical(&self, place: Place, now: Wall) -> Option<(Name, Found)> {
        let entry = entry_of(&self.packs, place).filter(|entry| entry.is_live())?;
        let slot = self.slots[usize::from(entry.identity)].as_ref().filter(|slot| !slot.cleared)?;
        let best = self.find_place(entry.identity, entry.key, Some(now));
        let name = Name { identity: slot.id, key: entry.key };
        (best == Some(place)).then(|| (name, entry.found()))
    }
}
