//! The simulated network by itself, below any engine.

use std::sync::Arc;
use std::time::Duration;

use super::network::Port;
use super::{Config, Faults, Network};
use crate::address::EngineId;
use crate::fabric::{
    Event, Fabric, Grant, Local, OpId, PeerId, Posted, Provider, RegionId, Remote, RemoteKey,
    Setup, Status, Work,
};
use crate::immediate::Immediate;
use crate::lane::Lane;
use crate::memory::{HostMemory, Memory};
use crate::outcome::Reason;
use crate::window::{Access, WindowId};

const MEMORY_BYTES: usize = 1 << 17;
const REGION: RegionId = RegionId(1);
const WINDOW: WindowId = WindowId { slot: 0, generation: 1 };

/// A port without an engine, with one region.
struct Side {
    fabric: Box<dyn Fabric>,
    memory: Arc<Memory>,
    events: Vec<Event>,
}

impl Side {
    fn new(network: &Network, port: Port, name: u128) -> Self {
        let setup = Setup { engine: EngineId(name), clock: network.clock() };
        let mut fabric = Box::new(port).open(&setup).unwrap();
        let memory = Arc::new(HostMemory::new(MEMORY_BYTES).build().unwrap());
        fabric.register(REGION, &memory).unwrap();
        Self { fabric, memory, events: Vec::new() }
    }

    fn local(&self, len: u64) -> Local {
        Local { region: REGION, ptr: self.memory.as_ptr(), len }
    }

    fn poll(&mut self) {
        self.fabric.poll(usize::MAX, &mut self.events);
    }

    fn status(&self, op: u64) -> Option<Status> {
        self.events.iter().find_map(|event| match event {
            Event::Completed { op: OpId(id), status } if *id == op => Some(*status),
            _ => None,
        })
    }

    fn byte(&self, at: usize) -> u8 {
        let mut byte = [0];
        self.memory.read_at(at, &mut byte).unwrap();
        byte[0]
    }
}

/// Two connected ports; the second grants the first a window of its whole region but a margin.
struct Rig {
    network: Network,
    a: Side,
    b: Side,
    peer: PeerId,
    remote: Remote,
}

const MARGIN: u64 = 512;

impl Rig {
    fn new(config: Config) -> Self {
        let network = Network::new(config);
        let (pa, pb) = (network.provider(), network.provider());
        let to = pb.address().clone();
        let mut a = Side::new(&network, pa, 1);
        let mut b = Side::new(&network, pb, 2);
        let key = grant(&mut b, WINDOW, Access::WRITE | Access::READ);
        let peer = a.fabric.connect(&to);
        let remote = Remote { window: WINDOW, key, offset: 0 };
        let mut rig = Self { network, a, b, peer, remote };
        rig.run_until(|rig| rig.a.events.iter().any(|e| matches!(e, Event::PeerUp { .. })));
        rig
    }

    /// Lets things happen until `done`; panics when nothing will happen any more.
    fn run_until(&mut self, mut done: impl FnMut(&Self) -> bool) {
        loop {
            self.a.poll();
            self.b.poll();
            if done(self) {
                return;
            }
            let more = self.network.clock().advance(crate::time::Time::NEVER);
            assert!(more, "idle for ever: {:?}", self.network.trace());
        }
    }

    fn run_dry(&mut self) {
        while self.network.clock().advance(crate::time::Time::NEVER) {}
        self.a.poll();
        self.b.poll();
    }

    fn write(&mut self, op: u64, len: u64, immediate: Option<u32>) -> Posted {
        let immediate = immediate.map(Immediate);
        let (local, remote) = (self.a.local(len), self.remote);
        loop {
            let work = Work::Write { local, remote, pages: None, immediate };
            match self.a.fabric.post(OpId(op), self.peer, Lane::Bulk, work) {
                Posted::Busy => self.network.run_for(Duration::from_micros(1)),
                answer => return answer,
            }
        }
    }

    fn end_of(&mut self, op: u64) -> Status {
        self.run_until(|rig| rig.a.status(op).is_some());
        self.a.status(op).unwrap()
    }
}

fn grant(side: &mut Side, window: WindowId, access: Access) -> RemoteKey {
    let len = MEMORY_BYTES as u64 - 2 * MARGIN;
    side.fabric.grant(&Grant { window, region: REGION, offset: MARGIN, len, access }).unwrap()
}

fn seeds() -> std::ops::Range<u64> {
    0..50
}

#[test]
fn one_seed_is_one_run() {
    let run = |seed| {
        let faults = Faults { slow_flush: 0.5, failed_flush: 0.2, ..Faults::bad_day() };
        let mut rig = Rig::new(Config::new(seed).faults(faults));
        for op in 0..20 {
            assert_eq!(rig.write(op, 10_000, Some(1)), Posted::Pending);
            if op % 3 == 0 {
                rig.a.fabric.cancel(OpId(op), Reason::Cancelled);
            }
        }
        rig.run_dry();
        rig.network.trace()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7).hash, run(8).hash);
}

#[test]
fn a_payload_lands_before_its_immediate_whatever_happens() {
    for seed in seeds() {
        let mut rig = Rig::new(Config::new(seed).faults(Faults::bad_day()));
        rig.a.memory.fill(0..MEMORY_BYTES, 7).unwrap();
        let len = 30_001;
        assert_eq!(rig.write(1, len, Some(5)), Posted::Pending);
        rig.run_until(|rig| {
            rig.b.events.iter().any(|event| matches!(event, Event::Arrived { .. }))
        });
        let mut bytes = vec![0; MEMORY_BYTES];
        rig.b.memory.read_at(0, &mut bytes).unwrap();
        let (from, to) = (MARGIN as usize, (MARGIN + len) as usize);
        assert!(bytes[from..to].iter().all(|byte| *byte == 7), "seed {seed}");
        assert!(bytes[..from].iter().chain(&bytes[to..]).all(|byte| *byte == 0), "seed {seed}");
        assert_eq!(rig.end_of(1), Status::Done);
        rig.run_dry();
        let arrived = |event: &&Event| matches!(event, Event::Arrived { .. });
        assert_eq!(rig.b.events.iter().filter(arrived).count(), 1, "once, seed {seed}");
    }
}

#[test]
fn the_defect_is_a_defect() {
    let overtaken = seeds().any(|seed| {
        let faults = Faults { overtaking_immediate: 1.0, ..Faults::none() };
        let mut rig = Rig::new(Config::new(seed).faults(faults));
        rig.a.memory.fill(0..MEMORY_BYTES, 7).unwrap();
        let _ = rig.write(1, 30_001, Some(5));
        rig.run_until(|rig| rig.b.events.iter().any(|e| matches!(e, Event::Arrived { .. })));
        rig.b.byte(MARGIN as usize + 30_000) != 7
    });
    assert!(overtaken);
}

#[test]
fn the_target_refuses_what_it_did_not_grant() {
    let mut rig = Rig::new(Config::new(3));
    let good = rig.remote;
    let mut op = 0;
    let mut ends = |rig: &mut Rig, remote: Remote| {
        op += 1;
        rig.remote = remote;
        assert_eq!(rig.write(op, 100, None), Posted::Pending);
        rig.end_of(op)
    };
    let other = |slot, generation| WindowId { slot, generation };
    let key = RemoteKey { key: good.key.key ^ 1, ..good.key };
    let far = MEMORY_BYTES as u64 - 2 * MARGIN - 99;
    for (remote, end) in [
        (good, Status::Done),
        (Remote { key, ..good }, Status::Refused(Reason::Forged)),
        (Remote { window: other(0, 0), ..good }, Status::Refused(Reason::Stale)),
        (Remote { window: other(0, 2), ..good }, Status::Refused(Reason::Forged)),
        (Remote { window: other(9, 1), ..good }, Status::Refused(Reason::Forged)),
        (Remote { offset: far, ..good }, Status::Refused(Reason::OutOfBounds)),
        (Remote { offset: u64::MAX, ..good }, Status::Refused(Reason::OutOfBounds)),
        (Remote { offset: far - 1, ..good }, Status::Done),
    ] {
        assert_eq!(ends(&mut rig, remote), end, "{remote:?}");
    }
    let window = other(1, 1);
    let key = grant(&mut rig.b, window, Access::READ);
    let remote = Remote { window, key, offset: 0 };
    assert_eq!(ends(&mut rig, remote), Status::Refused(Reason::Denied));
}

#[test]
fn a_fenced_window_does_not_change() {
    let mut waited = false;
    for seed in seeds() {
        let mut rig = Rig::new(Config::new(seed).faults(Faults::bad_day()));
        rig.a.memory.fill(0..MEMORY_BYTES, 7).unwrap();
        let _ = rig.write(1, 50_000, Some(5));
        rig.network.run_for(Duration::from_micros(seed / 3));
        rig.b.fabric.revoke(WINDOW);
        rig.b.poll();
        waited |= !rig.b.events.iter().any(|event| matches!(event, Event::Revoked { .. }));
        rig.run_until(|rig| rig.b.events.iter().any(|e| matches!(e, Event::Revoked { .. })));
        rig.b.memory.fill(0..MEMORY_BYTES, 9).unwrap();
        let end = rig.end_of(1);
        rig.run_dry();
        let mut bytes = vec![0; MEMORY_BYTES];
        rig.b.memory.read_at(0, &mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 9), "seed {seed}, ended {end:?}");
    }
    assert!(waited, "some seed revokes while a packet is being landed");
}

#[test]
fn every_end_of_a_cancelled_write_arises() {
    let (mut done, mut refused, mut stopped, mut none) = (0, 0, 0, 0);
    for seed in 0..200 {
        let faults = Faults {
            slow_flush: 0.2,
            failed_flush: 0.1,
            lost_completion: 0.1,
            ..Faults::bad_day()
        };
        let mut rig = Rig::new(Config::new(seed).faults(faults));
        let _ = rig.write(1, 60_000, None);
        if seed % 4 == 0 {
            let address = rig.b.fabric.address();
            rig.network.cut(&rig.a.fabric.address(), &address);
        }
        rig.network.run_for(Duration::from_micros(seed % 16));
        rig.a.fabric.cancel(OpId(1), Reason::Cancelled);
        rig.run_dry();
        match rig.a.status(1) {
            Some(Status::Done) => done += 1,
            Some(Status::Refused(_)) => refused += 1,
            Some(Status::Stopped(_)) => stopped += 1,
            None => none += 1,
        }
    }
    assert!(
        done > 0 && refused > 0 && stopped > 0 && none > 0,
        "{done} {refused} {stopped} {none}"
    );
}

#[test]
fn a_write_to_a_hung_host_lands_late() {
    let mut rig = Rig::new(Config::new(1));
    rig.a.memory.fill(0..MEMORY_BYTES, 7).unwrap();
    let to = rig.b.fabric.address();
    rig.network.pause(&to);
    let _ = rig.write(1, 100, None);
    rig.a.fabric.cancel(OpId(1), Reason::Deadline);
    rig.run_dry();
    assert_eq!(rig.a.status(1), None, "nothing proves that it will not land");
    rig.network.resume(&to);
    assert_eq!(rig.end_of(1), Status::Stopped(Reason::Deadline));
    assert_eq!(rig.b.byte(MARGIN as usize), 7, "it did");
}

#[test]
fn death_is_noticed_after_its_operations_ended() {
    for seed in seeds() {
        let mut rig = Rig::new(Config::new(seed));
        let to = rig.b.fabric.address();
        for op in 0..4 {
            let _ = rig.write(op, 20_000, None);
        }
        rig.network.run_for(Duration::from_micros(seed % 10));
        rig.network.kill(&to);
        rig.run_until(|rig| rig.a.events.iter().any(|e| matches!(e, Event::PeerDown { .. })));
        for op in 0..4 {
            assert!(rig.a.status(op).is_some(), "seed {seed}");
        }
        let last = rig.a.events.last().unwrap();
        assert!(matches!(last, Event::PeerDown { reason: Reason::PeerGone, .. }), "{last:?}");
        // Its successor is somebody else at the same place.
        rig.b = Side::new(&rig.network, rig.network.provider_at(&to), 3);
        let key = grant(&mut rig.b, WINDOW, Access::WRITE);
        assert_ne!(key, rig.remote.key);
        rig.remote.key = key;
        rig.peer = rig.a.fabric.connect(&to);
        rig.run_until(|rig| {
            let up = Event::PeerUp { peer: rig.peer, engine: EngineId(3) };
            rig.a.events.iter().any(|event| format!("{event:?}") == format!("{up:?}"))
        });
        let _ = rig.write(9, 10, None);
        assert_eq!(rig.end_of(9), Status::Done);
    }
}

#[test]
fn a_short_cut_is_survived_and_a_long_one_breaks() {
    for (span, heals) in [(Duration::from_millis(10), true), (Duration::from_millis(80), false)] {
        let mut rig = Rig::new(Config::new(5));
        let (a, b) = (rig.a.fabric.address(), rig.b.fabric.address());
        rig.network.cut(&a, &b);
        rig.network.at(span, super::Action::Heal(a, b));
        let _ = rig.write(1, 100, None);
        let end = rig.end_of(1);
        assert_eq!(end, if heals { Status::Done } else { Status::Refused(Reason::PeerGone) });
    }
}

#[test]
fn messages_come_in_order_once_and_hold_back_what_follows_them() {
    for seed in seeds() {
        let mut rig = Rig::new(Config::new(seed).faults(Faults::bad_day()));
        for op in 0..20u64 {
            let bytes = [op as u8];
            let immediate = (op == 19).then_some(Immediate(1));
            let work = Work::Send { bytes: &bytes, immediate };
            while rig.a.fabric.post(OpId(op), rig.peer, Lane::Bulk, work) == Posted::Busy {
                rig.network.run_for(Duration::from_micros(1));
            }
        }
        while rig.network.clock().advance(crate::time::Time::NEVER) {}
        for op in 0..20u8 {
            let mut events = Vec::new();
            rig.b.fabric.poll(1, &mut events);
            events.retain(|event| !matches!(event, Event::PeerUp { .. }));
            let Some(Event::Message { bytes, .. }) = events.first() else {
                panic!("seed {seed}: {events:?}")
            };
            assert_eq!(bytes, &[op], "seed {seed}");
            assert_eq!(events.len(), if op == 19 { 2 } else { 1 }, "seed {seed}");
        }
    }
}

#[test]
fn closing_lets_nothing_land_any_more() {
    for seed in seeds() {
        let mut rig = Rig::new(Config::new(seed));
        rig.a.memory.fill(0..MEMORY_BYTES, 7).unwrap();
        let _ = rig.write(1, 50_000, Some(1));
        rig.network.run_for(Duration::from_micros(seed % 12));
        let close_target = seed % 2 == 0;
        let side = if close_target { &mut rig.b } else { &mut rig.a };
        side.fabric.close();
        let mut before = vec![0; MEMORY_BYTES];
        rig.b.memory.read_at(0, &mut before).unwrap();
        rig.run_dry();
        let mut after = vec![0; MEMORY_BYTES];
        rig.b.memory.read_at(0, &mut after).unwrap();
        assert!(before == after, "seed {seed}");
        assert!(rig.a.status(1).is_some(), "seed {seed}");
    }
}

#[test]
fn the_null_network_does_everything_at_once() {
    let mut rig = Rig::new(Config::null(0));
    rig.a.memory.fill(0..MEMORY_BYTES, 7).unwrap();
    assert_eq!(rig.write(1, 5000, Some(1)), Posted::Done);
    assert_eq!(rig.b.byte(MARGIN as usize + 4999), 7);
    rig.remote.offset = u64::MAX;
    assert_eq!(rig.write(1, 5000, None), Posted::Refused(Reason::OutOfBounds));
    assert_eq!(rig.network.clock().now(), crate::time::Time::ZERO);
}
