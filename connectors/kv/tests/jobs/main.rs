//! Jobs against a real daemon of this process, over real fabrics.

mod filling;
mod queue;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tranship_cache::client::{Cache, Client};
use tranship_cache::stats::TenantStats;
use tranship_cache::tier::Tier;
use tranship_cache::tier::cold::Record;
use tranship_cache::{Key, Link};
use tranship_kv::paged::Tensor;
use tranship_kv::{Done, Ended, JobId, Paged, Queue};
use tranship_tests::below::Scripted;
use tranship_tests::daemon::Daemon;
use tranship_tests::world::{chain, content, identity};
use tranship_transport::memory::Spans;
use tranship_transport::{HostMemory, Kind, Memory};

/// Of a block.
const LEN: usize = LAYERS * LAYER_BYTES;
const LAYERS: usize = 3;
const LAYER_BYTES: usize = 1_111;
const ARENA_BYTES: usize = 8 << 20;
/// Longer than anything here takes.
const AMPLE: Duration = Duration::from_secs(30);

fn open(daemon: &Daemon) -> Cache {
    Client::builder().connect(&daemon.address(Kind::Shm)).unwrap().cache(identity())
}

fn stats(daemon: &Daemon) -> TenantStats {
    daemon.store.stats().remove(0)
}

/// Polls until `done` holds.
fn until(done: impl Fn() -> bool) {
    let deadline = Instant::now() + AMPLE;
    while !done() {
        assert!(Instant::now() < deadline, "waited for {AMPLE:?}");
        std::thread::yield_now();
    }
}

/// Whether the queue's descriptor is readable, or becomes so in time.
fn readable(queue: &Queue, within: Duration) -> bool {
    let fd = queue.fd();
    let within = Timespec { tv_sec: within.as_secs() as i64, tv_nsec: 0 };
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&within)).unwrap() == 1
}

fn end_of(queue: &Queue, job: JobId) -> Done {
    queue.wait(job, AMPLE).expect("an end in time")
}

/// Blocks one after the other.
struct Blocks(Memory);

impl Blocks {
    fn new(count: usize) -> Self {
        Self(HostMemory::new(count * LEN).build().unwrap())
    }

    /// With the bytes that tell which blocks they are of.
    fn of(links: &[Link]) -> Self {
        let blocks = Self::new(links.len());
        for (index, link) in links.iter().enumerate() {
            blocks.0.write_at(index * LEN, &content(link, LEN)).unwrap();
        }
        blocks
    }

    fn spans(&self, index: usize) -> Spans {
        let mut spans = Spans::new();
        // SAFETY: the tests keep the memory until the jobs have ended, and hold no references to it.
        unsafe { spans.push(self.0.as_ptr().wrapping_add(index * LEN), LEN) };
        spans
    }

    fn to_store(&self, links: &[Link]) -> Vec<(Link, Spans)> {
        links.iter().enumerate().map(|(index, link)| (*link, self.spans(index))).collect()
    }

    fn to_load(&self, links: &[Link]) -> Vec<(Key, Spans)> {
        links.iter().enumerate().map(|(index, link)| (link.key, self.spans(index))).collect()
    }

    fn has(&self, index: usize, link: &Link) -> bool {
        let mut found = vec![0; LEN];
        self.0.read_at(index * LEN, &mut found).unwrap();
        found == content(link, LEN)
    }
}

/// The pages of an engine, layers outermost: page `i` is to be the block of `links[i]`.
fn pages(links: &[Link]) -> (Paged, Arc<Memory>) {
    let memory = Arc::new(HostMemory::new(links.len() * LEN).build().unwrap());
    for (page, link) in links.iter().enumerate() {
        for (layer, bytes) in content(link, LEN).chunks(LAYER_BYTES).enumerate() {
            memory.write_at((layer * links.len() + page) * LAYER_BYTES, bytes).unwrap();
        }
    }
    (paged(&memory, links.len(), Arc::clone(&memory) as _), memory)
}

fn paged(memory: &Memory, pages: usize, keep: Arc<dyn std::any::Any + Send + Sync>) -> Paged {
    let tensor = |layer: usize| Tensor {
        base: memory.as_ptr().wrapping_add(layer * pages * LAYER_BYTES),
        shape: vec![pages, LAYER_BYTES],
        strides: vec![LAYER_BYTES as isize, 1],
        item_bytes: 1,
    };
    // SAFETY: the tests keep the memory until the jobs have ended, and hold no references to it.
    unsafe { Paged::new(&(0..LAYERS).map(tensor).collect::<Vec<_>>(), keep).unwrap() }
}

fn at_pages(links: &[Link]) -> Vec<(Link, u64)> {
    links.iter().zip(0..).map(|(link, page)| (*link, page)).collect()
}

/// A daemon over a tier that has one block and answers when the test says so: a job that loads it keeps
/// a thread until then.
struct Gate {
    daemon: Daemon,
    tier: Arc<Scripted>,
    cold: Link,
    into: Blocks,
}

impl Gate {
    fn new() -> Self {
        let (tier, cold) = (Scripted::new(Tier::Nvme), chain(99, 1)[0]);
        let bytes = content(&cold, LEN);
        let (len, checksum) = (LEN as u64, tranship_cache::arena::checksum(&bytes));
        let identity = identity().id();
        tier.has(Record { identity, link: cold, len, checksum, expires: None }, &bytes);
        tier.holds_answers();
        let daemon = Daemon::above(&[Arc::clone(&tier)], ARENA_BYTES, |engine| engine);
        Self { daemon, tier, cold, into: Blocks::new(1) }
    }

    /// A job that is under way when this returns, and stays so until the tier answers.
    fn shut(&self, queue: &Queue, cache: &Cache, wait: Duration) -> JobId {
        let job = queue.load(cache, self.into.to_load(&[self.cold]), wait).unwrap();
        until(|| stats(&self.daemon).counters.promotions == 1);
        job
    }
}

fn is_closed(done: &Done) -> bool {
    matches!(done.ended, Ended::Closed) && done.bytes == 0
}
