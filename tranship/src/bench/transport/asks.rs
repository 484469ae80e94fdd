//! What the two processes say to each other, as JSON in messages of the fabric.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tranship_transport::{Descriptor, Slot};

use crate::bench::line::Load;

/// From the measuring process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    /// Open a window to so many bytes, in place of the one before.
    Open { bytes: u64 },
    /// Answer each arrival by a write of the same piece into this window, until the next message.
    Play { window: Descriptor, slot: Slot, size: u64 },
    /// Answer each arrival by a write of the last bytes of the memory into this window, with so many
    /// large writes beside it, until the next message.
    Echo { window: Descriptor, slot: Slot, size: u64, beside: Load },
    /// Answer so many plain connections beside the fabric, with so many bytes of memory.
    Sockets { streams: u8, bytes: u64 },
    /// Play no more.
    Rest,
}

/// From its peer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// Here it is.
    Opened { window: Descriptor },
    /// Arrivals are counted here from now on.
    Playing { slot: Slot },
    /// They are accepted at this port of the loopback interface.
    Sockets { port: u16 },
    /// Nothing is under way.
    Resting,
}

impl Ask {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Open { .. } => "open",
            Self::Play { .. } => "play",
            Self::Echo { .. } => "echo",
            Self::Sockets { .. } => "sockets",
            Self::Rest => "rest",
        }
    }
}

pub(super) fn encode(message: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(message).expect("these messages have a JSON form")
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}
