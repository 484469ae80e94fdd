//! Memory of this side, and its registrations.

use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use rustix::process::{Resource, getrlimit};
use tranship_verbs_sys as sys;

use super::domain::Object;
use super::port::Port;
use crate::fabric::RegionId;
use crate::memory::Memory;

/// Memory of this side.
pub(super) struct Registered {
    pub(super) memory: Arc<Memory>,
    pub(super) mr: Option<Rc<Registration>>,
    pub(super) key: u32,
}

/// A registration, which the regions that lie in its own share.
pub(super) struct Registration {
    /// Before the memory that it covers.
    pub(super) mr: Object<sys::ibv_mr>,
    pub(super) access: u32,
    /// Stays as long as anybody uses the registration.
    _memory: Arc<Memory>,
}

impl Port {
    /// A registration of this memory, which is not empty: one that is there and covers it, or a new
    /// one.
    pub(super) fn registration(
        &mut self,
        region: RegionId,
        memory: &Arc<Memory>,
        access: u32,
    ) -> io::Result<Rc<Registration>> {
        let range = range(memory);
        let cover = self.covers.entry(access).or_default();
        if let Some((_, it)) = cover.find(&range) {
            return Ok(Rc::clone(it));
        }
        let (pd, start) = (self.domain.pd.as_ptr(), memory.as_ptr().cast());
        // SAFETY: the memory is kept as long as the registration.
        let mr = unsafe { self.domain.verbs.reg_mr(pd, start, memory.len(), access) };
        let mr = Object::new(&self.domain, mr)?;
        let it = Rc::new(Registration { mr, access, _memory: Arc::clone(memory) });
        cover.insert(range, (region, Rc::clone(&it)));
        Ok(it)
    }

    /// Forgets a region. Its memory may be another's soon, at the same address: nobody new shares its
    /// registration from now on.
    pub(super) fn forget(&mut self, region: RegionId) {
        let Some(Registered { memory, mr: Some(it), .. }) = self.regions.remove(&region) else {
            return;
        };
        if let Some(cover) = self.covers.get_mut(&it.access) {
            cover.remove(range(&memory).start, |(owner, _)| *owner == region);
        }
    }
}

/// Where memory is.
fn range(memory: &Memory) -> Range<usize> {
    let start = memory.as_ptr() as usize;
    start..start + memory.len()
}

/// What to do where the kernel locks no more memory.
pub(super) fn memlock(error: &io::Error) -> String {
    if !matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::EPERM | libc::EAGAIN)) {
        return String::new();
    }
    let limit = getrlimit(Resource::Memlock).current;
    let limit = limit.map_or_else(|| "unlimited".to_owned(), |bytes| format!("{bytes} bytes"));
    format!(
        "; memory that may be locked: {limit} (`ulimit -l unlimited`, or LimitMEMLOCK=infinity in \
         the service's unit, raises it)"
    )
}
