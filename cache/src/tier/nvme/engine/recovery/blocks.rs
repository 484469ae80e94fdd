//! Blocks that were found: what counts goes into the index.

use super::Scan;
use crate::tier::cold::{Found, Name};
use crate::tier::nvme::format::Entry;
use crate::tier::nvme::format::frame::REACH_PAGES;
use crate::tier::nvme::format::log::Note;
use crate::tier::nvme::format::record::CODEC_NONE;
use crate::tier::nvme::index::{Added, Place};
use crate::tier::nvme::segments::State;
use crate::time::Wall;

impl Scan {
    /// Puts what counts of a segment's blocks into the index.
    pub(super) fn take_in(
        &mut self,
        number: u32,
        seq: u64,
        opened: Wall,
        entries: &[Entry],
        state: State,
    ) {
        self.seq_max = self.seq_max.max(seq);
        let noted = self.noted.get(&number);
        let dead = noted.into_iter().flat_map(|noted| &noted.dead);
        let mut dead: Vec<u16> =
            dead.filter(|(life, _)| *life == seq).map(|(_, page)| *page).collect();
        dead.sort_unstable();
        dead.dedup();
        let segment = self.segments.get_mut(number);
        (segment.seq, segment.opened, segment.state) = (seq, opened, state);
        for entry in entries {
            if self.is_sound(entry) && dead.binary_search(&(entry.page as u16)).is_err() {
                self.take_block(number, seq, entry);
            }
        }
        self.segments.get_mut(number).dead = dead;
    }

    /// Whether the index can have the block, and anything could be read of it. One whose time is over
    /// counts too: it stands for older versions that must not come back.
    fn is_sound(&self, entry: &Entry) -> bool {
        let end = u64::from(entry.page) + u64::from(entry.pages());
        let reach = entry.page.checked_sub(entry.frame).is_some_and(|reach| reach <= REACH_PAGES);
        entry.codec == CODEC_NONE && end <= u64::from(self.layout.segment_pages) && reach
    }

    fn take_block(&mut self, number: u32, seq: u64, entry: &Entry) {
        let record = &entry.record;
        let name = record.name();
        let page = self.layout.page(number, entry.page);
        let place = Place { page, head: (entry.page - entry.frame) as u16 };
        let (len, checksum, expires) = (record.len, record.checksum, record.expires);
        let found = Found { len, checksum, expires, mark: entry.mark };
        match self.index.add(&name, place, &found) {
            None => return,
            Some(Added::New) => {}
            Some(Added::There(other)) => {
                // The later place in the log is the later version.
                let (segment, inside) = self.layout.split(other.place.page);
                let other_seq = self.segments.get(segment).seq;
                if (other_seq, inside) >= (seq, entry.page) {
                    let page = entry.page as u16;
                    self.stale.push(Note::Dead { segment: number, seq, page });
                    return;
                }
                let note = self.segments.sub(other.place.page, other.found.len);
                self.stale.push(note);
                self.index.replace(other.slot, place, &found);
            }
        }
        self.segments.add(page, len);
        if let Some(key) = record.link.parent
            && let Some(parent) = self.index.get(&Name { key, ..name })
        {
            self.index.mark(parent.slot, |mark| mark.parent = true);
        }
    }
}
