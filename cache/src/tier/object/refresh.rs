//! Hears from other nodes what is in the bucket, and from this one what it told in earlier runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::time::{Instant, timeout_at};

use super::fault::{Fault, Kind};
use super::format::{Listed, Manifest};
use super::index::{Body, Index, Pack, Serial};
use super::paths::{ManifestName, PackId};
use super::shared::{Shared, State, count};

/// The largest manifest that is read, bytes.
const MANIFEST_BYTES_MAX: u64 = 1 << 30;
/// Manifests that are read at the same time.
const READS: usize = 8;
/// A manifest that was listed and is gone was merged: the listing is made again so often.
const LISTINGS: u32 = 4;

/// What a manifest tells of.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) packs: Vec<Serial>,
    /// Packs that are left out because the index has no room.
    pub(super) left_out: BTreeSet<PackId>,
}

impl Told {
    pub(super) fn of(packs: Vec<Serial>) -> Self {
        Self { packs, left_out: BTreeSet::new() }
    }
}

/// What a refresh brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Refreshed {
    /// Packs that were not known.
    pub(super) packs: u64,
    /// Which manifests could not be had, and why; what they tell is tried the next time.
    pub(super) missed: Option<String>,
}

/// Reads manifests that are new and forgets those that are gone; one that cannot be had holds no other
/// up.
pub(super) async fn refresh(shared: &Arc<Shared>, deadline: Instant) -> Result<Refreshed, Fault> {
    // One at a time: two would count what a manifest names twice.
    let Ok(_alone) = timeout_at(deadline, shared.refreshing.lock()).await else {
        return Err(Fault::late());
    };
    let mut refreshed = Refreshed::default();
    for _ in 0..LISTINGS {
        let known = shared.state.lock().known(shared.options.index_bytes_max);
        let objects = shared.service.list(&shared.paths.manifests(), deadline).await?;
        let there: Vec<(ManifestName, u64)> = objects
            .iter()
            .filter_map(|object| Some((shared.paths.manifest_of(&object.location)?, object.size)))
            .collect();
        let mut new = there.clone();
        new.retain(|(name, _)| known.get(name) != Some(&true));
        let mut reads = stream::iter(new)
            .map(|(name, size)| async move {
                let result = read(shared, &name, size, deadline).await;
                (name, result)
            })
            .buffer_unordered(READS);
        let mut gone = false;
        let mut missed = BTreeMap::new();
        while let Some((name, result)) = reads.next().await {
            match result {
                Ok(manifest) => refreshed.packs += apply(shared, &name, manifest),
                Err(fault) if fault.kind == Kind::Missing => gone = true,
                Err(fault) => drop(missed.insert(name, fault.text)),
            }
        }
        drop(reads);
        if gone {
            continue;
        }
        refreshed.missed = missed.first_key_value().map(|(name, why)| {
            let (path, others) = (shared.paths.manifest(name), missed.len() - 1);
            format!("{path} cannot be read: {why}; {others} others cannot either")
        });
        let there: BTreeSet<ManifestName> = there.into_iter().map(|(name, _)| name).collect();
        let mut state = shared.state.lock();
        for name in known.keys().filter(|name| !there.contains(name)) {
            state.forget_manifest(name, true);
        }
        state.looked |= missed.keys().all(|name| name.node != shared.options.node);
        state.missed = missed;
        return Ok(refreshed);
    }
    Err(Fault::new(Kind::Passing, "manifests change faster than they can be read"))
}

/// None for one that is damaged or of another version: it is named in the log, and not read again.
async fn read(
    shared: &Shared,
    name: &ManifestName,
    size: u64,
    deadline: Instant,
) -> Result<Option<Manifest>, Fault> {
    let path = shared.paths.manifest(name);
    if size > MANIFEST_BYTES_MAX {
        tracing::warn!(%path, size, "a manifest is too large to be read");
        return Ok(None);
    }
    for _ in 0..2 {
        let bytes = shared.service.read(&path, 0..size, deadline).await?;
        match Manifest::decode(&bytes) {
            Ok(manifest) => return Ok(Some(manifest)),
            Err(error) => tracing::warn!(%path, %error, "a manifest cannot be read"),
        }
    }
    Ok(None)
}

/// Adds what a manifest names; how many packs were not known. Pack by pack, so that the lock is short; the
/// manifest itself is known at the end, with all that it names, and not before: it may be merged then.
fn apply(shared: &Shared, name: &ManifestName, manifest: Option<Manifest>) -> u64 {
    let (ours, options) = (name.node == shared.options.node, &shared.options);
    let again = {
        let mut state = shared.state.lock();
        match &manifest {
            Some(manifest) => {
                state.unreadable.remove(name);
                // One may be what a daemon that was killed had under way; whoever lives goes on.
                let session = manifest.session;
                if ours && state.looked && session != shared.session {
                    state.twin |= state.stranger.replace(session) == Some(session);
                }
            }
            None => drop(state.unreadable.insert(name.clone())),
        }
        match state.manifests.get(name) {
            // This node wrote it meanwhile.
            Some(told) if told.left_out.is_empty() => return 0,
            told => told.is_some(),
        }
    };
    let (mut named, mut left_out) = (Vec::new(), BTreeSet::new());
    let mut new = 0;
    for listing in manifest.map(|manifest| manifest.packs).unwrap_or_default() {
        let mut state = shared.state.lock();
        if again && !state.left_out.contains_key(&listing.pack) {
            continue;
        }
        let mut serial = state.by_id.get(&listing.pack).copied();
        if serial.is_none() {
            let memory = state.memory_bytes() + Index::memory_of(listing.entries.len());
            if !ours && memory > options.index_bytes_max {
                left_out.insert(listing.pack);
                continue;
            }
            let mut pack = Pack::new(Body::Stored(listing.pack), ours, listing.created);
            pack.size = listing.size;
            serial = Some(state.adopt(pack, listing.pack, &listing.entries, options.grace));
            new += 1;
            if ours {
                count(&shared.counts.recovered, listing.entries.len() as u64);
            }
        }
        if let Some(pack) =
            serial.filter(|_| !again).and_then(|serial| state.index.pack_mut(serial))
        {
            pack.named += 1;
        }
        named.extend(serial.map(|serial| (serial, listing.pack)));
    }
    if !again {
        shared.state.lock().told(name, ours, named, left_out);
    }
    new
}

impl State {
    /// The manifests that are known, and whether all that they tell is; with room in the index, what was
    /// left out is to be read again.
    fn known(&self, memory_max: u64) -> BTreeMap<ManifestName, bool> {
        let room = self.memory_bytes() < memory_max / 4 * 3;
        let known = self.manifests.iter();
        known.map(|(name, told)| (name.clone(), !room || told.left_out.is_empty())).collect()
    }

    /// Manifests of a node, and what they tell; those that cannot be read tell something that nobody knows
    /// here, and are to be left as they are.
    pub(super) fn told_by(&self, node: &str) -> impl Iterator<Item = (&ManifestName, &Told)> {
        let readable = |name: &ManifestName| !self.unreadable.contains(name);
        self.manifests.iter().filter(move |(name, _)| name.node == node && readable(name))
    }

    /// Adds a pack that is in the bucket, without those blocks that were removed here after it was made;
    /// manifests that left it out name it from now on.
    pub(super) fn adopt(
        &mut self,
        pack: Pack,
        id: PackId,
        entries: &[Listed],
        apart: Duration,
    ) -> Serial {
        let (created, ours) = (pack.created, pack.ours);
        let serial = self.index.add(pack);
        self.by_id.insert(id, serial);
        for entry in entries {
            if !self.removed.hides(&entry.name, created, apart) {
                self.index.push(serial, entry, None);
            } else if ours {
                self.changed.insert(serial);
            }
        }
        if self.left_out.remove(&id).is_some() {
            let mut named = 0;
            for told in self.manifests.values_mut() {
                if told.left_out.remove(&id) {
                    told.packs.push(serial);
                    named += 1;
                }
            }
            if let Some(pack) = self.index.pack_mut(serial) {
                pack.named = named;
            }
        }
        serial
    }

    /// A manifest is known, and names these packs, as they count already.
    fn told(
        &mut self,
        name: &ManifestName,
        ours: bool,
        named: Vec<(Serial, PackId)>,
        left_out: BTreeSet<PackId>,
    ) {
        if self.manifests.contains_key(name) {
            // This node wrote it meanwhile, and counted them too.
            for (serial, _) in named {
                if let Some(pack) = self.index.pack_mut(serial) {
                    pack.named = pack.named.saturating_sub(1);
                }
            }
            return;
        }
        let mut told = Told { packs: Vec::with_capacity(named.len()), left_out };
        for (serial, id) in named {
            // Another node's may have been left out again since.
            if ours || self.index.pack(serial).is_some() {
                told.packs.push(serial);
            } else {
                told.left_out.insert(id);
            }
        }
        for id in &told.left_out {
            *self.left_out.entry(*id).or_default() += 1;
        }
        self.manifests.insert(name.clone(), told);
    }

    /// Forgets another node's pack for want of room; it stays where it is.
    pub(super) fn leave_out(&mut self, serial: Serial) {
        let Some(id) = self.index.pack(serial).and_then(Pack::id) else { return };
        for told in self.manifests.values_mut() {
            let before = told.packs.len();
            told.packs.retain(|other| *other != serial);
            if told.packs.len() < before && told.left_out.insert(id) {
                *self.left_out.entry(id).or_default() += 1;
            }
        }
        self.by_id.remove(&id);
        self.index.drop_pack(serial);
    }

    /// A manifest is gone: packs of others that no other one names are not known any more.
    pub(super) fn forget_manifest(&mut self, name: &ManifestName, of_others: bool) {
        self.unreadable.remove(name);
        let Some(told) = self.manifests.remove(name) else { return };
        for id in told.left_out {
            if let Some(manifests) = self.left_out.get_mut(&id) {
                *manifests -= 1;
                if *manifests == 0 {
                    self.left_out.remove(&id);
                }
            }
        }
        for serial in told.packs {
            let Some(pack) = self.index.pack_mut(serial) else { continue };
            pack.named = pack.named.saturating_sub(1);
            if of_others && pack.named == 0 && !matches!(pack.body, Body::Memory(_)) {
                let id = pack.id();
                self.index.drop_pack(serial);
                if let Some(id) = id {
                    self.by_id.remove(&id);
                }
            }
        }
    }
}
