//! The device under the NVMe tier, beside fio.
//!
//! Both do the same work on the same file, in turns, so that what else the device does hits both. Ours
//! is checksummed, all of it; fio's is not.

pub mod content;
mod fio;
mod line;
pub mod load;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tranship_cache::tier::Lane;
use tranship_cache::tier::nvme::disk::{Disk, Engine, Options, Target, open};
use tranship_transport::memory::Backing;
use tranship_transport::{HostMemory, Memory};

use self::content::{Checksums, Content};
use self::load::{Bare, Stream, Tally, Until, Way};
use super::Error;
use super::line::Load;

pub use fio::{Fio, MISSING};
pub use line::{Line, RULE};

/// Rounds of one measurement: each side has one turn in a round.
const ROUNDS: u32 = 5;
/// What fills the disk before anything is measured.
const FILL: (u64, u32) = (1 << 20, 16);
/// The flood beside which urgent reads are measured.
const FLOOD: (u64, u32) = (1 << 20, 16);
/// Urgent reads.
const URGENT_BYTES: u64 = 64 << 10;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Reads at places drawn by chance.
    Read {
        /// Bytes of each.
        size: u64,
        /// In flight.
        depth: u32,
    },
    /// Writes one after the other, as a log does.
    Write {
        /// Bytes of each.
        size: u64,
        /// In flight.
        depth: u32,
    },
    /// Reads of 64 KiB, one at a time, in the lane of demand: alone, beside a flood of writes in their
    /// lane, and beside the same in one lane.
    Lanes,
}

/// How it is measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where: a file, a directory or a block device, all of which is lost.
    pub target: PathBuf,
    /// Bytes of the disk.
    pub bytes: u64,
    /// Memory that each stream goes round and round through, at least.
    pub memory_bytes: u64,
    /// Time for each side of a line.
    pub time: Duration,
    /// What reads and writes.
    pub engine: Engine,
    /// Who takes checksums.
    pub checksums: Checksums,
}

/// What one side did in one turn.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    gb_per_s: f64,
    cpu_s_per_gb: f64,
    p50_us: f64,
    p99_us: f64,
    n: u64,
}

/// The turns of one side.
#[derive(Debug, Default)]
struct Turns(Vec<Sample>);

impl Turns {
    fn median(&self, figure: fn(&Sample) -> f64) -> f64 {
        median(self.0.iter().map(figure).collect())
    }

    fn n(&self) -> u64 {
        self.0.iter().map(|sample| sample.n).sum()
    }

    /// A figure as so many times that of others, turn by turn.
    fn ratio(&self, others: &Self, figure: fn(&Sample) -> f64) -> f64 {
        let turns = self.0.iter().zip(&others.0);
        median(turns.map(|(one, other)| figure(one) / figure(other)).collect())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[middle],
        _ => values[middle - 1].midpoint(values[middle]),
    }
}

/// The measuring side.
pub struct Bench {
    plan: Plan,
    disk: Box<dyn Disk>,
    /// What the disk said of itself when it knew the memory of the last turn.
    described: String,
    backing: Backing,
    content: Content,
    /// Where reads go next.
    chance: u64,
    fio: Option<Fio>,
}

impl Bench {
    /// Opens the disk and fills it.
    ///
    /// # Errors
    /// When it cannot be opened or written, or memory is short.
    pub fn new(plan: Plan, ops: &[Op]) -> Result<Self, Error> {
        let cases = ops.iter().map(|op| match *op {
            Op::Read { size, depth } | Op::Write { size, depth } => (size, depth),
            Op::Lanes => FLOOD,
        });
        let cases: Vec<_> = cases.chain([FILL, (URGENT_BYTES, 1)]).collect();
        let need = cases.iter().map(|(size, depth)| 2 * size * u64::from(*depth)).max();
        let needed_bytes = 2 * need.unwrap_or(0);
        if plan.bytes < needed_bytes {
            return Err(Error::Small { bytes: plan.bytes, needed_bytes });
        }
        let granule = cases.iter().map(|(size, _)| *size).reduce(gcd).unwrap_or(URGENT_BYTES);
        let options = Options::new(plan.bytes).create().engine(plan.engine);
        let disk = open(&Target::new(&plan.target), &options)?;
        let content = Content::new(plan.bytes, granule, plan.checksums, disk.waker())?;
        let backing = memory(needed_bytes / 2)?.backing().clone();
        let (chance, fio) = (0x5DEE_CE66, Fio::find());
        let described = disk.describe();
        let mut bench = Self { plan, disk, described, backing, content, chance, fio };
        bench.fill()?;
        Ok(bench)
    }

    /// What it is measured with, for people.
    #[must_use]
    pub fn disk(&self) -> &str {
        &self.described
    }

    /// What its memory is made of.
    #[must_use]
    pub fn backing(&self) -> &Backing {
        &self.backing
    }

    /// The peer's version, if it is there.
    #[must_use]
    pub fn fio(&self) -> Option<&Fio> {
        self.fio.as_ref()
    }

    /// Measures one operation.
    ///
    /// # Errors
    /// When an operation fails, or what is read is not what was written.
    pub fn measure(&mut self, op: Op) -> Result<Vec<Line>, Error> {
        match op {
            Op::Read { size, depth } => self.beside_fio(Way::Read, size, depth),
            Op::Write { size, depth } => self.beside_fio(Way::Write, size, depth),
            Op::Lanes => self.lanes(),
        }
    }

    fn beside_fio(&mut self, way: Way, size: u64, depth: u32) -> Result<Vec<Line>, Error> {
        let lane = if way == Way::Read { Lane::Demand } else { Lane::Write };
        let area = 0..self.plan.bytes / size * size;
        let stream = Stream { lane, way, size, depth, area, slots: self.slots(size, depth) };
        let turn = self.plan.time / ROUNDS;
        let (mut ours, mut theirs) = (Turns::default(), Turns::default());
        for round in 0..ROUNDS {
            // Who comes first alternates, too.
            for side in [round % 2, (round + 1) % 2] {
                match (side, &self.fio) {
                    (0, _) => ours.0.push(self.turn(std::slice::from_ref(&stream), turn)?[0]),
                    (_, Some(fio)) => {
                        let path = &self.plan.target;
                        let pages = self.backing.pages;
                        theirs.0.push(fio.run(path, pages, way, size, depth, turn)?);
                    }
                    _ => {}
                }
            }
        }
        if way == Way::Write {
            // What fio wrote is unknown; what we write again is not.
            self.fill()?;
            self.turn(&[Stream { way: Way::Read, lane: Lane::Demand, ..stream.clone() }], turn)?;
        }
        let theirs = self.fio.as_ref().map(|_| &theirs);
        Ok(vec![self.line(&stream, &ours).beside(&ours, theirs)])
    }

    /// Urgent reads beside nothing, beside a flood in another lane, and beside one in their own.
    fn lanes(&mut self) -> Result<Vec<Line>, Error> {
        let half = self.plan.bytes / 2 / FLOOD.0 * FLOOD.0;
        let urgent = Stream {
            lane: Lane::Demand,
            way: Way::Read,
            size: URGENT_BYTES,
            depth: 1,
            area: 0..half,
            slots: self.slots(URGENT_BYTES, 1),
        };
        let flood = |lane| Stream {
            lane,
            way: Way::Write,
            size: FLOOD.0,
            depth: FLOOD.1,
            area: half..2 * half,
            slots: self.slots(FLOOD.0, FLOOD.1),
        };
        let cases = [
            (Load::None, vec![urgent.clone()]),
            (Load::OtherLane, vec![urgent.clone(), flood(Lane::Write)]),
            (Load::SameLane, vec![urgent.clone(), flood(Lane::Demand)]),
        ];
        let turn = self.plan.time / ROUNDS;
        let mut turns = [const { Vec::new() }; 3];
        for _ in 0..ROUNDS {
            for ((_, streams), turns) in cases.iter().zip(&mut turns) {
                turns.push(self.turn(streams, turn)?);
            }
        }
        let of = |turns: &[Vec<Sample>], stream: usize| {
            Turns(turns.iter().filter_map(|turn| turn.get(stream).copied()).collect())
        };
        let idle = of(&turns[0], 0);
        let lines = cases.iter().zip(&turns).map(|((load, _), turns)| {
            let (reads, writes) = (of(turns, 0), of(turns, 1));
            self.line(&urgent, &reads).loaded(*load, &reads, &writes, &idle)
        });
        Ok(lines.collect())
    }

    /// Streams side by side for a while.
    fn turn(&mut self, streams: &[Stream], time: Duration) -> Result<Vec<Sample>, Error> {
        let memory = self.memory(streams)?;
        let before = cpu_time();
        let served = &mut Bare::new(&mut *self.disk);
        let tallies = load::run(
            served,
            streams,
            &memory,
            &mut self.content,
            &mut self.chance,
            Until::Time(time),
        )?;
        let cpu = cpu_time().saturating_sub(before);
        // The disk lets go of it, too: fio is to have the same pages.
        drop(memory);
        self.disk.wait(Duration::ZERO);
        let bytes: u64 = tallies.iter().map(|tally| tally.bytes).sum();
        let cpu_s_per_gb = cpu.as_secs_f64() / (bytes as f64 / 1e9).max(1e-9);
        let sample = |tally: &Tally| Sample {
            gb_per_s: tally.gb_per_s(),
            cpu_s_per_gb,
            p50_us: tally.percentile_us(50.0),
            p99_us: tally.percentile_us(99.0),
            n: tally.n(),
        };
        Ok(tallies.iter().map(sample).collect())
    }

    /// Pieces of memory for a stream. Without checksums it has as many as fio; with them more than the
    /// caches hold: to bytes that a core has just looked at, a device may be slower.
    fn slots(&self, size: u64, depth: u32) -> u64 {
        match self.plan.checksums {
            Checksums::None => u64::from(depth),
            _ => (2 * u64::from(depth)).max(self.plan.memory_bytes / size),
        }
    }

    /// Writes the whole disk.
    fn fill(&mut self) -> Result<(), Error> {
        let (size, depth) = FILL;
        let area = 0..self.plan.bytes / size * size;
        let (lane, way) = (Lane::Write, Way::Write);
        let stream = Stream { lane, way, size, depth, area, slots: 2 * u64::from(depth) };
        let memory = self.memory(std::slice::from_ref(&stream))?;
        let served = &mut Bare::new(&mut *self.disk);
        load::run(served, &[stream], &memory, &mut self.content, &mut self.chance, Until::Once)
            .map(drop)
    }

    /// Memory for streams, which the disk knows. Each turn has its own, as each run of fio has: how the
    /// pages lie is chance, and large transfers go twice as fast to some as to others.
    fn memory(&mut self, streams: &[Stream]) -> Result<Arc<Memory>, Error> {
        let memory = Arc::new(memory(streams.iter().map(Stream::takes_bytes).sum())?);
        if streams.iter().any(|stream| stream.way == Way::Write) {
            self.content.seed(&memory)?;
        }
        self.disk.register(&memory);
        self.described = self.disk.describe();
        self.backing = memory.backing().clone();
        Ok(memory)
    }

    fn line(&self, stream: &Stream, turns: &Turns) -> Line {
        let checksums = self.content.checksums(stream.size);
        Line::new(stream, turns, &self.described, &self.backing, checksums, &self.plan)
    }
}

/// Memory in place, of large pages if there are some.
fn memory(bytes: u64) -> Result<Memory, Error> {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let memory = HostMemory::new(bytes).name("bench").huge_pages().prefault().build();
    memory.map_err(Error::Buffers)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Processor time of this process, with what the kernel's workers did for it: clock_gettime(2).
fn cpu_time() -> Duration {
    let times = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(times.tv_sec.unsigned_abs(), times.tv_nsec.unsigned_abs() as u32)
}
