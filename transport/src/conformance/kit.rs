//! What the rules share.

use std::ops::Range;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::harness::{Fault, Harness, skip};
use crate::address::Address;
use crate::engine::Engine;
use crate::memory::{HostMemory, Memory};
use crate::outcome::Outcome;
use crate::region::Region;
use crate::remote::RemoteWindow;
use crate::transfer::{Submission, Transfer};
use crate::window::Window;
use crate::window::{Access, Descriptor};

/// How long a transfer may take that nothing hinders.
pub(super) const AMPLE: Duration = Duration::from_secs(20);
/// By how much a deadline may be overrun: the granularity of a busy machine's scheduler.
pub(super) const SLACK: Duration = Duration::from_millis(500);
/// How long a test watches for something that must not happen.
pub(super) const WATCH: Duration = Duration::from_millis(20);

/// Two engines and a region of each: `a` writes and reads, `b` owns the windows.
pub(super) struct Pair {
    pub(super) a: Engine,
    pub(super) b: Engine,
    pub(super) source: Region,
    pub(super) target: Region,
}

impl Pair {
    pub(super) fn new(harness: &impl Harness, bytes: usize) -> Self {
        let (a, b) = (engine(harness), engine(harness));
        let (source, target) = (region(&a, bytes), region(&b, bytes));
        Self { a, b, source, target }
    }

    /// A window of the whole target that grants everything, as both sides have it.
    pub(super) fn offer(&self) -> (Window, RemoteWindow) {
        self.offer_part(0..self.target.len(), Access::WRITE | Access::READ)
    }

    pub(super) fn offer_part(&self, range: Range<u64>, access: Access) -> (Window, RemoteWindow) {
        let window = self.target.window_with(range, access).unwrap();
        let remote = self.a.open(&window.descriptor()).unwrap();
        (window, remote)
    }

    /// A write from one range of the source to a range of a window that starts at `at`.
    pub(super) fn write(&self, from: Range<u64>, to: &RemoteWindow, at: u64) -> Submission<'_> {
        let len = from.end - from.start;
        let to = to.slice(at..at + len).unwrap();
        self.a.write(self.source.slice(from).unwrap(), to).deadline(AMPLE)
    }

    /// A read of a window from `at` into a range of the source.
    pub(super) fn read(&self, from: &RemoteWindow, at: u64, into: Range<u64>) -> Submission<'_> {
        let len = into.end - into.start;
        let from = from.slice(at..at + len).unwrap();
        self.a.read(from, self.source.slice(into).unwrap()).deadline(AMPLE)
    }

    /// A write of everything with a descriptor that is not quite right.
    pub(super) fn write_with(&self, descriptor: &Descriptor, bytes: u64) -> Outcome {
        let to = self.a.open(descriptor).unwrap();
        self.write(0..bytes, &to, 0).wait()
    }
}

pub(super) fn engine(harness: &impl Harness) -> Engine {
    harness.builder().build().unwrap()
}

pub(super) fn region(engine: &Engine, bytes: usize) -> Region {
    engine.alloc(HostMemory::new(bytes)).unwrap()
}

pub(super) fn address(engine: &Engine) -> Address {
    engine.addresses()[0].clone()
}

/// All of a region's bytes.
pub(super) fn bytes_of(region: &Region) -> Vec<u8> {
    bytes_at(region.memory(), 0..region.len())
}

pub(super) fn bytes_at(memory: &Memory, range: Range<u64>) -> Vec<u8> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    memory.read_at(range.start as usize, &mut bytes).unwrap();
    bytes
}

pub(super) fn fill(region: &Region, byte: u8) {
    region.memory().fill(0..region.len() as usize, byte).unwrap();
}

pub(super) fn is_all(bytes: &[u8], byte: u8) -> bool {
    bytes.iter().all(|it| *it == byte)
}

/// Starts a transfer; the queue is never full in a test that does not fill it.
pub(super) fn start(submission: Submission<'_>) -> Transfer {
    submission.submit().unwrap()
}

pub(super) fn wait_all(transfers: &[Transfer]) -> Vec<Outcome> {
    transfers.iter().map(Transfer::wait).collect()
}

pub(super) fn all_done(transfers: &[Transfer]) {
    for (at, outcome) in wait_all(transfers).into_iter().enumerate() {
        assert_eq!(outcome, Outcome::Done, "transfer {at}");
    }
}

/// Lets things happen until `done`.
pub(super) fn until(harness: &impl Harness, what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(60), "never came: {what}");
        harness.turn();
    }
}

/// Injects a fault, or skips the rule.
pub(super) fn inject(harness: &impl Harness, fault: Fault) {
    if !harness.inject(fault) {
        skip("this harness cannot inject the fault");
    }
}

/// Randomness that a case repeats.
pub(super) struct Dice(Pcg64Mcg);

impl Dice {
    pub(super) fn new(harness: &impl Harness) -> Self {
        Self(Pcg64Mcg::seed_from_u64(harness.case()))
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0.next_u64() % limit.max(1)
    }

    pub(super) fn fill(&mut self, region: &Region) -> Vec<u8> {
        let mut bytes = vec![0; region.len() as usize];
        self.0.fill_bytes(&mut bytes);
        region.memory().write_at(0, &bytes).unwrap();
        bytes
    }
}
