//! What moves between this side and a peer.

use std::time::Duration;

use super::{Engine, MapError};
use crate::address::EngineId;
use crate::completion::Told;
use crate::held::Held;
use crate::immediate::Slot;
use crate::lane::Class;
use crate::order::{Move, Order, Task};
use crate::outcome::{Outcome, Reason};
use crate::pages::Plan;
use crate::peer::Peer;
use crate::region::Slice;
use crate::remote::{Mapping, RemoteSlice, RemoteWindow};
use crate::transfer::{Started, Submission};

impl Engine {
    /// Puts local bytes into a peer's window. Both sides must be of one length.
    ///
    /// What is given by reference is cloned only if the transfer does not end inside of the call
    /// that starts it.
    #[inline]
    pub fn write<'a>(
        &'a self,
        local: impl Into<Held<'a, Slice>>,
        remote: impl Into<Held<'a, RemoteSlice>>,
    ) -> Submission<'a> {
        let (local, remote) = (local.into(), remote.into());
        Submission::new(self, Task::Write(Move { local, remote, pages: None, immediate: None }))
    }

    /// Gets a peer's bytes into local memory. Both sides must be of one length.
    #[inline]
    pub fn read<'a>(
        &'a self,
        remote: impl Into<Held<'a, RemoteSlice>>,
        local: impl Into<Held<'a, Slice>>,
    ) -> Submission<'a> {
        let (local, remote) = (local.into(), remote.into());
        Submission::new(self, Task::Read(Move { local, remote, pages: None, immediate: None }))
    }

    /// Puts pieces of local bytes into pieces of a peer's window, as a prepared list says. Offsets
    /// count from the starts of `local` and `remote`. The immediate comes once, after all of them.
    pub fn write_paged<'a>(
        &'a self,
        local: impl Into<Held<'a, Slice>>,
        remote: impl Into<Held<'a, RemoteSlice>>,
        plan: impl Into<Held<'a, Plan>>,
    ) -> Submission<'a> {
        let (local, remote, pages) = (local.into(), remote.into(), Some(plan.into()));
        Submission::new(self, Task::Write(Move { local, remote, pages, immediate: None }))
    }

    /// Gets pieces of a peer's window into pieces of local memory; see [`Engine::write_paged`].
    pub fn read_paged<'a>(
        &'a self,
        remote: impl Into<Held<'a, RemoteSlice>>,
        local: impl Into<Held<'a, Slice>>,
        plan: impl Into<Held<'a, Plan>>,
    ) -> Submission<'a> {
        let (local, remote, pages) = (local.into(), remote.into(), Some(plan.into()));
        Submission::new(self, Task::Read(Move { local, remote, pages, immediate: None }))
    }

    /// Delivers an immediate to a peer, without payload and without a window.
    pub fn signal(&self, to: Peer, slot: Slot) -> Submission<'_> {
        Submission::new(self, Task::Signal { to, immediate: slot.into(), engine: None })
    }

    /// The same, for one engine alone: when somebody else is there, it ends as rejected, stale.
    pub(crate) fn signal_only(&self, to: Peer, engine: EngineId, slot: Slot) -> Submission<'_> {
        Submission::new(self, Task::Signal { to, immediate: slot.into(), engine: Some(engine) })
    }

    /// Sends a message of at most [`Engine::message_bytes_max`] bytes. `Done` means that it is on
    /// its way in order, not that the peer has read it.
    pub fn send(&self, to: Peer, bytes: impl Into<Vec<u8>>) -> Submission<'_> {
        Submission::new(self, Task::Send { to, bytes: bytes.into(), immediate: None })
    }

    /// Maps a peer's window into this process ([`Access::MAP`](crate::Access::MAP)), where fabric and host allow it.
    ///
    /// # Errors
    /// The outcome, when it is not `Done`; `Unsupported` where the fabric cannot map.
    pub fn map(&self, window: &RemoteWindow, timeout: Duration) -> Result<Mapping, MapError> {
        let remote = RemoteSlice { window: window.clone(), range: 0..window.len() };
        let mut order = Order::new(Task::Map { remote }, Class::LATENCY, timeout);
        order.begin(self.now());
        let until = order.deadline;
        let end = match self.submit(&mut order, &Told::default(), false) {
            Some(Started::Running(end)) => end,
            Some(Started::Ended(outcome)) => return Err(MapError { outcome }),
            None => return Err(MapError { outcome: Outcome::Rejected(Reason::Full) }),
        };
        let slack = Duration::from_secs(1);
        self.wait_on(&end, until + slack, || end.outcome().is_some());
        let outcome = end.outcome().unwrap_or(Outcome::Lost(Reason::Deadline));
        end.take_mapping().filter(|_| outcome.is_done()).ok_or(MapError { outcome })
    }
}
