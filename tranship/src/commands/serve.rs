//! `tranship serve`

use std::sync::Mutex;

use serde::Serialize;

use super::{Context, Error};
use crate::config::Flags;
use crate::doctor;
use crate::exit::Exit;
use crate::orphan;
use crate::serve::{Daemon, TierInfo, signals};
use crate::units::human;

/// Arguments of `serve`: every setting is a flag.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The settings given as flags.
    #[command(flatten)]
    pub settings: Flags,
    /// Process without which this one ends at once
    #[arg(long, value_name = "PID", hide = true)]
    pub parent: Option<u32>,
}

/// What a daemon says when it is ready.
#[derive(Serialize)]
struct Ready<'a> {
    pid: u32,
    listen: String,
    admin: String,
    metrics: Option<String>,
    tiers: &'a [TierInfo],
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Error> {
        if let Some(parent) = self.parent {
            orphan::end_with(parent)
                .map_err(|source| Error::System { doing: "watch the parent process", source })?;
        }
        let loaded = context.config_with(Some(&self.settings))?;
        context.start_logging(&loaded)?;
        if let Some(warning) = doctor::memlock_warning(&loaded.config) {
            tracing::warn!("{warning}");
        }
        let capacity = loaded.config.dram.capacity.bytes();
        let progress = Mutex::new(context.output.progress("arena", capacity));
        let daemon = Daemon::start(&loaded.config, move |done, _| {
            if let Ok(mut progress) = progress.lock() {
                progress.at(done);
            }
        })?;
        let ender = daemon.ender();
        signals::watch(ender)
            .map_err(|source| Error::System { doing: "watch for signals", source })?;
        announce(context, &daemon)?;
        daemon.wait()?;
        tracing::info!("ending: no new blocks are taken");
        daemon.stop()?;
        Ok(Exit::Done)
    }
}

fn announce(context: &Context, daemon: &Daemon) -> Result<(), Error> {
    if context.output.is_json() {
        let ready = Ready {
            pid: std::process::id(),
            listen: daemon.listen().to_string(),
            admin: daemon.admin().to_string(),
            metrics: daemon.metrics().map(|address| address.to_string()),
            tiers: daemon.tiers(),
        };
        return Ok(context.output.object("serve", &ready)?);
    }
    for line in lines(daemon) {
        context.output.line(line)?;
    }
    Ok(())
}

/// What a person is told of a daemon that is ready.
fn lines(daemon: &Daemon) -> [String; 2] {
    let metrics = match daemon.metrics() {
        Some(address) => format!(" · metrics http {address}"),
        None => String::new(),
    };
    let path = |address: crate::config::Address| address.to_string().replacen("://", " ", 1);
    let tiers = daemon
        .tiers()
        .iter()
        .map(|tier| format!("{} {} ({})", tier.tier, human::size(tier.bytes), tier.detail));
    let tiers: Vec<String> = tiers.collect();
    [
        format!("listening  {} · admin {}{metrics}", path(daemon.listen()), path(daemon.admin())),
        format!("tiers      {}", tiers.join(" · ")),
    ]
}
