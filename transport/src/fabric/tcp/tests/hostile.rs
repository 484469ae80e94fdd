//! Bad input: addresses that lead nowhere, and peers that speak something else, or too little.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use super::*;
use crate::fabric::RemoteKey;
use crate::fabric::tcp::frame::Frame;
use crate::fabric::tcp::greeting::{
    Greeting, Hello, PREFIX_BYTES, Prover, Role, VERSION, prefix, prove,
};
use crate::fabric::tcp::receive::Reading;

const SHORT: Duration = Duration::from_millis(200);

fn quick() -> Config {
    Config::new().handshake_timeout(SHORT)
}

/// Dials and says how that failed; another peer is served meanwhile.
fn dial(config: Config, to: &Address) -> Reason {
    let mut pair = Pair::new();
    let mut node = Node::new(config);
    let peer = node.fabric.connect(to);
    let reason = wait(&mut node, "the failure", |node| {
        let message = Work::Send { bytes: b"still here", immediate: None };
        assert_eq!(pair.a.post(pair.to_b, message).1, Posted::Done);
        assert_eq!(pair.until("the others", |_, b| b.message()), b"still here");
        node.down(peer)
    });
    assert!(node.fabric.calls.is_empty() && node.fabric.dials.is_empty());
    reason
}

/// A listener that answers the first caller like this, and listens on.
fn listener(answer: Vec<u8>) -> (Address, std::thread::JoinHandle<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp(listener.local_addr().unwrap().to_string());
    let thread = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.write_all(&answer).unwrap();
        socket
    });
    (address, thread)
}

#[test]
fn a_port_in_use_is_named_with_the_remedy() {
    let node = Node::new(Config::new());
    let endpoint = node.address().endpoint;
    let setup = Setup { engine: EngineId::random(), clock: Arc::new(MonotonicClock::new()) };
    let error = Tcp::open(Config::new().listen(endpoint.clone()), &setup).unwrap_err();
    assert!(error.contains(&endpoint) && error.contains("in use"), "{error}");
    assert!(error.contains("choose another"), "{error}");
}

#[test]
fn addresses_that_cannot_be_listened_at_are_refused() {
    let setup = Setup { engine: EngineId::random(), clock: Arc::new(MonotonicClock::new()) };
    for (endpoint, hint) in [
        ("0.0.0.0:0", "advertise"),
        ("nobody.invalid:1", "HOST:PORT"),
        ("nonsense", "HOST:PORT"),
        ("192.0.2.1:7420", "no address of this machine"),
    ] {
        let error = Tcp::open(Config::new().listen(endpoint), &setup).unwrap_err();
        assert!(error.contains(endpoint) && error.contains(hint), "{error}");
    }
    let config = Config::new().listen("0.0.0.0:0").advertise("localhost:0");
    let fabric = Tcp::open(config, &setup).unwrap();
    let endpoint = fabric.address().endpoint;
    assert!(endpoint.starts_with("localhost:") && !endpoint.ends_with(":0"), "{endpoint}");
}

#[test]
fn names_are_looked_up() {
    let mut a = Node::new(Config::new());
    let mut b = Node::new(Config::new().listen("127.0.0.1:0").advertise("localhost:0"));
    assert!(b.address().endpoint.starts_with("localhost:"));
    connect(&mut a, &mut b);
    assert_eq!(dial(Config::new(), &tcp("nobody.invalid:7420")), Reason::Unresolved);
}

#[test]
fn nobody_and_those_who_do_not_listen_are_unreachable() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(dial(Config::new(), &tcp(free.to_string())), Reason::Unreachable);
    let shy = Node::new(Config::new().dial_only());
    assert_eq!(dial(Config::new(), &shy.address()), Reason::Unreachable);
}

#[test]
fn failing_again_and_again_takes_longer_each_time() {
    const FIRST: Duration = Duration::from_millis(40);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut node = Node::new(Config::new().backoff(FIRST, 4 * FIRST));
    let mut took = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        let peer = node.fabric.connect(&tcp(free.to_string()));
        assert_eq!(wait(&mut node, "the failure", |it| it.down(peer)), Reason::Unreachable);
        took.push(began.elapsed());
    }
    for (took, least) in took[1..].iter().zip([1, 2, 4, 4]) {
        // A quarter is left to chance; the rest is waited in any case.
        assert!(*took >= FIRST * least * 7 / 10, "{took:?} after waiting {least} × {FIRST:?}");
    }
    // Who is there at last is reached, and forgiven.
    let mut other = Node::new(Config::new().listen(free.to_string()));
    connect(&mut node, &mut other);
    let again = Instant::now();
    connect(&mut node, &mut other);
    assert!(again.elapsed() < Duration::from_secs(1));
}

#[test]
fn a_web_server_is_foreign() {
    let (address, thread) = listener(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec());
    assert_eq!(dial(Config::new(), &address), Reason::Foreign);
    thread.join().unwrap();
}

#[test]
fn a_peer_of_another_version_is_told_apart() {
    let mut answer = Greeting::Reject(Reason::Version).encode();
    answer[8..10].copy_from_slice(&(VERSION + 1).to_le_bytes());
    let (address, thread) = listener(answer);
    assert_eq!(dial(Config::new(), &address), Reason::Version);
    thread.join().unwrap();
}

#[test]
fn a_caller_of_another_version_is_told_ours() {
    let mut node = Node::new(Config::new());
    let mut socket = TcpStream::connect(node.address().endpoint).unwrap();
    let mut hello = Greeting::Hello(hello(Role::Latency)).encode();
    hello[8..10].copy_from_slice(&(VERSION + 1).to_le_bytes());
    socket.write_all(&hello).unwrap();
    assert_eq!(answer(&mut node, &mut socket), Some(Greeting::Reject(Reason::Version)));
    assert_eq!(answer(&mut node, &mut socket), None);
}

#[test]
fn silence_is_unreachable_within_the_deadline() {
    let began = Instant::now();
    let (address, thread) = listener(Vec::new());
    assert_eq!(dial(quick(), &address), Reason::Unreachable);
    assert!(began.elapsed() < 10 * SHORT);
    thread.join().unwrap();
    // The same after half a message.
    let half = Greeting::Proof([0; 32]).encode()[..20].to_vec();
    let (address, thread) = listener(half);
    assert_eq!(dial(quick(), &address), Reason::Unreachable);
    thread.join().unwrap();
}

#[test]
fn callers_that_say_half_and_no_more_are_hung_up_on() {
    let mut node = Node::new(quick());
    let hello = Greeting::Hello(hello(Role::Latency)).encode();
    let mut callers: Vec<_> = (0..200)
        .map(|number| {
            let mut socket = TcpStream::connect(node.address().endpoint).unwrap();
            socket.write_all(&hello[..number % hello.len()]).unwrap();
            node.poll();
            socket
        })
        .collect();
    assert!(node.fabric.calls.len() <= 128);
    // They keep nobody out.
    connect(&mut Node::new(Config::new()), &mut node);
    for socket in &mut callers {
        assert_eq!(answer(&mut node, socket), None);
    }
    assert!(node.fabric.calls.is_empty());
}

#[test]
fn tokens_have_to_match() {
    let of = |token: &str| Config::new().token(token);
    for (ours, theirs) in [("one", "other"), ("", "other"), ("one", ""), ("one", "on")] {
        let mut node = Node::new(of(theirs));
        let mut dialler = Node::new(of(ours));
        let peer = dialler.fabric.connect(&node.address());
        let reason = until(&mut dialler, &mut node, "the refusal", |it, _| it.down(peer));
        assert_eq!(reason, Reason::Unauthorised, "{ours} and {theirs}");
        assert!(node.fabric.links.is_empty() && node.fabric.gathering.is_empty());
        assert!(node.events.is_empty(), "nobody hears of it");
        connect(&mut Node::new(of(theirs)), &mut node);
    }
}

#[test]
fn an_acceptor_without_the_token_is_found_out() {
    // It takes everybody, but cannot prove itself.
    let challenge = Greeting::Challenge(crate::fabric::tcp::greeting::Challenge {
        engine: EngineId::random(),
        nonce: [1; 32],
        heartbeat: Duration::from_secs(1),
        credit: 1,
    });
    let mut bytes = challenge.encode();
    bytes.extend(Greeting::Welcome([0; 32], 1).encode());
    let (address, thread) = listener(bytes);
    assert_eq!(dial(Config::new().token("secret"), &address), Reason::Unauthorised);
    thread.join().unwrap();
}

#[test]
fn more_connections_than_wanted_are_turned_away() {
    let mut node = Node::new(Config::new().connections_max(1));
    let mut first = Node::new(Config::new());
    connect(&mut first, &mut node);
    let mut second = Node::new(Config::new());
    let peer = second.fabric.connect(&node.address());
    assert_eq!(until(&mut second, &mut node, "the refusal", |it, _| it.down(peer)), Reason::Full);
}

fn hello(role: Role) -> Hello {
    Hello {
        engine: EngineId(5),
        connection: 6,
        nonce: [7; 32],
        role,
        streams: 1,
        heartbeat: Duration::from_secs(1),
        credit: 1 << 20,
        above: 0,
        address: String::new(),
    }
}

/// The next greeting from `node`, or `None` at the end of the stream.
fn answer(node: &mut Node, socket: &mut TcpStream) -> Option<Greeting> {
    socket.set_nonblocking(true).unwrap();
    let mut bytes = Vec::new();
    wait(node, "an answer", |_| {
        let wanted = match bytes.first_chunk() {
            Some(bytes) => PREFIX_BYTES + prefix(bytes).unwrap().1,
            None => PREFIX_BYTES,
        };
        if bytes.len() > PREFIX_BYTES && bytes.len() == wanted {
            let (kind, _) = prefix(bytes.first_chunk().unwrap()).unwrap();
            return Some(Some(Greeting::decode(kind, &bytes[PREFIX_BYTES..]).unwrap()));
        }
        let mut more = vec![0; wanted - bytes.len()];
        match socket.read(&mut more) {
            Ok(0) => return Some(None),
            Ok(got) => bytes.extend(&more[..got]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Some(None),
            Err(error) => panic!("{error}"),
        }
        None
    })
}

/// A peer made by hand, connected to `node`: its latency stream and its bulk stream.
pub(super) fn by_hand(node: &mut Node) -> (PeerId, [TcpStream; 2]) {
    let streams = [Role::Latency, Role::Bulk(1)].map(|role| {
        let mut socket = TcpStream::connect(node.address().endpoint).unwrap();
        let hello = Greeting::Hello(hello(role)).encode();
        socket.write_all(&hello).unwrap();
        let Some(Greeting::Challenge(challenge)) = answer(node, &mut socket) else {
            panic!("no challenge")
        };
        let challenge = Greeting::Challenge(challenge).encode();
        let proof = prove(b"", Prover::Dialler, &hello, &challenge);
        socket.write_all(&Greeting::Proof(proof).encode()).unwrap();
        let Some(Greeting::Welcome(..)) = answer(node, &mut socket) else { panic!("not welcome") };
        socket.set_nonblocking(false).unwrap();
        socket
    });
    (wait(node, "the connection", Node::up), streams)
}

#[test]
fn garbage_after_the_handshake_ends_the_connection_alone() {
    let garbage = [
        vec![0xff; 64],
        pattern(500, 4),
        Frame::Acks { count: 1 }.encode().iter().copied().chain([9; 16]).collect(),
        // A head that promises a body its kind does not have.
        [11, 0, 0, 0, 1].into_iter().chain([0; 59]).collect(),
        // Of a write only the abort, over and over.
        (0..9000u64).flat_map(|tag| Frame::Abort { tag, sent: 1 << 40 }.encode()).collect(),
        // Messages without credit.
        std::iter::repeat_n(Frame::Message { payload: 65_536, immediate: None }.encode(), 20)
            .flat_map(|head| head.into_iter().chain([1; 65_536]))
            .collect(),
    ];
    let mut node = Node::new(Config::new());
    node.messages_max = 0;
    let mut other = Node::new(Config::new());
    let (to_node, _) = connect(&mut other, &mut node);
    for bytes in garbage {
        let (peer, [mut socket, _bulk]) = by_hand(&mut node);
        let writer = std::thread::spawn(move || {
            // The rest is not wanted once the connection has ended.
            let _ = socket.write_all(&bytes);
            socket
        });
        node.messages_max = 0;
        let reason = wait(&mut node, "the end", |node| {
            node.messages_max = if node.fabric.links.len() == 1 { 64 } else { 0 };
            node.down(peer)
        });
        assert_eq!(reason, Reason::Failed);
        drop(writer.join().unwrap());
        node.events.clear();
        let work = Work::Send { bytes: b"hello", immediate: None };
        assert_eq!(other.post(to_node, work).1, Posted::Done);
        node.messages_max = 1;
        assert_eq!(until(&mut other, &mut node, "the message", |_, it| it.message()), b"hello");
    }
}

#[test]
fn a_control_frame_in_a_bulk_stream_ends_the_connection() {
    let mut node = Node::new(Config::new());
    let (peer, [_latency, mut bulk]) = by_hand(&mut node);
    bulk.write_all(&Frame::Ping.encode()).unwrap();
    assert_eq!(wait(&mut node, "the end", |node| node.down(peer)), Reason::Failed);
}

#[test]
fn forged_stale_and_denied_keys_open_nothing() {
    let mut pair = Pair::new();
    let (here, near) = pair.a.region(8192);
    let (there, far) = pair.b.region(8192);
    near.fill(0..8192, 7).unwrap();
    let remote = pair.b.grant(there, 1024..4096, Access::WRITE);
    let gone = pair.b.grant(there, 0..8192, ALL());
    pair.b.fabric.revoke(gone.window);
    let mut forged = remote;
    forged.key.key ^= 1;
    let mut later = remote;
    later.window.generation += 1;
    let beyond = Remote { offset: 1, ..remote };
    let part = local(here, &near, 0..3072);
    for (remote, reason) in [
        (forged, Reason::Forged),
        (later, Reason::Stale),
        (gone, Reason::Stale),
        (beyond, Reason::OutOfBounds),
    ] {
        assert_eq!(pair.run(write(part, remote, Some(1))), Status::Refused(reason));
        let denied = if reason == Reason::OutOfBounds { Reason::Denied } else { reason };
        assert_eq!(pair.run(read(part, remote)), Status::Refused(denied));
    }
    assert!(bytes(&far, 0..8192).iter().all(|byte| *byte == 0));
    assert_eq!(pair.b.arrived(), None);
    assert_eq!(pair.run(write(part, remote, Some(1))), Status::Done);
    pair.settle();
}

#[test]
fn an_answer_that_began_before_its_read_lands_nowhere() {
    let mut node = Node::new(Config::new());
    let (region, memory) = node.region(4096);
    memory.fill(0..4096, 7).unwrap();
    let (peer, [_latency, mut bulk]) = by_hand(&mut node);
    let idle = |node: &Node| {
        let link = node.fabric.links.values().next().expect("connected");
        matches!(link.streams[1].reading, Reading::Head)
    };
    // The name of the first operation can be guessed; where its bytes go is still unchecked.
    let first = 1 << 32;
    bulk.write_all(&Frame::Data { tag: first, at: 2048, payload: 64 }.encode()).unwrap();
    wait(&mut node, "the head", |node| (!idle(node)).then_some(()));
    let key = RemoteKey { key: 1, base: 0 };
    let remote = Remote { window: WindowId { slot: 0, generation: 1 }, key, offset: 0 };
    assert_eq!(node.post(peer, read(local(region, &memory, 0..64), remote)).1, Posted::Pending);
    bulk.write_all(&[0xaa; 64]).unwrap();
    wait(&mut node, "the payload", |node| idle(node).then_some(()));
    assert!(bytes(&memory, 0..4096).iter().all(|byte| *byte == 7), "it landed out of bounds");
}

#[test]
fn an_answer_to_nothing_may_come_from_anywhere() {
    let mut node = Node::new(Config::new());
    let (peer, [_latency, mut bulk]) = by_hand(&mut node);
    let head = Frame::Data { tag: 5, at: u64::MAX, payload: 64 }.encode();
    bulk.write_all(&[&head[..], &[1; 64]].concat()).unwrap();
    // A control frame has no place there: that it ends the connection shows that all before it was taken.
    bulk.write_all(&Frame::Ping.encode()).unwrap();
    assert_eq!(wait(&mut node, "the end", |node| node.down(peer)), Reason::Failed);
}

#[cfg(feature = "conformance")]
proptest::proptest! {
    #[test]
    fn whatever_comes_is_decoded_or_refused(
        kind in 0..14u8,
        rest in proptest::collection::vec(proptest::num::u8::ANY, 0..300),
    ) {
        let bytes: Vec<u8> = [kind].into_iter().chain(rest).collect();
        crate::fabric::tcp::decode_anything(&bytes);
    }
}
