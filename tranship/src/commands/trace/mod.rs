//! `tranship trace …`

pub mod replay;
mod simulate;
mod stats;
mod synth;

use clap::Subcommand;

use super::{Context, Error};
use crate::exit::Exit;

/// Subcommands of `trace`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Count requests and blocks, and what a perfect cache would hit
    Stats(stats::Args),
    /// Play a trace with engine processes against a daemon, every byte checked
    Replay(replay::Args),
    /// One engine process of a replay
    #[command(hide = true)]
    ReplayEngine(replay::engine::Args),
    /// Run eviction policies over a trace, and the clairvoyant bound
    Simulate(simulate::Args),
    /// Make a trace: conversations over shared system prompts, or another kind of traffic
    Synth(synth::Args),
}

impl Command {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Error> {
        match self {
            Self::Stats(args) => args.run(context),
            Self::Replay(args) => args.run(context),
            Self::ReplayEngine(args) => args.run(context),
            Self::Simulate(args) => args.run(context),
            Self::Synth(args) => args.run(context),
        }
    }
}
