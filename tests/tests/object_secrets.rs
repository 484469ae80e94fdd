//! No secret is in anything that the object tier says: logs of every level (its client's too), errors,
//! descriptions, health. A process of its own, since the log belongs to a whole process.

use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;
use tranship_cache::tier::cold::Cold;
use tranship_cache::tier::object::Options;
use tranship_tests::cold::{Rig, block};
use tranship_tests::proxy::{Fate, Proxy};
use tranship_tests::s3::{KEY, SECRET, options_at, servers};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[test]
fn no_secret_is_told() {
    const TOKEN: &str = "session-token-that-nobody-may-see";
    let log = Log::default();
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(log.clone())
        .init();
    let mut said = String::new();
    for server in servers() {
        let proxy = Proxy::start(&server.address);
        let options = |endpoint: &str| -> Options {
            let mut options = options_at(endpoint, "a");
            options.silence = Duration::from_millis(300);
            options.retries.pause = Duration::from_millis(5);
            options.upload_within = Duration::from_secs(1);
            options.breaker.failures = 4;
            options.breaker.over = Duration::ZERO;
            options
        };
        let rig = Rig::open(options(&proxy.endpoint()).with("session_token", TOKEN)).unwrap();
        writeln!(said, "{:?} {}", options(&proxy.endpoint()), rig.bucket.describe()).unwrap();
        let (record, bytes) = block(1, 100_000);
        rig.store(record, &bytes, true).unwrap();
        for fate in [
            Fate::Status(403, "AccessDenied"),
            Fate::Status(403, "SignatureDoesNotMatch"),
            Fate::Status(400, "InvalidRequest"),
            Fate::Status(500, "InternalError"),
            Fate::Truncate { after: 3 },
            Fate::Reset,
            Fate::Silence,
        ] {
            proxy.decide(move |_| fate);
            let loaded = rig.load(record.name(), 0..record.len);
            let (other, bytes) = block(2, 1000);
            let stored = rig.store(other, &bytes, true);
            let refreshed = rig.bucket.refresh(Duration::from_secs(2));
            let health = rig.bucket.health();
            writeln!(said, "{:?} {stored:?} {refreshed:?} {health:?}", loaded.err()).unwrap();
            let mut short = options(&proxy.endpoint());
            short.open_within = Duration::from_secs(1);
            let error = Rig::open(short).err();
            writeln!(said, "{error:?} {}", error.as_ref().unwrap()).unwrap();
            proxy.decide(|_| Fate::Pass);
            rig.until(|| rig.bucket.health() == tranship_cache::tier::cold::Health::Ready);
        }
        let wrong = options(&server.endpoint()).with("no_such_setting", SECRET);
        writeln!(said, "{:?}", Rig::open(wrong).err()).unwrap();
        let mut wrong = options(&server.endpoint());
        wrong.url = format!("ftp://{KEY}:{SECRET}@host/x?secret={SECRET}");
        writeln!(said, "{wrong:?} {:?}", Rig::open(wrong.clone()).err()).unwrap();
        let wrong = options(&server.endpoint()).with("checksum_algorithm", SECRET);
        writeln!(said, "{:?}", Rig::open(wrong).err()).unwrap();
    }
    if said.is_empty() {
        return;
    }
    let logged = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(logged.contains("the object store is given a rest"), "the log is seen");
    assert!(said.contains("SignatureDoesNotMatch"), "{said}");
    for secret in [SECRET, TOKEN] {
        for (what, text) in [("says", &said), ("logs", &logged)] {
            let line = text.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "what the tier {what}");
        }
    }
}
