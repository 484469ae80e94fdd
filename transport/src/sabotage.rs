//! Defects on purpose, to prove that the tests notice them.
//!
//! Each is a switch at the one place where the rule it breaks is kept. Without the feature `sabotage`
//! `is` is a constant `false` and nothing of it is compiled; with it a test switches one on for its
//! own thread, which is the one that drives the engines and the simulated network.

/// A rule that is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Defect {
    /// A window is reported as fenced while packets are still being put into memory.
    EarlyFence,
    /// A cancelled transfer ends as fenced before the fabric said so.
    EarlyEnd,
    /// The target does not ask of which generation a window is, or whether it was revoked.
    StaleWindow,
    /// The last byte of each packet is lost.
    LostTail,
    /// A counter counts what was meant for an earlier owner of its slot.
    StaleCounter,
    /// The immediate is delivered before its payload.
    EarlyImmediate,
    /// Deadlines pass without anything being cancelled.
    NoDeadline,
    /// What reaches one byte out of a window is let through.
    OneByteBeyond,
    /// A transfer that was stopped keeps its credits.
    LostCredit,
    /// Memory whose loss was proven harmless is never let go of.
    NoRecovery,
    /// The last transfer of a batch is left out when all are cancelled.
    LostCancel,
    /// A barrier is passed while one member has not come.
    EarlyBarrier,
    /// A barrier's signal that was lost is taken for heard.
    LostSignal,
    /// What takes another way to its window goes there twice.
    DoubleDetour,
    /// A window is fenced once one of the fabrics has fenced it.
    HalfFence,
    /// One in four changes of a watched word is not told.
    LostWord,
}

impl Defect {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::EarlyFence,
        Self::EarlyEnd,
        Self::StaleWindow,
        Self::LostTail,
        Self::StaleCounter,
        Self::EarlyImmediate,
        Self::NoDeadline,
        Self::OneByteBeyond,
        Self::LostCredit,
        Self::NoRecovery,
        Self::LostCancel,
        Self::EarlyBarrier,
        Self::LostSignal,
        Self::DoubleDetour,
        Self::HalfFence,
        Self::LostWord,
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
