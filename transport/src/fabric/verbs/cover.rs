//! Which registration covers a range of memory.

use std::collections::BTreeMap;
use std::ops::Range;

/// Ranges of which none lies in another, each with what is known of it. Both their starts and their
/// ends are in order then, so that the only one that can cover a range is the last that does not start
/// behind it.
#[derive(Debug)]
pub(super) struct Cover<T> {
    /// By start: the end, and what is known.
    ranges: BTreeMap<usize, (usize, T)>,
}

impl<T> Default for Cover<T> {
    fn default() -> Self {
        Self { ranges: BTreeMap::new() }
    }
}

impl<T> Cover<T> {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The range that covers this one whole.
    pub(super) fn find(&self, range: &Range<usize>) -> Option<&T> {
        let (_, (end, it)) = self.ranges.range(..=range.start).next_back()?;
        (*end >= range.end).then_some(it)
    }

    /// One more range. Those that lie in it are forgotten: it covers what they do. One that lies in
    /// another itself is not taken.
    pub(super) fn insert(&mut self, range: Range<usize>, it: T) {
        if self.find(&range).is_some() {
            return;
        }
        let inside = self.ranges.range(range.start..range.end);
        let inside = inside.filter(|(_, (end, _))| *end <= range.end);
        let inside: Vec<usize> = inside.map(|(start, _)| *start).collect();
        inside.iter().for_each(|start| drop(self.ranges.remove(start)));
        self.ranges.insert(range.start, (range.end, it));
    }

    /// The range that starts there is covered no more, if it is this one.
    pub(super) fn remove(&mut self, start: usize, is_it: impl FnOnce(&T) -> bool) {
        if self.ranges.get(&start).is_some_and(|(_, it)| is_it(it)) {
            self.ranges.remove(&start);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What is found does cover, and something is found whenever a range that was put in and not
        /// taken out, nor forgotten for a longer one that was, does.
        #[test]
        fn what_is_found_covers(
            steps in prop::collection::vec((0usize..60, 1usize..30, 0u8..4), 1..80),
        ) {
            let mut cover = Cover::default();
            let mut there: Vec<(usize, Range<usize>)> = Vec::new();
            for (id, (start, len, step)) in steps.into_iter().enumerate() {
                let range = start..start + len;
                let covers = |it: &Range<usize>| it.start <= range.start && it.end >= range.end;
                let found = cover.find(&range).copied();
                let naive = there.iter().any(|(_, it)| covers(it));
                prop_assert_eq!(found.is_some(), naive);
                if let Some(found) = found {
                    prop_assert!(there.iter().any(|(id, it)| *id == found && covers(it)));
                }
                if step > 0 && !naive {
                    cover.insert(range.clone(), id);
                    there.retain(|(_, it)| it.start < range.start || it.end > range.end);
                    there.push((id, range));
                } else if let Some(at) = there.iter().position(|(_, it)| it.start >= start) {
                    let (id, range) = there.remove(at);
                    cover.remove(range.start, |it| *it == id);
                }
            }
        }
    }

    #[test]
    fn only_the_owner_takes_a_range_out() {
        let mut cover = Cover::default();
        cover.insert(0..100, 1);
        cover.insert(10..20, 2);
        cover.remove(0, |it| *it == 2);
        assert_eq!(cover.find(&(10..20)), Some(&1));
        cover.remove(0, |it| *it == 1);
        assert_eq!(cover.find(&(10..20)), None, "what was covered has no range of its own");
    }
}
