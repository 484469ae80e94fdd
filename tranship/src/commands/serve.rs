//! `tranship serve`

use std::fmt;
use std::sync::Mutex;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{Context, Error};
use crate::config::Flags;
use crate::doctor;
use crate::exit::Exit;
use crate::orphan;
use crate::output::{Output, Progress};
use crate::serve::{Daemon, TierInfo, signals};

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
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ready {
    pid: u32,
    listen: String,
    admin: String,
    metrics: Option<String>,
    tiers: Vec<TierInfo>,
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
        let filling = Mutex::new(Filling::new(context, capacity));
        let daemon = Daemon::start(&loaded.config, move |done, _| {
            if let Ok(mut filling) = filling.lock() {
                filling.at(done);
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

/// Progress of filling the arenas in: a bar, or for programs objects once it takes long.
struct Filling {
    output: Output,
    bar: Progress,
    began: Instant,
    capacity: u64,
}

impl Filling {
    fn new(context: &Context, capacity: u64) -> Self {
        let output = Output::new(context.output.is_json());
        let bar = output.progress("arena", capacity);
        Self { output, bar, began: Instant::now(), capacity }
    }

    fn at(&mut self, done: u64) {
        self.bar.at(done);
        if self.output.is_json() && self.began.elapsed() > Progress::PATIENCE {
            let starting = Starting { done_bytes: done, total_bytes: self.capacity };
            // Whoever closed the pipe is told when the daemon is ready.
            let _ = self.output.object("serve-progress", &starting);
        }
    }
}

/// How far a daemon that is starting has come.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Starting {
    pub(crate) done_bytes: u64,
    pub(crate) total_bytes: u64,
}

fn announce(context: &Context, daemon: &Daemon) -> Result<(), Error> {
    let ready = Ready::of(daemon);
    if context.output.is_json() {
        return Ok(context.output.object("serve", &ready)?);
    }
    Ok(context.output.line(ready)?)
}

impl Ready {
    /// Where engines connect: addresses with commas in between.
    pub(crate) fn listen(&self) -> &str {
        &self.listen
    }

    fn of(daemon: &Daemon) -> Self {
        Self {
            pid: std::process::id(),
            listen: daemon.listen().to_owned(),
            admin: daemon.admin().to_string(),
            metrics: daemon.metrics().map(|address| address.to_string()),
            tiers: daemon.tiers().to_vec(),
        }
    }
}

impl fmt::Display for Ready {
    /// For people, two lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = |list: &str| list.replace("://", " ").replace(',', ", ");
        write!(f, "listening  {} · admin {}", path(&self.listen), path(&self.admin))?;
        if let Some(address) = &self.metrics {
            write!(f, " · metrics http {address}")?;
        }
        let tiers: Vec<String> = self.tiers.iter().map(ToString::to_string).collect();
        write!(f, "\ntiers      {}", tiers.join(" · "))
    }
}
