//! `tranship bench transport` and `tranship bench cache`

use clap::ValueEnum;

use super::Target;
use crate::units::{Size, Span};

/// What the transport benchmark does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TransportOp {
    /// One-sided writes.
    Write,
    /// One-sided reads.
    Read,
    /// A write with an immediate each way.
    Pingpong,
}

/// What the cache benchmark does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CacheOp {
    /// Blocks into the memory of an engine.
    Get,
    /// Blocks into the cache.
    Put,
    /// Prefix lookups.
    Lookup,
}

/// The fabrics of this build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Fabric {
    /// Shared memory of one host.
    Shm,
}

/// Arguments of `bench transport`.
#[derive(Debug, clap::Args)]
pub struct TransportArgs {
    /// Fabric to measure
    #[arg(long, value_enum, default_value_t = Fabric::Shm)]
    pub fabric: Fabric,
    /// Operations, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "write,read,pingpong")]
    pub ops: Vec<TransportOp>,
    /// Payload sizes, separated by commas
    #[arg(
        long,
        value_name = "SIZE",
        value_delimiter = ',',
        default_value = "4KiB,16KiB,64KiB,256KiB,1MiB,4MiB,16MiB,64MiB"
    )]
    pub sizes: Vec<Size>,
    /// Transfers in flight at once
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub batch: u32,
    /// Time for each line of the result
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    pub time: Span,
    /// Never sleep: lowest latency, one core each side
    #[arg(long)]
    pub busy: bool,
    /// Threads that share one large copy
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub copy_threads: u32,
}

/// Arguments of `bench cache`.
#[derive(Debug, clap::Args)]
pub struct CacheArgs {
    /// Operations, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "get,put,lookup")]
    pub ops: Vec<CacheOp>,
    /// Block sizes, separated by commas
    #[arg(long, value_name = "SIZE", value_delimiter = ',', default_value = "1MiB")]
    pub sizes: Vec<Size>,
    /// Keys of one lookup
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub keys: u32,
    /// Time for each line of the result
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    pub time: Span,
    /// Never sleep: lowest latency, one core each side
    #[arg(long)]
    pub busy: bool,
    /// Which daemon; without --to, one is started for the measurement.
    #[command(flatten)]
    pub target: Target,
}
