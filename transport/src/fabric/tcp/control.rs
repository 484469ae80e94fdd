//! The connections of another fabric, which has better ways to move payload than streams.
//!
//! Such a fabric stands on this one: here its peers are dialled, prove that they know the token, are
//! noticed dead, and are asked about connections that broke; and what its own ways cannot carry goes
//! through the streams. What it says to its like are *asides*, in order and beside the messages.
//!
//! That a connection has ended here tells the peer that nothing of it lands here any more. So a
//! connection's sockets stay open until the fabric above has taken its own ways down: it drops
//! [`Ended`] then.

use std::os::fd::RawFd;
use std::sync::Arc;

use super::config::Config;
use super::fabric::Tcp;
use super::frame::{ASIDE_BYTES_MAX, Frame};
use super::link::LATENCY;
use super::stream::Stream;
use super::windows::Windows;
use crate::address::EngineId;
use crate::fabric::{Fabric, Limits, OpId, PeerId, RegionId, Setup};
use crate::memory::Memory;
use crate::time::Time;

/// The longest word to a peer.
pub(in crate::fabric) const WORD_BYTES_MAX: usize = ASIDE_BYTES_MAX;

/// The connections of another fabric.
#[derive(Debug)]
pub(in crate::fabric) struct Control {
    tcp: Tcp,
}

/// A connection that has ended. To drop it tells the peer that nothing of it lands here any more.
#[derive(Debug)]
pub(in crate::fabric) struct Ended {
    pub(in crate::fabric) peer: PeerId,
    pub(super) engine: EngineId,
    pub(super) connection: u128,
    pub(super) endpoint: String,
    pub(super) near: bool,
    /// Whether the peer said that nothing of ours lands there any more.
    pub(in crate::fabric) gone: bool,
    pub(super) _streams: Vec<Stream>,
}

impl Control {
    /// Opens the connections of a fabric of this `kind`, a number that its diallers show: those of
    /// other kinds are turned away. What tells peers of our end has descriptors from `floor` on.
    pub(in crate::fabric) fn open(
        config: Config,
        (kind, floor): (u8, RawFd),
        setup: &Setup,
    ) -> Result<Self, String> {
        config.check()?;
        let mut tcp = Tcp::open(Config { floor, ..config }, setup)?;
        tcp.hub.above = kind;
        Ok(Self { tcp })
    }

    /// The streams as a fabric: what is done there is the transfers of last resort, messages, and
    /// the coming and going of peers.
    pub(in crate::fabric) fn streams(&mut self) -> &mut dyn Fabric {
        &mut self.tcp
    }

    /// What peers dial.
    pub(in crate::fabric) fn endpoint(&self) -> &str {
        &self.tcp.endpoint
    }

    /// What the streams carry.
    pub(in crate::fabric) fn limits(&self) -> Limits {
        self.tcp.limits()
    }

    /// Keeps a region, and windows of it, for the fabric above. Memory of a device is refused by the streams
    /// themselves.
    pub(in crate::fabric) fn register(&mut self, region: RegionId, memory: &Arc<Memory>) {
        self.tcp.hub.windows.register(region, memory);
    }

    /// The regions and windows of this engine.
    pub(in crate::fabric) fn windows(&self) -> &Windows {
        &self.tcp.hub.windows
    }

    /// The engine of a peer that is connected.
    pub(in crate::fabric) fn engine(&self, peer: PeerId) -> Option<EngineId> {
        self.tcp.links.get(&peer).map(|link| link.engine)
    }

    /// When the present poll began.
    pub(in crate::fabric) fn now(&self) -> Time {
        self.tcp.hub.now
    }

    /// Says something to a peer, at most [`WORD_BYTES_MAX`] bytes. To one that is gone nothing is
    /// said.
    pub(in crate::fabric) fn tell(&mut self, peer: PeerId, word: &[u8]) {
        assert!(word.len() <= WORD_BYTES_MAX, "a word of {} bytes", word.len());
        let Some(link) = self.tcp.links.get_mut(&peer).filter(|it| it.leaving.is_none()) else {
            return;
        };
        link.streams[LATENCY].say(&Frame::Aside { payload: word.len() as u32 }, word);
        self.tcp.hub.eager(peer);
        link.pump_urgent(&mut self.tcp.hub);
    }

    /// What peers said.
    pub(in crate::fabric) fn heard(&mut self) -> Vec<(PeerId, Vec<u8>)> {
        std::mem::take(&mut self.tcp.hub.asides)
    }

    /// Connections that have ended. The ways that stood on them are to be taken down before these
    /// are dropped.
    pub(in crate::fabric) fn ended(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.tcp.ended)
    }

    /// Leaves writes of ours that may still be landing to the care of the streams: the peer is asked
    /// about them, and they complete when it has been proven that nothing of them lands any more.
    pub(in crate::fabric) fn doubt(&mut self, ended: &Ended, ops: Vec<OpId>) {
        if ops.is_empty() {
            return;
        }
        let who = (ended.engine, ended.connection);
        let at = (ended.endpoint.clone(), ended.near);
        self.tcp.suspects.add(who, at, ops, self.tcp.hub.now);
        self.tcp.next_tick = Time::ZERO;
    }

    /// Whether one more write may be sent to a peer that has so many under way; see
    /// [`Suspects::allow`](super::suspects::Suspects::allow).
    pub(in crate::fabric) fn allows(&mut self, engine: EngineId, under_way: usize) -> bool {
        self.tcp.suspects.allow(engine, under_way)
    }
}
