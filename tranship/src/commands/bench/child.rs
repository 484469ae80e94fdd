//! The hidden command that runs the second process of `bench transport`.

use crate::bench::transport::{Fabric, peer};
use crate::commands::Error;
use crate::exit::Exit;

/// Arguments of `bench peer`.
#[derive(Debug, clap::Args)]
pub struct PeerArgs {
    /// Process to end with
    #[arg(long)]
    parent: u32,
    /// Fabric to be reached over
    #[arg(long, value_parser = ["shm", "tcp"])]
    fabric: String,
    /// Never sleep
    #[arg(long)]
    busy: bool,
}

impl PeerArgs {
    /// The arguments that start it.
    pub(in crate::commands) fn command_line(fabric: Fabric, busy: bool) -> Vec<String> {
        let parent = std::process::id().to_string();
        let fabric = fabric.name();
        let line = ["bench", "peer", "--parent", &parent, "--fabric", fabric];
        let mut line = line.map(str::to_owned).to_vec();
        line.extend(busy.then(|| "--busy".to_owned()));
        line
    }

    pub(super) fn run(&self) -> Result<Exit, Error> {
        // How many streams there are is for the side that dials to say.
        let fabric = if self.fabric == "tcp" { Fabric::Tcp { streams: 1 } } else { Fabric::Shm };
        peer::run(self.parent, fabric, self.busy)?;
        Ok(Exit::Done)
    }
}
