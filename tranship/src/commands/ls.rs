//! `tranship ls`

use super::Target;

/// Arguments of `ls`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print at most so many blocks; 0 is all
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub limit: u64,
    /// Which daemon.
    #[command(flatten)]
    pub target: Target,
}
