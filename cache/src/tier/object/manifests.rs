//! Tells other nodes what is in the bucket. How it is heard from them: [`super::refresh`].
//!
//! Each pack is told of in a manifest right after it was uploaded. Manifests are merged when there are
//! [`MERGE`] of one level, so that there are few of them, and objects are written a few times at most.
//! All manifests that are there count; what is in several of them counts once. So nothing here depends
//! on who wins a race.

use std::sync::Arc;
use std::time::Duration;

use object_store::PutPayload;
use tokio::time::Instant;

use super::fault::{Fault, Kind};
use super::format::{Listing, Manifest};
use super::gates::Right;
use super::index::Serial;
use super::paths::ManifestName;
use super::refresh::Told;
use super::shared::Shared;

/// So many manifests of a level become one of the next.
const MERGE: usize = 8;
/// The highest level; of it there may be any number.
const LEVEL_MAX: u8 = 3;

/// Writes this node's manifests, one after the other.
pub(super) struct Publisher {
    shared: Arc<Shared>,
    next: tokio::sync::Mutex<u64>,
}

impl Publisher {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, next: tokio::sync::Mutex::new(0) }
    }

    /// Tells of a pack that was uploaded at `uploaded_at`.
    pub(super) async fn publish(
        &self,
        serial: Serial,
        uploaded_at: Duration,
        deadline: Instant,
    ) -> Result<(), Fault> {
        let mut next = self.next.lock().await;
        self.write(&mut next, 0, &[serial], deadline).await?;
        // A pack that no manifest named for this long may have been taken for nobody's.
        let waited = self.shared.options.clock.now().saturating_sub(uploaded_at);
        if waited >= self.shared.options.grace / 2 {
            let text = format!("the pack was told of only after {waited:?}");
            return Err(Fault::new(Kind::Lasting, text));
        }
        Ok(())
    }

    /// Merges manifests where there are many.
    pub(super) async fn tidy(&self, deadline: Instant) {
        let mut next = self.next.lock().await;
        if self.may_retire() {
            self.merge(&mut next, deadline).await;
        }
    }

    /// Writes the manifests again that name packs which are gone, and with `changed` also those of which
    /// blocks were removed; at most `max` of them, those with most to tell first.
    pub(super) async fn rewrite(
        &self,
        max: usize,
        changed: bool,
        deadline: Instant,
    ) -> Result<(), Fault> {
        let mut next = self.next.lock().await;
        if !self.may_retire() {
            return Ok(());
        }
        for _ in 0..max {
            let Some((name, packs)) = self.outdated(changed) else { break };
            let kept: Vec<Serial> = {
                let state = self.shared.state.lock();
                packs.iter().copied().filter(|serial| state.index.pack(*serial).is_some()).collect()
            };
            if !kept.is_empty() {
                self.write(&mut next, name.level, &kept, deadline).await?;
            }
            self.retire(&name, deadline).await?;
        }
        Ok(())
    }

    /// Whether manifests can be deleted: where that is not allowed, each merge would only add one, larger than
    /// those before.
    fn may_retire(&self) -> bool {
        self.shared.service.refused(Right::Delete).is_none()
    }

    /// True while a manifest of this node names a pack that is gone.
    pub(super) fn is_behind(&self) -> bool {
        self.outdated(false).is_some()
    }

    /// The manifest of this node that says most of what is not so any more, and its packs.
    fn outdated(&self, changed: bool) -> Option<(ManifestName, Vec<Serial>)> {
        let state = self.shared.state.lock();
        let over = |serial: &&Serial| {
            state.index.pack(**serial).is_none() || changed && state.changed.contains(*serial)
        };
        let count = |told: &Told| told.packs.iter().filter(over).count();
        let worst = state.told_by(&self.shared.options.node).max_by_key(|(_, told)| count(told))?;
        (count(worst.1) > 0).then(|| (worst.0.clone(), worst.1.packs.clone()))
    }

    /// Merges manifests of a level that has enough of them. What fails is done another time.
    async fn merge(&self, next: &mut u64, deadline: Instant) {
        for level in 0..LEVEL_MAX {
            let inputs: Vec<(ManifestName, Vec<Serial>)> = {
                let state = self.shared.state.lock();
                let ours = state.told_by(&self.shared.options.node);
                let ours = ours.filter(|(name, _)| name.level == level);
                ours.map(|(name, told)| (name.clone(), told.packs.clone())).collect()
            };
            if inputs.len() < MERGE {
                return;
            }
            let mut packs: Vec<Serial> =
                inputs.iter().flat_map(|(_, packs)| packs).copied().collect();
            packs.sort_unstable();
            packs.dedup();
            {
                let state = self.shared.state.lock();
                packs.retain(|serial| state.index.pack(*serial).is_some());
            }
            if let Err(fault) = self.write(next, level + 1, &packs, deadline).await {
                tracing::debug!(why = %fault, "manifests could not be merged");
                return;
            }
            for (name, _) in &inputs {
                if self.retire(name, deadline).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Writes one manifest.
    async fn write(
        &self,
        next: &mut u64,
        level: u8,
        packs: &[Serial],
        deadline: Instant,
    ) -> Result<(), Fault> {
        let shared = &self.shared;
        let (manifest, listed, changed) = {
            let mut state = shared.state.lock();
            let last = state.manifests.keys().filter(|name| name.node == shared.options.node);
            *next = last.map(|name| name.sequence).max().unwrap_or(0).max(*next) + 1;
            let mut listings = Vec::with_capacity(packs.len());
            let mut listed = Vec::with_capacity(packs.len());
            for serial in packs {
                let Some(pack) = state.index.pack(*serial) else { continue };
                let Some(id) = pack.id() else { continue };
                let entries = state.index.listed(*serial);
                listings.push(Listing {
                    pack: id,
                    size: pack.size,
                    created: pack.created,
                    entries,
                });
                listed.push(*serial);
            }
            let node = shared.options.node.clone();
            let (session, sequence) = (shared.session, *next);
            // What is removed from now on is not in it.
            let changed: Vec<Serial> =
                listed.iter().copied().filter(|serial| state.changed.remove(serial)).collect();
            (Manifest { node, session, sequence, level, packs: listings }, listed, changed)
        };
        let bytes = manifest.encode();
        let hash = blake3::hash(&bytes);
        let half: [u8; 16] = hash.as_bytes()[..16].try_into().expect("a hash has 32 bytes");
        let name = ManifestName {
            node: manifest.node,
            level,
            sequence: manifest.sequence,
            hash: u128::from_be_bytes(half),
        };
        let payload = PutPayload::from(bytes);
        let put = shared.service.put(&shared.paths.manifest(&name), &payload, deadline).await;
        let mut state = shared.state.lock();
        if let Err(fault) = put {
            state.changed.extend(changed);
            return Err(fault);
        }
        if state.manifests.contains_key(&name) {
            // A refresh was faster.
            return Ok(());
        }
        for serial in &listed {
            if let Some(pack) = state.index.pack_mut(*serial) {
                pack.named += 1;
            }
        }
        state.manifests.insert(name, Told::of(listed));
        Ok(())
    }

    /// Deletes a manifest all of which is said elsewhere, or is not so any more.
    async fn retire(&self, name: &ManifestName, deadline: Instant) -> Result<(), Fault> {
        self.shared.service.delete(&self.shared.paths.manifest(name), deadline).await?;
        self.shared.state.lock().forget_manifest(name, false);
        Ok(())
    }
}
