//! The load: streams of reads and writes, each with so many in flight, and every byte checksummed.
//!
//! What ended is replaced first, then checked, so that the device is busy meanwhile; what is written
//! next is made and summed before it is its turn.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tranship_cache::tier::nvme::disk::{Disk, Ended, Kind, Op};
use tranship_cache::tier::{Lane, Span};
use tranship_transport::Memory;

use super::content::{Checksums, Content};
use crate::bench::Error;

/// Nothing that works takes longer.
const PATIENCE: Duration = Duration::from_secs(30);
/// A wait is no longer, should nobody wake it.
const SLEEP: Duration = Duration::from_millis(100);
/// Longer ones count as this: a minute.
const LATENCY_MAX_NS: u64 = 60_000_000_000;
/// Digits that latencies keep.
const DIGITS: u8 = 3;

/// What is loaded: a disk, or what keeps blocks on one.
pub trait Served {
    /// Begins to move `span`, to or from place `at`; false if nothing more is taken now.
    fn start(&mut self, token: u64, lane: Lane, way: Way, at: u64, span: &Span) -> bool;

    /// Moves what ended to `ended`, and really begins what was started.
    ///
    /// # Errors
    /// When something ended badly.
    fn ended(&mut self, ended: &mut Vec<u64>) -> Result<(), Error>;

    /// Waits until something may have ended.
    fn wait(&mut self, within: Duration);
}

/// A bare disk.
pub struct Bare<'a> {
    disk: &'a mut dyn Disk,
    ended: Vec<Ended>,
}

impl<'a> Bare<'a> {
    /// This one.
    pub fn new(disk: &'a mut dyn Disk) -> Self {
        Self { disk, ended: Vec::new() }
    }
}

impl Served for Bare<'_> {
    fn start(&mut self, token: u64, lane: Lane, way: Way, at: u64, span: &Span) -> bool {
        let kind = match way {
            Way::Read => Kind::Read { at, into: span.clone() },
            Way::Write => Kind::Write { at, from: span.clone() },
        };
        self.disk.submit(Op { token, lane, kind }).is_ok()
    }

    fn ended(&mut self, ended: &mut Vec<u64>) -> Result<(), Error> {
        self.disk.poll(&mut self.ended);
        self.ended.drain(..).try_for_each(|one| {
            one.result?;
            ended.push(one.token);
            Ok(())
        })
    }

    fn wait(&mut self, within: Duration) {
        self.disk.wait(within);
    }
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the disk, at places drawn by chance.
    Read,
    /// To the disk, one after the other.
    Write,
}

/// One stream.
#[derive(Debug, Clone)]
pub struct Stream {
    /// Its lane.
    pub lane: Lane,
    /// Its direction.
    pub way: Way,
    /// Bytes of one operation.
    pub size: u64,
    /// Operations in flight.
    pub depth: u32,
    /// The part of the disk that it has to itself.
    pub area: Range<u64>,
    /// Pieces of memory that it goes round and round through: with checksums at least one in flight and
    /// one being made or checked.
    pub slots: u64,
}

impl Stream {
    /// Memory it takes.
    #[must_use]
    pub fn takes_bytes(&self) -> u64 {
        self.slots * self.size
    }
}

/// What one stream did.
#[derive(Debug)]
pub struct Tally {
    /// Payload bytes.
    pub bytes: u64,
    /// From the first submission until the last end was seen and checked.
    pub took: Duration,
    latencies: Histogram<u64>,
}

impl Tally {
    fn new() -> Self {
        let latencies = Histogram::new_with_max(LATENCY_MAX_NS, DIGITS).expect("possible bounds");
        Self { bytes: 0, took: Duration::ZERO, latencies }
    }

    /// Bytes a nanosecond, which is GB/s.
    #[must_use]
    pub fn gb_per_s(&self) -> f64 {
        self.bytes as f64 / self.took.as_nanos().max(1) as f64
    }

    /// The time from submission until the end is seen that so many of a hundred do not exceed, µs.
    #[must_use]
    pub fn percentile_us(&self, percent: f64) -> f64 {
        self.latencies.value_at_percentile(percent) as f64 / 1e3
    }

    /// Operations.
    #[must_use]
    pub fn n(&self) -> u64 {
        self.latencies.len()
    }
}

/// A stream at work.
struct Working {
    stream: Stream,
    slots: Vec<Slot>,
    /// Slots that can be used at once: those of writes are made and summed.
    ready: VecDeque<usize>,
    /// Slots that are to be checked, or made anew.
    stale: VecDeque<usize>,
    flying: u32,
    /// Operations to be begun.
    left: u64,
    /// More were asked for than are taken now.
    full: bool,
    next: u64,
    tally: Tally,
}

/// Memory of one operation.
struct Slot {
    span: Span,
    at: u64,
    since: Instant,
    sums: Vec<u64>,
}

impl Working {
    fn new(stream: Stream, memory: &Arc<Memory>, from: u64, until: Until) -> Self {
        let slot = |number: u64| {
            let start = from + number * stream.size;
            let span = Span::new(Arc::clone(memory), start..start + stream.size);
            Slot { span, at: 0, since: Instant::now(), sums: Vec::new() }
        };
        let slots: Vec<_> = (0..stream.slots).map(slot).collect();
        let (ready, stale) = match stream.way {
            Way::Read => ((0..slots.len()).collect(), VecDeque::new()),
            Way::Write => (VecDeque::new(), (0..slots.len()).collect()),
        };
        let left = match until {
            Until::Time(_) => u64::MAX,
            Until::Once => (stream.area.end - stream.area.start) / stream.size,
        };
        let (next, tally) = (stream.area.start, Tally::new());
        Self { stream, slots, ready, stale, flying: 0, left, full: false, next, tally }
    }

    /// Where the next operation goes.
    fn place(&mut self, chance: &mut u64) -> u64 {
        let Stream { size, area, way, .. } = &self.stream;
        let count = (area.end - area.start) / size;
        if *way == Way::Read {
            *chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            return area.start + (*chance >> 33) % count * size;
        }
        let at = self.next;
        self.next = if at + 2 * size <= area.end { at + size } else { area.start };
        at
    }

    /// Begins as many as may be in flight.
    fn renew(
        &mut self,
        number: u64,
        served: &mut dyn Served,
        content: &mut Content,
        chance: &mut u64,
    ) {
        self.full = false;
        while self.can_renew() {
            let Some(slot) = self.ready.pop_front() else { return };
            let at = self.place(chance);
            let Stream { lane, way, .. } = self.stream;
            let place = &mut self.slots[slot];
            (place.at, place.since) = (at, Instant::now());
            if !served.start(number << 32 | slot as u64, lane, way, at, &place.span) {
                self.ready.push_front(slot);
                self.next = at;
                self.full = true;
                return;
            }
            if way == Way::Write {
                content.note(at, &place.sums);
            }
            self.flying += 1;
            self.left -= 1;
        }
    }

    /// Whether one could be begun at once.
    fn can_renew(&self) -> bool {
        self.flying < self.stream.depth && self.left > 0 && !self.ready.is_empty() && !self.full
    }

    /// Takes the end of one.
    fn ended(&mut self, slot: usize) {
        let took = self.slots[slot].since.elapsed();
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.tally.latencies.saturating_record(took);
        self.tally.bytes += self.stream.size;
        self.flying -= 1;
        self.stale.push_back(slot);
    }

    /// Hands one slot on to be checked, or made anew; false if there was none.
    fn freshen(&mut self, number: u64, content: &mut Content) -> bool {
        // What nobody will write is not made.
        if self.stream.way == Way::Write && self.left == 0 {
            return false;
        }
        let Some(slot) = self.stale.pop_front() else { return false };
        let ticket = number << 32 | slot as u64;
        let Slot { span, at, .. } = &self.slots[slot];
        match self.stream.way {
            Way::Read => content.check(ticket, span, *at),
            Way::Write => content.make(ticket, span),
        }
        true
    }
}

/// Takes slots that are fresh again.
fn freshened(working: &mut [Working], content: &mut Content) -> Result<(), Error> {
    while let Some(fresh) = content.take() {
        let stream = &mut working[(fresh.ticket >> 32) as usize];
        let slot = fresh.ticket as u32 as usize;
        stream.slots[slot].sums = fresh.sums?;
        stream.ready.push_back(slot);
    }
    Ok(())
}

/// How long streams run.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// For so long.
    Time(Duration),
    /// Once through their areas.
    Once,
}

/// Runs streams side by side, from and to `memory`, which is theirs.
///
/// `chance` says where the next read goes, and is used up.
///
/// # Errors
/// When an operation fails, or what is read is not what was written.
///
/// # Panics
/// When the memory is too short for them.
pub fn run(
    served: &mut dyn Served,
    streams: &[Stream],
    memory: &Arc<Memory>,
    content: &mut Content,
    chance: &mut u64,
    until: Until,
) -> Result<Vec<Tally>, Error> {
    let mut from = 0;
    let mut working = Vec::new();
    for stream in streams {
        working.push(Working::new(stream.clone(), memory, from, until));
        from += stream.takes_bytes();
    }
    // Not measured: the first bytes to be written.
    for (number, stream) in (0..).zip(&mut working) {
        while stream.freshen(number, content) {}
    }
    let (mut began, mut ended) = (Instant::now(), Vec::new());
    loop {
        freshened(&mut working, content)?;
        if content.out() == 0 {
            break;
        }
        if began.elapsed() > PATIENCE {
            return Err(Error::Hangs { within: PATIENCE });
        }
        served.wait(SLEEP);
    }
    began = Instant::now();
    let mut last = began;
    loop {
        if matches!(until, Until::Time(time) if began.elapsed() >= time) {
            working.iter_mut().for_each(|stream| stream.left = 0);
        }
        for (number, stream) in (0..).zip(&mut working) {
            stream.renew(number, served, content, chance);
        }
        served.ended(&mut ended)?;
        for token in ended.drain(..) {
            working[(token >> 32) as usize].ended(token as u32 as usize);
            last = Instant::now();
        }
        freshened(&mut working, content)?;
        if working.iter().any(Working::can_renew) {
            continue;
        }
        // One at a time, if it is done here and now: something may end meanwhile.
        let mut worked = false;
        for (number, stream) in (0..).zip(&mut working) {
            while stream.freshen(number, content) {
                worked = true;
                if content.checksums(stream.stream.size) == Checksums::Inline {
                    break;
                }
            }
        }
        if worked {
            continue;
        }
        if content.out() == 0 && working.iter().all(|stream| stream.flying == 0) {
            break;
        }
        if last.elapsed() > PATIENCE {
            return Err(Error::Hangs { within: PATIENCE });
        }
        served.wait(SLEEP);
    }
    let took = began.elapsed();
    Ok(working.into_iter().map(|stream| Tally { took, ..stream.tally }).collect())
}
