//! Windows: the generation-stamped right to use a part of a region.

use std::fmt;
use std::ops::BitOr;

use serde::{Deserialize, Serialize};

use crate::address::{Address, EngineId};

/// A window: its place in the engine's table and the generation of its present owner.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WindowId {
    /// Place in the table.
    pub slot: u32,
    /// How many windows had this place before.
    pub generation: u32,
}

impl fmt::Debug for WindowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "window {}.{}", self.slot, self.generation)
    }
}

/// What peers may do with a window.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Access(u8);

impl Access {
    /// Peers may write.
    pub const WRITE: Self = Self(1);
    /// Peers may read.
    pub const READ: Self = Self(2);
    /// Peers of this host may map it. The window must cover its whole region, and only closing the
    /// region's memory on the peer's side undoes a mapping: a revoked window stays mapped where it
    /// was mapped before.
    pub const MAP: Self = Self(4);

    /// Whether all of `other` is granted.
    #[must_use]
    pub const fn allows(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits, for tables shared with peers.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The rights that `bits` stand for; unknown bits are dropped.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & 7)
    }
}

impl BitOr for Access {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// How a window is reached over one fabric.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Route {
    /// Where its owner is.
    pub address: Address,
    /// See [`RemoteKey::key`](crate::fabric::RemoteKey::key).
    pub key: u64,
    /// See [`RemoteKey::base`](crate::fabric::RemoteKey::base).
    pub base: u64,
}

/// The remote descriptor of a window: serialisable, handed over by any channel. Whoever holds it
/// may use the window until it is revoked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Descriptor {
    /// Whose window.
    pub engine: EngineId,
    /// Which window.
    pub window: WindowId,
    /// How long it is, bytes.
    pub len: u64,
    /// What it grants.
    pub access: Access,
    /// How to get there, best first.
    pub routes: Vec<Route>,
}
