//! Segments without a summary: from header to header, to where the last whole frame ends.

use super::Scan;
use super::headers::{check_header, more_of_header};
use crate::tier::Span;
use crate::tier::nvme::disk::{Error, PAGE_BYTES};
use crate::tier::nvme::engine::frames::Closed;
use crate::tier::nvme::engine::open::OpenError;
use crate::tier::nvme::engine::scan::{Port, Want, to_vec};
use crate::tier::nvme::format::frame::Header;
use crate::tier::nvme::format::record::CODEC_NONE;
use crate::tier::nvme::format::{Entry, summary};
use crate::tier::nvme::sabotage::{Defect, is};
use crate::tier::nvme::segments::State;
use crate::time::Wall;

/// A segment without a summary.
pub(super) struct Walked {
    pub(super) segment: u32,
    pub(super) seq: u64,
    pub(super) opened: Wall,
    pub(super) headers: Vec<Header>,
    /// Where the next header would be.
    pub(super) next: u32,
    /// The first frame that was found torn.
    pub(super) torn: Option<usize>,
    /// The device failed: what comes behind is not known.
    pub(super) unread: bool,
}

impl Scan {
    /// Goes from header to header of each segment that has no summary.
    pub(super) fn walk(&mut self, port: &mut Port<'_>) -> Result<(), OpenError> {
        let (layout, uuid) = (self.layout, self.uuid);
        let want = |segment: u32, page: u32, pages: u32| Want {
            tag: segment,
            at: layout.byte(segment, page),
            bytes: u64::from(pages) * PAGE_BYTES,
        };
        let mut walked = std::mem::take(&mut self.walked);
        let inside = |walk: &Walked| walk.next + 1 < layout.segment_pages;
        let first: Vec<_> = walked
            .values()
            .filter(|walk| inside(walk))
            .map(|walk| want(walk.segment, walk.next, 1))
            .collect();
        port.stream(first.into_iter(), |segment, result| {
            let walk = walked.get_mut(&segment).expect("it is being walked");
            let Ok(bytes) = result.map(to_vec) else {
                walk.unread = true;
                return None;
            };
            if let Some(pages) = more_of_header(&bytes, uuid, &layout)
                && walk.next + pages <= layout.segment_pages
            {
                return Some(want(segment, walk.next, pages));
            }
            let header = check_header(&bytes, uuid, &layout, segment, walk.next)?;
            let before = walk.headers.last().expect("a walk begins with a header");
            let follows = header.head.seq == walk.seq
                && header.head.chain == before.crc
                && header.head.number > before.head.number;
            if !follows && !is(Defect::StaleFrame) {
                return None;
            }
            self.heard_of(&header);
            walk.next += header.head.span();
            walk.headers.push(header);
            inside(walk).then(|| want(segment, walk.next, 1))
        })?;
        self.walked = walked;
        Ok(())
    }

    /// Reads the blocks of all frames that are not known to be durable.
    pub(super) fn check_payloads(&mut self, port: &mut Port<'_>) -> Result<(), OpenError> {
        let (layout, durable) = (self.layout, self.durable);
        let mut wants = Vec::new();
        for walk in self.walked.values() {
            let doubtful = walk.headers.iter().enumerate();
            for (at, header) in doubtful.filter(|(_, header)| header.head.number > durable) {
                for block in header.blocks.iter().filter(|block| block.entry.record.len > 0) {
                    let entry = block.entry;
                    wants.push(Want {
                        tag: (walk.segment, at, entry),
                        at: layout.byte(walk.segment, entry.page),
                        bytes: u64::from(entry.pages()) * PAGE_BYTES,
                    });
                }
            }
        }
        if is(Defect::TornPayload) {
            wants.clear();
        }
        let walked = &mut self.walked;
        port.stream(wants.into_iter(), |(segment, at, entry), result| {
            let walk = walked.get_mut(&segment).expect("it was walked");
            let whole = match result {
                Ok(span) => is_whole(span, &entry),
                Err(Error::Gone(_)) => true,
                Err(_) => {
                    walk.unread = true;
                    false
                }
            };
            if !whole {
                walk.torn = Some(walk.torn.map_or(at, |torn| torn.min(at)));
            }
            None
        })
    }

    /// Takes in the segments that were walked, up to what is torn.
    pub(super) fn take_walked(&mut self) {
        for (segment, mut walk) in std::mem::take(&mut self.walked) {
            if let Some(torn) = walk.torn {
                let page = walk.headers[torn].head.page;
                if !walk.unread {
                    self.marks.push((segment, page));
                }
                walk.headers.truncate(torn);
                walk.next = page;
            }
            let state = if walk.unread { State::Retired } else { State::Closing };
            let blocks = walk.headers.iter().flat_map(|header| &header.blocks);
            let entries: Vec<Entry> = blocks.map(|block| block.entry).collect();
            let Some(last) = walk.headers.last().map(|header| header.head.number) else {
                self.segments.get_mut(segment).seq = walk.seq;
                if walk.unread {
                    self.segments.get_mut(segment).state = State::Retired;
                }
                continue;
            };
            let (seq, opened, end) = (walk.seq, walk.opened, walk.next);
            self.take_in(segment, seq, opened, &entries, state);
            let room = self.layout.segment_pages.saturating_sub(end);
            if state == State::Closing && summary::pages(entries.len()) <= room {
                self.closed.push(Closed { segment, seq, opened, end, last, entries });
            } else {
                self.segments.get_mut(segment).state = State::Retired;
            }
        }
    }
}

fn is_whole(span: &Span, entry: &Entry) -> bool {
    let len = entry.record.len as usize;
    entry.codec != CODEC_NONE || span.slice(0..len).checksum() == entry.record.checksum
}
