//! What this fabric waits for.

use crate::fabric::PeerId;
use crate::fabric::epoll::{self, Epoll, Label};

pub(super) type Watch = Epoll<Ready>;
pub(super) type Sight = epoll::Sight<Ready>;

/// What is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ready {
    /// Our doorbell was rung.
    Doorbell,
    /// The alarm went off.
    Alarm,
    /// Somebody calls.
    Caller,
    /// The socket of a connection.
    Socket(PeerId),
    /// The process at its other end has died.
    Death(PeerId),
}

impl Label for Ready {
    const ALARM: Self = Self::Alarm;

    fn pack(self) -> u64 {
        match self {
            Self::Doorbell => 0,
            Self::Alarm => 1,
            Self::Caller => 2,
            Self::Socket(peer) => u64::from(peer.0) << 2 | 3 | 1 << 40,
            Self::Death(peer) => u64::from(peer.0) << 2 | 3 | 1 << 41,
        }
    }

    fn unpack(word: u64) -> Self {
        let peer = PeerId((word >> 2) as u32);
        match word & 3 {
            0 => Self::Doorbell,
            1 => Self::Alarm,
            2 => Self::Caller,
            _ if word & 1 << 40 != 0 => Self::Socket(peer),
            _ => Self::Death(peer),
        }
    }
}
