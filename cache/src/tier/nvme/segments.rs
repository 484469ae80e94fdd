//! The segments: which life each is in, what is alive in it, and which one is worth least.

use std::collections::VecDeque;

use super::format::Layout;
use super::format::log::{MAP_PAGES, Note};
use super::format::record::pages;
use crate::time::Wall;

/// What may be done with a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing in it counts, and the index log says so on the device.
    Free,
    /// Frames are added.
    Open,
    /// No more are; its summary is not written yet.
    Closing,
    /// It has a summary.
    Sealed,
    /// What is worth it is being written elsewhere.
    Leaving,
    /// Nothing in it counts, which the index log does not say on the device yet.
    Freeing,
    /// A write to it failed: what it holds stays readable, and nothing more is written to it.
    Retired,
}

/// One segment.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    /// Its life: the last one that was begun; 0 before the first.
    pub(crate) seq: u64,
    /// Lives up to this one are over, as the index log says.
    pub(crate) freed: u64,
    /// When its life began.
    pub(crate) opened: Wall,
    pub(crate) state: State,
    /// Blocks in it that the index names.
    pub(crate) blocks: u32,
    /// Pages of their payloads.
    pub(crate) pages: u32,
    /// Loads from it in this life.
    pub(crate) hits: u32,
    /// Loads that the device may still be reading.
    pub(crate) readers: u32,
    /// Payloads that do not count, as the index log says.
    pub(crate) dead: Vec<u16>,
}

/// All segments.
#[derive(Debug)]
pub(crate) struct Segments {
    pub(crate) layout: Layout,
    all: Vec<Segment>,
    free: VecDeque<u32>,
    /// Segments on their way to be free, and how many notes the log must have on the device first.
    freeing: VecDeque<(u64, u32)>,
    pub(crate) next_seq: u64,
}

impl Segments {
    pub(crate) fn new(layout: Layout) -> Self {
        let empty = Segment {
            seq: 0,
            freed: 0,
            opened: Wall(0),
            state: State::Free,
            blocks: 0,
            pages: 0,
            hits: 0,
            readers: 0,
            dead: Vec::new(),
        };
        let all = vec![empty; layout.segments as usize];
        Self { layout, all, free: VecDeque::new(), freeing: VecDeque::new(), next_seq: 1 }
    }

    pub(crate) fn get(&self, segment: u32) -> &Segment {
        &self.all[segment as usize]
    }

    pub(crate) fn get_mut(&mut self, segment: u32) -> &mut Segment {
        &mut self.all[segment as usize]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Segment)> {
        self.all.iter().enumerate().map(|(number, segment)| (number as u32, segment))
    }

    /// Segments that may be opened now.
    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    /// Segments on their way to be free.
    pub(crate) fn freeing(&self) -> usize {
        self.freeing.len()
    }

    /// Memory, bytes.
    pub(crate) fn allocated_bytes(&self) -> u64 {
        let dead: usize = self.all.iter().map(|segment| segment.dead.capacity() * 2).sum();
        (self.all.capacity() * size_of::<Segment>() + dead) as u64
    }

    /// Counts a block in.
    pub(crate) fn add(&mut self, page: u32, len: u64) {
        let (segment, _) = self.layout.split(page);
        let segment = self.get_mut(segment);
        segment.blocks += 1;
        segment.pages += pages(len);
    }

    /// Counts a block out; returns which copy does not count any more.
    pub(crate) fn sub(&mut self, page: u32, len: u64) -> Note {
        let (number, page) = self.layout.split(page);
        let segment = self.get_mut(number);
        segment.blocks -= 1;
        segment.pages -= pages(len);
        Note::Dead { segment: number, seq: segment.seq, page: page as u16 }
    }

    /// Begins a new life of the segment that is free for longest.
    pub(crate) fn open(&mut self, now: Wall) -> Option<u32> {
        let number = self.free.pop_front()?;
        let seq = self.next_seq;
        self.next_seq += 1;
        let segment = self.get_mut(number);
        assert!(
            segment.state == State::Free && segment.blocks == 0 && segment.dead.is_empty(),
            "segment {number} was free: {segment:?}"
        );
        *segment = Segment { seq, opened: now, state: State::Open, hits: 0, ..segment.clone() };
        Some(number)
    }

    /// Puts a segment in which nothing counts at the end of those on their way to be free.
    pub(crate) fn free_after(&mut self, notes: u64, number: u32) {
        self.get_mut(number).state = State::Freeing;
        self.freeing.push_back((notes, number));
    }

    /// Frees what had to wait for so many notes.
    pub(crate) fn notes_flushed(&mut self, notes: u64) {
        while self.freeing.front().is_some_and(|(need, _)| *need <= notes) {
            let (_, number) = self.freeing.pop_front().expect("looked at");
            self.set_free(number);
        }
    }

    pub(crate) fn set_free(&mut self, number: u32) {
        self.get_mut(number).state = State::Free;
        self.free.push_back(number);
    }

    /// Takes in what a note says, when it goes to the log or comes from it.
    pub(crate) fn noted(&mut self, note: &Note) {
        match *note {
            Note::Freed { segment, seq } => {
                if let Some(segment) = self.all.get_mut(segment as usize) {
                    segment.freed = segment.freed.max(seq);
                    if segment.seq <= segment.freed {
                        segment.dead = Vec::new();
                    }
                }
            }
            Note::Dead { segment, seq, page } => {
                if let Some(segment) = self.all.get_mut(segment as usize)
                    && segment.seq == seq
                    && segment.freed < seq
                {
                    segment.dead.push(page);
                }
            }
            Note::Life { .. } | Note::Map { .. } => {}
        }
    }

    /// Everything that the log says, said again in as few notes as there can be.
    pub(crate) fn snapshot(&self) -> Vec<Note> {
        let mut notes = Vec::new();
        for (number, segment) in self.iter() {
            if segment.freed > 0 {
                notes.push(Note::Freed { segment: number, seq: segment.freed });
            }
            let mut dead = segment.dead.clone();
            dead.sort_unstable();
            dead.dedup();
            let seq = segment.seq;
            let maps = dead.chunk_by(|a, b| u32::from(*a) / MAP_PAGES == u32::from(*b) / MAP_PAGES);
            let maps: Vec<Note> = maps
                .map(|pages| {
                    let base = pages[0] - pages[0] % MAP_PAGES as u16;
                    let bits = pages.iter().fold(0, |bits, page| bits | 1 << (page - base));
                    Note::Map { segment: number, base, bits }
                })
                .collect();
            if maps.len() + 1 < dead.len() {
                notes.push(Note::Life { segment: number, seq });
                notes.extend(maps);
            } else {
                let dead = dead.into_iter();
                notes.extend(dead.map(|page| Note::Dead { segment: number, seq, page }));
            }
        }
        notes
    }

    /// The sealed segment whose blocks are worth least for the room that they take.
    ///
    /// A segment without blocks costs nothing; among others, one that is old, has few blocks left and
    /// was read seldom is the first.
    pub(crate) fn victim(&self) -> Option<u32> {
        let worth = |segment: &Segment| {
            let age = self.next_seq - segment.seq;
            let alive = f64::from(segment.pages) / f64::from(self.layout.segment_pages);
            let used = 1.0 + f64::from(segment.hits) / f64::from(segment.blocks.max(1));
            alive * used / age as f64
        };
        let sealed = self.iter().filter(|(_, segment)| segment.state == State::Sealed);
        sealed
            .min_by(|(_, a), (_, b)| worth(a).total_cmp(&worth(b)).then(a.seq.cmp(&b.seq)))
            .map(|(number, _)| number)
    }

    /// Recounts what can be counted without the index.
    pub(crate) fn audit(&self) -> Result<(), String> {
        let in_state = |state: State| self.iter().filter(move |(_, s)| s.state == state);
        for (listed, state) in [
            (self.free.iter().copied().collect::<Vec<_>>(), State::Free),
            (self.freeing.iter().map(|(_, number)| *number).collect(), State::Freeing),
        ] {
            let mut listed = listed;
            listed.sort_unstable();
            let real: Vec<u32> = in_state(state).map(|(number, _)| number).collect();
            if listed != real {
                return Err(format!("segments {real:?} are {state:?}, but {listed:?} are listed"));
            }
        }
        for (number, segment) in self.iter() {
            let over = matches!(segment.state, State::Free | State::Freeing);
            if over && (segment.blocks > 0 || segment.readers > 0 || segment.pages > 0) {
                return Err(format!("segment {number} is free, but {segment:?}"));
            }
            if segment.seq >= self.next_seq {
                return Err(format!("segment {number} has a life to come: {segment:?}"));
            }
        }
        Ok(())
    }
}
