//! What comes in, given to a sink.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::harness::Harness;
use super::kit::{AMPLE, address, engine, region, start, until};
use crate::engine::Engine;
use crate::outcome::{Outcome, Reason};
use crate::peer::{Incoming, Peer};
use crate::region::Region;
use crate::transfer::Transfer;
use crate::window::{Descriptor, Window};

const BYTES: u64 = 4096;
const MESSAGES: u32 = 8;

/// What the sink works with.
struct Desk {
    engine: Engine,
    source: Region,
    /// Of the peer's window.
    descriptor: Descriptor,
    /// Dropped, each by a call.
    windows: Mutex<Vec<Window>>,
    /// Started and left to others.
    sent: Mutex<Vec<Transfer>>,
    calls: AtomicU32,
}

impl Desk {
    /// Everything that would wait for a lock that its caller holds.
    fn take(&self, from: Peer) {
        let to = self.engine.open(&self.descriptor).expect("it names a fabric that both have");
        assert!(self.engine.peer(&self.descriptor.routes[0].address).is_ok());
        drop(self.windows.lock().unwrap().pop().expect("as many as there are messages"));
        let (source, to) = (self.source.slice(0..BYTES).unwrap(), to.slice(0..BYTES).unwrap());
        assert_eq!(self.engine.write(&source, &to).deadline(AMPLE).wait(), Outcome::Done);
        let never = start(self.engine.write(&source, &to));
        never.cancel();
        let answer = start(self.engine.send(from, *b"written").deadline(AMPLE));
        self.sent.lock().unwrap().extend([never, answer]);
        self.calls.fetch_add(1, Ordering::SeqCst);
    }
}

/// "Bounded lock-free queues that cannot deadlock when a callback submits": nor when it opens, names,
/// revokes, cancels, or waits.
pub fn a_sink_may_call_the_engine<H: Harness>(harness: &H) {
    let place: Arc<Mutex<Option<Arc<Desk>>>> = Arc::default();
    let sink = Arc::clone(&place);
    let called = move |incoming| {
        let desk = sink.lock().unwrap().clone();
        if let (Some(desk), Incoming::Message { from, .. }) = (desk, incoming) {
            desk.take(from);
        }
    };
    let a = harness.builder().on_incoming(called).build().unwrap();
    let b = engine(harness);
    let (source, target) = (region(&a, BYTES as usize), region(&b, BYTES as usize));
    source.memory().fill(0..BYTES as usize, 7).unwrap();
    let windows = (0..MESSAGES).map(|_| source.window(0..BYTES).unwrap()).collect();
    let window = target.window(0..BYTES).unwrap();
    let desk = Arc::new(Desk {
        engine: a.clone(),
        source,
        descriptor: window.descriptor(),
        windows: Mutex::new(windows),
        sent: Mutex::default(),
        calls: AtomicU32::new(0),
    });
    *place.lock().unwrap() = Some(Arc::clone(&desk));
    let peer = b.connect(&address(&a), AMPLE).unwrap();
    let sent: Vec<_> =
        (0..MESSAGES).map(|_| start(b.send(peer, *b"write").deadline(AMPLE))).collect();
    until(harness, "the sink", || {
        a.progress();
        b.progress();
        desk.calls.load(Ordering::SeqCst) == MESSAGES
    });
    assert!(sent.iter().all(|message| message.wait().is_done()));
    for transfer in desk.sent.lock().unwrap().iter() {
        let outcome = transfer.wait();
        let cancelled = outcome.reason() == Some(Reason::Cancelled);
        assert!(outcome.is_done() || cancelled, "{outcome}");
    }
    let mut bytes = [0; BYTES as usize];
    target.memory().read_at(0, &mut bytes).unwrap();
    assert_eq!(bytes, [7; BYTES as usize]);
    // What a sink keeps of its engine keeps the engine.
    drop(place.lock().unwrap().take());
}
