//! When the device fails: what still works, and what is said.

use super::Engine;
use super::frames::Origin;
use super::load::Stage;
use crate::tier::cold::{Failure, Health, Job};
use crate::tier::nvme::desk::Weight;
use crate::tier::nvme::disk::Error;
use crate::tier::nvme::segments::State;
use crate::time::Millis;

/// Segments that may fail to be written one after the other before the tier stops writing.
const FAILURES_MAX: u32 = 8;

/// A device that has not ended its oldest operation after so long does not answer any more. Linux gives
/// a drive that time before it resets it, and fails what it had.
const HUNG_AFTER: Millis = Millis(30_000);

/// What failed so far.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// Segments that failed since the last frame that did not.
    in_a_row: u32,
    /// All of them.
    retired: u32,
    /// The device did not answer for a long time.
    hangs: bool,
}

impl Engine {
    /// Why nothing is written, if so.
    pub(super) fn refuses_writes(&self) -> Option<String> {
        match &self.health {
            Health::Ready | Health::Degraded(_) => None,
            Health::ReadOnly(why) => Some(format!("read-only: {why}")),
            Health::Off(why) => Some(format!("off: {why}")),
        }
    }

    /// Looks at how an operation ended for what concerns the whole device.
    pub(super) fn observe(&mut self, result: &Result<(), Error>) {
        match result {
            Err(Error::Gone(why)) => self.go_off(&format!("the device is gone: {why}")),
            Err(Error::NoSpace) => self.go_read_only(
                "no space is left on the device; free some on its file system, or make the store \
                 smaller, and start again",
            ),
            _ => {}
        }
    }

    /// Writes no more to a segment.
    pub(super) fn retire(&mut self, number: u32, why: &str) {
        let segment = self.segments.get_mut(number);
        if segment.state == State::Retired {
            return;
        }
        segment.state = State::Retired;
        self.frames.retired(number);
        self.settling.retired(number);
        self.failures.in_a_row += 1;
        self.failures.retired += 1;
        let retired = self.failures.retired;
        if self.failures.in_a_row >= FAILURES_MAX {
            self.go_read_only(&format!(
                "{FAILURES_MAX} segments in a row could not be written, the last with: {why}; \
                 replace the device"
            ));
        } else if matches!(self.health, Health::Ready | Health::Degraded(_)) {
            self.health = Health::Degraded(format!(
                "{retired} segments could not be written and are not used any more, the last with: \
                 {why}; look at the device's health"
            ));
        }
    }

    /// A frame was written.
    pub(super) fn writes_work(&mut self) {
        self.failures.in_a_row = 0;
    }

    /// Stops writing. What is here stays readable.
    pub(super) fn go_read_only(&mut self, why: &str) {
        if self.refuses_writes().is_none() {
            self.health = Health::ReadOnly(why.to_owned());
            self.stop_writing();
        }
    }

    /// Stops everything.
    pub(super) fn go_off(&mut self, why: &str) {
        if matches!(self.health, Health::Off(_)) {
            return;
        }
        self.health = Health::Off(why.to_owned());
        self.desk.set_off();
        self.stop_writing();
        self.refuse_queued_loads(&Failure::Unavailable(format!("off: {why}")));
    }

    /// Goes off when the device does not answer any more. It may be off already, and what the device has
    /// in hand was to end with it.
    pub(super) fn notice_hang(&mut self) {
        let hangs = self.device.stalled().is_some_and(|stalled| stalled >= HUNG_AFTER);
        if !hangs || self.failures.hangs {
            return;
        }
        self.failures.hangs = true;
        let seconds = HUNG_AFTER.0 / 1000;
        let why = format!(
            "the device hangs: it has not answered for {seconds} s; look at the system's log \
             (dmesg), and start again when it works"
        );
        self.go_off(&why);
        let why = Failure::Unavailable(format!("off: {why}"));
        self.answer_in_hand(&why);
        self.answer_bounced_loads(&why);
    }

    /// When a device that has been asked for something is taken for hung.
    pub(super) fn hang_due(&self) -> Option<Millis> {
        let stalled = self.device.stalled().filter(|_| !self.failures.hangs)?;
        Some(self.now.mono + (HUNG_AFTER - stalled))
    }

    pub(super) fn is_off(&self) -> bool {
        matches!(self.health, Health::Off(_))
    }

    /// Answers stores that the device has in hand, which may still read their spans, and no more.
    fn answer_in_hand(&mut self, why: &Failure) {
        let mut answers = Vec::new();
        for block in self.frames.queue.iter_mut().flat_map(|frame| &mut frame.blocks) {
            if let Origin::Store { token, weight, .. } = block.origin {
                answers.push((token, weight));
                block.origin = Origin::Answered;
            }
        }
        for (token, weight) in answers {
            self.answer(token, weight, Err(why.clone()));
        }
    }

    /// Ends what waits for writes; what the device has in hand ends with it.
    fn stop_writing(&mut self) {
        self.again = true;
        let why = self.refuses_writes().unwrap_or_default();
        for job in std::mem::take(&mut self.writes) {
            let weight = Weight::of(&job);
            match job {
                Job::Store { token, .. } | Job::Sync { token } => {
                    self.answer(token, weight, Err(Failure::Unavailable(why.clone())));
                }
                other => self.writes.push_back(other),
            }
        }
        self.stop_settling(&why);
        self.stop_reclaim();
    }

    /// Answers loads that the device was not asked for yet.
    pub(super) fn refuse_queued_loads(&mut self, why: &Failure) {
        for id in self.loads.ids() {
            if self.loads.stage(id) == Stage::Queued {
                self.end_load(id, Err(why.clone()));
            }
        }
    }
}
