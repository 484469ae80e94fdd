//! Regions: memory registered for transfer, and the slices and windows cut out of it.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::address::EngineId;
use crate::engine::Engine;
use crate::fabric::{Local, RegionId};
use crate::memory::Memory;
use crate::notify::Notifier;
use crate::window::{Access, Descriptor, Window, WindowError};

/// Memory registered with every fabric of an engine; with those that reach it, where it is a device's.
///
/// Dropping it is safe at any time: the memory itself goes only when the last transfer that touches
/// it has provably ended and the engine is driven again. [`Region::close`] waits for the proof.
pub struct Region {
    pub(crate) engine: Engine,
    pub(crate) inner: Arc<Registered>,
}

/// What slices and windows hold on to.
pub(crate) struct Registered {
    /// Whose region it is.
    pub(crate) engine: EngineId,
    pub(crate) id: RegionId,
    pub(crate) memory: Arc<Memory>,
    /// Workers whose fabric has it, one bit each, where not all have.
    workers: Option<u32>,
    /// Refuses new operations.
    pub(crate) closing: AtomicBool,
    /// Where a region goes to be deregistered, one for each of these workers, by whoever next drives it.
    graveyards: Vec<Arc<Graveyard>>,
}

/// Regions that nobody can reach any more. A region may be dropped while the engine's lock is held,
/// and with operations on it, so the fabrics are told later, by who sleeps on the doorbell.
pub(crate) struct Graveyard {
    dead: Mutex<Vec<(RegionId, Arc<Memory>)>>,
    /// Whether there are any: looked at without the lock, which is left to who finds some.
    any: AtomicBool,
    doorbell: Notifier,
}

impl Graveyard {
    pub(crate) fn new(doorbell: &Notifier) -> Self {
        Self { dead: Mutex::default(), any: AtomicBool::new(false), doorbell: doorbell.clone() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Acquire)
    }

    pub(crate) fn take(&self) -> Vec<(RegionId, Arc<Memory>)> {
        let mut dead = self.dead.lock().unwrap_or_else(PoisonError::into_inner);
        self.any.store(false, Ordering::Release);
        std::mem::take(&mut *dead)
    }

    fn bury(&self, region: RegionId, memory: Arc<Memory>) {
        let mut dead = self.dead.lock().unwrap_or_else(PoisonError::into_inner);
        dead.push((region, memory));
        self.any.store(true, Ordering::Release);
        drop(dead);
        self.doorbell.ring();
    }
}

impl Registered {
    pub(crate) fn new(
        engine: EngineId,
        id: RegionId,
        memory: Arc<Memory>,
        graveyards: &[Arc<Graveyard>],
        with: &[usize],
    ) -> Self {
        let workers = with.iter().fold(0, |workers, at| workers | 1 << at);
        let workers = (with.len() < graveyards.len()).then_some(workers);
        let graveyards = with.iter().map(|at| Arc::clone(&graveyards[*at])).collect();
        Self { engine, id, memory, workers, closing: AtomicBool::new(false), graveyards }
    }

    /// Whether some fabric does not have it.
    #[inline]
    pub(crate) fn is_partial(&self) -> bool {
        self.workers.is_some()
    }

    /// Whether a worker's fabric has it.
    #[inline]
    pub(crate) fn is_with(&self, worker: u16) -> bool {
        self.workers.is_none_or(|workers| workers & 1 << worker != 0)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        for graveyard in &self.graveyards {
            graveyard.bury(self.id, Arc::clone(&self.memory));
        }
    }
}

impl Region {
    /// The memory. Peers may change it at any time while windows are open.
    #[must_use]
    pub fn memory(&self) -> &Arc<Memory> {
        &self.inner.memory
    }

    /// How long it is, bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.inner.memory.len() as u64
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A part of it, to transfer from or to.
    ///
    /// # Errors
    /// When the range is not inside the region.
    pub fn slice(&self, range: Range<u64>) -> Result<Slice, RangeError> {
        let range = check(range, self.len())?;
        Ok(Slice { region: Arc::clone(&self.inner), range })
    }

    /// The right for peers to write a part of it.
    ///
    /// # Errors
    /// When the range is not inside the region, or a fabric cannot expose the memory.
    pub fn window(&self, range: Range<u64>) -> Result<Window, WindowError> {
        self.window_with(range, Access::WRITE)
    }

    /// The right for peers to use a part of it in the given ways.
    ///
    /// # Errors
    /// When the range is not inside the region, when [`Access::MAP`] is asked for less than the
    /// whole region, or when a fabric cannot expose the memory.
    pub fn window_with(&self, range: Range<u64>, access: Access) -> Result<Window, WindowError> {
        let range = check(range, self.len())?;
        if access.allows(Access::MAP) && range != (0..self.len()) {
            return Err(WindowError::MapsPart { range, region_bytes: self.len() });
        }
        if self.inner.closing.load(Ordering::Acquire) {
            return Err(WindowError::Closed);
        }
        let len = range.end - range.start;
        let (window, routes) = self.engine.grant(&self.inner, &range, access)?;
        let descriptor = Descriptor { engine: self.engine.id(), window, len, access, routes };
        Ok(Window::new(self.engine.clone(), descriptor))
    }

    /// Takes the region out of use: refuses new transfers, ends those in flight, revokes its
    /// windows, and returns once no transfer, local or remote, can touch its memory.
    ///
    /// # Errors
    /// When that cannot be proven within `timeout`; the region comes back, and is still closing.
    pub fn close(self, timeout: Duration) -> Result<(), CloseError> {
        self.inner.closing.store(true, Ordering::Release);
        if self.engine.fence_region(&self.inner, timeout) {
            Ok(())
        } else {
            let busy = self.engine.ops_on(self.inner.id);
            Err(CloseError { region: self, busy, timeout })
        }
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Region({}, {} bytes)", self.inner.id.0, self.len())
    }
}

/// A part of a region on this side. Holds the region's memory in place.
#[derive(Clone)]
pub struct Slice {
    pub(crate) region: Arc<Registered>,
    range: Range<u64>,
}

impl Slice {
    /// How long it is, bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// A part of it; the range counts from its start.
    ///
    /// # Errors
    /// When the range is not inside it.
    pub fn part(&self, range: Range<u64>) -> Result<Self, RangeError> {
        let range = check(range, self.len())?;
        let start = self.range.start;
        Ok(Self { region: Arc::clone(&self.region), range: start + range.start..start + range.end })
    }

    pub(crate) fn local(&self) -> Local {
        let start = usize::try_from(self.range.start).expect("inside a memory of this process");
        // Of a device's memory nobody may follow it, nor say that it points to anything.
        let ptr = self.region.memory.address().wrapping_add(start);
        Local { region: self.region.id, ptr, len: self.len() }
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slice({}[{}..{}])", self.region.id.0, self.range.start, self.range.end)
    }
}

pub(crate) fn check(range: Range<u64>, limit: u64) -> Result<Range<u64>, RangeError> {
    if range.start <= range.end && range.end <= limit {
        Ok(range)
    } else {
        Err(RangeError { range, limit })
    }
}

/// A range that is not inside what it should be a part of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bytes {}..{} are not inside 0..{limit}", range.start, range.end)]
pub struct RangeError {
    /// The range.
    pub range: Range<u64>,
    /// The length of the whole, bytes.
    pub limit: u64,
}

/// A region that could not be closed in time; carries the region.
#[derive(Debug, thiserror::Error)]
#[error(
    "{region:?}: {busy} transfers could not be proven ended within {timeout:?}; do not reuse its memory, close again"
)]
pub struct CloseError {
    /// The region: closed for new transfers.
    pub region: Region,
    /// Transfers of this side still in flight.
    pub busy: usize,
    /// How long was waited.
    pub timeout: Duration,
}
