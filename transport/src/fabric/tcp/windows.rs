//! What peers may do with the windows of this engine.

use crate::fabric::windows;
use crate::outcome::Reason;
use crate::window::{Access, WindowId};

/// Windows that can be open at once.
pub(super) const WINDOWS_MAX: usize = 1 << 16;

/// What was registered and granted.
pub(super) type Windows = windows::Windows<WINDOWS_MAX>;

impl Windows {
    /// Whether a peer that shows `key` may have `access` to what lies between `offset` and `reach`
    /// bytes further on.
    pub(super) fn admit(
        &self,
        (window, key): (WindowId, u64),
        access: Access,
        offset: u64,
        reach: u64,
    ) -> Result<(), Reason> {
        let grant = &self.unlock(window, key)?.grant;
        if !grant.access.allows(access) {
            return Err(Reason::Denied);
        }
        if offset.checked_add(reach).is_none_or(|end| end > grant.len) {
            return Err(Reason::OutOfBounds);
        }
        Ok(())
    }

    /// The first byte of a window, while it is open.
    #[inline]
    pub(super) fn start(&self, window: WindowId) -> Option<*mut u8> {
        let open = self.get(window)?;
        // SAFETY: the window was checked to lie inside of its memory when it was granted.
        Some(unsafe { open.memory.as_ptr().add(open.grant.offset as usize) })
    }
}
