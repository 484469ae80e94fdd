//! What a small write costs this host, from the call to the end that is seen, and of that what is the
//! engine's, what the rails' and what the device's.
//!
//! - `engine`: over a fabric that ends whatever was posted when it is polled next.
//! - `rails`: over the fabric of rails with a device that does the same. What it takes longer is the
//!   rails'.
//! - `ofi-shm`: over libfabric's provider `shm`; the peer is in this process, on a thread that polls. What
//!   it takes longer is the provider's.
//!
//! Times are of a call. `alone` is one write of 64 bytes, waited for. `16` is a batch of as many, all
//! waited for. With `64 under way` four such batches are, and of these the oldest is waited for and
//! another one posted: what one thread can do. `paged` is one write of 256 scattered pages of 4 KiB by a
//! plan made beforehand, waited for. Those with `post` are the call that posts, alone.
//! Run: `cargo bench -p tranship-benches --features conformance --bench post`.

use std::collections::VecDeque;
use std::io::Write;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tranship_transport::fabric::{null, ofi, rdma};
use tranship_transport::{
    Builder, Drive, Engine, HostMemory, Outcome, Pages, Plan, Polling, RemoteSlice, Slice,
    Transfers, Window,
};

const MEMORY_BYTES: u64 = 4 << 20;
const SMALL_BYTES: u64 = 64;
const PAGE_BYTES: u64 = 4 << 10;
const PAGES: u32 = 256;
/// A prime, below which no two of the squares that pages are placed by are alike.
const PAGES_OF_MEMORY: u64 = 1021;
const BATCH: usize = 16;
/// Batches under way.
const BATCHES: usize = 4;

/// Two engines, and what one writes to the other.
struct Rig {
    here: Engine,
    _window: Window,
    small: (Slice, RemoteSlice),
    whole: (Slice, RemoteSlice),
}

impl Rig {
    /// The other side is driven by a thread of its own, with this way of polling.
    fn new(there: Polling, builder: impl Fn() -> Builder) -> Result<Self, String> {
        let here = builder().polling(Polling::Busy).drive(Drive::Caller);
        let there = builder().polling(there).drive(Drive::Thread);
        let build = |it: Builder| it.build().map_err(|error| error.to_string());
        let (here, there) = (build(here)?, build(there)?);
        let alloc = |engine: &Engine| {
            let memory = HostMemory::new(MEMORY_BYTES as usize).prefault();
            engine.alloc(memory).expect("4 MiB are free")
        };
        let (source, target) = (alloc(&here), alloc(&there));
        let window = target.window(0..MEMORY_BYTES).expect("in bounds");
        let to = here.open(&window.descriptor()).expect("both have the fabric");
        let part =
            |len| (source.slice(0..len).expect("in bounds"), to.slice(0..len).expect("in bounds"));
        let (small, whole) = (part(SMALL_BYTES), part(MEMORY_BYTES));
        let rig = Self { here, _window: window, small, whole };
        // By now the paths are there and the window is open.
        assert_eq!(rig.write(), Outcome::Done);
        assert_eq!(rig.here.stats().fallbacks, 0, "payload takes the rails");
        Ok(rig)
    }

    fn write(&self) -> Outcome {
        self.here.write(&self.small.0, &self.small.1).wait()
    }

    fn batch(&self) -> Transfers {
        let mut writes = self.here.batch();
        writes.extend((0..BATCH).map(|_| self.here.write(&self.small.0, &self.small.1)));
        writes.submit()
    }

    fn measure(&self, criterion: &mut Criterion, name: &str) {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(1));
        group.bench_function("alone", |bencher| {
            bencher.iter(|| assert_eq!(self.write(), Outcome::Done));
        });
        group.throughput(Throughput::Elements(BATCH as u64));
        group.bench_function("16", |bencher| bencher.iter(|| done(&self.batch())));
        group.bench_function("16 post", |bencher| {
            bencher.iter_custom(|turns| posts(turns, || self.batch(), done));
        });
        group.bench_function("64 under way", |bencher| {
            let mut flying: VecDeque<_> = (1..BATCHES).map(|_| self.batch()).collect();
            bencher.iter(|| {
                flying.push_back(self.batch());
                done(&flying.pop_front().expect("one was just added"));
            });
            flying.iter().for_each(done);
        });
        group.throughput(Throughput::Elements(PAGES.into()));
        // In no order that a run could describe: each page is a run of its own.
        let scattered = |factor: u64| {
            let place = |page: u64| page * page * factor % PAGES_OF_MEMORY;
            Pages::table(PAGE_BYTES, (0..PAGES.into()).map(place)).expect("within limits")
        };
        let plan = Plan::new(scattered(1), scattered(3)).expect("as long");
        assert_eq!(plan.pieces(u64::MAX).count(), PAGES as usize);
        let (from, to) = &self.whole;
        group.bench_function("paged", |bencher| {
            bencher.iter(|| {
                let write = self.here.write_paged(from, to, &plan);
                assert_eq!(write.wait(), Outcome::Done);
            });
        });
        group.bench_function("paged post", |bencher| {
            let post = || self.here.write_paged(from, to, &plan).submit().expect("room");
            bencher
                .iter_custom(|turns| posts(turns, post, |it| assert_eq!(it.wait(), Outcome::Done)));
        });
        group.finish();
    }
}

fn done(transfers: &Transfers) {
    assert!(transfers.wait().into_iter().all(|it| it == Outcome::Done));
}

/// How long so many posts take, each waited for before the next.
fn posts<T>(turns: u64, mut post: impl FnMut() -> T, mut wait: impl FnMut(&T)) -> Duration {
    let mut took = Duration::ZERO;
    for _ in 0..turns {
        let began = Instant::now();
        let posted = post();
        took += began.elapsed();
        wait(&posted);
    }
    took
}

fn engine(criterion: &mut Criterion) {
    let rig = Rig::new(Polling::default(), || Engine::builder().fabric(null::Config::new()));
    rig.expect("nothing can go wrong").measure(criterion, "engine");
}

fn rails(criterion: &mut Criterion) {
    let rig = Rig::new(Polling::default(), || Engine::builder().fabric(rdma::null::Config::new()));
    rig.expect("sockets").measure(criterion, "rails");
}

fn ofi_shm(criterion: &mut Criterion) {
    let fabric = ofi::Config::new().provider("shm");
    match Rig::new(Polling::Busy, || Engine::builder().fabric(fabric.clone())) {
        Ok(rig) => rig.measure(criterion, "ofi-shm"),
        Err(why) => drop(writeln!(std::io::stderr(), "skipped: {why}")),
    }
}

criterion_group!(benches, engine, rails, ofi_shm);
criterion_main!(benches);
