//! Images of stores: one that an earlier build made, some that are refused, and thousands that were
//! tampered with.
//!
//! `TRANSHIP_GOLDEN=write` writes the golden store again, after a change of the format on purpose.

use std::sync::Arc;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use tranship_cache::identity::IdentityId;
use tranship_cache::key::Key;
use tranship_cache::lineage::Link;
use tranship_cache::tier::Span;
use tranship_cache::tier::cold::{Done, Failure, Health, Job, Lane, Name, Record};
use tranship_cache::tier::nvme::disk::sim::Device;
use tranship_cache::tier::nvme::{Engine, FORMAT_VERSION, Hits, Now, OpenError, Options};
use tranship_cache::time::{Millis, Wall};
use tranship_transport::checksum::crc64;
use tranship_transport::memory::HostMemory;

const PAGE: usize = 4096;
const SEGMENT_PAGES: usize = 32;
const IMAGE_PAGES: usize = 64 + 6 * SEGMENT_PAGES;
const STEPS_MAX: usize = 10_000;

fn clock() -> Now {
    Now { mono: Millis(1000), wall: Wall(1_800_000_000_000) }
}

fn options() -> Options {
    let segment_bytes = (SEGMENT_PAGES * PAGE) as u64;
    Options { segment_bytes, bounce_bytes: 1 << 20, flush_every: Millis(0), ..Options::default() }
}

fn open(device: &Device, random: u8, full_scan: bool) -> Result<Engine, OpenError> {
    let options = Options { full_scan, ..options() };
    Engine::open(device.open(), &options, Box::new(Hits), [random; 16], &clock)
}

/// A store that is open, and one step after the other.
struct Store {
    engine: Engine,
    done: Vec<Done>,
}

impl Store {
    fn new(engine: Engine) -> Self {
        Self { engine, done: Vec::new() }
    }

    fn wait(&mut self, token: u64) -> Result<Option<Record>, Failure> {
        for _ in 0..STEPS_MAX {
            if let Some(at) = self.done.iter().position(|done| done.token == token) {
                return self.done.swap_remove(at).result;
            }
            self.engine.step(clock(), &mut false);
            self.engine.desk().finished(&mut self.done);
        }
        panic!("job {token} does not end");
    }

    fn store(
        &mut self,
        record: Record,
        bytes: &[u8],
        durable: bool,
    ) -> Result<Option<Record>, Failure> {
        let job = Job::Store { token: 1, record, from: span(bytes), durable };
        self.engine.desk().submit(job).expect("there is room for one job");
        self.wait(1)
    }

    fn load(&mut self, name: Name, len: u64) -> Result<(Record, Vec<u8>), Failure> {
        let into = span(&vec![0; len as usize]);
        let (lane, within) = (Lane::Demand, Duration::from_secs(60));
        let job = Job::Load { token: 2, name, range: 0..len, into: into.clone(), lane, within };
        self.engine.desk().submit(job).expect("there is room for one job");
        let record = self.wait(2)?.expect("a load tells what was stored");
        let mut bytes = vec![0; into.len()];
        into.read_at(0, &mut bytes);
        Ok((record, bytes))
    }

    fn close(mut self) {
        self.engine.close(clock(), Millis(1_000_000));
        for _ in 0..STEPS_MAX {
            self.engine.step(clock(), &mut false);
            if self.engine.closed() {
                return;
            }
        }
        panic!("the store does not close");
    }
}

fn span(bytes: &[u8]) -> Span {
    let memory = HostMemory::new(bytes.len().next_multiple_of(PAGE).max(PAGE)).build();
    let memory = Arc::new(memory.expect("a little memory"));
    let span = Span::new(memory, 0..bytes.len() as u64);
    span.write_at(0, bytes);
    span
}

fn key(number: u8) -> Key {
    Key::from_bytes([number; 16])
}

/// Block `number` of the golden store; most of its bytes are zeroes, so that the file is short.
fn block(number: u8, len: usize) -> (Record, Vec<u8>) {
    let mut bytes = vec![0; len];
    for (at, byte) in bytes.iter_mut().enumerate() {
        if at % 1000 == 0 {
            *byte = number + (at / 1000) as u8;
        }
    }
    let parent = (!number.is_multiple_of(3)).then(|| key(number - 1));
    let record = Record {
        identity: IdentityId::from_bytes([number / 4; 16]),
        link: Link { key: key(number), parent, position: u32::from(number) },
        len: len as u64,
        checksum: crc64(&bytes),
        expires: (number == 5).then_some(Wall(4_000_000_123_456)),
    };
    (record, bytes)
}

/// What is in the golden store.
fn golden_blocks() -> Vec<(Record, Vec<u8>)> {
    let lens = [0, 1, 100, 4096, 4097, 65_536, 65_537, 20_000, 3];
    (0..).zip(lens).map(|(number, len)| block(number, len)).collect()
}

fn make_golden() -> Device {
    let device = Device::new(IMAGE_PAGES * PAGE, 1);
    let mut store = Store::new(open(&device, 0x11, false).expect("an empty device"));
    let blocks = golden_blocks();
    let (replaced, _) = block(2, 50);
    assert_eq!(store.store(replaced, &block(2, 50).1, true), Ok(None));
    let (removed, bytes) = block(77, 10);
    assert_eq!(store.store(removed, &bytes, true), Ok(None));
    for (record, bytes) in &blocks[..7] {
        assert_eq!(store.store(*record, bytes, true), Ok(None));
    }
    let remove = Job::Remove { name: removed.name() };
    store.engine.desk().submit(remove).expect("there is room for one job");
    store.close();
    // And one that was never closed.
    let mut store = Store::new(open(&device, 0x22, false).expect("a store"));
    for (record, bytes) in &blocks[7..] {
        assert_eq!(store.store(*record, bytes, true), Ok(None));
    }
    drop(store);
    device
}

/// Zeroes between two runs of bytes that are kept.
const GAP: usize = 8;

/// The length, and all runs of bytes that are not zeroes, each with its place and length.
fn pack(image: &[u8]) -> Vec<u8> {
    let mut packed = (image.len() as u32).to_le_bytes().to_vec();
    let mut at = 0;
    while let Some(skip) = image[at..].iter().position(|byte| *byte != 0) {
        let start = at + skip;
        let zeroes = image[start..].windows(GAP).position(|some| some == [0; GAP]);
        let end = zeroes.map_or(image.len(), |zeroes| start + zeroes);
        packed.extend((start as u32).to_le_bytes());
        packed.extend(((end - start) as u32).to_le_bytes());
        packed.extend(&image[start..end]);
        at = end;
    }
    packed
}

fn unpack(packed: &[u8]) -> Vec<u8> {
    let word =
        |at: usize| u32::from_le_bytes(packed[at..at + 4].try_into().expect("four")) as usize;
    let mut image = vec![0; word(0)];
    let mut at = 4;
    while at < packed.len() {
        let (start, len) = (word(at), word(at + 4));
        image[start..start + len].copy_from_slice(&packed[at + 8..at + 8 + len]);
        at += 8 + len;
    }
    image
}

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/nvme-v1.bin");

fn golden() -> Vec<u8> {
    unpack(&std::fs::read(GOLDEN).expect("the golden store is in the repository"))
}

#[test]
fn the_golden_store_is_read_and_written_the_same() {
    assert_eq!(FORMAT_VERSION, 1, "another version gets a golden store of its own");
    let made = make_golden().bytes();
    if std::env::var("TRANSHIP_GOLDEN").is_ok_and(|what| what == "write") {
        std::fs::write(GOLDEN, pack(&made)).expect("the golden store can be written");
    }
    let golden = golden();
    let differs = made.iter().zip(&golden).position(|(made, golden)| made != golden);
    assert_eq!(differs, None, "this build writes another format, from this byte on");
    for full_scan in [false, true] {
        let device = Device::of(golden.clone(), 2);
        let mut store = Store::new(open(&device, 0x33, full_scan).expect("the golden store"));
        store.engine.audit().expect("it is sound");
        for (record, bytes) in golden_blocks() {
            let loaded = store.load(record.name(), record.len);
            assert!(loaded == Ok((record, bytes)), "block {} is not there", record.link.key);
        }
        let figures = store.engine.desk().figures();
        assert_eq!(figures.recovered, golden_blocks().len() as u64);
        store.close();
    }
}

#[test]
fn what_is_not_ours_is_refused_and_left_alone() {
    let refused = |image: Vec<u8>, expected: &dyn Fn(&OpenError) -> bool| {
        let device = Device::of(image.clone(), 1);
        let why = open(&device, 0x44, false).expect_err("it is refused");
        assert!(expected(&why), "{why}");
        let line = why.to_string();
        assert!(!line.is_empty() && !line.contains('\n'), "{line:?} is not one line");
        assert!(device.bytes() == image, "a device that was refused is changed");
    };
    let golden = golden();
    let with = |at: usize, bytes: &[u8]| {
        let mut image = golden.clone();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        image
    };
    let copy = 15 * PAGE;
    // Something else at the start, or anywhere in front or at the end.
    for at in [0, 100_000, IMAGE_PAGES * PAGE - 1] {
        let mut image = vec![0; IMAGE_PAGES * PAGE];
        image[at] = 1;
        refused(image, &|why| *why == OpenError::Foreign);
    }
    // A later version.
    refused(with(8, &[2, 0]), &|why| *why == OpenError::Newer { version: 2 });
    // Half of another store.
    let mut other = Device::new(IMAGE_PAGES * PAGE, 1);
    drop(open(&other, 0x55, false).expect("an empty device"));
    let theirs = other.bytes();
    refused(with(copy, &theirs[copy..copy + PAGE]), &|why| matches!(why, OpenError::Mixed { .. }));
    // Both superblocks damaged; with one of them all is well.
    let mut image = with(50, &[0xFF]);
    other = Device::of(image.clone(), 1);
    drop(open(&other, 0x66, false).expect("one superblock is enough"));
    image[copy + 50] = 0xFF;
    refused(image, &|why| *why == OpenError::Damaged);
    // Smaller than it was.
    let short = golden[..golden.len() - PAGE].to_vec();
    let (need, have) = (golden.len() as u64, short.len() as u64);
    refused(short, &|why| *why == OpenError::Truncated { need, have });
    // Too small to be divided.
    refused(vec![0; 64 * PAGE], &|why| matches!(why, OpenError::Segments { .. }));
    refused(vec![0; 4 * PAGE], &|why| matches!(why, OpenError::Segments { .. }));
    for segment_bytes in [0, 4096, 100_000, 1 << 30] {
        let device = Device::new(IMAGE_PAGES * PAGE, 1);
        let options = Options { segment_bytes, ..options() };
        let why = Engine::open(device.open(), &options, Box::new(Hits), [1; 16], &clock).err();
        assert!(matches!(why, Some(OpenError::Segments { .. })), "{segment_bytes}: {why:?}");
    }
    // A device that grew goes on as it was.
    let mut image = golden.clone();
    image.resize(image.len() + 100 * PAGE, 0);
    let store = Store::new(open(&Device::of(image, 1), 0x77, false).expect("a device that grew"));
    assert_eq!(store.engine.desk().figures().blocks, golden_blocks().len() as u64);
}

/// Changes some bytes and puts the right checksum over them now and then, so that what is behind the
/// checksums is tried too.
fn tamper(image: &mut [u8], dice: &mut Pcg64Mcg) {
    let below = |dice: &mut Pcg64Mcg, limit: usize| (dice.next_u64() % limit as u64) as usize;
    for _ in 0..1 + below(dice, 6) {
        let used: Vec<usize> = (0..image.len() / PAGE)
            .filter(|page| image[page * PAGE..(page + 1) * PAGE].iter().any(|byte| *byte != 0))
            .collect();
        let page = used[below(dice, used.len())] * PAGE;
        if below(dice, 8) == 0 {
            // A page of the store in another place.
            let to = below(dice, image.len() / PAGE) * PAGE;
            image.copy_within(page..page + PAGE, to);
            continue;
        }
        for _ in 0..1 + below(dice, 4) {
            let reach = if below(dice, 2) == 0 { 256 } else { PAGE };
            let at = page + below(dice, reach);
            image[at] = match below(dice, 4) {
                0 => 0,
                1 => 0xFF,
                2 => image[at].wrapping_add(1),
                _ => dice.next_u64() as u8,
            };
        }
        let (sealed, at) = match below(dice, 4) {
            0 => continue,
            1 => (page..page + 512, page + 504),
            2 => (page..page + PAGE, page + PAGE - 80),
            _ => (page..page + PAGE, page + 8),
        };
        image[at..at + 8].fill(0);
        let sum = crc64(&image[sealed]);
        image[at..at + 8].copy_from_slice(&sum.to_le_bytes());
    }
}

/// Opens any image, and does a little of everything with what is in it.
fn try_image(image: Vec<u8>, full_scan: bool) {
    let device = Device::of(image, 3);
    let Ok(engine) = open(&device, 0x88, full_scan) else { return };
    let mut store = Store::new(engine);
    let mut names = Vec::new();
    let desk = store.engine.desk();
    let mut from = Some(0);
    while let Some(at) = from {
        from = desk.visit(at, clock().wall, &mut |name, found| names.push((*name, found.len)));
    }
    for (name, len) in names {
        if let Ok((record, bytes)) = store.load(name, len) {
            assert_eq!(crc64(&bytes), record.checksum, "wrong bytes are loaded");
        }
    }
    for number in 100..110 {
        let (record, bytes) = block(number, 30_000);
        let stored = store.store(record, &bytes, true);
        if stored.is_ok() {
            assert!(store.load(record.name(), record.len) == Ok((record, bytes)));
        }
    }
    assert!(matches!(desk.health(), Health::Ready), "nothing of the device fails");
    store.close();
}

#[test]
fn no_image_harms() {
    let golden = golden();
    let mut dice = Pcg64Mcg::seed_from_u64(1);
    for seed in 0..200 {
        let mut image = golden.clone();
        tamper(&mut image, &mut dice);
        let tried = std::panic::catch_unwind(|| try_image(image, seed % 2 == 0));
        assert!(tried.is_ok(), "image {seed} does harm");
    }
}
