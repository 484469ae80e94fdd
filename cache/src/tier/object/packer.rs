//! The thread that copies blocks into packs.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;

use super::super::Span;
use super::super::cold::{Failure, Name, Record};
use super::ended::Ask;
use super::format::{Footer, Listed, PACK_START, Trailer};
use super::image::{Changed, Imager};
use super::index::{Body, Pack, Place, Serial, Source};
use super::paths::PackId;
use super::shared::{Shared, count};
use crate::time::Wall;

/// How often the age of a pack is looked at.
const TICK: Duration = Duration::from_millis(50);

/// What the packer is told.
pub(super) enum Order {
    Store(Store),
    /// A block of an old pack, which is to be written again, as it is there.
    Move {
        from: Place,
        listed: Listed,
        image: Bytes,
    },
    /// Close the pack that is open, and answer when all is in the bucket.
    Sync {
        ask: Ask,
    },
    /// The service moved so many bytes in that time.
    Moved {
        bytes: u64,
        took: Duration,
    },
    Close,
}

/// A block that is to be packed.
pub(super) struct Store {
    pub(super) record: Record,
    pub(super) from: Span,
    pub(super) durable: bool,
    pub(super) ask: Ask,
    /// Its number in the queue.
    pub(super) number: u64,
}

/// Why a block comes into a pack.
#[derive(Clone, Copy)]
enum Comes {
    /// It was stored.
    Stored(u64),
    /// It was there.
    Moved(Place),
}

/// Whether it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    Yes,
    /// It was removed meanwhile.
    Removed,
    /// It cannot be known.
    NoRoom,
}

/// A pack with everything in it, to be uploaded.
pub(super) struct Closed {
    pub(super) upload: u64,
    pub(super) serial: Serial,
    pub(super) id: PackId,
    /// All its bytes, in order.
    pub(super) bytes: Vec<Bytes>,
    pub(super) size: u64,
    /// Those who wait until it is in the bucket.
    pub(super) waiting: Vec<Ask>,
    /// What it takes of the room for buffers.
    pub(super) charged: u64,
}

/// A pack that takes blocks.
struct Open {
    upload: u64,
    serial: Serial,
    hasher: blake3::Hasher,
    bytes: Vec<Bytes>,
    entries: Vec<Listed>,
    size: u64,
    born: Duration,
    waiting: Vec<Ask>,
    charged: u64,
}

pub(super) struct Packer {
    shared: Arc<Shared>,
    orders: Receiver<Order>,
    closed: UnboundedSender<Closed>,
    imager: Imager,
    open: Option<Open>,
    sequence: u64,
}

impl Packer {
    pub(super) fn new(
        shared: Arc<Shared>,
        orders: Receiver<Order>,
        closed: UnboundedSender<Closed>,
        imager: Imager,
    ) -> Self {
        Self { shared, orders, closed, imager, open: None, sequence: 0 }
    }

    /// Until it is told to close, or nobody can tell it anything any more.
    pub(super) fn run(mut self) {
        loop {
            let order = match self.orders.try_recv() {
                Ok(order) => order,
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {
                    // Durable blocks that came together go together.
                    if self.open.as_ref().is_some_and(|open| !open.waiting.is_empty()) {
                        self.close_pack();
                    }
                    match self.orders.recv_timeout(TICK) {
                        Ok(order) => order,
                        Err(RecvTimeoutError::Timeout) => {
                            self.close_if_old();
                            continue;
                        }
                        Err(RecvTimeoutError::Disconnected) => break,
                    }
                }
            };
            match order {
                Order::Store(store) => {
                    let name = store.record.name();
                    self.store(store);
                    self.shared.state.lock().queue.end(&name);
                }
                Order::Move { from, listed, image } => self.move_over(from, listed, image),
                Order::Sync { ask } => {
                    self.close_pack();
                    let due = self.shared.state.lock().uploads.sync(ask);
                    Shared::answer_syncs(due);
                }
                Order::Moved { bytes, took } => self.imager.advisor().moved(bytes, took),
                Order::Close => break,
            }
            self.close_if_old();
        }
        self.close_pack();
        let shared = Arc::clone(&self.shared);
        drop(self);
        shared.packer_ended.store(true, Ordering::Release);
        shared.quiet.wake();
    }

    fn store(&mut self, order: Store) {
        let Store { record, from, durable, ask, number } = order;
        let shared = Arc::clone(&self.shared);
        let end = |ask: Ask, result| {
            shared.buffered.fetch_sub(record.len, Ordering::Relaxed);
            ask.answer(result);
        };
        if record.expires.is_some_and(|at| at <= self.shared.wall()) {
            return end(ask, Err(Failure::NoRoom));
        }
        if self.shared.state.lock().queue.is_void(&record.name(), number) {
            return end(ask, Ok(None));
        }
        let Some(ask) = self.is_there(&record, durable, ask) else { return };
        let (image, codec) = match self.imager.image(&record, &from) {
            Ok(image) => image,
            Err(Changed) => return end(ask, Err(Failure::Corrupt)),
        };
        let Record { len, checksum, expires, .. } = record;
        let (name, stored) = (record.name(), image.len() as u64);
        let listed = Listed { name, len, checksum, expires, offset: 0, stored, codec };
        match self.append(listed, Bytes::from(image), record.len, Comes::Stored(number)) {
            Came::Yes => {}
            Came::Removed => return end(ask, Ok(None)),
            Came::NoRoom => return end(ask, Err(Failure::NoRoom)),
        }
        if let Some(key) = record.link.parent {
            let parent = Name { identity: record.identity, key };
            self.shared.state.lock().index.has_child(&parent);
        }
        count(&self.shared.counts.stored, 1);
        count(&self.shared.counts.stored_bytes, record.len);
        match (&mut self.open, durable) {
            (Some(open), true) => open.waiting.push(ask),
            _ => ask.answer(Ok(None)),
        }
    }

    /// Answers for a block that is here already and lives as long; else gives the job back.
    fn is_there(&mut self, record: &Record, durable: bool, ask: Ask) -> Option<Ask> {
        let mut state = self.shared.state.lock();
        let hit = state.index.find(&record.name(), self.shared.wall());
        let same = hit.filter(|hit| {
            let there = &hit.listed;
            // What is known of an end is up to a second early.
            let lives = |expires: Option<Wall>| expires.map_or(u64::MAX, |at| at.0 / 1000);
            there.len == record.len
                && there.checksum == record.checksum
                && lives(there.expires) >= lives(record.expires)
        });
        let Some(hit) = same else {
            // Other bytes, or a longer life: what was known before is not found any more.
            let ours = state.index.remove(&record.name());
            state.changed.extend(ours);
            return Some(ask);
        };
        let pack = hit.place.pack;
        let told = state.index.pack(pack).is_some_and(|pack| pack.named > 0);
        drop(state);
        self.shared.buffered.fetch_sub(record.len, Ordering::Relaxed);
        match (hit.source, &mut self.open) {
            _ if !durable => ask.answer(Ok(None)),
            (Source::Stored(_), _) if told => ask.answer(Ok(None)),
            (Source::Memory(_), Some(open)) if open.serial == pack => open.waiting.push(ask),
            // On its way, or no manifest tells of it yet: whoever waits for everything waits for it.
            _ => {
                let due = self.shared.state.lock().uploads.sync(ask);
                Shared::answer_syncs(due);
            }
        }
        None
    }

    fn move_over(&mut self, from: Place, listed: Listed, image: Bytes) {
        let len = image.len() as u64;
        self.shared.buffered.fetch_add(len, Ordering::Relaxed);
        match self.append(listed, image, len, Comes::Moved(from)) {
            Came::Yes => count(&self.shared.counts.reinserted, 1),
            Came::Removed | Came::NoRoom => {
                self.shared.buffered.fetch_sub(len, Ordering::Relaxed);
            }
        }
    }

    /// Adds a block to the pack that is open, or a new one, unless it was removed since it was to come.
    fn append(&mut self, mut listed: Listed, image: Bytes, charge: u64, comes: Comes) -> Came {
        let full =
            |open: &Open| open.size.saturating_add(listed.stored) > self.shared.options.pack_bytes;
        if self.open.as_ref().is_some_and(full) {
            self.close_pack();
        }
        let mut open = self.open.take().unwrap_or_else(|| self.begin());
        listed.offset = u32::try_from(open.size).expect("a pack that takes blocks is below 1 GiB");
        let came = {
            let mut state = self.shared.state.lock();
            let stays = match comes {
                Comes::Stored(number) => !state.queue.is_void(&listed.name, number),
                Comes::Moved(from) => state.index.has(from),
            };
            match stays {
                false => Came::Removed,
                true if !state.index.push(open.serial, &listed, Some(image.clone())) => {
                    Came::NoRoom
                }
                true => {
                    if let Comes::Moved(from) = comes {
                        state.index.inherit(from, open.serial);
                    }
                    Came::Yes
                }
            }
        };
        if came == Came::Yes {
            open.hasher.update(&image);
            open.bytes.push(image);
            open.size += listed.stored;
            open.entries.push(listed);
            open.charged += charge;
        }
        self.open = Some(open);
        came
    }

    fn begin(&mut self) -> Open {
        let mut hasher = blake3::Hasher::new();
        hasher.update(PACK_START);
        let pack = Pack::new(Body::Memory(Vec::new()), true, self.shared.wall());
        let (upload, serial) = {
            let mut state = self.shared.state.lock();
            (state.uploads.begin(), state.index.add(pack))
        };
        Open {
            upload,
            serial,
            hasher,
            bytes: vec![Bytes::from_static(PACK_START)],
            entries: Vec::new(),
            size: PACK_START.len() as u64,
            born: self.shared.options.clock.now(),
            waiting: Vec::new(),
            charged: 0,
        }
    }

    fn close_if_old(&mut self) {
        let Some(open) = &self.open else { return };
        let age = self.shared.options.clock.now().saturating_sub(open.born);
        if age >= self.shared.options.pack_age || open.size >= self.shared.options.pack_bytes {
            self.close_pack();
        }
    }

    fn close_pack(&mut self) {
        let Some(mut open) = self.open.take() else { return };
        if open.entries.is_empty() {
            let mut state = self.shared.state.lock();
            state.index.drop_pack(open.serial);
            let due = state.uploads.end(open.upload, true);
            drop(state);
            return Shared::answer_syncs(due);
        }
        self.sequence += 1;
        let footer = Footer {
            node: self.shared.options.node.clone(),
            session: self.shared.session,
            sequence: self.sequence,
            created: self.shared.wall(),
            entries: std::mem::take(&mut open.entries),
        }
        .encode();
        let trailer = Trailer::of(&footer).encode();
        for end in [footer, trailer] {
            open.hasher.update(&end);
            open.size += end.len() as u64;
            open.bytes.push(Bytes::from(end));
        }
        let closed = Closed {
            upload: open.upload,
            serial: open.serial,
            id: PackId::from_bytes(*open.hasher.finalize().as_bytes()),
            bytes: open.bytes,
            size: open.size,
            waiting: open.waiting,
            charged: open.charged,
        };
        // Whoever uploads ends only when the tier does; the asks are answered as they are dropped.
        let _ = self.closed.send(closed);
    }
}
