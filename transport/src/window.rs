//! Windows: the generation-stamped right to use a part of a region.

use std::fmt;
use std::ops::{BitOr, Range};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use crate::address::{Address, EngineId};
use crate::engine::Engine;
use crate::region::RangeError;

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
    /// How to get there, best first. Routes over fabrics that this version does not know are left
    /// out when a descriptor is read.
    #[serde(deserialize_with = "known_routes")]
    pub routes: Vec<Route>,
}

fn known_routes<'de, D: Deserializer<'de>>(source: D) -> Result<Vec<Route>, D::Error> {
    #[derive(Deserialize)]
    struct Raw {
        address: String,
        key: u64,
        base: u64,
    }
    let known = |raw: Raw| {
        let address = raw.address.parse().ok()?;
        Some(Route { address, key: raw.key, base: raw.base })
    };
    Ok(Vec::<Raw>::deserialize(source)?.into_iter().filter_map(known).collect())
}

/// The generation-stamped right to use a part of a region, held by the side that owns the memory.
/// Dropping it revokes it without waiting.
pub struct Window {
    engine: Engine,
    descriptor: Descriptor,
    revoked: bool,
}

impl Window {
    pub(crate) fn new(engine: Engine, descriptor: Descriptor) -> Self {
        Self { engine, descriptor, revoked: false }
    }

    /// What a peer needs to use it: serialisable, handed over by any channel.
    #[must_use]
    pub fn descriptor(&self) -> Descriptor {
        self.descriptor.clone()
    }

    /// Its identifier.
    #[must_use]
    pub fn id(&self) -> WindowId {
        self.descriptor.window
    }

    /// Takes the right back and waits, up to the engine's default deadline, until no late write
    /// can land.
    ///
    /// # Errors
    /// See [`Window::revoke_within`].
    pub fn revoke(self) -> Result<(), RevokeError> {
        let timeout = self.engine.default_deadline();
        self.revoke_within(timeout)
    }

    /// Takes the right back and waits until no late write can land: once it returns `Ok` the pages
    /// may be reused.
    ///
    /// # Errors
    /// When a peer's write could not be proven ended within `timeout` (a peer that is stopped in
    /// the middle of a copy, say). The window comes back: no new write can begin, but its pages
    /// are not to be reused until a later call succeeds.
    pub fn revoke_within(mut self, timeout: Duration) -> Result<(), RevokeError> {
        self.revoked = true;
        if self.engine.revoke(self.id(), timeout) {
            Ok(())
        } else {
            Err(RevokeError { window: self, timeout })
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        if !self.revoked {
            self.engine.revoke(self.id(), Duration::ZERO);
        }
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {} bytes", self.id(), self.descriptor.len)
    }
}

/// A window that cannot be granted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WindowError {
    /// Not inside the region.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// Mapping gives the whole region away, so it must be asked for the whole region.
    #[error(
        "a window that may be mapped must cover its region: {}..{} of {region_bytes} bytes",
        range.start, range.end
    )]
    MapsPart {
        /// The range asked for.
        range: Range<u64>,
        /// The region.
        region_bytes: u64,
    },
    /// All places are taken.
    #[error("all {limit} windows are open; revoke some first")]
    Full {
        /// How many there can be.
        limit: usize,
    },
    /// The region or the engine is closing.
    #[error("the region is closing")]
    Closed,
    /// A fabric refused.
    #[error(transparent)]
    Fabric(#[from] crate::fabric::RegisterError),
}

/// A window whose fence could not be proven in time; carries the window.
#[derive(Debug, thiserror::Error)]
#[error(
    "{window:?}: a peer's write could not be proven ended within {timeout:?}; do not reuse its pages, revoke again"
)]
pub struct RevokeError {
    /// The window: closed for new writes, not yet fenced.
    pub window: Window,
    /// How long was waited.
    pub timeout: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Kind;

    #[test]
    fn routes_of_fabrics_to_come_do_not_spoil_a_descriptor() {
        let route =
            |kind, endpoint: &str| Route { address: Address::new(kind, endpoint), key: 1, base: 2 };
        let descriptor = Descriptor {
            engine: EngineId(7),
            window: WindowId { slot: 1, generation: 2 },
            len: 3,
            access: Access::WRITE,
            routes: vec![route(Kind::Shm, "@x"), route(Kind::Tcp, "host:1")],
        };
        let json = serde_json::to_string(&descriptor).unwrap();
        assert_eq!(serde_json::from_str::<Descriptor>(&json).unwrap(), descriptor);
        let newer = json.replace("shm:@x", "telepathy:@x");
        let read: Descriptor = serde_json::from_str(&newer).unwrap();
        assert_eq!(read.routes, descriptor.routes[1..]);
    }
}
