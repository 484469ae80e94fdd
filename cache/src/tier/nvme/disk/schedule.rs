//! What runs next: lanes with shares, and operations cut into pieces.
//!
//! A device works on everything it was given at once, so an urgent read takes as long as what it was
//! given before allows. Therefore little of what is not urgent is given to it while somebody waits, in
//! small pieces, and more only little by little when nobody does any more: a read that comes then waits
//! for no more than a small part of the time that passed since the last. Each lane that waits has at
//! least one piece on its way, so none starves.

use std::collections::VecDeque;
use std::sync::Arc;

use slab::Slab;

use super::files::{Files, ended_early, error};
use super::{Ended, Error, Kind, Op, PAGE_BYTES};
use crate::tier::{Lane, Span};

const LANES: usize = 3;
/// Bytes of each lane that the device has at once while nobody has waited for demand for long.
const ALONE_BYTES: [u64; LANES] = [u64::MAX, 32 << 20, 32 << 20];
/// The same beside demand.
const BESIDE_BYTES: [u64; LANES] = [u64::MAX, 2 << 20, 512 << 10];
/// After demand a share grows by one byte for so many that other lanes have moved.
const GROWTH: u64 = 16;

/// How much is under way at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Pieces.
    pub(super) depth: usize,
    /// Bytes of one piece, at most.
    pub(super) piece_bytes: u64,
    /// Operations that wait in one lane, beside those of which pieces are under way.
    pub(super) room: usize,
}

/// What is to be done with one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Read,
    Write,
    Flush,
}

/// A part of an operation that the device is asked for in one go.
#[derive(Debug)]
pub(super) struct Piece {
    flight: usize,
    lane: Lane,
    len: u64,
    pub(super) action: Action,
    /// In which file.
    pub(super) file: usize,
    /// Where in the file.
    pub(super) offset: u64,
    /// The memory that is left to be filled or written; none for a flush.
    pub(super) span: Option<Span>,
    /// First byte of the operation on the disk, for errors.
    pub(super) at: u64,
    /// How often the system said to try again.
    tries: u8,
}

/// As often the system may say to try again before it counts as an error.
const TRIES_MAX: u8 = 100;

/// What is to be done with a piece after the system answered.
#[derive(Debug)]
pub(super) enum Next {
    /// Ask again, for what is left.
    Again,
    /// It ended like this.
    End(Result<(), Error>),
}

impl Piece {
    /// Takes in what the system answered: bytes, or a negative error number.
    pub(super) fn answered(&mut self, answer: isize, files: &Files) -> Next {
        let path = files.path(self.file);
        if answer < 0 {
            let errno = i32::try_from(-answer).unwrap_or(libc::EIO);
            if matches!(errno, libc::EINTR | libc::EAGAIN) && self.tries < TRIES_MAX {
                self.tries += 1;
                return Next::Again;
            }
            return Next::End(Err(error(errno, self.at, path)));
        }
        let Some(span) = &mut self.span else { return Next::End(Ok(())) };
        // What is left has to be whole pages again.
        let done = answer as usize / PAGE_BYTES as usize * PAGE_BYTES as usize;
        if done == 0 {
            return Next::End(Err(ended_early(self.at, path)));
        }
        *span = span.slice(done..span.len());
        self.offset += done as u64;
        if span.is_empty() { Next::End(Ok(())) } else { Next::Again }
    }
}

/// An operation of which not everything has ended.
#[derive(Debug)]
struct Flight {
    op: Op,
    /// Bytes, or files to be flushed.
    len: u64,
    /// Of these, how many have been begun.
    begun: u64,
    /// Pieces under way.
    pending: usize,
    error: Option<Error>,
}

/// One lane.
#[derive(Debug, Default)]
struct Line {
    /// Operations of which pieces are to be begun.
    waiting: VecDeque<usize>,
    /// Bytes and pieces under way.
    bytes: u64,
    pieces: usize,
}

/// Everything that was taken and not handed back.
#[derive(Debug)]
pub(super) struct Schedule {
    files: Arc<Files>,
    limits: Limits,
    flights: Slab<Flight>,
    lines: [Line; LANES],
    /// Pieces under way, over all lanes.
    pieces: usize,
    /// Bytes that the other lanes have begun since there was demand.
    quiet: u64,
    done: Vec<Ended>,
}

impl Schedule {
    pub(super) fn new(files: Arc<Files>, limits: Limits) -> Self {
        Self {
            files,
            limits,
            flights: Slab::new(),
            lines: Default::default(),
            pieces: 0,
            quiet: u64::MAX,
            done: Vec::new(),
        }
    }

    pub(super) fn files(&self) -> &Arc<Files> {
        &self.files
    }

    /// See [`Disk::submit`](super::Disk::submit).
    pub(super) fn submit(&mut self, op: Op) -> Result<(), Op> {
        let (at, len, address) = match &op.kind {
            Kind::Read { at, into: span } | Kind::Write { at, from: span } => {
                (*at, span.len() as u64, span.as_ptr().addr())
            }
            Kind::Flush => (0, 0, 0),
        };
        if let Err(error) = self.files.check(at, len, address) {
            debug_assert!(false, "{error} (memory at {address:#x})");
            self.end(op, Err(error));
            return Ok(());
        }
        let len = if matches!(op.kind, Kind::Flush) { self.files.count() as u64 } else { len };
        if len == 0 {
            self.end(op, Ok(()));
            return Ok(());
        }
        let line = &mut self.lines[op.lane as usize];
        if line.waiting.len() >= self.limits.room {
            return Err(op);
        }
        let flight = Flight { op, len, begun: 0, pending: 0, error: None };
        line.waiting.push_back(self.flights.insert(flight));
        Ok(())
    }

    /// The next piece to give to the device, unless it has enough.
    pub(super) fn next(&mut self) -> Option<Piece> {
        if self.pieces >= self.limits.depth {
            return None;
        }
        let lanes = [Lane::Demand, Lane::Prefetch, Lane::Write];
        // One piece of each that waits, whatever the others do; then in order.
        let idle = |line: &Line| line.pieces == 0 && !line.waiting.is_empty();
        let starved = lanes.into_iter().find(|lane| idle(&self.lines[*lane as usize]));
        let lane = starved.or_else(|| lanes.into_iter().find(|lane| self.may(*lane)))?;
        Some(self.begin(lane))
    }

    /// Whether a lane has something to begin and may have more under way than it has.
    fn may(&self, lane: Lane) -> bool {
        let line = &self.lines[lane as usize];
        let Some(&flight) = line.waiting.front() else { return false };
        let flight = &self.flights[flight];
        let next = (flight.len - flight.begun).min(self.piece_bytes(lane));
        line.bytes.saturating_add(next) <= self.share(lane)
    }

    /// Bytes of a lane that may be under way.
    fn share(&self, lane: Lane) -> u64 {
        let demand = &self.lines[Lane::Demand as usize];
        let quiet = if demand.pieces + demand.waiting.len() > 0 { 0 } else { self.quiet };
        let share = BESIDE_BYTES[lane as usize].saturating_add(quiet / GROWTH);
        share.min(ALONE_BYTES[lane as usize])
    }

    /// Bytes of a piece of a lane, at most: there is more than one in its share, so that the device has
    /// the next when one ends.
    fn piece_bytes(&self, lane: Lane) -> u64 {
        let part = self.share(lane) / 2 / PAGE_BYTES * PAGE_BYTES;
        self.limits.piece_bytes.min(part)
    }

    /// Begins the next piece of a lane that has one.
    fn begin(&mut self, lane: Lane) -> Piece {
        let most = self.piece_bytes(lane);
        let line = &mut self.lines[lane as usize];
        let key = line.waiting[0];
        let flight = &mut self.flights[key];
        let begun = flight.begun;
        let (action, at, span) = match &flight.op.kind {
            Kind::Read { at, into } => (Action::Read, *at, Some(into)),
            Kind::Write { at, from } => (Action::Write, *at, Some(from)),
            Kind::Flush => (Action::Flush, 0, None),
        };
        let (file, offset, len, span) = match span {
            None => (begun as usize, 0, 0, None),
            Some(span) => {
                let place = self.files.place(at + begun);
                let len = place.run.min(flight.len - begun).min(most);
                let part = span.slice(begun as usize..(begun + len) as usize);
                (place.file, place.offset, len, Some(part))
            }
        };
        flight.begun += if action == Action::Flush { 1 } else { len };
        flight.pending += 1;
        if flight.begun == flight.len {
            line.waiting.pop_front();
        }
        line.bytes += len;
        line.pieces += 1;
        self.pieces += 1;
        self.quiet = if lane == Lane::Demand { 0 } else { self.quiet.saturating_add(len) };
        Piece { flight: key, lane, len, action, file, offset, span, at, tries: 0 }
    }

    /// A piece ended, for good.
    pub(super) fn ended(&mut self, piece: Piece, result: Result<(), Error>) {
        let Piece { flight: key, lane, len, span, .. } = piece;
        // Nobody but who asked has a hold on the memory when it hears of the end.
        drop(span);
        let line = &mut self.lines[lane as usize];
        line.bytes -= len;
        line.pieces -= 1;
        self.pieces -= 1;
        let flight = &mut self.flights[key];
        flight.pending -= 1;
        if let Err(error) = result {
            // The first error is the operation's, and the rest of it is not begun.
            flight.error.get_or_insert(error);
            if flight.begun < flight.len {
                flight.begun = flight.len;
                line.waiting.retain(|waiting| *waiting != key);
            }
        }
        if flight.pending == 0 && flight.begun == flight.len {
            let flight = self.flights.remove(key);
            self.end(flight.op, flight.error.map_or(Ok(()), Err));
        }
    }

    fn end(&mut self, op: Op, result: Result<(), Error>) {
        self.done.push(Ended { token: op.token, kind: op.kind, result });
    }

    /// Whether [`drain`](Self::drain) would move something.
    pub(super) fn has_ended(&self) -> bool {
        !self.done.is_empty()
    }

    /// Moves what ended.
    pub(super) fn drain(&mut self, ended: &mut Vec<Ended>) {
        ended.append(&mut self.done);
    }

    /// Operations taken and not handed back.
    pub(super) fn in_flight(&self) -> usize {
        self.flights.len() + self.done.len()
    }
}

#[cfg(test)]
mod tests {
    use tranship_transport::memory::HostMemory;

    use super::super::files::Member;
    use super::*;

    const MIB: u64 = 1 << 20;

    fn schedule(depth: usize) -> Schedule {
        let file = tempfile::tempfile().unwrap();
        let member = Member { file, path: "test".into(), bytes: 64 * MIB };
        let files = Files::new(vec![member], MIB, false, "test".to_owned());
        Schedule::new(Arc::new(files), Limits { depth, piece_bytes: 4 * MIB, room: 100 })
    }

    fn ask(schedule: &mut Schedule, lane: Lane, bytes: u64) {
        let memory = HostMemory::new(bytes as usize).build().unwrap();
        let kind = Kind::Write { at: 0, from: Span::whole(Arc::new(memory)) };
        schedule.submit(Op { token: 0, lane, kind }).unwrap();
    }

    /// Begins what may be begun: lanes and lengths.
    fn begin(schedule: &mut Schedule) -> Vec<Piece> {
        std::iter::from_fn(|| schedule.next()).collect()
    }

    fn bytes(pieces: &[Piece], lane: Lane) -> u64 {
        pieces.iter().filter(|piece| piece.lane == lane).map(|piece| piece.len).sum()
    }

    fn end(schedule: &mut Schedule, pieces: Vec<Piece>) {
        for piece in pieces {
            schedule.ended(piece, Ok(()));
        }
    }

    #[test]
    fn writes_alone_keep_the_device_busy_and_beside_demand_they_give_way() {
        let mut schedule = schedule(64);
        for _ in 0..40 {
            ask(&mut schedule, Lane::Write, 4 * MIB);
        }
        let alone = begin(&mut schedule);
        assert_eq!((bytes(&alone, Lane::Write), alone.len()), (32 * MIB, 8), "large pieces");
        end(&mut schedule, alone);
        ask(&mut schedule, Lane::Demand, MIB);
        let beside = begin(&mut schedule);
        assert_eq!(bytes(&beside, Lane::Demand), MIB);
        let writes: Vec<_> = beside.iter().filter(|piece| piece.lane == Lane::Write).collect();
        assert!(writes.iter().all(|piece| piece.len == 256 << 10) && writes.len() == 2);
        end(&mut schedule, beside);
        // Then more, but a read that comes now never waits for more than a part of what was moved.
        let mut moved = 512 << 10;
        while moved < 64 * MIB {
            let more = begin(&mut schedule);
            let under_way = bytes(&more, Lane::Write);
            assert!(under_way >= 256 << 10, "it goes on");
            moved += under_way;
            assert!(under_way <= (512 << 10) + moved / GROWTH, "{under_way} of {moved}");
            end(&mut schedule, more);
        }
        assert!(bytes(&begin(&mut schedule), Lane::Write) > 2 * MIB, "it grows");
    }

    #[test]
    fn demand_goes_first_and_takes_all_but_one_piece_of_each_lane() {
        let mut schedule = schedule(8);
        for lane in [Lane::Write, Lane::Prefetch, Lane::Demand] {
            for _ in 0..20 {
                ask(&mut schedule, lane, 64 << 10);
            }
        }
        let pieces = begin(&mut schedule);
        let count = |lane| pieces.iter().filter(|piece| piece.lane == lane).count();
        assert_eq!(pieces.len(), 8, "as many as the device takes");
        assert_eq!([Lane::Demand, Lane::Prefetch, Lane::Write].map(count), [6, 1, 1]);
    }
}
