//! How ends are learnt.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use super::harness::Harness;
use super::kit::{AMPLE, Pair, start, until};
use crate::notify::Notifier;
use crate::outcome::{Outcome, Reason};

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
