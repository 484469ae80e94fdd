//! The large transfers under way, and whose turn it is.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use super::job::{Job, Stage};
use crate::fabric::{OpId, PeerId};
use crate::lane::Lane;
use crate::outcome::Reason;

/// Chunks in a row for the latency lane while bulk waits; then bulk gets one, so that it goes on
/// whatever comes.
const LATENCY_CHUNKS_MAX: u32 = 16;

/// The jobs. Those that can go on are in turns: the peers of a lane, and the jobs of a peer.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    all: HashMap<OpId, Job>,
    turns: [Turns; 2],
    /// Chunks in a row that went to the latency lane.
    favoured: u32,
}

/// Who is next in a lane. Jobs that ended out of turn are skipped when they come up.
#[derive(Debug, Default)]
struct Turns {
    peers: VecDeque<PeerId>,
    jobs: HashMap<PeerId, VecDeque<OpId>>,
    /// Entries, and how many of them are of jobs that still are in turns.
    entries: usize,
    live: usize,
}

impl Jobs {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether one of them can go on at once.
    pub(super) fn can_go_on(&self) -> bool {
        self.turns.iter().any(|turns| turns.live > 0)
    }

    /// Whether some are of this peer.
    pub(super) fn has_peer(&self, peer: PeerId) -> bool {
        self.all.values().any(|job| job.peer == peer)
    }

    pub(super) fn add(&mut self, job: Job) {
        let (op, peer, lane) = (job.op, job.peer, job.lane);
        self.all.insert(op, job);
        self.turns[lane.index()].append(peer, op);
    }

    /// Lets `act` work on the job whose turn it is, which can be issued a chunk, and returns the
    /// job if nothing is left to wait for.
    pub(super) fn next(&mut self, act: impl FnOnce(&mut Job)) -> Option<Turn> {
        let (op, lane) = self.choose()?;
        let job = self.all.get_mut(&op).expect("in turns");
        act(job);
        let (peer, stage) = (job.peer, job.stage());
        if stage == Stage::Copying {
            self.turns[lane.index()].append(peer, op);
        }
        Some(self.settle(op, stage))
    }

    /// Lets `act` work on a job out of turn.
    pub(super) fn with(&mut self, op: OpId, act: impl FnOnce(&mut Job)) -> Option<Turn> {
        let job = self.all.get_mut(&op)?;
        let before = job.stage();
        act(job);
        let (lane, stage) = (job.lane, job.stage());
        if before == Stage::Copying && stage != Stage::Copying {
            self.turns[lane.index()].live -= 1;
            self.tidy(lane);
        }
        Some(self.settle(op, stage))
    }

    /// Stops all jobs, or those of one peer; what is left of each.
    pub(super) fn stop(&mut self, of: Option<PeerId>, reason: Reason) -> Vec<Turn> {
        let chosen = |job: &&Job| of.is_none_or(|peer| job.peer == peer);
        let ops: Vec<OpId> = self.all.values().filter(chosen).map(|job| job.op).collect();
        ops.into_iter().filter_map(|op| self.with(op, |job| job.stop(reason))).collect()
    }

    fn settle(&mut self, op: OpId, stage: Stage) -> Turn {
        match stage {
            Stage::Copying | Stage::Awaiting => Turn::GoesOn,
            Stage::Copied | Stage::Ended(_) => {
                let job = self.all.remove(&op).expect("known");
                self.turns[job.lane.index()].forget(job.peer);
                Turn::Over(job)
            }
        }
    }

    fn choose(&mut self) -> Option<(OpId, Lane)> {
        let [latency, bulk] =
            [Lane::Latency, Lane::Bulk].map(|lane| self.turns[lane.index()].live > 0);
        let lane = match (latency, bulk) {
            (true, true) if self.favoured >= LATENCY_CHUNKS_MAX => Lane::Bulk,
            (true, _) => Lane::Latency,
            (false, true) => Lane::Bulk,
            (false, false) => return None,
        };
        self.favoured =
            if latency && bulk && lane == Lane::Latency { self.favoured + 1 } else { 0 };
        let all = &self.all;
        let op = self.turns[lane.index()].take(|op| goes_on(all, op))?;
        Some((op, lane))
    }

    /// Throws away the entries of jobs that ended out of turn, once they are the most.
    fn tidy(&mut self, lane: Lane) {
        let turns = &mut self.turns[lane.index()];
        if turns.entries > 64 && turns.entries > 2 * turns.live {
            turns.jobs.retain(|_, jobs| {
                jobs.retain(|op| goes_on(&self.all, *op));
                !jobs.is_empty()
            });
            turns.peers.retain(|peer| turns.jobs.contains_key(peer));
            turns.entries = turns.live;
        }
    }
}

fn goes_on(all: &HashMap<OpId, Job>, op: OpId) -> bool {
    all.get(&op).is_some_and(|job| job.stage() == Stage::Copying)
}

/// What came of a job that was worked on.
#[derive(Debug)]
#[must_use]
pub(super) enum Turn {
    /// More is to come.
    GoesOn,
    /// It is in no list any more.
    Over(Job),
}

impl Turns {
    fn append(&mut self, peer: PeerId, op: OpId) {
        self.entries += 1;
        self.live += 1;
        let jobs = self.jobs.entry(peer).or_default();
        if jobs.is_empty() {
            self.peers.push_back(peer);
        }
        jobs.push_back(op);
    }

    /// Forgets a peer without jobs. Between the chunks of one job its empty list stays.
    fn forget(&mut self, peer: PeerId) {
        if let Entry::Occupied(jobs) = self.jobs.entry(peer)
            && jobs.get().is_empty()
        {
            jobs.remove();
        }
    }

    /// Takes the next job out of the turns.
    fn take(&mut self, live: impl Fn(OpId) -> bool) -> Option<OpId> {
        while let Some(peer) = self.peers.pop_front() {
            let Some(jobs) = self.jobs.get_mut(&peer) else { continue };
            let mut taken = None;
            while taken.is_none()
                && let Some(op) = jobs.pop_front()
            {
                self.entries -= 1;
                taken = live(op).then_some(op);
            }
            if !jobs.is_empty() {
                self.peers.push_back(peer);
            } else if taken.is_none() {
                self.forget(peer);
            }
            if taken.is_some() {
                self.live -= 1;
                return taken;
            }
        }
        None
    }
}
