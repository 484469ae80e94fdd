//! Packs that no manifest names, and nodes that are gone.
//!
//! Such a pack is one that was just uploaded, or one whose node went down before it could tell of it.
//! The first kind is told of within half of the grace, or never; so what is older, and has been seen
//! unnamed by this very daemon for all of the grace, is nobody's. Both are asked for because clocks jump:
//! the age is a difference between two times that the service itself noted, the watch is kept by a clock
//! that never jumps.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use object_store::{ObjectMeta, PutPayload};
use tokio::time::Instant;

use super::collect::Collected;
use super::fault::Fault;
use super::format::{Footer, TRAILER_BYTES, Trailer};
use super::index::{Body, Pack};
use super::manifests::Publisher;
use super::paths::{PackId, SHARDS};
use super::refresh::refresh;
use super::shared::{Shared, count};

/// Strays that are watched at the same time.
const WATCHED_MAX: usize = 100_000;
/// Footers that are read in one round.
const FOOTERS: usize = 32;
/// The largest footer that is read, bytes.
const FOOTER_BYTES_MAX: u64 = 1 << 30;
/// Packs and manifests that are deleted in one round.
const DELETES: usize = 256;
/// A node shows that it lives so many times in the time after which it would be given up.
const SIGNS: u32 = 16;

/// What is known of a stray.
#[derive(Clone, Copy, Debug)]
struct Stray {
    first_seen: Duration,
    /// Its footer was read: it is not one of this node's from before a crash.
    foreign: bool,
}

/// Looks through the folders of packs, some in each round.
pub(super) struct Strays {
    shared: Arc<Shared>,
    publisher: Arc<Publisher>,
    shard: u16,
    watched: HashMap<PackId, Stray>,
    /// When nodes that are gone were last looked for.
    last_look: Option<Duration>,
}

impl Strays {
    pub(super) fn new(shared: Arc<Shared>, publisher: Arc<Publisher>) -> Self {
        Self { shared, publisher, shard: 0, watched: HashMap::new(), last_look: None }
    }

    pub(super) async fn round(
        &mut self,
        leaving: &HashMap<PackId, Option<Duration>>,
        collected: &mut Collected,
        deadline: Instant,
    ) -> Result<(), Fault> {
        self.nodes(deadline).await?;
        let mut strays = Vec::new();
        for _ in 0..self.shared.options.collect_shards.min(SHARDS) {
            let shard = self.shard as u8;
            self.shard = (self.shard + 1) % SHARDS;
            let objects =
                self.shared.service.list(&self.shared.paths.shard(shard), deadline).await?;
            let mut there = Vec::with_capacity(objects.len());
            for object in objects {
                if let Some(id) = self.shared.paths.pack_of(&object.location) {
                    there.push((id, object));
                }
            }
            let in_shard = |id: &PackId| id.as_bytes()[0] == shard;
            let state = self.shared.state.lock();
            there.retain(|(id, _)| !state.names(id) && !leaving.contains_key(id));
            drop(state);
            self.watched
                .retain(|id, _| !in_shard(id) || there.iter().any(|(other, _)| other == id));
            strays.extend(there);
        }
        collected.strays += strays.len() as u64;
        if strays.is_empty() {
            return Ok(());
        }
        // The service's own time, by what it says of an object that was just written.
        let now = self.sign(deadline).await?;
        let mut footers = 0;
        let mut over = Vec::new();
        for (id, object) in strays {
            let seen = self.shared.options.clock.now();
            let known = self.watched.get(&id).copied();
            let mut stray = known.unwrap_or(Stray { first_seen: seen, foreign: false });
            let age = age_of(&object, now);
            if !stray.foreign && age < self.shared.options.grace / 2 && footers < FOOTERS {
                footers += 1;
                match self.adopt(id, &object, deadline).await? {
                    Adopted::Yes => {
                        collected.adopted += 1;
                        self.watched.remove(&id);
                        continue;
                    }
                    Adopted::NotOurs => stray.foreign = true,
                    // It may be on its way to a manifest.
                    Adopted::OfThisRun => {}
                }
            }
            let watched = seen.saturating_sub(stray.first_seen);
            if age >= self.shared.options.grace && watched >= self.shared.options.grace {
                over.push(id);
            }
            if self.watched.len() < WATCHED_MAX || known.is_some() {
                self.watched.insert(id, stray);
            }
        }
        self.delete(over, collected, deadline).await
    }

    /// Deletes strays, after one more look at all manifests.
    async fn delete(
        &mut self,
        over: Vec<PackId>,
        collected: &mut Collected,
        deadline: Instant,
    ) -> Result<(), Fault> {
        if over.is_empty() {
            return Ok(());
        }
        refresh(&self.shared, deadline).await?;
        for id in over.into_iter().take(DELETES) {
            if self.shared.state.lock().names(&id) {
                continue;
            }
            self.shared.service.delete(&self.shared.paths.pack(&id), deadline).await?;
            self.watched.remove(&id);
            collected.deleted += 1;
        }
        Ok(())
    }

    /// Tells of a pack that this node uploaded before it went down.
    async fn adopt(
        &self,
        id: PackId,
        object: &ObjectMeta,
        deadline: Instant,
    ) -> Result<Adopted, Fault> {
        let Some(footer) = self.footer(object, deadline).await? else {
            return Ok(Adopted::NotOurs);
        };
        if footer.node != self.shared.options.node {
            return Ok(Adopted::NotOurs);
        }
        if footer.session == self.shared.session {
            return Ok(Adopted::OfThisRun);
        }
        let seen = self.shared.options.clock.now();
        let (serial, upload) = {
            let mut state = self.shared.state.lock();
            if state.by_id.contains_key(&id) {
                return Ok(Adopted::OfThisRun);
            }
            let mut pack = Pack::new(Body::Stored(id), true, footer.created);
            pack.size = object.size;
            let serial = state.adopt(pack, id, &footer.entries, self.shared.options.grace);
            // Who stores one of its blocks for good waits until it is told of.
            (serial, state.uploads.begin())
        };
        count(&self.shared.counts.recovered, footer.entries.len() as u64);
        let published = self.publisher.publish(serial, seen, deadline).await;
        let due = {
            let mut state = self.shared.state.lock();
            if published.is_err() {
                state.index.drop_pack(serial);
                state.by_id.remove(&id);
            }
            state.uploads.end(upload, published.is_ok())
        };
        Shared::answer_syncs(due);
        self.shared.quiet.wake();
        published.map(|()| Adopted::Yes)
    }

    /// None for what is no pack.
    async fn footer(
        &self,
        object: &ObjectMeta,
        deadline: Instant,
    ) -> Result<Option<Footer>, Fault> {
        let service = &self.shared.service;
        let Some(at) = object.size.checked_sub(TRAILER_BYTES) else { return Ok(None) };
        let tail = service.read(&object.location, at..object.size, deadline).await?;
        let Ok(trailer) = Trailer::decode(&tail) else { return Ok(None) };
        if trailer.footer_bytes > FOOTER_BYTES_MAX {
            return Ok(None);
        }
        let Some(begin) = at.checked_sub(trailer.footer_bytes) else { return Ok(None) };
        let bytes = service.read(&object.location, begin..at, deadline).await?;
        Ok(Footer::decode(&bytes, trailer, begin).ok())
    }

    /// Shows that this node lives; the service's time.
    async fn sign(&self, deadline: Instant) -> Result<Time, Fault> {
        let path = self.shared.paths.node(&self.shared.options.node);
        let payload = PutPayload::from_static(b"lives");
        self.shared.service.put(&path, &payload, deadline).await?;
        let object = self.shared.service.head(&path, deadline).await?;
        Ok(time_of(&object))
    }

    /// Forgets what nodes told that have shown no sign of life for too long.
    async fn nodes(&mut self, deadline: Instant) -> Result<(), Fault> {
        let abandoned = self.shared.options.abandoned;
        let now = self.shared.options.clock.now();
        let lately = |last: Duration| now.saturating_sub(last) < abandoned / SIGNS;
        if abandoned.is_zero() || self.last_look.is_some_and(lately) {
            return Ok(());
        }
        let looked_at = now;
        let now = self.sign(deadline).await?;
        let service = &self.shared.service;
        let mut signs: HashMap<String, Time> = HashMap::new();
        let mut note = |node: String, time: Time| {
            let last = signs.entry(node).or_insert(time);
            *last = (*last).max(time);
        };
        for object in service.list(&self.shared.paths.nodes(), deadline).await? {
            if let Some(node) = object.location.filename() {
                note(node.to_owned(), time_of(&object));
            }
        }
        let manifests = service.list(&self.shared.paths.manifests(), deadline).await?;
        let named = manifests
            .iter()
            .filter_map(|object| Some((self.shared.paths.manifest_of(&object.location)?, object)));
        let named: Vec<_> = named.collect();
        for (name, object) in &named {
            note(name.node.clone(), time_of(object));
        }
        let gone = |node: &str| {
            let silent = signs.get(node).is_some_and(|last| between(*last, now) >= abandoned);
            silent && node != self.shared.options.node
        };
        for (name, object) in named.into_iter().filter(|(name, _)| gone(&name.node)).take(DELETES) {
            tracing::info!(
                node = name.node,
                "a node has been silent for too long and is forgotten"
            );
            service.delete(&object.location, deadline).await?;
        }
        self.last_look = Some(looked_at);
        Ok(())
    }
}

enum Adopted {
    Yes,
    NotOurs,
    OfThisRun,
}

/// Milliseconds since 1970 as the service counts them.
type Time = i64;

fn time_of(object: &ObjectMeta) -> Time {
    object.last_modified.timestamp_millis()
}

fn between(earlier: Time, later: Time) -> Duration {
    Duration::from_millis(later.saturating_sub(earlier).max(0).unsigned_abs())
}

fn age_of(object: &ObjectMeta, now: Time) -> Duration {
    between(time_of(object), now)
}
