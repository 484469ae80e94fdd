//! `tranship bench transport`

use clap::ValueEnum;

use super::{Options, child, payload, report};
use crate::bench::child::Other;
use crate::bench::transport::{Bench, Fabric, Op};
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

/// The fabrics that can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Over {
    /// Shared memory of one host.
    Shm,
}

impl From<Over> for Fabric {
    fn from(over: Over) -> Self {
        match over {
            Over::Shm => Self::Shm,
        }
    }
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
    /// A ping-pong in the latency lane: alone, beside a full load, and in one lane with it.
    Lanes,
}

impl Operation {
    fn op(self, pages: u32) -> Op {
        match self {
            Self::Write => Op::Write,
            Self::Read => Op::Read,
            Self::Pingpong => Op::Pingpong,
            Self::Paged => Op::Paged { pages },
            Self::Lanes => Op::Lanes,
        }
    }

    /// What it is measured with, unless something else is said.
    fn sizes(self) -> &'static [u64] {
        match self {
            Self::Write | Self::Read | Self::Pingpong => &SIZES,
            Self::Paged => &PAGES,
            Self::Lanes => &URGENT,
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
    #[arg(long, value_enum, value_delimiter = ',', default_value = "write,read,pingpong")]
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
    #[command(flatten)]
    options: Options,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Error> {
        let (plan, fabric) = (self.options.plan(), self.fabric.into());
        let other = Other::start(child::PeerArgs::command_line(fabric, plan.busy))?;
        let bench = Bench::new(fabric, plan, usize::from(self.copy_threads), other)?;
        let cases: Vec<(Op, u64)> = self.ops.iter().flat_map(|op| self.cases(*op)).collect();
        let count = cases.iter().map(|(op, _)| op.lines()).sum();
        let lines =
            cases.into_iter().flat_map(|(op, size)| match bench.measure(op, size, self.batch) {
                Ok(lines) => lines.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            });
        report::print(context, count, lines)?;
        Ok(Exit::Done)
    }

    /// An operation with each of its sizes.
    fn cases(&self, operation: Operation) -> Vec<(Op, u64)> {
        let sizes: Vec<u64> = match self.sizes.as_slice() {
            [] => operation.sizes().to_vec(),
            given => given.iter().map(|size| size.bytes()).collect(),
        };
        sizes.into_iter().map(|size| (operation.op(self.pages), size)).collect()
    }
}
