//! Ways in for fuzzers: what a stranger or a mad peer can send to this fabric.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::config::Config;
use super::fabric::Tcp;
use super::frame::{ACK_BYTES, Ack, Frame, HEAD_BYTES, Place};
use super::greeting::{Greeting, Hello, PREFIX_BYTES, Prover, Role, prefix, prove};
use super::layout::{self, Layout, Shape};
use crate::address::EngineId;
use crate::fabric::fuzzing::Bytes;
use crate::fabric::{
    Event, Fabric, Grant, Local, OpId, PeerId, RegionId, Remote, RemoteKey, Setup, Work,
};
use crate::immediate::Immediate;
use crate::lane::Lane;
use crate::memory::{HostMemory, Memory};
use crate::pages::Run;
use crate::time::MonotonicClock;
use crate::window::{Access, WindowId};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// What one stranger does at most.
const STEPS_MAX: usize = 48;
/// Pieces of a layout that are walked through at most.
const WALKED_MAX: usize = 4096;
/// A page before and a page after the window never change.
const PAGE: usize = 4096;
const CANARY: u8 = 0xc5;
const STREAMS: u8 = 2;
const WINDOW: WindowId = WindowId { slot: 3, generation: 9 };

/// The head of a frame, the layout behind it, and an acknowledgement.
pub fn frame(bytes: &[u8]) {
    if let Some(head) = bytes.first_chunk::<HEAD_BYTES>()
        && let Ok(frame) = Frame::decode(head)
    {
        assert_eq!(Frame::decode(&frame.encode()), Ok(frame), "it says what it was read from");
    }
    if let Some(ack) = bytes.first_chunk::<ACK_BYTES>()
        && let Ok(ack) = Ack::decode(ack)
    {
        assert_eq!(Ack::decode(&ack.encode()), Ok(ack));
    }
}

/// A layout, and a walk through it from any byte on.
pub fn layout(bytes: &[u8]) {
    let Some((skip, body)) = bytes.split_first_chunk() else { return };
    let Ok(layout) = Layout::decode(body) else { return };
    let (whole, end) = (layout.bytes(), layout.end());
    let skip = u64::from_le_bytes(*skip) % whole;
    let shape = Shape::Layout(Arc::new(layout));
    let mut place = layout::Place::at(&shape, skip);
    let mut left = whole - skip;
    for _ in 0..WALKED_MAX {
        let Some((at, len)) = place.look(&shape) else {
            assert_eq!(left, 0, "it ends where its bytes do");
            return;
        };
        assert!(len > 0 && at.checked_add(len).is_some_and(|it| it <= end), "{at}+{len} of {end}");
        assert!(len <= left, "{len} of {left} bytes");
        left -= len;
        place.advance(&shape, len);
    }
}

/// A message of the handshake.
pub fn greeting(bytes: &[u8]) {
    let Some((head, body)) = bytes.split_first_chunk::<PREFIX_BYTES>() else { return };
    let Ok((kind, len)) = prefix(head) else { return };
    let Some(body) = body.get(..len) else { return };
    if let Ok(greeting) = Greeting::decode(kind, body) {
        let again = greeting.encode();
        assert_eq!(Greeting::decode(kind, &again[PREFIX_BYTES..]), Ok(greeting));
    }
}

/// What the seeds of the decoders are made of: frames, layouts and greetings.
#[must_use]
pub fn seeds() -> [Vec<Vec<u8>>; 3] {
    let place = Place { window: WINDOW, key: 77, offset: 16, skip: 0, layout: 0 };
    let frames = [
        Frame::Write { tag: 1, place, total: 64, payload: 64, immediate: Some(Immediate(5)) },
        Frame::Read { tag: 2, place, len: 64, base: 0, urgent: true },
        Frame::Data { tag: 2, at: 0, payload: 64 },
        Frame::Message { payload: 9, immediate: None },
        Frame::Signal { immediate: Immediate(7), urgent: false },
        Frame::Acks { count: 1 },
        Frame::Abort { tag: 1, sent: 32 },
        Frame::Forget { tag: 1 },
        Frame::Stop { tag: 2 },
        Frame::Credit { bytes: 4096 },
        Frame::Ping,
        Frame::Bye,
    ];
    let run = Run { offset: 0, bytes: 16, stride: 64, count: 3 };
    let layouts = [layout::encode(&[run], &[0]), layout::encode(&[run, run], &[0, 1024])];
    let hello = Greeting::Hello(hello(1, Role::Bulk(1))).encode();
    let proofs = [Greeting::Proof([1; 32]), Greeting::Welcome([2; 32], 2)];
    [
        frames.iter().map(|frame| frame.encode().to_vec()).collect(),
        layouts.iter().map(|body| [&[0; 8][..], body].concat()).collect(),
        proofs.iter().map(Greeting::encode).chain([hello]).collect(),
    ]
}

fn hello(connection: u128, role: Role) -> Hello {
    Hello {
        engine: EngineId(connection),
        connection,
        nonce: [7; 32],
        role,
        streams: STREAMS,
        heartbeat: Duration::from_secs(1),
        credit: 1 << 20,
        above: 0,
        address: String::new(),
    }
}

/// A fabric and memory that is open to strangers, with memory around it that is not.
struct Node {
    fabric: Tcp,
    memory: Arc<Memory>,
    key: RemoteKey,
    events: Vec<Event>,
    visits: u128,
    ops: u64,
}

/// A stranger who dials and says what it likes, from the first byte on or after an honest
/// handshake. No byte outside of the window changes, nor in memory that is only written from; when
/// it has left, nothing of it is left.
pub fn stranger(bytes: &[u8]) {
    thread_local! {
        static NODE: RefCell<Option<Node>> = const { RefCell::new(None) };
    }
    NODE.with_borrow_mut(|place| {
        let node = place.get_or_insert_with(Node::new);
        let mut from = Bytes(bytes);
        match from.byte() {
            Some(0) => node.greeted_by(&from),
            Some(_) => node.visited_by(from),
            None => return,
        }
        if !node.settle() {
            // What it took with it cannot be proven, as it cannot be asked.
            *place = None;
        }
    });
}

impl Node {
    fn new() -> Self {
        let setup = Setup { engine: EngineId::random(), clock: Arc::new(MonotonicClock::new()) };
        let config = Config::new().streams(STREAMS);
        let mut fabric = Tcp::open(config, &setup).expect("the fabric opens here");
        let memory = Arc::new(HostMemory::new(4 * PAGE).build().expect("some pages"));
        memory.fill(0..4 * PAGE, CANARY).expect("all of it");
        let region = RegionId(1);
        fabric.register(region, &memory).expect("it takes memory");
        let (offset, len) = (PAGE as u64, PAGE as u64);
        let access = Access::READ | Access::WRITE;
        let grant = Grant { window: WINDOW, region, offset, len, access };
        let key = fabric.grant(&grant).expect("a window inside");
        Self { fabric, memory, key, events: Vec::new(), visits: 0, ops: 0 }
    }

    fn poll(&mut self) {
        self.fabric.poll(64, &mut self.events);
    }

    fn dialled(&self) -> TcpStream {
        let stream = TcpStream::connect(self.fabric.address().endpoint).expect("it listens");
        stream.set_nonblocking(true).expect("a socket");
        stream
    }

    /// Nonsense from the first byte on.
    fn greeted_by(&mut self, from: &Bytes<'_>) {
        let mut stream = self.dialled();
        let half = from.0.len() / 2;
        let _ = stream.write_all(&from.0[..half]);
        self.poll();
        let _ = stream.write_all(&from.0[half..]);
        self.poll();
    }

    /// Nonsense after an honest handshake.
    fn visited_by(&mut self, mut from: Bytes<'_>) {
        self.visits += 1;
        let mut streams: Vec<_> = [Role::Latency, Role::Bulk(1), Role::Bulk(2)]
            .into_iter()
            .map(|role| Some(self.handshake(role)))
            .collect();
        let up = self.events.drain(..).find_map(|event| match event {
            Event::PeerUp { peer, .. } => Some(peer),
            _ => None,
        });
        let peer = up.expect("an honest handshake is enough");
        for _ in 0..STEPS_MAX {
            let Some(step) = from.byte() else { break };
            let stream = usize::from(step >> 4) % streams.len();
            match step % 8 {
                0 => say(&mut streams[stream], from.take(80)),
                1 => {
                    let mut head = [0; HEAD_BYTES];
                    let some = from.take(HEAD_BYTES);
                    head[..some.len()].copy_from_slice(some);
                    say(&mut streams[stream], &head);
                }
                2 | 3 => say(&mut streams[stream], &self.granted(step, &mut from)),
                4 => say(&mut streams[stream], &answer(&mut from)),
                5 => self.post(peer, &mut from),
                6 if step >= 0xf0 => streams[stream] = None,
                6 if step >= 0xe0 => {
                    let _ = streams[stream].as_ref().map(|it| it.shutdown(Shutdown::Write));
                }
                _ => self.poll(),
            }
        }
        self.poll();
    }

    fn handshake(&mut self, role: Role) -> TcpStream {
        let mut stream = self.dialled();
        let hello = Greeting::Hello(hello(self.visits, role)).encode();
        stream.write_all(&hello).expect("room for a hello");
        let challenge = self.heard(&mut stream);
        let proof = prove(&[], Prover::Dialler, &hello, &challenge);
        stream.write_all(&Greeting::Proof(proof).encode()).expect("room for a proof");
        self.heard(&mut stream);
        stream
    }

    /// A whole message of the handshake.
    fn heard(&mut self, stream: &mut TcpStream) -> Vec<u8> {
        let (mut bytes, mut wanted) = (Vec::new(), PREFIX_BYTES);
        let start = Instant::now();
        while bytes.len() < wanted {
            self.poll();
            let mut more = [0; 600];
            match stream.read(&mut more[..wanted - bytes.len()]) {
                Ok(0) => panic!("it hangs up on an honest stranger"),
                Ok(count) => bytes.extend(&more[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
            if let Some(Ok((_, len))) = bytes.first_chunk().map(prefix) {
                wanted = PREFIX_BYTES + len;
            }
            assert!(start.elapsed() < PATIENCE, "no answer to an honest stranger");
        }
        bytes
    }

    /// A write or a read that knows the key.
    fn granted(&self, step: u8, from: &mut Bytes<'_>) -> Vec<u8> {
        let layout = match from.byte() {
            Some(0..128) | None => Vec::new(),
            Some(_) => {
                let mut number = || from.number();
                let (offset, bytes, stride) = (number(), number(), number());
                let count = from.byte().unwrap_or(1).into();
                let run = Run { offset, bytes, stride, count };
                layout::encode(&[run], &[from.number(), 0])
            }
        };
        let place = Place {
            window: WINDOW,
            key: self.key.key,
            offset: from.number(),
            skip: from.number(),
            layout: layout.len() as u32,
        };
        let (tag, len, base) = (from.number(), from.number(), from.number());
        if step.is_multiple_of(2) {
            let payload = from.take(255);
            let (total, short) = (len.max(payload.len() as u64), payload.len() as u32);
            let immediate = Some(Immediate(9));
            let frame = Frame::Write { tag, place, total, payload: short, immediate };
            [&frame.encode()[..], &layout, payload].concat()
        } else {
            let frame = Frame::Read { tag, place, len, base, urgent: step >= 128 };
            [&frame.encode()[..], &layout].concat()
        }
    }

    /// Something for the stranger to answer as it likes: a write from the third page, or a read
    /// into the second, which it may write to anyway.
    fn post(&mut self, peer: PeerId, from: &mut Bytes<'_>) {
        let read = from.byte().unwrap_or(0) % 2 == 1;
        let page = if read { PAGE } else { 2 * PAGE };
        // SAFETY: inside of the memory, which is four pages long and outlives the fabric.
        let ptr = unsafe { self.memory.as_ptr().add(page) };
        let local = Local { region: RegionId(1), ptr, len: from.number() % PAGE as u64 };
        let key = RemoteKey { key: 1, base: 0 };
        let remote = Remote { window: WINDOW, key, offset: 0 };
        self.ops += 1;
        let work = if read {
            Work::Read { local, remote, pages: None, immediate: None }
        } else {
            Work::Write { local, remote, pages: None, immediate: None }
        };
        let _ = self.fabric.post(OpId(self.ops), peer, Lane::Bulk, work);
    }

    /// Waits until nothing of the stranger is left; whether all it was asked for could be proven
    /// to have ended.
    fn settle(&mut self) -> bool {
        let start = Instant::now();
        while !self.fabric.is_alone() {
            self.poll();
            assert!(start.elapsed() < PATIENCE, "a stranger has left and is still there");
        }
        self.events.clear();
        let mut bytes = [0; PAGE];
        for page in [0, 2, 3] {
            self.memory.read_at(page * PAGE, &mut bytes).expect("inside");
            assert!(bytes.iter().all(|&byte| byte == CANARY), "page {page} changed");
        }
        self.fabric.suspects.is_empty()
    }
}

/// An answer to something that was asked, or never was.
fn answer(from: &mut Bytes<'_>) -> Vec<u8> {
    let (kind, tag, number) = (from.byte().unwrap_or(0), from.number(), from.number());
    let payload = from.take(255);
    let short = payload.len() as u32;
    let frame = match kind % 8 {
        0 => Frame::Data { tag, at: number, payload: short },
        1 => Frame::Message { payload: short, immediate: Some(Immediate(tag as u32)) },
        2 => {
            let mut acks = [0; ACK_BYTES];
            acks[..8].copy_from_slice(&tag.to_le_bytes());
            acks[8..].copy_from_slice(&number.to_le_bytes());
            return [&Frame::Acks { count: 1 }.encode()[..], &acks].concat();
        }
        3 => Frame::Abort { tag, sent: number },
        4 => Frame::Forget { tag },
        5 => Frame::Stop { tag },
        6 => Frame::Credit { bytes: number },
        _ => Frame::Bye,
    };
    let payload = if frame.follows().1 > 0 { payload } else { &[] };
    [&frame.encode()[..], payload].concat()
}

fn say(stream: &mut Option<TcpStream>, bytes: &[u8]) {
    // It may have hung up already.
    let _ = stream.as_mut().map(|stream| stream.write_all(bytes));
}

impl Bytes<'_> {
    /// A number that can be, sixteen times as large, or any.
    fn number(&mut self) -> u64 {
        match self.byte() {
            Some(255) => self.word(),
            Some(large @ 128..) => u64::from(large & 127) * 64,
            small => u64::from(small.unwrap_or(0)),
        }
    }
}
