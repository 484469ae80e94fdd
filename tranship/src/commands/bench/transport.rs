//! `tranship bench transport`

use clap::ValueEnum;

use super::{Options, child, payload, report};
use crate::bench::child::Other;
use crate::bench::transport::{Bench, Op};
use crate::commands::{Context, Error};
use crate::exit::Exit;
use crate::units::Size;

/// The fabrics that can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Fabric {
    /// Shared memory of one host.
    Shm,
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
}

impl From<Operation> for Op {
    fn from(operation: Operation) -> Self {
        match operation {
            Operation::Write => Self::Write,
            Operation::Read => Self::Read,
            Operation::Pingpong => Self::Pingpong,
        }
    }
}

/// Arguments of `bench transport`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Fabric to measure
    #[arg(long, value_enum, default_value_t = Fabric::Shm)]
    fabric: Fabric,
    /// Operations, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "write,read,pingpong")]
    ops: Vec<Operation>,
    /// Payload sizes, separated by commas
    #[arg(
        long,
        value_name = "SIZE",
        value_delimiter = ',',
        value_parser = payload,
        default_value = "4KiB,16KiB,64KiB,256KiB,1MiB,4MiB,16MiB,64MiB"
    )]
    sizes: Vec<Size>,
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
        let Fabric::Shm = self.fabric;
        let plan = self.options.plan();
        let other = Other::start(child::PeerArgs::command_line(plan.busy))?;
        let bench = Bench::new(plan, usize::from(self.copy_threads), other)?;
        let pairs = self.ops.iter().flat_map(|op| self.sizes.iter().map(|size| (*op, *size)));
        let lines = pairs.map(|(op, size)| bench.measure(op.into(), size.bytes(), self.batch));
        report::print(context, self.ops.len() * self.sizes.len(), lines)?;
        Ok(Exit::Done)
    }
}
