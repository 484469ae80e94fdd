//! `tranship persist KEY…`

use serde_json::json;
use tranship_cache::catalog::Presence;

use super::{Context, Error, Namespace, Target, target};
use crate::exit::Exit;

/// Arguments of `persist`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names of the blocks: any text, or 32 hex digits
    #[arg(required = true)]
    pub keys: Vec<String>,
    /// Whose blocks.
    #[command(flatten)]
    pub namespace: Namespace,
    /// Which daemon.
    #[command(flatten)]
    pub target: Target,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Error> {
        let cache = self.target.open(context, &self.namespace)?;
        let link = |name: &String| target::link(cache.identity(), name).key;
        let keys: Vec<_> = self.keys.iter().map(link).collect();
        let safe = cache.persist(&keys, self.target.timeout.duration())?;
        let mut failure = None;
        for ((name, key), safe) in self.keys.iter().zip(keys).zip(safe) {
            if context.output.is_json() {
                let object = json!({ "name": name, "key": key, "safe": safe });
                context.output.object("persist", &object)?;
            } else if safe {
                context.output.line(format_args!("{key}  safe"))?;
            }
            if !safe {
                let error = match cache.lookup(&[key])?.presence[..] {
                    [Presence::Absent] | [] => Error::NoBlock { name: name.clone(), key },
                    _ => {
                        let why = "the tier below memory did not take it, or not in time; tranship \
                                   stat shows how it is, --timeout gives it up to a minute";
                        Error::Refused { name: name.clone(), why: why.to_owned() }
                    }
                };
                failure.get_or_insert(error);
            }
        }
        failure.map_or(Ok(Exit::Done), Err)
    }
}
