//! The conformance suite on the simulated network: every rule over many seeds, with the faults that
//! a correct engine hides switched on for every other seed.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tranship_transport::conformance::{self, Fault, Harness};
use tranship_transport::fabric::sim::{Config, Faults, Network, Port, Trace};
use tranship_transport::{
    Access, Address, Builder, Drive, Engine, HostMemory, Kind, Outcome, Polling, Time, Transfer,
};

/// How many seeds each rule is run for, unless `TRANSHIP_SIM_SEEDS` says how many.
const SEEDS: u64 = 50;

struct Sim {
    network: Network,
    faults: Cell<Faults>,
}

impl Sim {
    fn with(seed: u64, faults: Faults) -> Self {
        let network = Network::new(Config::new(seed).faults(faults));
        Self { network, faults: Cell::new(faults) }
    }

    fn dress(&self, port: Port) -> Builder {
        Engine::builder()
            .fabric(port)
            .clock(self.network.clock())
            .drive(Drive::Caller)
            .polling(Polling::Busy)
            .deadline(Duration::from_secs(20))
    }
}

impl Harness for Sim {
    const THREADS: bool = false;

    fn cases() -> Vec<u64> {
        let seeds = std::env::var("TRANSHIP_SIM_SEEDS").ok();
        (0..seeds.map_or(SEEDS, |seeds| seeds.parse().expect("a number"))).collect()
    }

    fn new(case: u64) -> Self {
        Self::with(case, if case.is_multiple_of(2) { Faults::none() } else { Faults::bad_day() })
    }

    fn case(&self) -> u64 {
        self.network.seed()
    }

    fn builder(&self) -> Builder {
        self.dress(self.network.provider())
    }

    fn restart(&self, at: &Address) -> Option<Builder> {
        Some(self.dress(self.network.provider_at(at)))
    }

    fn nowhere(&self) -> Address {
        Address::new(Kind::Sim, "nowhere")
    }

    fn inject(&self, fault: Fault) -> bool {
        let faults = self.faults.get();
        match fault {
            Fault::Kill(at) => self.network.kill(&at),
            Fault::Pause(at) => self.network.pause(&at),
            Fault::Resume(at) => self.network.resume(&at),
            Fault::SlowFlush => self.network.set_faults(Faults { slow_flush: 1.0, ..faults }),
            Fault::FailedFlush => self.network.set_faults(Faults { failed_flush: 1.0, ..faults }),
            Fault::LostCompletions => {
                self.network.set_faults(Faults { lost_completion: 1.0, ..faults });
            }
            Fault::None => self.network.set_faults(faults),
        }
        true
    }

    fn turn(&self) {
        let clock = self.network.clock();
        clock.advance(clock.now() + Duration::from_millis(1));
    }

    fn pass(&self, span: Duration) {
        self.network.run_for(span);
    }

    fn report(&self) -> String {
        let seed = self.network.seed();
        format!("run it again with TRANSHIP_SIM_SEED={seed}\n{:?}", self.network.trace())
    }
}

tranship_transport::conformance!(Sim);

/// A job with everything in it; what the network saw and how it all ended.
fn job(seed: u64) -> (Trace, Vec<Outcome>) {
    let faults = Faults {
        slow_flush: 0.3,
        slow_flush_takes: Duration::from_millis(80),
        failed_flush: 0.2,
        lost_completion: 0.02,
        ..Faults::bad_day()
    };
    let sim = Sim::with(seed, faults);
    let engines: Vec<_> = (0..3).map(|_| sim.builder().build().unwrap()).collect();
    let regions: Vec<_> =
        engines.iter().map(|engine| engine.alloc(HostMemory::new(1 << 17)).unwrap()).collect();
    let everything = Access::WRITE | Access::READ;
    let windows: Vec<_> = regions
        .iter()
        .flat_map(|region| (0..3).map(|_| region.window_with(0..1 << 17, everything).unwrap()))
        .collect();
    let pairs = [(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)];
    let mut outcomes = Vec::new();
    for round in 0..6 {
        let start = |&(from, to): &(usize, usize)| {
            let remote = engines[from].open(&windows[3 * to].descriptor()).unwrap();
            let local = regions[from].slice(0..90_000).unwrap();
            let remote = remote.slice(0..90_000).unwrap();
            let submission = if round % 2 == 0 {
                engines[from].write(local, remote)
            } else {
                engines[from].read(remote, local)
            };
            submission.deadline(Duration::from_millis(50)).submit().unwrap()
        };
        let transfers: Vec<_> = pairs.iter().map(start).collect();
        sim.pass(Duration::from_micros(5 * round));
        transfers.iter().step_by(2).for_each(Transfer::cancel);
        if round == 3 {
            sim.network.pause(&engines[1].addresses()[0]);
        }
        outcomes.extend(transfers.iter().map(Transfer::wait));
    }
    sim.network.resume(&engines[1].addresses()[0]);
    sim.pass(Duration::from_millis(300));
    for engine in &engines {
        // What the fabric cannot prove is not asked for here.
        let _ = engine.close(Duration::from_millis(100));
    }
    (sim.network.trace(), outcomes)
}

#[test]
fn one_seed_is_one_run_engines_included() {
    for seed in 0..10 {
        assert_eq!(job(seed), job(seed), "seed {seed}");
    }
    assert_ne!(job(1).0.hash, job(2).0.hash);
}

#[test]
fn all_four_outcomes_arise() {
    let outcomes: Vec<_> = (0..20).flat_map(|seed| job(seed).1).collect();
    let count = |is: fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| is(outcome)).count();
    let counts = [
        count(|outcome| matches!(outcome, Outcome::Done)),
        count(|outcome| matches!(outcome, Outcome::Rejected(_))),
        count(|outcome| matches!(outcome, Outcome::Fenced(_))),
        count(|outcome| matches!(outcome, Outcome::Lost(_))),
    ];
    assert!(counts.iter().all(|count| *count > 0), "done, rejected, fenced, lost: {counts:?}");
}

/// A fabric whose immediates overtake their payloads does not pass.
#[test]
fn the_suite_notices_an_immediate_that_overtakes() {
    let faults = Faults { overtaking_immediate: 1.0, ..Faults::none() };
    let noticed = (0..5).any(|seed| {
        let sim = Sim::with(seed, faults);
        let rule = || conformance::payload_is_visible_before_its_immediate(&sim);
        catch_unwind(AssertUnwindSafe(rule)).is_err()
    });
    assert!(noticed);
}

/// Nothing is simulated between post and end: what is left is the engine's own cost.
#[test]
fn the_null_network_ends_transfers_at_once() {
    let network = Network::new(Config::null(0));
    let build = || {
        let builder = Engine::builder().fabric(network.provider()).clock(network.clock());
        builder.drive(Drive::Caller).build().unwrap()
    };
    let (a, b) = (build(), build());
    let source = a.alloc(HostMemory::new(4096)).unwrap();
    let target = b.alloc(HostMemory::new(4096)).unwrap();
    source.memory().fill(0..4096, 7).unwrap();
    let window = target.window(0..4096).unwrap();
    let arrivals = b.counter().unwrap();
    let to = a.open(&window.descriptor()).unwrap();
    a.connect(&b.addresses()[0], Duration::from_secs(1)).unwrap();
    for _ in 0..100 {
        let write = a.write(source.slice(0..4096).unwrap(), to.slice(0..4096).unwrap());
        let sent = write.immediate(arrivals.slot()).submit().unwrap();
        assert_eq!(sent.outcome(), Some(Outcome::Done), "at once");
    }
    assert_eq!(arrivals.wait(100, Duration::from_secs(1)).unwrap(), 100);
    assert_eq!(network.clock().now(), Time::ZERO, "no time passed");
}

/// Each defect of a list breaks at least one of the rules that it is about.
#[cfg(feature = "sabotage")]
#[test]
fn every_defect_breaks_a_rule() {
    use std::io::Write;

    use conformance as rule;
    use tranship_transport::sabotage::{Defect, choose};

    type Rule = (&'static str, fn(&Sim));
    macro_rules! rules {
        ($($name:ident),*) => { vec![$((stringify!($name), rule::$name::<Sim> as fn(&Sim))),*] };
    }
    let table: Vec<(Defect, Vec<Rule>)> = vec![
        (
            Defect::EarlyFence,
            rules![
                a_revoked_window_never_changes,
                a_revoked_page_is_reused_at_once,
                a_revoked_window_is_fenced_against_plans
            ],
        ),
        (
            Defect::EarlyEnd,
            rules![a_stopped_transfer_moves_nothing_more, a_stopped_plan_moves_nothing_more],
        ),
        (Defect::StaleWindow, rules![a_stale_generation_is_refused, a_forged_key_is_refused]),
        (
            Defect::LostTail,
            rules![every_length_arrives_whole, shards_lose_no_byte, pages_land_where_the_plan_says],
        ),
        (Defect::StaleCounter, rules![stragglers_of_an_earlier_generation_never_count]),
        (
            Defect::EarlyImmediate,
            rules![payload_is_visible_before_its_immediate, pages_land_where_the_plan_says],
        ),
        (
            Defect::OneByteBeyond,
            rules![what_is_out_of_bounds_is_refused, a_plan_out_of_bounds_is_refused],
        ),
        (Defect::EarlyBarrier, rules![a_barrier_waits_for_everybody]),
    ];
    for (defect, rules) in table {
        let breaks = |(_, rule): &Rule| {
            (0..10).any(|seed| {
                let sim = Sim::new(seed);
                choose(Some(defect));
                let broken = catch_unwind(AssertUnwindSafe(|| rule(&sim))).is_err();
                choose(None);
                broken
            })
        };
        let broken: Vec<_> = rules.iter().filter(|it| breaks(it)).map(|(name, _)| *name).collect();
        let _ = writeln!(std::io::stderr(), "{defect:?}: caught by {}", broken.join(", "));
        assert!(!broken.is_empty(), "no rule notices {defect:?}");
    }
}
