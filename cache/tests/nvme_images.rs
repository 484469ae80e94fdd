//! Images of stores: one that an earlier build made, some that are refused, and thousands that were
//! tampered with.
//!
//! `TRANSHIP_GOLDEN=write` writes the golden store again, after a change of the format on purpose.

use tranship_cache::identity::IdentityId;
use tranship_cache::key::Key;
use tranship_cache::lineage::Link;
use tranship_cache::tier::cold::{Health, Job, Record};
use tranship_cache::tier::nvme::disk::sim::Device;
use tranship_cache::tier::nvme::testing::{Dice, PAGE, Stepped, clock, pack, seal, unpack};
use tranship_cache::tier::nvme::{Engine, FORMAT_VERSION, Hits, OpenError, Options};
use tranship_cache::time::{Millis, Wall};
use tranship_transport::checksum::crc64;

const SEGMENT_PAGES: usize = 32;
const IMAGE_PAGES: usize = 64 + 6 * SEGMENT_PAGES;

fn options() -> Options {
    let segment_bytes = (SEGMENT_PAGES * PAGE) as u64;
    Options { segment_bytes, bounce_bytes: 1 << 20, flush_every: Millis(0), ..Options::default() }
}

fn open(device: &Device, random: u8, full_scan: bool) -> Result<Stepped, OpenError> {
    Stepped::open(device.open(), &Options { full_scan, ..options() }, random)
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
    let mut store = open(&device, 0x11, false).expect("an empty device");
    let blocks = golden_blocks();
    let (replaced, _) = block(2, 50);
    assert_eq!(store.store(replaced, &block(2, 50).1, true), Ok(None));
    let (removed, bytes) = block(77, 10);
    assert_eq!(store.store(removed, &bytes, true), Ok(None));
    for (record, bytes) in &blocks[..7] {
        assert_eq!(store.store(*record, bytes, true), Ok(None));
    }
    let remove = Job::Remove { name: removed.name() };
    store.submit(remove);
    store.close();
    // And one that was never closed.
    let mut store = open(&device, 0x22, false).expect("a store");
    for (record, bytes) in &blocks[7..] {
        assert_eq!(store.store(*record, bytes, true), Ok(None));
    }
    drop(store);
    device
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
        let mut store = open(&device, 0x33, full_scan).expect("the golden store");
        store.engine.audit().expect("it is sound");
        for (record, bytes) in golden_blocks() {
            let loaded = store.load(record.name(), record.len);
            assert!(loaded == Ok((record, bytes)), "block {} is not there", record.link.key);
        }
        let figures = store.desk().figures();
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
    let mut later = with(8, &[2, 0]);
    later[copy + 8] = 2;
    refused(later, &|why| *why == OpenError::Newer { version: 2 });
    // Half of another store.
    let other = Device::new(IMAGE_PAGES * PAGE, 1);
    drop(open(&other, 0x55, false).expect("an empty device"));
    let theirs = other.bytes();
    refused(with(copy, &theirs[copy..copy + PAGE]), &|why| matches!(why, OpenError::Mixed { .. }));
    // Both superblocks damaged.
    let mut image = with(50, &[0xFF]);
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
    let store = open(&Device::of(image, 1), 0x77, false).expect("a device that grew");
    assert_eq!(store.desk().figures().blocks, golden_blocks().len() as u64);
}

#[test]
fn a_damaged_superblock_is_written_again() {
    let golden = golden();
    let pages = [0, 15 * PAGE];
    for page in pages {
        // In its magic, its version, or anywhere else; or it is gone.
        for damage in [&[0xFF][..], &[b'T', b'R', b'A', b'N', b'S', b'L', b'O', b'G', 2], &[0; 512]]
        {
            let mut image = golden.clone();
            image[page..page + damage.len()].copy_from_slice(damage);
            let device = Device::of(image, 1);
            drop(open(&device, 0x66, false).expect("one superblock is enough"));
            device.crash();
            let after = device.bytes();
            for page in pages {
                assert!(after[page..page + PAGE] == golden[page..page + PAGE], "page {page}");
            }
        }
    }
    // One that cannot be written is no reason to refuse.
    let mut image = golden.clone();
    image[9] = 7;
    let device = Device::of(image, 1);
    device.inject(|faults| faults.bad.push(0..PAGE as u64));
    open(&device, 0x66, false).expect("one superblock is enough").engine.audit().expect("sound");
}

/// Changes some bytes and puts the right checksum over them now and then, so that what is behind the
/// checksums is tried too.
fn tamper(image: &mut [u8], dice: &mut Dice) {
    let below = |dice: &mut Dice, limit: usize| dice.below(limit as u64) as usize;
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
                _ => dice.bits() as u8,
            };
        }
        let (sealed, at) = match below(dice, 4) {
            0 => continue,
            1 => (page..page + 512, page + 504),
            2 => (page..page + PAGE, page + PAGE - 80),
            _ => (page..page + PAGE, page + 8),
        };
        let at = at - sealed.start;
        seal(&mut image[sealed], at);
    }
}

/// Opens any image, and does a little of everything with what is in it.
fn try_image(image: Vec<u8>, full_scan: bool) {
    let device = Device::of(image, 3);
    let Ok(mut store) = open(&device, 0x88, full_scan) else { return };
    for (name, len) in store.names() {
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
    assert!(matches!(store.desk().health(), Health::Ready), "nothing of the device fails");
    store.close();
}

#[test]
fn no_image_harms() {
    let golden = golden();
    let mut dice = Dice::new(1);
    for seed in 0..200 {
        let mut image = golden.clone();
        tamper(&mut image, &mut dice);
        let tried = std::panic::catch_unwind(|| try_image(image, seed % 2 == 0));
        assert!(tried.is_ok(), "image {seed} does harm");
    }
}
