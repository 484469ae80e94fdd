//! Why transfers do not arrive, as numbers.

use tranship_transport::Reason;

/// No reason: it arrived.
pub const TRANSHIP_REASON_NONE: u32 = 0;
/// The deadline came.
pub const TRANSHIP_REASON_DEADLINE: u32 = 1;
/// The caller cancelled it.
pub const TRANSHIP_REASON_CANCELLED: u32 = 2;
/// The peer could not be reached.
pub const TRANSHIP_REASON_UNREACHABLE: u32 = 3;
/// The peer died or the connection broke.
pub const TRANSHIP_REASON_PEER_GONE: u32 = 4;
/// The window was revoked, or belongs to an earlier generation.
pub const TRANSHIP_REASON_STALE: u32 = 5;
/// The key does not open the window.
pub const TRANSHIP_REASON_FORGED: u32 = 6;
/// Outside the window.
pub const TRANSHIP_REASON_OUT_OF_BOUNDS: u32 = 7;
/// The window does not grant this operation.
pub const TRANSHIP_REASON_DENIED: u32 = 8;
/// The peer speaks another version of the protocol.
pub const TRANSHIP_REASON_VERSION: u32 = 9;
/// The message is longer than the fabric carries.
pub const TRANSHIP_REASON_TOO_LONG: u32 = 10;
/// Too many transfers wait.
pub const TRANSHIP_REASON_FULL: u32 = 11;
/// The fabric cannot do this operation, or not with this memory.
pub const TRANSHIP_REASON_UNSUPPORTED: u32 = 12;
/// The region or the engine is closing or closed.
pub const TRANSHIP_REASON_CLOSED: u32 = 13;
/// The fabric failed; its log says how.
pub const TRANSHIP_REASON_FAILED: u32 = 14;
/// Pieces of the destination overlap.
pub const TRANSHIP_REASON_OVERLAPPING: u32 = 15;
/// The two sides are not equally long.
pub const TRANSHIP_REASON_UNEVEN: u32 = 16;
/// The peer asks for another token.
pub const TRANSHIP_REASON_UNAUTHORISED: u32 = 17;
/// What answers there is no engine.
pub const TRANSHIP_REASON_FOREIGN: u32 = 18;
/// The peer's name has no address.
pub const TRANSHIP_REASON_UNRESOLVED: u32 = 19;
/// A region or an opened window of another engine of this process.
pub const TRANSHIP_REASON_OTHER_ENGINE: u32 = 20;
/// Too many earlier writes to the peer were lost and may still be landing there.
pub const TRANSHIP_REASON_UNPROVEN: u32 = 21;

/// 0 for none, else one more than the reason's code.
pub(crate) fn number(reason: Option<Reason>) -> u32 {
    reason.map_or(TRANSHIP_REASON_NONE, |reason| u32::from(reason as u8) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_transport() {
        let all = Reason::ALL.map(|reason| (format!("{reason:?}"), number(Some(reason))));
        let expected = [
            ("Deadline", TRANSHIP_REASON_DEADLINE),
            ("Cancelled", TRANSHIP_REASON_CANCELLED),
            ("Unreachable", TRANSHIP_REASON_UNREACHABLE),
            ("PeerGone", TRANSHIP_REASON_PEER_GONE),
            ("Stale", TRANSHIP_REASON_STALE),
            ("Forged", TRANSHIP_REASON_FORGED),
            ("OutOfBounds", TRANSHIP_REASON_OUT_OF_BOUNDS),
            ("Denied", TRANSHIP_REASON_DENIED),
            ("Version", TRANSHIP_REASON_VERSION),
            ("TooLong", TRANSHIP_REASON_TOO_LONG),
            ("Full", TRANSHIP_REASON_FULL),
            ("Unsupported", TRANSHIP_REASON_UNSUPPORTED),
            ("Closed", TRANSHIP_REASON_CLOSED),
            ("Failed", TRANSHIP_REASON_FAILED),
            ("Overlapping", TRANSHIP_REASON_OVERLAPPING),
            ("Uneven", TRANSHIP_REASON_UNEVEN),
            ("Unauthorised", TRANSHIP_REASON_UNAUTHORISED),
            ("Foreign", TRANSHIP_REASON_FOREIGN),
            ("Unresolved", TRANSHIP_REASON_UNRESOLVED),
            ("OtherEngine", TRANSHIP_REASON_OTHER_ENGINE),
            ("Unproven", TRANSHIP_REASON_UNPROVEN),
        ];
        assert_eq!(all, expected.map(|(name, number)| (name.to_owned(), number)));
    }
}
