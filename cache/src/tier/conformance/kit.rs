//! What the rules share: blocks made of a number, and a tier that is asked and waited for.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use tranship_transport::checksum::crc64;
use tranship_transport::memory::HostMemory;

use super::Harness;
use crate::identity::IdentityId;
use crate::key::Key;
use crate::lineage::Link;
use crate::tier::Span;
use crate::tier::cold::{Cold, Failure, Job, Lane, Notify, Record, Refused};
pub(super) use crate::tier::nvme::testing::bytes;

/// How long anything may take before a rule fails.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// The end of a job.
pub(super) type Result = std::result::Result<Option<Record>, Failure>;

/// A tier that is open.
pub(super) struct Kit {
    /// The tier.
    pub(super) tier: Arc<dyn Cold>,
    ends: Arc<Ends>,
}

#[derive(Default)]
struct Ends {
    /// What has ended and was not waited for.
    told: Mutex<HashMap<u64, Result>>,
    bell: Condvar,
}

/// The record of block `number`, with these bytes.
pub(super) fn record(number: u64, bytes: &[u8]) -> Record {
    let key = |number: u64| {
        let mut key = [0xC5; 16];
        key[..8].copy_from_slice(&number.to_le_bytes());
        Key::from_bytes(key)
    };
    let parent = number.checked_sub(1).map(key);
    Record {
        identity: IdentityId::from_bytes([9; 16]),
        link: Link { key: key(number), parent, position: number as u32 },
        len: bytes.len() as u64,
        checksum: crc64(bytes),
        expires: None,
    }
}

/// A span with these bytes, beginning so far behind the start of a page.
pub(super) fn span(bytes: &[u8], shift: usize) -> Span {
    let room = (shift + bytes.len()).next_multiple_of(4096).max(4096) + 4096;
    let memory = HostMemory::new(room).build().expect("a little memory");
    let span = Span::new(Arc::new(memory), shift as u64..(shift + bytes.len()) as u64);
    span.write_at(0, bytes);
    span
}

/// The bytes of a span.
pub(super) fn read(span: &Span) -> Vec<u8> {
    let mut bytes = vec![0; span.len()];
    span.read_at(0, &mut bytes);
    bytes
}

impl Kit {
    /// Opens the harness's tier.
    pub(super) fn open(harness: &impl Harness) -> Self {
        let ends = Arc::new(Ends::default());
        let bell = Arc::clone(&ends);
        let notify: Notify = Arc::new(move || {
            // Taken and let go, so that nobody is between looking and waiting.
            drop(bell.told.lock().expect("nothing panics under this lock"));
            bell.bell.notify_all();
        });
        Self { tier: harness.open(notify), ends }
    }

    /// Waits for the end of a job.
    ///
    /// # Panics
    /// When it does not end, or any job ends twice.
    pub(super) fn wait(&self, token: u64) -> Result {
        let until = Instant::now() + PATIENCE;
        let mut told = self.ends.told.lock().expect("nothing panics under this lock");
        loop {
            let mut done = Vec::new();
            self.tier.finished(&mut done);
            for done in done {
                let before = told.insert(done.token, done.result);
                assert!(before.is_none(), "job {} ends twice", done.token);
            }
            if let Some(result) = told.remove(&token) {
                return result;
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "job {token} does not end");
            let waited = self.ends.bell.wait_timeout(told, left);
            told = waited.expect("nothing panics under this lock").0;
        }
    }

    /// Whether anything has ended that was not waited for.
    pub(super) fn is_quiet(&self) -> bool {
        let mut done = Vec::new();
        self.tier.finished(&mut done);
        done.is_empty() && self.ends.told.lock().expect("nothing panics under this lock").is_empty()
    }

    /// Submits a job, again and again while the lane is full.
    pub(super) fn submit(&self, mut job: Job) {
        let until = Instant::now() + PATIENCE;
        while let Err(refused) = self.tier.submit(job) {
            let Refused { job: back, why } = *refused;
            assert!(Instant::now() < until, "a job is refused for ever: {why:?}");
            job = back;
            std::thread::yield_now();
        }
    }

    /// Stores a block, and waits for it.
    pub(super) fn store(&self, token: u64, record: Record, bytes: &[u8], durable: bool) -> Result {
        self.submit(Job::Store { token, record, from: span(bytes, 0), durable });
        self.wait(token)
    }

    /// Loads some bytes of a block to a span that begins so far behind a page, and waits.
    pub(super) fn load(
        &self,
        token: u64,
        record: &Record,
        range: Range<u64>,
        shift: usize,
    ) -> std::result::Result<Vec<u8>, Failure> {
        let into = span(&vec![0xAA; (range.end - range.start) as usize], shift);
        let (name, lane) = (record.name(), Lane::Demand);
        self.submit(Job::Load { token, name, range, into: into.clone(), lane, within: PATIENCE });
        self.wait(token).map(|_| read(&into))
    }

    /// Checks that a block is there, whole.
    ///
    /// # Panics
    /// When it is not.
    pub(super) fn expect(&self, token: u64, record: &Record, expected: &[u8]) {
        let loaded = self.load(token, record, 0..record.len, 0);
        assert!(loaded.as_deref() == Ok(expected), "block {} is not there", record.link.key);
    }

    /// Closes the tier.
    pub(super) fn close(&self) {
        self.tier.close(PATIENCE);
    }
}
