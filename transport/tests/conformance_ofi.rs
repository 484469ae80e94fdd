//! The conformance suite on libfabric, over its `tcp` and `shm` providers, engines of one process.
//! Deaths of processes are tested beside the fabric.

use std::net::TcpListener;
use std::time::Duration;

use tranship_transport::conformance::Harness;
use tranship_transport::fabric::ofi::Config;
use tranship_transport::{Address, Builder, Engine, HostMemory, Kind};

const PROVIDERS: [&str; 2] = ["tcp;ofi_rxm", "shm"];

/// Engines over one provider.
struct Ofi {
    case: u64,
}

impl Ofi {
    fn config(&self) -> Config {
        Config::new().provider(PROVIDERS[self.case as usize]).token("conformance")
    }
}

impl Harness for Ofi {
    const THREADS: bool = true;

    fn cases() -> Vec<u64> {
        (0..PROVIDERS.len() as u64).collect()
    }

    fn new(case: u64) -> Self {
        Self { case }
    }

    fn case(&self) -> u64 {
        self.case
    }

    fn builder(&self) -> Builder {
        Engine::builder().fabric(self.config())
    }

    fn restart(&self, at: &Address) -> Option<Builder> {
        Some(Engine::builder().fabric(self.config().listen(at.endpoint.clone())))
    }

    fn nowhere(&self) -> Address {
        // A port that was free a moment ago.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        Address::new(Kind::Ofi, address.to_string())
    }

    fn report(&self) -> String {
        let case = self.case;
        format!("{}; run it again with TRANSHIP_SIM_SEED={case}", PROVIDERS[case as usize])
    }
}

tranship_transport::conformance!(Ofi);

/// Nothing of all this would be worth much if payload went over TCP.
#[test]
fn payload_takes_the_rails() {
    for case in Ofi::cases() {
        let harness = Ofi::new(case);
        let build = || harness.builder().build().unwrap();
        let (a, b) = (build(), build());
        let alloc = |engine: &Engine| engine.alloc(HostMemory::new(1 << 20)).unwrap();
        let (source, target) = (alloc(&a), alloc(&b));
        let window = target.window(0..1 << 20).unwrap();
        let to = a.open(&window.descriptor()).unwrap();
        for _ in 0..4 {
            let from = source.slice(0..1 << 20).unwrap();
            let write = a.write(from, to.slice(0..1 << 20).unwrap());
            assert!(write.deadline(Duration::from_secs(60)).wait().is_done());
        }
        assert_eq!(a.stats().fallbacks, 0, "{}", harness.report());
    }
}
