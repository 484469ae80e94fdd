//! The regions and windows of this engine.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::control::{Ours, WINDOWS};
use crate::fabric::{Grant, Local, RegionId};
use crate::memory::{self, Memory};
use crate::outcome::Reason;
use crate::window::{Access, WindowId};

/// What was registered and granted.
#[derive(Debug)]
pub(super) struct Windows {
    control: Arc<Ours>,
    regions: HashMap<RegionId, Arc<Memory>>,
    open: HashMap<u32, (Grant, u64)>,
}

impl Windows {
    pub(super) fn new(control: &Arc<Ours>) -> Self {
        Self { control: Arc::clone(control), regions: HashMap::new(), open: HashMap::new() }
    }

    pub(super) fn register(&mut self, region: RegionId, memory: &Arc<Memory>) {
        self.regions.insert(region, Arc::clone(memory));
    }

    pub(super) fn deregister(&mut self, region: RegionId) {
        let left: Vec<_> =
            self.open.values().filter(|it| it.0.region == region).map(|it| it.0.window).collect();
        for window in left {
            self.shut(window);
        }
        self.regions.remove(&region);
    }

    /// Checks that local bytes lie in their region, and may be stored to if `stored`.
    #[inline]
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
        if memory.fd().is_none() {
            return Err("foreign memory has no memfd that peers could map; use memory from \
                        HostMemory, or copy"
                .to_owned());
        }
        let size = memory.len() as u64;
        if offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(format!("{len} bytes at {offset} are not inside of {size}"));
        }
        if access.allows(Access::MAP) && (offset, len) != (0, size) {
            return Err(format!("a window to be mapped has to cover all {size} bytes"));
        }
        if access.allows(Access::WRITE) && memory.access() == memory::Access::ReadOnly {
            return Err("read-only memory cannot be written by peers; grant READ alone".to_owned());
        }
        if window.slot as usize >= WINDOWS || self.open.contains_key(&window.slot) {
            return Err(format!("{window:?} has no free place among {WINDOWS}; revoke some"));
        }
        let mut key = [0; 8];
        getrandom::fill(&mut key).map_err(|error| format!("no random key: {error}"))?;
        let key = u64::from_le_bytes(key);
        self.control.open(grant, key);
        self.open.insert(window.slot, (*grant, key));
        Ok(key)
    }

    /// Shuts a window, if it is open.
    pub(super) fn shut(&mut self, window: WindowId) {
        if self.open.get(&window.slot).is_some_and(|(grant, _)| grant.window == window) {
            self.control.shut(window.slot);
            self.open.remove(&window.slot);
        }
    }

    /// Shuts all windows.
    pub(super) fn shut_all(&mut self) {
        for (slot, _) in self.open.drain() {
            self.control.shut(slot);
        }
    }

    /// The region of a window, its length and a descriptor, for a peer that shows the key.
    pub(super) fn hand_out(
        &self,
        window: WindowId,
        key: u64,
        whole: bool,
    ) -> Result<(RegionId, u64, OwnedFd), Reason> {
        let (grant, right) = self.open.get(&window.slot).ok_or(Reason::Stale)?;
        if grant.window != window {
            return Err(Reason::Stale);
        }
        if *right != key {
            return Err(Reason::Forged);
        }
        if whole && !grant.access.allows(Access::MAP) {
            return Err(Reason::Denied);
        }
        let memory = self.regions.get(&grant.region).ok_or(Reason::Closed)?;
        let memfd = memory.fd().ok_or(Reason::Unsupported)?;
        let memfd = memfd.try_clone_to_owned().map_err(|error| {
            tracing::warn!("no descriptor for a peer: {error}; raise ulimit -n");
            Reason::Failed
        })?;
        Ok((grant.region, memory.len() as u64, memfd))
    }
}
