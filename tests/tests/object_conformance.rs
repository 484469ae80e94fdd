//! The conformance suite of cold tiers on the object tier, over the wire: a real server, with a proxy in
//! front of it that can hold requests up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tranship_cache::cold_conformance;
use tranship_cache::tier::Cold;
use tranship_cache::tier::cold::Notify;
use tranship_cache::tier::conformance::Harness;
use tranship_cache::tier::object::{Bucket, Clock};
use tranship_cache::time::Wall;
use tranship_tests::cold::Turned;
use tranship_tests::proxy::{Fate, Proxy};
use tranship_tests::s3::{BUCKET, Server, options_at, servers};

/// One for all rules that run at the same time; it ends with the last of them.
static SERVER: Mutex<Weak<Server>> = Mutex::new(Weak::new());
/// Each rule has a prefix of its own.
static PREFIXES: AtomicU64 = AtomicU64::new(0);

fn server() -> Option<Arc<Server>> {
    let mut shared = SERVER.lock().unwrap();
    if let Some(server) = shared.upgrade() {
        return Some(server);
    }
    let server = Arc::new(servers().into_iter().next()?);
    *shared = Arc::downgrade(&server);
    Some(server)
}

struct Wire {
    server: Arc<Server>,
    proxy: Proxy,
    prefix: String,
    clock: Arc<Turned>,
}

impl Harness for Wire {
    const BLOCK_BYTES_MAX: usize = 1 << 20;
    const LANE_JOBS: usize = 32;

    fn missing() -> Option<&'static str> {
        server().is_none().then_some("there is no server that speaks S3")
    }

    fn new() -> Self {
        let server = server().expect("it was there");
        let proxy = Proxy::start(&server.address);
        let prefix = format!("rule-{}", PREFIXES.fetch_add(1, Ordering::Relaxed));
        Self { server, proxy, prefix, clock: Arc::default() }
    }

    fn open(&self, notify: Notify) -> Arc<dyn Cold> {
        let mut options = options_at(&self.proxy.endpoint(), "node");
        options.url = format!("s3://{BUCKET}/{}", self.prefix);
        options.pack_bytes = 256 << 10;
        options.jobs_max = Self::LANE_JOBS;
        (options.poll, options.collect) = (Duration::ZERO, Duration::ZERO);
        options.clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        // Who is gone for good is noticed by the first that asks.
        options.breaker.failures = options.retries.attempts;
        options.breaker.over = Duration::ZERO;
        Arc::new(Bucket::open(options, notify).expect("the bucket opens"))
    }

    fn damage(&self, bytes: &[u8]) -> bool {
        let spoilt = self.server.spoil(&format!("{}/v1/packs", self.prefix), bytes);
        assert!(spoilt > 0, "the bytes are in no pack");
        true
    }

    fn hold(&self, held: bool) -> bool {
        self.proxy.hold(held);
        true
    }

    fn lose(&self) -> bool {
        self.proxy.decide(|_| Fate::Reset);
        true
    }

    fn pass(&self, span: Duration) -> bool {
        self.clock.forward(span);
        true
    }

    fn wall(&self) -> Wall {
        self.clock.wall()
    }
}

cold_conformance!(Wire);
