//! Windows of ours: shown to the peers that know their keys, and taken back.

use std::collections::BTreeSet;

use hashbrown::HashMap;

use super::device::{Exposing, ExposureId, Keys, Part};
use super::fabric::Rdma;
use super::hub::Hub;
use super::link::Link;
use super::words::{PathKeys, Word};
use crate::fabric::{Event, PeerId};
use crate::outcome::Reason;
use crate::time::Time;
use crate::window::WindowId;

/// Questions about one window that wait for its exposures.
const ASKS_MAX: usize = 64;

/// One of our windows, as one peer uses it.
#[derive(Debug, Default)]
pub(super) struct Exposed {
    paths: Vec<Exposure>,
    /// Questions to be answered once all exposures are there.
    asks: Vec<u32>,
}

#[derive(Debug)]
struct Exposure {
    id: ExposureId,
    path: u8,
    generation: u32,
    keys: Option<Keys>,
}

/// A window of ours that is being taken back.
#[derive(Debug)]
pub(super) struct Halting {
    /// Who may still be writing.
    peers: BTreeSet<PeerId>,
    /// When their channels are taken away.
    pub(super) until: Time,
}

impl Link {
    /// The peer asks for a window of ours.
    pub(super) fn asked_for(&mut self, hub: &mut Hub, ask: u32, window: WindowId, key: u64) {
        let part = match hub.control.windows().unlock(window, key) {
            Ok(open) => {
                let grant = &open.grant;
                Part {
                    region: grant.region,
                    offset: grant.offset,
                    len: grant.len,
                    access: grant.access,
                }
            }
            Err(reason) => return hub.tell(self.id, &Word::Denied { ask, reason }),
        };
        let exposed = self.exposed.entry(window).or_default();
        if exposed.asks.len() >= ASKS_MAX {
            return hub.tell(self.id, &Word::Denied { ask, reason: Reason::Full });
        }
        for (number, path) in self.paths.iter().enumerate() {
            let Some(channel) = path.up().filter(|_| part.len > 0) else { continue };
            let (number, generation) = (number as u8, path.generation);
            if exposed.paths.iter().any(|it| (it.path, it.generation) == (number, generation)) {
                continue;
            }
            hub.exposures_ever += 1;
            let id = ExposureId(hub.exposures_ever);
            let device = &mut hub.rails[usize::from(path.rail)].device;
            let keys = match device.expose(id, channel, &part) {
                Ok(Exposing::Now(keys)) => Some(keys),
                Ok(Exposing::Later) => None,
                Err(why) => {
                    tracing::warn!(rail = device.name(), ?window, "not shown to a peer: {why}");
                    continue;
                }
            };
            hub.exposures.insert(id, (self.id, window));
            exposed.paths.push(Exposure { id, path: number, generation, keys });
        }
        exposed.asks.push(ask);
        self.answer(hub, window);
    }

    /// Answers who asked for a window, once all of its exposures are there.
    fn answer(&mut self, hub: &mut Hub, window: WindowId) {
        let Some(exposed) = self.exposed.get_mut(&window) else { return };
        if exposed.paths.iter().any(|it| it.keys.is_none()) {
            return;
        }
        let asks = std::mem::take(&mut exposed.asks);
        let granted = hub.control.windows().get(window).map(|it| (it.grant.len, it.grant.access));
        let keys = |it: &Exposure| {
            Some(PathKeys { path: it.path, generation: it.generation, keys: it.keys? })
        };
        let paths: Vec<_> = exposed.paths.iter().filter_map(keys).collect();
        for ask in asks {
            let word = match granted {
                Some((len, access)) => Word::Opened { ask, len, access, paths: paths.clone() },
                None => Word::Denied { ask, reason: Reason::Stale },
            };
            hub.tell(self.id, &word);
        }
    }

    /// An exposure is there, or cannot be.
    pub(super) fn exposed(&mut self, hub: &mut Hub, id: ExposureId, keys: Result<Keys, String>) {
        let Some(&(_, window)) = hub.exposures.get(&id) else { return };
        let Some(exposed) = self.exposed.get_mut(&window) else { return };
        let Some(place) = exposed.paths.iter().position(|it| it.id == id) else { return };
        match keys {
            Ok(keys) => exposed.paths[place].keys = Some(keys),
            Err(why) => {
                tracing::warn!(?window, "not shown to a peer: {why}");
                let Exposure { id, path, .. } = exposed.paths.swap_remove(place);
                hub.conceal(&self.paths, path, id);
            }
        }
        self.answer(hub, window);
    }

    /// Takes a window back from this peer.
    pub(super) fn conceal(&mut self, hub: &mut Hub, window: WindowId) {
        let Some(exposed) = self.exposed.remove(&window) else { return };
        for ask in exposed.asks {
            hub.tell(self.id, &Word::Denied { ask, reason: Reason::Stale });
        }
        for Exposure { id, path, .. } in exposed.paths {
            hub.conceal(&self.paths, path, id);
        }
    }

    /// Takes all back that was shown over a path.
    pub(super) fn conceal_path(&mut self, hub: &mut Hub, number: u8) {
        let windows: Vec<_> = self.exposed.keys().copied().collect();
        for window in windows {
            let Some(exposed) = self.exposed.get_mut(&window) else { continue };
            let (gone, left) =
                std::mem::take(&mut exposed.paths).into_iter().partition(|it| it.path == number);
            exposed.paths = left;
            let gone: Vec<Exposure> = gone;
            for Exposure { id, path, .. } in gone {
                hub.conceal(&self.paths, path, id);
            }
            self.answer(hub, window);
        }
    }

    /// Takes everything back.
    pub(super) fn conceal_all(&mut self, hub: &mut Hub) {
        let windows: Vec<_> = self.exposed.keys().copied().collect();
        for window in windows {
            self.conceal(hub, window);
        }
    }

    /// The paths over which a window was shown.
    fn shown_over(&self, window: WindowId) -> Vec<u8> {
        let exposed = self.exposed.get(&window);
        exposed.into_iter().flat_map(|it| &it.paths).map(|it| it.path).collect()
    }
}

impl Rdma {
    /// Takes a window back: [`Event::Revoked`] follows when nobody can write to it any more.
    pub(super) fn take_back(&mut self, window: WindowId) {
        self.hub.control.streams().revoke(window);
        let mut peers = BTreeSet::new();
        for link in self.links.values_mut().filter(|it| it.exposed.contains_key(&window)) {
            self.hub.tell(link.id, &Word::Halt { window });
            peers.insert(link.id);
        }
        if peers.is_empty() {
            self.hub.reports.push(Event::Revoked { window });
            return;
        }
        let until = self.hub.now + self.hub.settings.halt_timeout;
        self.hub.next_tick = self.hub.next_tick.min(until);
        self.halting.insert(window, Halting { peers, until });
    }

    /// Nothing of a peer's lands in a window any more.
    pub(super) fn has_halted(&mut self, peer: PeerId, window: WindowId) {
        let Some(halting) = self.halting.get_mut(&window) else { return };
        if let Some(link) = self.links.get_mut(peer) {
            link.conceal(&mut self.hub, window);
        }
        halting.peers.remove(&peer);
        if halting.peers.is_empty() {
            self.halting.remove(&window);
            self.hub.reports.push(Event::Revoked { window });
        }
    }

    /// Nothing of a peer's lands anywhere any more.
    pub(super) fn has_halted_all(&mut self, peer: PeerId) {
        let mut windows: Vec<WindowId> = self.halting.keys().copied().collect();
        windows.sort_unstable();
        windows.into_iter().for_each(|window| self.has_halted(peer, window));
    }

    /// Takes the channels away from those who have not let go of a window in time.
    pub(super) fn tick_halts(&mut self) -> Time {
        let now = self.hub.now;
        let late: Vec<(WindowId, PeerId)> = self
            .halting
            .iter()
            .filter(|(_, it)| it.until <= now)
            .flat_map(|(window, it)| it.peers.iter().map(|peer| (*window, *peer)))
            .collect();
        for (window, peer) in late {
            let Some(link) = self.links.get(peer) else {
                self.has_halted(peer, window);
                continue;
            };
            tracing::warn!(engine = ?link.engine, ?window, "no answer to a revocation");
            for path in link.shown_over(window) {
                self.break_path(peer, path, "its peer does not let go of a window", true);
            }
            self.has_halted(peer, window);
        }
        self.halting.values().map(|it| it.until).min().unwrap_or(Time::NEVER)
    }

    /// What a device reports of an exposure.
    pub(super) fn take_exposure(&mut self, id: ExposureId, keys: Result<Keys, String>) {
        if let Some((peer, _)) = self.hub.exposures.get(&id)
            && let Some(link) = self.links.get_mut(*peer)
        {
            link.exposed(&mut self.hub, id, keys);
        }
    }
}

/// Exposures, and whose and of what they are.
pub(super) type Exposures = HashMap<ExposureId, (PeerId, WindowId)>;
