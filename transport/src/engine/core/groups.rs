//! Where the ends of operations go: one hold on those that started together, for all of them.

use slab::Slab;

use crate::completion::{Completion, End, Ends};

/// The end of an operation: which group, and which of it.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::engine) struct Place {
    group: u32,
    at: u32,
}

/// Ends that are still to be written. Each place is given back once.
#[derive(Default)]
pub(super) struct Groups(Slab<Group>);

struct Group {
    ends: Ends,
    /// Places that were not given back.
    places: usize,
}

impl Groups {
    /// Whether no end is still to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A place for one.
    pub(super) fn one(&mut self, end: End) -> Place {
        let (ends, at) = end.into_parts();
        Place { group: self.0.insert(Group { ends, places: 1 }) as u32, at }
    }

    /// Holds many, until given back as a place itself.
    pub(super) fn many(&mut self, ends: &Ends) -> Place {
        Place { group: self.0.insert(Group { ends: ends.clone(), places: 1 }) as u32, at: 0 }
    }

    /// A place for one of many.
    #[inline]
    pub(super) fn of(&mut self, many: Place, at: usize) -> Place {
        let group = &mut self.0[many.group as usize];
        debug_assert!(at < group.ends.len(), "one of these");
        group.places += 1;
        Place { group: many.group, at: at as u32 }
    }

    /// The end there, to be held on its own.
    pub(super) fn end(&self, place: Place) -> End {
        self.0[place.group as usize].ends.end(place.at as usize)
    }

    #[inline]
    pub(super) fn get(&self, place: Place) -> &Completion {
        let Place { group, at } = place;
        &self.0[group as usize].ends[at as usize]
    }

    #[inline]
    pub(super) fn give_back(&mut self, place: Place) {
        let group = &mut self.0[place.group as usize];
        group.places -= 1;
        if group.places == 0 {
            self.0.remove(place.group as usize);
        }
    }
}
