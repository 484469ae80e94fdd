//! A peer's windows: transferred to and from, or mapped where both share a host.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::address::{Address, EngineId};
use crate::memory::Memory;
use crate::peer::Peer;
use crate::region::{RangeError, check};
use crate::window::{Access, Descriptor, Route};

/// A peer's window, as this engine uses it.
#[derive(Clone)]
pub struct RemoteWindow {
    pub(crate) inner: Arc<Opened>,
}

pub(crate) struct Opened {
    /// The engine of this side that opened it.
    pub(crate) by: EngineId,
    pub(crate) descriptor: Descriptor,
    /// How to get there, the best way first; never empty.
    ways: Vec<Way>,
    /// The one in use.
    current: AtomicU16,
}

/// A way to a window: the peer over one fabric, and the route of the descriptor that leads there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) peer: Peer,
    pub(crate) route: usize,
}

impl Opened {
    pub(crate) fn new(by: EngineId, descriptor: Descriptor, ways: Vec<Way>) -> Self {
        assert!(!ways.is_empty(), "checked by whoever opens");
        Self { by, descriptor, ways, current: AtomicU16::new(0) }
    }

    /// The way in use.
    pub(crate) fn way(&self) -> u16 {
        self.current.load(Ordering::Relaxed)
    }

    pub(crate) fn peer(&self, way: u16) -> Peer {
        self.ways[usize::from(way)].peer
    }

    pub(crate) fn route(&self, way: u16) -> &Route {
        &self.descriptor.routes[self.ways[usize::from(way)].route]
    }

    /// The first way from this one on by which something `may_go`.
    pub(crate) fn way_from(&self, way: u16, may_go: impl Fn(Peer) -> bool) -> Option<u16> {
        (way..self.ways.len() as u16).find(|way| may_go(self.peer(*way)))
    }

    /// The next way for something, after one that does not lead there; and whether this call is the first to
    /// find out.
    pub(crate) fn detour(&self, way: u16, may_go: impl Fn(Peer) -> bool) -> Option<(u16, bool)> {
        let next = self.way_from(way + 1, may_go)?;
        // Others may well go by a way that is passed over here, or by one before: it is the way in use that
        // is given up.
        let given_up =
            self.current.compare_exchange(way, way + 1, Ordering::Relaxed, Ordering::Relaxed);
        Some((next, given_up.map_or_else(|current| current < way, |_| true)))
    }
}

impl RemoteWindow {
    /// Its owner, over the fabric that is in use now.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.inner.peer(self.inner.way())
    }

    /// The address its transfers go to now: another one than before when the best way turned out
    /// not to lead there.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.inner.route(self.inner.way()).address
    }

    /// How long it is, bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.inner.descriptor.len
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What its owner granted.
    #[must_use]
    pub fn access(&self) -> Access {
        self.inner.descriptor.access
    }

    /// A part of it, to transfer to or from.
    ///
    /// # Errors
    /// When the range is not inside the window.
    pub fn slice(&self, range: Range<u64>) -> Result<RemoteSlice, RangeError> {
        let range = check(range, self.len())?;
        Ok(RemoteSlice { window: self.clone(), range })
    }
}

impl fmt::Debug for RemoteWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let d = &self.inner.descriptor;
        write!(f, "Remote({:?} of {:?} at {})", d.window, d.engine, self.address())
    }
}

/// A part of a peer's window.
#[derive(Clone, Debug)]
pub struct RemoteSlice {
    pub(crate) window: RemoteWindow,
    pub(crate) range: Range<u64>,
}

impl RemoteSlice {
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
}

/// A peer's window mapped into this process: its bytes can be used in place.
///
/// The bytes belong to the peer and to everyone it lets in; they may change at any time. Whoever
/// reads them checks what was read.
#[derive(Debug)]
pub struct Mapping {
    memory: Memory,
    offset: usize,
    len: usize,
}

impl Mapping {
    pub(crate) fn new(memory: Memory, offset: usize, len: usize) -> Self {
        assert!(offset.checked_add(len).is_some_and(|end| end <= memory.len()));
        Self { memory, offset, len }
    }

    /// The first byte.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        // SAFETY: the offset was checked against the mapping.
        unsafe { self.memory.as_ptr().add(self.offset) }
    }

    /// The whole region behind the window.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Where the window starts in it, bytes.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// How long the window is, bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}
