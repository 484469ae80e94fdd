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
