//! Runs a program, step by step, and looks at everything in between.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use tranship_transport::fabric::sim::{Action, Census, Faults};
use tranship_transport::{Access, Lane, Outcome, Pages, Plan, Region, Submission, Time};

use crate::dice::Dice;
use crate::oracle::message;
use crate::program::{Move, Program, Step};
use crate::world::{Flight, LANE_BYTES, LANES, Offer, REGION_BYTES, World};
use crate::{alone, say};

/// What became of a schedule that held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Report {
    /// The hash of all that happened on the network, and how much it was.
    pub(crate) trace: (u64, u64),
    /// Transfers that ended as done, rejected, fenced and lost.
    pub(crate) ends: [u64; 4],
}

/// Runs the schedule of a seed; panics where it does not hold.
pub(crate) fn run(seed: u64) -> Report {
    let program = Program::new(seed);
    let mut world = World::new(seed, program.hosts);
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
    let report = Report { trace: (trace.hash, trace.events), ends: world.ends };
    world.end();
    report
}

impl World {
    fn step(&mut self, step: Step) {
        match step {
            Step::Run(span) => self.pass(span),
            Step::Grant { host, yard, lane, margins } => self.grant(host, yard, lane, margins),
            Step::Move(it) => self.transfer(&it),
            Step::Send { from, to, bytes, count, deadline } => {
                let Some((life, engine)) = self.living(from) else { return };
                let address = self.address(to);
                let peer = self.peer(engine, &address);
                let number = self.next_id;
                let send = engine.send(peer, message(number, usize::from(bytes))).into_owned();
                let count = count.and_then(|pick| self.slot_at(self.host_life(to), pick));
                let flight = self.launch(life, send, count, deadline);
                flight.message = Some(number);
            }
            Step::Signal { from, count, lane, deadline } => {
                let Some((life, engine)) = self.living(from) else { return };
                let count = count as usize % self.counts.len();
                let address = self.lives[self.counts[count].life].address.clone();
                let peer = self.peer(engine, &address);
                let signal = engine.signal(peer, self.counts[count].slot).lane(lane).into_owned();
                self.launch(life, signal, Some(count), deadline);
            }
            Step::Cancel { transfer } => {
                let flying: Vec<_> =
                    self.flights.iter().filter(|flight| flight.outcome.is_none()).collect();
                if !flying.is_empty() {
                    flying[transfer as usize % flying.len()].transfer.cancel();
                }
            }
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
            Step::Disconnect { from, to } => {
                let Some((_, engine)) = self.living(from) else { return };
                engine.disconnect(self.peer(engine, &self.address(to)));
            }
            Step::Faults(faults) => self.network.set_faults(faults),
            Step::Pause { host } => self.network.pause(&self.address(host)),
            Step::Resume { host } => self.network.resume(&self.address(host)),
            Step::Cut { a, b } => self.network.cut(&self.address(a), &self.address(b)),
            Step::Heal { a, b } => self.network.heal(&self.address(a), &self.address(b)),
            Step::Kill { host } => {
                let Some((life, _)) = self.living(host) else { return };
                // What landed before it died may have.
                self.look();
                self.network.act(Action::Kill(self.address(host)));
                let dead = self.bury(life);
                drop(dead);
            }
            Step::CloseEngine { host, wait } => {
                let Some((life, engine)) = self.living(host) else { return };
                // A hung host closes nothing.
                self.network.resume(&self.address(host));
                let engine = engine.clone();
                let closed = engine.close(wait);
                self.closed(life);
                drop((engine, closed));
            }
            Step::Restart { host } => {
                let at = host as usize % self.hosts.len();
                if self.lives[self.hosts[at]].engine.is_none() {
                    let address = self.address(host);
                    self.hosts[at] = self.start(Some(&address));
                }
            }
        }
    }

    /// Lets time pass, looking now and then.
    fn pass(&mut self, span: Duration) {
        for _ in 0..4 {
            self.network.run_for(span / 4);
            self.look();
        }
    }

    fn host_life(&self, pick: u64) -> usize {
        self.hosts[pick as usize % self.hosts.len()]
    }

    /// One of an engine's counters.
    fn slot_at(&self, life: usize, pick: u64) -> Option<usize> {
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

    fn revoke(&mut self, offer: usize, wait: Duration) {
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

    fn try_close(&mut self, yard: usize, region: Region, wait: Duration) -> bool {
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
    fn closed(&mut self, life: usize) {
        self.look();
        for flight in self.flights.iter().filter(|flight| flight.life == life) {
            assert!(flight.outcome.is_some(), "transfer {} outlived its engine", flight.id);
        }
        let engine = self.bury(life);
        drop(engine);
    }

    fn launch(
        &mut self,
        life: usize,
        submission: Submission<'_>,
        count: Option<usize>,
        deadline: Duration,
    ) -> &mut Flight {
        let id = self.next_id;
        self.next_id += 1;
        let submission = match count {
            Some(count) => submission.immediate(self.counts[count].slot),
            None => submission,
        };
        if let Some(count) = count {
            let carried = self.carried(count);
            carried.sent += 1;
            if carried.sent == 1 {
                carried.first = id;
            }
        }
        let until: Time = self.network.clock().now() + deadline;
        let transfer = submission.deadline(deadline).submit().expect("the queue has room");
        self.flights.push(Flight {
            id,
            life,
            transfer,
            deadline: until,
            outcome: None,
            permit: None,
            offer: None,
            count,
            futile: false,
            message: None,
        });
        self.flights.last_mut().expect("just pushed")
    }

    /// The window a move goes to: mostly one that is open, now and then one closed long ago.
    fn window_for(&self, it: &Move) -> Option<usize> {
        let wanted = if it.reads { Access::READ } else { Access::WRITE };
        let fit = |at: &usize| {
            let offer = &self.offers[*at];
            offer.access == wanted && (offer.open || it.window.is_multiple_of(7))
        };
        let offers: Vec<_> = (0..self.offers.len()).filter(fit).collect();
        offers.get(it.window as usize / 7 % offers.len().max(1)).copied()
    }

    fn transfer(&mut self, it: &Move) {
        let Some((life, engine)) = self.living(it.from) else { return };
        let engine = engine.clone();
        let Some(offer) = self.window_for(it) else { return };
        let Offer { yard: theirs, ref range, open, .. } = self.offers[offer];
        let (start, room) = (range.start, range.end - range.start);
        let len = u64::from(it.bytes).min(room);
        // What reaches out of the window has its last bytes just there.
        let at = if it.beyond > 0 { room - len } else { self.dice.below(room - len + 1) };
        let reach = len + u64::from(it.beyond);
        let mut descriptor = self.offers[offer].descriptor.clone();
        descriptor.len = u64::MAX;
        let remote = engine.open(&descriptor).expect("all speak the same fabric");
        let remote = remote.slice(at..at + reach).expect("the descriptor says so");
        let ours = match it.reads {
            true => self.lives[life].yards[self.dice.below(2) as usize],
            false => self.lives[life].shelf,
        };
        let local_at = self.dice.below(REGION_BYTES - reach + 1);
        let Some(region) = &self.yards[ours].region else { return };
        let local = region.slice(local_at..local_at + reach).expect("in the region");

        // Which bytes of each side, in order: worked out here, not by the plan that is under test.
        let (here, there) = match it.pieces {
            None => ((0..reach).collect(), (0..reach).collect()),
            Some(seed) => pieces(&mut Dice::new(seed), reach),
        };
        let plan = it.pieces.map(|_| {
            let pages = |offsets: &[u64]| {
                Pages::ranges(offsets.iter().map(|at| *at..*at + 1)).expect("few and small")
            };
            Plan::new(pages(&here), pages(&there)).expect("equally many")
        });
        let submission = match (&plan, it.reads) {
            (None, false) => engine.write(local, remote),
            (None, true) => engine.read(remote, local),
            (Some(plan), false) => engine.write_paged(&local, &remote, plan),
            (Some(plan), true) => engine.read_paged(&remote, &local, plan),
        };
        let furthest = there.last().map_or(0, |last| last + 1);
        let futile = !open || at + furthest > room;
        let here = here.iter().map(|offset| local_at + offset);
        let there = there.iter().map(|offset| start + at + offset);
        let (source, target, pairs): (_, _, Vec<_>) = match it.reads {
            true => (theirs, ours, there.zip(here).collect()),
            false => (ours, theirs, here.zip(there).collect()),
        };
        // Slots of counters that are gone stay in use, too.
        let owner = self.yards[theirs].life;
        let count = it.count.and_then(|pick| self.slot_at(owner, pick));
        let id = self.next_id;
        let flight =
            self.launch(life, submission.lane(it.lane).priority(it.priority), count, it.deadline);
        flight.futile = futile;
        if !futile {
            flight.permit = Some(target);
            flight.offer = (!it.reads).then_some(offer);
            let bytes = self.yards[source].shadow.bytes();
            let value = |(from, to): (u64, u64)| (to as u16, bytes[from as usize]);
            let bytes = pairs.into_iter().map(value).collect();
            self.yards[target].shadow.permit(id, bytes);
        }
    }

    /// Everything goes well again; all ends, is proven, and works.
    fn finish(&mut self) {
        self.network.set_faults(Faults::none());
        for a in 0..self.hosts.len() as u64 {
            self.network.resume(&self.address(a));
            for b in 0..=a {
                self.network.heal(&self.address(a), &self.address(b));
            }
        }
        self.pass(Duration::from_millis(40));
        // Hanging up is the way out where completions were lost.
        for (_, engine) in self.all_living() {
            for host in 0..self.hosts.len() as u64 {
                engine.disconnect(self.peer(&engine, &self.address(host)));
            }
        }
        self.pass(Duration::from_millis(4));
        let ample = Duration::from_millis(20);
        for offer in 0..self.offers.len() {
            self.revoke(offer, ample);
            assert!(self.offers[offer].window.is_none(), "window {offer} cannot be fenced");
        }
        for (yard, region) in std::mem::take(&mut self.closing) {
            assert!(self.try_close(yard, region, ample), "a region cannot be closed");
        }
        self.look();
        self.balance();
        self.probe();
    }

    /// Everybody reaches everybody, in both lanes.
    fn probe(&mut self) {
        let living = self.all_living();
        for (life, engine) in &living {
            let yard = self.region(*life);
            let offer = self.offers.len();
            self.offer(yard, 0, 0..256, Access::WRITE);
            let descriptor = self.offers[offer].descriptor.clone();
            for (other, from) in &living {
                let to = from.open(&descriptor).expect("all speak the same fabric");
                let counter = engine.counter().expect("there are enough");
                let bytes = self.yards[self.lives[*other].shelf].shadow.bytes();
                let values = (0..256).map(|at| (at, bytes[usize::from(at)])).collect();
                let id = self.next_id;
                self.next_id += 1;
                self.yards[yard].shadow.permit(id, values);
                let shelf = &self.yards[self.lives[*other].shelf];
                let shelf = shelf.region.as_ref().expect("it lives");
                let source = shelf.slice(0..256).expect("long enough");
                for lane in Lane::ALL {
                    let write = from
                        .write(source.clone(), to.slice(0..256).expect("so is it"))
                        .lane(lane)
                        .immediate(counter.slot())
                        .deadline(Duration::from_millis(20));
                    assert_eq!(write.wait(), Outcome::Done, "from engine {other} to {life}");
                }
                let counted = counter.wait(2, Duration::from_millis(20));
                assert_eq!(counted.ok(), Some(2), "from engine {other} to {life}");
                self.yards[yard].shadow.look(&"the probe");
                self.yards[yard].shadow.end(id, Outcome::Done, &mut self.dice);
            }
        }
    }

    /// Everybody ends, and nothing is left behind.
    fn end(mut self) {
        for (life, engine) in self.all_living() {
            let closed = engine.close(Duration::from_millis(20));
            assert!(closed.is_ok(), "engine {life} cannot be closed: {closed:?}");
            self.closed(life);
        }
        let Self { network, lives, mut yards, offers, counts, flights, .. } = self;
        drop((lives, offers, counts, flights));
        while network.clock().advance(Time::NEVER) {}
        for yard in &mut yards {
            let life = yard.life;
            yard.shadow.look(&format_args!("a region of engine {life}, after its end"));
        }
        assert_eq!(network.census(), Census::default(), "something is left behind");
        let memories: Vec<_> = yards.iter().map(|yard| yard.memory.clone()).collect();
        drop(yards);
        let left = memories.iter().filter(|memory| memory.upgrade().is_some()).count();
        assert_eq!(left, 0, "regions whose memory is still held");
    }
}

/// Equally many offsets below `reach` for each side, in stretches that leave gaps.
fn pieces(dice: &mut Dice, reach: u64) -> (Vec<u64>, Vec<u64>) {
    let (mut here, mut there) = (some_of(dice, reach), some_of(dice, reach));
    let len = here.len().min(there.len());
    for side in [&mut here, &mut there] {
        side.truncate(len);
        // The last byte is one of them, so that a reach beyond a window is one.
        if let Some(last) = side.last_mut() {
            *last = reach - 1;
        }
    }
    (here, there)
}

/// Offsets below `reach`, ascending.
fn some_of(dice: &mut Dice, reach: u64) -> Vec<u64> {
    let mut offsets = Vec::new();
    let mut at = 0;
    while at < reach {
        let end = (at + 1 + dice.below(120)).min(reach);
        offsets.extend(at..end);
        at = end + dice.below(30);
    }
    offsets
}
