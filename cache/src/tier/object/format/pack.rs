//! A pack: many blocks in one object, with what they are at its end.

use super::{Error, Listed, NODE_BYTES_MAX, VERSION, is_node};
use crate::time::Wall;
use crate::wire::{Malformed, Reader, Writer};

/// What a pack begins with.
pub const PACK_START: &[u8; 16] = b"TSHPACK1\0\0\0\0\0\0\0\0";
/// What it ends with.
const PACK_END: &[u8; 8] = b"TSHPEND1";

/// No pack has more bytes: blocks begin in its first GiB, none takes much more than 4 GiB, and the footer
/// takes less than the blocks.
pub(super) const PACK_BYTES_MAX: u64 = 16 << 30;

/// Bytes of the trailer.
pub const TRAILER_BYTES: u64 = 32;

/// The last bytes of a pack, which say where its footer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Bytes of the footer, right before the trailer.
    pub footer_bytes: u64,
    /// CRC-64/NVMe of the footer.
    pub checksum: u64,
}

impl Trailer {
    /// Of this footer.
    #[must_use]
    pub fn of(footer: &[u8]) -> Self {
        Self { footer_bytes: footer.len() as u64, checksum: crate::arena::checksum(footer) }
    }

    /// Its bytes: [`TRAILER_BYTES`] of them.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Writer::with_capacity(TRAILER_BYTES as usize);
        to.u64(self.footer_bytes);
        to.u64(self.checksum);
        to.u64(0);
        to.raw(PACK_END);
        to.finish()
    }

    /// Reads one off the end of a pack, of which `tail` are the last bytes.
    ///
    /// # Errors
    /// When it does not end as a pack does.
    pub fn decode(tail: &[u8]) -> Result<Self, Error> {
        let at = tail.len().checked_sub(TRAILER_BYTES as usize).ok_or(Error::Magic("a pack"))?;
        let bytes = &tail[at..];
        if !bytes.ends_with(PACK_END) {
            return Err(Error::Magic("a pack"));
        }
        let mut from = Reader::new(bytes);
        Ok(Self { footer_bytes: from.u64("footer bytes")?, checksum: from.u64("checksum")? })
    }
}

/// Who made a pack, and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    /// The node that made it.
    pub node: String,
    /// The run of that node's daemon.
    pub session: u64,
    /// Which pack of that run it is.
    pub sequence: u64,
    /// When, by that node's clock.
    pub created: Wall,
    /// Its blocks, in the order of their offsets.
    pub entries: Vec<Listed>,
}

impl Footer {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Writer::with_capacity(128 + self.entries.len() * super::ENTRY_BYTES);
        to.u16(VERSION);
        to.u16(0);
        to.bytes(self.node.as_bytes());
        to.u64(self.session);
        to.u64(self.sequence);
        to.u64(self.created.0);
        to.count(self.entries.len());
        for entry in &self.entries {
            entry.write(&mut to);
        }
        to.finish()
    }

    /// Reads the footer that `trailer` speaks of, in front of which a pack has `at` bytes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8], trailer: Trailer, at: u64) -> Result<Self, Error> {
        if Trailer::of(bytes) != trailer {
            return Err(Error::Checksum);
        }
        let mut from = Reader::new(bytes);
        let version = from.u16("version")?;
        if version != VERSION {
            return Err(Error::Version(version));
        }
        from.u16("padding")?;
        let node = node(&mut from)?;
        let (session, sequence) = (from.u64("session")?, from.u64("sequence")?);
        let created = Wall(from.u64("creation")?);
        let entries = Listed::read_all(&mut from, at)?;
        from.end()?;
        Ok(Self { node, session, sequence, created, entries })
    }
}

pub(super) fn node(from: &mut Reader<'_>) -> Result<String, Malformed> {
    let bytes = from.bytes("node", NODE_BYTES_MAX)?;
    let name = std::str::from_utf8(bytes).ok().filter(|name| is_node(name));
    name.map(str::to_owned)
        .ok_or_else(|| Malformed::value("node", bytes.escape_ascii(), "letters, digits and -_."))
}
