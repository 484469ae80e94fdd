//! How a transfer ends.

use std::fmt;

/// The one end of a transfer, reached by its deadline.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[must_use = "only an outcome tells whether pages may be reused"]
pub enum Outcome {
    /// All bytes are where they belong and visible there; the immediate, if any, was delivered
    /// after them. The pages on this side are free.
    Done,
    /// Nothing of it left: no byte moved and none will. The pages are free.
    Rejected(Reason),
    /// It was stopped. Some bytes may have moved, no more can. The pages are free.
    Fenced(Reason),
    /// It cannot be proven that no more bytes will move. The pages stay quarantined: the engine
    /// keeps the region alive until the fabric has proof; reuse them only when
    /// [`Transfer::fenced`](crate::Transfer::fenced) says so.
    Lost(Reason),
}

impl Outcome {
    /// Whether all bytes arrived.
    #[must_use]
    pub const fn is_done(self) -> bool {
        matches!(self, Self::Done)
    }

    /// Whether the pages on this side may be reused.
    #[must_use]
    pub const fn pages_are_free(self) -> bool {
        !matches!(self, Self::Lost(_))
    }

    /// Why it did not arrive; `None` when it did.
    #[must_use]
    pub const fn reason(self) -> Option<Reason> {
        match self {
            Self::Done => None,
            Self::Rejected(why) | Self::Fenced(why) | Self::Lost(why) => Some(why),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Rejected(why) => write!(f, "rejected: {why}"),
            Self::Fenced(why) => write!(f, "fenced: {why}"),
            Self::Lost(why) => write!(f, "lost: {why}"),
        }
    }
}

/// Why a transfer did not arrive.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Reason {
    /// The deadline came.
    Deadline,
    /// The caller cancelled it.
    Cancelled,
    /// The peer could not be reached.
    Unreachable,
    /// The peer died or the connection broke.
    PeerGone,
    /// The window was revoked, or belongs to an earlier generation.
    Stale,
    /// The key does not open the window.
    Forged,
    /// Outside the window.
    OutOfBounds,
    /// The window does not grant this operation.
    Denied,
    /// The peer speaks another version of the protocol.
    Version,
    /// The message is longer than the fabric carries.
    TooLong,
    /// Too many transfers wait.
    Full,
    /// The fabric cannot do this operation, or not with this memory.
    Unsupported,
    /// The region or the engine is closing or closed.
    Closed,
    /// The fabric failed; its log says how.
    Failed,
    /// Pieces of the destination overlap.
    Overlapping,
    /// The two sides are not equally long.
    Uneven,
    /// The peer asks for another token.
    Unauthorised,
    /// What answers there is no engine.
    Foreign,
    /// The peer's name has no address.
    Unresolved,
    /// A region or an opened window of another engine of this process.
    OtherEngine,
    /// Too many earlier writes to the peer were lost and may still be landing there.
    Unproven,
}

impl Reason {
    /// Every reason, in the order of their codes.
    pub const ALL: [Self; 21] = [
        Self::Deadline,
        Self::Cancelled,
        Self::Unreachable,
        Self::PeerGone,
        Self::Stale,
        Self::Forged,
        Self::OutOfBounds,
        Self::Denied,
        Self::Version,
        Self::TooLong,
        Self::Full,
        Self::Unsupported,
        Self::Closed,
        Self::Failed,
        Self::Overlapping,
        Self::Uneven,
        Self::Unauthorised,
        Self::Foreign,
        Self::Unresolved,
        Self::OtherEngine,
        Self::Unproven,
    ];

    /// What happened, as a phrase.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Deadline => "the deadline came",
            Self::Cancelled => "cancelled by the caller",
            Self::Unreachable => "the peer cannot be reached",
            Self::PeerGone => "the peer is gone",
            Self::Stale => "the window was revoked",
            Self::Forged => "the key does not open this window",
            Self::OutOfBounds => "outside the window",
            Self::Denied => "the window does not grant this operation",
            Self::Version => "the peer speaks another protocol version",
            Self::TooLong => "longer than the fabric's largest message",
            Self::Full => "too many transfers wait; retry when some have ended",
            Self::Unsupported => "the fabric cannot do this with this memory",
            Self::Closed => "the region or engine is closed",
            Self::Failed => "the fabric failed; see its log",
            Self::Overlapping => "pieces of the destination overlap",
            Self::Uneven => "the two sides are not equally long",
            Self::Unauthorised => "the peer refuses the token",
            Self::Foreign => "what answers there is no tranship engine",
            Self::Unresolved => "the peer's name has no address",
            Self::OtherEngine => "a region or window of another engine of this process",
            Self::Unproven => {
                "too many writes to the peer were lost; retry once it answers where it listens, or ends"
            }
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// An outcome in one word, so that a completion is a single atomic store. Zero means "not yet".
pub(crate) mod code {
    use super::{Outcome, Reason};

    pub(crate) const PENDING: u32 = 0;
    /// The same, and a task is to be woken.
    pub(crate) const AWAITED: u32 = u32::MAX;

    pub(crate) fn pack(outcome: Outcome) -> u32 {
        let with = |kind: u32, why: Reason| kind | (why as u32) << 8;
        match outcome {
            Outcome::Done => 1,
            Outcome::Rejected(why) => with(2, why),
            Outcome::Fenced(why) => with(3, why),
            Outcome::Lost(why) => with(4, why),
        }
    }

    pub(crate) fn unpack(code: u32) -> Option<Outcome> {
        let why = || Reason::ALL[(code >> 8) as usize];
        match code & 0xff {
            1 => Some(Outcome::Done),
            2 => Some(Outcome::Rejected(why())),
            3 => Some(Outcome::Fenced(why())),
            4 => Some(Outcome::Lost(why())),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_survives_its_code() {
        assert_eq!(code::unpack(code::PENDING), None);
        assert_eq!(code::unpack(code::AWAITED), None);
        let mut all = vec![Outcome::Done];
        for (at, why) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, at, "ALL is in the order of the codes");
            all.extend([Outcome::Rejected(why), Outcome::Fenced(why), Outcome::Lost(why)]);
        }
        for outcome in all {
            assert_eq!(code::unpack(code::pack(outcome)), Some(outcome));
        }
    }

    #[test]
    fn the_documented_codes_are_these() {
        let document = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.md"));
        let (_, list) = document.split_once("Reasons, as everywhere on the wire: ").unwrap();
        let (list, _) = list.split_once('.').unwrap();
        let one = |entry: &str| entry.split_whitespace().collect::<Vec<_>>().join(" ");
        let listed: Vec<_> = list.split(',').map(one).collect();
        // `PeerGone` is written "peer gone".
        let words = |why: Reason| {
            let name = format!("{why:?}");
            let apart = name.chars().flat_map(|it| [it.is_uppercase().then_some(' '), Some(it)]);
            apart.flatten().collect::<String>().to_lowercase()
        };
        let known = Reason::ALL.map(|why| format!("{}{}", why as u8, words(why)));
        assert_eq!(listed, known);
    }
}
