//! `tranship demo`

use std::path::{Path, PathBuf};

use tranship_cache::Identity;

use super::server::{Below, Server, Settings};
use super::trace::replay::coordinator::Replay;
use super::{Context, Error};
use crate::config::Addresses;
use crate::exit::Exit;
use crate::presets::Preset;
use crate::units::Size;

/// The trace that comes with tranship.
const SAMPLE: &[u8] = include_bytes!("../../../samples/conversation.jsonl");
/// Its name, and that of the public trace it is modelled on.
const SAMPLE_NAME: &str = "conversation.jsonl";
const PUBLIC_NAME: &str = "conversation_trace.jsonl";
/// Where the public trace is looked for.
const TRACES: &str = "../shared/traces";
/// The model, and how many bytes stand for one of its tokens: so few that the whole trace fits onto a
/// laptop.
const MODEL: &str = "qwen3-0.6b";
const TOKEN_BYTES: u64 = 64;
/// Memory: a million tokens of these, so that most blocks leave it.
const MEMORY: Size = Size::mib(64);
/// A log of four million tokens, and a bucket for the rest.
const BELOW: Below =
    Below { at: None, nvme: Some((Size::mib(256), Size::mib(8))), pack: Some(Size::mib(16)) };

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Trace to replay [default: the sample that comes with tranship, then the public trace
    /// conversation_trace.jsonl if it is in $TRANSHIP_TRACES or ../shared/traces]
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Engine processes
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = super::trace::replay::engines())]
    pub engines: u64,
    /// Memory of the cache [default: 64MiB]
    #[arg(long, value_name = "SIZE")]
    pub capacity: Option<Size>,
    /// Tenant to act for; its token is taken from the configuration
    #[arg(long, value_name = "NAME", default_value = Identity::TENANT_DEFAULT)]
    pub tenant: String,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Error> {
        context.start_logging(&context.config_with(None)?)?;
        let settings = Settings {
            capacity: Some(self.capacity.unwrap_or(MEMORY)),
            below: Some(BELOW),
            ..Settings::default()
        };
        let server = Server::start(context, &settings)?;
        if let Some(ready) = server.ready().filter(|_| !context.output.is_json()) {
            context.output.line(ready)?;
        }
        let mut exit = Exit::Done;
        for trace in self.traces(server.directory())? {
            if !context.output.is_json() {
                context.output.line("")?;
            }
            let played = self.replay(context, &server, trace)?;
            if played != Exit::Done {
                exit = played;
            }
        }
        server.stop()?;
        Ok(exit)
    }

    fn replay(&self, context: &Context, server: &Server, trace: PathBuf) -> Result<Exit, Error> {
        let replay = Replay {
            trace,
            preset: *Preset::find(MODEL)?,
            token_bytes: TOKEN_BYTES,
            engines: self.engines,
            requests: None,
            speed: None,
            restart: true,
            every: None,
            tenant: self.tenant.clone(),
            config: context.globals.config.clone(),
            token_file: None,
        };
        let requests = replay.count(context)?;
        let address = Addresses::one(server.address().clone());
        replay.run(context, requests, &address, Some(server.pid()))
    }

    /// What is replayed; the sample is unpacked into `scratch`.
    fn traces(&self, scratch: &Path) -> Result<Vec<PathBuf>, Error> {
        if let Some(trace) = &self.trace {
            return Ok(vec![trace.clone()]);
        }
        let sample = scratch.join(SAMPLE_NAME);
        std::fs::write(&sample, SAMPLE)
            .map_err(|source| Error::Write { path: sample.clone(), source })?;
        let folder = std::env::var_os("TRANSHIP_TRACES").unwrap_or_else(|| TRACES.into());
        let public = Some(Path::new(&folder).join(PUBLIC_NAME)).filter(|path| path.is_file());
        Ok([Some(sample), public].into_iter().flatten().collect())
    }
}
