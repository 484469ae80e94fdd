//! A turn of the fabric: what one poll does; and going to sleep.

use std::time::Duration;

use super::doorbell;
use super::fabric::Shm;
use super::job::{Job, Stage};
use super::peers::{Ghost, State};
use super::watch::Ready;
use super::wire::Packet;
use crate::fabric::{Event, PeerId, Posted, Status};
use crate::outcome::Reason;

/// How long descriptors are left alone while rings keep us busy; looking costs a system call.
const LOOK_EVERY: Duration = Duration::from_micros(100);
/// Jobs looked at in one turn; one of them gets a chunk, and one for each idle copying thread.
const JOBS_PER_TURN: usize = 64;
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
        self.receive(messages_max);
        worked |= self.reap();
        worked |= self.advance_jobs();
        if !self.fencing.is_empty() {
            self.check_fences();
        }
        worked |= !self.reports.is_empty();
        events.append(&mut self.reports);
        worked
    }

    /// Looks at all descriptors.
    fn look_around(&mut self) -> bool {
        let ready = self.watch.look();
        for &ready in &ready {
            match ready {
                Ready::Doorbell => doorbell::clear(&*self.doorbell),
                Ready::Alarm => self.watch.alarmed(),
                Ready::Caller => self.answer_callers(),
                Ready::Socket(peer) => self.hear(peer),
                Ready::Death(peer) => self.mourn(peer),
            }
        }
        self.watch_the_clock();
        self.look = self.peers.iter().any(super::peers::Peer::is_talking);
        !ready.is_empty()
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
                    received.and_then(|_| {
                        if link.owed.is_empty() { Ok(()) } else { link.pay(&mut self.reports) }
                    })
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
            if let Some(job) = self.jobs.iter_mut().find(|job| job.id == back.job) {
                job.take_back(back.len, back.copied);
            }
        }
        worked
    }

    /// Moves the jobs on by a bounded amount, in turns.
    pub(super) fn advance_jobs(&mut self) -> bool {
        let mut worked = false;
        let mut copied = false;
        for _ in 0..self.jobs.len().min(JOBS_PER_TURN) {
            let Some(mut job) = self.jobs.pop_front() else { break };
            while job.stage() == Stage::Copying && self.pool.has_room() {
                self.pool.submit(job.issue());
                worked = true;
            }
            if job.stage() == Stage::Copying && !copied {
                let chunk = job.issue();
                // SAFETY: the engine keeps its side of the transfer until the job ends, the
                // crossing the other; the thread that polls is copier 0.
                let done = unsafe { chunk.copy(0) };
                job.take_back(chunk.len, done);
                copied = true;
                worked = true;
            }
            match job.stage() {
                Stage::Copying | Stage::Awaiting => self.jobs.push_back(job),
                Stage::Ended(status) => {
                    worked = true;
                    self.reports.push(Event::Completed { op: job.op, status });
                }
                Stage::Copied => {
                    worked = true;
                    self.complete(&job);
                }
            }
        }
        worked
    }

    /// All bytes of a job are in place.
    fn complete(&mut self, job: &Job) {
        let op = job.op;
        let up = self.find(job.peer).and_then(|index| match &mut self.peers[index].state {
            State::Up(link) => Some((index, link.finish(op, job.immediate))),
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
                    (closed || !*drain || !link.has_arrivals(true))
                        && !self.jobs.iter().any(|job| job.peer == id)
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
        let busy = self.jobs.iter().any(|job| match job.stage() {
            Stage::Copying | Stage::Copied | Stage::Ended(_) => true,
            Stage::Awaiting => false,
        });
        if busy || !self.reports.is_empty() {
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
                let copying = self.jobs.iter().any(|job| job.peer == id);
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
