//! What callers and the tier's thread share: jobs on their way in, answers on their way out, the index.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use super::index::Index;
use crate::sync::{COLD_DESK, COLD_INDEX, Ranked};
use crate::tier::cold::{Done, Failure, Figures, Found, Health, Job, Lane, Name, Refusal, Refused};
use crate::tier::nvme::Options;
use crate::time::Wall;

/// Slots that one call of [`Desk::visit`] looks at under the lock.
const VISIT_SLOTS: u32 = 1024;

/// See the module's notes. Nothing here waits, and no lock is held for longer than a few steps.
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
    done: Vec<Done>,
    closed: bool,
    health: Health,
    figures: Figures,
}

/// One lane.
#[derive(Debug, Default)]
struct Tray {
    queue: VecDeque<Job>,
    /// Taken and not answered.
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
        if self.off.load(Ordering::Acquire) {
            return None;
        }
        self.index.lock().find(name, now).map(|known| known.found)
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
        let mut index = forgets.then(|| self.index.lock());
        let mut trays = self.trays.lock();
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
        out.append(&mut self.trays.lock().done);
    }

    /// As [`Cold::visit`](crate::tier::Cold::visit), at a time.
    pub fn visit(&self, from: u64, now: Wall, visit: &mut dyn FnMut(&Name, &Found)) -> Option<u64> {
        let from = u32::try_from(from).ok()?;
        let mut some = Vec::new();
        let next = {
            let index = self.index.lock();
            index.visit(from, VISIT_SLOTS, now, &mut |name, found| some.push((*name, *found)))
        };
        // Foreign code runs without the lock.
        some.iter().for_each(|(name, found)| visit(name, found));
        next.map(u64::from)
    }

    /// As [`Cold::health`](crate::tier::Cold::health).
    pub fn health(&self) -> Health {
        self.trays.lock().health.clone()
    }

    /// As [`Cold::figures`](crate::tier::Cold::figures).
    pub fn figures(&self) -> Figures {
        self.trays.lock().figures
    }

    /// Takes no more jobs.
    pub fn close(&self) {
        self.trays.lock().closed = true;
    }

    pub(crate) fn set_off(&self) {
        self.off.store(true, Ordering::Release);
    }

    /// Moves the jobs of a lane to `out`; they stay counted until they are answered.
    pub(crate) fn take(&self, lane: Lane, out: &mut VecDeque<Job>) {
        out.append(&mut self.trays.lock().lanes[lane as usize].queue);
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
        let mut trays = self.trays.lock();
        for weight in ended.drain(..) {
            let tray = &mut trays.lanes[weight.lane as usize];
            tray.jobs -= 1;
            tray.bytes -= weight.bytes;
        }
        trays.done.append(done);
        if trays.health != *health {
            trays.health = health.clone();
        }
        trays.figures = *figures;
        told
    }

    /// Answers what nobody will carry out any more: the thread is gone.
    pub(crate) fn abandon(&self, why: &str) {
        self.set_off();
        let mut trays = self.trays.lock();
        trays.closed = true;
        trays.health = Health::Off(why.to_owned());
        for lane in 0..trays.lanes.len() {
            while let Some(job) = trays.lanes[lane].queue.pop_front() {
                let (Job::Store { token, .. } | Job::Load { token, .. } | Job::Sync { token }) =
                    job
                else {
                    continue;
                };
                let result = Err(Failure::Unavailable(why.to_owned()));
                trays.done.push(Done { token, result });
            }
        }
    }

    /// Jobs that the log has taken and not answered.
    pub(crate) fn in_hand(&self) -> usize {
        self.trays.lock().lanes.iter().map(|tray| tray.jobs - tray.queue.len()).sum()
    }
}
