//! The hidden command that runs the second process of `bench transport`.

use std::path::Path;

use super::rails::Rails;
use crate::bench::transport::peer;
use crate::commands::{Context, Error};
use crate::exit::Exit;

/// Where it listens: a port of the loopback interface that the system chooses.
pub(super) const LOOPBACK: &str = "127.0.0.1:0";

/// Arguments of `bench peer`.
#[derive(Debug, clap::Args)]
pub struct PeerArgs {
    /// Process to end with
    #[arg(long)]
    parent: u32,
    /// Fabric to be reached over
    #[arg(long, value_parser = ["shm", "tcp", "verbs", "ofi"])]
    fabric: String,
    #[command(flatten)]
    rails: Rails,
    /// Never sleep
    #[arg(long)]
    busy: bool,
}

impl PeerArgs {
    /// The arguments that start it.
    pub(super) fn command_line(
        fabric: &str,
        rails: &Rails,
        config: Option<&Path>,
        busy: bool,
    ) -> Vec<std::ffi::OsString> {
        let parent = std::process::id().to_string();
        let line = ["bench", "peer", "--parent", &parent, "--fabric", fabric];
        let mut line = line.map(Into::into).to_vec();
        for (flag, value) in rails.flags() {
            line.extend([flag.into(), value.into()]);
        }
        if let Some(file) = config {
            line.extend(["--config".into(), file.into()]);
        }
        line.extend(busy.then(|| "--busy".into()));
        line
    }

    pub(super) fn run(&self, context: &Context) -> Result<Exit, Error> {
        let config = context.config_with(None)?.config;
        // How many streams there are is for the side that dials to say.
        let fabric = self.rails.fabric(&self.fabric, config, (Some(LOOPBACK), None), 1)?;
        peer::run(self.parent, &fabric, self.busy)?;
        Ok(Exit::Done)
    }
}
