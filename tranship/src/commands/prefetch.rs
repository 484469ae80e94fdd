//! `tranship prefetch KEY…`

use serde_json::json;
use tranship_cache::catalog::Presence;

use super::{Context, Error, Namespace, Target, target};
use crate::exit::Exit;

/// Arguments of `prefetch`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names of the blocks, the most urgent first: any text, or 32 hex digits
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
        let mut failure = None;
        for name in &self.keys {
            let key = target::link(cache.identity(), name).key;
            let coming = cache.prefetch(&[key])? > 0;
            if context.output.is_json() {
                let object = json!({ "name": name, "key": key, "coming": coming });
                context.output.object("prefetch", &object)?;
            } else if coming {
                context.output.line(format_args!("{key}  in memory, or on its way"))?;
            }
            if !coming {
                let error = match cache.lookup(&[key])?.presence[..] {
                    [Presence::Resident(tier)] => {
                        let why = format!("is in {tier} and cannot come up now; try again");
                        Error::Refused { name: name.clone(), why }
                    }
                    _ => Error::NoBlock { name: name.clone(), key },
                };
                failure.get_or_insert(error);
            }
        }
        failure.map_or(Ok(Exit::Done), Err)
    }
}
