//! A turn of the fabric: what one poll does; and going to sleep.

use std::time::Duration;

use super::doorbell;
use super::fabric::Shm;
use super::job::{Job, Stage};
use super::jobs::Turn;
use super::peers::{Ghost, State};
use super::watch::Ready;
use super::wire::Packet;
use crate::fabric::{Event, PeerId, Posted, Status};
use crate::outcome::Reason;

/// How long descriptors are left alone while rings keep us busy; looking costs a system call.
const LOOK_EVERY: Duration = Duration::from_micros(100);
/// Peers whose rings are looked at in the middle of a chunk: as many as cost next to nothing.
const LOOK_AT_PEERS: usize = 16;
/// The first and the longest nap while a window is fenced: withdrawing a claim rings no doorbell.
const FENCE_NAP_MIN: Duration = Duration::from_micros(200);
const FENCE_NAP_MAX: Duration = Duration::from_millis(20);
/// How often a full listener is called again.
const REDIAL_EVERY: Duration = Duration::from_millis(2);

impl Shm {
    /// See [`Fabric::poll`](crate::fabric::Fabric::poll).
    pub(super) fn take_turn(&mut self, messages_max: usize, events: &mut Vec<Event>) -> bool {
        if self.sleeper.asleep() {
            self.sleeper.get_up(self.control.epoch());
            self.look = true;
        }
        self.wants_messages = messages_max > 0;
        let mut worked = false;
        let now = self.clock.now();
        if self.look || now.since(self.looked) >= LOOK_EVERY {
            self.looked = now;
            worked |= self.look_around();
        }
        worked |= self.reap();
        worked |= self.advance_jobs();
        // Last, so that what arrived meanwhile waits for no other chunk before it is reported.
        self.receive(messages_max);
        if !self.fencing.is_empty() {
            self.check_fences();
        }
        worked |= !self.reports.is_empty();
        events.append(&mut self.reports);
        worked
    }

    /// Looks at all descriptors.
    fn look_around(&mut self) -> bool {
        let mut sights = std::mem::take(&mut self.sights);
        self.watch.look(&mut sights);
        for sight in &sights {
            match sight.ready {
                Ready::Doorbell => doorbell::clear(&*self.doorbell),
                Ready::Alarm => self.watch.alarmed(),
                Ready::Caller => self.answer_callers(),
                Ready::Socket(peer) => self.hear(peer),
                Ready::Death(peer) => self.mourn(peer),
            }
        }
        self.watch_the_clock();
        self.look = self.peers.iter().any(super::peers::Peer::is_talking);
        let found = !sights.is_empty();
        self.sights = sights;
        found
    }

    /// The process at the other end of a connection has died.
    fn mourn(&mut self, peer: PeerId) {
        if let Some(index) = self.find(peer) {
            self.hang_up(index, Reason::PeerGone, true);
            if let Some(index) = self.find(peer) {
                // What it said before is in the rings; the pidfd stays readable for ever.
                self.peers[index].process = None;
            }
        }
        self.ghosts.retain(|ghost| ghost.id != peer);
    }

    /// Reports what has arrived and pays what is owed, peer by peer.
    fn receive(&mut self, mut messages: usize) {
        let count = self.peers.len();
        let mut ending = false;
        for step in 0..count {
            let index = (self.turn + step) % count;
            let peer = &mut self.peers[index];
            let result = match &mut peer.state {
                State::Up(link) => {
                    let received = link.receive(peer.id, &mut messages, &mut self.reports);
                    received.and_then(|_| link.pay(&mut self.reports))
                }
                State::Ending { link, drain: true, .. } => {
                    ending = true;
                    link.receive(peer.id, &mut messages, &mut self.reports).map(|_| ())
                }
                State::Ending { .. } => {
                    ending = true;
                    Ok(())
                }
                _ => Ok(()),
            };
            if let Err(broken) = result {
                self.give_up(index, broken);
                ending = true;
            }
        }
        self.turn = if count == 0 { 0 } else { (self.turn + 1) % count };
        if ending {
            self.bury();
        }
    }

    /// Takes back the chunks that the copying threads have done.
    pub(super) fn reap(&mut self) -> bool {
        let mut worked = false;
        while let Some(back) = self.pool.reap() {
            worked = true;
            if let Some(turn) = self.jobs.with(back.op, |job| job.take_back(back.len, back.copied))
            {
                self.after(turn);
            }
        }
        worked
    }

    /// Moves the jobs on by a bounded amount, in turns: a chunk for each idle copying thread, and
    /// one here.
    pub(super) fn advance_jobs(&mut self) -> bool {
        let mut worked = false;
        while self.pool.has_room() {
            let pool = &mut self.pool;
            let Some(turn) = self.jobs.next(|job| pool.submit(job.issue())) else { break };
            self.after(turn);
            worked = true;
        }
        let (peers, first, messages) = (&mut self.peers, self.turn, self.wants_messages);
        let arrived = || {
            let count = peers.len();
            (0..count.min(LOOK_AT_PEERS)).any(|step| {
                match &mut peers[(first + step) % count].state {
                    State::Up(link) => link.has_arrivals(messages),
                    _ => false,
                }
            })
        };
        // SAFETY: the engine keeps its side of a transfer until the job ends, the crossing the
        // other; this is the thread that polls.
        if let Some(turn) = self.jobs.next(|job| unsafe { job.copy(arrived) }) {
            self.after(turn);
            worked = true;
        }
        worked
    }

    /// Reports the end of a job, if it is one.
    pub(super) fn after(&mut self, turn: Turn) {
        let Turn::Over(job) = turn else { return };
        match job.stage() {
            Stage::Ended(status) => self.reports.push(Event::Completed { op: job.op, status }),
            _ => self.complete(&job),
        }
    }

    /// Stops the jobs of one peer, or all.
    pub(super) fn stop_jobs(&mut self, of: Option<PeerId>, reason: Reason) {
        for turn in self.jobs.stop(of, reason) {
            self.after(turn);
        }
    }

    /// All bytes of a job are in place.
    fn complete(&mut self, job: &Job) {
        let op = job.op;
        let up = self.find(job.peer).and_then(|index| match &mut self.peers[index].state {
            State::Up(link) => Some((index, link.finish(op, job.lane, job.immediate))),
            _ => None,
        });
        let status = match up {
            Some((_, Ok(Posted::Pending))) => return,
            Some((_, Ok(_))) => Status::Done,
            None if job.immediate.is_none() => Status::Done,
            None => Status::Stopped(Reason::PeerGone),
            Some((index, Err(broken))) => {
                self.give_up(index, broken);
                Status::Stopped(Reason::Failed)
            }
        };
        self.reports.push(Event::Completed { op, status });
    }

    /// Ends the connections whose last chunk has come back and whose last record was taken.
    pub(super) fn bury(&mut self) {
        let closed = self.is_closed();
        let mut index = 0;
        while index < self.peers.len() {
            let peer = &mut self.peers[index];
            let over = match &mut peer.state {
                State::Ending { link, drain, .. } => {
                    let id = peer.id;
                    (closed || !*drain || !link.has_arrivals(true)) && !self.jobs.has_peer(id)
                }
                _ => false,
            };
            if !over {
                index += 1;
                continue;
            }
            let mut peer = self.peers.remove(index);
            let State::Ending { link, reason, gone, .. } = peer.state else { continue };
            if let Some(line) = &mut peer.line {
                let _ = line.send(Packet::Bye, Vec::new());
            }
            if !gone && let Some(mut line) = peer.line {
                line.say_no_more();
                self.ghosts.push(Ghost {
                    id: peer.id,
                    line,
                    _process: peer.process,
                    connection: link.connection.clone(),
                });
            }
            self.reports.push(Event::PeerDown { peer: peer.id, reason });
        }
    }

    /// See [`Fabric::arm`](crate::fabric::Fabric::arm).
    pub(super) fn prepare_sleep(&mut self) -> bool {
        if self.jobs.can_go_on() || !self.reports.is_empty() {
            return false;
        }
        self.sleeper.lie_down(self.control.epoch());
        if self.has_work() {
            self.sleeper.get_up(self.control.epoch());
            // The doorbell may have been rung meanwhile.
            self.look = true;
            return false;
        }
        let alarm = self.next_alarm();
        self.watch.set_alarm(alarm);
        true
    }

    fn has_work(&mut self) -> bool {
        if !self.fencing.is_empty() {
            self.check_fences();
        }
        if self.pool.has_returned() || !self.reports.is_empty() {
            return true;
        }
        let messages = self.wants_messages;
        self.peers.iter_mut().any(|peer| match &mut peer.state {
            State::Up(link) => link.has_arrivals(messages) || link.has_room_again(),
            State::Ending { link, drain, .. } => {
                let id = peer.id;
                let copying = self.jobs.has_peer(id);
                if *drain && link.has_arrivals(true) {
                    link.has_arrivals(messages)
                } else {
                    !copying
                }
            }
            _ => false,
        })
    }

    fn next_alarm(&mut self) -> Option<Duration> {
        let now = self.clock.now();
        let mut alarm: Option<Duration> = None;
        let mut ring = |after: Duration| alarm = Some(alarm.map_or(after, |it| it.min(after)));
        for peer in &self.peers {
            if let Some(until) = peer.until() {
                ring(until.since(now));
            }
            if let State::Dialling { .. } = peer.state {
                ring(REDIAL_EVERY);
            }
        }
        if let Some(until) = self.deaf_until {
            ring(until.since(now));
        }
        if !self.fencing.is_empty() {
            ring((FENCE_NAP_MIN * 2u32.pow(self.fencing_naps.min(16))).min(FENCE_NAP_MAX));
            self.fencing_naps += 1;
        }
        alarm
    }
}
