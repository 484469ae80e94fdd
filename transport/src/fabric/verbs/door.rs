//! A way past everything but the hardware, for tests of what that refuses by itself.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A place in a peer's memory, and the hardware's key to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Where.
    pub address: u64,
    /// What opens it.
    pub key: u32,
}

/// Shows where an engine writes, and writes without asking anybody. Clones are the same door.
#[derive(Debug, Clone, Default)]
pub struct Door(Arc<Mutex<Inside>>);

#[derive(Debug, Default)]
struct Inside {
    seen: Option<Place>,
    wanted: VecDeque<(Place, u64)>,
}

impl Door {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the engine last wrote payload.
    #[must_use]
    pub fn seen(&self) -> Option<Place> {
        self.inside().seen
    }

    /// Writes a word there, by the bulk lane of some channel that works.
    pub fn write(&self, place: Place, word: u64) {
        self.inside().wanted.push_back((place, word));
    }

    /// How many words were not written yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.inside().wanted.len()
    }

    pub(super) fn see(&self, place: Place) {
        self.inside().seen = Some(place);
    }

    pub(super) fn take(&self) -> Option<(Place, u64)> {
        self.inside().wanted.pop_front()
    }
}
