//! A device in memory that behaves as badly as a real one may, from a seed.
//!
//! Operations end in any order, after some polls. What a write brought is volatile until a flush;
//! [`Device::crash`] makes of each page that was not flushed, and of what was still being written, the
//! old bytes, the new ones, those of any write between, or a mixture of sectors. Reads and writes
//! fail, bytes rot, the device fills up or goes away when told to. Time is the number of polls.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::{Disk, Ended, Error, Kind, Op, PAGE_BYTES, Waker};
use crate::tier::nvme::testing::Dice;

const PAGE: usize = PAGE_BYTES as usize;
const SECTOR: usize = 512;
/// Operations of a lane that are taken.
const LANE_OPS_MAX: usize = 64;

/// What goes wrong; nothing by default.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// One read in so many fails.
    pub reads_one_in: Option<u64>,
    /// One write in so many fails, having written some of its pages.
    pub writes_one_in: Option<u64>,
    /// One flush in so many fails.
    pub flushes_one_in: Option<u64>,
    /// Bytes of the device that cannot be written.
    pub bad: Vec<Range<u64>>,
    /// Writes find no space.
    pub full: bool,
    /// The device is gone.
    pub gone: bool,
    /// Polls that an operation takes at most; 0 and 1 for one.
    pub slow: u64,
    /// Nothing ends while this is set.
    pub held: bool,
}

/// The device; it outlives the [`Disk`]s that are opened on it.
#[derive(Clone)]
pub struct Device(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    woken: Condvar,
}

struct State {
    dice: Dice,
    media: Vec<u8>,
    /// Versions of a page that are not flushed, oldest first.
    dirty: BTreeMap<u64, Vec<Version>>,
    /// Writes that have ended.
    writes: u64,
    polls: u64,
    pending: Vec<Pending>,
    /// Operations of disks that were opened before, which end as the device being gone.
    orphans: Vec<(u64, Op)>,
    lanes: [usize; 3],
    /// Counts the disks opened: an earlier one does nothing any more.
    opened: u64,
    wake: bool,
    faults: Faults,
    counts: Counts,
}

/// The number of a write, and what it brought to a page.
type Version = (u64, Box<[u8]>);

struct Pending {
    op: Op,
    due: u64,
    /// For a flush: writes that had ended when it was submitted.
    covers: u64,
}

/// What the device did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads that ended.
    pub reads: u64,
    /// Writes that ended.
    pub writes: u64,
    /// Flushes that ended.
    pub flushes: u64,
}

impl Device {
    /// A device of zeroes.
    ///
    /// # Panics
    /// When `bytes` are not whole pages.
    #[must_use]
    pub fn new(bytes: usize, seed: u64) -> Self {
        assert!(bytes.is_multiple_of(PAGE), "a disk of {bytes} bytes is not made of whole pages");
        Self::of(vec![0; bytes], seed)
    }

    /// A device with these bytes.
    #[must_use]
    pub fn of(media: Vec<u8>, seed: u64) -> Self {
        let state = State {
            dice: Dice::new(seed),
            media,
            dirty: BTreeMap::new(),
            writes: 0,
            polls: 0,
            pending: Vec::new(),
            orphans: Vec::new(),
            lanes: [0; 3],
            opened: 0,
            wake: false,
            faults: Faults::default(),
            counts: Counts::default(),
        };
        Self(Arc::new(Shared { state: Mutex::new(state), woken: Condvar::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("nothing panics while it holds the simulated device")
    }

    /// Opens it; a disk that was opened before does nothing any more.
    #[must_use]
    pub fn open(&self) -> Box<dyn Disk> {
        let mut state = self.state();
        state.disown();
        self.0.woken.notify_all();
        let bytes = state.media.len() as u64;
        Box::new(Handle { device: self.clone(), opened: state.opened, bytes })
    }

    /// Changes what goes wrong from now on.
    pub fn inject(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.state().faults);
        self.0.woken.notify_all();
    }

    /// The power fails: what was not flushed is old, new, or torn.
    pub fn crash(&self) {
        let mut state = self.state();
        // What was in flight may have come to any of its pages, too.
        let first = state.orphans.len();
        state.disown();
        self.0.woken.notify_all();
        for orphan in first..state.orphans.len() {
            if let Kind::Write { at, from } = &state.orphans[orphan].1.kind {
                let (at, from) = (*at, from.clone());
                for page in 0..from.len() / PAGE {
                    if state.dice.below(2) == 0 {
                        state.put(at, &from, page);
                    }
                }
            }
        }
        for (page, versions) in std::mem::take(&mut state.dirty) {
            let (start, choices) = (page as usize * PAGE, versions.len() as u64);
            let mode = state.dice.below(4);
            let pick = state.dice.below(choices) as usize;
            match mode {
                0 => {}
                1 => state.media[start..start + PAGE].copy_from_slice(&versions[pick].1),
                2 => {
                    let newest = &versions[versions.len() - 1].1;
                    state.media[start..start + PAGE].copy_from_slice(newest);
                }
                _ => {
                    for sector in 0..PAGE / SECTOR {
                        let of = state.dice.below(choices + 1) as usize;
                        let Some((_, bytes)) = versions.get(of) else { continue };
                        let range = sector * SECTOR..(sector + 1) * SECTOR;
                        state.media[start..start + PAGE][range.clone()]
                            .copy_from_slice(&bytes[range]);
                    }
                }
            }
        }
    }

    /// Flips a bit of a byte, on the device and in what is not flushed.
    pub fn rot(&self, at: u64, bit: u8) {
        let mut state = self.state();
        let (page, inside) = (at / PAGE_BYTES, at as usize % PAGE);
        state.media[at as usize] ^= 1 << (bit % 8);
        for (_, bytes) in state.dirty.get_mut(&page).into_iter().flatten() {
            bytes[inside] ^= 1 << (bit % 8);
        }
    }

    /// A copy of what would be read now, on a device of its own.
    #[must_use]
    pub fn copy(&self, seed: u64) -> Self {
        let state = self.state();
        let mut media = state.media.clone();
        for (page, versions) in &state.dirty {
            let start = *page as usize * PAGE;
            media[start..start + PAGE].copy_from_slice(&versions[versions.len() - 1].1);
        }
        Self::of(media, seed)
    }

    /// What would be read now.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        std::mem::take(&mut self.copy(0).state().media)
    }

    /// What it did.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.state().counts
    }
}

impl State {
    /// Whoever has the disk open loses it.
    fn disown(&mut self) {
        let opened = self.opened;
        self.orphans.extend(self.pending.drain(..).map(|pending| (opened, pending.op)));
        self.lanes = [0; 3];
        self.opened += 1;
        self.wake = true;
    }

    fn unlucky(&mut self, one_in: Option<u64>) -> bool {
        one_in.is_some_and(|one_in| self.dice.below(one_in) == 0)
    }

    /// Brings one page of a write to the device's memory.
    fn put(&mut self, at: u64, from: &crate::tier::Span, page: usize) {
        let mut bytes = vec![0; PAGE].into_boxed_slice();
        from.read_at(page * PAGE, &mut bytes);
        let versions = self.dirty.entry(at / PAGE_BYTES + page as u64).or_default();
        versions.push((self.writes, bytes));
    }

    fn carry_out(&mut self, pending: &Pending) -> Result<(), Error> {
        if self.faults.gone {
            return Err(Error::Gone("unplugged".to_owned()));
        }
        let io = |at: u64| Error::Io { at, text: "simulated".to_owned() };
        match &pending.op.kind {
            Kind::Read { at, into } => {
                self.counts.reads += 1;
                if self.unlucky(self.faults.reads_one_in) {
                    return Err(io(*at));
                }
                for page in 0..into.len() / PAGE {
                    let number = at / PAGE_BYTES + page as u64;
                    let newest = self.dirty.get(&number).and_then(|versions| versions.last());
                    let start = number as usize * PAGE;
                    let media = &self.media[start..start + PAGE];
                    into.write_at(page * PAGE, newest.map_or(media, |(_, bytes)| bytes));
                }
            }
            Kind::Write { at, from } => {
                self.counts.writes += 1;
                if self.faults.full {
                    return Err(Error::NoSpace);
                }
                let end = at + from.len() as u64;
                let bad = self.faults.bad.iter().any(|bad| bad.start < end && *at < bad.end);
                let fails = self.unlucky(self.faults.writes_one_in) || bad;
                self.writes += 1;
                for page in 0..from.len() / PAGE {
                    if !fails || self.dice.below(2) == 0 {
                        self.put(*at, from, page);
                    }
                }
                if fails {
                    return Err(io(*at));
                }
            }
            Kind::Flush => {
                self.counts.flushes += 1;
                if self.unlucky(self.faults.flushes_one_in) {
                    return Err(io(0));
                }
                let media = &mut self.media;
                self.dirty.retain(|page, versions| {
                    let covered = versions.iter().rposition(|(write, _)| *write <= pending.covers);
                    if let Some(last) = covered {
                        let start = *page as usize * PAGE;
                        media[start..start + PAGE].copy_from_slice(&versions[last].1);
                        versions.drain(..=last);
                    }
                    !versions.is_empty()
                });
            }
        }
        Ok(())
    }
}

/// The one disk that is open.
struct Handle {
    device: Device,
    opened: u64,
    bytes: u64,
}

impl Disk for Handle {
    fn describe(&self) -> String {
        format!("simulated, {} bytes", self.bytes)
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn submit(&mut self, op: Op) -> Result<(), Op> {
        if let Kind::Read { at, into: span } | Kind::Write { at, from: span } = &op.kind {
            let len = span.len() as u64;
            let fits = at.checked_add(len).is_some_and(|end| end <= self.bytes);
            let aligned = at.is_multiple_of(PAGE_BYTES)
                && len.is_multiple_of(PAGE_BYTES)
                && (span.as_ptr() as usize).is_multiple_of(PAGE);
            assert!(fits && aligned, "{len} bytes at {at} are not whole pages inside the disk");
        }
        let mut state = self.device.state();
        if state.opened != self.opened {
            state.orphans.push((self.opened, op));
            return Ok(());
        }
        if state.lanes[op.lane as usize] >= LANE_OPS_MAX {
            return Err(op);
        }
        state.lanes[op.lane as usize] += 1;
        let slow = state.faults.slow.max(1);
        let due = state.polls + 1 + state.dice.below(slow);
        let covers = state.writes;
        state.pending.push(Pending { op, due, covers });
        Ok(())
    }

    fn poll(&mut self, ended: &mut Vec<Ended>) {
        let mut state = self.device.state();
        if state.opened != self.opened {
            let ours = state.orphans.extract_if(.., |(opened, _)| *opened == self.opened);
            ended.extend(ours.map(|(_, Op { token, kind, .. })| {
                let result = Err(Error::Gone("somebody else has opened it".to_owned()));
                Ended { token, kind, result }
            }));
            return;
        }
        if state.faults.held {
            return;
        }
        state.polls += 1;
        let polls = state.polls;
        let mut due = Vec::new();
        let mut at = 0;
        while at < state.pending.len() {
            if state.pending[at].due <= polls {
                due.push(state.pending.swap_remove(at));
            } else {
                at += 1;
            }
        }
        while !due.is_empty() {
            let next = state.dice.below(due.len() as u64) as usize;
            let pending = due.swap_remove(next);
            let result = state.carry_out(&pending);
            let Op { token, lane, kind } = pending.op;
            state.lanes[lane as usize] -= 1;
            ended.push(Ended { token, kind, result });
        }
    }

    fn wait(&mut self, within: Duration) {
        let mut state = self.device.state();
        // Time is polls: with something in flight it goes on by itself.
        let idle = if state.opened == self.opened {
            state.pending.is_empty() || state.faults.held
        } else {
            !state.orphans.iter().any(|(opened, _)| *opened == self.opened)
        };
        if idle && !state.wake {
            let waited = self.device.0.woken.wait_timeout(state, within);
            state = waited.expect("nothing panics while it holds the simulated device").0;
        }
        state.wake = false;
    }

    fn waker(&self) -> Waker {
        let device = self.device.clone();
        Arc::new(move || {
            device.state().wake = true;
            device.0.woken.notify_all();
        })
    }

    fn in_flight(&self) -> usize {
        let state = self.device.state();
        let orphans = state.orphans.iter().filter(|(opened, _)| *opened == self.opened).count();
        orphans + if state.opened == self.opened { state.pending.len() } else { 0 }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.device.state();
        let opened = self.opened;
        state.orphans.retain(|(of, _)| *of != opened);
        if state.opened == opened {
            // A real disk waits for what is in flight; here nothing of it comes to pass.
            state.pending.clear();
            state.lanes = [0; 3];
        }
    }
}
