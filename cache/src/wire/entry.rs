//! What replies say of single blocks: one entry a block.

use super::WHY_BYTES_MAX;
use super::codec::{Malformed, Reader, Writer};
use crate::key::{KEY_BYTES, Key};

/// "No retry" on the wire.
const NEVER: u64 = u64::MAX;

/// One entry of a list in a reply.
pub(super) trait Entry: Sized {
    /// Writes it.
    fn put(&self, to: &mut Writer);

    /// Reads it.
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed>;
}

/// The answer to one item of a reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// Fill it: so many bytes as asked for, from this offset in the arena.
    Granted {
        /// Names the reservation.
        reservation: u64,
        /// Where in the arena, bytes.
        offset: u64,
    },
    /// The block is resident.
    Exists,
    /// Somebody else is filling it.
    InFlight,
    /// Not taken.
    Refused {
        /// When to try again, milliseconds; none when trying again cannot help.
        retry_ms: Option<u64>,
        /// Why, and what to do.
        why: String,
    },
}

impl Entry for Reserved {
    fn put(&self, to: &mut Writer) {
        match self {
            Self::Granted { reservation, offset } => {
                to.u8(0);
                to.u64(*reservation);
                to.u64(*offset);
            }
            Self::Exists => to.u8(1),
            Self::InFlight => to.u8(2),
            Self::Refused { retry_ms, why } => {
                to.u8(3);
                to.u64(retry_ms.unwrap_or(NEVER));
                to.text_within(why, WHY_BYTES_MAX);
            }
        }
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match from.u8("status")? {
            0 => {
                Self::Granted { reservation: from.u64("reservation")?, offset: from.u64("offset")? }
            }
            1 => Self::Exists,
            2 => Self::InFlight,
            3 => {
                let retry_ms = Some(from.u64("retry")?).filter(|retry| *retry != NEVER);
                Self::Refused { retry_ms, why: from.text("why")? }
            }
            other => return Err(Malformed::value("status", other, "0 to 3")),
        })
    }
}

/// The answer to one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committed {
    /// Readable now.
    Stored,
    /// The bytes in the arena have another checksum; the reservation stands.
    Mismatch {
        /// Checksum of the bytes found.
        found: u64,
    },
    /// Nothing was stored: the reservation is not the session's, or was taken back.
    Refused {
        /// Why.
        why: String,
    },
}

impl Entry for Committed {
    fn put(&self, to: &mut Writer) {
        match self {
            Self::Stored => to.u8(0),
            Self::Mismatch { found } => {
                to.u8(1);
                to.u64(*found);
            }
            Self::Refused { why } => {
                to.u8(2);
                to.text_within(why, WHY_BYTES_MAX);
            }
        }
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match from.u8("status")? {
            0 => Self::Stored,
            1 => Self::Mismatch { found: from.u64("found")? },
            2 => Self::Refused { why: from.text("why")? },
            other => return Err(Malformed::value("status", other, "0 to 2")),
        })
    }
}

/// What a lease or a fetch says of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leased {
    /// Readable, and in place until the lease ends.
    Ready {
        /// Where in the arena, bytes.
        offset: u64,
        /// How long, bytes.
        len: u64,
        /// CRC-64/NVMe of the bytes.
        checksum: u64,
        /// Which filling of the block.
        generation: u64,
    },
    /// Still being filled when the wait ended.
    Late,
    /// Not there.
    Gone,
    /// Its bytes did not match their checksum; the block was dropped.
    Corrupt,
}

impl Entry for Leased {
    fn put(&self, to: &mut Writer) {
        match *self {
            Self::Ready { offset, len, checksum, generation } => {
                to.u8(0);
                to.u64(offset);
                to.u64(len);
                to.u64(checksum);
                to.u64(generation);
            }
            Self::Late => to.u8(1),
            Self::Gone => to.u8(2),
            Self::Corrupt => to.u8(3),
        }
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match from.u8("status")? {
            0 => Self::Ready {
                offset: from.u64("offset")?,
                len: from.u64("length")?,
                checksum: from.u64("checksum")?,
                generation: from.u64("generation")?,
            },
            1 => Self::Late,
            2 => Self::Gone,
            3 => Self::Corrupt,
            other => return Err(Malformed::value("status", other, "0 to 3")),
        })
    }
}

/// What a fetch says of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// All its bytes were written and counted.
    Written {
        /// How long, bytes.
        len: u64,
        /// CRC-64/NVMe of the bytes: compare with what arrived.
        checksum: u64,
        /// Which filling of the block.
        generation: u64,
    },
    /// Still being filled when the wait ended.
    Late,
    /// Not there.
    Gone,
    /// The write did not arrive; the reason's code
    /// ([`Reason`](tranship_transport::Reason) as a number).
    Failed(u8),
}

impl Entry for Fetched {
    fn put(&self, to: &mut Writer) {
        match *self {
            Self::Written { len, checksum, generation } => {
                to.u8(0);
                to.u64(len);
                to.u64(checksum);
                to.u64(generation);
            }
            Self::Late => to.u8(1),
            Self::Gone => to.u8(2),
            Self::Failed(reason) => {
                to.u8(3);
                to.u8(reason);
            }
        }
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match from.u8("status")? {
            0 => Self::Written {
                len: from.u64("length")?,
                checksum: from.u64("checksum")?,
                generation: from.u64("generation")?,
            },
            1 => Self::Late,
            2 => Self::Gone,
            3 => Self::Failed(from.u8("reason")?),
            other => return Err(Malformed::value("status", other, "0 to 3")),
        })
    }
}

/// Something that happened to a block of the tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Numbers that the subscriber missed, both ends included.
    Gap {
        /// First.
        from: u64,
        /// Last.
        to: u64,
    },
    /// A block became readable.
    Stored {
        /// Number of the event.
        sequence: u64,
        /// The identity.
        identity: [u8; KEY_BYTES],
        /// The block.
        key: Key,
        /// The block before it.
        parent: Option<Key>,
        /// Blocks before it in its sequence.
        position: u32,
        /// How long, bytes.
        len: u64,
        /// The tier's number.
        tier: u8,
    },
    /// A block left a tier.
    Removed {
        /// Number of the event.
        sequence: u64,
        /// The identity.
        identity: [u8; KEY_BYTES],
        /// The block.
        key: Key,
        /// The tier's number.
        tier: u8,
    },
    /// All blocks of the identity are gone.
    Cleared {
        /// Number of the event.
        sequence: u64,
        /// The identity.
        identity: [u8; KEY_BYTES],
    },
}

impl Entry for Event {
    fn put(&self, to: &mut Writer) {
        match self {
            Self::Gap { from, to: last } => {
                to.u8(0);
                to.u64(*from);
                to.u64(*last);
            }
            Self::Stored { sequence, identity, key, parent, position, len, tier } => {
                to.u8(1);
                to.u64(*sequence);
                to.raw(identity);
                to.raw(key.as_bytes());
                to.u8(u8::from(parent.is_some()));
                to.raw(parent.map_or([0; KEY_BYTES], |parent| *parent.as_bytes()).as_slice());
                to.u32(*position);
                to.u64(*len);
                to.u8(*tier);
            }
            Self::Removed { sequence, identity, key, tier } => {
                to.u8(2);
                to.u64(*sequence);
                to.raw(identity);
                to.raw(key.as_bytes());
                to.u8(*tier);
            }
            Self::Cleared { sequence, identity } => {
                to.u8(3);
                to.u64(*sequence);
                to.raw(identity);
            }
        }
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let identity = |from: &mut Reader<'_>| from.key("identity").map(|key| *key.as_bytes());
        Ok(match from.u8("event")? {
            0 => Self::Gap { from: from.u64("from")?, to: from.u64("to")? },
            1 => {
                let sequence = from.u64("sequence")?;
                let identity = identity(from)?;
                let key = from.key("key")?;
                let has_parent = from.u8("has parent")? != 0;
                let parent = Some(from.key("parent")?).filter(|_| has_parent);
                let (position, len) = (from.u32("position")?, from.u64("length")?);
                let tier = from.u8("tier")?;
                Self::Stored { sequence, identity, key, parent, position, len, tier }
            }
            2 => Self::Removed {
                sequence: from.u64("sequence")?,
                identity: identity(from)?,
                key: from.key("key")?,
                tier: from.u8("tier")?,
            },
            3 => Self::Cleared { sequence: from.u64("sequence")?, identity: identity(from)? },
            other => return Err(Malformed::value("event", other, "0 to 3")),
        })
    }
}
