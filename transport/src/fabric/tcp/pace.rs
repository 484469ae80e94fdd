//! How much of bulk is moved before the latency lane is looked at again.
//!
//! One thread does everything: what is urgent waits for the system calls that it is in the middle
//! of, here and at the other side. Large ones are cheaper by the byte, so they are small only while
//! the latency lane is in use. Messages are no such use, though they share the stream, nor are signals
//! of bulk: whoever moves bulk talks about it.

use std::time::Duration;

use crate::time::Time;

/// Of all bulk streams in one turn, each way.
const CALM_BYTES: usize = 256 << 10;
/// The same while the latency lane is in use: what is copied in about the time that a small frame
/// takes anyway.
const URGENT_BYTES: usize = 32 << 10;
/// What posts send by themselves between two turns: what is small leaves at once.
const POSTS_BYTES: usize = 64 << 10;
/// How long the latency lane counts as in use after it was.
const LATELY: Duration = Duration::from_millis(20);

/// The pace of one fabric.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Whether the latency lane was used since the turn began.
    used: bool,
    in_use: bool,
    until: Time,
    /// Whether something came in this turn for which bulk is to wait, and whether it did in the
    /// turn before.
    came: bool,
    waited: bool,
    /// What posts may still send.
    posts: usize,
}

impl Pace {
    /// A turn begins.
    pub(super) fn turn(&mut self, now: Time) {
        if std::mem::take(&mut self.used) {
            self.until = now + LATELY;
        }
        self.in_use = now < self.until;
        self.came = false;
        self.posts = POSTS_BYTES;
    }

    /// Between two turns, which may be long apart: whether the latency lane is still in use.
    pub(super) fn look_again(&mut self, now: impl FnOnce() -> Time) {
        if self.in_use && !self.used {
            self.in_use = now() < self.until;
        }
    }

    /// The latency lane was used.
    pub(super) fn urge(&mut self) {
        (self.used, self.in_use) = (true, true);
    }

    /// Something came that somebody may have to answer.
    pub(super) fn came(&mut self) {
        self.came = true;
    }

    /// What may be sent of bulk in a turn.
    pub(super) fn sends(&self) -> usize {
        if self.in_use { URGENT_BYTES } else { CALM_BYTES }
    }

    /// What may be received of it, now that the latency streams were listened to: nothing in every
    /// other turn in which something came there that somebody may have to answer.
    pub(super) fn receives(&mut self) -> usize {
        self.waited = self.came && !self.waited;
        if self.waited { 0 } else { self.sends() }
    }

    /// What a post in bulk may send; it gives back what it does not.
    pub(super) fn take_post(&mut self) -> usize {
        if self.in_use { 0 } else { std::mem::take(&mut self.posts) }
    }

    /// What a post has not sent of it.
    pub(super) fn give_back_post(&mut self, bytes: usize) {
        self.posts += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bulk_is_cut_small_only_while_the_latency_lane_is_in_use() {
        let mut pace = Pace::default();
        let now = Time::from_nanos(7);
        pace.turn(now);
        assert_eq!((pace.sends(), pace.receives()), (CALM_BYTES, CALM_BYTES));
        pace.urge();
        for _ in 0..2 {
            // At once, and in the turns that follow.
            assert_eq!(pace.sends(), URGENT_BYTES);
            assert_eq!(pace.take_post(), 0);
            pace.turn(now);
        }
        pace.look_again(|| now);
        assert_eq!(pace.take_post(), 0);
        pace.look_again(|| now + LATELY);
        assert_eq!(pace.take_post(), POSTS_BYTES);
        pace.turn(now + LATELY);
        assert_eq!((pace.sends(), pace.receives()), (CALM_BYTES, CALM_BYTES));
    }

    #[test]
    fn bulk_waits_for_what_is_urgent_but_not_for_ever() {
        let mut pace = Pace::default();
        let mut received = || {
            pace.turn(Time::ZERO);
            pace.came();
            pace.receives()
        };
        let received = [received(), received(), received(), received()];
        assert_eq!(received, [0, CALM_BYTES, 0, CALM_BYTES], "nor is it cut smaller");
        pace.turn(Time::ZERO);
        assert_eq!(pace.receives(), CALM_BYTES, "nothing came: nothing to wait for");
    }

    #[test]
    fn many_posts_send_no_more_than_one() {
        let mut pace = Pace::default();
        pace.turn(Time::ZERO);
        let mut sent = 0;
        for most in [1000, usize::MAX, 1000] {
            let may = pace.take_post();
            let now = may.min(most);
            sent += now;
            pace.give_back_post(may - now);
        }
        assert_eq!(sent, POSTS_BYTES);
        pace.turn(Time::ZERO);
        assert_eq!(pace.take_post(), POSTS_BYTES);
    }
}
