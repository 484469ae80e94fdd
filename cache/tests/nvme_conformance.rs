//! The conformance suite of cold tiers on the NVMe tier, over a simulated disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tranship_cache::cold_conformance;
use tranship_cache::tier::Cold;
use tranship_cache::tier::cold::Notify;
use tranship_cache::tier::conformance::Harness;
use tranship_cache::tier::nvme::disk::sim::Device;
use tranship_cache::tier::nvme::{Hits, Now, Nvme, Options};
use tranship_cache::time::{Millis, Wall};

struct Simulated {
    device: Device,
    start: Instant,
    /// Milliseconds that the clock of the wall was put forward.
    ahead: Arc<AtomicU64>,
    opened: AtomicU64,
}

impl Simulated {
    fn options() -> Options {
        Options {
            segment_bytes: 1 << 20,
            lane_jobs_max: Self::LANE_JOBS,
            flush_every: Millis(50),
            bounce_bytes: 2 << 20,
            ..Options::default()
        }
    }
}

impl Harness for Simulated {
    // A segment without a header and a page of summary.
    const BLOCK_BYTES_MAX: usize = (1 << 20) - 2 * 4096;
    const LANE_JOBS: usize = 32;

    fn new() -> Self {
        let device = Device::new(32 << 20, 7);
        device.inject(|faults| faults.slow = 3);
        let (ahead, opened) = (Arc::default(), AtomicU64::new(1));
        Self { device, start: Instant::now(), ahead, opened }
    }

    fn open(&self, notify: Notify) -> Arc<dyn Cold> {
        let (start, ahead) = (self.start, Arc::clone(&self.ahead));
        let clock = move || {
            let passed = Millis::from(start.elapsed());
            let ahead = Millis(ahead.load(Ordering::Relaxed));
            Now { mono: passed, wall: Wall(1_000_000_000_000).after(passed).after(ahead) }
        };
        let mut random = [3; 16];
        random[..8].copy_from_slice(&self.opened.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        let disk = self.device.open();
        let tier =
            Nvme::open(disk, &Self::options(), Box::new(Hits), random, Arc::new(clock), notify);
        Arc::new(tier.expect("the store opens"))
    }

    fn crash(&self) -> bool {
        self.device.crash();
        true
    }

    fn damage(&self, bytes: &[u8]) -> bool {
        let all = self.device.bytes();
        let copies = all.windows(bytes.len()).enumerate().filter(|(_, some)| *some == bytes);
        let places: Vec<_> = copies.map(|(at, _)| at).collect();
        places.iter().for_each(|at| self.device.rot(*at as u64 + 5, 3));
        assert!(!places.is_empty(), "the bytes are not on the device");
        true
    }

    fn hold(&self, held: bool) -> bool {
        self.device.inject(|faults| faults.held = held);
        true
    }

    fn lose(&self) -> bool {
        self.device.inject(|faults| faults.gone = true);
        true
    }

    fn pass(&self, span: Duration) -> bool {
        self.ahead.fetch_add(Millis::from(span).0, Ordering::Relaxed);
        true
    }

    fn wall(&self) -> Wall {
        let ahead = Millis(self.ahead.load(Ordering::Relaxed));
        Wall(1_000_000_000_000).after(Millis::from(self.start.elapsed())).after(ahead)
    }
}

cold_conformance!(Simulated);
