//! The conformance suite on shared memory, engines of one process, without and with threads of
//! their own for copies. Deaths of processes are tested beside the fabric.

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use tranship_transport::conformance::Harness;
use tranship_transport::fabric::shm::Config;
use tranship_transport::{Address, Builder, Engine, Kind};

/// Fabrics with sockets in one directory.
struct Shm {
    copy_threads: u64,
    directory: PathBuf,
    engines: Cell<u32>,
}

impl Shm {
    fn at(&self, path: &str) -> Builder {
        let config = Config::new().listen_at(path).copy_threads(self.copy_threads as usize);
        Engine::builder().fabric(config)
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).to_str().expect("a path in UTF-8").to_owned()
    }
}

impl Harness for Shm {
    const THREADS: bool = true;

    fn cases() -> Vec<u64> {
        vec![0, 2]
    }

    fn new(case: u64) -> Self {
        static EVER: AtomicU32 = AtomicU32::new(0);
        let number = EVER.fetch_add(1, Ordering::Relaxed);
        let name = format!("tranship-conformance-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory).expect("a fresh directory");
        Self { copy_threads: case, directory, engines: Cell::new(0) }
    }

    fn case(&self) -> u64 {
        self.copy_threads
    }

    fn builder(&self) -> Builder {
        self.engines.set(self.engines.get() + 1);
        self.at(&self.path(&self.engines.get().to_string()))
    }

    fn restart(&self, at: &Address) -> Option<Builder> {
        Some(self.at(&at.endpoint))
    }

    fn nowhere(&self) -> Address {
        Address::new(Kind::Shm, self.path("nowhere"))
    }

    fn report(&self) -> String {
        let threads = self.copy_threads;
        format!("{threads} copy threads; run it again with TRANSHIP_SIM_SEED={threads}")
    }
}

impl Drop for Shm {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

tranship_transport::conformance!(Shm);
