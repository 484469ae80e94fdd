//! Images of the NVMe tier's store.

use std::sync::Arc;
use std::time::Duration;

use tranship_cache::tier::Span;
use tranship_cache::tier::cold::{Done, Job, Lane, Record};
use tranship_cache::tier::nvme::disk::sim::Device;
use tranship_cache::tier::nvme::{Engine, Hits, Now, Options};
use tranship_cache::time::{Millis, Wall};
use tranship_transport::checksum::crc64;
use tranship_transport::memory::HostMemory;

const PAGE: usize = 4096;
/// Longest image that is tried as it is.
const RAW_PAGES_MAX: usize = 256;
const STEPS_MAX: usize = 100_000;

/// A store that was closed, and written to again: packed runs of bytes, see `cache/tests/nvme_images.rs`.
pub(crate) const GOLDEN: &[u8] = include_bytes!("../../cache/tests/golden/nvme-v1.bin");

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

/// An image made of the input: the input itself, or the golden store changed as the input says.
fn image(raw: bool, mut input: &[u8]) -> Vec<u8> {
    if raw {
        let mut image = input[..input.len().min(RAW_PAGES_MAX * PAGE)].to_vec();
        image.resize(image.len().next_multiple_of(PAGE), 0);
        return image;
    }
    let mut image = unpack(GOLDEN);
    let pages = image.len() / PAGE;
    while let [what, page, low, high, len, rest @ ..] = input {
        let start = usize::from(*page) % pages * PAGE;
        let offset = usize::from(u16::from_le_bytes([*low, *high])) % PAGE;
        input = rest;
        match what % 5 {
            0 => {
                let len = usize::from(*len).min(input.len()).min(PAGE - offset);
                image[start + offset..start + offset + len].copy_from_slice(&input[..len]);
                input = &input[len..];
            }
            1 => {
                let to = usize::from(*len) % pages * PAGE;
                image.copy_within(start..start + PAGE, to);
            }
            // The checksum of a superblock, of a summary, of a header or page of the log.
            2 => seal(&mut image[start..start + 512], 504),
            3 => seal(&mut image[start..start + PAGE], PAGE - 80),
            _ => seal(&mut image[start..start + PAGE], 8),
        }
    }
    image
}

fn seal(bytes: &mut [u8], at: usize) {
    bytes[at..at + 8].fill(0);
    let sum = crc64(bytes);
    bytes[at..at + 8].copy_from_slice(&sum.to_le_bytes());
}

fn clock() -> Now {
    Now { mono: Millis(1000), wall: Wall(1_800_000_000_000) }
}

fn span(len: usize) -> Span {
    let memory = HostMemory::new(len.next_multiple_of(PAGE).max(PAGE)).build();
    Span::new(Arc::new(memory.expect("a little memory")), 0..len as u64)
}

/// A device with any bytes. Opening it never panics; what is loaded from it is what its checksum says;
/// what is stored to it comes back; and every job ends.
pub fn nvme_image(bytes: &[u8]) {
    let Some((flags, input)) = bytes.split_first() else { return };
    let image = image(flags & 2 != 0, input);
    if image.is_empty() {
        return;
    }
    let options = Options {
        segment_bytes: 32 * PAGE as u64,
        bounce_bytes: 1 << 20,
        flush_every: Millis(0),
        full_scan: flags & 1 != 0,
        ..Options::default()
    };
    let device = Device::of(image, 1);
    let engine = Engine::open(device.open(), &options, Box::new(Hits), [9; 16], &clock);
    let Ok(mut engine) = engine else { return };
    let desk = engine.desk();
    let (mut names, mut from) = (Vec::new(), Some(0));
    while let Some(at) = from {
        from = desk.visit(at, clock().wall, &mut |name, found| names.push((*name, found.len)));
    }
    let wait = |engine: &mut Engine, job: Job| {
        desk.submit(job).expect("there is room for one job");
        let mut done: Vec<Done> = Vec::new();
        for _ in 0..STEPS_MAX {
            engine.step(clock(), &mut false);
            desk.finished(&mut done);
            if let Some(done) = done.pop() {
                return done.result;
            }
        }
        panic!("a job does not end");
    };
    let crc = |span: &Span| span.checksum();
    for (name, len) in names {
        let into = span(len as usize);
        let (lane, within) = (Lane::Demand, Duration::from_secs(60));
        let job = Job::Load { token: 1, name, range: 0..len, into: into.clone(), lane, within };
        if let Ok(Some(record)) = wait(&mut engine, job) {
            assert_eq!((crc(&into), into.len() as u64), (record.checksum, record.len));
        }
    }
    for number in 0..4 {
        let from = span(30_000);
        from.write_at(0, &[number + 1; 30_000]);
        let identity = tranship_cache::IdentityId::from_bytes([0xEE; 16]);
        let key = tranship_cache::Key::from_bytes([number; 16]);
        let link = tranship_cache::Link { key, parent: None, position: 0 };
        let record = Record { identity, link, len: 30_000, checksum: crc(&from), expires: None };
        let stored = wait(&mut engine, Job::Store { token: 2, record, from, durable: true });
        if stored.is_ok() {
            let found = desk.find(&record.name(), clock().wall).expect("it was stored");
            assert_eq!(found.checksum, record.checksum);
        }
    }
    engine.close(clock(), Millis(1_000_000));
    for _ in 0..STEPS_MAX {
        engine.step(clock(), &mut false);
        if engine.closed() {
            return;
        }
    }
    panic!("the store does not close");
}
