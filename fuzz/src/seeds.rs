//! What each target starts from, said by the encoders themselves.

use tranship_cache::identity::Geometry;
use tranship_cache::wire::{
    Blocks, Committed, Event, Fault, FaultCode, Fetch, Fetched, Hello, Item, Leased, Lookup, Reply,
    Request, Reserved, VERSION, Welcome,
};
use tranship_cache::{Chain, Identity, Key, Link};
use tranship_transport::fuzzing::{rails, shm, tcp};
use tranship_transport::{Access, Address, Descriptor, EngineId, Kind, Route, Slot, WindowId};

use crate::object;

/// The seeds of every target, by its name.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let [tcp_frame, tcp_layout, tcp_greeting] = tcp::seeds();
    vec![
        ("tcp_frame", tcp_frame),
        ("tcp_layout", tcp_layout),
        ("tcp_greeting", tcp_greeting),
        ("tcp_stranger", tcp_strangers()),
        ("rails_word", rails::seeds()),
        ("rails_stranger", vec![(0..200).map(|at| (at * 37 % 251) as u8).collect()]),
        ("cache_request", requests().iter().map(|request| request.encode(7)).collect()),
        ("cache_reply", replies().iter().map(|reply| reply.encode(7)).collect()),
        ("identity", vec![the_identity().encode().expect("a valid identity")]),
        ("descriptor", descriptors()),
        ("shm_packet", shm::packet_seeds()),
        ("shm_ring", rings()),
        ("shm_table", vec![(0..32).flat_map(|at| [at, 0, 0, 0, 0, 0, 0, 0, 1]).collect()]),
        ("shm_stranger", strangers()),
        ("nvme_image", images()),
        ("object_pack", object::pack_seeds()),
        ("object_manifest", object::manifest_seeds()),
        ("codec", object::codec_seeds()),
        ("pages", pages()),
        ("trace", traces()),
        ("config", configs()),
        ("units", texts(&["4GiB", "1.5 KiB", "50ms", "2h", "unix:///run/x", "tcp://[::1]:7420"])),
    ]
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn the_identity() -> Identity {
    let mut identity = Identity::new("model", "1", "bf16", Geometry::default(), 16);
    identity.tenant = "tenant".to_owned();
    identity
}

fn the_descriptor() -> Descriptor {
    let route =
        |kind, endpoint: &str| Route { address: Address::new(kind, endpoint), key: 5, base: 6 };
    Descriptor {
        engine: EngineId(7),
        window: WindowId { slot: 3, generation: 4 },
        len: 1 << 40,
        access: Access::READ | Access::WRITE,
        routes: vec![route(Kind::Shm, "/run/x"), route(Kind::Tcp, "[::1]:7420")],
    }
}

fn links() -> [Link; 2] {
    let mut chain = Chain::new(&the_identity());
    [chain.push(b"one"), chain.push(b"two")]
}

fn requests() -> Vec<Request> {
    let [first, second] = links();
    let keys = vec![first.key, second.key];
    let text = str::to_owned;
    vec![
        Request::Hello(Hello {
            version: VERSION,
            name: text("n"),
            tenant: text("t"),
            token: text("x"),
        }),
        Request::Identify { identity: the_identity().encode().expect("a valid identity") },
        Request::Lookup { scope: 1, keys: keys.clone() },
        Request::Reserve {
            scope: 1,
            deadline_ms: 1000,
            ttl_ms: 0,
            items: vec![Item { link: first, len: 4096 }, Item { link: second, len: 1 }],
        },
        Request::Commit { blocks: vec![(1, 2), (3, 4)] },
        Request::Abort { reservations: vec![1, 2] },
        Request::Lease { scope: 1, wait_ms: 0, ttl_ms: 1000, keys: keys.clone() },
        Request::Release { leases: vec![1] },
        Request::Corrupt { scope: 1, key: first.key, generation: 2 },
        Request::Fetch {
            scope: 1,
            fetch: Fetch {
                wait_ms: 5,
                window: the_descriptor(),
                slot: Slot { index: 1, generation: 9 },
                blocks: vec![(first.key, 0), (second.key, 4096)],
            },
        },
        Request::Pin { scope: 1, pin: true, keys: keys.clone() },
        Request::Remove { scope: 1, keys },
        Request::Stats,
        Request::Subscribe { from: u64::MAX },
        Request::Unsubscribe,
        Request::Ping,
    ]
}

fn replies() -> Vec<Reply> {
    let (arena, server, why) = (the_descriptor(), "s".to_owned(), "full".to_owned());
    let key = Key::from_bytes([9; 16]);
    let identity = [1; 16];
    vec![
        Reply::Welcome(Welcome { version: VERSION, server, session: 9, arena }),
        Reply::Scope(3),
        Reply::Lookup(Lookup { prefix: 1, presence: vec![2, 1, 0] }),
        Reply::Reserved(vec![
            Reserved::Granted { reservation: 1, offset: 4096 },
            Reserved::Exists,
            Reserved::InFlight,
            Reserved::Refused { retry_ms: Some(5), why: why.clone() },
        ]),
        Reply::Committed(vec![Committed::Stored, Committed::Refused { why }]),
        Reply::Leased(Blocks {
            lease: 7,
            results: vec![
                Leased::Ready { offset: 0, len: 1, checksum: 2, generation: 3 },
                Leased::Gone,
            ],
        }),
        Reply::Fetched(vec![Fetched::Gone]),
        Reply::Count(5),
        Reply::Stats(b"{}".to_vec()),
        Reply::Events(vec![
            Event::Gap { from: 1, to: 2 },
            Event::Stored {
                sequence: 3,
                identity,
                key,
                parent: Some(key),
                position: 1,
                len: 9,
                tier: 0,
            },
            Event::Removed { sequence: 4, identity, key, tier: 0 },
            Event::Cleared { sequence: 5, identity },
        ]),
        Reply::Fault(Fault { code: FaultCode::Denied, text: "no".to_owned() }),
    ]
}

fn descriptors() -> Vec<Vec<u8>> {
    let json = serde_json::to_vec(&the_descriptor()).expect("it can be written");
    [vec![json], texts(&["shm:/run/x.sock", "shm:@name", "tcp://host:7420", "sim:7"])].concat()
}

/// A record that is taken, one that is too long, and a producer whose consumer runs ahead.
fn rings() -> Vec<Vec<u8>> {
    let word = |word: u64| word.to_be_bytes().to_vec();
    let header = [vec![2], word(0), word(1 | 8 << 8)].concat();
    vec![
        [header.clone(), vec![0, 2, 4]].concat(),
        [header, vec![0, 1, 4]].concat(),
        vec![6, 20, 1, 3, 6, 200, 1, 60, 6, 9],
    ]
}

/// An honest one, one that says nothing of sense, and honest ones with mad rings.
fn strangers() -> Vec<Vec<u8>> {
    let id = [0, 0, 0, 0, 0, 0, 0, 9];
    let hello = [&[2][..], &id, &[7, 7]].concat();
    vec![
        hello.clone(),
        b"\x00\x10GET / HTTP/1.1\r\n".to_vec(),
        [&hello[..], &[4, 0], &[0; 8], &[0, 0, 0, 0, 0, 0, 8, 1], &[2, 7]].concat(),
        [&hello[..], &[5, 0, 9, 6, 1, 7]].concat(),
        [&[1, 58, 1, 0][..], &[3; 56], &[3, 0, 1, 2, 7]].concat(),
    ]
}

fn pages() -> Vec<Vec<u8>> {
    let number = |n: u8| [n, 0, 0, 0];
    let run = [number(0), number(16), number(64), number(3)].concat();
    let side = [&[1][..], &run, &number(0), &[0, 4, 0, 0]].concat();
    vec![[&[63][..], &side, &side].concat(), [&[2][..], &side, &side].concat()]
}

fn traces() -> Vec<Vec<u8>> {
    let line = |at: u32| {
        format!(
            "{{\"timestamp\":{at},\"input_length\":700,\"output_length\":3,\"hash_ids\":[1,2]}}\n"
        )
    };
    vec![line(5).into_bytes(), [line(5), "\n".to_owned(), line(4)].concat().into_bytes()]
}

/// Every setting with its default, and a tenant.
fn configs() -> Vec<Vec<u8>> {
    let mut all = String::new();
    let mut section = "";
    for setting in tranship_cli::config::settings() {
        if setting.section != section {
            section = setting.section;
            all += &format!("[{section}]\n");
        }
        all += &format!("{} = \"1\"\n", setting.field.name);
    }
    let tenant = "[[tenant]]\nname = \"a\"\ntoken = \"secret\"\n";
    vec![all.into_bytes(), tenant.as_bytes().to_vec(), b"[cache]\ncapacity = \"4GiB\"\n".to_vec()]
}

/// Writes, reads and answers after an honest handshake, and somebody who speaks another protocol.
fn tcp_strangers() -> Vec<Vec<u8>> {
    let (poll, write, read) = (7, 2, 3);
    let one = |stream: u8, step: u8| stream << 4 | step;
    vec![
        b"\0GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        vec![1, one(1, write), 0, 16, 0, 5, 4, 0, 4, 1, 2, 3, 4, poll],
        vec![
            1,
            one(2, write),
            200,
            0,
            8,
            16,
            4,
            0,
            0,
            0,
            6,
            32,
            0,
            8,
            1,
            2,
            3,
            4,
            5,
            6,
            7,
            8,
            poll,
        ],
        vec![1, one(0, read), 0, 16, 0, 5, 64, 0, poll, one(0, 4), 5, 5, 0, 0, poll],
        vec![1, 5, 0, 64, poll, one(0, 4), 2, 1, 0, 0, poll],
        vec![1, 5, 1, 64, poll, one(1, 4), 0, 2, 0, 4, 1, 2, 3, 4, poll, 0xf6, poll],
        vec![1, one(0, 4), 1, 5, 0, 3, 1, 2, 3, poll, one(0, 4), 7, 0, 0, 0, poll],
    ]
}

/// The golden store as it is, with something changed in a header, a summary, the index log and a
/// superblock under a right checksum, and with a page in another place; and an image of its own.
fn images() -> Vec<Vec<u8>> {
    let change = |page: u8, at: u8, seal: u8| vec![0, 0, page, at, 0, 1, 0xFF, seal, page, 0, 0, 0];
    let mut raw = vec![2];
    raw.extend(b"TRANSLOG");
    vec![
        vec![0],
        vec![1],
        change(64, 90, 4),
        change(64, 150, 4),
        change(95, 100, 3),
        change(16, 66, 4),
        change(0, 48, 2),
        vec![1, 1, 64, 0, 0, 96],
        raw,
    ]
}
