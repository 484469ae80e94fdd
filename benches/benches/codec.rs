//! What the codecs of cold tiers cost, and what they gain: chunks of 64 KiB of `bf16` values that are
//! normally distributed, as activations roughly are.
//!
//! Coding pays where a tier takes fewer bytes a second than *speed × (1 − 1 ÷ ratio)*.
//! Run: `cargo bench -p tranship-benches --bench codec`; the ratio is in the name of each line.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tranship_cache::tier::codec::{Codec, Decoder, Encoder};

const CHUNK_BYTES: usize = 64 << 10;
/// Chunks that are coded in turn.
const CHUNKS: usize = 256;
/// `bf16`.
const WIDTH: u8 = 2;

/// A sum of uniform numbers is nearly normal.
fn chunk(seed: u64) -> Vec<u8> {
    let mut state = seed << 1 | 1;
    let mut uniform = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let mut value = move || (0..12).map(|_| uniform()).sum::<f32>();
    (0..CHUNK_BYTES / 2).flat_map(|_| ((value().to_bits() >> 16) as u16).to_le_bytes()).collect()
}

fn codec(criterion: &mut Criterion) {
    let chunks: Vec<Vec<u8>> = (0..CHUNKS as u64).map(chunk).collect();
    for codec in [Codec::Zstd, Codec::Lz4] {
        let mut encoder = Encoder::new(codec, WIDTH);
        let encoded: Vec<Option<Vec<u8>>> =
            chunks.iter().map(|chunk| encoder.encode(chunk).map(<[u8]>::to_vec)).collect();
        let stored: usize =
            encoded.iter().map(|stored| stored.as_ref().map_or(CHUNK_BYTES, Vec::len)).sum();
        let ratio = (CHUNKS * CHUNK_BYTES) as f64 / stored as f64;
        let mut group = criterion.benchmark_group(format!("{codec:?}, ratio {ratio:.2}"));
        group.throughput(Throughput::Bytes(CHUNK_BYTES as u64));
        let mut turn = 0;
        group.bench_function("encode", |bencher| {
            bencher.iter(|| {
                turn += 1;
                black_box(encoder.encode(&chunks[turn % CHUNKS]).map(<[u8]>::len))
            });
        });
        let (mut decoder, mut back) = (Decoder::new(), vec![0; CHUNK_BYTES]);
        let encoded: Vec<Vec<u8>> = encoded.into_iter().flatten().collect();
        if encoded.is_empty() {
            continue;
        }
        group.bench_function("decode", |bencher| {
            bencher.iter(|| {
                turn += 1;
                let stored = &encoded[turn % encoded.len()];
                decoder.decode(codec, WIDTH, stored, &mut back).expect("it was encoded");
            });
        });
    }
}

criterion_group!(benches, codec);
criterion_main!(benches);
