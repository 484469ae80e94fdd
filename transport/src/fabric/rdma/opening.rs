//! Windows: asking for those of a peer, showing it ours, and taking ours back.

use std::collections::{BTreeSet, HashMap};

use super::device::{Completion, Exposing, ExposureId, Keys, Part};
use super::fabric::{Hub, Rdma};
use super::link::{Link, OpRef};
use super::words::{PathKeys, Word};
use crate::fabric::{Event, PeerId};
use crate::outcome::Reason;
use crate::time::Time;
use crate::window::{Access, WindowId};

/// Questions about one window that wait for its exposures.
const ASKS_MAX: usize = 64;

/// A window of the peer's.
#[derive(Debug)]
pub(super) struct Opened {
    /// What opens it, as the descriptor says.
    key: u64,
    state: Standing,
    /// Operations that wait for the peer's answer.
    pub(super) waiting: Vec<OpRef>,
    /// Operations that use it.
    pub(super) under_way: u32,
    /// The paths that were up when the peer was asked, and their generations.
    asked_with: Vec<(u8, u32)>,
    /// What the peer was asked while the window is open: keys for paths that came up since.
    refresh: u32,
}

#[derive(Debug)]
enum Standing {
    /// The peer is asked once there are paths.
    Unasked,
    /// The peer was asked.
    Asking(u32),
    /// It is open: how long it is, what it grants, and its keys by path.
    Open { len: u64, access: Access, paths: Vec<PathKeys> },
    /// The peer wants it back; it is told when nothing is under way.
    Halting,
}

/// Whether an operation may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// It is known what may be done.
    Known,
    /// It waits for the peer's answer.
    Wait,
}

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

impl Opened {
    /// Whether this may be done.
    pub(super) fn admit(
        &self,
        key: u64,
        access: Access,
        offset: u64,
        reach: u64,
    ) -> Result<(), Reason> {
        if key != self.key {
            return Err(Reason::Forged);
        }
        let Standing::Open { len, access: granted, .. } = &self.state else {
            return Err(Reason::Stale);
        };
        if !granted.allows(access) {
            return Err(Reason::Denied);
        }
        if offset.checked_add(reach).is_none_or(|end| end > *len) {
            return Err(Reason::OutOfBounds);
        }
        Ok(())
    }

    /// Its keys over the present channel of a path.
    pub(super) fn keys(&self, path: usize, generation: u32) -> Option<Keys> {
        let Standing::Open { paths, .. } = &self.state else { return None };
        let found = |it: &&PathKeys| usize::from(it.path) == path && it.generation == generation;
        paths.iter().find(found).map(|it| it.keys)
    }
}

// ---- theirs ----------------------------------------------------------------------------------

impl Link {
    /// Finds out what may be done with a window of the peer's; asks it if need be.
    pub(super) fn open(&mut self, hub: &mut Hub, window: WindowId, key: u64, at: OpRef) -> Opening {
        if let Some(opened) = self.opened.get_mut(&window) {
            if matches!(opened.state, Standing::Asking(_) | Standing::Unasked) {
                opened.waiting.push(at);
                return Opening::Wait;
            }
            return Opening::Known;
        }
        let state = match self.pending {
            Some(_) => Standing::Unasked,
            None => Standing::Asking(self.ask(hub, window, key)),
        };
        let asked_with = self.live();
        let opened = Opened { key, state, waiting: vec![at], under_way: 0, asked_with, refresh: 0 };
        self.opened.insert(window, opened);
        Opening::Wait
    }

    /// The paths that are up, and their generations.
    fn live(&self) -> Vec<(u8, u32)> {
        let up = self.paths.iter().enumerate().filter(|(_, path)| path.up().is_some());
        up.map(|(number, path)| (number as u8, path.generation)).collect()
    }

    /// Asks for all windows that were to wait for paths.
    pub(super) fn ask_all(&mut self, hub: &mut Hub) {
        let unasked = |(window, it): (&WindowId, &Opened)| {
            matches!(it.state, Standing::Unasked).then_some((*window, it.key))
        };
        let mut windows: Vec<_> = self.opened.iter().filter_map(unasked).collect();
        windows.sort_unstable();
        for (window, key) in windows {
            let (ask, asked_with) = (self.ask(hub, window, key), self.live());
            if let Some(opened) = self.opened.get_mut(&window) {
                opened.state = Standing::Asking(ask);
                opened.asked_with = asked_with;
            }
        }
    }

    fn ask(&mut self, hub: &mut Hub, window: WindowId, key: u64) -> u32 {
        self.asks_ever = self.asks_ever.wrapping_add(1);
        let ask = self.asks_ever;
        hub.tell(self.id, &Word::Open { ask, window, key });
        ask
    }

    /// Asks for the keys of an open window once more: some paths have none.
    pub(super) fn refresh(&mut self, hub: &mut Hub, window: WindowId) {
        let live = self.live();
        let Some(opened) = self.opened.get(&window) else { return };
        let open = matches!(opened.state, Standing::Open { .. });
        if !open || live.iter().all(|path| opened.asked_with.contains(path)) {
            return;
        }
        let ask = self.ask(hub, window, opened.key);
        if let Some(opened) = self.opened.get_mut(&window) {
            (opened.refresh, opened.asked_with) = (ask, live);
        }
    }

    /// The window for which the peer was asked so.
    fn asked(&self, ask: u32) -> Option<WindowId> {
        let it = |opened: &Opened| match opened.state {
            Standing::Asking(it) => it == ask,
            Standing::Open { .. } => opened.refresh == ask,
            Standing::Unasked | Standing::Halting => false,
        };
        self.opened.iter().find(|(_, opened)| it(opened)).map(|(window, _)| *window)
    }

    /// The peer opens a window to us.
    pub(super) fn admitted(
        &mut self,
        hub: &mut Hub,
        ask: u32,
        (len, access): (u64, Access),
        paths: Vec<PathKeys>,
    ) {
        let Some(window) = self.asked(ask) else { return };
        let Some(opened) = self.opened.get_mut(&window) else { return };
        opened.state = Standing::Open { len, access, paths };
        let waiting = std::mem::take(&mut opened.waiting);
        for at in waiting {
            let Some(op) = self.op(at) else { continue };
            if op.cancel.is_some() {
                continue;
            }
            if let Err(reason) = self.begin(at) {
                self.refuse(hub, at, reason);
            }
        }
        hub.eager(self);
    }

    /// The peer does not open a window to us.
    pub(super) fn denied(&mut self, hub: &mut Hub, ask: u32, reason: Reason) {
        let Some(window) = self.asked(ask) else { return };
        if matches!(self.opened[&window].state, Standing::Open { .. }) {
            // Its end is announced by another word.
            return;
        }
        let Some(opened) = self.opened.remove(&window) else { return };
        for at in opened.waiting {
            let Some(op) = self.op(at) else { continue };
            let key = op.remote.key.key;
            if key == opened.key {
                self.refuse(hub, at, reason);
            } else {
                // Somebody else's key was wrong.
                self.open(hub, window, key, at);
            }
        }
    }

    /// Ends an operation that does not use its window.
    fn refuse(&mut self, hub: &mut Hub, at: OpRef, reason: Reason) {
        if let Some(op) = self.op(at) {
            op.cancel = Some(reason);
            self.finish(hub, at);
        }
    }

    /// An operation ends.
    pub(super) fn leave_window(&mut self, hub: &mut Hub, window: WindowId, at: OpRef) {
        let Some(opened) = self.opened.get_mut(&window) else { return };
        if let Some(place) = opened.waiting.iter().position(|it| *it == at) {
            opened.waiting.swap_remove(place);
            return;
        }
        opened.under_way = opened.under_way.saturating_sub(1);
        if opened.under_way == 0 && matches!(opened.state, Standing::Halting) {
            self.opened.remove(&window);
            hub.tell(self.id, &Word::Halted { window });
        }
    }

    /// An operation waits no longer for an answer.
    pub(super) fn unwait(&mut self, at: OpRef) {
        for opened in self.opened.values_mut() {
            let before = opened.waiting.len();
            opened.waiting.retain(|it| *it != at);
            if opened.waiting.len() != before {
                // It is counted when it is taken out.
                opened.under_way += 1;
            }
        }
    }

    /// The peer takes a window back.
    pub(super) fn halt(&mut self, hub: &mut Hub, window: WindowId) {
        let Some(opened) = self.opened.get_mut(&window) else {
            return hub.tell(self.id, &Word::Halted { window });
        };
        opened.state = Standing::Halting;
        let waiting = std::mem::take(&mut opened.waiting);
        // Kept until all of these have been looked at.
        opened.under_way += 1 + waiting.len() as u32;
        let using: Vec<OpRef> = self
            .ops
            .iter()
            .filter(|(_, op)| op.remote.window == window)
            .map(|(index, op)| (index as u32, op.serial))
            .collect();
        for at in using {
            self.stop(hub, at, Reason::Stale);
        }
        self.leave_window(hub, window, (u32::MAX, u32::MAX));
    }

    /// No path has keys for an operation's window: new paths need new ones, or there are none.
    pub(super) fn look_elsewhere(&mut self, hub: &mut Hub, at: OpRef) {
        let Some(op) = self.op(at) else { return };
        let (window, key, flying) = (op.remote.window, op.remote.key.key, op.flying);
        if !op.has_more() || !self.is_up() {
            // It goes on when a path is up again, or takes the streams.
            return;
        }
        let live = self.live();
        let Some(opened) = self.opened.get_mut(&window) else { return };
        match opened.state {
            Standing::Open { .. } => {}
            Standing::Asking(_) | Standing::Unasked => {
                opened.waiting.push(at);
                opened.under_way = opened.under_way.saturating_sub(1);
                return;
            }
            Standing::Halting => return,
        }
        if live.iter().all(|path| opened.asked_with.contains(path)) {
            // The peer cannot show the window over any of these.
            if flying == 0 {
                self.fall(hub, at);
            }
            return;
        }
        let ask = self.ask(hub, window, key);
        if let Some(opened) = self.opened.get_mut(&window) {
            opened.state = Standing::Asking(ask);
            opened.asked_with = live;
            opened.waiting.push(at);
            opened.under_way = opened.under_way.saturating_sub(1);
        }
    }
}

// ---- ours ------------------------------------------------------------------------------------

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

    /// Whether all that this peer can do to a window goes through channels that fence.
    fn can_be_fenced(&self, hub: &Hub, window: WindowId) -> bool {
        let fences = |it: &Exposure| {
            let rail = self.paths[usize::from(it.path)].rail;
            hub.rails[usize::from(rail)].traits.fences
        };
        self.exposed.get(&window).is_none_or(|exposed| exposed.paths.iter().all(fences))
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
        if let Some(link) = self.links.get_mut(&peer) {
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
            let Some(link) = self.links.get(&peer) else {
                self.has_halted(peer, window);
                continue;
            };
            if !link.can_be_fenced(&self.hub, window) {
                if let Some(halting) = self.halting.get_mut(&window) {
                    // Only its word or its end shows it.
                    halting.until = Time::NEVER;
                }
                continue;
            }
            tracing::warn!(engine = ?link.engine, ?window, "no answer to a revocation");
            for path in link.shown_over(window) {
                self.break_path(peer, path, "its peer does not let go of a window", true);
            }
            self.has_halted(peer, window);
        }
        self.halting.values().map(|it| it.until).min().unwrap_or(Time::NEVER)
    }

    /// What a device reports of an exposure.
    pub(super) fn take_exposure(&mut self, completion: Completion) {
        let Completion::Exposed(id, keys) = completion else { return };
        if let Some((peer, _)) = self.hub.exposures.get(&id)
            && let Some(link) = self.links.get_mut(peer)
        {
            link.exposed(&mut self.hub, id, keys);
        }
    }
}

/// Exposures, and whose and of what they are.
pub(super) type Exposures = HashMap<ExposureId, (PeerId, WindowId)>;
