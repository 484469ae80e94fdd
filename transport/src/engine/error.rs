//! What an engine refuses.

use std::sync::Arc;
use std::time::Duration;

use crate::address::Address;
use crate::fabric::RegisterError;
use crate::memory::{Memory, MemoryError};
use crate::outcome::{Outcome, Reason};

/// Memory that could not become a region.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegionError {
    /// It could not be allocated.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A fabric refused it; the memory comes back.
    #[error("{error}")]
    Fabric {
        /// What the fabric said.
        error: RegisterError,
        /// The memory.
        memory: Arc<Memory>,
    },
}

/// A peer that cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// No fabric of that kind in this engine.
    #[error("{address}: this engine has no {} fabric", address.kind)]
    NoFabric {
        /// The address.
        address: Address,
    },
    /// No fabric in common.
    #[error("no route to the window: its owner is at {routes:?}, over no fabric this engine has")]
    NoRoute {
        /// Where its owner is.
        routes: Vec<Address>,
    },
    /// The connection was refused or broke.
    #[error("{address}: {why}")]
    Refused {
        /// The address.
        address: Address,
        /// Why.
        why: Reason,
    },
    /// Nobody answered in time.
    #[error("{address}: no answer within {timeout:?}")]
    Silent {
        /// The address.
        address: Address,
        /// How long was waited.
        timeout: Duration,
    },
}

/// A window that could not be mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("mapping {outcome}")]
pub struct MapError {
    /// How the attempt ended.
    pub outcome: Outcome,
}

/// All counter slots are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all counters of the engine are in use; drop some, or build it with more")]
pub struct CountersExhausted;

/// An engine that closed without proof that all its memory is fenced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not all transfers could be proven ended within {timeout:?}; memory not fenced stays mapped"
)]
pub struct NotFenced {
    /// How long was waited.
    pub timeout: Duration,
}
