//! Ways in for fuzzers: what a stranger or a mad peer can feed to this fabric.

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::IoSlice;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::config::Config;
use super::connection::{Connection, RING_BYTES_MIN};
use super::control::{Ours, Theirs, table_bytes};
use super::doorbell;
use super::fabric::Shm;
use super::ring::{Channel, Consumer, Producer};
use super::ring_cells::Cells;
use super::segment::{Segment, Sharing};
use super::socket::{self, Line, Received};
use super::wire::{PACKET_BYTES, Packet, VERSION};
use crate::address::EngineId;
use crate::fabric::fuzzing::Bytes;
use crate::fabric::{Event, Fabric, Setup};
use crate::time::MonotonicClock;
use crate::window::WindowId;

/// Words of the ring, and places of the table: few, so that everything is reached.
const WORDS: usize = 64;
const PLACES: u32 = 4;
/// How long a mad peer may keep the fabric busy after it has left.
const PATIENCE: Duration = Duration::from_secs(20);
/// What one stranger does at most.
const STEPS_MAX: usize = 64;

/// A packet of a connection's socket.
pub fn packet(bytes: &[u8]) {
    if let Ok(packet) = Packet::decode(bytes) {
        assert_eq!(Packet::decode(&packet.encode()), Ok(packet), "it says what it was read from");
    }
}

/// The packets that seeds are made of.
#[must_use]
pub fn packet_seeds() -> Vec<Vec<u8>> {
    let window = WindowId { slot: 3, generation: 9 };
    let (engine, reason) = (EngineId(7), crate::Reason::Denied);
    let packets = [
        Packet::Hello { engine, windows: 4096, ring_bytes: RING_BYTES_MIN },
        Packet::Welcome { engine, windows: 4096 },
        Packet::Reject { reason },
        Packet::Map { token: 1, window, key: 77, whole: false },
        Packet::Mapping { token: 1, region: crate::fabric::RegionId(5), len: 4096 },
        Packet::NoMapping { token: 1, reason },
        Packet::Forget { region: crate::fabric::RegionId(5) },
        Packet::Bye,
    ];
    packets.iter().map(|packet| packet.encode().to_vec()).collect()
}

/// A ring whose other side writes what it likes between any two steps.
pub fn ring(bytes: &[u8]) {
    let cells = Cells::new(WORDS);
    let mut consumer = Consumer::new(Arc::clone(&cells));
    let mut producer = Producer::new(Arc::clone(&cells));
    let mut from = Bytes(bytes);
    // Either of them gives up for good once the other is seen to be mad, as a connection does.
    let (mut reads, mut writes) = (true, true);
    while let Some(step) = from.byte() {
        match step % 8 {
            0 => cells.tail.store(from.small_or_any(), Ordering::Relaxed),
            1 => cells.head.store(from.small_or_any(), Ordering::Relaxed),
            2 | 3 => {
                let at = from.word() as usize % WORDS;
                cells.words[at].store(from.word(), Ordering::Relaxed);
            }
            4 | 5 if reads => match consumer.peek() {
                Ok(Some(record)) => {
                    let message = consumer.take(record);
                    assert!(message.len() <= WORDS * 8, "{} bytes of {WORDS} words", message.len());
                    assert_eq!(message.len(), record.message.unwrap_or(0));
                    consumer.release();
                }
                Ok(None) => {}
                Err(_) => reads = false,
            },
            6 | 7 if writes => {
                let message = vec![step; usize::from(from.byte().unwrap_or(0))];
                writes = producer.push(Some(&message), Some(7)).is_ok()
                    && producer.has_room_again().is_ok();
            }
            _ => {}
        }
    }
}

/// A table of windows that its owner filled with what it likes.
pub fn table(bytes: &[u8]) {
    thread_local! {
        static TABLE: (Segment, Theirs) = {
            let bytes = table_bytes(PLACES as usize);
            let made = Segment::create("fuzz", bytes, Sharing::OneWriter);
            let (segment, memfd) = made.expect("a segment");
            let theirs = Theirs::map(memfd.as_fd(), PLACES).expect("of the right size");
            (segment, theirs)
        };
    }
    TABLE.with(|(segment, theirs)| {
        let mut from = Bytes(bytes);
        let words = segment.words(0, table_bytes(PLACES as usize) / 8);
        while let Some(at) = from.byte() {
            // The part with the windows: eight words for each of the last places.
            let places = &words[words.len() - 8 * PLACES as usize..];
            places[usize::from(at) % places.len()].store(from.word(), Ordering::Relaxed);
        }
        for slot in 0..=PLACES {
            for generation in [0, 1, u32::MAX] {
                let window = WindowId { slot, generation };
                let found = theirs.look_up(window, 77);
                assert!(slot < PLACES || found.is_err(), "place {slot} of {PLACES}: {found:?}");
            }
        }
    });
}

/// A stranger that dials, and says and does what it likes. When it has left, nothing of it is left,
/// and the fabric has never reported a message longer than there can be.
pub fn stranger(bytes: &[u8]) {
    thread_local! {
        static NODE: RefCell<Option<Shm>> = const { RefCell::new(None) };
    }
    NODE.with_borrow_mut(|node| {
        let node = node.get_or_insert_with(|| {
            let clock = Arc::new(MonotonicClock::new());
            let setup = Setup { engine: EngineId::random(), clock };
            Shm::open(Config::new().connections_max(4), &setup).expect("the fabric opens here")
        });
        visit(node, Bytes(bytes));
    });
}

fn visit(node: &mut Shm, mut from: Bytes<'_>) {
    let address = socket::address(&node.address().endpoint).expect("its own address");
    let line = Line::new(socket::dial(&address).expect("it listens"));
    let control = Ours::create().expect("control memory");
    let (connection, memfd) = Connection::create(RING_BYTES_MIN).expect("a connection's memory");
    let mut events = Vec::new();
    for _ in 0..STEPS_MAX {
        let Some(step) = from.byte() else { break };
        match step % 8 {
            0 => say(&line, from.take(80), &[]),
            1 => {
                let mut packet = [0; PACKET_BYTES];
                packet[..4].copy_from_slice(b"TSHM");
                packet[4..6].copy_from_slice(&VERSION.to_le_bytes());
                let rest = from.take(PACKET_BYTES - 6);
                packet[6..6 + rest.len()].copy_from_slice(rest);
                say(&line, &packet, &descriptors(&mut from, &control, &memfd));
            }
            2 | 3 => {
                let engine = EngineId(u128::from(from.word()));
                let hello =
                    Packet::Hello { engine, windows: 4096, ring_bytes: RING_BYTES_MIN }.encode();
                let honest = [
                    control.memfd().try_clone_to_owned().expect("a descriptor"),
                    memfd.try_clone().expect("a descriptor"),
                    doorbell::new().expect("an eventfd"),
                ];
                say(&line, &hello, &honest);
            }
            4 => {
                let rings = connection.outgoing();
                let ring = &rings[usize::from(from.byte().unwrap_or(0)) % rings.len()];
                ring.words()[from.word() as usize % ring.words().len()]
                    .store(from.word(), Ordering::Relaxed);
                ring.tail().store(from.small_or_any(), Ordering::Release);
            }
            5 => {
                let rings = connection.incoming();
                let ring = &rings[usize::from(from.byte().unwrap_or(0)) % rings.len()];
                ring.head().store(from.small_or_any(), Ordering::Release);
            }
            6 => connection.hazard(0).store(from.small_or_any(), Ordering::SeqCst),
            _ => {
                node.poll(64, &mut events);
                while let Ok(Received::Packet(..)) = line.receive() {}
            }
        }
    }
    node.poll(64, &mut events);
    drop((line, connection));
    let start = Instant::now();
    while !node.peers.is_empty() || !node.ghosts.is_empty() {
        node.look = true;
        node.poll(64, &mut events);
        assert!(start.elapsed() < PATIENCE, "a stranger has left and is still there");
    }
    for event in events {
        if let Event::Message { bytes, .. } = event {
            assert!(bytes.len() as u64 <= RING_BYTES_MIN, "a message of {} bytes", bytes.len());
        }
    }
}

fn say(line: &Line, bytes: &[u8], descriptors: &[OwnedFd]) {
    let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); 256];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !borrowed.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&borrowed)), "room for a few");
    }
    // It may have hung up already.
    let _ = sendmsg(
        line,
        &[IoSlice::new(bytes)],
        &mut ancillary,
        SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
    );
}

fn descriptors(from: &mut Bytes<'_>, control: &Ours, connection: &OwnedFd) -> Vec<OwnedFd> {
    let count = from.byte().unwrap_or(0) % 5;
    let mut some = Vec::new();
    for _ in 0..count {
        let one = match from.byte().unwrap_or(0) % 4 {
            0 => control.memfd().try_clone_to_owned().expect("a descriptor"),
            1 => connection.try_clone().expect("a descriptor"),
            2 => doorbell::new().expect("an eventfd"),
            _ => {
                let bad = memfd_create("fuzz", MemfdFlags::ALLOW_SEALING).expect("a memfd");
                ftruncate(&bad, u64::from(from.byte().unwrap_or(0)) << 8).expect("a length");
                bad
            }
        };
        some.push(one);
    }
    some
}

impl Bytes<'_> {
    /// A position that can be, or any word.
    fn small_or_any(&mut self) -> u64 {
        match self.byte() {
            Some(255) => self.word(),
            small => u64::from(small.unwrap_or(0)),
        }
    }
}
