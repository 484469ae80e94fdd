//! Reading and writing the disk while it is opened: nobody else uses it yet, so this waits.

use std::collections::VecDeque;
use std::time::Duration;

use super::open::OpenError;
use crate::tier::nvme::disk::{Disk, Error, Kind, Op};
use crate::tier::nvme::options::Now;
use crate::tier::nvme::pool::{Piece, Pool};
use crate::tier::{Lane, Span};
use crate::time::Millis;

/// Reads that are asked for at the same time.
const WINDOW: usize = 128;
/// A disk that ends nothing for so long is given up.
const STALL_MAX: Millis = Millis(60_000);
const WAIT: Duration = Duration::from_millis(100);

/// The disk and memory to read it into.
pub(super) struct Port<'a> {
    pub(super) disk: Box<dyn Disk>,
    /// Becomes the engine's.
    pub(super) pool: Pool,
    clock: &'a dyn Fn() -> Now,
}

/// Bytes of the disk that are wanted, and for what.
pub(super) struct Want<T> {
    pub(super) tag: T,
    pub(super) at: u64,
    pub(super) bytes: u64,
}

impl<'a> Port<'a> {
    pub(super) fn new(
        disk: Box<dyn Disk>,
        bytes: u64,
        clock: &'a dyn Fn() -> Now,
    ) -> Result<Self, OpenError> {
        let pool = Pool::new("nvme-bounce", bytes).map_err(OpenError::Memory)?;
        Ok(Self { disk, pool, clock })
    }

    /// Reads everything wanted, in any order; `on` hears how each read ended and may want more.
    pub(super) fn stream<T>(
        &mut self,
        wants: impl Iterator<Item = Want<T>>,
        mut on: impl FnMut(T, Result<&Span, Error>) -> Option<Want<T>>,
    ) -> Result<(), OpenError> {
        let mut wants = wants.peekable();
        let mut more: VecDeque<Want<T>> = VecDeque::new();
        let mut reading = slab::Slab::new();
        let mut ended = Vec::new();
        let mut since = (self.clock)().mono;
        loop {
            while reading.len() < WINDOW {
                let Some(want) = more.pop_front().or_else(|| wants.next()) else { break };
                let Some(piece) = self.pool.take(want.bytes) else {
                    more.push_front(want);
                    break;
                };
                let into = piece.span.slice(0..want.bytes as usize);
                let kind = Kind::Read { at: want.at, into };
                let token = reading.vacant_key() as u64;
                if self.disk.submit(Op { token, lane: Lane::Demand, kind }).is_err() {
                    self.pool.give_back(piece);
                    more.push_front(want);
                    break;
                }
                reading.insert((want, piece));
            }
            if reading.is_empty() && more.is_empty() && wants.peek().is_none() {
                return Ok(());
            }
            self.disk.poll(&mut ended);
            if ended.is_empty() {
                self.stall(since)?;
                continue;
            }
            since = (self.clock)().mono;
            for end in ended.drain(..) {
                let (want, piece): (Want<T>, Piece) = reading.remove(end.token as usize);
                let span = piece.span.slice(0..want.bytes as usize);
                more.extend(on(want.tag, end.result.map(|()| &span)));
                self.pool.give_back(piece);
            }
        }
    }

    /// Reads one stretch.
    pub(super) fn read(&mut self, at: u64, bytes: u64) -> Result<Vec<u8>, OpenError> {
        let mut read = Err(Error::Gone("nothing was read".to_owned()));
        let want = Want { tag: (), at, bytes };
        self.stream(std::iter::once(want), |(), result| {
            read = result.map(to_vec);
            None
        })?;
        read.map_err(|why| OpenError::Io(why.to_string()))
    }

    /// Writes whole pages.
    pub(super) fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), OpenError> {
        let piece = self.pool.take(bytes.len() as u64);
        let piece = piece.ok_or_else(|| OpenError::Memory("none is left".to_owned()))?;
        piece.span.write_at(0, bytes);
        let from = piece.span.slice(0..bytes.len());
        let ended = self.carry_out(Kind::Write { at, from });
        self.pool.give_back(piece);
        ended
    }

    pub(super) fn flush(&mut self) -> Result<(), OpenError> {
        self.carry_out(Kind::Flush)
    }

    fn carry_out(&mut self, kind: Kind) -> Result<(), OpenError> {
        let mut op = Some(Op { token: 0, lane: Lane::Write, kind });
        let (mut ended, since) = (Vec::new(), (self.clock)().mono);
        loop {
            if let Some(some) = op.take() {
                op = self.disk.submit(some).err();
            }
            self.disk.poll(&mut ended);
            match ended.pop() {
                Some(end) => return end.result.map_err(|why| OpenError::Io(why.to_string())),
                None => self.stall(since)?,
            }
        }
    }

    fn stall(&mut self, since: Millis) -> Result<(), OpenError> {
        if (self.clock)().mono >= since + STALL_MAX {
            return Err(OpenError::Stalled(STALL_MAX));
        }
        self.disk.wait(WAIT);
        Ok(())
    }

    pub(super) fn now(&self) -> Now {
        (self.clock)()
    }
}

/// The bytes of a span.
pub(super) fn to_vec(span: &Span) -> Vec<u8> {
    let mut bytes = vec![0; span.len()];
    span.read_at(0, &mut bytes);
    bytes
}
