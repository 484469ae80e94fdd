//! Orders: what the engine is asked to do, how, and until when.

use std::time::Duration;

use crate::address::EngineId;
use crate::fabric::{Remote, RemoteKey, Work};
use crate::held::Held;
use crate::immediate::{Immediate, Slot};
use crate::lane::{Class, Lane};
use crate::pages::Plan;
use crate::peer::Peer;
use crate::region::Slice;
use crate::remote::{Opened, RemoteSlice};
use crate::time::Time;

/// What is to be done, with everything it needs: borrowed while it is described, and kept in place
/// (`'static`) once it goes on.
#[derive(Debug)]
pub(crate) enum Task<'a> {
    Write(Move<'a>),
    Read(Move<'a>),
    /// `engine`: for that one alone; for whoever is there otherwise.
    Signal {
        to: Peer,
        immediate: Immediate,
        engine: Option<EngineId>,
    },
    Send {
        to: Peer,
        bytes: Vec<u8>,
        immediate: Option<Immediate>,
    },
    Map {
        remote: RemoteSlice,
    },
}

/// What a task counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Write,
    Read,
    Send,
    Other,
}

/// Bytes between this side and a peer's window.
#[derive(Debug)]
pub(crate) struct Move<'a> {
    pub(crate) local: Held<'a, Slice>,
    pub(crate) remote: Held<'a, RemoteSlice>,
    pub(crate) pages: Option<Held<'a, Plan>>,
    pub(crate) immediate: Option<Immediate>,
}

impl Move<'_> {
    fn keep(&self) -> Move<'static> {
        Move {
            local: self.local.keep(),
            remote: self.remote.keep(),
            pages: self.pages.as_ref().map(Held::keep),
            immediate: self.immediate,
        }
    }

    fn into_owned(self) -> Move<'static> {
        let Self { local, remote, pages, immediate } = self;
        let pages = pages.map(Held::into_owned);
        Move { local: local.into_owned(), remote: remote.into_owned(), pages, immediate }
    }

    fn bytes(&self) -> u64 {
        self.pages.as_ref().map_or_else(|| self.local.len(), |plan| plan.bytes())
    }
}

impl<'a> Task<'a> {
    /// The same, for as long as it takes.
    fn into_owned(self) -> Task<'static> {
        match self {
            Self::Write(it) => Task::Write(it.into_owned()),
            Self::Read(it) => Task::Read(it.into_owned()),
            Self::Signal { to, immediate, engine } => Task::Signal { to, immediate, engine },
            Self::Send { to, bytes, immediate } => Task::Send { to, bytes, immediate },
            Self::Map { remote } => Task::Map { remote },
        }
    }

    /// The same, for as long as it takes; a message's bytes are taken.
    fn keep(&mut self) -> Task<'static> {
        match self {
            Self::Write(it) => Task::Write(it.keep()),
            Self::Read(it) => Task::Read(it.keep()),
            Self::Signal { to, immediate, engine } => {
                Task::Signal { to: *to, immediate: *immediate, engine: *engine }
            }
            Self::Send { to, bytes, immediate } => {
                Task::Send { to: *to, bytes: std::mem::take(bytes), immediate: *immediate }
            }
            Self::Map { remote } => Task::Map { remote: remote.clone() },
        }
    }

    /// The peer's bytes, if they are in a window.
    pub(crate) fn remote(&self) -> Option<&RemoteSlice> {
        match self {
            Self::Write(it) | Self::Read(it) => Some(&it.remote),
            Self::Map { remote } => Some(remote),
            Self::Send { .. } | Self::Signal { .. } => None,
        }
    }

    /// The peer's window, if it has one.
    #[inline]
    pub(crate) fn window(&self) -> Option<&Opened> {
        self.remote().map(|remote| &*remote.window.inner)
    }

    /// The engine it is for, if it is not for whoever is there.
    #[inline]
    pub(crate) fn engine(&self) -> Option<EngineId> {
        match self {
            Self::Signal { engine, .. } => *engine,
            _ => self.window().map(|opened| opened.descriptor.engine),
        }
    }

    fn peer(&self, way: u16) -> Peer {
        match self {
            Self::Write(it) | Self::Read(it) => it.remote.window.inner.peer(way),
            Self::Map { remote } => remote.window.inner.peer(way),
            Self::Send { to, .. } | Self::Signal { to, .. } => *to,
        }
    }

    /// The local bytes, if it has any.
    pub(crate) fn local(&self) -> Option<&Slice> {
        match self {
            Self::Write(it) | Self::Read(it) => Some(&it.local),
            Self::Send { .. } | Self::Signal { .. } | Self::Map { .. } => None,
        }
    }

    /// Whether the fabric by which a peer is reached has the local bytes: that of a device not every one has.
    #[inline]
    pub(crate) fn may_go_to(&self, peer: Peer) -> bool {
        self.local().is_none_or(|local| local.region.is_with(peer.worker))
    }

    /// How many bytes of payload it moves.
    #[inline]
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Write(it) | Self::Read(it) => it.bytes(),
            Self::Send { bytes, .. } => bytes.len() as u64,
            Self::Signal { .. } | Self::Map { .. } => 0,
        }
    }

    /// What it counts as.
    #[inline]
    pub(crate) fn what(&self) -> What {
        match self {
            Self::Write(_) => What::Write,
            Self::Read(_) => What::Read,
            Self::Send { .. } => What::Send,
            Self::Signal { .. } | Self::Map { .. } => What::Other,
        }
    }

    #[inline]
    fn work(&self, way: u16) -> Work<'_> {
        match self {
            Self::Write(it) => Work::Write {
                local: it.local.local(),
                remote: target(&it.remote, way),
                pages: it.pages.as_deref(),
                immediate: it.immediate,
            },
            Self::Read(it) => Work::Read {
                local: it.local.local(),
                remote: target(&it.remote, way),
                pages: it.pages.as_deref(),
                immediate: it.immediate,
            },
            Self::Signal { immediate, .. } => Work::Signal { immediate: *immediate },
            Self::Send { bytes, immediate, .. } => Work::Send { bytes, immediate: *immediate },
            Self::Map { remote } => Work::Map { remote: target(remote, way) },
        }
    }

    pub(crate) fn set_immediate(&mut self, slot: Slot) {
        match self {
            Self::Write(Move { immediate, .. })
            | Self::Read(Move { immediate, .. })
            | Self::Send { immediate, .. } => *immediate = Some(slot.into()),
            Self::Signal { immediate, .. } => *immediate = slot.into(),
            Self::Map { .. } => {}
        }
    }
}

#[inline]
fn target(slice: &RemoteSlice, way: u16) -> Remote {
    let opened = &slice.window.inner;
    let route = opened.route(way);
    Remote {
        window: opened.descriptor.window,
        key: RemoteKey { key: route.key, base: route.base },
        offset: slice.range.start,
    }
}

/// A task, how it goes, and until when.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    pub(crate) task: Task<'a>,
    /// Which of the ways to the window.
    pub(crate) way: u16,
    pub(crate) class: Class,
    pub(crate) deadline: Time,
    pub(crate) timeout: Duration,
}

impl<'a> Order<'a> {
    /// Not to be submitted before [`Order::begin`].
    #[inline]
    pub(crate) fn new(task: Task<'a>, class: Class, timeout: Duration) -> Self {
        // Messages keep their order: all of them are in one class.
        let class = if matches!(task, Task::Send { .. }) { Class::MESSAGE } else { class };
        Self { task, way: 0, class, deadline: Time::NEVER, timeout }
    }

    /// The same, for as long as it takes.
    pub(crate) fn into_owned(self) -> Order<'static> {
        let Self { task, way, class, deadline, timeout } = self;
        Order { task: task.into_owned(), way, class, deadline, timeout }
    }

    /// The same, for an operation that goes on: what was borrowed is cloned, and a message's bytes
    /// are taken.
    pub(crate) fn keep(&mut self) -> Order<'static> {
        let Self { task, way, class, deadline, timeout } = self;
        let (way, class, deadline, timeout) = (*way, *class, *deadline, *timeout);
        Order { task: task.keep(), way, class, deadline, timeout }
    }

    pub(crate) fn set_lane(&mut self, lane: Lane) {
        if !matches!(self.task, Task::Send { .. }) {
            self.class = self.class.in_lane(lane);
        }
    }

    /// Its time runs from now on, over the way that is in use now.
    #[inline]
    pub(crate) fn begin(&mut self, now: Time) {
        self.way = self.task.window().map_or(0, Opened::way);
        self.deadline = now + self.timeout;
        if self.task.local().is_some_and(|local| local.region.is_partial()) {
            // Without any it is refused where it goes.
            self.way = self.way_from(self.way).unwrap_or(self.way);
        }
    }

    /// The way after its own, if there is one by which it may go.
    pub(crate) fn next_way(&self) -> Option<u16> {
        self.way_from(self.way + 1)
    }

    #[cold]
    fn way_from(&self, way: u16) -> Option<u16> {
        self.task.window()?.way_from(way, |peer| self.task.may_go_to(peer))
    }

    pub(crate) fn peer(&self) -> Peer {
        self.task.peer(self.way)
    }

    pub(crate) fn work(&self) -> Work<'_> {
        self.task.work(self.way)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Orders are moved by value from their description to their end. What is longer than 128 bytes
    /// is moved by a call of `memmove`, once for each transfer of a batch.
    #[test]
    #[cfg(target_pointer_width = "64")]
    fn an_order_is_moved_without_a_call() {
        assert_eq!(size_of::<Task<'_>>(), 80);
        assert!(size_of::<Order<'_>>() <= 128);
    }
}
