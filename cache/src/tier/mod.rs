//! Where a block may live.

pub mod below;
pub mod codec;
pub mod cold;
#[cfg(feature = "conformance")]
pub mod conformance;
pub(crate) mod dram;
pub mod nvme;
pub mod object;
mod span;

pub use below::{Ingest, Level, Stack};
pub use cold::{Cold, Lane};
pub use span::Span;

use std::fmt;

/// A place that keeps blocks, fastest first.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
#[repr(u8)]
pub enum Tier {
    /// This host's memory: one arena per tenant.
    Dram,
    /// A log on a local device.
    Nvme,
    /// Objects in a bucket, which several hosts may share.
    Object,
}

impl Tier {
    /// Every tier, fastest first.
    pub const ALL: [Self; 3] = [Self::Dram, Self::Nvme, Self::Object];

    /// The name in messages and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dram => "dram",
            Self::Nvme => "nvme",
            Self::Object => "object",
        }
    }
}

/// A text that is no tier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?}: expected {all}", all = Tier::ALL.map(Tier::name).join(", "))]
pub struct NoTier(String);

impl std::str::FromStr for Tier {
    type Err = NoTier;

    fn from_str(name: &str) -> Result<Self, NoTier> {
        let known = Self::ALL.into_iter().find(|tier| tier.name() == name);
        known.ok_or_else(|| NoTier(name.to_owned()))
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of tiers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tiers(u8);

impl Tiers {
    /// No tier.
    pub const NONE: Self = Self(0);

    /// Every tier.
    pub const ALL: Self = Self((1 << Tier::ALL.len()) - 1);

    /// One tier.
    pub const fn only(tier: Tier) -> Self {
        Self(1 << tier as u8)
    }

    /// One bit a tier: 1 for the fastest, and so on.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The set of these bits; none where one is of no tier.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        if bits & !Self::ALL.0 == 0 { Some(Self(bits)) } else { None }
    }

    /// Adds a tier.
    pub fn insert(&mut self, tier: Tier) {
        self.0 |= 1 << tier as u8;
    }

    /// Takes a tier out.
    pub fn remove(&mut self, tier: Tier) {
        self.0 &= !(1 << tier as u8);
    }

    /// True when `tier` is in the set.
    pub fn contains(self, tier: Tier) -> bool {
        self.0 & 1 << tier as u8 != 0
    }

    /// How many tiers are in the set.
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// True when no tier is in the set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The fastest tier of the set.
    pub fn fastest(self) -> Option<Tier> {
        Tier::ALL.into_iter().find(|tier| self.contains(*tier))
    }
}
