//! The conformance suite on TCP: real sockets of the loopback interface, engines of one process.
//! Deaths of processes and hostile peers are tested beside the fabric.

use std::net::TcpListener;

use tranship_transport::conformance::Harness;
use tranship_transport::fabric::tcp::Config;
use tranship_transport::{Address, Builder, Engine, Kind};

/// Engines with so many bulk streams to each other.
struct Tcp {
    streams: u64,
}

impl Tcp {
    fn config(&self) -> Config {
        Config::new().streams(self.streams as u8).token("conformance")
    }
}

impl Harness for Tcp {
    const THREADS: bool = true;

    fn cases() -> Vec<u64> {
        vec![1, 4]
    }

    fn new(case: u64) -> Self {
        Self { streams: case }
    }

    fn case(&self) -> u64 {
        self.streams
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
        Address::new(Kind::Tcp, address.to_string())
    }

    fn report(&self) -> String {
        let streams = self.streams;
        format!("{streams} bulk streams; run it again with TRANSHIP_SIM_SEED={streams}")
    }
}

tranship_transport::conformance!(Tcp);
