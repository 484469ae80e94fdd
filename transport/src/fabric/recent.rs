//! A map for what is mostly looked for again.

use std::cell::Cell;
use std::fmt;
use std::hash::Hash;

use hashbrown::HashMap;
use slab::Slab;

/// A map that finds what was found last without a search: transfers that follow each other mostly go
/// the same way.
pub(super) struct Recent<K, V> {
    slots: Slab<(K, V)>,
    places: HashMap<K, u32>,
    last: Cell<u32>,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self { slots: Slab::new(), places: HashMap::new(), last: Cell::new(0) }
    }
}

impl<K: Copy + Eq + Hash, V> Recent<K, V> {
    #[inline]
    fn place(&self, key: K) -> Option<usize> {
        let last = self.last.get() as usize;
        if self.slots.get(last).is_some_and(|(it, _)| *it == key) {
            return Some(last);
        }
        let place = *self.places.get(&key)?;
        self.last.set(place);
        Some(place as usize)
    }

    #[inline]
    pub(super) fn get(&self, key: K) -> Option<&V> {
        self.place(key).map(|place| &self.slots[place].1)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        self.place(key).map(|place| &mut self.slots[place].1)
    }

    /// Puts one in, in the place of the one that is there.
    pub(super) fn insert(&mut self, key: K, value: V) {
        if let Some(there) = self.get_mut(key) {
            *there = value;
        } else {
            let place = self.slots.insert((key, value));
            self.places.insert(key, u32::try_from(place).expect("fewer than 2^32"));
        }
    }

    pub(super) fn remove(&mut self, key: K) -> Option<V> {
        let place = self.places.remove(&key)?;
        Some(self.slots.remove(place as usize).1)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.slots.clear();
        self.places.clear();
    }

    /// All, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.slots.iter().map(|(_, (key, value))| (*key, value))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.slots.iter_mut().map(|(_, (_, value))| value)
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Recent<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.slots.iter().map(|(_, (key, value))| (key, value))).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((0u8..4, 0u16..8), 0..200)) {
            let (mut map, mut model) = (Recent::default(), BTreeMap::new());
            for (at, (step, key)) in steps.into_iter().enumerate() {
                match step {
                    0 => {
                        map.insert(key, at);
                        model.insert(key, at);
                    }
                    1 => prop_assert_eq!(map.remove(key), model.remove(&key)),
                    2 => prop_assert_eq!(map.get_mut(key), model.get_mut(&key)),
                    _ => prop_assert_eq!(map.get(key), model.get(&key)),
                }
                let mut all: Vec<_> = map.iter().map(|(key, value)| (key, *value)).collect();
                all.sort_unstable();
                let wanted: Vec<_> = model.iter().map(|(key, value)| (*key, *value)).collect();
                prop_assert_eq!(all, wanted);
                prop_assert_eq!(map.is_empty(), model.is_empty());
            }
        }
    }
}
