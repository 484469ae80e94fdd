//! What the tests of real libibverbs have in common. For the virtual machine (`tests/rdma`), as root: two rails,
//! rxea to rxeb over va and vb, rxec to rxed over vc and vd. TCP goes over lo, which nothing disturbs.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use tranship_transport::fabric::verbs::Config;
use tranship_transport::{
    Access, Counter, Engine, HostMemory, Outcome, Region, RemoteWindow, Transfer, Window,
};

/// How long anything may take that nothing makes impossible; the machine is emulated.
pub(crate) const AMPLE: Duration = Duration::from_secs(60);
pub(crate) const BYTES: u64 = 1 << 20;
pub(crate) const PART: u64 = 40_000;

/// A fabric of these devices.
pub(crate) fn config(devices: &[&str]) -> Config {
    let config = Config::new().join_timeout(Duration::from_secs(20));
    devices.iter().fold(config, |config, device| config.device(*device))
}

/// Whether the devices are there; says so if they are not.
pub(crate) fn can_run() -> bool {
    let there = ["rxea", "rxeb", "rxec", "rxed"]
        .iter()
        .all(|name| Path::new("/sys/class/infiniband").join(name).exists());
    if !there {
        let why = "no Soft-RoCE devices rxea to rxed; see tests/rdma";
        let _ = writeln!(std::io::stderr(), "skipped: {why}");
    }
    there
}

pub(crate) fn sh(line: &str) {
    let status = Command::new("sh").args(["-c", line]).status().expect("a shell");
    assert!(status.success(), "{line}: {status}");
}

/// Everything as it should be.
pub(crate) fn calm() {
    for device in ["va", "vb", "vc", "vd"] {
        sh(&format!("tc qdisc del dev {device} root 2>/dev/null; ip link set {device} up"));
    }
    routes();
}

/// A link that goes down takes its routes along.
pub(crate) fn routes() {
    sh("ip route replace 10.8.1.2/32 dev va src 10.8.0.1; ip route replace 10.8.0.1/32 dev vb src 10.8.1.2
        ip route replace 10.8.3.2/32 dev vc src 10.8.2.1; ip route replace 10.8.2.1/32 dev vd src 10.8.3.2");
}

/// Who writes, and who is written to.
pub(crate) struct Pair {
    pub(crate) a: Engine,
    pub(crate) b: Engine,
    pub(crate) source: Region,
    pub(crate) target: Region,
}

impl Pair {
    /// Over both rails, with nothing wrong.
    pub(crate) fn new() -> Self {
        calm();
        Self::of(config(&["rxea", "rxec"]), config(&["rxeb", "rxed"]))
    }

    pub(crate) fn of(a: Config, b: Config) -> Self {
        let a = Engine::builder().fabric(a).build().unwrap();
        let b = Engine::builder().fabric(b).build().unwrap();
        let source = a.alloc(HostMemory::new(BYTES as usize)).unwrap();
        let target = b.alloc(HostMemory::new(BYTES as usize)).unwrap();
        Self { a, b, source, target }
    }

    pub(crate) fn offer(&self) -> (Window, RemoteWindow) {
        let window = self.target.window_with(0..BYTES, Access::WRITE | Access::READ).unwrap();
        let to = self.a.open(&window.descriptor()).unwrap();
        (window, to)
    }

    pub(crate) fn landed(&self) -> Vec<u8> {
        let mut bytes = vec![0; BYTES as usize];
        self.target.memory().read_at(0, &mut bytes).unwrap();
        bytes
    }

    /// Writes everything, `meanwhile` something happens, and all of it is there in the end.
    pub(crate) fn round(
        &self,
        to: &RemoteWindow,
        seed: u64,
        counter: &Counter,
        meanwhile: impl FnOnce(),
    ) {
        let bytes = fill(&self.source, seed);
        let before = counter.count();
        let began = Instant::now();
        let sent = write_all(&self.a, &self.source, to, counter, AMPLE);
        meanwhile();
        for (at, transfer) in sent.iter().enumerate() {
            assert_eq!(transfer.wait(), Outcome::Done, "transfer {at} of seed {seed}");
        }
        assert!(began.elapsed() < AMPLE + Duration::from_secs(5), "by its deadline");
        assert!(self.landed() == bytes, "seed {seed}: other bytes than were sent");
        let parts = sent.len() as u64;
        assert_eq!(counter.wait(before + parts, AMPLE).unwrap(), before + parts);
    }
}

pub(crate) fn fill(region: &Region, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; region.len() as usize];
    Pcg64Mcg::seed_from_u64(seed).fill_bytes(&mut bytes);
    region.memory().write_at(0, &bytes).unwrap();
    bytes
}

pub(crate) fn write_all(
    engine: &Engine,
    source: &Region,
    to: &RemoteWindow,
    counter: &Counter,
    deadline: Duration,
) -> Vec<Transfer> {
    (0..BYTES)
        .step_by(PART as usize)
        .map(|at| {
            let range = at..(at + PART).min(BYTES);
            let write =
                engine.write(source.slice(range.clone()).unwrap(), to.slice(range).unwrap());
            write.immediate(counter.slot()).deadline(deadline).submit().unwrap()
        })
        .collect()
}
