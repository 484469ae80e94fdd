//! The hidden command that runs the second process of `bench transport`.

use crate::bench::transport::peer;
use crate::commands::Error;
use crate::exit::Exit;

/// Arguments of `bench peer`.
#[derive(Debug, clap::Args)]
pub struct PeerArgs {
    /// Process to end with
    #[arg(long)]
    parent: u32,
    /// Never sleep
    #[arg(long)]
    busy: bool,
}

impl PeerArgs {
    /// The arguments that start it.
    pub(in crate::commands) fn command_line(busy: bool) -> Vec<String> {
        let parent = std::process::id().to_string();
        let mut line = ["bench", "peer", "--parent", &parent].map(str::to_owned).to_vec();
        line.extend(busy.then(|| "--busy".to_owned()));
        line
    }

    pub(super) fn run(&self) -> Result<Exit, Error> {
        peer::run(self.parent, self.busy)?;
        Ok(Exit::Done)
    }
}
