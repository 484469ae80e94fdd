//! The conformance suite on libibverbs, engines of one process. Needs a device, such as those of the virtual
//! machine (`tests/rdma`), where processes are killed and networks fail, too (`faults_verbs.rs`).

mod rails_kit;

use std::time::Duration;

use tranship_transport::conformance::Harness;
use tranship_transport::fabric::tcp;
use tranship_transport::fabric::verbs::Config;
use tranship_transport::{Address, Builder, Engine, Kind};

const CASES: [&str; 2] = ["all rails, memory windows", "one rail, registrations"];

/// Engines over all rails, or one.
struct Verbs {
    case: u64,
}

impl Verbs {
    fn config(&self, control: tcp::Config) -> Config {
        let config = Config::new().control(control).join_timeout(Duration::from_secs(30));
        match self.case {
            0 => config,
            _ => config.memory_windows(false).device("rxea"),
        }
    }
}

impl Harness for Verbs {
    const THREADS: bool = true;

    fn cases() -> Vec<u64> {
        rails_kit::cases(CASES.len(), || Engine::builder().fabric(Config::new()))
    }

    fn new(case: u64) -> Self {
        Self { case }
    }

    fn case(&self) -> u64 {
        self.case
    }

    fn builder(&self) -> Builder {
        Engine::builder().fabric(self.config(control()))
    }

    fn restart(&self, at: &Address) -> Option<Builder> {
        let control = control().listen(at.endpoint.clone());
        Some(Engine::builder().fabric(self.config(control)))
    }

    fn nowhere(&self) -> Address {
        rails_kit::nowhere(Kind::Verbs)
    }

    fn report(&self) -> String {
        rails_kit::report(CASES[self.case as usize], self.case)
    }
}

fn control() -> tcp::Config {
    tcp::Config::new().token("conformance")
}

tranship_transport::conformance!(Verbs);

#[test]
fn payload_takes_the_rails() {
    rails_kit::payload_takes_the_rails::<Verbs>();
}

#[test]
fn short_messages_take_the_rails() {
    rails_kit::messages_take_the_rails::<Verbs>(|_| true);
}
