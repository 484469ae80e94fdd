//! What tests of the log share: a store that is driven step by step, blocks made of a number, images.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tranship_transport::checksum::crc64;
use tranship_transport::memory::HostMemory;

use super::desk::Desk;
use super::engine::{Engine, OpenError};
use super::options::{Hits, Now, Options};
use crate::identity::IdentityId;
use crate::key::Key;
use crate::lineage::Link;
use crate::tier::Span;
use crate::tier::cold::{Done, Failure, Job, Lane, Name, Record};
use crate::time::{Millis, Wall};

use super::disk::Disk;

/// Bytes of a page.
pub const PAGE: usize = super::disk::PAGE_BYTES as usize;
/// Steps after which everything has ended that ever will.
const STEPS_MAX: usize = 100_000;
/// Steps that no test takes.
const STEPS_ALL_MAX: u64 = 10_000_000;

/// When a test begins.
#[must_use]
pub fn clock() -> Now {
    Now { mono: Millis(1000), wall: Wall(1_800_000_000_000) }
}

/// Random choices that a seed repeats; SplitMix64.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Those of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.bits() % limit
    }

    /// Whether something happens that does `times` times in a hundred.
    pub fn percent(&mut self, times: u64) -> bool {
        self.below(100) < times
    }
}

/// Bytes without a pattern, a function of the seed and the length.
#[must_use]
pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut word = (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// The record of block `number`, with these bytes, that follows no other.
#[must_use]
pub fn record(number: u64, bytes: &[u8]) -> Record {
    let mut key = [0x5A; 16];
    key[..8].copy_from_slice(&number.to_le_bytes());
    Record {
        identity: IdentityId::from_bytes([1; 16]),
        link: Link { key: Key::from_bytes(key), parent: None, position: number as u32 },
        len: bytes.len() as u64,
        checksum: crc64(bytes),
        expires: None,
    }
}

/// A span of memory of its own with these bytes, that begins so far behind the start of a page.
///
/// # Panics
/// Without memory.
#[must_use]
pub fn span_at(shift: usize, bytes: &[u8]) -> Span {
    let room = (shift + bytes.len()).next_multiple_of(PAGE).max(PAGE);
    let memory = HostMemory::new(room).build().expect("a little memory");
    let span = Span::new(Arc::new(memory), shift as u64..(shift + bytes.len()) as u64);
    span.write_at(0, bytes);
    span
}

/// A span on pages of its own with these bytes.
#[must_use]
pub fn span(bytes: &[u8]) -> Span {
    span_at(0, bytes)
}

/// The bytes of a span.
#[must_use]
pub fn read(span: &Span) -> Vec<u8> {
    let mut bytes = vec![0; span.len()];
    span.read_at(0, &mut bytes);
    bytes
}

/// A store that is open, and one step after the other.
#[derive(Debug)]
pub struct Stepped {
    /// The log.
    pub engine: Engine,
    /// The time of the next step.
    pub now: Now,
    desk: Arc<Desk>,
    done: Vec<Done>,
    token: u64,
    steps: u64,
}

impl Stepped {
    /// Opens a store, or makes one.
    ///
    /// # Errors
    /// Why not.
    pub fn open(disk: Box<dyn Disk>, options: &Options, random: u8) -> Result<Self, OpenError> {
        let engine = Engine::open(disk, options, Box::new(Hits), [random; 16], &clock)?;
        Ok(Self::new(engine))
    }

    /// A store that was opened at the [`clock`]'s time.
    #[must_use]
    pub fn new(engine: Engine) -> Self {
        let desk = engine.desk();
        Self { engine, now: clock(), desk, done: Vec::new(), token: 0, steps: 0 }
    }

    /// What callers hold of it.
    #[must_use]
    pub fn desk(&self) -> &Desk {
        &self.desk
    }

    /// One step, now.
    pub fn step(&mut self) {
        self.steps += 1;
        assert!(self.steps < STEPS_ALL_MAX, "what is waited for does not come");
        self.engine.step(self.now, &mut false);
        self.desk.finished(&mut self.done);
    }

    /// So many steps.
    pub fn steps(&mut self, count: usize) {
        (0..count).for_each(|_| self.step());
    }

    /// Lets time pass, and makes a step.
    pub fn pass(&mut self, span: Millis) {
        self.now.mono = self.now.mono + span;
        self.now.wall = self.now.wall.after(span);
        self.step();
    }

    /// Submits a store; its token.
    ///
    /// # Panics
    /// When it is refused.
    pub fn submit_store(&mut self, record: Record, from: Span, durable: bool) -> u64 {
        self.token += 1;
        let token = self.token;
        self.submit(Job::Store { token, record, from, durable });
        token
    }

    /// Submits a load that may take a minute; its token.
    ///
    /// # Panics
    /// When it is refused.
    pub fn submit_load(&mut self, name: Name, range: Range<u64>, into: Span, lane: Lane) -> u64 {
        self.token += 1;
        let (token, within) = (self.token, Duration::from_secs(60));
        self.submit(Job::Load { token, name, range, into, lane, within });
        token
    }

    /// Submits a job.
    ///
    /// # Panics
    /// When it is refused.
    pub fn submit(&mut self, job: Job) {
        self.desk.submit(job).expect("there is room for a job");
    }

    /// The answer to a job, if there is one yet.
    pub fn answer(&mut self, token: u64) -> Option<Result<Option<Record>, Failure>> {
        let at = self.done.iter().position(|done| done.token == token)?;
        Some(self.done.swap_remove(at).result)
    }

    /// Steps until a job is answered.
    ///
    /// # Errors
    /// How it failed.
    ///
    /// # Panics
    /// When it is not.
    pub fn wait(&mut self, token: u64) -> Result<Option<Record>, Failure> {
        for _ in 0..STEPS_MAX {
            if let Some(result) = self.answer(token) {
                return result;
            }
            self.step();
        }
        panic!("job {token} does not end");
    }

    /// Stores a block.
    ///
    /// # Errors
    /// How it failed.
    pub fn store(
        &mut self,
        record: Record,
        bytes: &[u8],
        durable: bool,
    ) -> Result<Option<Record>, Failure> {
        let token = self.submit_store(record, span(bytes), durable);
        self.wait(token)
    }

    /// Loads a block of so many bytes.
    ///
    /// # Errors
    /// How it failed.
    ///
    /// # Panics
    /// When it does not tell what was stored.
    pub fn load(&mut self, name: Name, len: u64) -> Result<(Record, Vec<u8>), Failure> {
        let into = span(&vec![0; len as usize]);
        let token = self.submit_load(name, 0..len, into.clone(), Lane::Demand);
        let record = self.wait(token)?.expect("a load tells what was stored");
        Ok((record, read(&into)))
    }

    /// All blocks that are there, with their lengths.
    #[must_use]
    pub fn names(&self) -> Vec<(Name, u64)> {
        let (mut names, mut from) = (Vec::new(), Some(0));
        while let Some(at) = from {
            from = self.desk.visit(at, self.now.wall, &mut |name, found| {
                names.push((*name, found.len));
            });
        }
        names
    }

    /// Closes the store.
    ///
    /// # Panics
    /// When it does not close.
    pub fn close(mut self) {
        self.engine.close(self.now, Millis(1_000_000));
        for _ in 0..STEPS_MAX {
            self.step();
            if self.engine.closed() {
                return;
            }
        }
        panic!("the store does not close");
    }
}

/// Zeroes between two runs of bytes that are kept.
const GAP: usize = 8;

/// An image in short: its length, and all runs of bytes that are not zeroes, each with its place and
/// length.
#[must_use]
pub fn pack(image: &[u8]) -> Vec<u8> {
    let mut packed = (image.len() as u32).to_le_bytes().to_vec();
    let mut at = 0;
    while let Some(skip) = image[at..].iter().position(|byte| *byte != 0) {
        let start = at + skip;
        let zeroes = image[start..].windows(GAP).position(|some| some == [0; GAP]);
        let end = zeroes.map_or(image.len(), |zeroes| start + zeroes);
        packed.extend((start as u32).to_le_bytes());
        packed.extend(((end - start) as u32).to_le_bytes());
        packed.extend(&image[start..end]);
        at = end;
    }
    packed
}

/// The image that was packed.
///
/// # Panics
/// When it was not.
#[must_use]
pub fn unpack(packed: &[u8]) -> Vec<u8> {
    let word =
        |at: usize| u32::from_le_bytes(packed[at..at + 4].try_into().expect("four")) as usize;
    let mut image = vec![0; word(0)];
    let mut at = 4;
    while at < packed.len() {
        let (start, len) = (word(at), word(at + 4));
        image[start..start + len].copy_from_slice(&packed[at + 8..at + 8 + len]);
        at += 8 + len;
    }
    image
}

/// Puts the right checksum over bytes that were changed, at its place among them.
pub fn seal(bytes: &mut [u8], at: usize) {
    bytes[at..at + 8].fill(0);
    let sum = crc64(bytes);
    bytes[at..at + 8].copy_from_slice(&sum.to_le_bytes());
}
