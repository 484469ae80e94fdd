//! Going to sleep and being woken, without losing a wake-up.
//!
//! The sleeper owns one shared word, its *epoch*: odd while it sleeps or is about to. It makes it
//! odd, fences, looks once more whether there is work, and only then sleeps on its doorbell
//! (`eventfd(2)`). Whoever brings work publishes it, fences, and rings if the epoch is odd. By the
//! two fences either the sleeper sees the work or the other sees the odd epoch.
//!
//! A doorbell rung once stays rung until the sleeper is up and has made the epoch even, so a waker
//! rings once per epoch, however much it brings. Release and acquire on the epoch keep a ring for one
//! nap behind the clearing of the doorbell before it.

use std::sync::atomic::Ordering;

use super::word::Word;

/// The side that sleeps.
#[derive(Debug, Default)]
pub(super) struct Sleeper {
    epoch: u64,
}

impl Sleeper {
    /// Announces sleep; the caller then has to look for work once more.
    pub(super) fn lie_down<W: Word>(&mut self, shared: &W) {
        if self.asleep() {
            return;
        }
        self.epoch += 1;
        shared.store(self.epoch, Ordering::Release);
        W::fence();
    }

    /// Announces that it is up; to be called before the doorbell is cleared and work looked for.
    pub(super) fn get_up<W: Word>(&mut self, shared: &W) {
        if self.asleep() {
            self.epoch += 1;
            shared.store(self.epoch, Ordering::Release);
        }
    }

    /// Whether it sleeps or is about to.
    pub(super) fn asleep(&self) -> bool {
        self.epoch % 2 == 1
    }
}

/// A side that brings work.
#[derive(Debug, Default)]
pub(super) struct Waker {
    rung: u64,
}

impl Waker {
    /// After work was published: whether the doorbell has to be rung now.
    #[inline]
    pub(super) fn must_ring<W: Word>(&mut self, shared: &W) -> bool {
        W::fence();
        let epoch = shared.load(Ordering::Acquire);
        if epoch.is_multiple_of(2) || epoch == self.rung {
            return false;
        }
        self.rung = epoch;
        true
    }
}
