//! Listing blocks, page by page.

use super::codec::{Malformed, Reader, Writer};
use super::entry::Entry;
use crate::identity::IdentityId;
use crate::key::{KEY_BYTES, Key};

/// "No end of its time to live" on the wire.
const NEVER: u64 = u64::MAX;

/// Where a page starts: among the blocks of which identity, and how far in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Identities before this one have been listed.
    pub identity: IdentityId,
    /// Where to go on within it; the daemon's own measure.
    pub from: u64,
}

impl Place {
    /// Before all blocks.
    pub const START: Self = Self { identity: IdentityId::from_bytes([0; KEY_BYTES]), from: 0 };

    pub(super) fn put(&self, to: &mut Writer) {
        to.raw(self.identity.as_bytes());
        to.u64(self.from);
    }

    pub(super) fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let identity = IdentityId::from_bytes(*from.key("identity")?.as_bytes());
        Ok(Self { identity, from: from.u64("from")? })
    }
}

/// A page of blocks, which may be empty although more follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Where the next one starts; none after the last.
    pub next: Option<Place>,
    /// The blocks, in no particular order.
    pub blocks: Vec<Listed>,
}

/// One block of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The identity it is of.
    pub identity: IdentityId,
    /// The block.
    pub key: Key,
    /// The block before it.
    pub parent: Option<Key>,
    /// Blocks before it in its sequence.
    pub position: u32,
    /// Bytes.
    pub len: u64,
    /// CRC-64/NVMe of the bytes.
    pub checksum: u64,
    /// Since its commit, milliseconds.
    pub age_ms: u64,
    /// Until its time to live ends, milliseconds.
    pub expires_in_ms: Option<u64>,
    /// Times it was leased.
    pub hits: u64,
    /// Leases on it now.
    pub leases: u32,
    /// It is pinned.
    pub pinned: bool,
}

/// Bytes of a [`Listed`].
pub(super) const LISTED_BYTES: usize = 3 * KEY_BYTES + 1 + 4 + 5 * 8 + 4 + 1;

impl Entry for Listed {
    fn put(&self, to: &mut Writer) {
        to.raw(self.identity.as_bytes());
        to.raw(self.key.as_bytes());
        to.u8(u8::from(self.parent.is_some()));
        to.raw(self.parent.map_or([0; KEY_BYTES], |parent| *parent.as_bytes()).as_slice());
        to.u32(self.position);
        for number in [self.len, self.checksum, self.age_ms] {
            to.u64(number);
        }
        to.u64(self.expires_in_ms.unwrap_or(NEVER));
        to.u64(self.hits);
        to.u32(self.leases);
        to.u8(u8::from(self.pinned));
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let identity = IdentityId::from_bytes(*from.key("identity")?.as_bytes());
        let key = from.key("key")?;
        let has_parent = from.u8("has parent")? != 0;
        Ok(Self {
            identity,
            key,
            parent: Some(from.key("parent")?).filter(|_| has_parent),
            position: from.u32("position")?,
            len: from.u64("length")?,
            checksum: from.u64("checksum")?,
            age_ms: from.u64("age")?,
            expires_in_ms: Some(from.u64("expiry")?).filter(|expiry| *expiry != NEVER),
            hits: from.u64("hits")?,
            leases: from.u32("leases")?,
            pinned: from.u8("pinned")? != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_as_long_as_said() {
        let id = IdentityId::from_bytes([3; KEY_BYTES]);
        let listed = Listed {
            identity: id,
            key: Key::from_bytes([4; KEY_BYTES]),
            parent: Some(Key::from_bytes([5; KEY_BYTES])),
            position: 6,
            len: 7,
            checksum: 8,
            age_ms: 9,
            expires_in_ms: None,
            hits: 10,
            leases: 11,
            pinned: true,
        };
        let mut to = Writer::default();
        listed.put(&mut to);
        let bytes = to.finish();
        assert_eq!(bytes.len(), LISTED_BYTES);
        assert_eq!(Listed::take(&mut Reader::new(&bytes)).unwrap(), listed);
    }
}
