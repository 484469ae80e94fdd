//! The end of a schedule: everything goes well again, ends, works, and leaves nothing behind.

use std::cell::Cell;
use std::time::Duration;

use tranship_transport::fabric::sim::{Census, Faults};
use tranship_transport::{
    Access, Address, Batch, Counter, Engine, Lane, Outcome, RemoteWindow, Route, Time,
};

use crate::world::{REGION_BYTES, Tally, World};

/// Long enough for anything where nothing hinders.
const AMPLE: Duration = Duration::from_millis(20);
/// What a probe writes, from the start of one region to a place of its own in another.
const PROBE_BYTES: u64 = 64;

/// Where the probes of all others go.
struct Target {
    yard: usize,
    offer: usize,
    counter: Counter,
    /// Probes that count there.
    sent: Cell<u64>,
}

impl World {
    /// Everything goes well again; all ends, is proven, and works.
    pub(crate) fn finish(&mut self) {
        self.network.set_faults(Faults::none());
        self.heal_all();
        self.pass(Duration::from_millis(40));
        // Hanging up is the way out where completions were lost.
        for (_, engine) in self.all_living() {
            for host in &self.hosts {
                for peer in self.peers(&engine, host.life) {
                    engine.disconnect(peer);
                }
            }
        }
        self.pass(Duration::from_millis(4));
        for offer in 0..self.offers.len() {
            self.revoke(offer, AMPLE);
            assert!(self.offers[offer].window.is_none(), "window {offer} cannot be fenced");
        }
        for (yard, region) in std::mem::take(&mut self.closing) {
            assert!(self.try_close(yard, region, AMPLE), "a region cannot be closed");
        }
        self.look();
        self.words_are_heard();
        self.meet_again();
        self.balance();
        let detours = |(life, _): &(usize, Engine)| self.detours(*life);
        self.tally.reached[2] += self.all_living().iter().map(detours).sum::<u64>();
        self.probe();
        if self.dice.percent(25) {
            self.probe_without_the_best();
        }
    }

    /// Everybody reaches everybody, in both lanes and over all fabrics. Where nobody is over the best,
    /// the next is taken, announced once, and kept.
    fn probe(&mut self) {
        let living = self.all_living();
        let targets: Vec<_> =
            living.iter().map(|(life, engine)| self.target(*life, engine)).collect();
        for (from, engine) in &living {
            let before = engine.stats().fallbacks;
            let (mut batch, mut ids, mut bent) = (engine.batch(), Vec::new(), Vec::new());
            for target in &targets {
                let mut descriptor = self.offers[target.offer].descriptor.clone();
                let speaks =
                    |to: &Route| engine.addresses().iter().any(|it| it.kind == to.address.kind);
                descriptor.routes.retain(speaks);
                let Some(last) = descriptor.routes.len().checked_sub(1) else { continue };
                // The best way in one lane, the last in the other.
                let mut ways = vec![(0..1, Lane::Latency), (last..last + 1, Lane::Bulk)];
                if last > 0 && bent.len() < 2 {
                    ways.push((0..2, Lane::Bulk));
                }
                for (way, lane) in ways {
                    let mut descriptor = descriptor.clone();
                    descriptor.routes = descriptor.routes[way.clone()].to_vec();
                    let best = &mut descriptor.routes[0].address;
                    if way.len() > 1 {
                        *best = Address::new(best.kind, "nowhere");
                    }
                    let to = self.open_at(*from, target.offer, &descriptor).expect("both speak it");
                    let at = PROBE_BYTES * ids.len() as u64;
                    ids.push((
                        target.yard,
                        self.probe_one(*from, target, at, lane, &to, &mut batch),
                    ));
                    if way.len() > 1 {
                        bent.push((to, descriptor));
                    }
                }
            }
            let sent = batch.deadline(AMPLE).wait();
            assert!(sent.iter().all(|it| it.is_done()), "from engine {from}: {sent:?}");
            for (to, descriptor) in &bent {
                assert_eq!(*to.address(), descriptor.routes[1].address, "from engine {from}");
            }
            let announced = engine.stats().fallbacks - before;
            assert_eq!(announced, bent.len() as u64, "engine {from} announces a way once");
            for (yard, id) in ids {
                self.yards[yard].shadow.look(&"the probe");
                self.yards[yard].shadow.end(id, Outcome::Done, &mut self.dice);
            }
        }
        for Target { yard, counter, sent, .. } in targets {
            let sent = sent.get();
            assert_eq!(
                counter.wait(sent, AMPLE).ok(),
                Some(sent),
                "engine {}",
                self.yards[yard].life
            );
        }
    }

    /// Two engines that have two ways to each other lose the best of them: transfers take the other.
    fn probe_without_the_best(&mut self) {
        let living = self.all_living();
        let ways = |engine: &Engine, to: usize| self.peers(engine, to);
        let pairs = living.iter().flat_map(|from| living.iter().map(move |to| (from, to)));
        let mut pairs = pairs.filter(|((a, engine), (b, _))| a < b && ways(engine, *b).len() > 1);
        let Some(((from, engine), (to, other))) = pairs.next() else { return };
        let (best, next) = (&other.addresses()[0], &other.addresses()[1]);
        self.network.cut(&engine.addresses()[0], best);
        engine.disconnect(ways(engine, *to)[0]);
        self.pass(Duration::from_millis(1));
        let target = self.target(*to, other);
        let descriptor = self.offers[target.offer].descriptor.clone();
        let before = engine.stats().fallbacks;
        let window = self.open_at(*from, target.offer, &descriptor).expect("both speak both");
        for round in 0..2 {
            let mut batch = engine.batch();
            let ids: Vec<_> = Lane::ALL
                .into_iter()
                .enumerate()
                .map(|(at, lane)| {
                    let at = PROBE_BYTES * at as u64;
                    self.probe_one(*from, &target, at, lane, &window, &mut batch)
                })
                .collect();
            let sent = batch.deadline(AMPLE).wait();
            assert_eq!(sent, [Outcome::Done; 2], "from engine {from} to {to}, round {round}");
            for id in ids {
                self.yards[target.yard].shadow.look(&"the probe");
                self.yards[target.yard].shadow.end(id, Outcome::Done, &mut self.dice);
            }
        }
        assert_eq!(window.address(), next, "from engine {from} to {to}");
        assert_eq!(engine.stats().fallbacks, before + 1, "engine {from} announces a way once");
        assert_eq!(target.counter.wait(4, AMPLE).ok(), Some(4), "from engine {from} to {to}");
        self.network.heal(&engine.addresses()[0], best);
    }

    fn target(&mut self, life: usize, engine: &Engine) -> Target {
        let (yard, offer) = (self.region(life), self.offers.len());
        self.offer(yard, 0, 0..REGION_BYTES, Access::WRITE);
        let counter = engine.counter().expect("there are enough");
        Target { yard, offer, counter, sent: Cell::new(0) }
    }

    /// Adds a write to a batch.
    fn probe_one(
        &mut self,
        from: usize,
        target: &Target,
        at: u64,
        lane: Lane,
        to: &RemoteWindow,
        batch: &mut Batch<'_>,
    ) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let there = at..at + PROBE_BYTES;
        let shelf = self.lives[from].shelf;
        let bytes = self.yards[shelf].shadow.bytes()[..PROBE_BYTES as usize].iter().copied();
        let values = there.clone().map(|at| at as u16).zip(bytes).collect();
        self.yards[target.yard].shadow.permit(id, values);
        let shelf = self.yards[shelf].region.as_ref().expect("it lives");
        let source = shelf.slice(0..PROBE_BYTES).expect("long enough");
        let engine = self.lives[from].engine.as_ref().expect("it lives");
        let write = engine.write(source, to.slice(there).expect("so is it"));
        batch.push(write.lane(lane).immediate(target.counter.slot()).into_owned());
        target.sent.set(target.sent.get() + 1);
        id
    }

    /// Everybody ends, and nothing is left behind.
    pub(crate) fn end(mut self) -> Tally {
        let tally = self.tally;
        for (life, engine) in self.all_living() {
            let closed = engine.close(AMPLE);
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
        tally
    }
}
