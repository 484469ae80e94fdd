//! Blocks that are known: resident ones, and a bounded number of ghosts that are wanted or were here.

use hashbrown::HashTable;

use super::life::RowId;
use crate::policy::{BlockId, spread};

/// Ghosts for each resident block, and at least so many.
const GHOSTS_PER_BLOCK: usize = 2;
const GHOSTS_MIN: usize = 1 << 16;

/// Index of a known block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At(u32);

const NONE: u32 = u32::MAX;

/// What is remembered of a block, resident or not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// Key and scope in 64 bits.
    pub(super) name: u64,
    /// The block that followed it last, if any did.
    pub(super) child: u64,
    /// Last use, milliseconds.
    pub(super) last_ms: u64,
    /// Class at the last use.
    pub(super) row: RowId,
    pub(super) uses: u16,
    /// Times that the chain it belongs to has gone on.
    pub(super) turns: u16,
    /// Mean gap between uses of its chain, later gaps count more.
    pub(super) gap: Gap,
    /// How often the block that follows it was another one than before.
    pub(super) ways: u8,
    /// A lookup counted this use; the lease or commit that comes of it does not.
    pub(super) announced: bool,
    resident: Option<BlockId>,
    /// Neighbours in the line of ghosts, while it is one.
    older: u32,
    newer: u32,
}

/// A mean of gaps as a logarithm: 256ths of octaves of milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Gap(u16);

impl Gap {
    const FRACTION_BITS: u32 = 8;
    /// A gap counts at least so much, as a divisor, however many there were.
    const MEMORY: u32 = 16;

    /// The mean with one more gap, the `nth` counted from 1.
    pub(super) fn and(self, gap_ms: u64, nth: u16) -> Self {
        let value = gap_ms + 1;
        let octave = 63 - value.leading_zeros();
        let fraction = ((value << (63 - octave)) << 1) >> (64 - Self::FRACTION_BITS);
        let new = (octave << Self::FRACTION_BITS) as i32 + fraction as i32;
        let old = i32::from(self.0);
        let weight = u32::from(nth).clamp(1, Self::MEMORY) as i32;
        Self((old + (new - old) / weight) as u16)
    }

    /// Octaves of milliseconds, rounded down.
    pub(super) const fn octave(self) -> usize {
        (self.0 >> Self::FRACTION_BITS) as usize
    }
}

/// The known blocks.
#[derive(Debug, Default)]
pub(super) struct Table {
    blocks: Vec<Known>,
    vacant: Vec<u32>,
    names: HashTable<u32>,
    resident: usize,
    oldest: u32,
    newest: u32,
    ghosts: usize,
}

impl Table {
    pub(super) fn new() -> Self {
        Self { oldest: NONE, newest: NONE, ..Self::default() }
    }

    pub(super) fn find(&self, name: u64) -> Option<At> {
        let same = |at: &u32| self.blocks[*at as usize].name == name;
        self.names.find(spread(name), same).map(|at| At(*at))
    }

    /// Takes in a block that is not known, as a ghost.
    pub(super) fn meet(&mut self, name: u64, now_ms: u64, row: RowId) -> At {
        let known = Known {
            name,
            child: 0,
            last_ms: now_ms,
            row,
            uses: 0,
            turns: 0,
            gap: Gap::default(),
            ways: 0,
            announced: false,
            resident: None,
            older: NONE,
            newer: NONE,
        };
        let at = match self.vacant.pop() {
            Some(at) => {
                self.blocks[at as usize] = known;
                at
            }
            None => {
                self.blocks.push(known);
                self.blocks.len() as u32 - 1
            }
        };
        let blocks = &self.blocks;
        self.names.insert_unique(spread(name), at, |at| spread(blocks[*at as usize].name));
        self.queue(at);
        At(at)
    }

    pub(super) fn settle(&mut self, at: At, id: BlockId) {
        if self.blocks[at.0 as usize].resident.replace(id).is_none() {
            self.unqueue(at.0);
            self.resident += 1;
        }
    }

    /// The block is no longer resident.
    pub(super) fn leave(&mut self, at: At) {
        if self.blocks[at.0 as usize].resident.take().is_some() {
            self.resident -= 1;
            self.queue(at.0);
        }
    }

    /// A ghost was wanted: it is the last to be forgotten.
    pub(super) fn renew(&mut self, at: At) {
        if self.blocks[at.0 as usize].resident.is_none() {
            self.unqueue(at.0);
            self.queue(at.0);
        }
    }

    /// Takes a block out for good.
    pub(super) fn forget(&mut self, at: At) {
        let Known { name, resident, .. } = self.blocks[at.0 as usize];
        match resident {
            Some(_) => self.resident -= 1,
            None => self.unqueue(at.0),
        }
        if let Ok(entry) = self.names.find_entry(spread(name), |other| *other == at.0) {
            entry.remove();
        }
        self.blocks[at.0 as usize].name = 0;
        self.blocks[at.0 as usize].announced = true;
        self.blocks[at.0 as usize].uses = 0;
        self.vacant.push(at.0);
    }

    /// The ghost to be forgotten, if there are too many.
    pub(super) fn surplus(&self) -> Option<At> {
        let most = (self.resident * GHOSTS_PER_BLOCK).max(GHOSTS_MIN);
        (self.ghosts > most).then_some(At(self.oldest))
    }

    /// The block at a place below [`places`](Self::places), unless there is none.
    pub(super) fn place(&self, index: usize) -> Option<&Known> {
        self.blocks.get(index).filter(|known| known.uses > 0)
    }

    pub(super) fn places(&self) -> usize {
        self.blocks.len()
    }

    fn queue(&mut self, at: u32) {
        let newest = std::mem::replace(&mut self.newest, at);
        let known = &mut self.blocks[at as usize];
        (known.older, known.newer) = (newest, NONE);
        match newest {
            NONE => self.oldest = at,
            newest => self.blocks[newest as usize].newer = at,
        }
        self.ghosts += 1;
    }

    fn unqueue(&mut self, at: u32) {
        let Known { older, newer, .. } = self.blocks[at as usize];
        match older {
            NONE => self.oldest = newer,
            older => self.blocks[older as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.blocks[newer as usize].older = older,
        }
        self.ghosts -= 1;
    }
}

impl std::ops::Index<At> for Table {
    type Output = Known;
    fn index(&self, at: At) -> &Known {
        &self.blocks[at.0 as usize]
    }
}

impl std::ops::IndexMut<At> for Table {
    fn index_mut(&mut self, at: At) -> &mut Known {
        &mut self.blocks[at.0 as usize]
    }
}

impl Known {
    pub(super) const fn resident(&self) -> Option<BlockId> {
        self.resident
    }

    pub(super) const fn age_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.last_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ghosts_are_bounded_and_the_oldest_is_forgotten() {
        let mut table = Table::new();
        for name in 1..=GHOSTS_MIN as u64 + 10 {
            let at = table.meet(name, 0, RowId::default());
            table[at].uses = 1;
            if name == 1 {
                table.settle(at, BlockId(0));
            }
        }
        let two = table.find(2).unwrap();
        table.renew(two);
        let mut forgotten = Vec::new();
        while let Some(at) = table.surplus() {
            forgotten.push(table[at].name);
            table.forget(at);
        }
        assert_eq!(forgotten, [3, 4, 5, 6, 7, 8, 9, 10, 11]);
        assert!(table.find(1).is_some() && table.find(2).is_some() && table.find(3).is_none());
        let one = table.find(1).unwrap();
        table.leave(one);
        assert_eq!(table.surplus().map(|at| table[at].name), Some(12));
        let places = table.places();
        let new = table.meet(9_999_999, 0, RowId::default());
        assert_eq!((table.places(), table[new].uses), (places, 0), "places are used again");
    }

    #[test]
    fn gaps_are_averaged() {
        let gap = Gap::default().and(1_023, 1);
        assert_eq!(gap.octave(), 10);
        let mut gap = gap;
        for nth in 2..40 {
            gap = gap.and((1 << 14) - 1, nth);
        }
        assert!((13..=14).contains(&gap.octave()), "{gap:?}");
        assert!(Gap::default().and(u64::MAX - 1, 1).octave() <= 63);
    }

    #[test]
    fn a_known_block_is_small() {
        assert!(size_of::<Known>() <= 56, "{}", size_of::<Known>());
    }
}
