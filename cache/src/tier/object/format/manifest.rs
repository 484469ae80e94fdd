//! A manifest: some packs of a node, with what is in them.

use super::super::paths::{PACK_ID_BYTES, PackId};
use super::pack::{PACK_BYTES_MAX, node};
use super::{ENTRY_BYTES, Error, Listed, VERSION, checked};
use crate::time::Wall;
use crate::wire::{Malformed, Reader, Writer};

const MAGIC: &[u8; 8] = b"TSHMANI1";
/// What a pack without entries takes.
const LISTING_BYTES: usize = PACK_ID_BYTES + 8 + 8 + 4;

/// One pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Its name.
    pub pack: PackId,
    /// Its bytes.
    pub size: u64,
    /// When it was made, by its node's clock.
    pub created: Wall,
    /// Its blocks that are to be found.
    pub entries: Vec<Listed>,
}

/// Some packs of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The node.
    pub node: String,
    /// The run of that node's daemon.
    pub session: u64,
    /// Later ones have larger numbers.
    pub sequence: u64,
    /// How often what it says has been merged.
    pub level: u8,
    /// The packs.
    pub packs: Vec<Listing>,
}

impl Manifest {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let entries: usize = self.packs.iter().map(|pack| pack.entries.len()).sum();
        let bytes = 128 + self.packs.len() * LISTING_BYTES + entries * ENTRY_BYTES;
        let mut to = Writer::with_capacity(bytes);
        to.raw(MAGIC);
        to.u16(VERSION);
        to.u8(self.level);
        to.u8(0);
        to.bytes(self.node.as_bytes());
        to.u64(self.session);
        to.u64(self.sequence);
        to.count(self.packs.len());
        for pack in &self.packs {
            to.raw(pack.pack.as_bytes());
            to.u64(pack.size);
            to.u64(pack.created.0);
            to.count(pack.entries.len());
            for entry in &pack.entries {
                entry.write(&mut to);
            }
        }
        let mut bytes = to.finish();
        let sum = crate::arena::checksum(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        if !bytes.starts_with(MAGIC) {
            return Err(Error::Magic("a manifest"));
        }
        let mut from = Reader::new(checked(bytes)?);
        from.raw(MAGIC.len(), "magic")?;
        let version = from.u16("version")?;
        if version != VERSION {
            return Err(Error::Version(version));
        }
        let level = from.u8("level")?;
        from.u8("padding")?;
        let node = node(&mut from)?;
        let (session, sequence) = (from.u64("session")?, from.u64("sequence")?);
        let count = from.count("packs", u32::MAX as usize, LISTING_BYTES)?;
        let mut packs = Vec::with_capacity(count);
        for _ in 0..count {
            let id = from.raw(PACK_ID_BYTES, "pack")?;
            let pack = PackId::from_bytes(id.try_into().expect("as many bytes as asked for"));
            let (size, created) = (from.u64("size")?, Wall(from.u64("creation")?));
            if size > PACK_BYTES_MAX {
                return Err(Malformed::value("size", size, "at most the largest pack").into());
            }
            let entries = Listed::read_all(&mut from, size)?;
            packs.push(Listing { pack, size, created, entries });
        }
        from.end()?;
        Ok(Self { node, session, sequence, level, packs })
    }
}
