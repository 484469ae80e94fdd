//! Rails without a network: whatever is posted is done at once, and no byte moves.
//!
//! What is left is what a transfer costs this host above its devices. A device of these is told of each
//! piece as a NIC is, by a descriptor in a ring, which nobody reads; it reports the end of a post when
//! it is polled next. Immediates reach nobody.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::config::Settings;
use super::device::{
    ChannelId, Completion, Device, Exposing, ExposureId, Keys, Part, Post, Room, Token, Traits,
};
use super::fabric::Rdma;
use crate::address::Kind;
use crate::fabric::{Fabric, OpenError, Provider, RegionId, Setup};
use crate::immediate::Immediate;
use crate::lane::Lane;
use crate::memory::Memory;
use crate::rail::Fact;

/// Descriptors that a device has room for, as many as a long send queue.
const DEPTH: usize = 4096;

/// An engine's rails without a network: one unless told otherwise.
#[derive(Debug, Clone)]
pub struct Config {
    settings: Settings,
    rails: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

impl Config {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self { settings: Settings::new(Kind::Sim), rails: 1 }
    }

    /// How many rails, at least one.
    #[must_use]
    pub fn rails(mut self, count: usize) -> Self {
        self.rails = count.max(1);
        self
    }
}

impl Provider for Config {
    fn kind(&self) -> Kind {
        Kind::Sim
    }

    fn open(self: Box<Self>, setup: &Setup) -> Result<Box<dyn Fabric>, OpenError> {
        let devices =
            (0..self.rails).map(|_| Box::new(Null::default()) as Box<dyn Device>).collect();
        Rdma::open(self.settings, devices, setup)
            .map(|fabric| Box::new(fabric) as Box<dyn Fabric>)
            .map_err(|what| OpenError { kind: Kind::Sim, what })
    }
}

/// What a NIC is told of one piece: where from, where to, what opens it, and how much of it.
type Descriptor = [u64; 4];

/// One such rail.
#[derive(Debug)]
struct Null {
    ring: Box<[Descriptor]>,
    next: usize,
    /// Descriptors whose end was not reported yet.
    taken: usize,
    done: Vec<Completion>,
}

impl Default for Null {
    fn default() -> Self {
        Self { ring: vec![[0; 4]; DEPTH].into(), next: 0, taken: 0, done: Vec::new() }
    }
}

impl Null {
    fn post(&mut self, post: &Post<'_>) {
        for piece in post.pieces {
            let local = post.local.wrapping_add(piece.local as usize) as u64;
            let remote = post.remote.wrapping_add(piece.remote);
            self.ring[self.next] = [local, remote, post.key, piece.len];
            self.next = (self.next + 1) % DEPTH;
        }
        self.taken += post.pieces.len().max(1);
        assert!(self.taken <= DEPTH, "posted without room");
        self.done.push(Completion::Done(post.token));
    }
}

impl Device for Null {
    fn name(&self) -> &str {
        "null"
    }

    fn traits(&self) -> Traits {
        Traits {
            ordered: true,
            exact: true,
            piece_bytes_max: 1 << 30,
            message_bytes_max: 0,
            pins: false,
            dma_bufs: false,
        }
    }

    fn facts(&self) -> Vec<Fact> {
        Vec::new()
    }

    fn channel_facts(&self, _channel: ChannelId) -> Vec<Fact> {
        Vec::new()
    }

    fn port(&self) -> Vec<u8> {
        Vec::new()
    }

    fn register(&mut self, _region: RegionId, _memory: &Arc<Memory>) -> Result<(), String> {
        Ok(())
    }

    fn deregister(&mut self, _region: RegionId) {}

    fn open(&mut self, _channel: ChannelId, _port: &[u8]) -> Result<Vec<u8>, String> {
        Ok(Vec::new())
    }

    fn connect(&mut self, _channel: ChannelId, _theirs: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn destroy(&mut self, _channel: ChannelId, out: &mut Vec<Completion>) {
        self.poll(out);
    }

    fn expose(
        &mut self,
        exposure: ExposureId,
        _channel: ChannelId,
        _part: &Part,
    ) -> Result<Exposing, String> {
        Ok(Exposing::Now(Keys { keys: [exposure.0.into(); 2], base: 0 }))
    }

    fn conceal(&mut self, _exposure: ExposureId) {}

    fn room(&self, _channel: ChannelId, _lane: Lane) -> Room {
        let pieces = DEPTH - self.taken;
        Room { pieces, immediates: pieces }
    }

    fn write(&mut self, post: &Post<'_>, _immediate: Option<Immediate>) {
        self.post(post);
    }

    fn read(&mut self, post: &Post<'_>) {
        self.post(post);
    }

    fn send(&mut self, _channel: ChannelId, _token: Token, _bytes: &[u8]) {
        unreachable!("it carries no messages")
    }

    fn poll(&mut self, out: &mut Vec<Completion>) -> bool {
        let any = !self.done.is_empty();
        self.taken = 0;
        out.append(&mut self.done);
        any
    }

    fn arm(&mut self) -> bool {
        self.done.is_empty()
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::memory::HostMemory;
    use crate::pages::{Pages, Plan};
    use crate::window::Access;
    use crate::{Engine, Outcome};

    #[test]
    fn whatever_is_posted_ends_well_and_moves_nothing() {
        let build = || Engine::builder().fabric(Config::new().rails(2)).build().unwrap();
        let (here, there) = (build(), build());
        let alloc = |engine: &Engine| engine.alloc(HostMemory::new(1 << 20)).unwrap();
        let (source, target) = (alloc(&here), alloc(&there));
        source.memory().fill(0..1 << 20, 7).unwrap();
        let window = target.window_with(0..1 << 20, Access::WRITE | Access::READ).unwrap();
        let to = here.open(&window.descriptor()).unwrap().slice(0..1 << 20).unwrap();
        let from = source.slice(0..1 << 20).unwrap();
        // More pieces than there is room for.
        let pages = || Pages::strided(0, 16, 32, 3 * DEPTH as u32).unwrap();
        let plan = Plan::new(pages(), pages()).unwrap();
        for _ in 0..3 {
            assert_eq!(here.write(&from, &to).wait(), Outcome::Done);
            assert_eq!(here.read(&to, &from).wait(), Outcome::Done);
            assert_eq!(here.write_paged(&from, &to, &plan).wait(), Outcome::Done);
        }
        assert_eq!(here.stats().fallbacks, 0);
        let mut byte = [1];
        target.memory().read_at(0, &mut byte).unwrap();
        assert_eq!(byte, [0]);
    }
}
