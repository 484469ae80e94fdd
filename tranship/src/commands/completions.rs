//! `tranship completions SHELL`

use clap::{Command, CommandFactory};
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
        let mut command = shown(&Cli::command()).version(env!("CARGO_PKG_VERSION"));
        clap_complete::generate(self.shell, &mut command, "tranship", &mut script);
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

/// The command as people are to see it: the scripts would offer what is hidden, too.
fn shown(command: &Command) -> Command {
    let subcommands = command.get_subcommands().filter(|it| !it.is_hide_set()).map(shown);
    let args = command.get_arguments().filter(|it| !it.is_hide_set()).cloned();
    // clap wants names that live on; this process prints its script and ends.
    let name: &'static str = command.get_name().to_owned().leak();
    let about = command.get_about().cloned().unwrap_or_default();
    Command::new(name).about(about).args(args).subcommands(subcommands)
}
