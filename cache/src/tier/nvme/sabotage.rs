//! Defects on purpose, to prove that the tests notice them; as in the transport.
//!
//! Without the feature `sabotage` `is` is a constant `false` and nothing of it is compiled; with it a
//! test switches one on for its own thread, which is the one that drives the log.

/// A rule that is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Defect {
    /// Durable stores are answered before a flush.
    NoFlush,
    /// A summary counts whatever life of its segment it is of.
    StaleSummary,
    /// Frames of an earlier life of a segment count.
    StaleFrame,
    /// The checksum of a frame's header is not looked at.
    TornHeader,
    /// What was not flushed before a crash is taken for whole.
    TornPayload,
    /// A frame that was found torn is not marked as the end of its segment.
    NoEndMark,
    /// What is loaded is not checked.
    NoCheck,
    /// Chunks are not checked when a part of a block is loaded.
    NoChunkCheck,
    /// A segment is used again while loads from it are under way.
    EarlyReuse,
    /// A segment is used again before the index log says that it is free.
    EarlyOpen,
    /// A segment is freed before what was worth it is safe elsewhere.
    EarlyFree,
    /// An old copy is declared dead before the new one is safe.
    EarlyDead,
    /// What was removed is not noted in the index log.
    NoDead,
    /// A block is written again though a newer one of its name is under way.
    LateCopy,
    /// Pages of the index log follow one another though they were not written so.
    BrokenChain,
    /// A removed block is found until the removal is carried out.
    LateRemove,
    /// A segment is lost when it is reclaimed.
    LostSegment,
    /// The space of a block that was replaced stays counted.
    LostSpace,
    /// A load that comes too late keeps its lane's credit.
    LostCredit,
    /// Times to live never end.
    NoExpiry,
}

impl Defect {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::NoFlush,
        Self::StaleSummary,
        Self::StaleFrame,
        Self::TornHeader,
        Self::TornPayload,
        Self::NoEndMark,
        Self::NoCheck,
        Self::NoChunkCheck,
        Self::EarlyReuse,
        Self::EarlyOpen,
        Self::EarlyFree,
        Self::EarlyDead,
        Self::NoDead,
        Self::LateCopy,
        Self::BrokenChain,
        Self::LateRemove,
        Self::LostSegment,
        Self::LostSpace,
        Self::LostCredit,
        Self::NoExpiry,
    ];
}

#[cfg(feature = "sabotage")]
std::thread_local! {
    static CHOSEN: std::cell::Cell<Option<Defect>> = const { std::cell::Cell::new(None) };
}

/// Switches a defect on for this thread, and any other off.
#[cfg(feature = "sabotage")]
pub fn choose(defect: Option<Defect>) {
    CHOSEN.set(defect);
}

/// Whether a rule is broken on this thread.
#[cfg(feature = "sabotage")]
pub(crate) fn is(defect: Defect) -> bool {
    CHOSEN.get() == Some(defect)
}

/// Whether a rule is broken: never.
#[cfg(not(feature = "sabotage"))]
#[inline(always)]
pub(crate) const fn is(_: Defect) -> bool {
    false
}
