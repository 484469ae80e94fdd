//! Barriers of a schedule: who has come, and who may go on.

use std::time::Duration;

use tranship_transport::{Barrier, Engine};

use crate::world::World;

/// One of those that meet.
pub(crate) struct Member {
    pub(crate) life: usize,
    /// None once its engine has ended.
    pub(crate) barrier: Option<Barrier>,
    /// Rounds that it came to, and those of them that it passed.
    came: u64,
    passed: u64,
}

impl World {
    /// Those that live meet from now on, or all but one. A barrier that was goes with all that was
    /// under way for it.
    pub(crate) fn meet(&mut self, but: u64) {
        let mut living = self.all_living();
        if living.len() > 2 && but.is_multiple_of(3) {
            living.remove((but / 3) as usize % living.len());
        }
        let meets = |(_, from): &(usize, Engine), to: usize| !self.peers(from, to).is_empty();
        if living.len() < 2 || !living.iter().all(|a| living.iter().all(|(b, _)| meets(a, *b))) {
            return;
        }
        self.meeting.clear();
        let others = living.len() - 1;
        for (life, engine) in living {
            let barrier = Some(Barrier::new(&engine, others).expect("there are enough counters"));
            self.meeting.push(Member { life, barrier, came: 0, passed: 0 });
        }
        let barriers = || self.meeting.iter().filter_map(|member| member.barrier.as_ref());
        let mut invitations: Vec<_> = barriers().map(Barrier::invitation).collect();
        for member in &mut self.meeting {
            // In any order, and its own among them.
            invitations.rotate_left(1);
            let barrier = member.barrier.as_mut().expect("just made");
            for invitation in &invitations {
                barrier.join(invitation).expect("all speak a common fabric");
            }
            assert_eq!(barrier.others(), others);
        }
    }

    /// All members come, each once, from one of them on.
    pub(crate) fn come_all(&mut self, first: u64, wait: Duration) {
        for at in 0..self.meeting.len() as u64 {
            self.come(first.wrapping_add(at), wait);
        }
    }

    /// A member comes, stays for a while, and goes on only if it may.
    pub(crate) fn come(&mut self, member: u64, wait: Duration) {
        let at = member as usize % self.meeting.len().max(1);
        let Some(Member { barrier: Some(barrier), came, passed, life }) = self.meeting.get_mut(at)
        else {
            return;
        };
        *came = *passed + 1;
        let (round, life) = (*passed, *life);
        match barrier.wait(wait) {
            Ok(()) => {
                *passed += 1;
                self.tally.reached[0] += 1;
                for other in &self.meeting {
                    assert!(
                        other.came > round,
                        "engine {life} passed round {round}, engine {} came to {} rounds",
                        other.life,
                        other.came
                    );
                }
            }
            Err(error) => {
                assert_eq!(error.round, round, "engine {life}: {error}");
                let others = self.meeting.len() - 1;
                assert!(error.missing <= others as u64, "engine {life}: {error}");
                assert!(error.unreached.len() <= others, "engine {life}: {error}");
                assert!(error.missing > 0 || !error.unreached.is_empty(), "{error}");
            }
        }
        self.look();
    }

    /// All is well again: those that are behind catch up, and all pass another round.
    pub(crate) fn meet_again(&mut self) {
        if self.meeting.iter().any(|member| member.barrier.is_none()) {
            return;
        }
        let passed = || self.meeting.iter().map(|member| member.passed);
        let (least, most) = (passed().min().unwrap_or(0), passed().max().unwrap_or(0));
        assert!(most - least <= 1, "members are {} rounds apart", most - least);
        for goal in least..most + 2 {
            // The last to come finds all others there; they have to look again.
            for _ in 0..2 {
                for at in 0..self.meeting.len() {
                    if self.meeting[at].passed <= goal {
                        self.come(at as u64, Duration::from_millis(1));
                    }
                }
            }
            for Member { life, passed, .. } in &self.meeting {
                assert_eq!(*passed, goal + 1, "engine {life} is left at the barrier");
            }
        }
    }
}
