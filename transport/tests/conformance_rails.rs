//! The conformance suite on simulated rails, engines of one process: one ordered rail, several, one
//! that keeps no order, and unequal numbers of them.

use std::cell::Cell;
use std::net::TcpListener;

use tranship_transport::conformance::Harness;
use tranship_transport::fabric::rdma::sim::{Config, Net};
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
    fn config(&self) -> Config {
        let at = self.engines.get();
        self.engines.set(at + 1);
        let rails = CASES[self.case as usize][at % 2];
        let config = Config::new(&self.net).stripe_bytes(20_000);
        let config = config.control(|it| it.token("conformance"));
        rails.iter().fold(config, |config, ordered| config.rail(*ordered))
    }
}

impl Harness for Rails {
    const THREADS: bool = true;

    fn cases() -> Vec<u64> {
        (0..CASES.len() as u64).collect()
    }

    fn new(case: u64) -> Self {
        Self { case, net: Net::new(case), engines: Cell::new(0) }
    }

    fn case(&self) -> u64 {
        self.case
    }

    fn builder(&self) -> Builder {
        Engine::builder().fabric(self.config())
    }

    fn restart(&self, at: &Address) -> Option<Builder> {
        let config = self.config().control(|it| it.listen(at.endpoint.clone()));
        Some(Engine::builder().fabric(config))
    }

    fn nowhere(&self) -> Address {
        // A port that was free a moment ago.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        Address::new(Kind::Sim, address.to_string())
    }

    fn report(&self) -> String {
        let case = self.case;
        format!("rails {:?}; run it again with TRANSHIP_SIM_SEED={case}", CASES[case as usize])
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

tranship_transport::conformance!(Rails);
