//! The seam below the engine: one provider of one-sided operations.
//!
//! A fabric is single-threaded (`&mut self` under the engine's lock) and driven by
//! [`Fabric::poll`]; it never blocks and never calls back. Striping, deadlines, retries, counters
//! and statistics live above it, once, in the engine.
//!
//! # Contract
//! 1. *Visible before announced.* A payload is visible at the receiver before its immediate is
//!    reported there, and before its [`Posted::Done`] or [`Status::Done`] here.
//! 2. *One end.* Every operation answered [`Posted::Pending`] ends in exactly one
//!    [`Event::Completed`], or in none for as long as the fabric cannot prove that no more bytes
//!    will move. [`Status::Stopped`] is that proof.
//! 3. *Bounds.* Nothing outside the window named by the key is read or written; a key that is
//!    stale, forged or out of bounds is refused.
//! 4. *Fence.* After [`Event::Revoked`] no byte lands in the window, whatever was in flight, and no
//!    peer can start again.
//! 5. *Death.* A peer that dies is noticed without traffic from it. All operations on it that can be
//!    proven ended are completed before its [`Event::PeerDown`].
//! 6. *Order.* Messages of one peer arrive in order, once. Nothing else is ordered.

mod alarm;
mod epoll;
#[cfg(any(feature = "fuzzing", all(not(loom), test)))]
mod fuzzing;
#[cfg(all(test, not(loom)))]
mod kit;
#[cfg(feature = "conformance")]
pub mod null;
pub mod ofi;
#[cfg(feature = "conformance")]
pub mod rdma;
#[cfg(not(feature = "conformance"))]
mod rdma;
mod recent;
pub mod shm;
pub mod sim;
pub mod tcp;
pub mod verbs;
mod windows;

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::address::{Address, EngineId, Kind};
use crate::immediate::Immediate;
use crate::lane::Lane;
use crate::memory::Memory;
use crate::outcome::Reason;
use crate::pages::Plan;
use crate::rail::{Path, Rail};
use crate::time::Clock;
use crate::window::{Access, WindowId};

/// A region, as the engine numbers it; never used again for another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RegionId(pub u32);

/// A connection, as the fabric numbers it; never used again for another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PeerId(pub u32);

/// An operation, as the engine numbers it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct OpId(pub u64);

/// What a fabric must know of the engine that opens it.
#[derive(Debug)]
pub struct Setup {
    /// The engine.
    pub engine: EngineId,
    /// Its clock.
    pub clock: Arc<dyn Clock>,
}

/// Opens a fabric; the engine's builder takes these.
pub trait Provider: Send {
    /// Which fabric it opens.
    fn kind(&self) -> Kind;

    /// Opens it.
    ///
    /// # Errors
    /// When the machine lacks what it needs; the message says what and how to get it.
    fn open(self: Box<Self>, setup: &Setup) -> Result<Box<dyn Fabric>, OpenError>;
}

/// A fabric that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("{kind} fabric: {what}")]
pub struct OpenError {
    /// The fabric.
    pub kind: Kind,
    /// What was missing or refused, and the remedy.
    pub what: String,
}

/// Memory that cannot be registered or granted.
#[derive(Debug, thiserror::Error)]
#[error("{kind} fabric: {what}")]
pub struct RegisterError {
    /// The fabric.
    pub kind: Kind,
    /// What was refused, and the remedy.
    pub what: String,
}

impl RegisterError {
    /// What a fabric says that does not reach memory of devices.
    #[must_use]
    pub fn on_device(kind: Kind) -> Self {
        let what = "the memory is a device's, which this fabric does not reach; verbs does, by its dma-buf (rdma-core \
                    34 or later, and a driver that takes them: mlx5 since Linux 5.12), or let the device copy to \
                    host memory and register that"
            .to_owned();
        Self { kind, what }
    }
}

/// A window as its owner grants it.
#[derive(Clone, Copy, Debug)]
pub struct Grant {
    /// Its identifier, generation included.
    pub window: WindowId,
    /// The region it lies in.
    pub region: RegionId,
    /// Where it starts in the region, bytes.
    pub offset: u64,
    /// How long it is, bytes.
    pub len: u64,
    /// What peers may do.
    pub access: Access,
}

/// What a peer must present to use a window over this fabric; travels in a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RemoteKey {
    /// Unguessable: an rkey, or random bits.
    pub key: u64,
    /// Where the window starts, as this fabric addresses memory (an address, or an offset).
    pub base: u64,
}

/// Bytes on this side. The engine keeps the region alive until the operation ends.
#[derive(Clone, Copy, Debug)]
pub struct Local {
    /// The region.
    pub region: RegionId,
    /// The first byte; not to be followed where the region is a device's.
    pub ptr: *mut u8,
    /// How many bytes.
    pub len: u64,
}

// SAFETY: `Local` is a description; the engine guarantees that the memory outlives the operation,
// and shared memory is only ever touched through raw pointers.
unsafe impl Send for Local {}

/// Bytes on the peer's side.
#[derive(Clone, Copy, Debug)]
pub struct Remote {
    /// The window.
    pub window: WindowId,
    /// What opens it.
    pub key: RemoteKey,
    /// The first byte, counted from the start of the window.
    pub offset: u64,
}

/// How many bytes a write or read moves.
#[must_use]
pub fn bytes(local: &Local, pages: Option<&Plan>) -> u64 {
    pages.map_or(local.len, Plan::bytes)
}

/// How far it reaches on the peer's side, counted from [`Remote::offset`].
#[must_use]
pub fn reach(local: &Local, pages: Option<&Plan>) -> u64 {
    pages.map_or(local.len, |plan| plan.remote().end())
}

/// One operation.
#[derive(Clone, Copy, Debug)]
pub enum Work<'a> {
    /// Put local bytes into the peer's window, then deliver the immediate. Zero bytes are legal
    /// and deliver the immediate alone. Any length is legal: a fabric splits what it cannot carry
    /// whole.
    Write {
        /// Where from.
        local: Local,
        /// Where to.
        remote: Remote,
        /// Which pieces of both; everything between `local` and an equally long stretch at
        /// `remote` where there is no plan. The engine has checked that the pieces of this side lie
        /// in `local` and that those of the destination do not overlap; that the peer's lie in its
        /// window is the fabric's to check, whoever wrote the plan.
        pages: Option<&'a Plan>,
        /// What to deliver after the payload.
        immediate: Option<Immediate>,
    },
    /// Get the peer's bytes into local memory, then deliver the immediate to the peer.
    Read {
        /// Where to.
        local: Local,
        /// Where from.
        remote: Remote,
        /// Which pieces of both; see [`Work::Write`].
        pages: Option<&'a Plan>,
        /// What to deliver once the bytes have been read.
        immediate: Option<Immediate>,
    },
    /// Send a message; the bytes are taken over when the answer is not `Busy` or `Refused`.
    Send {
        /// The message, at most [`Limits::message_bytes_max`].
        bytes: &'a [u8],
        /// What to deliver after the message.
        immediate: Option<Immediate>,
    },
    /// Deliver an immediate alone.
    Signal {
        /// What to deliver.
        immediate: Immediate,
    },
    /// Map the whole window into this process ([`Access::MAP`]).
    Map {
        /// The window (offset 0).
        remote: Remote,
    },
}

/// The answer to [`Fabric::post`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Posted {
    /// Ended already, well; no event follows.
    Done,
    /// Begun; an [`Event::Completed`] (or [`Event::Mapped`]) follows.
    Pending,
    /// Not begun, for lack of room; try again after a poll.
    Busy,
    /// Not begun and never will be.
    Refused(Reason),
}

/// How an operation that was pending ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// Well.
    Done,
    /// No byte moved and none will.
    Refused(Reason),
    /// Some bytes may have moved; no more will.
    Stopped(Reason),
}

/// What [`Fabric::poll`] reports.
#[derive(Debug)]
pub enum Event {
    /// An operation ended.
    Completed {
        /// Which.
        op: OpId,
        /// How.
        status: Status,
    },
    /// A [`Work::Map`] ended well.
    Mapped {
        /// Which.
        op: OpId,
        /// The peer's whole region.
        memory: Memory,
        /// Where the window starts in it, bytes.
        offset: u64,
        /// How long the window is, bytes.
        len: u64,
    },
    /// An immediate arrived; its payload is visible.
    Arrived {
        /// The immediate.
        immediate: Immediate,
    },
    /// A message arrived.
    Message {
        /// From whom.
        peer: PeerId,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// A connection is ready. For one that was dialled, the peer of [`Fabric::connect`]; a new one
    /// when the peer dialled us.
    PeerUp {
        /// The connection.
        peer: PeerId,
        /// Who is there.
        engine: EngineId,
    },
    /// A connection ended or never came about; nothing more comes from it.
    PeerDown {
        /// The connection.
        peer: PeerId,
        /// Why.
        reason: Reason,
    },
    /// Payload to a peer takes a slower way than it was meant to; the log says why.
    Fallback {
        /// The connection.
        peer: PeerId,
    },
    /// A path to a peer came up, went down, or was measured: see [`Fabric::paths`].
    Path {
        /// The connection.
        peer: PeerId,
    },
    /// A window is fenced.
    Revoked {
        /// Which.
        window: WindowId,
    },
}

/// What a fabric carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The longest message, bytes.
    pub message_bytes_max: usize,
    /// How many windows can be granted at once.
    pub windows_max: usize,
}

/// One provider of one-sided operations. See the module for the contract.
pub trait Fabric: Send {
    /// Which fabric.
    fn kind(&self) -> Kind;

    /// Where peers reach this engine.
    fn address(&self) -> Address;

    /// What it carries.
    fn limits(&self) -> Limits;

    /// Whether peers can map regions ([`Work::Map`]), which gives them the memory itself.
    fn maps(&self) -> bool;

    /// Whether memory that is registered is pinned, so that pages which are not there yet are made then.
    fn pins(&self) -> bool {
        false
    }

    /// Whether it may move memory of devices ([`Memory::device`]); no other fabric is given any.
    fn takes_devices(&self) -> bool {
        false
    }

    /// Makes memory usable as [`Local`] and grantable.
    ///
    /// # Errors
    /// When the fabric cannot use this memory.
    fn register(&mut self, region: RegionId, memory: &Arc<Memory>) -> Result<(), RegisterError>;

    /// Forgets a region. The engine has ended all its operations and windows before.
    fn deregister(&mut self, region: RegionId);

    /// Lets peers into a part of a region.
    ///
    /// # Errors
    /// When the fabric cannot expose this memory.
    fn grant(&mut self, grant: &Grant) -> Result<RemoteKey, RegisterError>;

    /// Takes a window back; [`Event::Revoked`] follows once no byte can land in it.
    fn revoke(&mut self, window: WindowId);

    /// Dials a peer; [`Event::PeerUp`] or [`Event::PeerDown`] follows.
    fn connect(&mut self, to: &Address) -> PeerId;

    /// Hangs up; [`Event::PeerDown`] follows with [`Reason::Closed`].
    fn disconnect(&mut self, peer: PeerId);

    /// Begins an operation on a connected peer. What is in [`Lane::Latency`] overtakes, within
    /// the fabric and on the wire, what is in [`Lane::Bulk`]; messages keep their order whatever
    /// their lane.
    fn post(&mut self, op: OpId, peer: PeerId, lane: Lane, work: Work<'_>) -> Posted;

    /// Asks that a pending operation end soon. It ends by an [`Event::Completed`] as always: with
    /// `Done` if it was faster, else with the proof that no more bytes will move.
    fn cancel(&mut self, op: OpId, reason: Reason);

    /// Moves things on and reports what happened, at most `messages_max` messages of it (the rest
    /// stay with the fabric). Does a bounded amount of work; returns whether it did any.
    fn poll(&mut self, messages_max: usize, events: &mut Vec<Event>) -> bool;

    /// Prepares for sleep: from now on whatever would make `poll` do work makes
    /// [`Fabric::wait_fd`] readable. Returns `false`, and nobody may sleep, when there is work now.
    fn arm(&mut self) -> bool;

    /// Becomes readable (`poll(2)`) when there is work, if armed. `None` for a fabric without real
    /// time.
    fn wait_fd(&self) -> Option<BorrowedFd<'_>>;

    /// Its rails; a fabric that has none of its own tells of none.
    fn rails(&self) -> Vec<Rail> {
        Vec::new()
    }

    /// The paths to a peer that is connected, by way of its rails.
    fn paths(&self, _peer: PeerId) -> Vec<Path> {
        Vec::new()
    }

    /// Measures [`Path::round_trip`] once more, of every path as soon as it is up and has room; it is
    /// `None` meanwhile, and [`Event::Path`] follows.
    fn probe(&mut self, _peer: PeerId) {}

    /// Stops everything: ends all operations and connections, and returns when none of this
    /// engine's memory can be touched any more by this fabric's own doing.
    fn close(&mut self);
}
