//! The seam below: one rail's hardware.

use std::fmt;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;

use crate::fabric::RegionId;
use crate::immediate::Immediate;
use crate::lane::Lane;
use crate::memory::Memory;
use crate::pages::Piece;
use crate::rail::Fact;
use crate::window::Access;

/// The way to one peer over one rail, as the fabric numbers it; never used again for another. It has
/// a queue for each [`Lane`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(in crate::fabric) struct ChannelId(pub(in crate::fabric) u32);

/// A part of a region that a channel's peer may use; never used again for another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(in crate::fabric) struct ExposureId(pub(in crate::fabric) u32);

/// What was posted, as the fabric numbers it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(in crate::fabric) struct Token(pub(in crate::fabric) u64);

/// What can be relied on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::fabric) struct Traits {
    /// What is posted in one lane of a channel lands in that order, immediates included.
    pub(in crate::fabric) ordered: bool,
    /// [`Completion::Arrived`] names the channel, and [`Device::destroy`] reports all that arrived
    /// before it.
    pub(in crate::fabric) exact: bool,
    /// The longest piece, bytes.
    pub(in crate::fabric) piece_bytes_max: u64,
    /// The longest message, bytes; 0 where it carries none, or the streams do it better.
    pub(in crate::fabric) message_bytes_max: usize,
    /// Registering pins memory.
    pub(in crate::fabric) pins: bool,
    /// Memory of devices is registered, by its dma-buf, as far as the driver goes along.
    pub(in crate::fabric) dma_bufs: bool,
}

/// What the peer needs to use an exposure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::fabric) struct Keys {
    /// The hardware's key, by [`Lane`].
    pub(in crate::fabric) keys: [u64; 2],
    /// What the hardware calls the first byte: an address, or 0.
    pub(in crate::fabric) base: u64,
}

/// A part of a region.
#[derive(Clone, Copy, Debug)]
pub(in crate::fabric) struct Part {
    pub(in crate::fabric) region: RegionId,
    pub(in crate::fabric) offset: u64,
    pub(in crate::fabric) len: u64,
    pub(in crate::fabric) access: Access,
}

/// How an exposure begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::fabric) enum Exposing {
    /// It is there.
    Now(Keys),
    /// [`Completion::Exposed`] follows.
    Later,
}

/// What can be posted now in one lane of a channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::fabric) struct Room {
    /// Pieces; an immediate without payload takes the room of one.
    pub(in crate::fabric) pieces: usize,
    /// Immediates, or messages, among them.
    pub(in crate::fabric) immediates: usize,
}

/// Pieces to be written or read. Addresses are sums of a base and the piece's offset.
#[derive(Clone, Copy, Debug)]
pub(in crate::fabric) struct Post<'a> {
    pub(in crate::fabric) channel: ChannelId,
    pub(in crate::fabric) lane: Lane,
    pub(in crate::fabric) token: Token,
    /// The region of this side, which is registered.
    pub(in crate::fabric) region: RegionId,
    /// The first byte of this side, an address of the device whose memory it is; [`Piece::local`] counts from
    /// here.
    pub(in crate::fabric) local: *mut u8,
    /// The first byte of the peer's side, as its hardware calls it; [`Piece::remote`] counts from
    /// here.
    pub(in crate::fabric) remote: u64,
    /// The hardware's key for this channel and lane.
    pub(in crate::fabric) key: u64,
    /// None is empty or longer than [`Traits::piece_bytes_max`]. Without any, only the immediate is
    /// delivered, if there is one, and region and key mean nothing: it ends well if it gets through.
    pub(in crate::fabric) pieces: &'a [Piece],
}

impl Post<'_> {
    /// Nothing at all, which shows whether something gets through.
    pub(in crate::fabric) const NOTHING: Self = Self {
        channel: ChannelId(0),
        lane: Lane::Latency,
        token: Token(0),
        region: RegionId(u32::MAX),
        local: std::ptr::null_mut(),
        remote: 0,
        key: 0,
        pieces: &[],
    };
}

/// What [`Device::poll`] and [`Device::destroy`] report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::fabric) enum Completion {
    /// All of a post is where it belongs: visible in the peer's memory, or read.
    Done(Token),
    /// An immediate arrived; what was posted in the same lane of the channel before it is visible,
    /// where the device is [ordered](Traits::ordered), and its own payload in any case.
    Arrived {
        /// Through which channel and lane, where that is known.
        from: Option<(ChannelId, Lane)>,
        /// It.
        immediate: Immediate,
    },
    /// A message arrived.
    Message(ChannelId, Vec<u8>),
    /// An exposure that began [later](Exposing::Later) is there, or cannot be.
    Exposed(ExposureId, Result<Keys, String>),
    /// A channel is of no use any more: whatever is not `Done` by now may have landed or not, and
    /// does not end before [`Device::destroy`].
    Broken(ChannelId, String),
    /// The rail's port came up, or went down and why.
    Port(Result<(), String>),
}

/// One rail. Driven by one thread; nothing blocks longer than a system call does.
pub(in crate::fabric) trait Device: Send + fmt::Debug {
    /// What it is called in messages: `mlx5_0/1`, `tcp;ofi_rxm eth0`.
    fn name(&self) -> &str;

    /// What can be relied on.
    fn traits(&self) -> Traits;

    /// What people may want to know of it: how it is used, and why.
    fn facts(&self) -> Vec<Fact>;

    /// What people may want to know of a channel that is connected: where it leads, and how.
    fn channel_facts(&self, channel: ChannelId) -> Vec<Fact>;

    /// What a peer must know of the port before it opens a channel to it, at most 256 bytes.
    fn port(&self) -> Vec<u8>;

    /// Makes memory usable in posts and exposures.
    ///
    /// # Errors
    /// When the hardware cannot use it: why, and the remedy.
    fn register(&mut self, region: RegionId, memory: &Arc<Memory>) -> Result<(), String>;

    /// Forgets a region: nothing of it is posted or exposed any more.
    fn deregister(&mut self, region: RegionId);

    /// Makes this side of a channel to a port, and returns what the peer must know to connect to it,
    /// at most 512 bytes.
    ///
    /// # Errors
    /// When the port cannot be reached from this one, or something is used up: why, and the remedy.
    fn open(&mut self, channel: ChannelId, port: &[u8]) -> Result<Vec<u8>, String>;

    /// Connects a channel to what the peer's side told. The peer may use it at once, whether or not
    /// it has connected its own side yet.
    ///
    /// # Errors
    /// When that makes no sense or the network does not lead there; the channel is to be destroyed.
    fn connect(&mut self, channel: ChannelId, theirs: &[u8]) -> Result<(), String>;

    /// Takes this side of a channel down. What has completed or arrived is reported now; of the
    /// channel, its posts and exposures nothing is reported later. When it returns no memory of this
    /// side is read or written through it any more. Exposures are still to be concealed.
    fn destroy(&mut self, channel: ChannelId, out: &mut Vec<Completion>);

    /// Lets the channel's peer, and nobody else where the hardware can, use a part of a region.
    ///
    /// # Errors
    /// When it cannot be: why, and the remedy.
    fn expose(
        &mut self,
        exposure: ExposureId,
        channel: ChannelId,
        part: &Part,
    ) -> Result<Exposing, String>;

    /// Takes an exposure back, whether or not it is there yet: its keys open nothing any more.
    fn conceal(&mut self, exposure: ExposureId);

    /// What can be posted now; nothing on a broken channel.
    fn room(&self, channel: ChannelId, lane: Lane) -> Room;

    /// Posts a write; there is [room](Device::room) for it. The immediate is delivered after the last
    /// piece, and after all of them where the device is ordered. [`Completion::Done`] follows, or
    /// the channel is reported broken.
    fn write(&mut self, post: &Post<'_>, immediate: Option<Immediate>);

    /// Posts a read; there is room for it.
    fn read(&mut self, post: &Post<'_>);

    /// Sends a message of at most [`Traits::message_bytes_max`] in the latency lane; there is room for it
    /// and for an immediate, and the peer has not more than [`RAIL_MAX`](super::mail::RAIL_MAX) of them
    /// to take. [`Completion::Done`] follows once it is there, or the channel is reported broken.
    fn send(&mut self, channel: ChannelId, token: Token, bytes: &[u8]);

    /// Moves things on and reports what happened; whether anything did.
    fn poll(&mut self, out: &mut Vec<Completion>) -> bool;

    /// Prepares for sleep: whatever would make [`Device::poll`] report something makes
    /// [`Device::wait_fd`] readable from now on. `false` when there is something now.
    fn arm(&mut self) -> bool;

    /// The descriptor that the hardware belongs to: once it is closed, as it is when the process dies,
    /// nothing is read or written through any channel.
    fn descriptor(&self) -> Option<RawFd> {
        None
    }

    /// Becomes readable when there is something, if armed. `None` for a device that has to be polled.
    fn wait_fd(&self) -> Option<BorrowedFd<'_>>;
}
