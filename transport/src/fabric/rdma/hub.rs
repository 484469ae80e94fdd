//! What all links of a fabric share: its rails, and what is under way on them.

use std::collections::HashSet;

use hashbrown::HashMap;

use super::config::Settings;
use super::device::{ChannelId, Completion, Device, ExposureId, Token, Traits};
use super::exposing::Exposures;
use super::link::Link;
use super::mail::HEAD_BYTES;
use super::op::{Batch, Flight, Load};
use super::path::Path;
use super::words::Word;
use crate::fabric::tcp::Control;
use crate::fabric::{Event, OpId, PeerId};
use crate::lane::Lane;
use crate::pages::Piece;
use crate::slots::{At, Slots};
use crate::time::Time;

/// What all links share.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) settings: Settings,
    pub(super) control: Control,
    pub(super) rails: Vec<Rail>,
    /// Whether any of them carries messages.
    pub(super) rails_carry_messages: bool,
    /// What the next poll reports.
    pub(super) reports: Vec<Event>,
    pub(super) flights: Slots<Flight>,
    pub(super) channels: HashMap<ChannelId, (PeerId, u8)>,
    pub(super) channels_ever: u32,
    pub(super) exposures: Exposures,
    pub(super) exposures_ever: u32,
    /// What the streams were given though some of it may have moved over rails: where they refuse it, it was
    /// stopped.
    pub(super) moved: HashSet<OpId>,
    /// Room for the pieces of one batch.
    pub(super) pieces: Vec<Piece>,
    /// Links with something to post.
    pub(super) eager: Vec<PeerId>,
    pub(super) now: Time,
    pub(super) next_tick: Time,
}

/// One rail of this side.
#[derive(Debug)]
pub(super) struct Rail {
    pub(super) device: Box<dyn Device>,
    pub(super) traits: Traits,
    /// Why it is down, where it is.
    pub(super) down: Option<String>,
    /// What it reported and nobody has taken yet.
    pub(super) left: Vec<Completion>,
}

impl Hub {
    /// The longest message.
    pub(super) fn message_bytes_max(&self) -> usize {
        self.control.limits().message_bytes_max - HEAD_BYTES
    }

    /// Says something to a peer's fabric.
    pub(super) fn tell(&mut self, peer: PeerId, word: &Word) {
        self.control.tell(peer, &word.encode());
    }

    pub(super) fn new_channel(&mut self, peer: PeerId, path: u8) -> ChannelId {
        self.channels_ever += 1;
        let channel = ChannelId(self.channels_ever);
        self.channels.insert(channel, (peer, path));
        channel
    }

    /// Destroys a channel that never was in use.
    pub(super) fn discard(&mut self, rail: u8, channel: ChannelId) {
        let mut nothing = Vec::new();
        self.rails[usize::from(rail)].device.destroy(channel, &mut nothing);
        self.channels.remove(&channel);
        // Of other channels something may be there.
        self.rails[usize::from(rail)].left.append(&mut nothing);
    }

    /// Takes an exposure back.
    pub(super) fn conceal(&mut self, paths: &[Path], path: u8, exposure: ExposureId) {
        let rail = paths[usize::from(path)].rail;
        self.rails[usize::from(rail)].device.conceal(exposure);
        self.exposures.remove(&exposure);
    }

    /// Something is about to be posted.
    #[inline]
    pub(super) fn launch(
        &mut self,
        peer: PeerId,
        load: Load,
        path: u8,
        lane: Lane,
        batch: Batch,
    ) -> Token {
        let (at, flight) = self.flights.take();
        // Field by field, where they belong: see `Slots`.
        let Flight { peer: to, load: what, path: over, lane: line, batch: bytes, posted } = flight;
        (*to, *what, *over) = (peer, load, path);
        (*line, *bytes, *posted) = (lane, batch, self.now);
        Token(at.pack())
    }

    /// Takes out what a token stands for.
    #[inline]
    pub(super) fn flight(&mut self, token: Token) -> Option<Flight> {
        let at = At::unpack(token.0);
        let flight = *self.flights.get(at)?;
        self.flights.free(at);
        Some(flight)
    }

    /// A link may have something to post.
    pub(super) fn eager(&mut self, link: &mut Link) {
        if !std::mem::replace(&mut link.eager, true) {
            self.eager.push(link.id);
        }
    }
}
