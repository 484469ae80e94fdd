//! What a peer that is mad says to a fabric of rails, after an honest handshake.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::config::Settings;
use super::device::Keys;
use super::fabric::Rdma;
use super::sim::{Config, Net};
use super::words::{Half, PathKeys, VERSION, Word};
use crate::address::{Address, EngineId, Kind};
use crate::fabric::fuzzing::Bytes;
use crate::fabric::tcp::{self, Control};
use crate::fabric::{
    Event, Fabric, Grant, Local, OpId, PeerId, RegionId, Remote, RemoteKey, Setup, Work,
};
use crate::immediate::Immediate;
use crate::lane::Lane;
use crate::memory::{HostMemory, Memory};
use crate::outcome::Reason;
use crate::time::MonotonicClock;
use crate::window::{Access, WindowId};

const PAGE: usize = 4096;
const CANARY: u8 = 0xC5;
const STEPS_MAX: usize = 60;
const PATIENCE: Duration = Duration::from_secs(20);
const WINDOW: WindowId = WindowId { slot: 0, generation: 1 };
/// Decodes anything; what is a word says the same when it is encoded again.
pub fn word(bytes: &[u8]) {
    if let Some(word) = Word::decode(bytes) {
        assert_eq!(Word::decode(&word.encode()), Some(word));
    }
}

/// What [`word`] starts from.
pub fn seeds() -> Vec<Vec<u8>> {
    (0..=13)
        .map(|kind| some_word(&mut Bytes(&[kind, 1, 2, 3, 4, 5, 6, 7, 8, 9])).encode())
        .collect()
}

/// A peer that says whatever it likes. Nothing panics, no byte outside of the windows changes, and
/// nothing of it is left when it has gone.
pub fn stranger(bytes: &[u8]) {
    let mut from = Bytes(bytes);
    let Some(first) = from.byte() else { return };
    let mut scene = Scene::new(first & 1 == 0, 1 + usize::from(first >> 1) % 3);
    for _ in 0..STEPS_MAX {
        let Some(step) = from.byte() else { break };
        match step % 8 {
            0 => scene.mad.tell(scene.of_victim, from.take(200)),
            1..=4 => scene.mad.tell(scene.of_victim, &some_word(&mut from).encode()),
            5 => scene.post(&mut from),
            6 if step >= 0xf0 => break,
            6 if step >= 0xc0 => scene.message(&mut from),
            6 => {
                scene.victim.revoke(WINDOW);
            }
            _ => scene.poll(),
        }
    }
    scene.leave();
}

/// A fabric and the mad peer that is connected to it.
struct Scene {
    net: Net,
    victim: Rdma,
    mad: Control,
    /// What each calls the other.
    of_mad: PeerId,
    of_victim: PeerId,
    memory: Arc<Memory>,
    events: Vec<Event>,
    ops: u64,
}

impl Scene {
    fn new(victim_dials: bool, rails: usize) -> Self {
        let setup = || Setup { engine: EngineId(7), clock: Arc::new(MonotonicClock::new()) };
        let net = Net::new(1);
        let config = (0..rails).fold(Config::new(&net), |config, _| config.rail(true));
        let mut victim = config.fabric(&setup()).expect("the fabric opens here");
        let mut mad =
            Control::open(tcp::Config::new(), (Settings::new(Kind::Sim).number(), 0), &setup())
                .expect("it opens");
        let memory = Arc::new(HostMemory::new(4 * PAGE).build().expect("some pages"));
        memory.fill(0..4 * PAGE, CANARY).expect("all of it");
        let region = RegionId(1);
        victim.register(region, &memory).expect("it takes memory");
        let (offset, len) = (PAGE as u64, PAGE as u64);
        let access = Access::READ | Access::WRITE;
        victim.grant(&Grant { window: WINDOW, region, offset, len, access }).expect("a window");
        if victim_dials {
            victim.connect(&Address::new(Kind::Sim, mad.endpoint()));
        } else {
            let to = Address::new(Kind::Tcp, victim.address().endpoint);
            mad.streams().connect(&to);
        }
        let (mut of_mad, mut of_victim, mut events) = (None, None, Vec::new());
        let up = |events: &mut Vec<Event>| {
            events.drain(..).find_map(|event| match event {
                Event::PeerUp { peer, .. } => Some(peer),
                _ => None,
            })
        };
        let began = Instant::now();
        while of_mad.is_none() || of_victim.is_none() {
            victim.poll(64, &mut events);
            of_mad = of_mad.or_else(|| up(&mut events));
            mad.streams().poll(64, &mut events);
            of_victim = of_victim.or_else(|| up(&mut events));
            assert!(began.elapsed() < PATIENCE, "an honest handshake is enough");
        }
        let (of_mad, of_victim) = (of_mad.expect("seen"), of_victim.expect("seen"));
        Self { net, victim, mad, of_mad, of_victim, memory, events, ops: 0 }
    }

    fn poll(&mut self) {
        self.victim.poll(64, &mut self.events);
        self.events.clear();
        self.mad.streams().poll(64, &mut self.events);
        self.events.clear();
        self.mad.heard();
        self.mad.ended();
    }

    /// The mad peer sends a message, whose number is as it likes.
    fn message(&mut self, from: &mut Bytes<'_>) {
        let mut bytes = match from.byte().unwrap_or(0) {
            number @ 0..=250 => u64::from(number / 16).to_le_bytes().to_vec(),
            _ => from.word().to_le_bytes().to_vec(),
        };
        bytes.extend(from.take(12));
        self.ops += 1;
        let work = Work::Send { bytes: &bytes, immediate: None };
        self.mad.streams().post(OpId(self.ops), self.of_victim, Lane::Latency, work);
    }

    /// The victim writes to, or reads from, what the mad peer may have opened to it.
    fn post(&mut self, from: &mut Bytes<'_>) {
        self.ops += 1;
        let window = WindowId { slot: u32::from(from.byte().unwrap_or(0) % 4), generation: 1 };
        let remote = Remote { window, key: RemoteKey { key: 5, base: 0 }, offset: 0 };
        let local = Local { region: RegionId(1), ptr: self.memory.as_ptr(), len: PAGE as u64 };
        let immediate = Some(Immediate(1));
        let work = match from.byte().unwrap_or(0) % 3 {
            0 => Work::Write { local, remote, pages: None, immediate },
            // What is read lands in the first page, which may change.
            1 => Work::Read { local, remote, pages: None, immediate: None },
            _ => Work::Signal { immediate: Immediate(2) },
        };
        self.victim.post(OpId(self.ops), self.of_mad, Lane::Bulk, work);
    }

    fn leave(mut self) {
        let mut bytes = vec![0; 4 * PAGE];
        self.memory.read_at(0, &mut bytes).expect("all of it");
        assert!(bytes[2 * PAGE..].iter().all(|byte| *byte == CANARY), "outside of the window");
        self.mad.streams().close();
        let began = Instant::now();
        while self.net.census() > 0 {
            self.victim.poll(64, &mut self.events);
            assert!(began.elapsed() < PATIENCE, "something of it is left");
        }
        self.victim.close();
    }
}

/// A word that may make sense.
fn some_word(from: &mut Bytes<'_>) -> Word {
    let kind = from.byte().unwrap_or(0) % 14;
    let mut small = || u32::from(from.byte().unwrap_or(0) % 4);
    let (join, path, generation) = (small(), small() as u8, small());
    let window = WindowId { slot: small(), generation: small() };
    let count = small() as usize;
    let ports = vec![vec![0; 8]; small() as usize];
    let number = from.word();
    let blob = match number % 3 {
        0 => Err("no".to_owned()),
        _ => Ok([number % 4, number / 4 % 4].map(u64::to_le_bytes).concat()),
    };
    let half = Half { path, generation, blob };
    let halves = vec![half; count];
    let keys = Keys { keys: [number; 2], base: 0 };
    let paths = vec![PathKeys { path, generation, keys }; count];
    match kind {
        0 => Word::Hail { version: VERSION, join, ports, wanted: vec![path; count] },
        1 => Word::Hail { version: number as u16, join, ports, wanted: Vec::new() },
        2 => Word::Paths { version: VERSION, join, ports, halves },
        3 => Word::Paths { version: number as u16, join, ports, halves },
        4 => Word::Join { join, halves },
        5 => Word::Ready { join, paths: vec![(path, generation); count] },
        6 => Word::Open { ask: join, window, key: number },
        7 => Word::Opened { ask: join, len: number, access: Access::from_bits(path), paths },
        8 => Word::Denied { ask: join, reason: Reason::ALL[number as usize % Reason::ALL.len()] },
        9 => Word::Halt { window },
        10 => Word::Halted { window },
        11 => Word::Shut { path, generation, arrived: [number; 2] },
        12 => Word::Taken { count: number },
        _ => Word::Closed { path, generation, arrived: [number; 2] },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50))]

        #[test]
        fn a_mad_peer_breaks_nothing(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            super::stranger(&bytes);
        }
    }
}
