//! The conformance suite of cold tiers on the object tier, over a directory.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tranship_cache::cold_conformance;
use tranship_cache::tier::Cold;
use tranship_cache::tier::cold::Notify;
use tranship_cache::tier::conformance::Harness;
use tranship_cache::tier::object::{Bucket, Clock, Options};
use tranship_cache::time::{Millis, Wall};

struct Directory {
    clock: Arc<Ahead>,
    /// Where the tier is opened; those before are as crashes left them.
    places: Mutex<Vec<TempDir>>,
}

/// The system's time, put forward.
struct Ahead {
    start: Instant,
    ahead: AtomicU64,
}

impl Clock for Ahead {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall(&self) -> Wall {
        let ahead = Millis(self.ahead.load(Ordering::Relaxed));
        Wall(1_000_000_000_000).after(Millis::from(self.start.elapsed())).after(ahead)
    }
}

impl Directory {
    fn path(&self) -> PathBuf {
        self.places.lock().unwrap().last().unwrap().path().to_owned()
    }
}

/// The files below a folder.
fn files(below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(files(&path)),
            path => found.push(path),
        }
    }
    found
}

impl Harness for Directory {
    const BLOCK_BYTES_MAX: usize = 1 << 20;
    const LANE_JOBS: usize = 32;

    fn new() -> Self {
        let clock = Arc::new(Ahead { start: Instant::now(), ahead: AtomicU64::new(0) });
        Self { clock, places: Mutex::new(vec![tempfile::tempdir().unwrap()]) }
    }

    fn open(&self, notify: Notify) -> Arc<dyn Cold> {
        let mut options = Options::new(self.path().to_str().unwrap(), "node");
        options.pack_bytes = 256 << 10;
        options.jobs_max = Self::LANE_JOBS;
        (options.poll, options.collect) = (Duration::ZERO, Duration::ZERO);
        options.clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        Arc::new(Bucket::open(options, notify).expect("the bucket opens"))
    }

    /// The next tier is opened on a copy; the one that is open goes on with what nobody looks at.
    fn crash(&self) -> bool {
        let (from, to) = (self.path(), tempfile::tempdir().unwrap());
        // Manifests first: what one names was there before it was.
        for folder in ["v1/manifests", "v1/packs"] {
            for file in files(&from.join(folder)) {
                let copy = to.path().join(file.strip_prefix(&from).unwrap());
                fs::create_dir_all(copy.parent().unwrap()).unwrap();
                match fs::copy(&file, copy) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    copied => drop(copied.unwrap()),
                }
            }
        }
        self.places.lock().unwrap().push(to);
        true
    }

    fn damage(&self, bytes: &[u8]) -> bool {
        let mut damaged = 0;
        for path in files(&self.path().join("v1/packs")) {
            let all = fs::read(&path).unwrap();
            let copies = all.windows(bytes.len()).enumerate().filter(|(_, some)| *some == bytes);
            for (at, _) in copies {
                let file = File::options().write(true).open(&path).unwrap();
                file.write_all_at(&[all[at + 5] ^ 8], at as u64 + 5).unwrap();
                damaged += 1;
            }
        }
        assert!(damaged > 0, "the bytes are in no pack");
        true
    }

    /// Packs are gone, and where manifests were is a file.
    fn lose(&self) -> bool {
        let below = self.path().join("v1");
        files(&below.join("packs")).iter().for_each(|pack| fs::remove_file(pack).unwrap());
        fs::remove_dir_all(below.join("manifests")).unwrap();
        fs::write(below.join("manifests"), b"").unwrap();
        true
    }

    fn pass(&self, span: Duration) -> bool {
        self.clock.ahead.fetch_add(Millis::from(span).0, Ordering::Relaxed);
        true
    }

    fn wall(&self) -> Wall {
        self.clock.wall()
    }
}

cold_conformance!(Directory);
