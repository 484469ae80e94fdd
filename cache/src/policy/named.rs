//! The policies by name.

use std::fmt;

use super::{Gdsf, Lineage, Lru, Policy, S3Fifo, Slru, WTinyLfu};

/// A policy that a daemon can run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Name {
    /// [`Lru`].
    Lru,
    /// [`Slru`].
    Slru,
    /// [`S3Fifo`].
    S3Fifo,
    /// [`WTinyLfu`].
    WTinyLfu,
    /// [`Gdsf`].
    Gdsf,
    /// [`Lineage`].
    #[default]
    Lineage,
}

impl Name {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Lru, Self::Slru, Self::S3Fifo, Self::WTinyLfu, Self::Gdsf, Self::Lineage];

    /// As it is written in configuration, messages and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lru => "lru",
            Self::Slru => "slru",
            Self::S3Fifo => "s3fifo",
            Self::WTinyLfu => "wtinylfu",
            Self::Gdsf => "gdsf",
            Self::Lineage => "lineage",
        }
    }

    /// The policy of this name; none for an unknown one.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == name)
    }

    /// A new policy of this name, which knows no block.
    pub fn policy(self) -> Box<dyn Policy> {
        match self {
            Self::Lru => Box::new(Lru::new()),
            Self::Slru => Box::new(Slru::new()),
            Self::S3Fifo => Box::new(S3Fifo::new()),
            Self::WTinyLfu => Box::new(WTinyLfu::new()),
            Self::Gdsf => Box::new(Gdsf::new()),
            Self::Lineage => Box::new(Lineage::new()),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
