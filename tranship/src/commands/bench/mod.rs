//! `tranship bench`

mod cache;
mod child;
mod ffi;
mod nvme;
mod object;
pub(super) mod probe;
mod rails;
mod report;
mod tiers;
mod transport;

use clap::Subcommand;

use crate::bench::Plan;
use crate::commands::{Context, Error};
use crate::exit::Exit;
use crate::units::{Size, Span};

/// The `bench` commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Measure one-sided transfers between two processes
    Transport(transport::Args),
    /// Measure a cache daemon from a client
    Cache(cache::Args),
    /// Measure the device under the NVMe tier beside fio
    Nvme(nvme::Args),
    /// Measure the object tier over a bucket
    Object(object::Args),
    /// Measure what a call costs through libtranship.so, beside Rust
    Ffi(ffi::Args),
    /// The second process of `bench transport`
    #[command(hide = true)]
    Peer(child::PeerArgs),
}

impl Command {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Error> {
        match self {
            Self::Transport(args) => args.run(context),
            Self::Cache(args) => args.run(context),
            Self::Nvme(args) => args.run(context),
            Self::Object(args) => args.run(context),
            Self::Ffi(args) => args.run(context),
            Self::Peer(args) => args.run(context),
        }
    }
}

/// Options of the benchmarks of two processes.
#[derive(Debug, clap::Args)]
struct Options {
    /// Time for each line of the result
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    time: Span,
    /// Never sleep: lowest latency, one core each side
    #[arg(long)]
    busy: bool,
    /// Bytes on each side that are used in turn, at least 4 of each size: more than the caches hold
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    working_set: Size,
}

impl Options {
    fn plan(&self) -> Plan {
        Plan { time: self.time.duration(), busy: self.busy, working_set: self.working_set.bytes() }
    }
}

/// A payload size; there is no rate of nothing.
fn payload(text: &str) -> Result<Size, String> {
    match text.parse::<Size>() {
        Ok(size) if size.bytes() == 0 => Err(format!("{text:?}: expected at least one byte")),
        Ok(size) => Ok(size),
        Err(error) => Err(error.to_string()),
    }
}
