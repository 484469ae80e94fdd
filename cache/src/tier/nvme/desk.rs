//! What callers and the tier's thread share: jobs on their way in, answers on their way out, the index.

use std::collections::VecDeque;
use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::atomic::{AtomicBool, Ordering};

use super::index::Index;
use crate::sync::{COLD_DESK, COLD_INDEX, Held, Ranked};
use crate::tier::cold::{Done, Failure, Figures, Found, Health, Job, Lane, Name, Refusal, Refused};
use crate::tier::nvme::Options;
use crate::time::Wall;

/// Slots that one call of [`Desk::visit`] looks at under the lock.
const VISIT_SLOTS: u32 = 1024;

/// See the module's notes. Nothing here waits, and no lock is held for longer than a few steps.
///
/// A panic of the thread that drives the log takes nobody else along: the index is not looked at any
/// more, and the trays are sound between any two statements.
#[derive(Debug)]
pub struct Desk {
    pub(crate) index: Ranked<Index, COLD_INDEX>,
    trays: Ranked<Trays, COLD_DESK>,
    /// Nothing is found any more.
    off: AtomicBool,
    jobs_max: usize,
    bytes_max: u64,
}

#[derive(Debug)]
struct Trays {
    lanes: [Tray; 3],
    /// Tokens of the jobs that the log has and owes an answer, and how often each.
    taken: BTreeMap<u64, Owed>,
    done: Vec<Done>,
    closed: bool,
    health: Health,
    figures: Figures,
}

/// What is owed to the jobs of a token.
#[derive(Debug, Default)]
struct Owed {
    answers: usize,
    /// They are loads, to whose spans the device writes.
    loads: bool,
}

/// One lane.
#[derive(Debug, Default)]
struct Tray {
    queue: VecDeque<Job>,
    /// Here, or with the log, and not answered.
    jobs: usize,
    bytes: u64,
}

/// Where a job is counted until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Weight {
    pub(crate) lane: Lane,
    pub(crate) bytes: u64,
}

impl Weight {
    pub(crate) fn of(job: &Job) -> Self {
        match job {
            Job::Store { from, .. } => Self { lane: Lane::Write, bytes: from.len() as u64 },
            Job::Load { into, lane, .. } => Self { lane: *lane, bytes: into.len() as u64 },
            Job::Remove { .. } | Job::Clear { .. } | Job::Sync { .. } => {
                Self { lane: Lane::Write, bytes: 0 }
            }
        }
    }
}

impl Desk {
    pub(crate) fn new(options: &Options, index: Index) -> Self {
        let trays = Trays {
            lanes: Default::default(),
            taken: BTreeMap::new(),
            done: Vec::new(),
            closed: false,
            health: Health::Ready,
            figures: Figures::default(),
        };
        Self {
            index: Ranked::new(index),
            trays: Ranked::new(trays),
            off: AtomicBool::new(false),
            jobs_max: options.lane_jobs_max,
            bytes_max: options.lane_bytes_max,
        }
    }

    /// As [`Cold::find`](crate::tier::Cold::find), at a time.
    pub fn find(&self, name: &Name, now: Wall) -> Option<Found> {
        self.look()?.find(name, now).map(|known| known.found)
    }

    /// The index, unless nothing is found in it any more.
    fn look(&self) -> Option<Held<'_, Index, COLD_INDEX>> {
        // Whoever left it half-changed is about to say that the tier is off.
        (!self.off.load(Ordering::Acquire)).then(|| self.index.lock_whole().ok()).flatten()
    }

    fn trays(&self) -> Held<'_, Trays, COLD_DESK> {
        self.trays.lock_whole().unwrap_or_else(|left| left)
    }

    /// As [`Cold::submit`](crate::tier::Cold::submit).
    ///
    /// # Errors
    /// The job, and why it was not taken.
    pub fn submit(&self, job: Job) -> Result<(), Box<Refused>> {
        let Weight { lane, bytes } = Weight::of(&job);
        // Hidden before it is queued: whoever removed it does not find it again, and the thread that
        // carries it out lets go of it after.
        let forgets = matches!(job, Job::Remove { .. } | Job::Clear { .. });
        let mut index = if forgets { self.look() } else { None };
        let mut trays = self.trays();
        let closed = trays.closed;
        let tray = &mut trays.lanes[lane as usize];
        let crowded = tray.jobs > 0 && tray.bytes + bytes > self.bytes_max;
        if closed || !forgets && (crowded || tray.jobs >= self.jobs_max) {
            let why = if closed { Refusal::Closed } else { Refusal::Full };
            return Err(Box::new(Refused { job, why }));
        }
        tray.jobs += 1;
        tray.bytes += bytes;
        match (&job, &mut index) {
            (Job::Remove { name }, Some(index)) => index.bar(*name),
            (Job::Clear { identity }, Some(index)) => index.bar_identity(*identity),
            _ => {}
        }
        tray.queue.push_back(job);
        Ok(())
    }

    /// As [`Cold::finished`](crate::tier::Cold::finished).
    pub fn finished(&self, out: &mut Vec<Done>) {
        out.append(&mut self.trays().done);
    }

    /// As [`Cold::visit`](crate::tier::Cold::visit), at a time.
    pub fn visit(&self, from: u64, now: Wall, visit: &mut dyn FnMut(&Name, &Found)) -> Option<u64> {
        let from = u32::try_from(from).ok()?;
        let mut some = Vec::new();
        let next = {
            let index = self.look()?;
            index.visit(from, VISIT_SLOTS, now, &mut |name, found| some.push((*name, *found)))
        };
        // Foreign code runs without the lock.
        some.iter().for_each(|(name, found)| visit(name, found));
        next.map(u64::from)
    }

    /// As [`Cold::health`](crate::tier::Cold::health).
    pub fn health(&self) -> Health {
        self.trays().health.clone()
    }

    /// As [`Cold::figures`](crate::tier::Cold::figures).
    pub fn figures(&self) -> Figures {
        self.trays().figures
    }

    /// Takes no more jobs.
    pub fn close(&self) {
        self.trays().closed = true;
    }

    pub(crate) fn set_off(&self) {
        self.off.store(true, Ordering::Release);
    }

    /// Moves the jobs of a lane to `out`; they stay counted until they are answered.
    pub(crate) fn take(&self, lane: Lane, out: &mut VecDeque<Job>) {
        let Trays { lanes, taken, .. } = &mut *self.trays();
        let queue = &mut lanes[lane as usize].queue;
        for job in &*queue {
            let Some(token) = token(job) else { continue };
            let owed = taken.entry(token).or_default();
            owed.answers += 1;
            owed.loads |= matches!(job, Job::Load { .. });
        }
        out.append(queue);
    }

    /// Answers jobs, and stops counting those in `ended`; whether there was something to tell.
    pub(crate) fn publish(
        &self,
        done: &mut Vec<Done>,
        ended: &mut Vec<Weight>,
        health: &Health,
        figures: &Figures,
    ) -> bool {
        let told = !done.is_empty();
        let mut trays = self.trays();
        for weight in ended.drain(..) {
            let tray = &mut trays.lanes[weight.lane as usize];
            tray.jobs -= 1;
            tray.bytes -= weight.bytes;
        }
        for done in &*done {
            trays.answered(done.token);
        }
        trays.done.append(done);
        if trays.health != *health {
            trays.health = health.clone();
        }
        trays.figures = *figures;
        told
    }

    /// Answers what nobody will carry out any more: the thread is gone, and so is the disk. If the device
    /// is not, and hangs, loads that the log has taken are not answered: it may write to their spans when
    /// it comes back, and they are nobody else's.
    pub(crate) fn abandon(&self, why: &str, device_is_gone: bool) {
        self.set_off();
        let mut trays = self.trays();
        trays.closed = true;
        trays.health = Health::Off(why.to_owned());
        let lanes = std::mem::take(&mut trays.lanes);
        let queued = lanes.iter().flat_map(|tray| &tray.queue).filter_map(token);
        let taken = std::mem::take(&mut trays.taken).into_iter();
        let taken = taken.filter(|(_, owed)| device_is_gone || !owed.loads);
        let taken = taken.flat_map(|(token, owed)| std::iter::repeat_n(token, owed.answers));
        for token in taken.chain(queued) {
            trays.done.push(Done { token, result: Err(Failure::Unavailable(why.to_owned())) });
        }
    }

    /// Jobs that the log has taken and not answered.
    pub(crate) fn in_hand(&self) -> usize {
        self.trays().lanes.iter().map(|tray| tray.jobs - tray.queue.len()).sum()
    }
}

impl Trays {
    fn answered(&mut self, token: u64) {
        if let Entry::Occupied(mut taken) = self.taken.entry(token) {
            taken.get_mut().answers -= 1;
            if taken.get().answers == 0 {
                taken.remove();
            }
        }
    }
}

/// The token of a job that gets an answer.
fn token(job: &Job) -> Option<u64> {
    match job {
        Job::Store { token, .. } | Job::Load { token, .. } | Job::Sync { token } => Some(*token),
        Job::Remove { .. } | Job::Clear { .. } => None,
    }
}
