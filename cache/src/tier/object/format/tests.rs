use proptest::prelude::*;

use super::super::super::codec::Codec;
use super::super::super::cold::{Name, Record};
use super::super::paths::PackId;
use super::*;
use crate::identity::IdentityId;
use crate::key::Key;
use crate::lineage::Link;
use crate::time::Wall;

fn name(number: u8) -> Name {
    Name { identity: IdentityId::from_bytes([number; 16]), key: Key::from_bytes([number + 1; 16]) }
}

fn listed(number: u8) -> Listed {
    Listed {
        name: name(number),
        len: 100_000,
        checksum: 0x1122_3344_5566_7788,
        expires: number.is_multiple_of(2).then_some(Wall(1_800_000_000_000)),
        offset: 16,
        stored: head_bytes(100_000) + 90_000,
        codec: Codec::Zstd,
    }
}

fn head() -> Head {
    let Name { identity, key } = name(3);
    let link = Link { key, parent: Some(Key::from_bytes([9; 16])), position: 7 };
    let (len, checksum, expires) = (100_000, 0x1122_3344_5566_7788, Some(Wall(5)));
    Head {
        record: Record { identity, link, len, checksum, expires },
        codec: Codec::Zstd,
        width: 2,
        chunks: vec![
            Chunk { stored: 40_000, raw: false, checksum: 1 },
            Chunk { stored: 34_464, raw: true, checksum: 2 },
        ],
    }
}

fn footer() -> Footer {
    Footer {
        node: "node-1".to_owned(),
        session: 0x0102_0304_0506_0708,
        sequence: 9,
        created: Wall(1_790_000_000_000),
        entries: vec![listed(1), listed(2)],
    }
}

fn manifest() -> Manifest {
    let listing = |number: u8| Listing {
        pack: PackId::from_bytes([number; 32]),
        size: 1 << 20,
        created: Wall(1_790_000_000_000),
        entries: (0..number).map(listed).collect(),
    };
    let (node, session, sequence) = ("node-1".to_owned(), 5, 77);
    Manifest { node, session, sequence, level: 1, packs: vec![listing(2), listing(0), listing(1)] }
}

/// What is in a bucket is read by every later version: these bytes never change.
#[test]
fn bytes_in_buckets_never_change() {
    let digest = |bytes: &[u8]| blake3::hash(bytes).to_hex()[..16].to_owned();
    let bytes = footer().encode();
    let golden = include_bytes!("golden/pack-end");
    assert_eq!([bytes.clone(), Trailer::of(&bytes).encode()].concat(), golden);
    assert_eq!(head().encode(), include_bytes!("golden/head"));
    assert_eq!(manifest().encode(), include_bytes!("golden/manifest"));
    assert_eq!(digest(golden), GOLDEN[0]);
    assert_eq!(digest(include_bytes!("golden/head")), GOLDEN[1]);
    assert_eq!(digest(include_bytes!("golden/manifest")), GOLDEN[2]);
}

/// Hashes of the files, so that nobody writes them again by mistake.
const GOLDEN: [&str; 3] = ["5cd707df60a0c757", "b17fe3eebd8ae714", "9ba6af1f647e4fce"];

#[test]
fn what_is_written_is_read() {
    assert_eq!(Head::decode(&head().encode()), Ok(head()));
    assert_eq!(head().encode().len() as u64, head_bytes(100_000));
    assert_eq!(Manifest::decode(&manifest().encode()), Ok(manifest()));
    let bytes = footer().encode();
    let trailer = Trailer::decode(&Trailer::of(&bytes).encode()).unwrap();
    assert_eq!(Footer::decode(&bytes, trailer, 1 << 20), Ok(footer()));
    let outside = Footer::decode(&bytes, trailer, 1000);
    assert!(matches!(outside, Err(Error::Malformed(_))), "{outside:?}");
}

#[test]
fn other_versions_are_named() {
    let mut bytes = head().encode();
    bytes[4] = 9;
    assert_eq!(Head::decode(&bytes), Err(Error::Version(9)));
    let mut bytes = manifest().encode();
    bytes.truncate(bytes.len() - 8);
    bytes[8] = 9;
    let sum = crate::arena::checksum(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    assert_eq!(Manifest::decode(&bytes), Err(Error::Version(9)));
}

/// A head that is right but for one field, with a checksum that is right too.
#[test]
fn heads_that_cannot_be_are_refused() {
    for (at, byte, field) in
        [(5, 7, "codec"), (6, 3, "width"), (84, 9, "chunks"), (90, 0xff, "chunk")]
    {
        let mut bytes = head().encode();
        bytes[at] = byte;
        bytes.truncate(bytes.len() - 8);
        let sum = crate::arena::checksum(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        let error = Head::decode(&bytes).unwrap_err().to_string();
        assert!(error.contains(&format!("{field:?}")), "{error}");
    }
}

/// Entries that are right but for the bytes they say they take, and packs that are larger than any.
#[test]
fn sizes_that_cannot_be_are_refused() {
    let listing = |size: u64, entries: Vec<Listed>| {
        let listing =
            Listing { pack: PackId::from_bytes([1; 32]), size, created: Wall(1), entries };
        Manifest { packs: vec![listing], ..manifest() }
    };
    let stored = |stored: u64, codec| Listed { stored, codec, ..listed(1) };
    let (head, most) = (head_bytes(100_000), head_bytes(100_000) + 100_000);
    let largest = 16 << 30;
    for (entry, right) in [
        (stored(head, Codec::Zstd), true),
        (stored(most, Codec::None), true),
        (stored(head - 1, Codec::Zstd), false),
        (stored(0, Codec::Zstd), false),
        (stored(most + 1, Codec::Zstd), false),
        (stored(most - 1, Codec::None), false),
        (stored(u64::MAX, Codec::Zstd), false),
        (stored(1 << 33, Codec::Lz4), false),
    ] {
        let read = Manifest::decode(&listing(largest, vec![entry]).encode());
        assert_eq!(read.is_ok(), right, "{entry:?}: {read:?}");
    }
    for (size, right) in [(largest, true), (largest + 1, false), (u64::MAX, false)] {
        assert_eq!(Manifest::decode(&listing(size, Vec::new()).encode()).is_ok(), right, "{size}");
    }
}

#[test]
fn names_of_nodes_are_parts_of_paths() {
    for good in ["a", "host-1.example_com", &"x".repeat(64)] {
        assert!(is_node(good), "{good}");
    }
    for bad in ["", ".", "..", ".hidden", "a/b", "a b", "ä", &"x".repeat(65)] {
        assert!(!is_node(bad), "{bad}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, at: u64) {
        let _ = Head::decode(&bytes);
        let _ = Manifest::decode(&bytes);
        let _ = Trailer::decode(&bytes);
        let _ = Footer::decode(&bytes, Trailer::of(&bytes), at);
    }

    #[test]
    fn one_bit_is_noticed(at: prop::sample::Index, bit in 0_u8..8, cut: prop::sample::Index) {
        let spoil = |mut bytes: Vec<u8>| {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            bytes
        };
        prop_assert!(Head::decode(&spoil(head().encode())).is_err());
        prop_assert!(Manifest::decode(&spoil(manifest().encode())).is_err());
        let footer = footer().encode();
        let trailer = Trailer::of(&footer);
        prop_assert!(Footer::decode(&spoil(footer.clone()), trailer, 1 << 20).is_err());
        let mut short = manifest().encode();
        short.truncate(cut.index(short.len()));
        prop_assert!(Manifest::decode(&short).is_err());
    }

    #[test]
    fn a_footer_with_a_right_checksum_is_still_not_believed(
        at: prop::sample::Index, byte: u8, pack in 0_u64..300_000,
    ) {
        let mut bytes = footer().encode();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(footer) = Footer::decode(&bytes, Trailer::of(&bytes), pack) {
            prop_assert!(footer.entries.iter().all(|entry| entry.end() <= pack));
        }
    }
}
