//! Tiers below memory whose state the test chooses. They stand for a tier that is well or unwell, not
//! for storage: jobs are done as they are taken, and blocks are kept in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tranship_cache::tier::cold::{
    Cold, Done, Failure, Figures, Found, Health, Job, Mark, Name, Notify, Record, Refused,
};
use tranship_cache::tier::{Ingest, Level, Stack, Tier};

/// Places visited at once, fewer than a page has.
const STEP: usize = 5;

/// A tier whose health and figures are what the test says.
pub struct Scripted {
    tier: Tier,
    health: Mutex<Health>,
    figures: Mutex<Figures>,
    blocks: Mutex<BTreeMap<Name, (Record, Vec<u8>)>>,
    done: Mutex<Vec<Done>>,
    /// Answers that wait until the test lets them go, while it holds them.
    held: Mutex<Option<Vec<Done>>>,
    notify: OnceLock<Notify>,
}

impl Scripted {
    /// One that is ready and empty.
    #[must_use]
    pub fn new(tier: Tier) -> Arc<Self> {
        let (figures, blocks, done, held, notify) = Default::default();
        let health = Mutex::new(Health::Ready);
        Arc::new(Self { tier, health, figures, blocks, done, held, notify })
    }

    /// Whom it rings when a job is done; nobody unless this is called.
    pub fn rings(&self, notify: Notify) {
        let _ = self.notify.set(notify);
    }

    /// From now on it is like this.
    ///
    /// # Panics
    /// When a thread that used it panicked.
    pub fn is(&self, health: Health) {
        *self.health.lock().unwrap() = health;
    }

    /// From now on jobs are done and not answered, until [`lets_go`](Self::lets_go).
    ///
    /// # Panics
    /// When a thread that used it panicked.
    pub fn holds_answers(&self) {
        self.held.lock().unwrap().get_or_insert_default();
    }

    /// Answers all jobs, those too that were held.
    ///
    /// # Panics
    /// When a thread that used it panicked.
    pub fn lets_go(&self) {
        let held = self.held.lock().unwrap().take();
        self.done.lock().unwrap().extend(held.into_iter().flatten());
        self.ring();
    }

    fn ring(&self) {
        if let Some(notify) = self.notify.get() {
            notify();
        }
    }

    /// From now on it shows these figures.
    ///
    /// # Panics
    /// When a thread that used it panicked.
    pub fn counts(&self, figures: Figures) {
        *self.figures.lock().unwrap() = figures;
    }

    /// Puts a block there, as if it had come down long ago.
    ///
    /// # Panics
    /// When a thread that used it panicked.
    pub fn has(&self, record: Record, bytes: &[u8]) {
        self.blocks.lock().unwrap().insert(record.name(), (record, bytes.to_vec()));
    }
}

/// These tiers, which take blocks in as they are evicted; the fastest first.
#[must_use]
pub fn stack(tiers: &[Arc<Scripted>]) -> Stack {
    let level = |tier: &Arc<Scripted>| Level::new(Arc::clone(tier) as _, Ingest::Evicted);
    Stack::new(tiers.iter().map(level).collect())
}

fn found(record: &Record) -> Found {
    let Record { len, checksum, expires, .. } = *record;
    Found { len, checksum, expires, mark: Mark::default() }
}

impl Cold for Scripted {
    fn tier(&self) -> Tier {
        self.tier
    }

    fn find(&self, name: &Name) -> Option<Found> {
        self.blocks.lock().unwrap().get(name).map(|(record, _)| found(record))
    }

    fn submit(&self, job: Job) -> Result<(), Box<Refused>> {
        let mut blocks = self.blocks.lock().unwrap();
        let (token, result) = match job {
            Job::Store { token, record, from, .. } => {
                let mut bytes = vec![0; from.len()];
                from.read_at(0, &mut bytes);
                blocks.insert(record.name(), (record, bytes));
                (token, Ok(None))
            }
            Job::Load { token, name, range, into, .. } => {
                let result = blocks.get(&name).map(|(record, bytes)| {
                    into.write_at(0, &bytes[range.start as usize..range.end as usize]);
                    Some(*record)
                });
                (token, result.ok_or(Failure::Gone))
            }
            Job::Remove { name } => {
                blocks.remove(&name);
                return Ok(());
            }
            Job::Clear { identity } => {
                blocks.retain(|name, _| name.identity != identity);
                return Ok(());
            }
            Job::Sync { token } => (token, Ok(None)),
        };
        drop(blocks);
        let done = Done { token, result };
        if let Some(held) = self.held.lock().unwrap().as_mut() {
            held.push(done);
            return Ok(());
        }
        self.done.lock().unwrap().push(done);
        self.ring();
        Ok(())
    }

    fn finished(&self, out: &mut Vec<Done>) {
        out.append(&mut self.done.lock().unwrap());
    }

    fn visit(&self, from: u64, visit: &mut dyn FnMut(&Name, &Found)) -> Option<u64> {
        let blocks = self.blocks.lock().unwrap();
        let end = from as usize + STEP;
        let stretch = blocks.iter().skip(from as usize).take(STEP);
        stretch.for_each(|(name, (record, _))| visit(name, &found(record)));
        (end < blocks.len()).then_some(end as u64)
    }

    fn health(&self) -> Health {
        self.health.lock().unwrap().clone()
    }

    fn figures(&self) -> Figures {
        *self.figures.lock().unwrap()
    }

    fn close(&self, _: Duration) {}
}
