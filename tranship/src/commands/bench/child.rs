//! The hidden commands that run the second process of a benchmark.

use crate::bench::cache::daemon;
use crate::bench::transport::peer;
use crate::commands::Error;
use crate::exit::Exit;

/// Arguments of both.
#[derive(Debug, clap::Args)]
struct Common {
    /// Process to end with
    #[arg(long)]
    parent: u32,
    /// Never sleep
    #[arg(long)]
    busy: bool,
}

/// The arguments that start `command`.
fn command_line(command: &str, busy: bool) -> Vec<String> {
    let parent = std::process::id().to_string();
    let mut line = ["bench", command, "--parent", &parent].map(str::to_owned).to_vec();
    line.extend(busy.then(|| "--busy".to_owned()));
    line
}

/// Arguments of `bench peer`.
#[derive(Debug, clap::Args)]
pub struct PeerArgs {
    #[command(flatten)]
    common: Common,
}

impl PeerArgs {
    pub(super) fn command_line(busy: bool) -> Vec<String> {
        command_line("peer", busy)
    }

    pub(super) fn run(&self) -> Result<Exit, Error> {
        peer::run(self.common.parent, self.common.busy)?;
        Ok(Exit::Done)
    }
}

/// Arguments of `bench daemon`.
#[derive(Debug, clap::Args)]
pub struct DaemonArgs {
    #[command(flatten)]
    common: Common,
    /// Bytes of its arena
    #[arg(long)]
    capacity: u64,
}

impl DaemonArgs {
    pub(super) fn command_line(busy: bool, capacity: u64) -> Vec<String> {
        let mut line = command_line("daemon", busy);
        line.extend(["--capacity".to_owned(), capacity.to_string()]);
        line
    }

    pub(super) fn run(&self) -> Result<Exit, Error> {
        daemon::run(self.common.parent, self.common.busy, self.capacity)?;
        Ok(Exit::Done)
    }
}
