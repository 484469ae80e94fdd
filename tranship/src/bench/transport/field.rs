//! Memory on both sides, and the limit that goes with it.

use std::cell::RefCell;
use std::ops::Range;
use std::time::Instant;

use tranship_transport::{Mapping, Region, RemoteSlice, RemoteWindow, Slice};

use super::asks::{Answer, Ask};
use super::sockets::Sockets;
use super::{Bench, Fabric, PATIENCE};
use crate::bench::Error;
use crate::bench::pages::{self, Pieces};
use crate::bench::rounds::{Step, Tally};

/// Memory on both sides, used piece by piece.
pub(super) struct Field {
    pub(super) ours: Region,
    pub(super) theirs: RemoteWindow,
    beside: Beside,
    pub(super) pieces: Pieces,
}

/// What the machine does without the transport.
enum Beside {
    /// A copy between the very same bytes: the peer's memory in this process.
    Mapping(Mapping),
    /// Plain sockets, as many as there are streams.
    Sockets(RefCell<Sockets>),
    /// Nothing that could be measured from here.
    Unknown,
}

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    To,
    From,
    /// There and back.
    Both,
}

impl Bench {
    /// Memory here and there for pieces of `size` bytes, at least four times `most` bytes of it.
    pub(super) fn field(&self, size: u64, most: u64) -> Result<Field, Error> {
        let bytes = self.plan.working_set_for(most);
        let ours = self.engine.register(pages::memory(bytes)?)?;
        let Answer::Opened { window } = self.ask(&Ask::Open { bytes })? else {
            return Err(Error::Answer { question: "open" });
        };
        let theirs = self.engine.open_at(self.peer, &window)?;
        let beside = match &self.fabric {
            Fabric::Shm => Beside::Mapping(self.engine.map(&theirs, PATIENCE)?),
            // A server listens for nothing but the fabric.
            Fabric::Tcp { streams, .. } if self.other.is_ours() => {
                let streams = *streams;
                let Answer::Sockets { port } = self.ask(&Ask::Sockets { streams, bytes })? else {
                    return Err(Error::Answer { question: "sockets" });
                };
                Beside::Sockets(RefCell::new(Sockets::connect(port, streams, bytes)?))
            }
            Fabric::Tcp { .. } | Fabric::Verbs(_) | Fabric::Ofi(_) => Beside::Unknown,
        };
        Ok(Field { ours, theirs, beside, pieces: Pieces::new(size, bytes) })
    }
}

impl Field {
    /// Bytes on each side.
    pub(super) fn bytes(&self) -> u64 {
        self.ours.len()
    }

    pub(super) fn ends(&self, piece: &Range<u64>) -> Result<(Slice, RemoteSlice), Error> {
        Ok((self.ours.slice(piece.clone())?, self.theirs.slice(piece.clone())?))
    }

    /// The limit of pieces that go a certain way: copies of them, or what sockets do steadily; none
    /// where it is not known.
    pub(super) fn limit(&self, pieces: Pieces, way: Way) -> Option<Box<Step<'_>>> {
        Some(match &self.beside {
            Beside::Unknown => return None,
            Beside::Mapping(mapping) => {
                let (ours, theirs) = (&**self.ours.memory(), mapping.memory());
                let (from, to) = if way == Way::From { (theirs, ours) } else { (ours, theirs) };
                Box::new(pages::copies(from, to, pieces))
            }
            Beside::Sockets(sockets) if way == Way::Both => Box::new(move |tally: &mut Tally| {
                let began = Instant::now();
                sockets.borrow_mut().round_trip(pieces.size())?;
                let took = tally.worked(began, 2, 2 * pieces.size());
                tally.latency(took / 2);
                Ok(())
            }),
            Beside::Sockets(sockets) => Box::new(move |tally: &mut Tally| {
                let began = Instant::now();
                let bytes = sockets.borrow_mut().burst()?;
                tally.worked(began, 1, bytes);
                Ok(())
            }),
        })
    }
}
