//! Taking jobs off the desk.

use super::Engine;
use crate::tier::Lane;
use crate::tier::cold::{Failure, Job, Name};
use crate::tier::nvme::desk::Weight;
use crate::tier::nvme::sabotage::{Defect, is};

impl Engine {
    pub(super) fn take_jobs(&mut self) {
        let mut inbox = std::mem::take(&mut self.inbox);
        for lane in [Lane::Demand, Lane::Prefetch, Lane::Write] {
            self.desk.take(lane, &mut inbox);
        }
        let off = self.is_off().then(|| self.refuses_writes()).flatten();
        for job in inbox.drain(..) {
            match job {
                Job::Load { token, .. } if let Some(why) = &off => {
                    self.answer(token, Weight::of(&job), Err(Failure::Unavailable(why.clone())));
                }
                job @ Job::Load { .. } => self.queue_load(job),
                job => self.writes.push_back(job),
            }
        }
        self.inbox = inbox;
    }

    /// Carries out what is next among the writes and needs no room; whether something was.
    pub(super) fn carry_out_next(&mut self) -> bool {
        match self.writes.front() {
            Some(Job::Remove { .. } | Job::Clear { .. } | Job::Sync { .. }) => {}
            Some(Job::Store { .. }) if self.refuses_writes().is_some() => {}
            _ => return false,
        }
        let Some(job) = self.writes.pop_front() else { return false };
        let weight = Weight::of(&job);
        match job {
            Job::Remove { name } => {
                self.doom(&|other| *other == name);
                self.forget(&name);
                if !is(Defect::LateRemove) {
                    self.desk.index.lock().unbar(&name);
                }
                self.answered.push(weight);
            }
            Job::Clear { identity } => {
                self.doom(&|other| other.identity == identity);
                let mut index = self.desk.index.lock();
                index.clear(&identity);
                index.unbar_identity(&identity);
                drop(index);
                self.answered.push(weight);
            }
            Job::Sync { token } => match self.refuses_writes() {
                None => self.queue_sync(token),
                Some(why) => self.answer(token, weight, Err(Failure::Unavailable(why))),
            },
            Job::Store { token, .. } => {
                let why = self.refuses_writes().unwrap_or_default();
                self.answer(token, weight, Err(Failure::Unavailable(why)));
            }
            Job::Load { .. } => unreachable!("loads have queues of their own"),
        }
        true
    }

    /// Takes a block out of the index.
    fn forget(&mut self, name: &Name) {
        let mut index = self.desk.index.lock();
        let Some(known) = index.get(name) else { return };
        index.remove(known.slot);
        drop(index);
        let note = self.segments.sub(known.place.page, known.found.len);
        self.note(0, note);
    }
}
