//! A cold tier, and somebody who waits for its answers.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use tranship_cache::identity::IdentityId;
use tranship_cache::tier::Span;
use tranship_cache::tier::cold::{
    Cold, Done, Failure, Found, Job, Lane, Name, Notify, Record, Refused,
};
use tranship_cache::tier::object::{Bucket, OpenError, Options};
use tranship_cache::time::Wall;
use tranship_cache::{Key, Link};
use tranship_transport::HostMemory;

/// No answer takes longer than this in a test that is not about time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Rings when jobs have ended.
#[derive(Default)]
pub struct Bell {
    rung: Mutex<u64>,
    condvar: Condvar,
}

impl Bell {
    /// What a tier calls.
    #[must_use]
    pub fn notify(self: &Arc<Self>) -> Notify {
        let bell = Arc::clone(self);
        Arc::new(move || {
            *bell.rung.lock().unwrap() += 1;
            bell.condvar.notify_all();
        })
    }

    /// Until `over`, asked each time the bell rings; what it returns.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn wait<T>(&self, mut over: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let heard = *self.rung.lock().unwrap();
            if let Some(value) = over() {
                return value;
            }
            let rung = self.rung.lock().unwrap();
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no answer in {PATIENCE:?}");
            // A little at a time: what is waited for may not ring.
            let some = left.min(Duration::from_millis(100));
            drop(self.condvar.wait_timeout_while(rung, some, |rung| *rung == heard).unwrap());
        }
    }
}

/// A bucket and its answers.
pub struct Rig {
    /// The tier.
    pub bucket: Bucket,
    bell: Arc<Bell>,
    answers: Mutex<HashMap<u64, Result<Option<Record>, Failure>>>,
    next: Mutex<u64>,
}

impl Rig {
    /// Opens a bucket.
    ///
    /// # Errors
    /// As [`Bucket::open`].
    pub fn open(options: Options) -> Result<Self, OpenError> {
        let bell = Arc::new(Bell::default());
        let bucket = Bucket::open(options, bell.notify())?;
        Ok(Self { bucket, bell, answers: Mutex::default(), next: Mutex::default() })
    }

    /// A token that no job had.
    ///
    /// # Panics
    /// When another thread panicked.
    #[must_use]
    pub fn token(&self) -> u64 {
        let mut next = self.next.lock().unwrap();
        *next += 1;
        *next
    }

    /// The answer to a job.
    ///
    /// # Errors
    /// Its failure.
    ///
    /// # Panics
    /// When it does not come, or comes twice.
    pub fn answer(&self, token: u64) -> Result<Option<Record>, Failure> {
        self.bell.wait(|| {
            let mut answers = self.answers.lock().unwrap();
            let mut done = Vec::new();
            self.bucket.finished(&mut done);
            for Done { token, result } in done {
                assert!(answers.insert(token, result).is_none(), "job {token} was answered twice");
            }
            answers.remove(&token)
        })
    }

    /// Submits, again while the tier is full.
    ///
    /// # Panics
    /// When it is closed, or full for too long.
    pub fn submit(&self, job: Job) {
        let mut job = Some(job);
        self.bell.wait(|| match self.bucket.submit(job.take().expect("it came back")) {
            Ok(()) => Some(()),
            Err(refused) => {
                let Refused { job: back, why } = *refused;
                assert_eq!(why, tranship_cache::tier::cold::Refusal::Full);
                job = Some(back);
                None
            }
        });
    }

    /// Stores bytes and waits.
    ///
    /// # Errors
    /// Why they were not stored.
    pub fn store(&self, record: Record, bytes: &[u8], durable: bool) -> Result<(), Failure> {
        let token = self.token();
        self.submit(Job::Store { token, record, from: span_of(bytes), durable });
        self.answer(token).map(|told| assert_eq!(told, None))
    }

    /// Loads bytes and waits.
    ///
    /// # Errors
    /// Why they were not loaded.
    ///
    /// # Panics
    /// When there is no memory.
    pub fn load(&self, name: Name, range: Range<u64>) -> Result<Vec<u8>, Failure> {
        self.load_within(name, range, PATIENCE)
    }

    /// Loads bytes within a time.
    ///
    /// # Errors
    /// Why they were not loaded.
    ///
    /// # Panics
    /// When there is no memory.
    pub fn load_within(
        &self,
        name: Name,
        range: Range<u64>,
        within: Duration,
    ) -> Result<Vec<u8>, Failure> {
        let (token, into) = (self.token(), empty(range.end - range.start));
        let job = Job::Load { token, name, range, into: into.clone(), lane: Lane::Demand, within };
        self.submit(job);
        let told = self.answer(token)?.expect("a load tells what was stored");
        assert_eq!(told.name(), name);
        let mut bytes = vec![0; into.len()];
        into.read_at(0, &mut bytes);
        Ok(bytes)
    }

    /// What a load tells beside the bytes.
    ///
    /// # Panics
    /// When the block cannot be loaded.
    #[must_use]
    pub fn told(&self, name: Name) -> Record {
        let (token, into) = (self.token(), empty(0));
        let within = PATIENCE;
        self.submit(Job::Load { token, name, range: 0..0, into, lane: Lane::Prefetch, within });
        self.answer(token).unwrap().unwrap()
    }

    /// Begins to load a block; the token of its answer.
    #[must_use]
    pub fn submit_load(&self, record: &Record, within: Duration) -> u64 {
        let (token, into) = (self.token(), empty(record.len));
        let (name, range) = (record.name(), 0..record.len);
        self.submit(Job::Load { token, name, range, into, lane: Lane::Demand, within });
        token
    }

    /// Waits until everything is in the bucket.
    ///
    /// # Errors
    /// Why it is not.
    pub fn sync(&self) -> Result<(), Failure> {
        let token = self.token();
        self.submit(Job::Sync { token });
        self.answer(token).map(|told| assert_eq!(told, None))
    }

    /// Waits until something is so that nobody tells of.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn until(&self, over: impl Fn() -> bool) {
        self.bell.wait(|| over().then_some(()));
    }

    /// All blocks, by going through all of them.
    #[must_use]
    pub fn all(&self) -> Vec<(Name, Found)> {
        let (mut all, mut from) = (Vec::new(), Some(0));
        while let Some(at) = from {
            from = self.bucket.visit(at, &mut |name, found| all.push((*name, *found)));
        }
        all
    }

    /// Whether it is found, as it was stored.
    #[must_use]
    pub fn finds(&self, record: &Record) -> bool {
        self.bucket.find(&record.name()).is_some_and(|found| {
            let early = |at: Wall| Wall(at.0 / 1000 * 1000);
            let expires = record.expires.map(early);
            (found.len, found.checksum, found.expires) == (record.len, record.checksum, expires)
        })
    }
}

/// Memory with these bytes.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn span_of(bytes: &[u8]) -> Span {
    let span = empty(bytes.len() as u64);
    span.write_at(0, bytes);
    span
}

/// Memory for so many bytes.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn empty(bytes: u64) -> Span {
    let memory = Arc::new(HostMemory::new(bytes.max(1) as usize).build().unwrap());
    Span::new(memory, 0..bytes)
}

/// The identity of most tests.
#[must_use]
pub fn identity(number: u8) -> IdentityId {
    IdentityId::from_bytes([number; 16])
}

/// Block `number` of `len` bytes: no two are alike, and half of each can be compressed.
#[must_use]
pub fn block(number: u32, len: usize) -> (Record, Vec<u8>) {
    let mut state = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    let bytes: Vec<u8> = (0..len).map(|at| if at % 2 == 0 { draw() } else { 0x3f }).collect();
    let key = |number: u32| Key::from_digest(&number.to_le_bytes());
    let parent = number.checked_sub(1).map(key);
    let record = Record {
        identity: identity(1),
        link: Link { key: key(number), parent, position: number },
        len: len as u64,
        checksum: tranship_cache::arena::checksum(&bytes),
        expires: None,
    };
    (record, bytes)
}

/// [`block`] whose time ends.
#[must_use]
pub fn block_until(number: u32, len: usize, expires: Wall) -> (Record, Vec<u8>) {
    let (mut record, bytes) = block(number, len);
    record.expires = Some(expires);
    (record, bytes)
}

/// A clock that a test turns.
#[derive(Default)]
pub struct Turned(std::sync::atomic::AtomicU64);

impl Turned {
    /// Lets time pass.
    pub fn forward(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as u64, std::sync::atomic::Ordering::Relaxed);
    }

    fn ms(&self) -> u64 {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl tranship_cache::tier::object::Clock for Turned {
    fn now(&self) -> Duration {
        Duration::from_millis(self.ms())
    }

    fn wall(&self) -> Wall {
        Wall(self.ms())
    }
}
