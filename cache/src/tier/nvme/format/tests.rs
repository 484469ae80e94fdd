//! Every decoder takes any bytes: it never panics, and what it understands it would say the same way.

use proptest::prelude::*;
use tranship_transport::checksum::crc64;

use super::frame::{self, Block, Head};
use super::log::{NOTES_MAX, Note, Page};
use super::record::{CODEC_NONE, pages};
use super::summary::{self, Trailer};
use super::superblock::{Seen, Superblock};
use super::{Entry, PAGE, Uuid, sums};
use crate::identity::IdentityId;
use crate::key::Key;
use crate::lineage::Link;
use crate::tier::cold::{Mark, Record};
use crate::time::Wall;

const UUID: Uuid = Uuid([0xAB; 16]);

prop_compose! {
    fn record()(
        key: [u8; 16],
        identity: [u8; 16],
        parent: Option<[u8; 16]>,
        position: u32,
        len in 0..300_000_u64,
        checksum: u64,
        expires: Option<u64>,
    ) -> Record {
        let parent = parent.map(Key::from_bytes);
        let link = Link { key: Key::from_bytes(key), parent, position };
        let identity = IdentityId::from_bytes(identity);
        Record { identity, link, len, checksum, expires: expires.map(Wall) }
    }
}

/// Blocks one after the other, from the page after a header of one page on.
fn blocks(records: Vec<Record>, frame: u32) -> (Vec<Block>, u32) {
    let mut page = frame + 1;
    let mut blocks = Vec::new();
    for (number, record) in records.into_iter().enumerate() {
        let stored = record.len as u32;
        let mark = Mark { hits: (number * 7 % 64) as u8, parent: number % 2 == 1 };
        let entry = Entry { record, mark, codec: CODEC_NONE, stored, page, frame };
        let sums = (0..sums::stored(record.len as usize)).map(|at| at as u64 * 31).collect();
        blocks.push(Block { entry, sums });
        page += pages(record.len);
    }
    (blocks, page - frame - 1)
}

prop_compose! {
    fn header()(
        records in prop::collection::vec(record(), 0..12),
        (segment, page) in any::<(u32, u8)>(),
        (seq, number, durable) in any::<(u64, u64, u64)>(),
        (chain, session, opened) in any::<(u64, u64, u64)>(),
    ) -> (Head, Vec<Block>) {
        let page = u32::from(page);
        let (blocks, payload_pages) = blocks(records, page);
        let opened = Wall(opened);
        let pages = 1;
        let head = Head {
            segment, seq, session, number, durable, chain, page, opened, pages, payload_pages,
        };
        (head, blocks)
    }
}

fn note() -> impl Strategy<Value = Note> {
    (0..4_u8, any::<u32>(), any::<u64>(), any::<u16>()).prop_map(|(kind, segment, word, page)| {
        match kind {
            0 => Note::Freed { segment, seq: word },
            1 => Note::Dead { segment, seq: word, page },
            2 => Note::Life { segment, seq: word },
            _ => Note::Map { segment, base: page, bits: word },
        }
    })
}

/// Puts the right checksum over whatever is there, so that decoders look further.
fn reseal(bytes: &mut [u8], at: usize) {
    if bytes.len() >= at + 8 {
        bytes[at..at + 8].fill(0);
        let sum = crc64(bytes);
        bytes[at..at + 8].copy_from_slice(&sum.to_le_bytes());
    }
}

proptest! {
    #[test]
    fn headers_come_back((head, blocks) in header()) {
        let (bytes, crc) = frame::encode(UUID, &head, &blocks);
        prop_assert_eq!(frame::peek(&bytes, UUID), Some(head));
        let header = frame::decode(&bytes, UUID).unwrap();
        prop_assert_eq!((header.head, header.blocks, header.crc), (head, blocks, crc));
        prop_assert!(frame::decode(&bytes, Uuid([0; 16])).is_err());
        prop_assert!(frame::decode(&bytes[..PAGE - 1], UUID).is_err());
    }

    #[test]
    fn a_flipped_bit_spoils_a_header((head, blocks) in header(), at in 0..PAGE, bit in 0..8) {
        let (mut bytes, _) = frame::encode(UUID, &head, &blocks);
        bytes[at] ^= 1_u8 << bit;
        prop_assert!(frame::decode(&bytes, UUID).is_err());
    }

    #[test]
    fn no_header_panics(
        (head, blocks) in header(),
        changes in prop::collection::vec((0..PAGE, any::<u8>()), 0..20),
        cut in 0..=PAGE,
    ) {
        let (mut bytes, _) = frame::encode(UUID, &head, &blocks);
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        reseal(&mut bytes, 8);
        let _ = frame::decode(&bytes, UUID);
        let _ = frame::decode(&bytes[..cut], UUID);
        let _ = frame::peek(&bytes[..cut], UUID);
    }

    #[test]
    fn summaries_come_back(
        records in prop::collection::vec(record(), 0..60),
        (segment, seq, last, opened) in any::<(u32, u64, u64, u64)>(),
    ) {
        let (blocks, payload) = blocks(records, 3);
        let entries: Vec<Entry> = blocks.into_iter().map(|block| block.entry).collect();
        let (pages, count) = (summary::pages(entries.len()), entries.len() as u32);
        let (end, opened) = (4 + payload, Wall(opened));
        let trailer = Trailer { segment, seq, last, opened, end, pages, count };
        let mut bytes = vec![0x33; PAGE];
        bytes.extend(summary::encode(UUID, &trailer, &entries));
        prop_assert_eq!(summary::peek(&bytes, UUID), Ok(trailer));
        prop_assert_eq!(summary::decode(&bytes, UUID), Ok((trailer, entries)));
        prop_assert!(summary::decode(&bytes[PAGE + 1..], UUID).is_err());
    }

    #[test]
    fn no_summary_panics(
        records in prop::collection::vec(record(), 0..30),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let (blocks, payload) = blocks(records, 3);
        let entries: Vec<Entry> = blocks.into_iter().map(|block| block.entry).collect();
        let (pages, count) = (summary::pages(entries.len()), entries.len() as u32);
        let (end, opened) = (4 + payload, Wall(1));
        let trailer = Trailer { segment: 1, seq: 2, last: 3, opened, end, pages, count };
        let mut bytes = summary::encode(UUID, &trailer, &entries);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let at = bytes.len() - 80;
        reseal(&mut bytes, at);
        let _ = summary::decode(&bytes, UUID);
        let cut = cut.index(bytes.len());
        let _ = summary::decode(&bytes[cut..], UUID);
        let _ = summary::decode(&bytes[..cut], UUID);
    }

    #[test]
    fn pages_of_the_log_come_back(
        notes in prop::collection::vec(note(), 0..=NOTES_MAX),
        (epoch, session, index, chain, complete) in any::<(u64, u64, u32, u64, bool)>(),
    ) {
        let page = Page { epoch, session, index, chain, complete, notes };
        let (bytes, crc) = page.encode(UUID);
        prop_assert_eq!(bytes.len(), PAGE);
        prop_assert_eq!(Page::decode(&bytes, UUID), Ok((page, crc)));
        prop_assert!(Page::decode(&bytes, Uuid([0; 16])).is_err());
    }

    #[test]
    fn no_page_of_the_log_panics(
        notes in prop::collection::vec(note(), 0..20),
        changes in prop::collection::vec((0..PAGE, any::<u8>()), 0..20),
        cut in 0..=PAGE,
    ) {
        let page = Page { epoch: 1, session: 2, index: 3, chain: 4, complete: true, notes };
        let (mut bytes, _) = page.encode(UUID);
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        reseal(&mut bytes, 8);
        let _ = Page::decode(&bytes, UUID);
        let _ = Page::decode(&bytes[..cut], UUID);
    }

    #[test]
    fn superblocks_come_back(uuid: [u8; 16], created: u64, bytes: u64, segment_bytes: u64) {
        let superblock = Superblock { uuid: Uuid(uuid), created: Wall(created), bytes, segment_bytes };
        let page = superblock.encode();
        prop_assert_eq!(Superblock::decode(&page), Seen::Valid(superblock));
    }

    #[test]
    fn no_superblock_panics(bytes in prop::collection::vec(any::<u8>(), 0..PAGE), cut in 0..PAGE) {
        let _ = Superblock::decode(&bytes);
        let superblock =
            Superblock { uuid: UUID, created: Wall(1), bytes: 1 << 20, segment_bytes: 1 << 16 };
        let mut page = superblock.encode();
        let _ = Superblock::decode(&page[..cut]);
        for (at, byte) in page.iter_mut().zip(bytes) {
            *at = byte;
        }
        prop_assert!(!matches!(Superblock::decode(&page), Seen::Valid(_)) || page == superblock.encode());
    }
}

#[test]
fn what_a_superblock_page_may_be() {
    let superblock =
        Superblock { uuid: UUID, created: Wall(1), bytes: 1 << 20, segment_bytes: 1 << 16 };
    let mut page = superblock.encode();
    assert_eq!(Superblock::decode(&[0; PAGE]), Seen::Empty);
    assert_eq!(Superblock::decode(&[1; PAGE]), Seen::Foreign);
    page[40] ^= 1;
    assert_eq!(Superblock::decode(&page), Seen::Damaged);
    page[8] = 2;
    assert_eq!(Superblock::decode(&page), Seen::Version(2));
}
