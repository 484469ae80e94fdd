//! What can go wrong, and what to do about it.

use crate::identity::{IdentityError, IdentityId};
use crate::key::Key;
use crate::limits::{IDENTITY_STRING_BYTES_MAX, SCOPES_MAX, TENANTS_MAX};
use crate::time::Millis;

/// Why a tenant or an identity was not taken in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The tenant is open already.
    #[error("tenant {0:?} is open already; use it, or choose another name")]
    TenantExists(String),
    /// The tenant's name is empty or too long.
    #[error("a tenant's name has 1 to {IDENTITY_STRING_BYTES_MAX} bytes, this one {0}")]
    TenantName(usize),
    /// Too many tenants are open.
    #[error("{TENANTS_MAX} tenants are open, no more fit")]
    TooManyTenants,
    /// The watermarks are not `0 < low <= high <= 100`.
    #[error("watermarks must rise and lie within 1 to 100 %, not low {low} and high {high}")]
    Watermarks {
        /// Low mark, percent.
        low: u8,
        /// High mark, percent.
        high: u8,
    },
    /// The arena is memory of a device.
    #[error("an arena is host memory, and this is a device's; make one with HostMemory")]
    ArenaOnDevice,
    /// The identity breaks a limit.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The identity belongs to another tenant.
    #[error("the identity is of tenant {theirs:?}, but this is tenant {ours:?}")]
    ForeignIdentity {
        /// The tenant asked.
        ours: String,
        /// The tenant of the identity.
        theirs: String,
    },
    /// The tenant has too many identities.
    #[error("tenant {0:?} has {SCOPES_MAX} identities, no more fit; remove one that is out of use")]
    TooManyScopes(String),
}

/// Why a reservation was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// What cannot be evicted fills the tenant's quota.
    #[error(
        "{need} bytes are over quota: {held} of {quota} bytes are in use and cannot be evicted; \
         release leases, commit reservations, unpin, or raise the quota"
    )]
    OverQuota {
        /// Space needed, bytes.
        need: u64,
        /// Space used after eviction, bytes.
        held: u64,
        /// The quota, bytes.
        quota: u64,
    },
    /// The arena has no run of free space that is long enough, and eviction did not make one.
    #[error(
        "no room for {need} bytes: the longest free run is {largest} of {capacity} bytes; \
         release leases, commit reservations, unpin, or use a larger arena"
    )]
    NoRoom {
        /// Space needed, bytes.
        need: u64,
        /// The longest free run, bytes.
        largest: u64,
        /// The arena, bytes.
        capacity: u64,
    },
    /// Room is made by moving blocks to a tier below, which is not done yet.
    #[error(
        "no room for {need} bytes yet: {moving} bytes are on their way to a tier below; try again, \
         or put less than that tier takes"
    )]
    Demoting {
        /// Space needed, bytes.
        need: u64,
        /// Space of the blocks on their way, bytes.
        moving: u64,
    },
    /// No block of this length can ever be taken.
    #[error("a block of {len} bytes is too large, at most {max} are taken; use smaller blocks")]
    TooLarge {
        /// Length asked for, bytes.
        len: u64,
        /// Largest length, bytes.
        max: u64,
    },
    /// The cache is full of blocks that are more likely to be used again.
    #[error(
        "block {0} was not admitted: what is in the cache is more likely to be used again; \
         compute it when it is needed, or use a larger arena"
    )]
    NotAdmitted(Key),
    /// The store is being drained.
    #[error("the cache is draining and takes no new blocks; reads go on")]
    Draining,
    /// The identity was removed.
    #[error("identity {0} was removed; register it again")]
    Closed(IdentityId),
    /// The block's place in its chain contradicts what is known.
    #[error("position of block {key} is {told} in this chain, but {known} is known; fix the links")]
    Lineage {
        /// The block whose position is at odds: the one asked for, or its parent.
        key: Key,
        /// Position known.
        known: u32,
        /// Position told.
        told: u32,
    },
}

impl Why {
    /// True when it was room that was missing, so that a later block fares no better.
    #[must_use]
    pub const fn is_room(&self) -> bool {
        matches!(
            self,
            Self::OverQuota { .. }
                | Self::NoRoom { .. }
                | Self::Demoting { .. }
                | Self::NotAdmitted(_)
        )
    }
}

/// A reservation refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Refusal {
    /// Why; it shows as the message for the client.
    pub why: Why,
    /// When to try again; none when trying again cannot help.
    pub retry_after: Option<Millis>,
}
