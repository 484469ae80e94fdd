//! One file per command.
//!
//! A command is a `clap::Args` struct with `run(&self, &Context) -> Result<Exit, Error>` and a
//! variant of [`Command`]. Results go through [`Context::output`]; errors through [`Error`], which
//! knows its exit code.

mod completions;
mod config;
mod doctor;
mod error;
mod man;
pub mod trace;

pub mod bench;
pub mod demo;
pub mod get;
pub mod ls;
pub mod persist;
pub mod prefetch;
pub mod put;
pub mod rm;
pub mod serve;
mod server;
pub mod stat;
mod target;
mod tiers;

use clap::Subcommand;

pub use error::Error;
pub use target::{AdminTarget, Namespace, Target};

use crate::cli::Globals;
use crate::config::{Flags, Inputs, Loaded};
use crate::exit::Exit;
use crate::logging;
use crate::output::Output;

/// What a command has at hand.
#[derive(Debug)]
pub struct Context {
    /// The way to standard output.
    pub output: Output,
    /// The global options.
    pub globals: Globals,
}

impl Context {
    /// The configuration, with the settings flags of the command if it has any.
    ///
    /// # Errors
    /// A configuration that cannot be used.
    pub fn config_with(&self, flags: Option<&Flags>) -> Result<Loaded, Error> {
        let loaded = Loaded::load(&Inputs {
            file: self.globals.config.as_deref(),
            environment: std::env::vars_os().collect(),
            flags,
            log: Some(&self.globals.log),
        })?;
        Ok(loaded)
    }

    /// Starts logging as configured.
    ///
    /// # Errors
    /// When the variable that overrides the levels makes no sense.
    pub fn start_logging(&self, loaded: &Loaded) -> Result<(), Error> {
        Ok(logging::start(&loaded.config.log, self.globals.verbose)?)
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the cache daemon
    Serve(serve::Args),
    /// Show what engines gain: a daemon, two engines, every byte checked
    Demo(demo::Args),
    /// Store a file as a block
    Put(put::Args),
    /// Read a block
    Get(get::Args),
    /// List blocks
    Ls(ls::Args),
    /// Describe a block, or the daemon
    Stat(stat::Args),
    /// Remove blocks
    Rm(rm::Args),
    /// Bring blocks of the tiers below to memory
    Prefetch(prefetch::Args),
    /// Have blocks written where they survive a crash
    Persist(persist::Args),
    /// Show what this machine can do, what is missing and how to get it
    Doctor(doctor::Args),
    /// Show the configuration
    #[command(subcommand)]
    Config(config::Command),
    /// Read, make and measure KV-reuse traces
    #[command(subcommand)]
    Trace(trace::Command),
    /// Measure the transport, the cache and its tiers on this machine
    #[command(subcommand)]
    Bench(bench::Command),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Write the manual pages
    Man(man::Args),
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn run(&self, context: &Context) -> Result<Exit, Error> {
        match self {
            Self::Serve(args) => args.run(context),
            Self::Demo(args) => args.run(context),
            Self::Put(args) => args.run(context),
            Self::Get(args) => args.run(context),
            Self::Ls(args) => args.run(context),
            Self::Stat(args) => args.run(context),
            Self::Rm(args) => args.run(context),
            Self::Prefetch(args) => args.run(context),
            Self::Persist(args) => args.run(context),
            Self::Doctor(args) => args.run(context),
            Self::Config(command) => command.run(context),
            Self::Trace(command) => command.run(context),
            Self::Bench(command) => command.run(context),
            Self::Completions(args) => args.run(context),
            Self::Man(args) => args.run(context),
        }
    }
}
