//! Both ends of each segment: its first header and its summary.

use std::collections::HashMap;

use super::Scan;
use super::headers::{check_header, is_of_another, more_of_header};
use super::walked::Walked;
use crate::tier::nvme::disk::PAGE_BYTES;
use crate::tier::nvme::engine::open::OpenError;
use crate::tier::nvme::engine::reclaim::tail_pages;
use crate::tier::nvme::engine::scan::{Port, Want, to_vec};
use crate::tier::nvme::format::frame::Header;
use crate::tier::nvme::format::summary::{self, Trailer};
use crate::tier::nvme::format::{Entry, PAGE};
use crate::tier::nvme::sabotage::{Defect, is};
use crate::tier::nvme::segments::State;

/// What was read of the ends of a segment.
#[derive(Default)]
struct Ends {
    head: Option<Read<Header>>,
    tail: Option<Read<(Trailer, Vec<Entry>)>>,
}

enum Read<T> {
    Good(T),
    /// Not what it should be.
    Bad,
    /// The device failed.
    Failed,
}

/// Of so many segments in place one may be elsewhere.
const MISPLACED_SHARE: u32 = 8;

#[derive(Clone, Copy)]
enum End {
    Head(u32),
    Tail(u32),
}

impl Scan {
    /// Reads the first header and the summary of every segment, and takes in those that are sealed.
    pub(super) fn read_ends(&mut self, port: &mut Port<'_>, full: bool) -> Result<(), OpenError> {
        let layout = self.layout;
        let tail_pages = tail_pages(&layout);
        let tail_want = |segment: u32, pages: u32| Want {
            tag: End::Tail(segment),
            at: layout.byte(segment, layout.segment_pages - pages),
            bytes: u64::from(pages) * PAGE_BYTES,
        };
        let head_want = |segment: u32, pages: u32| Want {
            tag: End::Head(segment),
            at: layout.byte(segment, 0),
            bytes: u64::from(pages) * PAGE_BYTES,
        };
        let mut ends: HashMap<u32, Ends> = HashMap::new();
        let wants = (0..layout.segments).flat_map(|segment| {
            let tail = (!full).then(|| tail_want(segment, tail_pages));
            std::iter::once(head_want(segment, 1)).chain(tail)
        });
        let uuid = self.uuid;
        let (mut in_place, mut misplaced) = (0_u32, 0_u32);
        port.stream(wants, |tag, result| {
            let (End::Head(segment) | End::Tail(segment)) = tag;
            let ends_of = ends.entry(segment).or_default();
            if full {
                ends_of.tail = Some(Read::Bad);
            }
            let bytes = result.map(to_vec);
            match (tag, bytes) {
                (End::Head(_), Err(_)) => ends_of.head = Some(Read::Failed),
                (End::Tail(_), Err(_)) => ends_of.tail = Some(Read::Failed),
                (End::Head(_), Ok(bytes)) => match more_of_header(&bytes, uuid, &layout) {
                    Some(pages) => return Some(head_want(segment, pages)),
                    None => {
                        let header = check_header(&bytes, uuid, &layout, segment, 0);
                        match is_of_another(&bytes, uuid, segment) {
                            true => misplaced += 1,
                            false => in_place += u32::from(header.is_some()),
                        }
                        ends_of.head = Some(header.map_or(Read::Bad, Read::Good));
                    }
                },
                (End::Tail(_), Ok(bytes)) => match summary::peek(&bytes, uuid) {
                    Ok(peeked)
                        if peeked.pages as usize > bytes.len() / PAGE
                            && peeked.pages <= layout.segment_pages =>
                    {
                        return Some(tail_want(segment, peeked.pages));
                    }
                    Ok(_) => {
                        let summary = summary::decode(&bytes, uuid).ok();
                        let summary = summary.filter(|(trailer, _)| trailer.segment == segment);
                        ends_of.tail = Some(summary.map_or(Read::Bad, Read::Good));
                    }
                    Err(_) => ends_of.tail = Some(Read::Bad),
                },
            }
            if ends_of.head.is_some() && ends_of.tail.is_some() {
                let ends = ends.remove(&segment).expect("looked at");
                self.take_ends(segment, ends);
            }
            None
        })?;
        // A single one is a device that wrote to the wrong place: its blocks are lost, and no more.
        if misplaced > 1 && misplaced * MISPLACED_SHARE > in_place {
            return Err(OpenError::Shuffled { misplaced });
        }
        Ok(())
    }

    fn take_ends(&mut self, segment: u32, ends: Ends) {
        let freed = self.noted.get(&segment).map_or(0, |noted| noted.freed);
        self.segments.get_mut(segment).freed = freed;
        let header = match ends.head {
            Some(Read::Good(header)) => header,
            Some(Read::Failed) => {
                // Nobody knows what is there: nothing is written over it.
                self.segments.get_mut(segment).state = State::Retired;
                return;
            }
            _ => return,
        };
        self.heard_of(&header);
        let head = header.head;
        if head.seq <= freed {
            self.segments.get_mut(segment).seq = head.seq;
            return;
        }
        if let Some(Read::Good((trailer, entries))) = ends.tail
            && (trailer.seq == head.seq || is(Defect::StaleSummary))
        {
            // The summary was written when all its frames were durable.
            self.durable = self.durable.max(trailer.last);
            self.last = self.last.max(trailer.last);
            self.take_in(segment, trailer.seq, trailer.opened, &entries, State::Sealed);
            return;
        }
        let next = head.span();
        let (seq, opened, headers) = (head.seq, head.opened, vec![header]);
        let walked = Walked { segment, seq, opened, headers, next, torn: None, unread: false };
        self.walked.insert(segment, walked);
    }
}
