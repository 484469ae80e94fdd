//! What a block costs in memory while it is on the device, and how fast a store is opened again.
//!
//! The store has as many blocks to a segment as one with blocks of 1 MiB in segments of 64 MiB, so that
//! segments weigh as they do there. `TRANSHIP_NVME_BLOCKS` says how many blocks (60,000).

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tranship_cache::identity::IdentityId;
use tranship_cache::key::Key;
use tranship_cache::lineage::Link;
use tranship_cache::tier::Span;
use tranship_cache::tier::cold::{Job, Name, Record};
use tranship_cache::tier::nvme::disk::sim::Device;
use tranship_cache::tier::nvme::{Engine, Hits, Now, Options};
use tranship_cache::time::{Millis, Wall};
use tranship_transport::memory::HostMemory;

/// The most that a block may cost, everything included, bytes.
const BLOCK_BYTES_MAX: usize = 48;
const PAGES: usize = 64;
const PAGE: usize = 4096;
/// Blocks of a segment: its pages without two headers and the summary.
const TO_A_SEGMENT: usize = 60;

struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: passes everything on to the system's allocator and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: passed on from the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: passed on from the caller.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: passed on from the caller.
        unsafe { System.dealloc(at, layout) };
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn say(text: &str) {
    // Past the capture of a test that passes; nothing is lost when nobody listens.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Time that this thread has run for, nanoseconds.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

fn clock() -> Now {
    Now { mono: Millis(0), wall: Wall(1_000_000) }
}

fn record(number: u64) -> Record {
    let key = |number: u64| {
        let mut bytes = [0; 16];
        // Keys are hashes.
        bytes[..8].copy_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
        bytes[8..].copy_from_slice(&number.to_le_bytes());
        Key::from_bytes(bytes)
    };
    let parent = number.checked_sub(1).map(key);
    let link = Link { key: key(number), parent, position: number as u32 };
    let identity = IdentityId::from_bytes([1; 16]);
    // Without payload a block has its page and everything that is written about it.
    Record { identity, link, len: 0, checksum: 0, expires: None }
}

fn fill(device: &Device, options: &Options, blocks: u64) {
    let engine = Engine::open(device.open(), options, Box::new(Hits), [1; 16], &clock);
    let mut engine = engine.expect("the device is empty");
    let desk = engine.desk();
    let nothing = Span::whole(Arc::new(HostMemory::new(0).build().expect("nothing")));
    let mut told = false;
    for number in 0..blocks {
        let (record, from) = (record(number), nothing.clone());
        let mut job = Job::Store { token: number, record, from, durable: false };
        while let Err(refused) = desk.submit(job) {
            job = refused.job;
            engine.step(clock(), &mut told);
        }
    }
    engine.close(clock(), Millis(1));
    while !engine.closed() {
        engine.step(clock(), &mut told);
    }
    let mut done = Vec::new();
    desk.finished(&mut done);
    assert_eq!(done.len() as u64, blocks);
    assert!(done.iter().all(|done| done.result.is_ok()));
}

#[test]
fn a_block_costs_48_bytes_at_most() {
    let blocks = std::env::var("TRANSHIP_NVME_BLOCKS").ok();
    let blocks: u64 = blocks.map_or(60_000, |text| text.parse().expect("a number of blocks"));
    let segments = blocks as usize / (TO_A_SEGMENT - 4) + 40;
    let options = Options { segment_bytes: (PAGES * PAGE) as u64, ..Options::default() };
    let device = Device::new((segments + 8) * PAGES * PAGE, 1);
    fill(&device, &options, blocks);

    let disk = device.open();
    let before = ALLOCATED.load(Ordering::Relaxed);
    let (began, began_ns) = (Instant::now(), cpu_ns());
    let engine = Engine::open(disk, &options, Box::new(Hits), [2; 16], &clock);
    let engine = engine.expect("the store was closed");
    let (took, took_ns) = (began.elapsed(), cpu_ns() - began_ns);
    let bytes = ALLOCATED.load(Ordering::Relaxed) - before;

    let figures = engine.desk().figures();
    assert_eq!(figures.recovered, blocks);
    let each = bytes as f64 / blocks as f64;
    say(&format!(
        "{blocks} blocks in {segments} segments: {each:.2} bytes a block, {:.2} of them as the figures \
         say; opened in {took:.2?}, {:.0} blocks in a second of this thread",
        figures.index_bytes as f64 / blocks as f64,
        blocks as f64 / (took_ns as f64 / 1e9)
    ));
    assert!(bytes <= BLOCK_BYTES_MAX * blocks as usize, "{bytes} bytes for {blocks} blocks");
    let name = Name { identity: IdentityId::from_bytes([1; 16]), key: record(17).link.key };
    assert!(engine.desk().find(&name, clock().wall).is_some());
}
