//! Barriers: nobody goes on before everybody has come, whatever became of the signals.

#![cfg(not(loom))]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tranship_transport::fabric::sim::{Action, Config, Faults, Network};
use tranship_transport::fabric::{shm, tcp};
use tranship_transport::{
    Address, Barrier, Drive, Engine, Invitation, JoinError, Kind, Outcome, Polling, Reason,
};

const TIMEOUT: Duration = Duration::from_secs(30);

fn engine(drive: Drive) -> Engine {
    let polling = Polling::Adaptive { spin: Duration::ZERO };
    Engine::builder().drive(drive).polling(polling).deadline(TIMEOUT).build().unwrap()
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
