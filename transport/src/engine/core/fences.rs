//! Taking memory out of use, and the end.

use std::sync::Arc;

use super::{Core, Stage};
use crate::fabric::{Grant, OpId, RegionId, RemoteKey};
use crate::outcome::{Outcome, Reason};
use crate::region::Registered;
use crate::sabotage::{self, Defect};
use crate::window::{WindowError, WindowId};

impl Core {
    /// Grants a window over this fabric.
    pub(in crate::engine) fn grant(
        &mut self,
        grant: &Grant,
        region: &Arc<Registered>,
    ) -> Result<RemoteKey, WindowError> {
        // Whoever closes waits for the windows there are, so none may come after.
        if self.closed {
            return Err(WindowError::Closed);
        }
        let key = self.fabric.grant(grant)?;
        self.granted.insert(grant.window, Arc::clone(region));
        Ok(key)
    }

    pub(in crate::engine) fn revoke(&mut self, window: WindowId) {
        if let Some(region) = self.granted.remove(&window) {
            self.revoking.insert(window, region);
            self.fabric.revoke(window);
        }
    }

    pub(in crate::engine) fn is_fenced(&self, window: WindowId) -> bool {
        sabotage::is(Defect::EarlyFence)
            || !self.revoking.contains_key(&window) && !self.granted.contains_key(&window)
    }

    /// Ends everything that touches a region, or everything at all.
    pub(in crate::engine) fn begin_fence(&mut self, region: Option<RegionId>) {
        let concerns = |id: RegionId| region.is_none_or(|only| only == id);
        let windows: Vec<WindowId> = self
            .granted
            .iter()
            .filter(|(_, holder)| concerns(holder.id))
            .map(|(window, _)| *window)
            .collect();
        for window in windows {
            self.revoke(window);
        }
        let ops: Vec<OpId> = self
            .ops
            .iter()
            .filter(|(_, op)| op.region.map_or(region.is_none(), concerns))
            .map(|(at, _)| OpId(at.pack()))
            .collect();
        for id in ops {
            self.stop(id, Reason::Closed);
        }
    }

    /// Whether nothing touches a region (or, for `None`, any) any more.
    pub(in crate::engine) fn fence_is_complete(&self, region: Option<RegionId>) -> bool {
        match region {
            Some(id) => {
                self.revoking.values().all(|holder| holder.id != id) && self.ops_on(id) == 0
            }
            None => self.revoking.is_empty() && self.ops.is_empty(),
        }
    }

    /// Operations on a region that are not provably ended.
    pub(in crate::engine) fn ops_on(&self, region: RegionId) -> usize {
        self.ops.iter().filter(|(_, op)| op.region == Some(region)).count()
    }

    // ---- the end -----------------------------------------------------------------------------

    /// Refuses new work.
    pub(in crate::engine) fn refuse_new(&mut self) {
        self.closed = true;
    }

    /// Closes the fabric and ends what is left. Memory whose fence was not proven stays mapped for
    /// the rest of the process.
    pub(in crate::engine) fn close(&mut self) {
        self.closed = true;
        self.fabric.close();
        let mut events = std::mem::take(&mut self.events);
        while self.fabric.poll(usize::MAX, &mut events) {}
        for event in events {
            self.handle(event);
        }
        let left: Vec<OpId> = self.ops.iter().map(|(at, _)| OpId(at.pack())).collect();
        for id in left {
            let Some(op) = self.op_mut(id) else { continue };
            match op.stage {
                // `close` returned: nothing of ours moves any more.
                Stage::Lost => {
                    let place = op.place;
                    self.groups.get(place).prove();
                    self.forget(id);
                    self.groups.give_back(place);
                }
                Stage::Parked => self.finish(id, Outcome::Rejected(Reason::Closed)),
                Stage::Posted | Stage::Cancelled => {
                    self.finish(id, Outcome::Fenced(Reason::Closed));
                }
            }
        }
        for (window, region) in std::mem::take(&mut self.revoking) {
            tracing::warn!(?window, "window not fenced at close; its memory stays mapped");
            std::mem::forget(region);
        }
        self.granted.clear();
        // A panic that is under way already is the one to be told of.
        let idle = self.links.are_idle() && self.groups.is_empty();
        debug_assert!(
            idle || std::thread::panicking(),
            "credits, operations or ends are left: {:?}",
            self.links
        );
    }
}
