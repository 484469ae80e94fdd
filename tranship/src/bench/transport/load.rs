//! Large writes that keep a side busy.

use std::collections::VecDeque;

use tranship_transport::{Engine, Region, RemoteWindow, Transfer};

use super::done;
use crate::bench::Error;
use crate::bench::pages::Pieces;

/// How long one is.
const WRITE_BYTES: u64 = 1 << 20;
/// How many are under way at once.
const WRITES: usize = 8;
/// Bytes at the end of the memory on both sides that they keep clear of.
pub(super) const CLEAR_BYTES: u64 = 1 << 20;

/// Writes of one piece after the other, all of them in the bulk lane.
pub(super) struct Load<'a> {
    engine: &'a Engine,
    from: &'a Region,
    to: &'a RemoteWindow,
    pieces: Pieces,
    flying: VecDeque<Transfer>,
}

impl<'a> Load<'a> {
    /// From the whole of `from` to the whole of `to`, which is as long; nothing is under way yet.
    pub(super) fn new(engine: &'a Engine, from: &'a Region, to: &'a RemoteWindow) -> Self {
        let pieces = Pieces::new(WRITE_BYTES, from.len() - CLEAR_BYTES);
        Self { engine, from, to, pieces, flying: VecDeque::with_capacity(WRITES) }
    }

    /// Whether one has ended and [`Load::renew`] would start the next.
    pub(super) fn has_ended(&self) -> bool {
        self.flying.front().is_some_and(|first| first.outcome().is_some())
    }

    /// Starts as many as have ended, all of them in the beginning; how many bytes have moved.
    pub(super) fn renew(&mut self) -> Result<u64, Error> {
        let mut moved = 0;
        while self.has_ended() {
            let Some(first) = self.flying.pop_front() else { break };
            done(first.wait())?;
            moved += WRITE_BYTES;
        }
        while self.flying.len() < WRITES {
            let piece = self.pieces.turn();
            let (here, there) = (self.from.slice(piece.clone())?, self.to.slice(piece)?);
            self.flying.push_back(self.engine.write(here, there).submit()?);
        }
        Ok(moved)
    }

    /// Waits for all that is under way.
    pub(super) fn end(&mut self) -> Result<(), Error> {
        self.flying.drain(..).try_for_each(|transfer| done(transfer.wait()))
    }
}
