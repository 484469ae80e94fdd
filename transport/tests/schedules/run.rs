//! Runs a program, step by step, and looks at everything in between.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use tranship_transport::fabric::sim::Action;
use tranship_transport::{Access, Region};

use crate::flight::Prepared;
use crate::oracle::message;
use crate::program::{Program, Step};
use crate::world::{LANE_BYTES, LANES, Tally, World};
use crate::{alone, say};

/// What became of a schedule that held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Report {
    /// The hash of all that happened on the network, and how much it was.
    pub(crate) trace: (u64, u64),
    pub(crate) tally: Tally,
}

/// Runs the schedule of a seed; panics where it does not hold.
pub(crate) fn run(seed: u64) -> Report {
    let program = Program::new(seed);
    let mut world = World::new(seed, &program);
    let mut done = 0;
    let held = catch_unwind(AssertUnwindSafe(|| {
        for step in program.steps {
            world.step(step);
            world.look();
            done += 1;
        }
        world.finish();
    }));
    if let Err(panic) = held {
        if alone() == Some(seed) {
            say(&format!("after {done} steps; {:?}", world.network.trace()));
        }
        // Engines that broke a rule are in no state to be closed in order.
        std::mem::forget(world);
        resume_unwind(panic);
    }
    let trace = world.network.trace();
    let tally = world.end();
    Report { trace: (trace.hash, trace.events), tally }
}

impl World {
    fn step(&mut self, step: Step) {
        match step {
            Step::Run(span) => self.pass(span),
            Step::Grant { host, yard, lane, margins } => self.grant(host, yard, lane, margins),
            Step::Move(it) => self.transfer(&it),
            Step::Batch(it) => self.batch(&it),
            Step::Send { from, to, way, bytes, count, deadline } => {
                let Some((life, engine)) = self.living(from) else { return };
                let to = self.host_life(to);
                let Some(peer) = self.peer(&engine, to, way) else { return };
                let number = self.next_id;
                let submission =
                    engine.send(peer, message(number, usize::from(bytes))).into_owned();
                let count = count.and_then(|pick| self.slot_at(to, pick));
                let send = Prepared { submission, count, futile: false, change: None };
                self.launch(life, send, deadline).message = Some(number);
            }
            Step::Signal { from, count, way, lane, deadline } => {
                let Some((life, engine)) = self.living(from) else { return };
                let count = count as usize % self.counts.len();
                let Some(peer) = self.peer(&engine, self.counts[count].life, way) else { return };
                let submission =
                    engine.signal(peer, self.counts[count].slot).lane(lane).into_owned();
                let count = Some(count);
                let signal = Prepared { submission, count, futile: false, change: None };
                self.launch(life, signal, deadline);
            }
            Step::Cancel { transfer } => self.cancel(transfer),
            Step::CancelBatch { batch } => self.cancel_batch(batch),
            Step::Revoke { window, wait } => {
                if let Some(offer) = self.pick_offer(window) {
                    self.revoke(offer, wait);
                }
            }
            Step::DropWindow { window } => {
                if let Some(offer) = self.pick_offer(window) {
                    self.offers[offer].open = false;
                    self.offers[offer].window = None;
                }
            }
            Step::CloseRegion { host, yard, wait } => self.close_region(host, yard, wait),
            Step::RenewCounter { counter } => {
                let count = counter as usize % self.counts.len();
                let life = self.counts[count].life;
                if self.counts[count].counter.take().is_some() {
                    let new = self.count(life);
                    let counters = &mut self.lives[life].counters;
                    counters.iter_mut().filter(|it| **it == count).for_each(|it| *it = new);
                }
            }
            Step::Meet { but } => self.meet(but),
            Step::Come { member, wait } => self.come(member, wait),
            Step::ComeAll { first, wait } => self.come_all(first, wait),
            Step::Bump { from, host, deadline } => self.bump(from, host, deadline),
            Step::Rewatch { host } => self.rewatch(host),
            Step::AwaitWord { host, wait } => self.await_word(host, wait),
            Step::Disconnect { from, to } => {
                let Some((_, engine)) = self.living(from) else { return };
                for peer in self.peers(&engine, self.host_life(to)) {
                    engine.disconnect(peer);
                }
            }
            Step::Faults(faults) => self.network.set_faults(faults),
            Step::Pause { host } => {
                self.addresses(host).iter().for_each(|at| self.network.pause(at));
            }
            Step::Resume { host } => self.resume(host),
            Step::Cut { a, b, way } => self.cut(a, b, way),
            Step::Unplug { host, way } => {
                // One fabric alone, where there are several.
                let way = way % self.addresses(host).len() as u64;
                (0..self.hosts.len() as u64).for_each(|other| self.cut(host, other, way));
            }
            Step::Heal { a, b } => self.heal(a, b),
            Step::Kill { host } => {
                let Some((life, engine)) = self.living(host) else { return };
                drop(engine);
                // What landed before it died may have.
                self.look();
                for address in self.addresses(host) {
                    self.network.act(Action::Kill(address));
                }
                let dead = self.bury(life);
                drop(dead);
            }
            Step::CloseEngine { host, wait } => {
                let Some((life, engine)) = self.living(host) else { return };
                // A hung host closes nothing.
                self.resume(host);
                let closed = engine.close(wait);
                self.closed(life);
                drop((engine, closed));
            }
            Step::Restart { host, fabrics } => {
                if self.living(host).is_none() {
                    self.start(self.host(host), fabrics);
                }
            }
        }
    }

    /// Lets time pass, looking now and then.
    pub(crate) fn pass(&mut self, span: Duration) {
        for _ in 0..4 {
            self.network.run_for(span / 4);
            self.look();
        }
    }

    fn resume(&self, host: u64) {
        self.addresses(host).iter().for_each(|at| self.network.resume(at));
    }

    /// Cuts two hosts apart: over one fabric, or over all.
    fn cut(&self, a: u64, b: u64, way: u64) {
        let (from, to) = (self.addresses(a), self.addresses(b));
        for (at, (from, to)) in from.iter().zip(&to).enumerate() {
            if way % 3 == at as u64 || way % 3 == 2 {
                self.network.cut(from, to);
            }
        }
    }

    fn heal(&self, a: u64, b: u64) {
        for (from, to) in self.addresses(a).iter().zip(&self.addresses(b)) {
            self.network.heal(from, to);
        }
    }

    /// All hosts go on and all cuts are healed.
    pub(crate) fn heal_all(&self) {
        for a in 0..self.hosts.len() as u64 {
            self.resume(a);
            (0..=a).for_each(|b| self.heal(a, b));
        }
    }

    /// One of an engine's counters.
    pub(crate) fn slot_at(&self, life: usize, pick: u64) -> Option<usize> {
        let counters = &self.lives[life].counters;
        Some(counters[pick as usize % counters.len()])
    }

    fn grant(&mut self, host: u64, yard: u64, lane: u64, margins: [u8; 2]) {
        let Some((life, _)) = self.living(host) else { return };
        let yards = &self.lives[life].yards;
        let yard = yards[yard as usize % yards.len()];
        let lane = lane as usize % LANES;
        if self.yards[yard].lanes[lane].is_some() {
            return;
        }
        let from = lane as u64 * LANE_BYTES;
        let range = from + u64::from(margins[0])..from + LANE_BYTES - u64::from(margins[1]);
        self.offer(yard, lane, range, Access::WRITE);
    }

    /// An offer that somebody still holds.
    fn pick_offer(&self, pick: u64) -> Option<usize> {
        let held: Vec<_> =
            (0..self.offers.len()).filter(|at| self.offers[*at].window.is_some()).collect();
        held.get(pick as usize % held.len().max(1)).copied()
    }

    pub(crate) fn revoke(&mut self, offer: usize, wait: Duration) {
        let Some(window) = self.offers[offer].window.take() else { return };
        self.offers[offer].open = false;
        let revoked = window.revoke_within(wait);
        self.look();
        match revoked {
            Ok(()) => self.fenced(offer),
            Err(error) => self.offers[offer].window = Some(error.window),
        }
    }

    fn close_region(&mut self, host: u64, yard: u64, wait: Duration) {
        let Some((life, _)) = self.living(host) else { return };
        let at = yard as usize % self.lives[life].yards.len();
        let yard = self.lives[life].yards[at];
        let Some(region) = self.yards[yard].region.take() else { return };
        for offer in self.offers.iter_mut().filter(|offer| offer.yard == yard) {
            offer.open = false;
        }
        self.try_close(yard, region, wait);
        let new = self.region(life);
        self.lives[life].yards[at] = new;
    }

    pub(crate) fn try_close(&mut self, yard: usize, region: Region, wait: Duration) -> bool {
        let closed = region.close(wait);
        self.look();
        match closed {
            Ok(()) => {
                self.fence_yard(yard);
                true
            }
            Err(error) => {
                self.closing.push((yard, error.region));
                false
            }
        }
    }

    /// An engine was closed: all its transfers have ended, and nothing touches its memory.
    pub(crate) fn closed(&mut self, life: usize) {
        self.look();
        for flight in self.flights.iter().filter(|flight| flight.life == life) {
            assert!(flight.outcome.is_some(), "transfer {} outlived its engine", flight.id);
        }
        let engine = self.bury(life);
        drop(engine);
    }
}
