//! The regions and windows of this engine.

use std::collections::HashMap;
use std::sync::Arc;

use crate::fabric::{Grant, Local, RegionId};
use crate::memory::{self, Memory};
use crate::outcome::Reason;
use crate::window::{Access, WindowId};

/// Windows that can be open at once.
pub(super) const WINDOWS_MAX: usize = 1 << 16;

/// What was registered and granted.
#[derive(Debug, Default)]
pub(super) struct Windows {
    regions: HashMap<RegionId, Arc<Memory>>,
    /// By slot.
    open: Vec<Option<Open>>,
}

/// A window that is open.
#[derive(Debug)]
struct Open {
    grant: Grant,
    key: u64,
    /// Its first byte.
    start: *mut u8,
}

// SAFETY: `start` points into a region that is kept while the window is open, and is only used for
// system calls.
unsafe impl Send for Open {}

impl Windows {
    pub(super) fn register(&mut self, region: RegionId, memory: &Arc<Memory>) {
        self.regions.insert(region, Arc::clone(memory));
    }

    pub(super) fn deregister(&mut self, region: RegionId) {
        for slot in &mut self.open {
            if slot.as_ref().is_some_and(|open| open.grant.region == region) {
                *slot = None;
            }
        }
        self.regions.remove(&region);
    }

    /// Checks that local bytes lie in their region, and may be stored to if `stored`.
    pub(super) fn check(&self, local: &Local, stored: bool) -> Result<(), Reason> {
        let memory = self.regions.get(&local.region).ok_or(Reason::Closed)?;
        let start = (local.ptr as usize).checked_sub(memory.as_ptr() as usize);
        let end = start.and_then(|start| (start as u64).checked_add(local.len));
        if end.is_none_or(|end| end > memory.len() as u64) {
            return Err(Reason::OutOfBounds);
        }
        if stored && memory.access() == memory::Access::ReadOnly {
            return Err(Reason::Denied);
        }
        Ok(())
    }

    /// Opens a window and returns its key.
    pub(super) fn open(&mut self, grant: &Grant) -> Result<u64, String> {
        let Grant { window, region, offset, len, access } = *grant;
        let memory = self
            .regions
            .get(&region)
            .ok_or_else(|| format!("{region:?} is not registered; register it first"))?;
        let size = memory.len() as u64;
        if offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(format!("{len} bytes at {offset} are not inside of {size}"));
        }
        if access.allows(Access::WRITE) && memory.access() == memory::Access::ReadOnly {
            return Err("read-only memory cannot be written by peers; grant READ alone".to_owned());
        }
        let slot = window.slot as usize;
        if slot >= WINDOWS_MAX || self.open.get(slot).is_some_and(Option::is_some) {
            return Err(format!("{window:?} has no free place among {WINDOWS_MAX}; revoke some"));
        }
        let mut key = [0; 8];
        getrandom::fill(&mut key).map_err(|error| format!("no random key: {error}"))?;
        let key = u64::from_le_bytes(key);
        // SAFETY: checked to be inside of the memory.
        let start = unsafe { memory.as_ptr().add(offset as usize) };
        if self.open.len() <= slot {
            self.open.resize_with(slot + 1, || None);
        }
        self.open[slot] = Some(Open { grant: *grant, key, start });
        Ok(key)
    }

    /// Shuts a window, if it is open.
    pub(super) fn shut(&mut self, window: WindowId) {
        if self.get(window).is_some() {
            self.open[window.slot as usize] = None;
        }
    }

    /// Shuts all windows and forgets all regions.
    pub(super) fn clear(&mut self) {
        self.open.clear();
        self.regions.clear();
    }

    fn get(&self, window: WindowId) -> Option<&Open> {
        let open = self.open.get(window.slot as usize)?.as_ref()?;
        (open.grant.window == window).then_some(open)
    }

    /// Whether a peer that shows `key` may have `access` to what lies between `offset` and `reach`
    /// bytes further on.
    pub(super) fn admit(
        &self,
        (window, key): (WindowId, u64),
        access: Access,
        offset: u64,
        reach: u64,
    ) -> Result<(), Reason> {
        let open = self.get(window).ok_or(Reason::Stale)?;
        // One word: the comparison takes as long wherever the two differ.
        if open.key ^ key != 0 {
            return Err(Reason::Forged);
        }
        if !open.grant.access.allows(access) {
            return Err(Reason::Denied);
        }
        if offset.checked_add(reach).is_none_or(|end| end > open.grant.len) {
            return Err(Reason::OutOfBounds);
        }
        Ok(())
    }

    /// The first byte of a window, while it is open.
    #[inline]
    pub(super) fn start(&self, window: WindowId) -> Option<*mut u8> {
        self.get(window).map(|open| open.start)
    }
}
