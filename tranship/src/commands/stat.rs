//! `tranship stat [KEY]`

use super::{Namespace, Target};

/// Arguments of `stat`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Block to describe [default: the daemon itself]
    pub key: Option<String>,
    /// Whose block.
    #[command(flatten)]
    pub namespace: Namespace,
    /// Which daemon.
    #[command(flatten)]
    pub target: Target,
}
