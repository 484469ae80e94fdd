//! `tranship put KEY FILE`

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;
use tranship_cache::client::{Cache, CommitFailed, Grant};
use tranship_cache::{Key, Link};

use super::{Context, Error, Namespace, Target, target};
use crate::exit::Exit;
use crate::units::{Span, human};

/// Arguments of `put`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the block: any text, or 32 hex digits
    pub key: String,
    /// File to store; - is standard input
    pub file: PathBuf,
    /// Forget the block after this long
    #[arg(long, value_name = "DURATION")]
    pub ttl: Option<Span>,
    /// Keep the block until it is removed
    #[arg(long)]
    pub pin: bool,
    /// Whose block.
    #[command(flatten)]
    pub namespace: Namespace,
    /// Which daemon.
    #[command(flatten)]
    pub target: Target,
}

/// What became of the block.
#[derive(Serialize)]
struct Object<'a> {
    name: &'a str,
    key: Key,
    bytes: u64,
    stored: bool,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Error> {
        let bytes =
            read(&self.file).map_err(|source| Error::Read { path: self.file.clone(), source })?;
        let cache = self.target.open(context, &self.namespace)?;
        let link = target::link(cache.identity(), &self.key);
        let stored = self.store(&cache, link, &bytes)?;
        if self.pin {
            cache.pin(&[link.key])?;
        }
        let (name, key, len) = (self.key.as_str(), link.key, bytes.len() as u64);
        if context.output.is_json() {
            context.output.object("put", &Object { name, key, bytes: len, stored })?;
        } else {
            let what = if stored { "stored" } else { "there already" };
            context.output.line(format_args!("{key}  {what}, {}", human::size(len)))?;
        }
        Ok(Exit::Done)
    }

    /// Whether it was stored; it may be there already.
    fn store(&self, cache: &Cache, link: Link, bytes: &[u8]) -> Result<bool, Error> {
        let name = || self.key.clone();
        let ttl = self.ttl.map(Span::duration);
        let grant = cache.reserve_for(&[(link, bytes.len() as u64)], ttl)?.pop();
        let reservation = match grant {
            Some(Grant::Granted(reservation)) => reservation,
            Some(Grant::Exists) => return Ok(false),
            Some(Grant::Refused { why, .. }) => return Err(Error::Refused { name: name(), why }),
            Some(Grant::InFlight) | None => {
                let why = "somebody else is storing it; try again".to_owned();
                return Err(Error::Refused { name: name(), why });
            }
        };
        let filled = reservation
            .write(bytes)
            .map_err(|error| Error::Refused { name: name(), why: error.to_string() })?;
        match cache.commit(vec![filled])?.pop() {
            Some(Ok(())) => Ok(true),
            Some(Err(why @ CommitFailed::Mismatch { .. })) => {
                Err(Error::Corrupt { name: name(), why: why.to_string() })
            }
            Some(Err(why)) => Err(Error::Refused { name: name(), why: why.to_string() }),
            None => Ok(false),
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        io::stdin().read_to_end(&mut bytes)?;
    } else {
        File::open(path)?.read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}
