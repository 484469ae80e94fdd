//! Several transfers, peers or words at once: batches, scatter, barriers and watchers.

#![cfg(not(loom))]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use tranship_transport::fabric::sim::{Action, Config, Faults, Network};
use tranship_transport::fabric::{shm, tcp};
use tranship_transport::{
    Address, Barrier, Drive, Engine, HostMemory, Invitation, JoinError, Kind, Lane, Outcome,
    Polling, Reason, Target, WatchError, Watcher,
};

const TIMEOUT: Duration = Duration::from_secs(30);
const LEN: u64 = 1 << 16;

fn engine(drive: Drive) -> Engine {
    let polling = Polling::Adaptive { spin: Duration::ZERO };
    Engine::builder().drive(drive).polling(polling).deadline(TIMEOUT).build().unwrap()
}

#[test]
fn a_batch_has_one_outcome_for_each() {
    let (owner, writer) = (engine(Drive::Thread), engine(Drive::Thread));
    let there = owner.alloc(HostMemory::new(LEN as usize)).unwrap();
    let window = there.window(0..LEN / 2).unwrap();
    let here = writer.alloc(HostMemory::new(LEN as usize)).unwrap();
    here.memory().fill(0..LEN as usize, 7).unwrap();
    let to = writer.open(&window.descriptor()).unwrap();
    let arrivals = owner.counter().unwrap();
    let mut batch = writer.batch();
    for at in 0..16 {
        let (from, to) = (here.slice(at..at + 1).unwrap(), to.slice(at..at + 1).unwrap());
        batch.push(writer.write(from, to).immediate(arrivals.slot()));
    }
    batch.push(writer.write(here.slice(0..1).unwrap(), to.slice(0..2).unwrap()));
    assert_eq!(batch.len(), 17);
    let outcomes = batch.lane(Lane::Latency).deadline(TIMEOUT).wait();
    assert_eq!(outcomes[16], Outcome::Rejected(Reason::Uneven));
    assert!(outcomes[..16].iter().all(|outcome| outcome.is_done()), "{outcomes:?}");
    arrivals.wait(16, TIMEOUT).unwrap();
    let mut bytes = [0; 17];
    there.memory().read_at(0, &mut bytes).unwrap();
    assert_eq!(bytes[..16], [7; 16]);
    assert_eq!(bytes[16], 0);
    assert!(writer.batch().wait().is_empty());
}

#[test]
fn a_scatter_gives_each_peer_its_part() {
    const PEERS: usize = 5;
    let sender = engine(Drive::Thread);
    let source = sender.alloc(HostMemory::new(LEN as usize)).unwrap();
    for at in 0..LEN as usize {
        source.memory().write_at(at, &[(at % 251) as u8]).unwrap();
    }
    let peers: Vec<_> = (0..PEERS)
        .map(|_| {
            let engine = engine(Drive::Thread);
            let region = engine.alloc(HostMemory::new(LEN as usize)).unwrap();
            let window = region.window(0..LEN).unwrap();
            let arrivals = engine.counter().unwrap();
            (region, window, arrivals)
        })
        .collect();
    // Unequal parts, an empty one among them.
    let bounds = [0, 100, 100, 5000, 5001, 40_000];
    let group: Vec<_> = peers
        .iter()
        .enumerate()
        .map(|(at, (_, window, arrivals))| {
            let from = bounds[at]..bounds[at + 1];
            let to = sender.open(&window.descriptor()).unwrap();
            let to = to.slice(7..7 + from.end - from.start).unwrap();
            Target { from, to, slot: Some(arrivals.slot()) }
        })
        .collect();
    let all = source.slice(0..LEN).unwrap();
    for round in 1..=3 {
        let outcomes = sender.scatter(&all, &group).unwrap().wait();
        assert!(outcomes.iter().all(|outcome| outcome.is_done()), "{outcomes:?}");
        for (at, (region, _, arrivals)) in peers.iter().enumerate() {
            arrivals.wait(round, TIMEOUT).unwrap();
            let mut got = vec![0; (bounds[at + 1] - bounds[at]) as usize];
            region.memory().read_at(7, &mut got).unwrap();
            let expected: Vec<_> =
                (bounds[at]..bounds[at + 1]).map(|at| (at % 251) as u8).collect();
            assert_eq!(got, expected);
        }
    }
    let beyond = [Target { from: 0..LEN + 1, to: group[0].to.clone(), slot: None }];
    let error = sender.scatter(&all, &beyond).unwrap_err().to_string();
    assert_eq!(error, "bytes 0..65537 are not inside 0..65536");
}

/// Barriers of as many engines, each knowing all others.
fn meeting(members: usize) -> Vec<(Engine, Barrier)> {
    meet((0..members).map(|_| engine(Drive::Thread)).collect())
}

fn meet(engines: Vec<Engine>) -> Vec<(Engine, Barrier)> {
    meet_as_told(engines, |_, _| {})
}

/// The same with invitations that were changed on their way; each is handed over with its number.
fn meet_as_told(
    engines: Vec<Engine>,
    change: impl Fn(usize, &mut Invitation),
) -> Vec<(Engine, Barrier)> {
    let members = engines.len();
    let mut all: Vec<_> = engines
        .into_iter()
        .map(|engine| {
            let barrier = Barrier::new(&engine, members - 1).unwrap();
            (engine, barrier)
        })
        .collect();
    let mut invitations: Vec<_> = all.iter().map(|(_, barrier)| barrier.invitation()).collect();
    invitations.iter_mut().enumerate().for_each(|(at, invitation)| change(at, invitation));
    for (_, barrier) in &mut all {
        // Its own among them, which changes nothing.
        for invitation in &invitations {
            barrier.join(invitation).unwrap();
        }
        assert_eq!(barrier.others(), members - 1);
    }
    all
}

#[test]
fn nobody_leaves_a_barrier_before_all_have_come() {
    const MEMBERS: usize = 4;
    const ROUNDS: u64 = 200;
    let came: Vec<_> = (0..MEMBERS).map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        for (at, (_engine, mut barrier)) in meeting(MEMBERS).into_iter().enumerate() {
            let came = &came;
            scope.spawn(move || {
                for round in 1..=ROUNDS {
                    came[at].store(round, Ordering::SeqCst);
                    barrier.wait(TIMEOUT).unwrap();
                    for other in came {
                        let there = other.load(Ordering::SeqCst);
                        assert!((round..=round + 1).contains(&there), "{there} in {round}");
                    }
                }
            });
        }
    });
}

#[test]
fn a_barrier_says_who_is_missing_and_goes_on_when_they_come() {
    let mut members = meeting(2);
    let (_b_engine, mut b) = members.pop().unwrap();
    let (_a_engine, mut a) = members.pop().unwrap();
    let error = a.wait(Duration::from_millis(20)).unwrap_err();
    assert_eq!((error.round, error.missing), (0, 1));
    // The signal of the call before counts, once.
    b.wait(TIMEOUT).unwrap();
    a.wait(TIMEOUT).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| b.wait(TIMEOUT).unwrap());
        a.wait(TIMEOUT).unwrap();
    });
    drop((b, _b_engine));
    let error = a.wait(Duration::from_millis(200)).unwrap_err();
    assert_eq!((error.round, error.missing), (2, 1));
}

#[test]
fn a_member_that_is_invited_twice_counts_once() {
    let mut members = meeting(2);
    let (_b_engine, mut b) = members.pop().unwrap();
    let (_a_engine, mut a) = members.pop().unwrap();
    a.join(&b.invitation()).unwrap();
    assert_eq!(a.others(), 1);
    for _ in 0..3 {
        std::thread::scope(|scope| {
            scope.spawn(|| b.wait(TIMEOUT).unwrap());
            a.wait(TIMEOUT).unwrap();
        });
    }
}

#[test]
fn barriers_of_groups_of_other_sizes_do_not_meet() {
    let [a, b, c] = [(); 3].map(|()| engine(Drive::Thread));
    let mut two = Barrier::new(&a, 1).unwrap();
    let error = two.join(&Barrier::new(&b, 2).unwrap().invitation()).unwrap_err();
    assert_eq!(error, JoinError::Uneven { others: 1, theirs: 2 });
    // Nobody has come to a barrier that nobody has joined.
    let error = two.wait(Duration::from_millis(5)).unwrap_err();
    assert_eq!((error.round, error.missing, error.unreached.len()), (0, 1, 0));
    two.join(&Barrier::new(&b, 1).unwrap().invitation()).unwrap();
    let error = two.join(&Barrier::new(&c, 1).unwrap().invitation()).unwrap_err();
    assert_eq!(error, JoinError::Full { others: 1 });
}

const SHORT: Duration = Duration::from_millis(1);
const AMPLE: Duration = Duration::from_millis(20);

/// A barrier of two on a simulated network, both through the first round.
fn simulated(seed: u64) -> (Network, Vec<(Engine, Barrier)>) {
    let network = Network::new(Config::new(seed));
    let engine = |_| {
        let builder = Engine::builder().fabric(network.provider()).clock(network.clock());
        builder.drive(Drive::Caller).polling(Polling::Busy).deadline(AMPLE).build().unwrap()
    };
    let mut members = meet((0..2).map(engine).collect());
    pass_through(&mut members, 0);
    (network, members)
}

/// All of them come, one after the other, and get through.
fn pass_through(members: &mut [(Engine, Barrier)], round: u64) {
    let mut through = vec![false; members.len()];
    for _ in 0..2 {
        for (through, (_, barrier)) in through.iter_mut().zip(members.iter_mut()) {
            if !*through {
                match barrier.wait(AMPLE) {
                    Ok(()) => *through = true,
                    Err(error) => assert_eq!(error.round, round),
                }
            }
        }
    }
    assert!(through.iter().all(|through| *through), "round {round}: {through:?}");
}

#[test]
fn a_barrier_tells_again_whom_it_may_not_have_told() {
    for seed in 0..20 {
        let (network, mut members) = simulated(seed);
        let [a, b] = [0, 1].map(|at: usize| members[at].0.addresses()[0].clone());
        network.cut(&a, &b);
        network.set_faults(Faults { failed_flush: 1.0, ..Faults::none() });
        let error = members[0].1.wait(SHORT).unwrap_err();
        assert!(matches!(error.unreached[..], [(_, Outcome::Lost(_))]), "{error}");
        // What was under way vanishes with the connection.
        let peer = members[0].0.peer(&b).unwrap();
        members[0].0.disconnect(peer);
        network.run_for(AMPLE);
        network.heal(&a, &b);
        network.set_faults(Faults::none());
        pass_through(&mut members, 1);
        pass_through(&mut members, 2);
    }
}

#[test]
fn a_barrier_counts_whom_it_is_told_of_twice_once() {
    for seed in 0..20 {
        let (network, mut members) = simulated(seed);
        // All that is sent arrives and nobody learns of it; some of it arrives late.
        let faults = Faults { lost_completion: 1.0, late: 0.5, late_by: AMPLE, ..Faults::none() };
        network.set_faults(faults);
        for _ in 0..3 {
            let error = members[0].1.wait(SHORT).unwrap_err();
            assert_eq!((error.round, error.unreached.len()), (1, 1), "seed {seed}: {error}");
        }
        network.set_faults(Faults::none());
        pass_through(&mut members, 1);
        // Nor does what comes late count for the rounds after it.
        for round in 2..6 {
            let error = members[1].1.wait(AMPLE).unwrap_err();
            assert_eq!((error.round, error.missing), (round, 1), "seed {seed}: {error}");
            pass_through(&mut members, round);
        }
    }
}

/// So many engines on a simulated network, each with two fabrics, and where they are.
fn doubly_simulated(count: usize) -> (Network, Vec<Engine>, Vec<Vec<Address>>) {
    let network = Network::new(Config::new(0));
    let engine = |_| {
        let builder = Engine::builder().fabric(network.provider());
        let builder = builder.fabric(network.provider_as(Kind::Tcp)).clock(network.clock());
        builder.drive(Drive::Caller).polling(Polling::Busy).deadline(AMPLE).build().unwrap()
    };
    let engines: Vec<_> = (0..count).map(engine).collect();
    let addresses = engines.iter().map(|engine| engine.addresses().to_vec()).collect();
    (network, engines, addresses)
}

/// The first comes and tells the second, who then passes at once, and so does the first.
fn pass_first(members: &mut [(Engine, Barrier)], wait: Duration) {
    let error = members[0].1.wait(wait).unwrap_err();
    assert_eq!((error.missing, &error.unreached[..]), (1, &[][..]));
    members[1].1.wait(wait).unwrap();
    members[0].1.wait(wait).unwrap();
    (1..4).for_each(|round| pass_through(members, round));
}

#[test]
fn a_barrier_goes_over_the_next_fabric_when_the_best_does_not_lead_there() {
    // The call over the cut ends by itself, after 40 ms; or shortly before the deadline.
    for wait in [5 * AMPLE, SHORT] {
        let (network, engines, to) = doubly_simulated(2);
        network.cut(&to[0][0], &to[1][0]);
        pass_first(&mut meet(engines), wait);
    }
}

#[test]
fn a_barrier_across_hosts_passes_in_the_first_wait() {
    let engine = |_| {
        let builder = Engine::builder().fabric(shm::Config::new()).fabric(tcp::Config::new());
        builder.deadline(TIMEOUT).build().unwrap()
    };
    let members = meet_as_told((0..2).map(engine).collect(), |_, invitation| {
        // What is there on its own host is not here.
        assert_eq!(invitation.addresses[0].kind, Kind::Shm);
        invitation.addresses[0] =
            Address::new(Kind::Shm, format!("{}-elsewhere", invitation.engine));
    });
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for (_engine, mut barrier) in members {
            scope.spawn(move || (0..3).for_each(|_| barrier.wait(TIMEOUT).unwrap()));
        }
    });
    assert!(begun.elapsed() < TIMEOUT / 2, "{:?}", begun.elapsed());
}

#[test]
fn a_fabric_that_had_little_time_is_the_first_of_the_next_wait() {
    let (network, engines, to) = doubly_simulated(2);
    let mut members = meet(engines);
    (0..2).for_each(|way| network.cut(&to[0][way], &to[1][way]));
    // 40 ms of it for the best.
    let error = members[0].1.wait(Duration::from_millis(45)).unwrap_err();
    assert_eq!(error.unreached, [(to[1][1].clone(), Outcome::Rejected(Reason::Deadline))]);
    network.heal(&to[0][1], &to[1][1]);
    assert_eq!(members[1].1.wait(5 * AMPLE).unwrap_err().unreached, []);
    let begun = members[0].0.now();
    members[0].1.wait(AMPLE).unwrap();
    let took = members[0].0.now().since(begun);
    assert!(took < SHORT, "{took:?}");
}

#[test]
fn who_does_not_answer_keeps_nobody_else_from_the_next_fabric() {
    let (network, engines, to) = doubly_simulated(3);
    let nobody = network.provider().address().clone();
    let mut members = meet_as_told(engines, |at, invitation| {
        if at == 1 {
            invitation.addresses[0] = nobody.clone();
        }
    });
    (0..2).for_each(|way| network.cut(&to[0][way], &to[2][way]));
    network.at(SHORT / 2, Action::Cut(to[0][1].clone(), to[1][1].clone()));
    let error = members[0].1.wait(SHORT).unwrap_err();
    let unreached: Vec<_> = error.unreached.iter().map(|(to, _)| to).collect();
    assert_eq!(unreached, [&to[2][1]], "{error}");
}

#[test]
fn a_barrier_tells_the_member_and_not_who_else_is_at_its_address() {
    let (_network, mut engines, to) = doubly_simulated(3);
    let stranger = engines.pop().unwrap();
    let mut members = meet_as_told(engines, |_, invitation| {
        invitation.addresses[0] = to[2][0].clone();
    });
    pass_first(&mut members, AMPLE);
    let stats = stranger.stats();
    assert_eq!((stats.immediates, stats.stray_immediates), (0, 0));
}

#[test]
fn a_barrier_does_not_take_a_restarted_engine_for_the_member_that_it_was() {
    let (network, mut members) = simulated(0);
    let b = members[1].0.addresses()[0].clone();
    network.kill(&b);
    drop(members.pop());
    network.run_for(AMPLE);
    let builder = Engine::builder().fabric(network.provider_at(&b)).clock(network.clock());
    let _restarted = builder.drive(Drive::Caller).polling(Polling::Busy).build().unwrap();
    // While it is dialled, and once it is known who is there.
    for _ in 0..2 {
        let error = members[0].1.wait(AMPLE).unwrap_err();
        assert_eq!(error.unreached, [(b.clone(), Outcome::Rejected(Reason::Stale))]);
    }
}

#[test]
fn a_barrier_names_who_cannot_be_told() {
    let mut members = meeting(2);
    drop(members.pop());
    let (_engine, mut alone) = members.pop().unwrap();
    let error = alone.wait(Duration::from_millis(200)).unwrap_err();
    assert_eq!((error.missing, error.unreached.len()), (1, 1), "{error}");
    assert_eq!(error.unreached[0].1, Outcome::Rejected(Reason::Unreachable));
}

fn watcher(engine: &Engine) -> Watcher {
    let region = engine.alloc(HostMemory::new(4096)).unwrap();
    engine.watch(region.memory(), 64).unwrap()
}

#[test]
fn a_watched_word_wakes_who_waits_whoever_bumps_it() {
    for drive in [Drive::Thread, Drive::Caller] {
        let engine = engine(drive);
        let watcher = watcher(&engine);
        assert_eq!(watcher.value(), 0);
        let none = watcher.wait(0, Duration::from_millis(5)).unwrap_err();
        assert_eq!(none.to_string(), "the watched word is still 0 after 5ms");
        for round in 0..50 {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    if round % 2 == 0 {
                        watcher.bump();
                    } else {
                        // As a GPU does it: nobody is told.
                        // SAFETY: the word lives as long as its watcher, and is only used atomically.
                        let word = unsafe { AtomicU64::from_ptr(watcher.as_ptr()) };
                        word.fetch_add(1, Ordering::Release);
                    }
                });
                assert_eq!(watcher.wait(round, TIMEOUT).unwrap(), round + 1);
            });
        }
    }
}

#[test]
fn a_callback_sees_the_last_change_and_may_use_the_engine() {
    let engine = engine(Drive::Thread);
    let region = engine.alloc(HostMemory::new(4096)).unwrap();
    let window = region.window(0..4096).unwrap();
    let writer = self::engine(Drive::Thread);
    let here = writer.alloc(HostMemory::new(4096)).unwrap();
    let to = writer.open(&window.descriptor()).unwrap();
    let back = writer.counter().unwrap();

    // A peer's one-sided write changes the word; the callback answers.
    let watcher = engine.watch(region.memory(), 128).unwrap();
    let peer = engine.connect(&writer.addresses()[0], TIMEOUT).unwrap();
    let (seen, values) = mpsc::channel();
    let (slot, answering) = (back.slot(), engine.clone());
    watcher.on_change(move |value| {
        seen.send(value).unwrap();
        assert!(answering.signal(peer, slot).submit().is_ok());
    });
    let mut last = 0;
    for value in 1u64..=100 {
        here.memory().write_at(0, &value.to_ne_bytes()).unwrap();
        let sent = writer.write(here.slice(0..8).unwrap(), to.slice(128..136).unwrap()).wait();
        assert!(sent.is_done(), "{sent}");
        if value % 10 == 0 {
            // Changes in between may be seen as one, the last is always seen.
            while last != value {
                let next = values.recv_timeout(TIMEOUT).unwrap();
                assert!(next > last, "{next} after {last}");
                last = next;
            }
        }
    }
    back.wait(10, TIMEOUT).unwrap();
    drop(watcher);
    for value in 101u64..120 {
        here.memory().write_at(0, &value.to_ne_bytes()).unwrap();
        let sent = writer.write(here.slice(0..8).unwrap(), to.slice(128..136).unwrap()).wait();
        assert!(sent.is_done(), "{sent}");
        let _ = engine.progress();
    }
    // At most the call that had begun when the watcher went.
    assert!(values.try_iter().count() <= 1);
}

#[test]
fn a_callback_may_replace_itself() {
    for drive in [Drive::Thread, Drive::Caller] {
        let engine = engine(drive);
        let watcher = Arc::new(watcher(&engine));
        let heard: Arc<Mutex<Vec<(&str, u64)>>> = Arc::default();
        let (itself, first, second) =
            (Arc::downgrade(&watcher), Arc::clone(&heard), Arc::clone(&heard));
        let mut second = Some(move |value| second.lock().unwrap().push(("second", value)));
        watcher.on_change(move |value| {
            first.lock().unwrap().push(("first", value));
            if let (Some(itself), Some(second)) = (itself.upgrade(), second.take()) {
                itself.on_change(second);
                // It knows the value by now, not the one to come.
                itself.bump();
            }
        });
        watcher.bump();
        assert!(engine.wait_until(TIMEOUT, || heard.lock().unwrap().len() == 2));
        assert_eq!(*heard.lock().unwrap(), [("first", 1), ("second", 2)]);
    }
}

#[test]
fn a_callback_may_wait_or_drop_its_watcher() {
    let engine = engine(Drive::Thread);
    let (first, second) = (Mutex::new(Some(watcher(&engine))), Arc::new(watcher(&engine)));
    let first = Arc::new(first);
    let done = Arc::new(AtomicBool::new(false));
    let (waits, word, flag) = (engine.clone(), Arc::clone(&second), Arc::clone(&done));
    let itself = Arc::clone(&first);
    first.lock().unwrap().as_ref().unwrap().on_change(move |_| {
        word.bump();
        assert!(!waits.wait_until(Duration::from_millis(1), || false));
        drop(itself.lock().unwrap().take());
        flag.store(true, Ordering::SeqCst);
        waits.wake();
    });
    first.lock().unwrap().as_ref().unwrap().bump();
    assert!(engine.wait_until(TIMEOUT, || done.load(Ordering::SeqCst)));
    assert_eq!(second.wait(0, TIMEOUT).unwrap(), 1);
    assert!(first.lock().unwrap().is_none());
}

/// Time moves on while a callback waits, though its word has something new to tell.
#[test]
fn a_callback_waits_in_simulated_time_though_its_word_changes() {
    let network = Network::new(Config::new(1));
    let engine = Engine::builder()
        .fabric(network.provider())
        .clock(network.clock())
        .drive(Drive::Caller)
        .build()
        .unwrap();
    let watcher = Arc::new(watcher(&engine));
    let calls = Arc::new(AtomicU64::new(0));
    let (waits, itself, counts) = (engine.clone(), Arc::downgrade(&watcher), Arc::clone(&calls));
    watcher.on_change(move |value| {
        if value == 1 {
            itself.upgrade().expect("it is still there").bump();
            assert!(!waits.wait_until(Duration::from_millis(1), || false));
        }
        counts.fetch_add(1, Ordering::SeqCst);
    });
    let began = engine.now();
    watcher.bump();
    assert!(engine.wait_until(TIMEOUT, || calls.load(Ordering::SeqCst) == 2));
    assert_eq!(engine.now().since(began), Duration::from_millis(1));
}

#[test]
fn a_word_that_never_stops_changing_leaves_the_thread_to_others() {
    const CHANGES: u64 = 1000;
    let engine = engine(Drive::Caller);
    let watcher = Arc::new(watcher(&engine));
    let (itself, calls) = (Arc::downgrade(&watcher), Arc::new(AtomicU64::new(0)));
    let counts = Arc::clone(&calls);
    watcher.on_change(move |value| {
        counts.fetch_add(1, Ordering::SeqCst);
        if value < CHANGES {
            itself.upgrade().expect("it is still there").bump();
        }
    });
    watcher.bump();
    engine.progress();
    assert!(calls.load(Ordering::SeqCst) < CHANGES / 10, "one step tells them all");
    assert!(engine.wait_until(TIMEOUT, || calls.load(Ordering::SeqCst) == CHANGES));
}

#[test]
fn words_that_cannot_be_watched_are_refused() {
    let engine = engine(Drive::Thread);
    let region = engine.alloc(HostMemory::new(4096)).unwrap();
    let refused = |at| engine.watch(region.memory(), at).unwrap_err();
    assert_eq!(refused(4), WatchError::Unaligned { offset: 4 });
    assert!(matches!(refused(4096), WatchError::Range(_)));
    assert!(matches!(refused(u64::MAX), WatchError::Unaligned { .. }));
}
