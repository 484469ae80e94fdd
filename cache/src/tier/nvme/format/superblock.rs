//! The superblock: whose store this is, and how it is divided.

use super::{FORMAT_VERSION, PAGE, Uuid, is_zero, seal, sealed};
use crate::tier::nvme::disk::PAGE_BYTES;
use crate::time::Wall;
use crate::wire::{Reader, Writer};

/// "TRANSLOG", read as a little-endian word.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"TRANSLOG");

/// Where the CRC-64 is. All fields lie in the page's first sector, which a device writes whole.
const CRC_AT: usize = 504;
const SECTOR: usize = 512;

/// What the first page of a store says, and a second one again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) uuid: Uuid,
    pub(crate) created: Wall,
    /// Bytes of the device when the store was made; what was added later is not used.
    pub(crate) bytes: u64,
    pub(crate) segment_bytes: u64,
}

/// What a page that should be a superblock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// All zeroes.
    Empty,
    /// Nothing of ours.
    Foreign,
    /// Of a version that this build does not know.
    Version(u16),
    /// Once ours; its checksum is wrong.
    Damaged,
    /// A superblock.
    Valid(Superblock),
}

impl Superblock {
    pub(crate) fn encode(&self) -> [u8; PAGE] {
        let mut to = Writer::with_capacity(PAGE);
        to.u64(MAGIC);
        to.u16(FORMAT_VERSION);
        to.u16(PAGE_BYTES as u16);
        to.u32(super::sums::CHUNK_BYTES as u32);
        to.raw(&self.uuid.0);
        to.u64(self.created.0);
        to.u64(self.bytes);
        to.u64(self.segment_bytes);
        let mut page = [0; PAGE];
        let fields = to.finish();
        page[..fields.len()].copy_from_slice(&fields);
        seal(&mut page[..SECTOR], CRC_AT);
        page
    }

    pub(crate) fn decode(page: &[u8]) -> Seen {
        if is_zero(page) {
            return Seen::Empty;
        }
        let mut from = Reader::new(page);
        if from.u64("magic") != Ok(MAGIC) {
            return Seen::Foreign;
        }
        // The version comes before the checksum, which a later one may keep elsewhere.
        match from.u16("version") {
            Ok(version) if version == FORMAT_VERSION => {}
            Ok(version) => return Seen::Version(version),
            Err(_) => return Seen::Damaged,
        }
        let sector = page.get(..SECTOR).and_then(|sector| sealed(sector, CRC_AT));
        let mut fields = || {
            let sizes = (from.u16("page size").ok()?, from.u32("chunk size").ok()?);
            let uuid = Uuid(*from.key("uuid").ok()?.as_bytes());
            let created = Wall(from.u64("created").ok()?);
            let (bytes, segment_bytes) = (from.u64("bytes").ok()?, from.u64("segment").ok()?);
            (sizes == (PAGE_BYTES as u16, super::sums::CHUNK_BYTES as u32)).then_some(Self {
                uuid,
                created,
                bytes,
                segment_bytes,
            })
        };
        match (sector, fields()) {
            (Some(_), Some(superblock)) => Seen::Valid(superblock),
            _ => Seen::Damaged,
        }
    }
}
