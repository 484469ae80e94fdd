//! Listing blocks, page by page.

use super::codec::{Malformed, Reader, Writer};
use super::entry::Entry;
use crate::identity::IdentityId;
use crate::key::KEY_BYTES;
use crate::store::{Listed, Place};
use crate::tier::{Tier, Tiers};

/// "No end of its time to live", and "no known age", on the wire.
const NEVER: u64 = u64::MAX;
/// "No known position" on the wire.
const UNKNOWN: u32 = u32::MAX;

impl Place {
    pub(super) fn put(&self, to: &mut Writer) {
        to.u8(self.tier as u8);
        to.raw(self.identity.as_bytes());
        to.raw(self.key.as_bytes());
        to.u64(self.from);
    }

    pub(super) fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            tier: tier(from)?,
            identity: identity(from)?,
            key: from.key("key")?,
            from: from.u64("from")?,
        })
    }
}

fn identity(from: &mut Reader<'_>) -> Result<IdentityId, Malformed> {
    Ok(IdentityId::from_bytes(*from.key("identity")?.as_bytes()))
}

fn tier(from: &mut Reader<'_>) -> Result<Tier, Malformed> {
    let number = from.u8("tier")?;
    let tier = Tier::ALL.get(usize::from(number)).copied();
    tier.ok_or_else(|| Malformed::value("tier", number, "0 dram, 1 nvme or 2 object"))
}

pub(super) fn tiers(from: &mut Reader<'_>) -> Result<Tiers, Malformed> {
    let bits = from.u8("tiers")?;
    let sum = "a sum of 1 dram, 2 nvme and 4 object";
    Tiers::from_bits(bits).ok_or_else(|| Malformed::value("tiers", bits, sum))
}

/// Bytes of a [`Listed`].
pub(super) const LISTED_BYTES: usize = 1 + 3 * KEY_BYTES + 1 + 4 + 5 * 8 + 4 + 1;

impl Entry for Listed {
    fn put(&self, to: &mut Writer) {
        to.u8(self.tier as u8);
        to.raw(self.identity.as_bytes());
        to.raw(self.key.as_bytes());
        to.u8(u8::from(self.parent.is_some()));
        to.raw(self.parent.map_or([0; KEY_BYTES], |parent| *parent.as_bytes()).as_slice());
        to.u32(self.position.unwrap_or(UNKNOWN));
        to.u64(self.len);
        to.u64(self.checksum);
        to.u64(self.age_ms.unwrap_or(NEVER));
        to.u64(self.expires_in_ms.unwrap_or(NEVER));
        to.u64(self.hits);
        to.u32(self.leases);
        to.u8(u8::from(self.pinned));
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let tier = tier(from)?;
        let identity = identity(from)?;
        let key = from.key("key")?;
        let has_parent = from.u8("has parent")? != 0;
        Ok(Self {
            identity,
            tier,
            key,
            parent: Some(from.key("parent")?).filter(|_| has_parent),
            position: Some(from.u32("position")?).filter(|position| *position != UNKNOWN),
            len: from.u64("length")?,
            checksum: from.u64("checksum")?,
            age_ms: Some(from.u64("age")?).filter(|age| *age != NEVER),
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
    use crate::key::Key;

    fn listed() -> Listed {
        Listed {
            identity: IdentityId::from_bytes([3; KEY_BYTES]),
            tier: Tier::Dram,
            key: Key::from_bytes([4; KEY_BYTES]),
            parent: Some(Key::from_bytes([5; KEY_BYTES])),
            position: Some(6),
            len: 7,
            checksum: 8,
            age_ms: Some(9),
            expires_in_ms: None,
            hits: 10,
            leases: 11,
            pinned: true,
        }
    }

    #[test]
    fn an_entry_is_as_long_as_said() {
        let below = Listed {
            tier: Tier::Object,
            parent: None,
            position: None,
            age_ms: None,
            expires_in_ms: Some(1),
            leases: 0,
            pinned: false,
            ..listed()
        };
        for listed in [listed(), below] {
            let mut to = Writer::default();
            listed.put(&mut to);
            let bytes = to.finish();
            assert_eq!(bytes.len(), LISTED_BYTES);
            assert_eq!(Listed::take(&mut Reader::new(&bytes)).unwrap(), listed);
        }
    }

    #[test]
    fn a_tier_that_is_none_is_refused() {
        let mut to = Writer::default();
        listed().put(&mut to);
        let mut bytes = to.finish();
        bytes[0] = Tier::ALL.len() as u8;
        let error = Listed::take(&mut Reader::new(&bytes)).unwrap_err();
        assert!(error.to_string().contains("tier"), "{error}");
        assert!(tiers(&mut Reader::new(&[8])).is_err());
        assert_eq!(tiers(&mut Reader::new(&[7])).unwrap(), Tiers::ALL);
    }
}
