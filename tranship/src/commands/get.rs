//! `tranship get KEY`

use std::path::PathBuf;

use super::{Namespace, Target};

/// Arguments of `get`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the block
    pub key: String,
    /// File to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Whose block.
    #[command(flatten)]
    pub namespace: Namespace,
    /// Which daemon.
    #[command(flatten)]
    pub target: Target,
}
