//! A store with blocks in it, looked after over real sockets.

mod grpc;
mod http;
mod metrics;
mod page;
mod tiers;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tranship_cache::arena::checksum;
use tranship_cache::block::SessionId;
use tranship_cache::identity::{Geometry, Identity};
use tranship_cache::server::{RequestStats, ServerStats, SessionInfo};
use tranship_cache::store::{Grant, Item, Options as StoreOptions, Store, TenantOptions};
use tranship_cache::tier::Stack;
use tranship_cache::{Chain, Key, Link, Millis, Scope, Tenant};
use tranship_transport::{HostMemory, Kind, Rail, Stats, Time};

use super::{Observe, Options, Running, runtime};

/// Long enough for any machine; nothing waits so long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);
/// When blocks are committed, and when they are looked at.
const COMMITTED: Millis = Millis(1000);
const NOW: Millis = Millis(5000);
/// When the one session connected.
const CONNECTED: Time = Time::from_nanos(1_000_000);
const ARENA_BYTES: usize = 1 << 20;
const SESSION: SessionId = SessionId(7);

/// Takes sockets and serves, as a daemon does with its arenas in between.
fn run(observe: Observe, options: &Options) -> Result<Running, runtime::Error> {
    runtime::bind(options)?.run(observe)
}

/// A daemon without a protocol server.
pub(crate) struct Daemon {
    store: Store,
    running: Running,
    dir: tempfile::TempDir,
}

impl Daemon {
    fn start() -> Self {
        Self::observed(|_| {})
    }

    /// Starts with a change to what is observed.
    fn observed(change: impl FnOnce(&mut Observe)) -> Self {
        Self::over(Stack::default(), change)
    }

    /// Starts with tiers below memory.
    pub(crate) fn over(stack: Stack, change: impl FnOnce(&mut Observe)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(StoreOptions { events: 16, stack, ..StoreOptions::default() });
        open_tenant(&store, "default");
        let mut observe = observe(&store);
        change(&mut observe);
        let running = run(observe, &options(dir.path().join("admin.sock"))).unwrap();
        running.ready();
        Self { store, running, dir }
    }

    pub(crate) fn admin(&self) -> PathBuf {
        self.running.admin_socket().to_owned()
    }

    fn tenant(&self) -> Tenant {
        self.store.tenant("default").unwrap()
    }

    /// Registers an identity and commits a chain of blocks under it.
    fn fill(&self, model: &str, blocks: u32) -> (Scope, Vec<Key>) {
        let scope = register(&self.tenant(), model);
        let mut chain = Chain::new(scope.identity());
        let keys = (0..blocks).map(|n| commit(&scope, chain.push_tokens(&[n]))).collect();
        (scope, keys)
    }
}

fn options(admin_socket: PathBuf) -> Options {
    let metrics = Some(([127, 0, 0, 1], 0).into());
    Options { admin_socket, metrics, allow_remote: false }
}

fn open_tenant(store: &Store, name: &str) -> Tenant {
    let memory = HostMemory::new(ARENA_BYTES).build().unwrap();
    store.open_tenant(TenantOptions::new(name, memory)).unwrap()
}

fn register(tenant: &Tenant, model: &str) -> Scope {
    let mut identity = Identity::new(model, "r1", "bf16", Geometry::default(), 16);
    identity.tenant = tenant.name().to_owned();
    tenant.register(&identity).unwrap()
}

fn commit(scope: &Scope, link: Link) -> Key {
    let item = Item { link, len: 5, ttl: None };
    let Some(Grant::Granted(mut room)) = scope.reserve(SESSION, &[item], None, COMMITTED).pop()
    else {
        panic!("no room for {link:?}");
    };
    room.write_at(0, b"bytes").unwrap();
    room.commit(checksum(b"bytes"), COMMITTED).unwrap();
    link.key
}

fn observe(store: &Store) -> Observe {
    let server = || ServerStats {
        sessions: 1,
        sessions_total: 3,
        requests: vec![
            RequestStats {
                name: "lookup",
                count: 10,
                errors: 2,
                seconds_sum: 0.5,
                buckets: vec![(0.001, 4), (0.01, 9)],
            },
            RequestStats { name: "hello", count: 0, errors: 0, seconds_sum: 0.0, buckets: vec![] },
        ],
    };
    let rail = |name: char| Rail {
        fabric: Kind::Verbs,
        name: format!("mlx5_{name}:1"),
        facts: Vec::new(),
        down: (name == 'b').then(|| "no cable".to_owned()),
    };
    let session = || SessionInfo {
        id: SESSION.0,
        name: "engine-0".into(),
        tenant: "default".into(),
        since: CONNECTED,
        leases: 1,
        reservations: 2,
    };
    Observe {
        store: store.clone(),
        engine: Arc::new(Stats::default),
        rails: Arc::new(move || ['a', 'b'].map(rail).into()),
        server: Arc::new(server),
        sessions: Arc::new(move || vec![session()]),
        now: Arc::new(|| NOW),
        clock: Arc::new(|| CONNECTED + Duration::from_secs(4)),
        listen: vec![(Kind::Ofi, "ofi://node7:7421".to_owned())],
        since: Instant::now(),
        started: Default::default(),
    }
}
