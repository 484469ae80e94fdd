//! Windows of peers: asked for once, and let go of when the peer wants them back.

use super::device::Keys;
use super::hub::Hub;
use super::link::{Link, OpRef};
use super::words::{PathKeys, Word};
use crate::outcome::Reason;
use crate::window::{Access, WindowId};

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

impl Opened {
    /// Whether it is known what may be done.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, Standing::Open { .. })
    }

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

impl Link {
    /// Finds out what may be done with a window of the peer's; asks it if need be.
    pub(super) fn open(&mut self, hub: &mut Hub, window: WindowId, key: u64, at: OpRef) -> Opening {
        if let Some(opened) = self.opened.get_mut(window) {
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
        let unasked = |(window, it): (WindowId, &Opened)| {
            matches!(it.state, Standing::Unasked).then_some((window, it.key))
        };
        let mut windows: Vec<_> = self.opened.iter().filter_map(unasked).collect();
        windows.sort_unstable();
        for (window, key) in windows {
            let (ask, asked_with) = (self.ask(hub, window, key), self.live());
            if let Some(opened) = self.opened.get_mut(window) {
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
        let Some(opened) = self.opened.get(window) else { return };
        let open = matches!(opened.state, Standing::Open { .. });
        if !open || live.iter().all(|path| opened.asked_with.contains(path)) {
            return;
        }
        let ask = self.ask(hub, window, opened.key);
        if let Some(opened) = self.opened.get_mut(window) {
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
        self.opened.iter().find(|(_, opened)| it(opened)).map(|(window, _)| window)
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
        let Some(opened) = self.opened.get_mut(window) else { return };
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
        if self.opened.get(window).is_some_and(Opened::is_open) {
            // Its end is announced by another word.
            return;
        }
        let Some(opened) = self.opened.remove(window) else { return };
        for at in opened.waiting {
            let Some(op) = self.op(at) else { continue };
            let key = op.remote.key.key;
            op.counted = false;
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

    /// An operation that was counted ends.
    pub(super) fn leave_window(&mut self, hub: &mut Hub, window: WindowId) {
        let Some(opened) = self.opened.get_mut(window) else { return };
        opened.under_way -= 1;
        if opened.under_way == 0 && matches!(opened.state, Standing::Halting) {
            self.opened.remove(window);
            hub.tell(self.id, &Word::Halted { window });
        }
    }

    /// An operation waits no longer for an answer.
    pub(super) fn unwait(&mut self, at: OpRef) {
        for opened in self.opened.values_mut() {
            opened.waiting.retain(|it| *it != at);
        }
    }

    /// The peer takes a window back.
    pub(super) fn halt(&mut self, hub: &mut Hub, window: WindowId) {
        let Some(opened) = self.opened.get_mut(window) else {
            return hub.tell(self.id, &Word::Halted { window });
        };
        opened.state = Standing::Halting;
        opened.waiting.clear();
        // Kept until all of these have been looked at.
        opened.under_way += 1;
        let using: Vec<OpRef> = self
            .ops
            .iter()
            .filter(|(_, op)| op.remote.window == window)
            .map(|(at, _)| at)
            .collect();
        for at in using {
            self.stop(hub, at, Reason::Stale);
        }
        self.leave_window(hub, window);
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
        let Some(opened) = self.opened.get_mut(window) else { return };
        match opened.state {
            Standing::Open { .. } => {}
            Standing::Asking(_) | Standing::Unasked => {
                opened.waiting.push(at);
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
        if let Some(opened) = self.opened.get_mut(window) {
            opened.state = Standing::Asking(ask);
            opened.asked_with = live;
            opened.waiting.push(at);
        }
    }
}
