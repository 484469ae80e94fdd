//! Latency and bandwidth of the `shm` fabric between two processes, through the `Fabric` trait
//! alone: `cargo run --release -p tranship-transport --example shm_pingpong [COPY_THREADS]`.
//!
//! Prints the one-way time of a write with an immediate (half a round trip, both sides spinning),
//! and the throughput of 1 MiB writes as a ratio of a streaming copy in the same run.

#![expect(clippy::print_stdout, reason = "a program that prints its figures")]

mod end;

use std::env;
use std::hint;
use std::process::{Command, Stdio};
use std::time::Instant;

use end::{End, Failure};
use tranship_transport::fabric::{Event, Posted, Status, shm};
use tranship_transport::{Access, Address, HostMemory, Immediate, Lane, copy};

const REGION_BYTES: usize = 256 << 20;
const ROUNDS: usize = 200_000;
const SIZES: [u64; 4] = [0, 64, 4096, 65536];
const BULK_BYTES: u64 = 1 << 20;
const PEER_ENV: &str = "SHM_PINGPONG_PEER";

impl End {
    /// Meets the other process, or starts it.
    fn meet(copy_threads: usize, other: Option<&str>) -> Result<Self, Failure> {
        let memory = HostMemory::new(REGION_BYTES).huge_pages().prefault().build()?;
        let config = shm::Config::new().copy_threads(copy_threads);
        Self::open(config, memory, Access::WRITE | Access::READ, |fabric| {
            if let Some(other) = other {
                fabric.connect(&other.parse::<Address>()?);
            } else {
                let program = env::current_exe()?;
                let address = fabric.address().to_string();
                Command::new(program).env(PEER_ENV, address).stdout(Stdio::inherit()).spawn()?;
            }
            Ok(())
        })
    }

    fn write(&mut self, offset: u64, len: u64, immediate: Option<Immediate>) -> bool {
        match self.post(Lane::Latency, offset, len, immediate) {
            Posted::Done => true,
            Posted::Pending => false,
            answer => panic!("{answer:?}"),
        }
    }

    /// Polls until an immediate arrives or, if `completion`, an operation ends.
    fn spin(&mut self, completion: bool) -> bool {
        loop {
            self.fabric.poll(1, &mut self.events);
            for event in self.events.drain(..) {
                match event {
                    Event::Arrived { .. } if !completion => return true,
                    Event::Completed { status: Status::Done, .. } if completion => return true,
                    Event::Completed { status: Status::Done, .. } => {}
                    Event::PeerDown { .. } => return false,
                    other => panic!("{other:?}"),
                }
            }
            hint::spin_loop();
        }
    }
}

fn main() -> Result<(), Failure> {
    if let Ok(other) = env::var(PEER_ENV) {
        return answer(&other);
    }
    let copy_threads = env::args().nth(1).map_or(Ok(0), |it| it.parse())?;
    let mut end = End::meet(copy_threads, None)?;
    // The first write waits for the mapping; then every page is touched once.
    for offset in (0..REGION_BYTES as u64).step_by(BULK_BYTES as usize) {
        if !end.write(offset, BULK_BYTES, None) {
            end.spin(true);
        }
    }
    for size in SIZES {
        let mut times = Vec::with_capacity(ROUNDS);
        for round in 0..ROUNDS {
            let offset = (round as u64 % 16) * (64 << 10);
            let start = Instant::now();
            end.write(offset, size, Some(Immediate(size as u32)));
            if !end.spin(false) {
                return Err("the other process is gone".into());
            }
            times.push(start.elapsed().as_nanos() as u64 / 2);
        }
        times.sort_unstable();
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
        println!(
            "write+imm {size:>6} B one way: p50 {} ns, p99 {} ns, p99.9 {} ns",
            at(0.5),
            at(0.99),
            at(0.999)
        );
    }
    bulk(&mut end)
}

/// Writes of 1 MiB against streaming copies between two memories of this process, in turns.
fn bulk(end: &mut End) -> Result<(), Failure> {
    let to = HostMemory::new(REGION_BYTES).huge_pages().prefault().build()?;
    let mut ratios = Vec::new();
    let gb_per_s = |nanos: u128| REGION_BYTES as f64 / nanos as f64;
    for _ in 0..15 {
        let start = Instant::now();
        for offset in (0..REGION_BYTES).step_by(BULK_BYTES as usize) {
            // SAFETY: both memories are of `REGION_BYTES`.
            unsafe {
                let src = end.memory.as_ptr().add(offset);
                copy::copy(src, to.as_ptr().add(offset), BULK_BYTES as usize);
            }
        }
        let limit = gb_per_s(start.elapsed().as_nanos());
        let start = Instant::now();
        for offset in (0..REGION_BYTES as u64).step_by(BULK_BYTES as usize) {
            if !end.write(offset, BULK_BYTES, None) {
                end.spin(true);
            }
        }
        ratios.push((gb_per_s(start.elapsed().as_nanos()) / limit, limit));
    }
    ratios.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (ratio, limit) = ratios[ratios.len() / 2];
    println!("write 1 MiB: {:.2} GB/s, copy {limit:.2} GB/s, ratio {ratio:.2}", ratio * limit);
    Ok(())
}

/// The other process: answers every write by one of the same size.
fn answer(other: &str) -> Result<(), Failure> {
    let mut end = End::meet(0, Some(other))?;
    // Warm up: touch what will be written to.
    for offset in (0..16u64 << 20).step_by(BULK_BYTES as usize) {
        if !end.write(offset, BULK_BYTES, None) {
            end.spin(true);
        }
    }
    for size in SIZES {
        for round in 0..ROUNDS {
            if !end.spin(false) {
                return Ok(());
            }
            end.write((round as u64 % 16) * (64 << 10), size, Some(Immediate(0)));
        }
    }
    while end.fabric.poll(1, &mut end.events) || !gone(&mut end.events) {
        std::thread::yield_now();
        if !end.fabric.arm() {
            continue;
        }
        if let Some(fd) = end.fabric.wait_fd() {
            use rustix::event::{PollFd, PollFlags, poll};
            poll(&mut [PollFd::new(&fd, PollFlags::IN)], None)?;
        }
    }
    Ok(())
}

fn gone(events: &mut Vec<Event>) -> bool {
    events.drain(..).any(|event| matches!(event, Event::PeerDown { .. }))
}
