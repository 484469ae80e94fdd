//! Peers, and what comes in from them.

use std::fmt;

use crate::outcome::Reason;

/// Another engine, as this one knows it. Cheap to copy; valid on the engine that gave it out.
///
/// One that was dialled reconnects on the next transfer after it went down. One that dialled us
/// ends with its connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Peer {
    pub(crate) worker: u16,
    pub(crate) link: LinkId,
}

/// A link of one worker: its place and how many links had that place before.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct LinkId {
    pub(crate) index: u32,
    pub(crate) serial: u32,
}

impl Peer {
    /// It as a number, for interfaces of other languages.
    #[must_use]
    pub fn to_bits(self) -> u128 {
        let LinkId { index, serial } = self.link;
        u128::from(self.worker) | u128::from(index) << 16 | u128::from(serial) << 48
    }

    /// The peer of such a number. Any other number names nobody: what goes there is rejected.
    #[must_use]
    pub fn from_bits(bits: u128) -> Self {
        let link = LinkId { index: (bits >> 16) as u32, serial: (bits >> 48) as u32 };
        Self { worker: bits as u16, link }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer {}:{}.{}", self.worker, self.link.index, self.link.serial)
    }
}

/// What arrives without having been asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A message. Messages of one peer come in order, once.
    Message {
        /// From whom; answers go there.
        from: Peer,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// A connection is up.
    Connected(Peer),
    /// A connection is gone. All messages that came over it were delivered before.
    Disconnected {
        /// Which.
        peer: Peer,
        /// Why.
        reason: Reason,
    },
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn a_peer_survives_as_a_number(worker: u16, index: u32, serial: u32) {
            let peer = Peer { worker, link: LinkId { index, serial } };
            proptest::prop_assert_eq!(Peer::from_bits(peer.to_bits()), peer);
        }
    }
}
