//! Names of blocks that are gone, first in first out.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use super::spread;

/// A bounded set of names; the oldest goes when it is full.
#[derive(Debug, Default)]
pub(super) struct Ghosts {
    order: VecDeque<u64>,
    names: HashSet<u64, Plain>,
}

impl Ghosts {
    /// Remembers a name, and at most `max` of them.
    pub(super) fn remember(&mut self, name: u64, max: usize) {
        if self.names.insert(name) {
            self.order.push_back(name);
        }
        while self.order.len() > max {
            let oldest = self.order.pop_front().expect("it is longer than that");
            self.names.remove(&oldest);
        }
    }

    /// Whether the name is remembered. It stays in line, so that memory stays bounded by the line.
    pub(super) fn knows(&self, name: u64) -> bool {
        self.names.contains(&name)
    }
}

/// Names are hashes already; one multiplication spreads what an engine's own keys may lack.
pub(super) type Plain = BuildHasherDefault<Spread>;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = spread(self.0 ^ value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_name_is_forgotten() {
        let mut ghosts = Ghosts::default();
        for name in [1, 2, 1, 3] {
            ghosts.remember(name, 2);
        }
        assert!(!ghosts.knows(1) && ghosts.knows(2) && ghosts.knows(3));
        ghosts.remember(4, 0);
        assert!(!ghosts.knows(4));
    }
}
