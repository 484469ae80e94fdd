//! `tranship bench transport`

use clap::ValueEnum;

use super::{Options, child, payload, report};
use crate::bench::child::Other;
use crate::bench::transport::{Bench, Fabric, Op, rate};
use crate::bench::{Plan, RULE};
use crate::commands::{Context, Error};
use crate::exit::Exit;
use crate::units::Size;

/// Sizes of plain transfers, if nothing else is said.
const SIZES: [u64; 8] =
    [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20];
/// Sizes of pages.
const PAGES: [u64; 3] = [4 << 10, 16 << 10, 64 << 10];
/// Sizes of what is urgent.
const URGENT: [u64; 1] = [64];

/// Writes posted together, over sim.
const BATCHES: [u32; 2] = [1, 16];

/// The fabrics that can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Over {
    /// Shared memory of one host.
    Shm,
    /// TCP over the loopback interface; the limit is plain sockets.
    Tcp,
    /// No network at all: what the engine costs.
    Sim,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Operation {
    /// One-sided writes.
    Write,
    /// One-sided reads.
    Read,
    /// A write with an immediate each way; times are one way.
    Pingpong,
    /// Writes of many pages, scattered on both sides.
    Paged,
    /// Small writes that end at once, one by one and 16 posted together; over sim alone.
    Rate,
    /// A ping-pong in the latency lane: alone, beside a full load, and in one lane with it.
    Lanes,
}

impl Operation {
    /// Between two processes.
    fn op(self, pages: u32) -> Option<Op> {
        Some(match self {
            Self::Write => Op::Write,
            Self::Read => Op::Read,
            Self::Pingpong => Op::Pingpong,
            Self::Paged => Op::Paged { pages },
            Self::Lanes => Op::Lanes,
            Self::Rate => return None,
        })
    }

    /// What it is measured with, unless something else is said.
    fn sizes(self) -> &'static [u64] {
        match self {
            Self::Write | Self::Read | Self::Pingpong => &SIZES,
            Self::Paged => &PAGES,
            Self::Lanes | Self::Rate => &URGENT,
        }
    }
}

/// Arguments of `bench transport`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Fabric to measure
    #[arg(long, value_enum, default_value_t = Over::Shm)]
    fabric: Over,
    /// Operations, separated by commas
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "write,read,pingpong",
        default_value_if("fabric", "sim", "rate")
    )]
    ops: Vec<Operation>,
    /// Payload sizes, separated by commas; from 4KiB to 64MiB where nothing is said, pages of up to
    /// 64KiB, and 64 bytes for lanes
    #[arg(long, value_name = "SIZE", value_delimiter = ',', value_parser = payload)]
    sizes: Vec<Size>,
    /// Pages of one paged write
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pages: u32,
    /// Writes or reads in flight at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    batch: u32,
    /// Threads that share one large copy, as transport.copy_threads of the daemon
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    copy_threads: u8,
    /// Streams for payload of tcp
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=32))]
    streams: u8,
    #[command(flatten)]
    options: Options,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Error> {
        let plan = self.options.plan();
        let fabric = match self.fabric {
            Over::Shm => Fabric::Shm,
            Over::Tcp => Fabric::Tcp { streams: self.streams },
            Over::Sim => return self.rate(context, plan),
        };
        let cases = self.cases(|operation| {
            operation.op(self.pages).ok_or("rate is measured with --fabric sim, without a network")
        })?;
        let other = Other::start(child::PeerArgs::command_line(fabric, plan.busy))?;
        let bench = Bench::new(fabric, plan, usize::from(self.copy_threads), other)?;
        let count = cases.iter().map(|(op, _)| op.lines()).sum();
        let lines =
            cases.into_iter().flat_map(|(op, size)| match bench.measure(op, size, self.batch) {
                Ok(lines) => lines.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            });
        report::print(context, RULE, count, lines)?;
        Ok(Exit::Done)
    }

    /// What the engine costs without a network.
    fn rate(&self, context: &Context, plan: Plan) -> Result<Exit, Error> {
        let cases = self.cases(|operation| match operation {
            Operation::Rate => Ok(()),
            _ => Err("--fabric sim measures rate alone; choose shm or tcp for transfers"),
        })?;
        let lines = cases.iter().flat_map(|((), size)| {
            BATCHES.into_iter().map(|batch| rate::measure(plan, *size, batch))
        });
        report::print(context, RULE, cases.len() * BATCHES.len(), lines)?;
        Ok(Exit::Done)
    }

    /// Each operation with each of its sizes.
    fn cases<T: Copy>(
        &self,
        can: impl Fn(Operation) -> Result<T, &'static str>,
    ) -> Result<Vec<(T, u64)>, Error> {
        let mut cases = Vec::new();
        for &operation in &self.ops {
            let op = can(operation).map_err(|why| Error::Usage(why.to_owned()))?;
            let given = self.sizes.iter().map(|size| size.bytes());
            match self.sizes.as_slice() {
                [] => cases.extend(operation.sizes().iter().map(|&size| (op, size))),
                _ => cases.extend(given.map(|size| (op, size))),
            }
        }
        Ok(cases)
    }
}
