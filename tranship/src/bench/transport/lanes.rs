//! What a small write waits for: a write with an immediate there and one back, alone, beside a full
//! load both ways in the other lane, and beside the same load in its own.
//!
//! One thread does everything on each side: it copies the load, sends, and waits.

use std::cell::RefCell;
use std::time::Instant;

use tranship_transport::{Counter, Lane, Slot, Window};

use super::asks::{Answer, Ask};
use super::field::Field;
use super::load::{CLEAR_BYTES, Load};
use super::{Bench, Op, PATIENCE, done};
use crate::bench::line::{self, Beside, Latency};
use crate::bench::rounds::{Measured, Tally, in_turns};
use crate::bench::{Error, Line};

/// Beside what it is measured, in this order.
const LOADS: [line::Load; LINES] = [line::Load::None, line::Load::OtherLane, line::Load::SameLane];
/// Lines of the result.
pub(super) const LINES: usize = 3;
/// Round trips before anything is measured.
const WARM_UP: u64 = 100;

/// The lane of the small writes.
pub(super) const fn lane(load: line::Load) -> Lane {
    match load {
        line::Load::None | line::Load::OtherLane => Lane::Latency,
        line::Load::SameLane => Lane::Bulk,
    }
}

/// What this side does, and what the peer was asked to do.
struct Game<'a> {
    bench: &'a Bench,
    field: &'a Field,
    size: u64,
    /// What the peer writes to.
    window: Window,
    pongs: Counter,
    round_trips: u64,
    load: Load<'a>,
    now: Option<(line::Load, Slot)>,
}

impl Bench {
    /// Measures round trips of writes of `size` bytes.
    pub(super) fn lanes(&self, size: u64) -> Result<Vec<Line>, Error> {
        let size = size.min(CLEAR_BYTES);
        let field = self.field(size, CLEAR_BYTES)?;
        let game = RefCell::new(Game {
            bench: self,
            field: &field,
            size,
            window: field.ours.window(0..field.bytes())?,
            pongs: self.engine.counter()?,
            round_trips: 0,
            load: Load::new(&self.engine, &field.ours, &field.theirs),
            now: None,
        });
        let game = &game;
        let [mut alone, mut apart, mut together] =
            LOADS.map(|load| move |tally: &mut Tally| game.borrow_mut().round_trip(load, tally));
        let measured = in_turns(self.plan.time, WARM_UP, [&mut alone, &mut apart, &mut together])?;
        game.borrow_mut().rest()?;
        let times = |percent| {
            let idle = measured[0].percentile_us(percent);
            measured.each_ref().map(|it| it.percentile_us(percent) / idle)
        };
        let (p50s, p99s) = (times(50.0), times(99.0));
        let lines = LOADS.into_iter().zip(&measured).zip(p50s.into_iter().zip(p99s));
        let line = |((load, measured), (p50_to_idle, p99_to_idle))| {
            let load_gb_per_s = Measured::gb_per_s(measured);
            let beside = Some(Beside { load, load_gb_per_s, p50_to_idle, p99_to_idle });
            Line { beside, ..self.line(Op::Lanes, size, 1, Latency::OneWay, measured) }
        };
        Ok(lines.map(line).collect())
    }
}

impl Game<'_> {
    /// One round trip, of which half counts; what the load moved meanwhile is counted too.
    fn round_trip(&mut self, load: line::Load, tally: &mut Tally) -> Result<(), Error> {
        let slot = match self.now {
            Some((now, slot)) if now == load => slot,
            _ => self.switch(load)?,
        };
        let end = self.field.bytes();
        let (here, there) = self.field.ends(&(end - self.size..end))?;
        let began = Instant::now();
        let ping = self.bench.engine.write(here, there).lane(lane(load)).immediate(slot);
        done(ping.wait())?;
        self.round_trips += 1;
        self.pongs.wait(self.round_trips, PATIENCE)?;
        tally.latency(began.elapsed() / 2);
        let moved = if load == line::Load::None { 0 } else { self.load.renew()? };
        tally.worked(began, 1, moved);
        Ok(())
    }

    /// Lets both sides do something else.
    fn switch(&mut self, load: line::Load) -> Result<Slot, Error> {
        self.rest()?;
        let (window, slot) = (self.window.descriptor(), self.pongs.slot());
        let echo = Ask::Echo { window, slot, size: self.size, beside: load };
        let Answer::Playing { slot } = self.bench.ask(&echo)? else {
            return Err(Error::Answer { question: "echo" });
        };
        self.now = Some((load, slot));
        if load != line::Load::None {
            self.load.renew()?;
        }
        Ok(slot)
    }

    /// Waits until nothing is under way on either side.
    fn rest(&mut self) -> Result<(), Error> {
        self.load.end()?;
        match self.now.take() {
            None => Ok(()),
            Some(_) => match self.bench.ask(&Ask::Rest)? {
                Answer::Resting => Ok(()),
                _ => Err(Error::Answer { question: "rest" }),
            },
        }
    }
}
