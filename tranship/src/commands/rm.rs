//! `tranship rm KEY…`

use serde_json::json;

use super::{Context, Error, Namespace, Target, target};
use crate::exit::Exit;

/// Arguments of `rm`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names of the blocks: any text, or 32 hex digits
    #[arg(required = true)]
    pub keys: Vec<String>,
    /// A block that is not there is no failure
    #[arg(short, long)]
    pub force: bool,
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
        let mut missing = None;
        for name in &self.keys {
            let key = target::link(cache.identity(), name).key;
            let removed = cache.remove(&[key])? > 0;
            if context.output.is_json() {
                let object = json!({ "name": name, "key": key, "removed": removed });
                context.output.object("rm", &object)?;
            } else if removed {
                context.output.line(format_args!("{key}  removed"))?;
            }
            if !removed {
                missing.get_or_insert(Error::NoBlock { name: name.clone(), key });
            }
        }
        match missing {
            Some(error) if !self.force => Err(error),
            _ => Ok(Exit::Done),
        }
    }
}
