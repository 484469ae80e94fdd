//! `tranship get KEY`

use std::path::PathBuf;

use serde_json::json;
use tranship_cache::client::{BlockResult, ReadError};

use super::{Context, Error, Namespace, Target, target};
use crate::exit::Exit;
use crate::units::human;

/// Arguments of `get`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the block: any text, or 32 hex digits
    pub key: String,
    /// File to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Whose block.
    #[command(flatten)]
    pub namespace: Namespace,
    /// Which daemon.
    #[command(flatten)]
    pub target: Target,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Error> {
        let cache = self.target.open(context, &self.namespace)?;
        let key = target::link(cache.identity(), &self.key).key;
        let name = || self.key.clone();
        let lease = cache.lease(&[key], self.target.timeout.duration())?;
        let len = match lease.results().next().map(|(_, result)| result) {
            Some(BlockResult::Ready { len }) => len,
            Some(BlockResult::Gone) | None => return Err(Error::NoBlock { name: name(), key }),
            Some(BlockResult::Late) => {
                let why = "is still being stored, or on its way up from a tier below; try again"
                    .to_owned();
                return Err(Error::Refused { name: name(), why });
            }
            Some(BlockResult::Corrupt) => {
                let why = "did not match its checksum and was dropped".to_owned();
                return Err(Error::Corrupt { name: name(), why });
            }
        };
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        lease.copy_to(0, &mut bytes).map_err(|error| match error {
            ReadError::Corrupt { .. } => Error::Corrupt { name: name(), why: error.to_string() },
            _ => Error::Refused { name: name(), why: error.to_string() },
        })?;
        drop(lease);
        let Some(path) = &self.output else {
            // The bytes themselves are the result, with or without --json.
            context.output.raw(&bytes)?;
            return Ok(Exit::Done);
        };
        std::fs::write(path, &bytes)
            .map_err(|source| Error::Write { path: path.clone(), source })?;
        if context.output.is_json() {
            let object = json!({ "name": self.key, "key": key, "bytes": len, "file": path });
            context.output.object("get", &object)?;
        } else {
            let size = human::size(len);
            context.output.line(format_args!("{key}  {size} in {}", path.display()))?;
        }
        Ok(Exit::Done)
    }
}
