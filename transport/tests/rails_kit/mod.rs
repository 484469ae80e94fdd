//! What the conformance suites of the fabrics of rails have in common.

use std::io::Write;
use std::net::TcpListener;
use std::sync::OnceLock;
use std::time::Duration;

use tranship_transport::conformance::Harness;
use tranship_transport::{Address, Builder, Engine, HostMemory, Incoming, Kind, Path, PathState};

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

/// Short messages go over rails as well, unless the provider stands on TCP itself.
pub(crate) fn messages_take_the_rails<H: Harness>(are_carried: impl Fn(&[Path]) -> bool) {
    let limit = Duration::from_secs(60);
    for case in H::cases() {
        let harness = H::new(case);
        let build = || harness.builder().build().unwrap();
        let (a, b) = (build(), build());
        let peer = a.connect(&b.addresses()[0], limit).unwrap();
        let up = |path: &Path| path.state == PathState::Up;
        assert!(a.probe(peer, limit).iter().any(up), "{}", harness.report());
        for _ in 0..100 {
            assert!(a.send(peer, b"short").deadline(limit).wait().is_done());
            let message = |it: Option<Incoming>| matches!(it, Some(Incoming::Message { .. }));
            while !message(b.recv(limit)) {}
        }
        let paths = a.paths(peer);
        let carried: u64 = paths.iter().map(|path| path.messages).sum();
        // The peer tells now and then how many it has taken; one of them may have to go over TCP.
        let expected = if are_carried(&paths) { 50..=100 } else { 0..=0 };
        assert!(expected.contains(&carried), "{carried} over {paths:?}; {}", harness.report());
    }
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
