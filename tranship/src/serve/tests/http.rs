//! `/healthz`, `/readyz`, and addresses that cannot be had.

use tranship_cache::tier::Tier;
use tranship_cache::tier::cold::Health;
use tranship_tests::below::{self, Scripted};

use super::page::get;
use super::*;
use crate::serve::runtime::Error;

fn refused(address: &str, allow_remote: bool) -> Error {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock");
    let metrics = Some(address.parse().unwrap());
    let options = Options { metrics, allow_remote, ..options(socket.clone()) };
    let error = run(observe(&Store::new(StoreOptions::default())), &options).unwrap_err();
    assert!(!socket.exists(), "what was opened before is closed again");
    error
}

#[test]
fn readiness_says_why_not() {
    let dir = tempfile::tempdir().unwrap();
    let (nvme, object) = (Scripted::new(Tier::Nvme), Scripted::new(Tier::Object));
    nvme.is(Health::Degraded("half of its threads".to_owned()));
    object.is(Health::Off("no credentials".to_owned()));
    let stack = below::stack(&[Arc::clone(&nvme), object]);
    let store = Store::new(StoreOptions { stack, ..StoreOptions::default() });
    let running = run(observe(&store), &options(dir.path().join("admin.sock"))).unwrap();
    let address = running.metrics().unwrap();
    let is = |path, status: &str, word: &str| {
        let (head, body) = get(address, path);
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
        assert!(body.starts_with(word), "{body}");
    };
    is("/healthz", "200", "alive");
    is("/readyz", "503", "starting");
    running.ready();
    is(
        "/readyz",
        "200",
        "serving\nnvme degraded: half of its threads\nobject off: no credentials\n",
    );
    nvme.is(Health::Ready);
    let (_, body) = get(address, "/readyz");
    assert_eq!(body, "serving\nobject off: no credentials\n");
    store.drain(true);
    is("/readyz", "503", "draining");
    is("/healthz", "200", "alive");
    is("/", "200", "tranship: /metrics");
    is("/etc/passwd", "404", "");
    running.shutdown(PATIENCE).unwrap();
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn a_port_in_use_is_named_with_the_remedy() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = refused(&address.to_string(), false).to_string();
    let port = address.port();
    assert_eq!(
        error,
        format!(
            "metrics address {address}: port {port} is in use; stop who listens there, choose \
             another port, or turn metrics off"
        )
    );
}

#[test]
fn other_machines_are_kept_out_unless_allowed() {
    let error = refused("0.0.0.0:7421", false);
    assert!(matches!(error, Error::NotLoopback(_)));
    assert!(error.to_string().contains("use 127.0.0.1:7421"), "{error}");
    // An address of nobody, from RFC 5737.
    let error = refused("192.0.2.1:7421", true);
    assert!(matches!(error, Error::Address { .. }), "{error}");
}
