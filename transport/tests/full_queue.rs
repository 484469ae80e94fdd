//! The queues that lead to a worker, seen from outside: bounded, and what finds no room comes back.
//!
//! They fill only while somebody else holds the worker: here a fabric whose poll waits at a gate.

#![cfg(not(loom))]

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tranship_transport::fabric::{
    Event, Fabric, Grant, Limits, OpId, OpenError, PeerId, Posted, Provider, RegionId,
    RegisterError, RemoteKey, Setup, Work, shm,
};
use tranship_transport::{
    Address, Engine, HostMemory, Kind, Lane, Memory, Outcome, Reason, Transfer, WindowId,
};

const TIMEOUT: Duration = Duration::from_secs(30);
const LEN: u64 = 64;

/// What a poll waits at.
#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    shut: bool,
    waiting: bool,
}

impl Gate {
    /// Waits until the gate is open.
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        while state.shut {
            state.waiting = true;
            self.changed.notify_all();
            state = self.changed.wait(state).unwrap();
        }
        state.waiting = false;
    }

    /// Shuts it, and returns once somebody waits at it.
    fn shut(&self, wake: impl Fn()) {
        let mut state = self.state.lock().unwrap();
        state.shut = true;
        while !state.waiting {
            wake();
            let (again, waited) = self.changed.wait_timeout(state, TIMEOUT).unwrap();
            assert!(!waited.timed_out(), "nobody polls");
            state = again;
        }
    }

    fn open(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).shut = false;
        self.changed.notify_all();
    }
}

/// Opens the gate, also on the way out of a panic: somebody waits for who stands there.
struct Opens<'a>(&'a Gate, &'a AtomicBool);

impl Drop for Opens<'_> {
    fn drop(&mut self) {
        self.1.store(true, Ordering::SeqCst);
        self.0.open();
    }
}

/// A fabric with a gate.
struct Gated<F: ?Sized> {
    gate: Arc<Gate>,
    fabric: Box<F>,
}

impl Provider for Gated<shm::Config> {
    fn kind(&self) -> Kind {
        self.fabric.kind()
    }

    fn open(self: Box<Self>, setup: &Setup) -> Result<Box<dyn Fabric>, OpenError> {
        Ok(Box::new(Gated { gate: self.gate, fabric: self.fabric.open(setup)? }))
    }
}

impl Fabric for Gated<dyn Fabric> {
    fn poll(&mut self, messages_max: usize, events: &mut Vec<Event>) -> bool {
        self.gate.pass();
        self.fabric.poll(messages_max, events)
    }

    fn kind(&self) -> Kind {
        self.fabric.kind()
    }

    fn address(&self) -> Address {
        self.fabric.address()
    }

    fn limits(&self) -> Limits {
        self.fabric.limits()
    }

    fn maps(&self) -> bool {
        self.fabric.maps()
    }

    fn register(&mut self, region: RegionId, memory: &Arc<Memory>) -> Result<(), RegisterError> {
        self.fabric.register(region, memory)
    }

    fn deregister(&mut self, region: RegionId) {
        self.fabric.deregister(region);
    }

    fn grant(&mut self, grant: &Grant) -> Result<RemoteKey, RegisterError> {
        self.fabric.grant(grant)
    }

    fn revoke(&mut self, window: WindowId) {
        self.fabric.revoke(window);
    }

    fn connect(&mut self, to: &Address) -> PeerId {
        self.fabric.connect(to)
    }

    fn disconnect(&mut self, peer: PeerId) {
        self.fabric.disconnect(peer);
    }

    fn post(&mut self, op: OpId, peer: PeerId, lane: Lane, work: Work<'_>) -> Posted {
        self.fabric.post(op, peer, lane, work)
    }

    fn cancel(&mut self, op: OpId, reason: Reason) {
        self.fabric.cancel(op, reason);
    }

    fn arm(&mut self) -> bool {
        self.fabric.arm()
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        self.fabric.wait_fd()
    }

    fn close(&mut self) {
        self.fabric.close();
    }
}

#[test]
fn a_full_queue_gives_the_work_back_and_leaves_room_for_what_is_urgent() {
    let gate = Arc::new(Gate::default());
    let gated = Gated { gate: Arc::clone(&gate), fabric: Box::new(shm::Config::new()) };
    let a = Engine::builder().fabric(gated).deadline(TIMEOUT).build().unwrap();
    let b = Engine::builder().deadline(TIMEOUT).build().unwrap();
    let [source, target] =
        [&a, &b].map(|engine| engine.alloc(HostMemory::new(LEN as usize)).unwrap());
    source.memory().fill(0..LEN as usize, 7).unwrap();
    let window = target.window(0..LEN).unwrap();
    let (source, to) = (source.slice(0..LEN).unwrap(), a.open(&window.descriptor()).unwrap());
    let to = to.slice(0..LEN).unwrap();
    assert!(a.write(&source, &to).wait().is_done(), "the first connects");

    // Whoever waits drives, and stands at the gate with the worker in its hands.
    let over = AtomicBool::new(false);
    let (mut taken, back) = std::thread::scope(|scope| {
        let opens = Opens(&gate, &over);
        scope.spawn(|| a.wait_until(TIMEOUT, || over.load(Ordering::SeqCst)));
        gate.shut(|| a.wake());
        let mut taken: Vec<Transfer> = Vec::new();
        let mut back = loop {
            match a.write(&source, &to).submit() {
                Ok(transfer) => taken.push(transfer),
                Err(error) => break error.submission,
            }
        };
        taken.push(a.write(&source, &to).lane(Lane::Latency).submit().expect("a lane of its own"));
        // Nobody waits for the worker to cancel, either.
        taken[0].cancel();
        taken[0].cancel();
        back = back.submit().expect_err("it is still full").submission;
        drop(opens);
        (taken, back)
    });
    assert!(taken.len() > 1000, "only {} were taken", taken.len());
    let first = taken.remove(0).wait();
    assert!(first.is_done() || first == Outcome::Rejected(Reason::Cancelled), "{first}");
    assert!(taken.iter().all(|transfer| transfer.wait().is_done()), "what was taken is done");
    target.memory().fill(0..LEN as usize, 0).unwrap();
    assert_eq!(back.wait(), Outcome::Done, "what came back can be submitted again");
    let mut bytes = [0; LEN as usize];
    target.memory().read_at(0, &mut bytes).unwrap();
    assert_eq!(bytes, [7; LEN as usize]);
}
