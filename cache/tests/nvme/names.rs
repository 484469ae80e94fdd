//! The blocks of a schedule, and what may be said of each.

use tranship_cache::identity::IdentityId;
use tranship_cache::key::Key;
use tranship_cache::lineage::Link;
use tranship_cache::tier::cold::{Name, Record};
use tranship_cache::tier::nvme::testing;
use tranship_cache::time::Wall;
use tranship_transport::checksum::crc64;

/// One content that was stored under a name.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) record: Record,
    pub(crate) bytes: Vec<u8>,
    /// Its store succeeded.
    pub(crate) stored: bool,
}

/// A name, and what the tier may know of it.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) name: Name,
    link: Link,
    number: u64,
    pub(crate) versions: Vec<Version>,
    /// Versions before this one must not be seen any more.
    pub(crate) floor: usize,
    /// Versions before this one must not be seen even after a crash.
    pub(crate) durable: usize,
    /// The index had it when it was last looked at.
    pub(crate) present: bool,
    /// It must be there after a crash.
    pub(crate) must: bool,
    /// Some version of it has an end.
    pub(crate) mortal: bool,
    /// Removals that were taken.
    pub(crate) removed: u64,
}

impl Block {
    pub(crate) fn new(number: u64, identity: u8, parent: Option<u64>) -> Self {
        let key = |number: u64| {
            let mut bytes = [0x5A; 16];
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            Key::from_bytes(bytes)
        };
        let link = Link { key: key(number), parent: parent.map(key), position: number as u32 };
        let name = Name { identity: IdentityId::from_bytes([identity; 16]), key: key(number) };
        Self {
            name,
            link,
            number,
            versions: Vec::new(),
            floor: 0,
            durable: 0,
            present: false,
            must: false,
            mortal: false,
            removed: 0,
        }
    }

    /// Another version of it.
    pub(crate) fn version(&mut self, seed: u64, len: usize, expires: Option<Wall>) -> usize {
        let bytes = testing::bytes(seed ^ self.number.wrapping_mul(0x9E37_79B9_7F4A_7C15), len);
        let checksum = crc64(&bytes);
        let (identity, link) = (self.name.identity, self.link);
        let record = Record { identity, link, len: len as u64, checksum, expires };
        self.mortal |= expires.is_some();
        self.versions.push(Version { record, bytes, stored: false });
        self.versions.len() - 1
    }

    /// The latest version with this checksum.
    pub(crate) fn by_checksum(&self, checksum: u64, len: u64) -> Option<usize> {
        let same =
            |version: &Version| version.record.checksum == checksum && version.record.len == len;
        self.versions.iter().rposition(same)
    }
}
