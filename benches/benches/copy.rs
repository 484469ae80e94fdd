//! What a copy, a checksum, and both in one pass cost, from memory that is in no cache.
//!
//! Each size walks through a source and a destination of 256 MiB, far more than the last-level
//! cache, so every block is cold; strides keep the hardware from fetching the next block early.
//! Run: `cargo bench -p tranship-benches --bench copy`.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tranship_transport::checksum::crc64_raw;
use tranship_transport::copy::{copy, copy_checksum};
use tranship_transport::memory::HostMemory;

const ROTATION_BYTES: usize = 256 << 20;
/// Odd, so that a power of two of blocks is visited completely.
const STRIDE_BLOCKS: usize = 4099;
const SIZES: [(&str, usize); 4] =
    [("4KiB", 4 << 10), ("64KiB", 64 << 10), ("1MiB", 1 << 20), ("16MiB", 16 << 20)];

fn cold(criterion: &mut Criterion) {
    let arena = || HostMemory::new(ROTATION_BYTES).huge_pages().prefault().build();
    let (src, dst) = (arena().expect("256 MiB are free"), arena().expect("256 MiB are free"));
    src.fill(0..ROTATION_BYTES, 0x5A).expect("in bounds");
    for (name, len) in SIZES {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(len as u64));
        let mut at = 0;
        let mut next = || {
            at = (at + STRIDE_BLOCKS * len) % ROTATION_BYTES;
            // SAFETY: every block lies inside of its arena, and the arenas are separate.
            unsafe { (src.as_ptr().cast_const().add(at), dst.as_ptr().add(at)) }
        };
        group.bench_function("memcpy", |bencher| {
            bencher.iter(|| {
                let (src, dst) = next();
                // SAFETY: see `next`.
                unsafe { src.copy_to_nonoverlapping(dst, len) };
            });
        });
        group.bench_function("copy", |bencher| {
            bencher.iter(|| {
                let (src, dst) = next();
                // SAFETY: see `next`.
                unsafe { copy(src, dst, len) };
            });
        });
        group.bench_function("copy_checksum", |bencher| {
            bencher.iter(|| {
                let (src, dst) = next();
                // SAFETY: see `next`.
                black_box(unsafe { copy_checksum(src, dst, len) })
            });
        });
        group.bench_function("crc64", |bencher| {
            bencher.iter(|| {
                let (src, _) = next();
                // SAFETY: see `next`.
                black_box(unsafe { crc64_raw(src, len) })
            });
        });
        group.finish();
    }
}

criterion_group!(benches, cold);
criterion_main!(benches);
