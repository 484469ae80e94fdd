//! One-sided transfers between two processes.
//!
//! The measuring process asks the other one, its *peer*, for a window into memory of its own, and
//! writes, reads, or plays ping-pong with it. Neither touches the memory between transfers.

mod asks;
mod fabric;
mod field;
mod lanes;
mod load;
mod paged;
pub mod peer;
pub mod rate;
mod sockets;

use std::time::{Duration, Instant};

use tranship_transport::{Engine, Incoming, Outcome, Peer, Transfer};

use self::asks::{Answer, Ask, decode, encode};
use self::field::{Field, Way};
use super::child::Other;
use super::line::{Latency, Throughput};
use super::rounds::{Measured, Step, Tally, in_turns};
use super::{Error, Line, Plan};

pub use fabric::Fabric;

/// How long anything but a measurement may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// One-sided writes.
    Write,
    /// One-sided reads.
    Read,
    /// A write with an immediate there, and one back.
    Pingpong,
    /// Writes of so many pages each, scattered on both sides.
    Paged {
        /// Pages of one write.
        pages: u32,
    },
    /// A small write with an immediate there and one back: alone, beside a full load in the other
    /// lane, and beside the same load in its own.
    Lanes,
}

impl Op {
    /// Its name in results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Read => "read",
            Self::Pingpong => "pingpong",
            Self::Paged { .. } => "paged",
            Self::Lanes => "lanes",
        }
    }

    /// How many lines of the result it makes.
    #[must_use]
    pub const fn lines(self) -> usize {
        match self {
            Self::Lanes => lanes::LINES,
            _ => 1,
        }
    }
}

/// The measuring side.
pub struct Bench {
    fabric: Fabric,
    plan: Plan,
    copy_threads: usize,
    engine: Engine,
    peer: Peer,
    /// Last, so that the engine hangs up before the other process is ended.
    other: Other,
}

impl Bench {
    /// Connects to the other process, which runs [`peer::run`].
    ///
    /// # Errors
    /// When this process cannot have its engine, or the other does not answer.
    pub fn new(
        fabric: Fabric,
        plan: Plan,
        copy_threads: usize,
        other: Other,
    ) -> Result<Self, Error> {
        let engine = fabric.engine(plan.busy, copy_threads)?;
        let peer = engine.connect(other.address(), PATIENCE)?;
        Ok(Self { fabric, plan, copy_threads, engine, peer, other })
    }

    /// Measures one operation at one size, with `batch` transfers in flight; a ping-pong has one.
    ///
    /// # Errors
    /// When a transfer does not end well, or memory is short.
    pub fn measure(&self, op: Op, size: u64, batch: u32) -> Result<Vec<Line>, Error> {
        match op {
            Op::Write | Op::Read => {
                let field = self.field(size, size)?;
                let measured = self.transfers(op, &field, batch)?;
                let line = self.line(op, size, batch, Latency::Completion, &measured.operation);
                Ok(vec![against(&measured, &field, line)])
            }
            Op::Pingpong => {
                let field = self.field(size, size)?;
                let measured = self.pingpong(&field)?;
                let line = self.line(op, size, 1, Latency::OneWay, &measured.operation);
                Ok(vec![against(&measured, &field, line)])
            }
            Op::Paged { pages } => self.paged(size, pages, batch).map(|line| vec![line]),
            Op::Lanes => self.lanes(size),
        }
    }

    /// A line of the result, without what only some operations have.
    fn line(&self, op: Op, size: u64, batch: u32, latency: Latency, measured: &Measured) -> Line {
        Line {
            fabric: self.fabric.name(),
            size,
            batch,
            copy_threads: self.copy_threads,
            working_set: self.plan.working_set,
            ..Line::new("transport", op.name(), latency, measured, &self.plan)
        }
    }

    /// The limit and the operation.
    fn transfers(&self, op: Op, field: &Field, batch: u32) -> Result<Beside, Error> {
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
                    _ => self.engine.write(here, there),
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
        let way = if op == Op::Read { Way::From } else { Way::To };
        self.beside(warm_up, field.limit(field.pieces, way), &mut operation)
    }

    /// Measures an operation, in turns with its limit where that is known.
    fn beside(
        &self,
        warm_up: u64,
        limit: Option<Box<Step<'_>>>,
        operation: &mut Step<'_>,
    ) -> Result<Beside, Error> {
        let time = self.plan.time;
        match limit {
            None => {
                let [operation] = in_turns(time, warm_up, [operation])?;
                Ok(Beside { limit: None, operation })
            }
            Some(mut limit) => {
                let [limit, operation] = in_turns(time, warm_up, [&mut *limit, operation])?;
                Ok(Beside { limit: Some(limit), operation })
            }
        }
    }

    /// The limit and the operation. Half of a round trip is one way, and bytes count both ways.
    fn pingpong(&self, field: &Field) -> Result<Beside, Error> {
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
        let warm_up = field.pieces.count();
        let measured =
            self.beside(warm_up, field.limit(field.pieces, Way::Both), &mut operation)?;
        match self.ask(&Ask::Rest)? {
            Answer::Resting => Ok(measured),
            _ => Err(Error::Answer { question: "rest" }),
        }
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

/// What was measured of an operation, and of its limit where that is known.
struct Beside {
    limit: Option<Measured>,
    operation: Measured,
}

/// A line of an operation that was measured in turns with its limit.
fn against(measured: &Beside, field: &Field, line: Line) -> Line {
    let Beside { limit, operation } = measured;
    let throughput = Some(match limit {
        Some(limit) => Throughput::of(operation, limit),
        None => Throughput::alone(operation),
    });
    let timed = limit.as_ref().filter(|limit| limit.n() > 0);
    let limit_p50_us = timed.map(|limit| limit.percentile_us(50.0));
    let limit_p99_us = timed.map(|limit| limit.percentile_us(99.0));
    Line { throughput, limit_p50_us, limit_p99_us, working_set: field.bytes(), ..line }
}

fn done(outcome: Outcome) -> Result<(), Error> {
    if outcome.is_done() { Ok(()) } else { Err(Error::Transfer(outcome)) }
}
