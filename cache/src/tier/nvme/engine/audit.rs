//! The invariants of the bookkeeping, checked the slow and plain way.

use std::collections::{HashMap, HashSet};

use super::Engine;
use super::frames::Origin;
use crate::tier::nvme::format::record::pages;
use crate::tier::nvme::segments::State;

/// Fails with a message unless the condition holds.
macro_rules! ensure {
    ($holds:expr, $($told:tt)+) => {
        if !$holds {
            return Err(format!($($told)+));
        }
    };
}

impl Engine {
    /// Recounts everything; O(blocks).
    ///
    /// # Errors
    /// What is not as it should be.
    pub fn audit(&self) -> Result<(), String> {
        self.segments.audit()?;
        let index = self.desk.index.lock();
        index.audit()?;
        let mut counted: HashMap<u32, (u32, u32)> = HashMap::new();
        let mut places = Vec::new();
        for known in (0..index.slots()).filter_map(|slot| index.inside(slot)) {
            let (segment, page) = self.layout.split(known.place.page);
            let pages = pages(known.found.len);
            let count = counted.entry(segment).or_default();
            *count = (count.0 + 1, count.1 + pages);
            ensure!(page + pages <= self.layout.segment_pages, "a block leaves its segment");
            ensure!(u32::from(known.place.head) <= page, "a header is outside of its segment");
            places.push((known.place.page, pages));
        }
        drop(index);
        places.sort_unstable();
        for pair in places.windows(2) {
            ensure!(pair[0].0 + pair[0].1 <= pair[1].0, "blocks overlap: {pair:?}");
        }
        for (number, segment) in self.segments.iter() {
            let real = counted.get(&number).copied().unwrap_or_default();
            let said = (segment.blocks, segment.pages);
            ensure!(real == said, "segment {number} has {real:?} blocks and pages, not {said:?}");
            for page in &segment.dead {
                let page = self.layout.page(number, u32::from(*page));
                let found = places.binary_search_by_key(&page, |(page, _)| *page);
                ensure!(found.is_err(), "a block at page {page} is dead, as the log says");
            }
        }
        self.audit_frames()?;
        self.audit_rest()
    }

    /// The later place in the log is the later version, also after a crash: no old version follows one
    /// that is newer.
    fn audit_frames(&self) -> Result<(), String> {
        let mut stored = HashSet::new();
        let frames = self.frames.queue.iter().filter(|frame| !frame.applied);
        for block in frames.flat_map(|frame| &frame.blocks) {
            let name = block.record.name();
            match block.origin {
                Origin::Store { .. } | Origin::Answered => _ = stored.insert(name),
                Origin::Moved { .. } => {
                    ensure!(
                        !stored.contains(&name),
                        "{name:?} is written again behind a newer one"
                    );
                }
            }
        }
        Ok(())
    }

    /// What is lent comes from somebody, and nothing is left behind when nothing is under way.
    fn audit_rest(&self) -> Result<(), String> {
        let open = self.segments.iter().filter(|(_, some)| some.state == State::Open).count();
        ensure!(open == usize::from(self.frames.is_open()), "{open} segments are open");
        let idle = self.device.in_flight() == 0
            && self.writes.is_empty()
            && self.loads.is_empty()
            && !self.reclaim.is_busy()
            && self.settling.is_idle()
            && self.frames.queue.iter().all(|frame| frame.applied && frame.waiting.is_empty());
        if idle {
            let lent = [self.meta.lent(), self.bounce.lent(), self.moved.lent()];
            ensure!(lent == [0; 3], "nothing is under way, but {lent:?} pieces are lent");
            let left = self.desk.in_hand();
            ensure!(left == 0, "nothing is under way, but {left} jobs are not answered");
            let states = self.segments.iter().filter(|(_, some)| some.state == State::Leaving);
            let lost = states.count();
            ensure!(lost == 0 || self.refuses_writes().is_some(), "{lost} segments are lost");
        }
        Ok(())
    }
}
