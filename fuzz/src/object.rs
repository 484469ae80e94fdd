//! What the object tier reads out of a bucket, and what codecs read.

use tranship_cache::Key;
use tranship_cache::identity::IdentityId;
use tranship_cache::lineage::Link;
use tranship_cache::tier::codec::{Codec, Decoder, Encoder};
use tranship_cache::tier::cold::{Name, Record};
use tranship_cache::tier::object::PackId;
use tranship_cache::tier::object::format::{
    Chunk, Footer, Head, Listed, Listing, Manifest, Trailer, head_bytes,
};
use tranship_cache::time::Wall;

/// The head of a block, and a whole pack by its end. What was understood is written the same way. A
/// checksum is no secret: where it is wrong it is made right, so that what is behind it is reached.
pub fn object_pack(bytes: &[u8]) {
    head(bytes);
    head(&resealed(bytes));
    let Some(at) = bytes.len().checked_sub(32) else { return };
    if let Ok(trailer) = Trailer::decode(&bytes[at..]) {
        assert_eq!(trailer.encode()[..16], bytes[at..at + 16]);
        if let Some(begin) = (at as u64).checked_sub(trailer.footer_bytes) {
            footer(&bytes[begin as usize..at], trailer, begin);
        }
    }
    footer(bytes, Trailer::of(bytes), u64::from(u32::MAX));
}

fn head(bytes: &[u8]) {
    match Head::decode(bytes) {
        Ok(head) => {
            assert_eq!(head.encode().len() as u64, head_bytes(head.record.len));
            assert_eq!(Head::decode(&head.encode()), Ok(head));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn footer(bytes: &[u8], trailer: Trailer, at: u64) {
    if let Ok(footer) = Footer::decode(bytes, trailer, at) {
        assert!(footer.entries.iter().all(|entry| entry.end() <= at));
        let again = footer.encode();
        assert_eq!(Footer::decode(&again, Trailer::of(&again), at), Ok(footer));
    }
}

/// A manifest, likewise.
pub fn object_manifest(bytes: &[u8]) {
    for bytes in [bytes, &resealed(bytes)] {
        match Manifest::decode(bytes) {
            Ok(manifest) => assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest)),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

/// Encoded chunks: nothing but the chunk is written to. What was encoded is decoded.
pub fn codec(bytes: &[u8]) {
    let [number, width, len, rest @ ..] = bytes else { return };
    let width = 1 << (width % 4);
    let mut decoder = Decoder::new();
    for codec in Codec::ALL {
        let mut chunk = vec![0; usize::from(*len) * 300];
        let _ = decoder.decode(codec, *number, rest, &mut chunk);
        let _ = decoder.decode(codec, width, rest, &mut chunk);
        let mut encoder = Encoder::new(codec, width);
        if let Some(stored) = encoder.encode(rest) {
            assert!(stored.len() < rest.len());
            let mut back = vec![0; rest.len()];
            decoder.decode(codec, width, stored, &mut back).expect("it was encoded");
            assert_eq!(back, rest);
        }
    }
}

/// With a right checksum at the end.
fn resealed(bytes: &[u8]) -> Vec<u8> {
    let body = &bytes[..bytes.len().saturating_sub(8)];
    let sum = tranship_cache::arena::checksum(body);
    [body, &sum.to_le_bytes()].concat()
}

pub(crate) fn pack_seeds() -> Vec<Vec<u8>> {
    let Name { identity, key } = name(3);
    let link = Link { key, parent: Some(Key::from_bytes([9; 16])), position: 7 };
    let record = Record { identity, link, len: 100_000, checksum: 5, expires: Some(Wall(5)) };
    let chunks = vec![
        Chunk { stored: 40_000, raw: false, checksum: 1 },
        Chunk { stored: 34_464, raw: true, checksum: 2 },
    ];
    let head = Head { record, codec: Codec::Zstd, width: 2, chunks }.encode();
    let footer = Footer {
        node: "node-1".to_owned(),
        session: 1,
        sequence: 2,
        created: Wall(3),
        entries: vec![listed(1), listed(2)],
    }
    .encode();
    let end = [vec![0; 300_000], footer.clone(), Trailer::of(&footer).encode()].concat();
    vec![head, footer, end[299_000..].to_vec()]
}

pub(crate) fn manifest_seeds() -> Vec<Vec<u8>> {
    let listing = |number: u8| Listing {
        pack: PackId::from_bytes([number; 32]),
        size: 1 << 20,
        created: Wall(4),
        entries: (0..number).map(listed).collect(),
    };
    let manifest =
        |packs| Manifest { node: "n".to_owned(), session: 5, sequence: 6, level: 1, packs };
    vec![manifest(vec![]).encode(), manifest(vec![listing(2), listing(0)]).encode()]
}

pub(crate) fn codec_seeds() -> Vec<Vec<u8>> {
    let floats: Vec<u8> = (0..3000_u32).flat_map(|n| [(n * 37) as u8, 0x3f]).collect();
    let stored = |codec| {
        let mut encoder = Encoder::new(codec, 2);
        let stored = encoder.encode(&floats).expect("it becomes shorter").to_vec();
        [vec![2, 1, 20], stored].concat()
    };
    vec![stored(Codec::Lz4), stored(Codec::Zstd), [vec![1, 0, 9], floats.clone()].concat()]
}

fn name(number: u8) -> Name {
    Name { identity: IdentityId::from_bytes([number; 16]), key: Key::from_bytes([1; 16]) }
}

fn listed(number: u8) -> Listed {
    let (len, checksum, expires) = (100_000, 7, Some(Wall(5)));
    let (offset, stored, codec) = (16, head_bytes(len) + 90_000, Codec::Lz4);
    Listed { name: name(number), len, checksum, expires, offset, stored, codec }
}
