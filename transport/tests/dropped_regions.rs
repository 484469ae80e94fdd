//! Regions that are dropped while something moves on them: the memory stays until that has provably ended.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tranship_transport::fabric::{
    Event, Fabric, Grant, Limits, OpId, OpenError, PeerId, Posted, Provider, RegionId,
    RegisterError, RemoteKey, Setup, Status, Work,
};
use tranship_transport::{
    Address, Drive, Engine, EngineId, HostMemory, Kind, Lane, Memory, Outcome, Reason, WindowId,
};

/// A fabric whose transfers end when the test says so, and that cannot stop any.
#[derive(Clone, Default)]
struct Stalled(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    posted: Vec<OpId>,
    events: Vec<Event>,
    deregistered: Vec<RegionId>,
    peers: u32,
}

impl Stalled {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The oldest transfer has ended.
    fn end_one(&self) {
        let mut state = self.state();
        let op = state.posted.remove(0);
        state.events.push(Event::Completed { op, status: Status::Done });
    }
}

impl Provider for Stalled {
    fn kind(&self) -> Kind {
        Kind::Sim
    }

    fn open(self: Box<Self>, setup: &Setup) -> Result<Box<dyn Fabric>, OpenError> {
        Ok(Box::new(Open { engine: setup.engine, stalled: *self }))
    }
}

struct Open {
    engine: EngineId,
    stalled: Stalled,
}

impl Fabric for Open {
    fn kind(&self) -> Kind {
        Kind::Sim
    }

    fn address(&self) -> Address {
        Address::new(Kind::Sim, self.engine.0.to_string())
    }

    fn limits(&self) -> Limits {
        Limits { message_bytes_max: 0, windows_max: 16 }
    }

    fn maps(&self) -> bool {
        false
    }

    fn register(&mut self, _: RegionId, _: &Arc<Memory>) -> Result<(), RegisterError> {
        Ok(())
    }

    fn deregister(&mut self, region: RegionId) {
        self.stalled.state().deregistered.push(region);
    }

    fn grant(&mut self, _: &Grant) -> Result<RemoteKey, RegisterError> {
        Ok(RemoteKey { key: 0, base: 0 })
    }

    fn revoke(&mut self, window: WindowId) {
        self.stalled.state().events.push(Event::Revoked { window });
    }

    fn connect(&mut self, to: &Address) -> PeerId {
        let mut state = self.stalled.state();
        state.peers += 1;
        let (peer, engine) = (PeerId(state.peers), EngineId(to.endpoint.parse().unwrap()));
        state.events.push(Event::PeerUp { peer, engine });
        peer
    }

    fn disconnect(&mut self, peer: PeerId) {
        self.stalled.state().events.push(Event::PeerDown { peer, reason: Reason::Closed });
    }

    fn post(&mut self, op: OpId, _: PeerId, _: Lane, _: Work<'_>) -> Posted {
        self.stalled.state().posted.push(op);
        Posted::Pending
    }

    fn cancel(&mut self, _: OpId, _: Reason) {}

    fn poll(&mut self, _: usize, events: &mut Vec<Event>) -> bool {
        let mut state = self.stalled.state();
        let any = !state.events.is_empty();
        events.append(&mut state.events);
        any
    }

    fn arm(&mut self) -> bool {
        self.stalled.state().events.is_empty()
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn close(&mut self) {}
}

/// Starts so many writes from a region and drops it; what is left of the region is its memory.
fn dropped_under(
    engine: &Engine,
    there: &Engine,
    writes: usize,
    deadline: Duration,
) -> (tranship_transport::Transfers, Weak<Memory>) {
    let target = there.alloc(HostMemory::new(4096)).unwrap();
    let window = target.window(0..4096).unwrap();
    let to = engine.open(&window.descriptor()).unwrap().slice(0..64).unwrap();
    let region = engine.alloc(HostMemory::new(4096)).unwrap();
    let from = region.slice(0..64).unwrap();
    let mut batch = engine.batch();
    batch.extend((0..writes).map(|_| engine.write(&from, &to)));
    let transfers = batch.deadline(deadline).submit();
    drop(from);
    // The first waits for the connection.
    engine.progress();
    let memory = Arc::downgrade(region.memory());
    drop(region);
    (transfers, memory)
}

fn engines() -> (Stalled, Engine, Engine) {
    let stalled = Stalled::default();
    let build =
        |fabric| Engine::builder().fabric(fabric).drive(Drive::Caller).build().expect("no limits");
    let (here, there) = (build(stalled.clone()), build(Stalled::default()));
    (stalled, here, there)
}

/// Drives until nothing is left to do.
fn drive(engine: &Engine) {
    while engine.progress() {}
}

#[test]
fn its_memory_stays_until_the_last_of_them_has_ended() {
    let (stalled, here, there) = engines();
    let (transfers, memory) = dropped_under(&here, &there, 3, Duration::from_secs(60));
    drive(&here);
    assert_eq!(stalled.state().posted.len(), 3);
    for left in (0..3).rev() {
        assert!(memory.upgrade().is_some(), "{left} more are on it");
        assert!(stalled.state().deregistered.is_empty());
        stalled.end_one();
        drive(&here);
    }
    assert_eq!(transfers.outcomes(), Some(vec![Outcome::Done; 3]));
    assert_eq!(stalled.state().deregistered.len(), 1);
    assert!(memory.upgrade().is_none(), "nothing is on it any more");
}

#[test]
fn its_memory_stays_while_a_transfer_is_lost() {
    let (stalled, here, there) = engines();
    let (transfers, memory) = dropped_under(&here, &there, 1, Duration::from_millis(1));
    assert_eq!(transfers.wait(), [Outcome::Lost(Reason::Deadline)]);
    drive(&here);
    assert!(memory.upgrade().is_some() && !transfers.fenced(), "it may still move");
    assert!(stalled.state().deregistered.is_empty());
    stalled.end_one();
    drive(&here);
    assert!(transfers.fenced());
    assert!(memory.upgrade().is_none(), "nothing is on it any more");
}
