//! Recovery: what is in the store.
//!
//! The index log says which lives of segments are over and which copies are dead. A sealed segment is
//! known from its summary. Any other is walked, header by header, to where its last whole frame ends;
//! frames that no later header calls durable are read and checked. The walk of all segments, summaries
//! or not, comes to the same index.

use std::collections::{BTreeMap, HashMap};

use super::frames::Closed;
use super::log_end::{LogEnd, read_log};
use super::open::OpenError;
use super::reclaim::tail_pages;
use super::scan::{Port, Want, to_vec};
use crate::tier::Span;
use crate::tier::cold::Found;
use crate::tier::nvme::disk::{Error, PAGE_BYTES};
use crate::tier::nvme::format::frame::{self, Header, REACH_PAGES};
use crate::tier::nvme::format::log::{MAP_PAGES, Note};
use crate::tier::nvme::format::record::CODEC_NONE;
use crate::tier::nvme::format::summary::{self, Trailer};
use crate::tier::nvme::format::{Entry, Layout, PAGE, Uuid};
use crate::tier::nvme::index::{Index, Place};
use crate::tier::nvme::sabotage::{Defect, is};
use crate::tier::nvme::segments::{Segments, State};
use crate::time::Wall;

/// A store as it was found.
pub(super) struct Recovered {
    pub(super) index: Index,
    pub(super) segments: Segments,
    pub(super) log: LogEnd,
    /// Number of the last frame that anybody heard of.
    pub(super) last: u64,
    /// Segments that get a summary now.
    pub(super) closed: Vec<Closed>,
    /// Copies that turned out to be dead.
    pub(super) stale: Vec<Note>,
    /// Why nothing may be written, if so.
    pub(super) health: Option<String>,
}

/// Reads the store.
pub(super) fn recover(
    port: &mut Port<'_>,
    uuid: Uuid,
    layout: &Layout,
    full: bool,
) -> Result<Recovered, OpenError> {
    let (log, notes) = read_log(port, uuid, layout)?;
    let mut scan = Scan::new(uuid, *layout, &notes);
    drop(notes);
    scan.read_ends(port, full)?;
    scan.walk(port)?;
    scan.check_payloads(port)?;
    scan.take_walked();
    let marked = scan.mark_ends(port);
    let flushed = marked.and_then(|()| port.flush());
    let health = flushed.err().map(|why| {
        format!(
            "the end of what was written could not be marked: {why}; look at the device's health"
        )
    });
    Ok(scan.finish(log, health))
}

/// What the notes say of a segment.
#[derive(Default)]
struct Noted {
    freed: u64,
    dead: Vec<(u64, u16)>,
}

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

#[derive(Clone, Copy)]
enum End {
    Head(u32),
    Tail(u32),
}

/// A segment without a summary.
struct Walked {
    segment: u32,
    seq: u64,
    opened: Wall,
    headers: Vec<Header>,
    /// Where the next header would be.
    next: u32,
    /// The first frame that was found torn.
    torn: Option<usize>,
    /// The device failed: what comes behind is not known.
    unread: bool,
}

struct Scan {
    uuid: Uuid,
    layout: Layout,
    index: Index,
    segments: Segments,
    noted: HashMap<u32, Noted>,
    walked: BTreeMap<u32, Walked>,
    /// All frames up to this number are durable.
    durable: u64,
    last: u64,
    seq_max: u64,
    marks: Vec<(u32, u32)>,
    closed: Vec<Closed>,
    stale: Vec<Note>,
}

impl Scan {
    fn new(uuid: Uuid, layout: Layout, notes: &[Note]) -> Self {
        let mut noted: HashMap<u32, Noted> = HashMap::new();
        let mut life = (u32::MAX, 0);
        // A life of which nothing but notes is left is over, and they must not be taken for another's.
        let mut seq_max = 0;
        for note in notes {
            match *note {
                Note::Freed { segment, seq } if segment < layout.segments => {
                    let freed = &mut noted.entry(segment).or_default().freed;
                    *freed = seq.max(*freed);
                    seq_max = seq.max(seq_max);
                }
                Note::Dead { segment, seq, page } if segment < layout.segments => {
                    noted.entry(segment).or_default().dead.push((seq, page));
                    seq_max = seq.max(seq_max);
                }
                Note::Life { segment, seq } => {
                    life = (segment, seq);
                    seq_max = seq.max(seq_max);
                }
                Note::Map { segment, base, bits }
                    if segment < layout.segments && life.0 == segment =>
                {
                    let dead = &mut noted.entry(segment).or_default().dead;
                    let set = (0..MAP_PAGES as u16).filter(|bit| bits >> bit & 1 == 1);
                    dead.extend(set.map(|bit| (life.1, base.saturating_add(bit))));
                }
                _ => {}
            }
        }
        Self {
            uuid,
            layout,
            index: Index::default(),
            segments: Segments::new(layout),
            noted,
            walked: BTreeMap::new(),
            durable: 0,
            last: 0,
            seq_max,
            marks: Vec::new(),
            closed: Vec::new(),
            stale: Vec::new(),
        }
    }

    /// Reads the first header and the summary of every segment, and takes in those that are sealed.
    fn read_ends(&mut self, port: &mut Port<'_>, full: bool) -> Result<(), OpenError> {
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
        })
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
            && (trailer.seq == head.seq || is(Defect::StaleSummary) && trailer.seq > freed)
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

    fn heard_of(&mut self, header: &Header) {
        self.durable = self.durable.max(header.head.durable);
        self.last = self.last.max(header.head.number);
        self.seq_max = self.seq_max.max(header.head.seq);
    }

    /// Goes from header to header of each segment that has no summary.
    fn walk(&mut self, port: &mut Port<'_>) -> Result<(), OpenError> {
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
    fn check_payloads(&mut self, port: &mut Port<'_>) -> Result<(), OpenError> {
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
    fn take_walked(&mut self) {
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

    /// Puts what counts of a segment's blocks into the index.
    fn take_in(&mut self, number: u32, seq: u64, opened: Wall, entries: &[Entry], state: State) {
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
        if let Some(other) = self.index.get(&name) {
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
        }
        let place = Place { page, head: (entry.page - entry.frame) as u16 };
        let (len, checksum, expires) = (record.len, record.checksum, record.expires);
        let found = Found { len, checksum, expires, mark: entry.mark };
        if self.index.insert(&name, place, &found).is_none() {
            return;
        }
        self.segments.add(page, len);
        if let Some(key) = record.link.parent
            && let Some(parent) = self.index.get(&crate::tier::cold::Name { key, ..name })
        {
            self.index.mark(parent.slot, |mark| mark.parent = true);
        }
    }

    /// Makes what is torn the end of its segment for good: a later header may call its number durable.
    fn mark_ends(&mut self, port: &mut Port<'_>) -> Result<(), OpenError> {
        for (segment, page) in std::mem::take(&mut self.marks) {
            if !is(Defect::NoEndMark) {
                port.write(self.layout.byte(segment, page), &[0; PAGE])?;
            }
        }
        Ok(())
    }

    fn finish(mut self, log: LogEnd, health: Option<String>) -> Recovered {
        self.segments.next_seq = self.seq_max.saturating_add(1);
        for number in 0..self.layout.segments {
            if self.segments.get(number).state == State::Free {
                self.segments.set_free(number);
            }
        }
        let Self { index, segments, last, closed, stale, .. } = self;
        Recovered { index, segments, log, last, closed, stale, health }
    }
}

/// How many pages to read to check a header, if more than there are.
fn more_of_header(bytes: &[u8], uuid: Uuid, layout: &Layout) -> Option<u32> {
    let head = frame::peek(bytes, uuid)?;
    let more = head.pages as usize > bytes.len() / PAGE && head.pages < layout.segment_pages;
    more.then_some(head.pages)
}

/// The header at a page of a segment, if there is one.
fn check_header(
    bytes: &[u8],
    uuid: Uuid,
    layout: &Layout,
    segment: u32,
    page: u32,
) -> Option<Header> {
    let header = frame::decode(bytes, uuid).ok()?;
    let head = &header.head;
    let end = u64::from(page) + u64::from(head.pages) + u64::from(head.payload_pages);
    let here = head.segment == segment && head.page == page;
    let first = page > 0 || head.chain == 0;
    (here && first && end <= u64::from(layout.segment_pages)).then_some(header)
}

fn is_whole(span: &Span, entry: &Entry) -> bool {
    let len = entry.record.len as usize;
    entry.codec != CODEC_NONE || span.slice(0..len).checksum() == entry.record.checksum
}
