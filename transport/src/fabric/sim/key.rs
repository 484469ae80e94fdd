//! Windows as a port knows them: what an rkey check looks at.

use std::collections::BTreeSet;

use super::log::Happened;
use super::port::Inbox;
use super::state::State;
use crate::address::Kind;
use crate::fabric::{Event, Grant, RegisterError, Remote, RemoteKey};
use crate::outcome::Reason;
use crate::sabotage::{self, Defect};
use crate::window::{Access, WindowId};

/// A window of a port, or the last that had its slot.
pub(super) struct Granted {
    pub(super) grant: Grant,
    key: RemoteKey,
    live: bool,
    /// Packets that passed the check and are not in memory yet.
    landing: u32,
}

impl Granted {
    /// Whether new packets pass.
    pub(super) fn is_live(&self) -> bool {
        self.live
    }

    /// Packets that passed and are not in memory yet.
    pub(super) fn landing(&self) -> u32 {
        self.landing
    }

    /// Whether `remote` may do `access` to the next `reach` bytes.
    pub(super) fn check(&self, remote: &Remote, reach: u64, access: Access) -> Result<(), Reason> {
        let mine = self.grant.window;
        if sabotage::is(Defect::StaleWindow) {
            return self.check_bounds(remote, reach, access);
        }
        if remote.window.generation > mine.generation {
            return Err(Reason::Forged);
        }
        if remote.window.generation < mine.generation || !self.live {
            return Err(Reason::Stale);
        }
        if remote.key != self.key {
            return Err(Reason::Forged);
        }
        self.check_bounds(remote, reach, access)
    }

    /// Whether the window reaches so far and grants that.
    fn check_bounds(&self, remote: &Remote, reach: u64, access: Access) -> Result<(), Reason> {
        let len = self.grant.len + u64::from(sabotage::is(Defect::OneByteBeyond));
        if remote.offset.checked_add(reach).is_none_or(|end| end > len) {
            return Err(Reason::OutOfBounds);
        }
        if self.grant.access.allows(access) { Ok(()) } else { Err(Reason::Denied) }
    }
}

impl State {
    pub(super) fn grant(&mut self, port: usize, grant: &Grant) -> Result<RemoteKey, RegisterError> {
        let refuse = |what: String| Err(RegisterError { kind: Kind::Sim, what });
        let windows_max = self.config.windows_max;
        // The base is an address in a NIC's sense: knowing one window's tells nothing of another's.
        let key = RemoteKey { key: self.bits(), base: self.bits() & !0xfff };
        let state = &mut self.ports[port];
        let Some(memory) = state.regions.get(grant.region.0) else {
            return refuse(format!("region {} is not registered", grant.region.0));
        };
        if grant.offset.checked_add(grant.len).is_none_or(|end| end > memory.len() as u64) {
            return refuse(format!("{:?} reaches past its region", grant.window));
        }
        if state.windows.iter().filter(|granted| granted.live).count() >= windows_max {
            return refuse(format!("all {windows_max} windows are in use; revoke some"));
        }
        if let Some(last) = state.windows.get(grant.window.slot) {
            assert!(!last.live && last.landing == 0, "{:?} was not fenced", last.grant.window);
            assert!(last.grant.window.generation < grant.window.generation, "generations grow");
        }
        let granted = Granted { grant: *grant, key, live: true, landing: 0 };
        state.windows.insert(grant.window.slot, granted);
        let WindowId { slot, generation } = grant.window;
        self.log(port, Happened::Granted, slot.into(), generation.into());
        Ok(key)
    }

    /// No packet passes from now on; the window is fenced once those that passed are in memory.
    pub(super) fn revoke(&mut self, port: usize, window: WindowId) {
        let Some(granted) = self.ports[port].windows.get_mut(window.slot) else { return };
        if granted.grant.window != window || !granted.live {
            return;
        }
        granted.live = false;
        let landing = granted.landing;
        self.log(port, Happened::Revoking, window.slot.into(), landing.into());
        if landing == 0 {
            self.revoked(port, window);
        }
    }

    /// A packet passed the check.
    pub(super) fn landing_begins(&mut self, port: usize, window: WindowId) {
        let granted = self.ports[port].windows.get_mut(window.slot).expect("it was just checked");
        granted.landing += 1;
    }

    /// A packet that had passed is in memory.
    pub(super) fn landing_ends(&mut self, port: usize, window: WindowId) {
        let granted = self.ports[port].windows.get_mut(window.slot).expect("slots stay");
        debug_assert_eq!(granted.grant.window, window, "no new owner before the fence");
        granted.landing -= 1;
        // The windows of a closed port were fenced as it closed.
        if granted.landing == 0 && !granted.live && !self.ports[port].closed {
            self.revoked(port, window);
        }
    }

    /// Fences all windows of a port that is closed: nothing lands there any more.
    pub(super) fn fence_all(&mut self, port: usize) {
        let open = |granted: &&mut Granted| granted.live || granted.landing > 0;
        let windows = self.ports[port].windows.iter_mut().filter(open).map(|granted| {
            granted.live = false;
            granted.grant.window
        });
        // In order, so that a run repeats itself.
        for window in windows.collect::<BTreeSet<_>>() {
            self.revoked(port, window);
        }
    }

    fn revoked(&mut self, port: usize, window: WindowId) {
        self.log(port, Happened::Revoked, window.slot.into(), window.generation.into());
        self.ports[port].inbox.push_back(Inbox::free(Event::Revoked { window }));
    }
}
