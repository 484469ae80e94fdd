//! The tiers below memory, as the bookkeeping of memory sees them: what is there, and what goes there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::cold::{Cold, Found, Health, Job, Name};
use super::{Tier, Tiers};

/// Which blocks a tier below takes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ingest {
    /// Every block, as soon as it was committed (write-through). One that the tier could not take
    /// then is offered again when it is evicted.
    All,
    /// Blocks that were used after they were stored, at their first use.
    Hot,
    /// Blocks that leave memory (write-back).
    Evicted,
}

/// One tier below memory.
pub struct Level {
    /// The tier.
    pub cold: Arc<dyn Cold>,
    /// What it takes in.
    pub ingest: Ingest,
    /// Whether it takes anything at the moment.
    open: AtomicBool,
}

impl Level {
    /// A level that is as open as its tier is now.
    pub fn new(cold: Arc<dyn Cold>, ingest: Ingest) -> Self {
        let level = Self { cold, ingest, open: AtomicBool::new(false) };
        level.look();
        level
    }

    /// Whether it takes blocks at the moment.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// Looks at the tier's health again.
    pub(crate) fn look(&self) {
        let open = matches!(self.cold.health(), Health::Ready | Health::Degraded(_));
        self.open.store(open, Ordering::Relaxed);
    }

    /// Removes something from the tier, which takes that whatever else it has to do. One that is closed
    /// keeps it: it is told to nobody any more.
    pub(crate) fn forget(&self, job: Job) {
        if let Err(refused) = self.cold.submit(job) {
            tracing::warn!(tier = %self.cold.tier(), job = ?refused.job, "not removed: {:?}", refused.why);
        }
    }
}

impl std::fmt::Debug for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Level")
            .field("tier", &self.cold.tier())
            .field("ingest", &self.ingest)
            .field("open", &self.open)
            .finish()
    }
}

/// All tiers below memory, the fastest first; a handle.
#[derive(Clone, Debug, Default)]
pub struct Stack(Arc<[Level]>);

impl Stack {
    /// A stack of these levels, the fastest first.
    pub fn new(levels: Vec<Level>) -> Self {
        Self(levels.into())
    }

    /// The levels, the fastest first.
    pub fn levels(&self) -> &[Level] {
        &self.0
    }

    /// True when there is nothing below memory.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a level takes blocks that were never used.
    pub(crate) fn takes_new(&self) -> bool {
        self.0.iter().any(|level| level.is_open() && level.ingest != Ingest::Hot)
    }

    /// The level of a tier.
    pub fn level(&self, tier: Tier) -> Option<&Level> {
        self.0.iter().find(|level| level.cold.tier() == tier)
    }

    /// The fastest tier that has a block.
    pub fn holder(&self, name: &Name) -> Option<Tier> {
        self.0.iter().find(|level| level.cold.contains(name)).map(|level| level.cold.tier())
    }

    /// What the fastest tier that has a block, other than those in `tried`, knows of it.
    pub(crate) fn find(&self, name: &Name, tried: Tiers) -> Option<(&Level, Found)> {
        let mut levels = self.0.iter().filter(|level| !tried.contains(level.cold.tier()));
        levels.find_map(|level| Some((level, level.cold.find(name)?)))
    }
}
