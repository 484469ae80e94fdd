//! The conformance suite on simulated rails, engines of one process: one ordered rail, several, one
//! that keeps no order, and unequal numbers of them.

mod rails_kit;

use std::cell::Cell;

use tranship_transport::conformance::Harness;
use tranship_transport::fabric::rdma::sim::{Config, Net};
use tranship_transport::fabric::tcp;
use tranship_transport::{Address, Builder, Engine, Kind};

/// Rails of the engines, in turns.
struct Rails {
    case: u64,
    net: Net,
    engines: Cell<usize>,
}

/// For each case, which rails the first, the third … and the second, the fourth … engine has, and
/// whether they keep order.
const CASES: [[&[bool]; 2]; 5] = [
    [&[true], &[true]],
    [&[false], &[false]],
    [&[true, true], &[true, true]],
    [&[true, true, true], &[true]],
    [&[false], &[true, true]],
];

impl Rails {
    fn config(&self, control: tcp::Config) -> Config {
        let at = self.engines.get();
        self.engines.set(at + 1);
        let rails = CASES[self.case as usize][at % 2];
        let config = Config::new(&self.net).stripe_bytes(20_000).control(control);
        rails.iter().fold(config, |config, ordered| config.rail(*ordered))
    }
}

impl Harness for Rails {
    const THREADS: bool = true;

    fn cases() -> Vec<u64> {
        rails_kit::cases(CASES.len(), || {
            Engine::builder().fabric(Config::new(&Net::new(0)).rail(true))
        })
    }

    fn new(case: u64) -> Self {
        Self { case, net: Net::new(case), engines: Cell::new(0) }
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
        rails_kit::nowhere(Kind::Sim)
    }

    fn report(&self) -> String {
        rails_kit::report(&format!("rails {:?}", CASES[self.case as usize]), self.case)
    }
}

impl Drop for Rails {
    fn drop(&mut self) {
        // The engines of the rule are gone.
        if !std::thread::panicking() {
            assert_eq!(self.net.census(), 0, "channels or exposures are left");
        }
    }
}

fn control() -> tcp::Config {
    tcp::Config::new().token("conformance")
}

tranship_transport::conformance!(Rails);

#[test]
fn payload_takes_the_rails() {
    rails_kit::payload_takes_the_rails::<Rails>();
}

#[test]
fn short_messages_take_the_rails() {
    rails_kit::messages_take_the_rails::<Rails>(|_| true);
}
