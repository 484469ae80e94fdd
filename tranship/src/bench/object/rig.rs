//! The tier, and somebody who waits for its answers.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use tranship_cache::tier::Span;
use tranship_cache::tier::cold::{Cold, Done, Failure, Job, Lane, Record};
use tranship_cache::tier::object::{Bucket, Options};

use crate::bench::Error;
use crate::bench::rounds::Tally;

/// No answer takes longer than this, nor the time between two.
const PATIENCE: Duration = Duration::from_secs(60);
/// Room for a job that was refused comes without an answer.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Rung when jobs have ended.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    condvar: Condvar,
}

pub(super) struct Rig {
    bucket: Bucket,
    bell: Arc<Bell>,
    next: u64,
}

/// A block that is loaded or stored.
#[derive(Clone)]
pub(super) struct Work {
    pub(super) record: Record,
    pub(super) span: Span,
}

impl Rig {
    pub(super) fn open(options: Options) -> Result<Self, Error> {
        let bell = Arc::new(Bell::default());
        let ringing = Arc::clone(&bell);
        let notify = Arc::new(move || {
            if let Ok(mut rung) = ringing.rung.lock() {
                *rung = true;
            }
            ringing.condvar.notify_one();
        });
        Ok(Self { bucket: Bucket::open(options, notify)?, bell, next: 0 })
    }

    /// Loads all of them, `at_once` at a time.
    pub(super) fn load(
        &mut self,
        work: &[Work],
        at_once: usize,
        tally: &mut Tally,
    ) -> Result<(), Error> {
        let job = |token, work: &Work| Job::Load {
            token,
            name: work.record.name(),
            range: 0..work.record.len,
            into: work.span.clone(),
            lane: Lane::Demand,
            within: PATIENCE,
        };
        self.all("load", work, at_once, job, |took| tally.latency(took))
    }

    /// Stores all of them, and waits until they are in the bucket.
    pub(super) fn store(&mut self, work: &[Work], tally: &mut Tally) -> Result<(), Error> {
        let began = Instant::now();
        let job = |token, work: &Work| Job::Store {
            token,
            record: work.record,
            from: work.span.clone(),
            durable: false,
        };
        self.all("store", work, usize::MAX, job, |_| {})?;
        self.next += 1;
        let token = self.next;
        self.bucket.submit(Job::Sync { token }).map_err(|refused| failed("store", refused.why))?;
        let mut since = Instant::now();
        let result = loop {
            let done = self.wait("store", &mut since)?;
            if let Some(done) = done.into_iter().find(|done| done.token == token) {
                break done.result;
            }
        };
        result.map_err(|why| Error::Tier { what: "store", why })?;
        tally.latency(began.elapsed());
        Ok(())
    }

    /// Ends it.
    pub(super) fn close(&self) {
        self.bucket.close(PATIENCE);
    }

    fn all(
        &mut self,
        what: &'static str,
        work: &[Work],
        at_once: usize,
        job: impl Fn(u64, &Work) -> Job,
        mut took: impl FnMut(Duration),
    ) -> Result<(), Error> {
        let (mut waiting, mut since) = (HashMap::new(), Instant::now());
        let mut left = work.iter();
        let mut refused: Option<Job> = None;
        loop {
            while waiting.len() < at_once {
                let job = match (refused.take(), left.next()) {
                    (Some(job), _) => job,
                    (None, Some(work)) => {
                        self.next += 1;
                        job(self.next, work)
                    }
                    (None, None) => break,
                };
                let (Job::Load { token, .. } | Job::Store { token, .. }) = job else { break };
                let began = Instant::now();
                match self.bucket.submit(job) {
                    Ok(()) => drop(waiting.insert(token, began)),
                    Err(back) => {
                        refused = Some(back.job);
                        break;
                    }
                }
            }
            if waiting.is_empty() && refused.is_none() {
                return Ok(());
            }
            for Done { token, result } in self.wait(what, &mut since)? {
                result.map_err(|why| Error::Tier { what, why })?;
                if let Some(began) = waiting.remove(&token) {
                    took(Instant::now() - began);
                }
            }
        }
    }

    /// Some answers; none when a job that was refused may be taken now. `since` is when the last came.
    fn wait(&self, what: &'static str, since: &mut Instant) -> Result<Vec<Done>, Error> {
        let mut done = Vec::new();
        self.bucket.finished(&mut done);
        if done.is_empty() {
            if since.elapsed() >= PATIENCE {
                return Err(Error::Tier { what, why: Failure::Deadline });
            }
            let rung = self.bell.rung.lock().map_err(|_| failed(what, "a panic"))?;
            let waited = self.bell.condvar.wait_timeout_while(rung, LOOK_AGAIN, |rung| !*rung);
            *waited.map_err(|_| failed(what, "a panic"))?.0 = false;
            self.bucket.finished(&mut done);
        }
        if !done.is_empty() {
            *since = Instant::now();
        }
        Ok(done)
    }
}

fn failed(what: &'static str, why: impl std::fmt::Debug) -> Error {
    Error::Tier { what, why: Failure::Io(format!("{why:?}")) }
}
