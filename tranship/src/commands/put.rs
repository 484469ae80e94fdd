//! `tranship put KEY FILE`

use std::path::PathBuf;

use super::{Namespace, Target};
use crate::units::Span;

/// Arguments of `put`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the block
    pub key: String,
    /// File to store; - is standard input
    pub file: PathBuf,
    /// Forget the block after this long
    #[arg(long, value_name = "DURATION")]
    pub ttl: Option<Span>,
    /// Keep the block until it is removed
    #[arg(long)]
    pub pin: bool,
    /// Whose block.
    #[command(flatten)]
    pub namespace: Namespace,
    /// Which daemon.
    #[command(flatten)]
    pub target: Target,
}
