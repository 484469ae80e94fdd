//! The daemon and its clients over libfabric's `tcp;ofi_rxm`, and over verbs where there is a device.
//! Processes of their own are started in `tranship/tests`.

use std::io::Write;
use std::time::Duration;

use tranship_cache::client::{Client, Error, Fetched};
use tranship_cache::{Key, Link};
use tranship_tests::daemon::Daemon;
use tranship_tests::pressure::{PRESSED_BYTES, press};
use tranship_tests::world::{chain, content, fill, identity};
use tranship_transport::fabric::{ofi, tcp, verbs};
use tranship_transport::{Builder, Engine, HostMemory, Kind, PeerError, Reason};

/// More than one stripe, and no multiple of anything.
const LEN: usize = 1_300_001;
const NO_WAIT: Duration = Duration::ZERO;
const SECRET: &str = "swordfish";
const PROVIDER: &str = "tcp;ofi_rxm";

/// Two tests of each function that takes an [`Over`]: one for each.
macro_rules! over_both {
    ($($name:ident,)*) => {
        mod over_ofi {
            $(#[test] fn $name() { super::$name(super::Over::Ofi) })*
        }
        mod over_verbs {
            $(#[test] fn $name() { super::$name(super::Over::Verbs) })*
        }
    };
}

over_both! {
    what_one_client_stores_another_loads,
    many_clients_under_pressure_never_see_wrong_bytes,
    a_stranger_is_not_let_in,
}

/// One of the two fabrics.
#[derive(Clone, Copy)]
enum Over {
    Ofi,
    Verbs,
}

impl Over {
    fn kind(self) -> Kind {
        match self {
            Self::Ofi => Kind::Ofi,
            Self::Verbs => Kind::Verbs,
        }
    }

    fn listening(self, engine: Builder) -> Builder {
        let control = tcp::Config::new().token(SECRET);
        match self {
            Self::Ofi => engine.fabric(ofi::Config::new().provider(PROVIDER).control(control)),
            Self::Verbs => engine.fabric(verbs::Config::new().control(control)),
        }
    }

    fn client(self, daemon: &Daemon, token: &str) -> Result<Client, Error> {
        let control = tcp::Config::new().dial_only().token(token);
        let client = Client::builder().timeout(Duration::from_secs(30));
        let client = match self {
            Self::Ofi => client.fabric(ofi::Config::new().provider(PROVIDER).control(control)),
            Self::Verbs => client.fabric(verbs::Config::new().control(control)),
        };
        client.connect(&daemon.address(self.kind()))
    }

    /// A daemon; none where there is no library or no device, which is said. What is there and cannot
    /// be used is a failure.
    fn daemon(self, arena_bytes: usize) -> Option<Daemon> {
        if let Err(error) = self.listening(Engine::builder()).build() {
            let why = error.to_string();
            let devices = std::fs::read_dir("/sys/class/infiniband").map_or(0, Iterator::count);
            let is_absent = match self {
                Self::Ofi => why.contains("not installed"),
                Self::Verbs => why.contains("not installed") || devices == 0,
            };
            assert!(is_absent, "{why}");
            let _ = writeln!(std::io::stderr(), "skipped: {why}");
            return None;
        }
        Some(Daemon::over(arena_bytes, |engine| self.listening(engine)))
    }
}

fn keys(links: &[Link]) -> Vec<Key> {
    links.iter().map(|link| link.key).collect()
}

fn what_one_client_stores_another_loads(over: Over) {
    let Some(daemon) = over.daemon(64 << 20) else { return };
    let links = chain(1, 12);
    let writer = over.client(&daemon, SECRET).unwrap();
    assert!(!writer.is_mapped().unwrap());
    fill(&writer.cache(identity()), &links, LEN);
    let reader = over.client(&daemon, SECRET).unwrap();
    let cache = reader.cache(identity());
    assert_eq!(cache.lookup(&keys(&links)).unwrap().prefix, 12);
    let lease = cache.lease(&keys(&links), NO_WAIT).unwrap();
    let mut into = vec![0; LEN];
    for (index, link) in links.iter().enumerate() {
        lease.copy_to(index, &mut into).unwrap();
        assert!(into == content(link, LEN), "block {index} has other bytes");
    }
    drop(lease);
    // Straight into memory of the caller's.
    let pages = reader.engine().alloc(HostMemory::new(2 * LEN)).unwrap();
    let wanted = [(links[5].key, 0), (links[7].key, LEN as u64), (chain(9, 1)[0].key, 0)];
    let results = cache.fetch(&wanted, &pages, NO_WAIT).unwrap();
    let ready = Fetched::Ready { len: LEN as u64 };
    assert_eq!(results, [ready, ready, Fetched::Gone]);
    pages.memory().read_at(LEN, &mut into).unwrap();
    assert!(into == content(&links[7], LEN), "the fetched block has other bytes");
}

fn many_clients_under_pressure_never_see_wrong_bytes(over: Over) {
    let Some(daemon) = over.daemon(PRESSED_BYTES) else { return };
    press(&daemon, 20, || over.client(&daemon, SECRET).unwrap());
}

fn a_stranger_is_not_let_in(over: Over) {
    let Some(daemon) = over.daemon(1 << 20) else { return };
    for token in ["guess", ""] {
        match over.client(&daemon, token) {
            Err(Error::Unreachable {
                error: PeerError::Refused { why: Reason::Unauthorised, .. },
                ..
            }) => {}
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("the token {token:?} is taken"),
        }
    }
    assert!(over.client(&daemon, SECRET).is_ok());
}
