//! `tranship serve`

use crate::config::Flags;

/// Arguments of `serve`: every setting is a flag.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The settings given as flags.
    #[command(flatten)]
    pub settings: Flags,
}
