//! How ends are learnt.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Wake, Waker};

use super::harness::Harness;
use super::kit::{AMPLE, Pair, address, engine, region, start, until};
use crate::engine::Engine;
use crate::notify::Notifier;
use crate::outcome::{Outcome, Reason};
use crate::peer::Incoming;
use crate::region::Slice;
use crate::remote::RemoteWindow;
use crate::transfer::{Submission, SubmitError, Transfer};

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// "A completion that can be awaited (future), polled, counted (shared counter) or signalled
/// (eventfd) — never only polled."
pub fn completions_come_in_every_way<H: Harness>(harness: &H) {
    let pair = Pair::new(harness, 50_000);
    let (_window, to) = pair.offer();
    let (notifier, tally) = (Notifier::new().unwrap(), Arc::new(AtomicU64::new(0)));
    let write = || pair.write(0..50_000, &to, 0).notify(&notifier).tally(&tally);
    let progress = || {
        pair.a.progress();
        pair.b.progress();
    };

    // As a future.
    let flag = Arc::new(Flag(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&flag));
    let mut context = Context::from_waker(&waker);
    let mut sent = pin!(start(write()));
    let mut polled = sent.as_mut().poll(&mut context);
    if polled.is_pending() {
        until(harness, "the waker", || {
            progress();
            flag.0.load(Ordering::SeqCst)
        });
        polled = sent.as_mut().poll(&mut context);
    }
    assert_eq!(polled, Poll::Ready(Outcome::Done));

    // Polled.
    let sent = start(write());
    until(harness, "the outcome", || {
        progress();
        sent.outcome().is_some()
    });
    assert_eq!(sent.outcome(), Some(Outcome::Done));

    // By the shared counter alone.
    drop(start(write()));
    until(harness, "the tally", || {
        progress();
        tally.load(Ordering::Acquire) == 3
    });

    // By the descriptor alone; it is rung once for each end, whatever the end, right after it.
    let mut rings = 0;
    let mut rung = |times: u64| {
        until(harness, "the bell", || {
            progress();
            rings += notifier.take();
            assert!(rings <= times, "rung {rings} times for {times} ends");
            rings == times
        });
    };
    rung(3);
    drop(start(write()));
    rung(4);
    let cancelled = start(write());
    cancelled.cancel();
    let done = cancelled.wait().is_done();
    rung(5);
    assert_eq!(tally.load(Ordering::Acquire), 4 + u64::from(done), "only what ended well counts");
    let rejected = pair.a.write(pair.source.slice(0..1).unwrap(), to.slice(0..2).unwrap());
    assert!(matches!(rejected.notify(&notifier).wait(), Outcome::Rejected(_)));
    rung(6);
}

/// What a sink needs to submit.
struct Work {
    engine: Engine,
    source: Slice,
    to: RemoteWindow,
}

impl Work {
    fn write(&self) -> Submission {
        let to = self.to.slice(0..self.source.len()).expect("the window is as long");
        self.engine.write(self.source.clone(), to).deadline(AMPLE)
    }
}

/// "Bounded lock-free queues that cannot deadlock when a callback submits"; "back-pressure is
/// explicit": a full queue gives the work back, unchanged.
pub fn a_full_queue_gives_the_work_back<H: Harness>(harness: &H) {
    const TRIES: usize = 100_000;
    let work: Arc<OnceLock<Work>> = Arc::default();
    let taken: Arc<Mutex<Vec<Transfer>>> = Arc::default();
    let back: Arc<Mutex<Option<Box<Submission>>>> = Arc::default();
    let sink = {
        let (work, taken, back) = (Arc::clone(&work), Arc::clone(&taken), Arc::clone(&back));
        move |incoming| {
            let (Incoming::Message { .. }, Some(work)) = (incoming, work.get()) else { return };
            for _ in 0..TRIES {
                match work.write().submit() {
                    Ok(transfer) => taken.lock().unwrap().push(transfer),
                    Err(SubmitError { submission }) => {
                        *back.lock().unwrap() = Some(submission);
                        return;
                    }
                }
            }
        }
    };
    let a = harness.builder().on_incoming(sink).build().unwrap();
    let b = engine(harness);
    let (source, target) = (region(&a, 64), region(&b, 64));
    source.memory().fill(0..64, 7).unwrap();
    let window = target.window(0..64).unwrap();
    let to = a.open(&window.descriptor()).unwrap();
    let given = Work { engine: a.clone(), source: source.slice(0..64).unwrap(), to };
    assert!(work.set(given).is_ok());
    let peer = b.connect(&address(&a), AMPLE).unwrap();
    assert_eq!(b.send(peer, *b"go").deadline(AMPLE).wait(), Outcome::Done);
    until(harness, "the queue to be full", || {
        a.progress();
        b.progress();
        back.lock().unwrap().is_some()
    });
    let submission = back.lock().unwrap().take().expect("just seen");
    for transfer in taken.lock().unwrap().iter() {
        assert_eq!(transfer.wait(), Outcome::Done, "what was taken is done");
    }
    target.memory().fill(0..64, 0).unwrap();
    assert_eq!(submission.wait(), Outcome::Done, "what came back can be submitted again");
    let mut bytes = [0; 64];
    target.memory().read_at(0, &mut bytes).unwrap();
    assert_eq!(bytes, [7; 64]);
}

/// Statistics add up: whenever no transfer is under way,
/// `submitted == done + rejected + fenced + lost`.
pub fn statistics_add_up<H: Harness>(harness: &H) {
    let pair = Pair::new(harness, 20_000);
    let (window, to) = pair.offer();
    let counter = pair.b.counter().unwrap();
    for len in [0, 1, 20_000] {
        let write = pair.write(0..len, &to, 0).immediate(counter.slot());
        assert_eq!(write.wait(), Outcome::Done);
        assert_eq!(pair.read(&to, 0, 0..len).wait(), Outcome::Done);
    }
    counter.wait(3, AMPLE).unwrap();
    let cancelled = start(pair.write(0..20_000, &to, 0));
    cancelled.cancel();
    let done = u64::from(cancelled.wait().is_done());
    let short = pair.a.write(pair.source.slice(0..1).unwrap(), to.slice(0..2).unwrap());
    assert!(matches!(short.wait(), Outcome::Rejected(_)));
    window.revoke_within(AMPLE).unwrap();
    assert_eq!(pair.write(0..1, &to, 0).wait(), Outcome::Rejected(Reason::Stale));
    let (a, b) = (pair.a.stats(), pair.b.stats());
    assert_eq!(a.submitted, 9);
    assert_eq!(a.submitted, a.done + a.rejected + a.fenced + a.lost, "{a:?}");
    assert_eq!(a.done, 6 + done);
    assert_eq!(a.written_bytes, 20_001 + done * 20_000);
    assert_eq!(a.read_bytes, 20_001);
    assert_eq!((b.immediates, b.stray_immediates, b.windows_fenced), (3, 0, 1));
    assert_eq!((a.connections, b.connections), (1, 1));
}
