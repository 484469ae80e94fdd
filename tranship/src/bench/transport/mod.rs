//! One-sided transfers between two processes.
//!
//! The measuring process asks the other one, its *peer*, for a window into memory of its own, and
//! writes, reads, or plays ping-pong with it. Neither touches the memory between transfers.

mod asks;
pub mod peer;

use std::ops::Range;
use std::time::{Duration, Instant};

use tranship_transport::fabric::shm;
use tranship_transport::{
    Drive, Engine, Incoming, Mapping, Outcome, Peer, Region, RemoteSlice, RemoteWindow, Slice,
    Transfer,
};

use self::asks::{Answer, Ask, decode, encode};
use super::child::Other;
use super::line::{Latency, Noise, Throughput};
use super::pages::{self, Pieces};
use super::rounds::{Measured, Tally, in_turns};
use super::{Error, Line, Plan, polling};

/// How long anything but a measurement may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// An operation to be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// One-sided writes.
    Write,
    /// One-sided reads.
    Read,
    /// A write with an immediate there, and one back.
    Pingpong,
}

impl Op {
    /// Its name in results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Read => "read",
            Self::Pingpong => "pingpong",
        }
    }
}

/// The measuring side.
pub struct Bench {
    plan: Plan,
    copy_threads: usize,
    engine: Engine,
    peer: Peer,
    /// Last, so that the engine hangs up before the other process is ended.
    _other: Other,
}

impl Bench {
    /// Connects to the other process, which runs [`peer::run`].
    ///
    /// # Errors
    /// When this process cannot have its engine, or the other does not answer.
    pub fn new(plan: Plan, copy_threads: usize, other: Other) -> Result<Self, Error> {
        let engine = engine(plan.busy, copy_threads)?;
        let peer = engine.connect(other.address(), PATIENCE)?;
        Ok(Self { plan, copy_threads, engine, peer, _other: other })
    }

    /// Measures one operation at one size, with `batch` transfers in flight; a ping-pong has one.
    ///
    /// # Errors
    /// When a transfer does not end well, or memory is short.
    pub fn measure(&self, op: Op, size: u64, batch: u32) -> Result<Line, Error> {
        let field = self.field(size)?;
        let (batch, latency, [limit, measured]) = match op {
            Op::Write | Op::Read => {
                (batch, Latency::Completion, self.transfers(op, &field, batch)?)
            }
            Op::Pingpong => (1, Latency::OneWay, self.pingpong(&field)?),
        };
        Ok(Line {
            bench: "transport",
            fabric: "shm",
            op: op.name(),
            size,
            batch,
            throughput: Some(Throughput::of(&measured, &limit)),
            keys_per_s: None,
            resident_keys: None,
            latency,
            p50_us: measured.percentile_us(50.0),
            p99_us: measured.percentile_us(99.0),
            n: measured.n(),
            polling: self.plan.polling_name(),
            copy_threads: self.copy_threads,
            working_set: field.ours.len(),
            noise: Noise::now(),
        })
    }

    /// The limit and the operation.
    fn transfers(&self, op: Op, field: &Field, batch: u32) -> Result<[Measured; 2], Error> {
        let mut pieces = field.pieces;
        let warm_up = pieces.count().div_ceil(u64::from(batch));
        let mut flying: Vec<(Instant, Transfer)> = Vec::with_capacity(batch as usize);
        let mut operation = |tally: &mut Tally| {
            let began = Instant::now();
            for _ in 0..batch {
                let since = if batch == 1 { began } else { Instant::now() };
                let (here, there) = field.ends(&pieces.turn())?;
                let transfer = match op {
                    Op::Read => self.engine.read(there, here),
                    Op::Write | Op::Pingpong => self.engine.write(here, there),
                };
                flying.push((since, transfer.submit()?));
            }
            for (since, transfer) in flying.drain(..) {
                done(transfer.wait())?;
                tally.latency(since.elapsed());
            }
            tally.worked(began, u64::from(batch), u64::from(batch) * pieces.size());
            Ok(())
        };
        in_turns(self.plan.time, warm_up, [&mut field.limit(op), &mut operation])
    }

    /// The limit and the operation. Half of a round trip is one way, and bytes count both ways.
    fn pingpong(&self, field: &Field) -> Result<[Measured; 2], Error> {
        let window = field.ours.window(0..field.ours.len())?;
        let pongs = self.engine.counter()?;
        let play = Ask::Play {
            window: window.descriptor(),
            slot: pongs.slot(),
            size: field.pieces.size(),
        };
        let Answer::Playing { slot } = self.ask(&play)? else {
            return Err(Error::Answer { question: "play" });
        };
        let mut pieces = field.pieces;
        let mut round_trips = 0;
        let mut operation = |tally: &mut Tally| {
            let (here, there) = field.ends(&pieces.turn())?;
            let began = Instant::now();
            done(self.engine.write(here, there).immediate(slot).wait())?;
            round_trips += 1;
            pongs.wait(round_trips, PATIENCE)?;
            let took = tally.worked(began, 2, 2 * pieces.size());
            tally.latency(took / 2);
            Ok(())
        };
        let (warm_up, mut limit) = (field.pieces.count(), field.limit(Op::Pingpong));
        let measured = in_turns(self.plan.time, warm_up, [&mut limit, &mut operation])?;
        match self.ask(&Ask::Rest)? {
            Answer::Resting => Ok(measured),
            _ => Err(Error::Answer { question: "rest" }),
        }
    }

    /// Memory here and there for pieces of `size` bytes.
    fn field(&self, size: u64) -> Result<Field, Error> {
        let bytes = self.plan.working_set_for(size);
        let ours = self.engine.register(pages::memory(bytes)?)?;
        let Answer::Opened { window } = self.ask(&Ask::Open { bytes })? else {
            return Err(Error::Answer { question: "open" });
        };
        let theirs = self.engine.open_at(self.peer, &window)?;
        let mapping = self.engine.map(&theirs, PATIENCE)?;
        Ok(Field { ours, theirs, mapping, pieces: Pieces::new(size, bytes) })
    }

    fn ask(&self, ask: &Ask) -> Result<Answer, Error> {
        let question = ask.name();
        done(self.engine.send(self.peer, encode(ask)).wait())?;
        loop {
            match self.engine.recv(PATIENCE) {
                Some(Incoming::Message { bytes, .. }) => {
                    return decode(&bytes).ok_or(Error::Answer { question });
                }
                Some(Incoming::Connected(_)) => {}
                Some(Incoming::Disconnected { .. }) | None => {
                    return Err(Error::Answer { question });
                }
            }
        }
    }
}

/// Memory on both sides.
struct Field {
    ours: Region,
    theirs: RemoteWindow,
    /// The peer's memory in this process: the limit copies between the very same bytes.
    mapping: Mapping,
    pieces: Pieces,
}

impl Field {
    fn ends(&self, piece: &Range<u64>) -> Result<(Slice, RemoteSlice), Error> {
        Ok((self.ours.slice(piece.clone())?, self.theirs.slice(piece.clone())?))
    }

    /// A copy the way the bytes of `op` go.
    fn limit(&self, op: Op) -> impl FnMut(&mut Tally) -> Result<(), Error> {
        let (ours, theirs) = (self.ours.memory(), self.mapping.memory());
        let (from, to) = match op {
            Op::Read => (theirs, &**ours),
            Op::Write | Op::Pingpong => (&**ours, theirs),
        };
        pages::copies(from, to, self.pieces)
    }
}

fn engine(busy: bool, copy_threads: usize) -> Result<Engine, Error> {
    // The fabric counts the threads that help the one that polls.
    let fabric = shm::Config::new().copy_threads(copy_threads.saturating_sub(1));
    let engine = Engine::builder().fabric(fabric).polling(polling(busy));
    // Whoever waits drives; nobody else is to take turns with it.
    Ok(engine.drive(Drive::Caller).deadline(PATIENCE).build()?)
}

fn done(outcome: Outcome) -> Result<(), Error> {
    if outcome.is_done() { Ok(()) } else { Err(Error::Transfer(outcome)) }
}
