//! What this fabric waits for.

use crate::fabric::PeerId;
use crate::fabric::epoll::{self, Epoll, Label};

pub(super) type Watch = Epoll<Ready>;
pub(super) type Sight = epoll::Sight<Ready>;

/// What is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ready {
    /// The alarm went off.
    Alarm,
    /// A name was looked up.
    Name,
    /// Somebody calls.
    Caller,
    /// The socket of a handshake.
    Call(u32),
    /// A stream of a connection.
    Stream(PeerId, u8),
}

impl Label for Ready {
    const ALARM: Self = Self::Alarm;

    fn pack(self) -> u64 {
        match self {
            Self::Alarm => 0,
            Self::Name => 1,
            Self::Caller => 2,
            Self::Call(id) => 3 | u64::from(id) << 32,
            Self::Stream(peer, stream) => 4 | u64::from(stream) << 8 | u64::from(peer.0) << 32,
        }
    }

    fn unpack(word: u64) -> Self {
        let high = (word >> 32) as u32;
        match word & 0xff {
            0 => Self::Alarm,
            1 => Self::Name,
            2 => Self::Caller,
            3 => Self::Call(high),
            _ => Self::Stream(PeerId(high), (word >> 8) as u8),
        }
    }
}
