//! What peers may do with the windows of this engine.

use crate::fabric::{Local, windows};
use crate::outcome::Reason;
use crate::window::{Access, WindowId};

/// Windows that can be open at once.
pub(super) const WINDOWS_MAX: usize = 1 << 16;

/// What was registered and granted.
pub(super) type Windows = windows::Windows<WINDOWS_MAX>;

impl Windows {
    /// Checks local bytes that streams are to send or store. Those of a device only rails reach, which stand on
    /// these streams.
    pub(super) fn check_streamed(&self, local: &Local, stored: bool) -> Result<(), Reason> {
        self.check(local, stored)?;
        if self.is_host(local.region) { Ok(()) } else { Err(Reason::Unsupported) }
    }

    /// Whether a peer that shows `key` may have `access`, through streams, to what lies between `offset` and
    /// `reach` bytes further on.
    pub(super) fn admit(
        &self,
        (window, key): (WindowId, u64),
        access: Access,
        offset: u64,
        reach: u64,
    ) -> Result<(), Reason> {
        let open = self.unlock(window, key)?;
        let grant = &open.grant;
        if !grant.access.allows(access) {
            return Err(Reason::Denied);
        }
        if offset.checked_add(reach).is_none_or(|end| end > grant.len) {
            return Err(Reason::OutOfBounds);
        }
        if reach > 0 && !open.memory.is_host() {
            return Err(Reason::Unsupported);
        }
        Ok(())
    }

    /// The first byte of a window, while it is open; a device's has none that streams could follow.
    #[inline]
    pub(super) fn start(&self, window: WindowId) -> Option<*mut u8> {
        let open = self.get(window).filter(|open| open.memory.is_host())?;
        // SAFETY: the window was checked to lie inside of its memory when it was granted.
        Some(unsafe { open.memory.as_ptr().add(open.grant.offset as usize) })
    }
}
