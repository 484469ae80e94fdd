//! `tranship demo`

use std::path::PathBuf;

use crate::units::Size;

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Trace to replay [default: the sample that comes with tranship]
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Engine processes
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub engines: usize,
    /// Memory of the cache [default: dram.capacity of the configuration]
    #[arg(long, value_name = "SIZE")]
    pub capacity: Option<Size>,
}
