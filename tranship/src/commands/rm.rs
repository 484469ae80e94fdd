//! `tranship rm KEY…`

use super::{Namespace, Target};

/// Arguments of `rm`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names of the blocks
    #[arg(required = true)]
    pub keys: Vec<String>,
    /// A block that is not there is no failure
    #[arg(short, long)]
    pub force: bool,
    /// Whose blocks.
    #[command(flatten)]
    pub namespace: Namespace,
    /// Which daemon.
    #[command(flatten)]
    pub target: Target,
}
