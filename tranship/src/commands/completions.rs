//! `tranship completions SHELL`

use clap::CommandFactory;
use clap_complete::Shell;
use serde_json::json;

use super::{Context, Error};
use crate::cli::Cli;
use crate::exit::Exit;

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: tranship completions bash > ~/.local/share/bash-completion/completions/tranship"
)]
pub struct Args {
    /// Shell to complete in
    shell: Shell,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Error> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "tranship", &mut script);
        if context.output.is_json() {
            let script = String::from_utf8_lossy(&script);
            let object = json!({ "shell": self.shell.to_string(), "script": script });
            context.output.object("completions", &object)?;
        } else {
            context.output.raw(&script)?;
        }
        Ok(Exit::Done)
    }
}
