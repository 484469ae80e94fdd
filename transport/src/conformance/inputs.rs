//! Bad input: one clear error each, others undisturbed.

use std::time::Duration;

use super::harness::Harness;
use super::kit::{
    AMPLE, Pair, WATCH, address, all_done, bytes_of, engine, fill, is_all, region, start, until,
};
use super::messages::next_message;
use crate::outcome::{Outcome, Reason};
use crate::pages::{Pages, Plan};
use crate::window::{Access, WindowError};

/// "A counter waited for twice": a wait takes nothing away. Whoever asks again for less or as much
/// has it at once; whoever asks for more, or asked too early, waits for what is still to come.
pub fn a_counter_is_waited_for_more_than_once<H: Harness>(harness: &H) {
    let pair = Pair::new(harness, 4096);
    let (_window, to) = pair.offer();
    let counter = pair.b.counter().unwrap();
    let early = counter.wait(1, WATCH).unwrap_err();
    assert_eq!((early.count, early.target), (0, 1));
    assert_eq!(counter.wait(0, Duration::ZERO).unwrap(), 0, "nothing is there at once");
    for round in 1..=3 {
        let sent = start(pair.write(0..4096, &to, 0).immediate(counter.slot()));
        assert_eq!(counter.wait(round, AMPLE).unwrap(), round);
        assert_eq!(counter.wait(round, Duration::ZERO).unwrap(), round, "twice");
        assert_eq!(counter.wait(1, Duration::ZERO).unwrap(), round, "for less");
        assert_eq!(sent.wait(), Outcome::Done);
    }
    let late = counter.wait(4, WATCH).unwrap_err();
    assert_eq!((late.count, late.target, late.slot), (3, 4, counter.slot()));
    assert!(late.to_string().contains("3 of 4"), "{late}");
    if H::THREADS {
        std::thread::scope(|scope| {
            let both = [(), ()].map(|()| scope.spawn(|| counter.wait(5, AMPLE)));
            let sent =
                [(), ()].map(|()| start(pair.write(0..64, &to, 0).immediate(counter.slot())));
            for waiter in both {
                assert_eq!(waiter.join().unwrap().unwrap(), 5, "each of those who wait has it");
            }
            sent.iter().for_each(|sent| assert_eq!(sent.wait(), Outcome::Done));
        });
    }
}

/// "A closed handle": of a region, of a window, of an engine. Each use is refused at once and says
/// why; the rest goes on.
pub fn a_closed_handle_is_refused<H: Harness>(harness: &H) {
    let pair = Pair::new(harness, 4096);
    fill(&pair.source, 7);
    let (window, to) = pair.offer();
    let spare = region(&pair.a, 4096);
    fill(&spare, 3);
    let (slice, refused) = (spare.slice(0..4096).unwrap(), Outcome::Rejected(Reason::Closed));
    let whole = to.slice(0..4096).unwrap();
    spare.close(AMPLE).unwrap();
    // A slice of a region that was closed.
    let plan = Pages::strided(0, 64, 128, 4).unwrap();
    let plan = Plan::new(plan.clone(), plan).unwrap();
    assert_eq!(pair.a.write(slice.clone(), whole.clone()).wait(), refused);
    assert_eq!(pair.a.read(whole.clone(), slice.clone()).wait(), refused);
    assert_eq!(pair.a.write_paged(&slice, &whole, &plan).wait(), refused);
    assert_eq!(pair.a.read_paged(&whole, &slice, &plan).wait(), refused);
    assert_eq!(pair.write(0..4096, &to, 0).wait(), Outcome::Done, "other regions go on");
    // A window that was revoked.
    window.revoke_within(AMPLE).unwrap();
    assert_eq!(pair.write(0..4096, &to, 0).wait(), Outcome::Rejected(Reason::Stale));
    // An engine that was closed.
    let (_window, to) = pair.offer();
    let counter = pair.a.counter().unwrap();
    let peer = to.peer();
    pair.a.close(AMPLE).unwrap();
    pair.a.close(AMPLE).unwrap();
    assert_eq!(pair.write(0..4096, &to, 0).wait(), refused);
    assert_eq!(pair.read(&to, 0, 0..4096).wait(), refused);
    assert_eq!(pair.a.send(peer, *b"hello").wait(), refused);
    assert_eq!(pair.a.signal(peer, counter.slot()).wait(), refused);
    assert_eq!(pair.a.map(&to, AMPLE).unwrap_err().outcome, refused);
    assert!(matches!(pair.source.window(0..4096), Err(WindowError::Closed)));
    let late = start(pair.write(0..4096, &to, 0));
    late.cancel();
    assert_eq!(late.wait(), refused, "cancelled or not, a closed engine takes nothing on");
    // The other engine does not care.
    let other = Pair { a: engine(harness), ..pair };
    let source = region(&other.a, 4096);
    let other = Pair { source, ..other };
    let (_window, to) = other.offer();
    assert_eq!(other.write(0..4096, &to, 0).wait(), Outcome::Done);
}

/// "Zero-length": a transfer of nothing is a transfer; it asks for its window as others do.
pub fn nothing_can_be_transferred<H: Harness>(harness: &H) {
    let pair = Pair::new(harness, 4096);
    fill(&pair.source, 7);
    let (window, to) = pair.offer_part(1024..2048, Access::WRITE | Access::READ);
    let counter = pair.b.counter().unwrap();
    for at in [0, 1024] {
        assert_eq!(pair.write(0..0, &to, at).immediate(counter.slot()).wait(), Outcome::Done);
        assert_eq!(pair.read(&to, at, 0..0).immediate(counter.slot()).wait(), Outcome::Done);
    }
    assert_eq!(counter.wait(4, AMPLE).unwrap(), 4);
    // A message of nothing is a message.
    let peer = pair.a.connect(&address(&pair.b), AMPLE).unwrap();
    let sent = start(pair.a.send(peer, []).immediate(counter.slot()).deadline(AMPLE));
    assert_eq!(next_message(&pair.b).1, b"");
    assert_eq!(sent.wait(), Outcome::Done);
    assert_eq!(counter.wait(5, AMPLE).unwrap(), 5);
    // Nothing, out of bounds or out of a window that is closed, is still refused.
    let mut longer = window.descriptor();
    longer.len = u64::MAX;
    let beyond = pair.a.open(&longer).unwrap();
    let outcome = pair.write(0..0, &beyond, 1025).immediate(counter.slot()).wait();
    assert_eq!(outcome, Outcome::Rejected(Reason::OutOfBounds));
    window.revoke_within(AMPLE).unwrap();
    let outcome = pair.write(0..0, &to, 0).immediate(counter.slot()).wait();
    assert_eq!(outcome, Outcome::Rejected(Reason::Stale));
    harness.pass(WATCH);
    assert_eq!(counter.count(), 5, "what is refused announces nothing");
    assert!(is_all(&bytes_of(&pair.target), 0) && is_all(&bytes_of(&pair.source), 7));
}

/// What is refused disturbs nobody: good transfers between bad ones all arrive.
pub fn bad_transfers_disturb_no_others<H: Harness>(harness: &H) {
    let pair = Pair::new(harness, 40_000);
    fill(&pair.source, 7);
    let (window, to) = pair.offer();
    let mut forged = window.descriptor();
    forged.routes[0].key ^= 1 << 17;
    let forged = pair.a.open(&forged).unwrap();
    let mut longer = window.descriptor();
    longer.len = u64::MAX;
    let longer = pair.a.open(&longer).unwrap();
    let counter = pair.b.counter().unwrap();
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for at in 0..20 {
        let range = at * 2000..(at + 1) * 2000;
        good.push(start(pair.write(range, &to, at * 2000).immediate(counter.slot())));
        bad.push(match at % 3 {
            0 => start(pair.write(0..2000, &forged, 0).immediate(counter.slot())),
            1 => start(pair.write(0..2000, &longer, 38_001).immediate(counter.slot())),
            _ => start(pair.a.write(pair.source.slice(0..1).unwrap(), to.slice(0..2).unwrap())),
        });
    }
    for (at, sent) in bad.iter().enumerate() {
        let why = [Reason::Forged, Reason::OutOfBounds, Reason::Uneven][at % 3];
        assert_eq!(sent.wait(), Outcome::Rejected(why), "bad transfer {at}");
    }
    all_done(&good);
    until(harness, "the good ones", || {
        pair.b.progress();
        counter.count() == 20
    });
    assert!(is_all(&bytes_of(&pair.target), 7));
}
