//! Places that are used again and again, and by whom.

/// One use of a place: which one, and the number of the use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At {
    index: u32,
    serial: u32,
}

impl At {
    pub(crate) fn pack(self) -> u64 {
        u64::from(self.serial) << 32 | u64::from(self.index)
    }

    pub(crate) fn unpack(word: u64) -> Self {
        Self { index: word as u32, serial: (word >> 32) as u32 }
    }
}

/// Places for things that come and go often. They are filled where they are: what is made elsewhere
/// and then moved is written twice, and waited for in between.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    all: Vec<Slot<T>>,
    free: Vec<u32>,
    /// The number of the last use of all.
    ever: u32,
}

#[derive(Debug)]
struct Slot<T> {
    serial: u32,
    used: bool,
    it: T,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { all: Vec::new(), free: Vec::new(), ever: 0 }
    }
}

impl<T> Slots<T> {
    /// How many are in use.
    pub(crate) fn len(&self) -> usize {
        self.all.len() - self.free.len()
    }

    #[inline]
    pub(crate) fn get(&self, at: At) -> Option<&T> {
        let slot = self.all.get(at.index as usize)?;
        (slot.used && slot.serial == at.serial).then_some(&slot.it)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, at: At) -> Option<&mut T> {
        let slot = self.all.get_mut(at.index as usize)?;
        (slot.used && slot.serial == at.serial).then_some(&mut slot.it)
    }

    /// What the next use is going to be.
    #[inline]
    pub(crate) fn next(&self) -> At {
        let index = self.free.last().map_or(self.all.len(), |it| *it as usize);
        At { index: index as u32, serial: self.ever.wrapping_add(1) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends a use; whether it had not ended before. What is there stays, for the next one to fill.
    #[inline]
    pub(crate) fn free(&mut self, at: At) -> bool {
        let Some(slot) = self.all.get_mut(at.index as usize) else { return false };
        let used = slot.serial == at.serial && std::mem::take(&mut slot.used);
        if used {
            self.free.push(at.index);
        }
        used
    }

    /// All that are in use.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (At, &T)> {
        let used = self.all.iter().enumerate().filter(|(_, slot)| slot.used);
        used.map(|(index, slot)| (At { index: index as u32, serial: slot.serial }, &slot.it))
    }
}

impl<T: Default> Slots<T> {
    /// A place and what its last use has left there.
    #[inline]
    pub(crate) fn take(&mut self) -> (At, &mut T) {
        self.ever = self.ever.wrapping_add(1);
        let index = self.free.pop().unwrap_or_else(|| {
            self.all.push(Slot { serial: 0, used: false, it: T::default() });
            u32::try_from(self.all.len() - 1).expect("fewer than 2^32 at once")
        });
        let slot = &mut self.all[index as usize];
        (slot.serial, slot.used) = (self.ever, true);
        (At { index, serial: self.ever }, &mut slot.it)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_that_ended_is_nothing() {
        let mut slots = Slots::default();
        let (first, it) = slots.take();
        *it = 1;
        let (second, it) = slots.take();
        *it = 2;
        assert!(slots.free(first) && !slots.free(first));
        assert_eq!((slots.get(first), slots.get(second), slots.len()), (None, Some(&2), 1));
        let next = slots.next();
        let (third, it) = slots.take();
        assert_eq!(third, next);
        assert_eq!(*it, 1, "what was left there");
        *it = 3;
        assert_eq!((slots.get(first), slots.get(third)), (None, Some(&3)));
        assert!(!slots.free(first), "another has the place");
        let all: Vec<_> = slots.iter().map(|(at, it)| (At::unpack(at.pack()), *it)).collect();
        assert_eq!(all, [(third, 3), (second, 2)]);
    }
}
