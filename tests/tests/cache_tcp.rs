//! The daemon and its clients over real TCP connections.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use tranship_cache::Key;
use tranship_cache::client::{Client, Error, Fetched, Grant};
use tranship_tests::daemon::Daemon;
use tranship_tests::pressure::{PRESSED_BYTES, press};
use tranship_tests::world::{chain, content, fill, identity};
use tranship_transport::fabric::{shm, tcp};
use tranship_transport::{HostMemory, Kind, PeerError, Reason};

const LEN: usize = 300_000;
const NO_WAIT: Duration = Duration::ZERO;

fn keys(links: &[tranship_cache::Link]) -> Vec<Key> {
    links.iter().map(|link| link.key).collect()
}

fn daemon(arena_bytes: usize) -> Daemon {
    Daemon::over(arena_bytes, |engine| engine.fabric(tcp::Config::new()))
}

fn client(daemon: &Daemon) -> Client {
    let address = daemon.address(Kind::Tcp);
    Client::builder().fabric(tcp::Config::new().dial_only()).connect(&address).unwrap()
}

#[test]
fn what_one_client_stores_another_loads() {
    let daemon = daemon(64 << 20);
    let links = chain(1, 40);
    let writer = client(&daemon);
    assert!(!writer.is_mapped().unwrap());
    fill(&writer.cache(identity()), &links, LEN);
    let reader = client(&daemon);
    let cache = reader.cache(identity());
    assert_eq!(cache.lookup(&keys(&links)).unwrap().prefix, 40);
    let lease = cache.lease(&keys(&links), NO_WAIT).unwrap();
    let mut into = vec![0; LEN];
    for (index, link) in links.iter().enumerate() {
        lease.copy_to(index, &mut into).unwrap();
        assert_eq!(into, content(link, LEN));
    }
    let (at, len) = lease.view(3).unwrap();
    // SAFETY: the lease holds the bytes, and nobody writes to them.
    assert_eq!(unsafe { std::slice::from_raw_parts(at, len) }, content(&links[3], LEN));
    drop(lease);
    // Straight into memory of the caller's.
    let pages = reader.engine().alloc(HostMemory::new(2 * LEN)).unwrap();
    let wanted = [(links[5].key, 0), (links[7].key, LEN as u64), (chain(9, 1)[0].key, 0)];
    let results = cache.fetch(&wanted, &pages, NO_WAIT).unwrap();
    let ready = Fetched::Ready { len: LEN as u64 };
    assert_eq!(results, [ready, ready, Fetched::Gone]);
    pages.memory().read_at(LEN, &mut into).unwrap();
    assert_eq!(into, content(&links[7], LEN));
}

#[test]
fn one_daemon_serves_both_fabrics() {
    let daemon = Daemon::over(16 << 20, |engine| {
        engine.fabric(shm::Config::new()).fabric(tcp::Config::new())
    });
    let local = Client::builder().connect(&daemon.address(Kind::Shm)).unwrap();
    let remote = client(&daemon);
    assert!(local.is_mapped().unwrap() && !remote.is_mapped().unwrap());
    let (here, there) = (local.cache(identity()), remote.cache(identity()));
    let (first, second) = (chain(1, 5), chain(2, 5));
    fill(&here, &first, LEN);
    fill(&there, &second, LEN);
    let mut into = vec![0; LEN];
    for (cache, links) in [(&here, &second), (&there, &first)] {
        let lease = cache.lease(&keys(links), NO_WAIT).unwrap();
        for (index, link) in links.iter().enumerate() {
            lease.copy_to(index, &mut into).unwrap();
            assert_eq!(into, content(link, LEN));
        }
    }
    // One fills, the other waits for it.
    let links = chain(3, 1);
    let Grant::Granted(room) = there.reserve(&[(links[0], LEN as u64)]).unwrap().remove(0) else {
        panic!()
    };
    let bytes = content(&links[0], LEN);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let lease = here.lease(&keys(&links), Duration::from_secs(10)).unwrap();
            let mut into = vec![0; LEN];
            lease.copy_to(0, &mut into).unwrap();
            into
        });
        there.commit(vec![room.write(&bytes).unwrap()]).unwrap().remove(0).unwrap();
        assert_eq!(waiting.join().unwrap(), bytes);
    });
}

#[test]
fn many_clients_under_pressure_never_see_wrong_bytes() {
    let daemon = daemon(PRESSED_BYTES);
    press(&daemon, 40, || client(&daemon));
}

/// Why a client does not get in, which it learns within five seconds.
fn refused(token: &str, address: &str) -> Reason {
    let began = Instant::now();
    let fabric = tcp::Config::new().dial_only().token(token);
    let error = Client::builder().fabric(fabric).connect(&address.parse().unwrap()).unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(8), "{error} after {:?}", began.elapsed());
    match error {
        Error::Unreachable { error: PeerError::Refused { why, .. }, .. } => why,
        Error::Unreachable { error: PeerError::Silent { .. }, .. } => Reason::Deadline,
        other => panic!("{other}"),
    }
}

#[test]
fn who_should_not_get_in_is_told_why() {
    let daemon =
        Daemon::over(1 << 20, |engine| engine.fabric(tcp::Config::new().token("swordfish")));
    let address = daemon.address(Kind::Tcp);
    assert_eq!(refused("guess", &address.to_string()), Reason::Unauthorised);
    assert_eq!(refused("", &address.to_string()), Reason::Unauthorised);
    let fabric = tcp::Config::new().dial_only().token("swordfish");
    let inside = Client::builder().fabric(fabric).connect(&address).unwrap();
    // Something else listens there: it says something else, or nothing.
    let http = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = http.local_addr().unwrap().port();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = http.accept().unwrap();
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            let _ = stream.read(&mut [0; 4096]);
        });
        assert_eq!(refused("swordfish", &format!("tcp:127.0.0.1:{port}")), Reason::Foreign);
    });
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let why = refused("swordfish", &format!("tcp:127.0.0.1:{port}"));
    assert!(matches!(why, Reason::Deadline | Reason::Unreachable), "{why}");
    drop(silent);
    let nobody = refused("swordfish", &format!("tcp:127.0.0.1:{port}"));
    assert_eq!(nobody, Reason::Unreachable);
    assert_eq!(refused("swordfish", "tcp:no-such-host.invalid:1"), Reason::Unresolved);
    // Strangers at the daemon's port: HTTP, half a handshake and silence, garbage.
    let port = address.endpoint.as_str();
    let mut strangers: Vec<_> = (0..4).map(|_| TcpStream::connect(port).unwrap()).collect();
    let _ = strangers[0].write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let _ = strangers[1].write_all(b"T");
    let _ = strangers[2].write_all(&[0xff; 10_000]);
    for stranger in [0, 2] {
        strangers[stranger].set_read_timeout(Some(Duration::from_secs(8))).unwrap();
        let mut answer = Vec::new();
        let _ = strangers[stranger].read_to_end(&mut answer);
    }
    // Nobody else was disturbed.
    let cache = inside.cache(identity());
    let links = chain(1, 2);
    fill(&cache, &links, 1000);
    assert_eq!(cache.lookup(&keys(&links)).unwrap().prefix, 2);
}
