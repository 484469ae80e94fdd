//! `tranship trace replay`: engine processes play a trace against a daemon.
//!
//! | module | what it holds |
//! |---|---|
//! | `engine` | one engine process: looks up, loads, verifies, stores; a line a request |
//! | `coordinator` | starts the engines, restarts those that die, adds up their lines |
//! | `figures` | the sums, and what is printed of them |

pub(crate) mod coordinator;
pub mod engine;
pub(crate) mod figures;

use std::path::{Path, PathBuf};

use tranship_cache::Identity;

use self::coordinator::Replay;
use super::super::server::{Over, Server, Settings};
use super::super::{Context, Error};
use crate::config::Addresses;
use crate::exit::Exit;
use crate::presets::{Preset, Unknown};
use crate::units::Size;

/// Arguments of `trace replay`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Trace to replay
    #[arg(long, value_name = "FILE")]
    pub trace: PathBuf,
    /// Model whose KV geometry gives the bytes of a token
    #[arg(long, value_name = "PRESET", default_value = "qwen3-0.6b")]
    pub model: String,
    /// Bytes of a token in place of the model's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MAX_TOKEN))]
    pub bytes_per_token: Option<u64>,
    /// Engine processes
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = engines())]
    pub engines: u64,
    /// Memory of the cache [default: dram.capacity of the configuration]
    #[arg(long, value_name = "SIZE", conflicts_with = "to")]
    pub capacity: Option<Size>,
    /// Stop after so many requests [default: all]
    #[arg(long, value_name = "N")]
    pub requests: Option<u64>,
    /// Honour the timestamps, so many times as fast [default: as fast as possible]
    #[arg(long, value_name = "FACTOR", value_parser = speed)]
    pub speed: Option<f64>,
    /// Addresses of a running daemon to use, separated by commas; the first that answers is used
    /// [default: start one for the replay]
    #[arg(long = "connect", visible_alias = "to", value_name = "ADDRESSES")]
    pub to: Option<Addresses>,
    /// File with the secret of the fabrics between hosts [default: tcp.token_file of the configuration]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Fabric of the daemon that is started for the replay
    #[arg(long, value_enum, default_value_t = Over::Shm, conflicts_with = "to")]
    pub fabric: Over,
    /// Tenant to act for; its token is taken from the configuration
    #[arg(long, value_name = "NAME", default_value = Identity::TENANT_DEFAULT)]
    pub tenant: String,
    /// Fail when an engine process dies, in place of starting it again
    #[arg(long)]
    pub no_restart: bool,
    /// With --json, also print an object every so many requests
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub every: Option<u64>,
}

/// 8 MiB, which makes a block of 4 GiB.
const MAX_TOKEN: u64 = 8 << 20;

/// How many engines there can be.
pub(crate) fn engines() -> clap::builder::RangedU64ValueParser<u64> {
    clap::value_parser!(u64).range(1..=1024)
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if factor.is_finite() && factor > 0.0 => Ok(factor),
        _ => Err(format!("{text:?}: expected a number above 0, such as 1 or 60")),
    }
}

impl Args {
    /// Bytes of one token: as given, else those of the model.
    ///
    /// # Errors
    /// No model of that name.
    pub fn token_bytes(&self) -> Result<u64, Unknown> {
        let preset = Preset::find(&self.model)?;
        Ok(self.bytes_per_token.unwrap_or(preset.bytes_per_token()))
    }

    pub(super) fn run(&self, context: &Context) -> Result<Exit, Error> {
        let preset = Preset::find(&self.model)?;
        if self.trace == Path::new("-") {
            let why = "--trace -: every engine reads the trace; give a file";
            return Err(Error::Usage(why.to_owned()));
        }
        let replay = Replay {
            trace: self.trace.clone(),
            preset: *preset,
            token_bytes: self.token_bytes()?,
            engines: self.engines,
            requests: self.requests,
            speed: self.speed,
            restart: !self.no_restart,
            every: self.every,
            tenant: self.tenant.clone(),
            config: context.globals.config.clone(),
            token_file: self.token_file.clone(),
        };
        let requests = replay.count(context)?;
        let loaded = context.config_with(None)?;
        context.start_logging(&loaded)?;
        match &self.to {
            Some(addresses) => replay.run(context, requests, addresses, None),
            None => {
                let (capacity, over) = (self.capacity, self.fabric);
                let token_file = self.token_file.clone();
                let settings = Settings { capacity, over, token_file, ..Settings::default() };
                let server = Server::start(context, &settings)?;
                let address = Addresses::one(server.address().clone());
                let exit = replay.run(context, requests, &address, Some(server.pid()));
                server.stop()?;
                exit
            }
        }
    }
}
