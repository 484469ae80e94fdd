//! The regions and windows of an engine, as a fabric keeps them.

use std::sync::Arc;

use super::recent::Recent;
use super::{Grant, Local, RegionId};
use crate::memory::{self, Memory};
use crate::outcome::Reason;
use crate::window::{Access, WindowId};

/// What was registered, and what was granted of it: at most `MAX` windows.
#[derive(Debug, Default)]
pub(super) struct Windows<const MAX: usize> {
    regions: Recent<RegionId, Arc<Memory>>,
    /// By slot.
    open: Vec<Option<Open>>,
}

/// A window that is open.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) grant: Grant,
    /// The region it lies in.
    pub(super) memory: Arc<Memory>,
    key: u64,
}

impl<const MAX: usize> Windows<MAX> {
    pub(super) fn register(&mut self, region: RegionId, memory: &Arc<Memory>) {
        self.regions.insert(region, Arc::clone(memory));
    }

    /// Shuts the windows of a region and forgets it.
    pub(super) fn deregister(&mut self, region: RegionId) {
        for slot in &mut self.open {
            if slot.as_ref().is_some_and(|open| open.grant.region == region) {
                *slot = None;
            }
        }
        self.regions.remove(region);
    }

    /// The memory of a region, to grant some of it.
    pub(super) fn memory(&self, region: RegionId) -> Result<&Arc<Memory>, String> {
        self.regions
            .get(region)
            .ok_or_else(|| format!("{region:?} is not registered; register it first"))
    }

    /// Whether this process can touch the bytes of a region, which may be a device's.
    pub(super) fn is_host(&self, region: RegionId) -> bool {
        self.regions.get(region).is_none_or(|memory| memory.is_host())
    }

    /// Checks that local bytes lie in their region, and may be stored to if `stored`.
    #[inline]
    pub(super) fn check(&self, local: &Local, stored: bool) -> Result<(), Reason> {
        let memory = self.regions.get(local.region).ok_or(Reason::Closed)?;
        let start = (local.ptr as usize).checked_sub(memory.address() as usize);
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
        let memory = Arc::clone(self.memory(region)?);
        let size = memory.len() as u64;
        if offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(format!("{len} bytes at {offset} are not inside of {size}"));
        }
        if access.allows(Access::WRITE) && memory.access() == memory::Access::ReadOnly {
            return Err("read-only memory cannot be written by peers; grant READ alone".to_owned());
        }
        let slot = window.slot as usize;
        if slot >= MAX || self.open.get(slot).is_some_and(Option::is_some) {
            return Err(format!("{window:?} has no free place among {MAX}; revoke some"));
        }
        let mut key = [0; 8];
        getrandom::fill(&mut key).map_err(|error| format!("no random key: {error}"))?;
        let key = u64::from_le_bytes(key);
        if self.open.len() <= slot {
            self.open.resize_with(slot + 1, || None);
        }
        self.open[slot] = Some(Open { grant: *grant, memory, key });
        Ok(key)
    }

    /// Shuts a window; whether it was open.
    pub(super) fn shut(&mut self, window: WindowId) -> bool {
        let open = self.get(window).is_some();
        if open {
            self.open[window.slot as usize] = None;
        }
        open
    }

    /// Shuts all windows.
    pub(super) fn shut_all(&mut self) {
        self.open.clear();
    }

    /// Shuts all windows and forgets all regions.
    pub(super) fn clear(&mut self) {
        self.shut_all();
        self.regions.clear();
    }

    /// All windows that are open.
    pub(super) fn grants(&self) -> impl Iterator<Item = &Grant> {
        self.open.iter().flatten().map(|open| &open.grant)
    }

    /// A window, while it is open.
    #[inline]
    pub(super) fn get(&self, window: WindowId) -> Option<&Open> {
        let open = self.open.get(window.slot as usize)?.as_ref()?;
        (open.grant.window == window).then_some(open)
    }

    /// A window, for a peer that shows its key.
    pub(super) fn unlock(&self, window: WindowId, key: u64) -> Result<&Open, Reason> {
        let open = self.get(window).ok_or(Reason::Stale)?;
        // One word: the comparison takes as long wherever the two differ.
        if open.key ^ key != 0 {
            return Err(Reason::Forged);
        }
        Ok(open)
    }
}
