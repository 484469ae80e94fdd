//! What all connections of a fabric share.

use std::collections::BTreeSet;

use super::config::Config;
use super::pace::Pace;
use super::socket::Pieces;
use super::stream::Chunk;
use super::watch::Watch;
use super::windows::Windows;
use crate::fabric::{Event, PeerId};
use crate::time::Time;

/// Bytes that are received to be dropped, at once.
const SINK_BYTES: usize = 64 << 10;

/// What all connections of a fabric share.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) config: Config,
    pub(super) windows: Windows,
    pub(super) watch: Watch,
    /// What the next poll reports.
    pub(super) reports: Vec<Event>,
    /// When the present poll began.
    pub(super) now: Time,
    pub(super) pace: Pace,
    /// Connections with something to send that is not held up by a socket.
    pub(super) eager: BTreeSet<PeerId>,
    /// For system calls.
    pub(super) pieces: Pieces,
    pub(super) through: Vec<Chunk>,
    pub(super) sink: Box<[u8]>,
    /// The fabric that stands on this one, as diallers show it; 0 for none.
    pub(super) above: u8,
    /// What peers said to that one.
    pub(super) asides: Vec<(PeerId, Vec<u8>)>,
}

impl Hub {
    pub(super) fn new(config: Config, watch: Watch, now: Time) -> Self {
        Self {
            config,
            windows: Windows::default(),
            watch,
            reports: Vec::new(),
            now,
            pace: Pace::default(),
            eager: BTreeSet::new(),
            pieces: Pieces::default(),
            through: Vec::new(),
            sink: vec![0; SINK_BYTES].into(),
            above: 0,
            asides: Vec::new(),
        }
    }

    /// Whether another fabric stands on this one.
    pub(super) fn carries(&self) -> bool {
        self.above != 0
    }

    /// A connection may have something to send.
    pub(super) fn eager(&mut self, peer: PeerId) {
        self.eager.insert(peer);
    }
}
