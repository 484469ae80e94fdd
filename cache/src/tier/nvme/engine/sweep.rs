//! Taking out, a few slots at a time, what is not found any more: blocks of cleared identities, and
//! those whose time to live is over.

use super::Engine;
use crate::time::Millis;

/// Slots that are looked at in a step.
const SLOTS: u32 = 4096;
/// How often they are while only times to live are to be looked at.
const EVERY: Millis = Millis(1000);

/// How far the sweep has come.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    next: u32,
    last: Millis,
}

impl Engine {
    pub(super) fn step_sweep(&mut self) {
        let mut index = self.desk.index.lock();
        let hurried = index.has_cleared();
        let due = index.has_mortals() && self.now.mono >= self.sweep.last + EVERY;
        if !hurried && !due {
            return;
        }
        self.sweep.last = self.now.mono;
        let first = if self.sweep.next >= index.slots() { 0 } else { self.sweep.next };
        let end = first.saturating_add(SLOTS).min(index.slots());
        self.sweep.next = end;
        let mut gone = Vec::new();
        for slot in first..end {
            let Some(known) = index.inside(slot) else { continue };
            let expired = known.found.expires.is_some_and(|at| at <= self.now.wall);
            if expired || index.is_cleared(slot) {
                gone.push(index.remove(slot));
            }
        }
        self.again |= index.has_cleared();
        drop(index);
        for known in gone {
            let note = self.segments.sub(known.place.page, known.found.len);
            self.note(0, note);
        }
    }

    pub(super) fn sweep_due(&self) -> Option<Millis> {
        self.desk.index.lock().has_mortals().then_some(self.sweep.last + EVERY)
    }
}
