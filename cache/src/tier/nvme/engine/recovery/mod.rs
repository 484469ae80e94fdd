//! Recovery: what is in the store.
//!
//! The index log says which lives of segments are over and which copies are dead. A sealed segment is
//! known from its summary. Any other is walked, header by header, to where its last whole frame ends;
//! frames that no later header calls durable are read and checked. The walk of all segments, summaries
//! or not, comes to the same index.

mod blocks;
mod ends;
mod headers;
mod walked;

use std::collections::{BTreeMap, HashMap};

use self::walked::Walked;
use super::frames::Closed;
use super::log_end::{LogEnd, read_log};
use super::open::OpenError;
use super::scan::Port;
use crate::tier::nvme::format::frame::Header;
use crate::tier::nvme::format::log::{MAP_PAGES, Note};
use crate::tier::nvme::format::{Layout, PAGE, Uuid};
use crate::tier::nvme::index::Index;
use crate::tier::nvme::sabotage::{Defect, is};
use crate::tier::nvme::segments::{Segments, State};

/// Numbers above this one are not reached by counting.
const NUMBER_MAX: u64 = 1 << 62;

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
    if scan.seq_max.max(scan.last).max(log.epoch) > NUMBER_MAX {
        return Err(OpenError::Damaged);
    }
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

    fn heard_of(&mut self, header: &Header) {
        self.durable = self.durable.max(header.head.durable);
        self.last = self.last.max(header.head.number);
        self.seq_max = self.seq_max.max(header.head.seq);
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
