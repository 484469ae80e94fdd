//! The conformance suite on libfabric, over its `tcp` and `shm` providers, engines of one process.

mod rails_kit;

use std::time::Duration;

use tranship_transport::conformance::Harness;
use tranship_transport::fabric::ofi::Config;
use tranship_transport::fabric::tcp;
use tranship_transport::{Address, Builder, Engine, HostMemory, Kind, Memory};

/// The providers.
const CASES: [&str; 2] = ["tcp;ofi_rxm", "shm"];

/// Engines over one provider.
struct Ofi {
    case: u64,
}

impl Ofi {
    fn config(&self, control: tcp::Config) -> Config {
        // Some rules have sixteen peers, and the machine may be busy with other tests.
        let config = Config::new().join_timeout(Duration::from_secs(60));
        config.provider(CASES[self.case as usize]).control(control)
    }
}

impl Harness for Ofi {
    const THREADS: bool = true;

    fn cases() -> Vec<u64> {
        rails_kit::cases(CASES.len(), || Engine::builder().fabric(Config::new().provider(CASES[0])))
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
        rails_kit::nowhere(Kind::Ofi)
    }

    fn report(&self) -> String {
        rails_kit::report(CASES[self.case as usize], self.case)
    }
}

fn control() -> tcp::Config {
    tcp::Config::new().token("conformance")
}

tranship_transport::conformance!(Ofi);

#[test]
fn payload_takes_the_rails() {
    rails_kit::payload_takes_the_rails::<Ofi>();
}

#[test]
fn short_messages_take_the_rails() {
    rails_kit::messages_take_the_rails::<Ofi>(|paths| !paths[0].rail.contains("tcp"));
}

#[test]
fn memory_of_a_device_is_refused() {
    for case in Ofi::cases() {
        let engine = Ofi::new(case).builder().build().unwrap();
        let descriptor = HostMemory::new(1).build().unwrap().fd().unwrap().try_clone_to_owned();
        // SAFETY: nobody registers it.
        let memory = unsafe {
            Memory::device(std::ptr::null_mut(), 1, descriptor.unwrap(), 0, Box::new(()))
        };
        let line = engine.register(memory).expect_err("it takes none").to_string();
        let said =
            "ofi fabric: the memory is a device's, which this fabric does not reach; verbs does";
        assert!(line.contains(said), "{line}");
    }
}
