//! `tranship man DIR`

use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use serde_json::json;

use super::{Context, Error};
use crate::cli::Cli;
use crate::exit::Exit;

/// Arguments of `man`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory to write the pages into; made if missing
    directory: PathBuf,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Error> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Write { path, source }
        };
        std::fs::create_dir_all(&self.directory).map_err(failed(&self.directory))?;
        let mut root = Cli::command().disable_help_subcommand(true);
        root.build();
        let mut pages = Vec::new();
        collect(&root, &mut pages)?;
        for (name, page) in pages {
            let path = self.directory.join(name);
            std::fs::write(&path, page).map_err(failed(&path))?;
            if context.output.is_json() {
                context.output.object("man", &json!({ "file": path }))?;
            } else {
                context.output.line(path.display())?;
            }
        }
        Ok(Exit::Done)
    }
}

/// The page of a command and of everything under it.
fn collect(command: &Command, pages: &mut Vec<(String, Vec<u8>)>) -> Result<(), Error> {
    let man = Man::new(command.clone()).manual("tranship manual");
    let mut page = Vec::new();
    man.render(&mut page)?;
    pages.push((man.get_filename(), page));
    command
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
        .try_for_each(|sub| collect(sub, pages))
}
