//! What the conformance suites of the fabrics of rails have in common.

use std::io::Write;
use std::net::TcpListener;
use std::sync::OnceLock;
use std::time::Duration;

use tranship_transport::conformance::Harness;
use tranship_transport::{Address, Builder, Engine, HostMemory, Kind};

/// All cases, or none where an engine cannot be built, which is said: once in a process.
pub(crate) fn cases(count: usize, first: impl FnOnce() -> Builder) -> Vec<u64> {
    static THERE: OnceLock<Result<(), String>> = OnceLock::new();
    let there = THERE.get_or_init(|| {
        let engine = first().build();
        engine.map(drop).map_err(|error| error.to_string())
    });
    if let Err(why) = there {
        // Past the capture of a test that passes: a skip is never silent.
        let _ = writeln!(std::io::stderr(), "skipped: {why}");
        return Vec::new();
    }
    (0..count as u64).collect()
}

/// An address with a port that was free a moment ago.
pub(crate) fn nowhere(kind: Kind) -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    Address::new(kind, address.to_string())
}

/// How to run one case again.
pub(crate) fn report(what: &str, case: u64) -> String {
    format!("{what}; run it again with TRANSHIP_SIM_SEED={case}")
}

/// Nothing of a suite would be worth much if payload went over TCP.
pub(crate) fn payload_takes_the_rails<H: Harness>() {
    for case in H::cases() {
        let harness = H::new(case);
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
