//! The regions and windows of this engine, and their table that peers look into.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::control::{Ours, WINDOWS};
use crate::fabric::{Grant, Local, RegionId, windows};
use crate::memory::Memory;
use crate::outcome::Reason;
use crate::window::{Access, WindowId};

/// What was registered and granted.
#[derive(Debug)]
pub(super) struct Windows {
    /// Shows what is in `granted`, and nothing else.
    control: Arc<Ours>,
    granted: windows::Windows<WINDOWS>,
}

impl Windows {
    pub(super) fn new(control: &Arc<Ours>) -> Self {
        Self { control: Arc::clone(control), granted: windows::Windows::default() }
    }

    pub(super) fn register(&mut self, region: RegionId, memory: &Arc<Memory>) {
        self.granted.register(region, memory);
    }

    pub(super) fn deregister(&mut self, region: RegionId) {
        for grant in self.granted.grants().filter(|it| it.region == region) {
            self.control.shut(grant.window.slot);
        }
        self.granted.deregister(region);
    }

    /// Checks that local bytes lie in their region, and may be stored to if `stored`.
    #[inline]
    pub(super) fn check(&self, local: &Local, stored: bool) -> Result<(), Reason> {
        self.granted.check(local, stored)
    }

    /// Opens a window and returns its key.
    pub(super) fn open(&mut self, grant: &Grant) -> Result<u64, String> {
        let memory = self.granted.memory(grant.region)?;
        if memory.fd().is_none() {
            return Err("foreign memory has no memfd that peers could map; use memory from \
                        HostMemory, or copy"
                .to_owned());
        }
        let size = memory.len() as u64;
        if grant.access.allows(Access::MAP) && (grant.offset, grant.len) != (0, size) {
            return Err(format!("a window to be mapped has to cover all {size} bytes"));
        }
        let key = self.granted.open(grant)?;
        self.control.open(grant, key);
        Ok(key)
    }

    /// Shuts a window, if it is open.
    pub(super) fn shut(&mut self, window: WindowId) {
        if self.granted.shut(window) {
            self.control.shut(window.slot);
        }
    }

    /// Shuts all windows.
    pub(super) fn shut_all(&mut self) {
        for grant in self.granted.grants() {
            self.control.shut(grant.window.slot);
        }
        self.granted.shut_all();
    }

    /// The region of a window, its length and a descriptor, for a peer that shows the key.
    pub(super) fn hand_out(
        &self,
        window: WindowId,
        key: u64,
        whole: bool,
    ) -> Result<(RegionId, u64, OwnedFd), Reason> {
        let open = self.granted.unlock(window, key)?;
        if whole && !open.grant.access.allows(Access::MAP) {
            return Err(Reason::Denied);
        }
        let memfd = open.memory.fd().ok_or(Reason::Unsupported)?;
        let memfd = memfd.try_clone_to_owned().map_err(|error| {
            tracing::warn!("no descriptor for a peer: {error}; raise ulimit -n");
            Reason::Failed
        })?;
        Ok((open.grant.region, open.memory.len() as u64, memfd))
    }
}
