//! Makes room: what is over, what is too much and what is nobody's leaves the bucket.
//!
//! A pack of this node first leaves the index, then all manifests, then (after [`Options::linger`], so
//! that other nodes hear of it) the bucket. Other nodes' packs are none of its business, but those that
//! no manifest names: [`super::stray`].
//!
//! [`Options::linger`]: super::Options::linger

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;
use tokio::time::Instant;

use super::fault::{Fault, Kind};
use super::index::{Body, Index, Pack, Serial};
use super::manifests::Publisher;
use super::options::Options;
use super::packer::Order;
use super::paths::PackId;
use super::refresh::refresh;
use super::shared::{Shared, count};
use super::stray::Strays;

/// Manifests that are written again in one round.
const REWRITES: usize = 8;
/// Packs that are deleted in one round.
const DELETES: usize = 256;
/// A pack is small below this part of what it should have; so many of them are written as one.
const SMALL: u64 = 16;
/// A pack is written again for so many rounds before that is given up.
const MOVE_ROUNDS: u32 = 8;

/// What a round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Collected {
    /// Packs of this node that left the index.
    pub dropped: u64,
    /// Packs whose blocks were sent to be written again.
    pub moved: u64,
    /// Packs that left the bucket.
    pub deleted: u64,
    /// Packs from before a crash that were told of now.
    pub adopted: u64,
    /// Packs that no manifest names, among those that were looked at.
    pub strays: u64,
}

/// Packs of which little can still be found; or, when there are many, some that are much smaller than
/// they should be. No more than one pack can take.
fn worth_moving(index: &Index, options: &Options) -> Vec<Serial> {
    let ours = index.packs().filter(|(_, pack)| {
        pack.ours && pack.named > 0 && pack.live() > 0 && matches!(pack.body, Body::Stored(_))
    });
    let (mut dying, mut small) = (Vec::new(), Vec::new());
    for (serial, pack) in ours {
        let live = pack.live_stored_bytes();
        if pack.dead() > 0 && live * 100 < pack.size * u64::from(options.compact_below) {
            dying.push((serial, live));
        } else if pack.size < options.pack_bytes / SMALL {
            small.push((serial, live));
        }
    }
    if small.len() >= SMALL as usize {
        dying.extend(small);
    }
    let mut bytes = 0;
    let fits = dying.into_iter().take_while(|(_, live)| {
        bytes += live;
        bytes <= options.pack_bytes
    });
    fits.map(|(serial, _)| serial).collect()
}

/// Does one round after the other.
pub(super) struct Collector {
    shared: Arc<Shared>,
    publisher: Arc<Publisher>,
    orders: Sender<Order>,
    strays: Strays,
    /// Packs that left the index, and since when no manifest of this node names them.
    leaving: HashMap<PackId, Option<Duration>>,
    /// Packs that are being written again, and for how many rounds.
    moving: Vec<Serial>,
    rounds: u32,
}

impl Collector {
    pub(super) fn new(
        shared: Arc<Shared>,
        publisher: Arc<Publisher>,
        orders: Sender<Order>,
    ) -> Self {
        let strays = Strays::new(Arc::clone(&shared), Arc::clone(&publisher));
        let (leaving, moving) = (HashMap::new(), Vec::new());
        Self { shared, publisher, orders, strays, leaving, moving, rounds: 0 }
    }

    /// One round of everything, bounded.
    pub(super) async fn round(&mut self, deadline: Instant) -> Result<Collected, Fault> {
        let mut collected = Collected::default();
        self.shared.sweep();
        collected.dropped += self.drop_what_must();
        collected.moved += self.compact(deadline).await;
        // Where nothing more can be written, room is still made of what was due before.
        let rewritten = self.publisher.rewrite(REWRITES, false, deadline).await;
        // Nobody may name what is deleted: what others told meanwhile is heard before.
        refresh(&self.shared, deadline).await?;
        collected.deleted += self.delete_left(deadline).await?;
        rewritten?;
        self.strays.round(&self.leaving, &mut collected, deadline).await?;
        Ok(collected)
    }

    /// Only makes the index forget what is too much.
    pub(super) async fn make_room(&mut self, deadline: Instant) -> Result<(), Fault> {
        if self.drop_what_must() > 0 {
            self.publisher.rewrite(REWRITES, false, deadline).await?;
        }
        Ok(())
    }

    /// Packs of this node without a block, and the least used ones of those that are too many, in the
    /// bucket or in the index.
    fn drop_what_must(&mut self) -> u64 {
        let capacity = self.shared.options.capacity_bytes;
        let mut all: Vec<(bool, u64, Serial, u64, u32)> = {
            let state = self.shared.state.lock();
            let there = state
                .index
                .packs()
                .filter(|(_, pack)| pack.named > 0 && matches!(pack.body, Body::Stored(_)));
            there
                .map(|(serial, pack)| (pack.ours, pack.used, serial, pack.size, pack.live()))
                .collect()
        };
        // Those of others first: leaving them out costs this node a miss and nobody else anything.
        all.sort_unstable();
        let own = all.iter().filter(|(ours, ..)| *ours);
        let mut bytes = own.map(|(_, _, _, size, _)| size).sum::<u64>();
        let mut dropped = 0;
        for (ours, _, serial, size, live) in all {
            let crowded =
                self.shared.state.lock().memory_bytes() > self.shared.options.index_bytes_max;
            if !ours {
                if crowded {
                    self.shared.state.lock().leave_out(serial);
                }
            } else if live == 0 || bytes > capacity || crowded {
                bytes -= size;
                dropped += 1;
                let blocks = self.drop_pack(serial);
                count(&self.shared.counts.evicted, blocks);
            }
        }
        dropped
    }

    /// How many blocks were in it.
    fn drop_pack(&mut self, serial: Serial) -> u64 {
        let mut state = self.shared.state.lock();
        let Some(id) = state.index.pack(serial).and_then(Pack::id) else { return 0 };
        state.by_id.remove(&id);
        self.leaving.insert(id, None);
        state.index.drop_pack(serial)
    }

    /// Sends the blocks of packs that are mostly dead, or small, to be written again; drops those of
    /// which that was done.
    async fn compact(&mut self, deadline: Instant) -> u64 {
        let now = self.shared.options.clock.now();
        if self.shared.state.lock().visited_until > now {
            return 0;
        }
        if !self.moving.is_empty() {
            let moving = std::mem::take(&mut self.moving);
            self.rounds += 1;
            for serial in moving {
                if self.shared.state.lock().index.is_elsewhere(serial) {
                    self.drop_pack(serial);
                } else if self.rounds < MOVE_ROUNDS {
                    self.moving.push(serial);
                }
            }
            return 0;
        }
        self.rounds = 0;
        let packs = worth_moving(&self.shared.state.lock().index, &self.shared.options);
        for serial in packs {
            match self.send_again(serial, deadline).await {
                Ok(()) => self.moving.push(serial),
                Err(fault) if fault.kind == Kind::Missing => {
                    self.drop_pack(serial);
                }
                Err(fault) => tracing::debug!(why = %fault, "a pack could not be read to be moved"),
            }
        }
        self.moving.len() as u64
    }

    async fn send_again(&self, serial: Serial, deadline: Instant) -> Result<(), Fault> {
        let (pack, live) = {
            let state = self.shared.state.lock();
            let Some(id) = state.index.pack(serial).and_then(Pack::id) else { return Ok(()) };
            (id, state.index.live_places(serial))
        };
        let path = self.shared.paths.pack(&pack);
        for (from, listed) in live {
            let range = u64::from(listed.offset)..listed.end();
            let bytes = self.shared.service.read(&path, range, deadline).await?;
            if super::image::is_whole(&listed, &bytes) {
                let image = Bytes::from(bytes);
                // When the packer has ended, nothing moves.
                let _ = self.orders.send(Order::Move { from, listed, image });
            } else {
                count(&self.shared.counts.corrupt, 1);
                let mut state = self.shared.state.lock();
                state.index.forget(from);
                state.changed.insert(serial);
            }
        }
        Ok(())
    }

    /// Deletes packs that have not been named for long enough.
    async fn delete_left(&mut self, deadline: Instant) -> Result<u64, Fault> {
        if self.shared.state.lock().is_unknown(&self.shared.options.node) {
            return Ok(0);
        }
        let now = self.shared.options.clock.now();
        let unnamed = !self.publisher.is_behind();
        for since in self.leaving.values_mut().filter(|since| since.is_none() && unnamed) {
            *since = Some(now);
        }
        let linger = self.shared.options.linger;
        let over = |since: &Option<Duration>| {
            since.is_some_and(|since| now.saturating_sub(since) >= linger)
        };
        let due: Vec<PackId> =
            self.leaving.iter().filter(|(_, since)| over(since)).map(|(id, _)| *id).collect();
        let mut deleted = 0;
        for id in due.into_iter().take(DELETES) {
            if self.shared.state.lock().by_id.contains_key(&id) {
                // Somebody else names it.
                self.leaving.remove(&id);
                continue;
            }
            self.shared.service.delete(&self.shared.paths.pack(&id), deadline).await?;
            self.leaving.remove(&id);
            deleted += 1;
        }
        Ok(deleted)
    }
}
