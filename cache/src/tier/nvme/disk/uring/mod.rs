//! io_uring: submissions in batches, files and buffers registered, bytes straight from and to the
//! memory of the spans.
//!
//! # Nothing in flight outlives the disk
//! The kernel reads and writes memory until it has answered. Every piece in flight is in `flying` with
//! its span. When the disk is dropped, on whatever thread, its rings are closed, which cancels what can
//! be cancelled; that all of it has ended is known by a pipe whose writing end lives in the rings' file
//! tables alone: the kernel lets go of these after the last operation, and only then the other end
//! hangs up. Spans are let go after that, or, should it not come, never.
//!
//! # Threads
//! A ring belongs to the thread that uses it first. A disk that is found on another thread gets new
//! rings: nothing is lost if nothing was in flight.

mod buffers;
mod ring;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::{opcode, types};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::time::Timespec;
use slab::Slab;
use tranship_transport::Notifier;
use tranship_transport::memory::Memory;

use self::buffers::{Buffers, SLOT_BYTES};
use self::ring::Ring;
use super::files::Files;
use super::schedule::{Action, Limits, Next, Piece, Schedule};
use super::{Disk, Ended, Error, Op, Waker};

pub(super) use self::ring::Wish;

/// Names the completion of the waker's eventfd; all others are places in `flying`.
const WAKE: u64 = u64::MAX;
/// How long a disk that is dropped waits for what is in flight.
const CLOSE_WITHIN: Duration = Duration::from_secs(30);

/// How a disk of io_uring is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) limits: Limits,
    pub(super) wish: Wish,
    /// Flushes and wake-ups have a ring of their own, as they need with IOPOLL.
    pub(super) two_rings: bool,
    /// Bytes of memory in one registered buffer.
    pub(super) slot_bytes: usize,
}

impl Setup {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, wish: Wish::default(), two_rings: false, slot_bytes: SLOT_BYTES }
    }
}

/// A disk of io_uring.
pub(super) struct Uring {
    schedule: Schedule,
    /// None when it is dropped, or has moved to another thread where none could be had.
    rings: Option<Rings>,
    /// Why there are none.
    broken: String,
    buffers: Buffers,
    /// Pieces that the kernel has.
    flying: Slab<Piece>,
    bell: Notifier,
    /// The kernel looks at the bell.
    armed: bool,
    /// The bell rang since the last wait.
    woken: bool,
    setup: Setup,
    files: Arc<Files>,
    /// What was asked for and is not used, and why.
    notes: Vec<String>,
}

/// The rings of a disk.
struct Rings {
    data: Ring,
    side: Option<Ring>,
    /// Hangs up when both are gone, with all that was in flight.
    end: OwnedFd,
}

impl Rings {
    fn new(files: &Files, setup: &Setup) -> io::Result<Self> {
        let (end, token) = pipe_with(PipeFlags::CLOEXEC)?;
        let table: Vec<RawFd> = files.descriptors().chain([token.as_raw_fd()]).collect();
        let entries = (setup.limits.depth + 2).next_power_of_two() as u32;
        let data = Ring::new(entries, setup.wish, &table)?;
        let plain = || Ring::new(entries, Wish::default(), &table);
        let side = setup.two_rings.then(plain).transpose()?;
        Ok(Self { data, side, end })
    }

    /// The ring for what may sleep.
    fn side(&mut self) -> &mut Ring {
        self.side.as_mut().unwrap_or(&mut self.data)
    }

    fn each(&mut self) -> impl Iterator<Item = &mut Ring> {
        [&mut self.data].into_iter().chain(&mut self.side)
    }

    /// Closes them, and waits until nothing of them is left; false if that takes too long.
    fn close(self) -> bool {
        let Self { data, side, end } = self;
        drop((data, side));
        let by = Instant::now() + CLOSE_WITHIN;
        loop {
            let left = by.saturating_duration_since(Instant::now());
            let left =
                Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            let mut ends = [PollFd::new(&end, PollFlags::empty())];
            match poll(&mut ends, Some(&left)) {
                Ok(0) => return false,
                Ok(_) => return true,
                // A signal.
                Err(_) if Instant::now() < by => {}
                Err(_) => return false,
            }
        }
    }
}

impl Uring {
    /// Over these files. What is announced beside an error of the system is for the caller to say.
    pub(super) fn new(
        files: Files,
        setup: Setup,
        notes: Vec<String>,
    ) -> Result<Self, (Files, io::Error)> {
        let made = Rings::new(&files, &setup).and_then(|rings| Ok((rings, Notifier::new()?)));
        let (rings, bell) = match made {
            Ok(made) => made,
            Err(error) => return Err((files, error)),
        };
        let files = Arc::new(files);
        Ok(Self {
            schedule: Schedule::new(Arc::clone(&files), setup.limits),
            buffers: Buffers::new(rings.data.inner(), setup.slot_bytes),
            rings: Some(rings),
            broken: String::new(),
            flying: Slab::with_capacity(setup.limits.depth),
            bell,
            armed: false,
            woken: false,
            setup,
            files,
            notes,
        })
    }

    /// Gives the kernel what it may have, and takes what it has finished, until neither is left.
    fn turn(&mut self) {
        self.settle();
        loop {
            let begun = self.begin();
            for ring in self.rings.iter_mut().flat_map(Rings::each) {
                ring.submit();
            }
            // What ended may make room for more.
            if !self.reap() && !begun {
                return;
            }
        }
    }

    /// Whether there was something to begin.
    fn begin(&mut self) -> bool {
        let mut any = false;
        while !self.rings.iter_mut().flat_map(Rings::each).any(Ring::is_full) {
            let Some(piece) = self.schedule.next() else { break };
            any = true;
            if self.rings.is_none() {
                self.schedule.ended(piece, Err(Error::Gone(self.broken.clone())));
                continue;
            }
            let place = self.flying.insert(piece);
            self.push(place);
        }
        any
    }

    /// Puts a piece in flight into a submission queue, which has room for all of them.
    fn push(&mut self, place: usize) {
        let Some(rings) = &mut self.rings else { return };
        let piece = &self.flying[place];
        let file = types::Fixed(piece.file as u32);
        let (memory, len, buffer) = match &piece.span {
            Some(span) => (span.as_ptr(), span.len() as u32, self.buffers.find(span)),
            None => (std::ptr::null_mut(), 0, None),
        };
        let at = piece.offset;
        let entry = match (piece.action, buffer) {
            (Action::Read, Some(buffer)) => {
                opcode::ReadFixed::new(file, memory, len, buffer).offset(at).build()
            }
            (Action::Read, None) => opcode::Read::new(file, memory, len).offset(at).build(),
            (Action::Write, Some(buffer)) => {
                opcode::WriteFixed::new(file, memory, len, buffer).offset(at).build()
            }
            (Action::Write, None) => opcode::Write::new(file, memory, len).offset(at).build(),
            (Action::Flush, _) => {
                opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build()
            }
        };
        let ring = if piece.action == Action::Flush { rings.side() } else { &mut rings.data };
        // SAFETY: the piece keeps its span, and that its memory, until the completion was seen or the
        // ring is known to be gone; see the module's notes.
        let pushed = unsafe { ring.push(&entry.user_data(place as u64)) };
        assert!(pushed, "a submission queue has room for every piece in flight");
    }

    /// Takes completions; whether there was one that ended a piece.
    fn reap(&mut self) -> bool {
        let mut any = false;
        for side in [false, true] {
            while let Some(entry) = self.completion(side) {
                if entry.user_data() == WAKE {
                    self.armed = false;
                    self.woken |= self.bell.take() > 0;
                    continue;
                }
                let place = entry.user_data() as usize;
                match self.flying[place].answered(entry.result() as isize, &self.files) {
                    Next::Again => self.push(place),
                    Next::End(result) => {
                        let piece = self.flying.remove(place);
                        self.schedule.ended(piece, result);
                        any = true;
                    }
                }
            }
        }
        any
    }

    fn completion(&mut self, side: bool) -> Option<io_uring::cqueue::Entry> {
        let rings = self.rings.as_mut()?;
        if side { rings.side.as_mut()?.completion() } else { rings.data.completion() }
    }

    /// Sleeps until there is news.
    fn sleep(&mut self, within: Duration) {
        let Some(rings) = &mut self.rings else { return };
        if !self.armed {
            let bell = types::Fd(self.bell.as_fd().as_raw_fd());
            let entry = opcode::PollAdd::new(bell, libc::POLLIN as u32).build().user_data(WAKE);
            // SAFETY: it points to no memory.
            self.armed = unsafe { rings.side().push(&entry) };
        }
        // A ring that asks its device for completions has nothing to sleep on.
        let mut moving = self.flying.iter().filter(|(_, piece)| piece.action != Action::Flush);
        if rings.side.is_none() || moving.next().is_none() {
            rings.side().submit_and_wait(within);
            self.reap();
            return;
        }
        let began = Instant::now();
        while !self.woken && !self.schedule.has_ended() && began.elapsed() < within {
            self.turn();
            std::thread::yield_now();
        }
    }

    /// New rings, if the disk is on another thread than it was.
    fn settle(&mut self) {
        if !self.rings.as_ref().is_some_and(|rings| rings.data.is_foreign()) {
            return;
        }
        self.close();
        for (_, piece) in std::mem::take(&mut self.flying) {
            let text = "the disk moved to another thread while this was under way".to_owned();
            let at = piece.at;
            self.schedule.ended(piece, Err(Error::Io { at, text }));
        }
        self.armed = false;
        match Rings::new(&self.files, &self.setup) {
            Ok(rings) => {
                self.buffers.again(rings.data.inner());
                self.rings = Some(rings);
            }
            Err(error) => {
                self.broken = format!("no io_uring on the thread it moved to: {error}");
            }
        }
    }

    /// Closes the rings; should they not end, what is in flight, and its memory, is the kernel's for
    /// ever. Whether they did.
    fn close(&mut self) -> bool {
        if self.rings.take().is_none_or(Rings::close) {
            return true;
        }
        let flying = std::mem::take(&mut self.flying);
        tracing::error!(
            "{}: {} operations have not ended after {CLOSE_WITHIN:?}; the device hangs, and their \
             memory is given up",
            self.files,
            flying.len()
        );
        std::mem::forget(flying);
        false
    }
}

impl Disk for Uring {
    fn describe(&self) -> String {
        let mut text = "io_uring".to_owned();
        for (on, what) in [(self.setup.wish.sqpoll, "SQPOLL"), (self.setup.wish.iopoll, "IOPOLL")] {
            if on {
                text = format!("{text} with {what}");
            }
        }
        for note in &self.notes {
            text = format!("{text} ({note})");
        }
        let cache = if self.files.direct { "O_DIRECT" } else { "through the page cache" };
        format!("{text}, {cache}, {}, {}", self.buffers, self.files)
    }

    fn bytes(&self) -> u64 {
        self.files.bytes()
    }

    fn stripe_bytes(&self) -> Option<u64> {
        self.files.stripe_bytes()
    }

    fn register(&mut self, memory: &Arc<Memory>) {
        self.settle();
        if let Some(rings) = &self.rings {
            self.buffers.register(rings.data.inner(), memory);
        }
    }

    fn submit(&mut self, op: Op) -> Result<(), Op> {
        self.schedule.submit(op)
    }

    fn poll(&mut self, ended: &mut Vec<Ended>) {
        self.turn();
        self.schedule.drain(ended);
    }

    fn wait(&mut self, within: Duration) {
        self.turn();
        if let (true, Some(rings)) = (self.flying.is_empty(), &self.rings) {
            self.buffers.forget_dead(rings.data.inner());
        }
        if !self.woken && !self.schedule.has_ended() {
            self.sleep(within);
        }
        self.woken = false;
    }

    fn waker(&self) -> Waker {
        let bell = self.bell.clone();
        Arc::new(move || bell.ring())
    }

    fn in_flight(&self) -> usize {
        self.schedule.in_flight()
    }

    fn end(mut self: Box<Self>) -> bool {
        self.close()
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        self.close();
    }
}
