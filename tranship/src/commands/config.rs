//! `tranship config explain`

use clap::Subcommand;
use serde::Serialize;

use super::{Context, Error};
use crate::config::{Flags, Source};
use crate::exit::Exit;
use crate::output::{Cell, Table, style};

/// Subcommands of `config`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print each effective value, where it came from and what it means
    Explain(Explain),
}

/// Arguments of `config explain`.
#[derive(Debug, clap::Args)]
pub struct Explain {
    #[command(flatten)]
    flags: Flags,
}

impl Command {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Error> {
        match self {
            Self::Explain(args) => args.run(context),
        }
    }
}

/// One line of the explanation.
#[derive(Serialize)]
struct Line {
    key: String,
    value: String,
    source: String,
    meaning: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    flag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    variable: Option<&'static str>,
    #[serde(skip)]
    is_default: bool,
}

impl Explain {
    fn run(&self, context: &Context) -> Result<Exit, Error> {
        let loaded = context.config_with(Some(&self.flags))?;
        let settings = loaded.explain().map(|(setting, value, source)| Line {
            key: setting.key.clone(),
            value,
            source: source.to_string(),
            meaning: setting.field.help,
            flag: Some(format!("--{}", setting.flag)),
            variable: Some(&setting.variable),
            is_default: *source == Source::Default,
        });
        let tenants = loaded.explain_tenants().map(|(key, value, source, meaning)| Line {
            key,
            value,
            source: source.to_string(),
            meaning,
            flag: None,
            variable: None,
            is_default: false,
        });
        let lines = settings.chain(tenants);
        if context.output.is_json() {
            for line in lines {
                context.output.object("config", &line)?;
            }
            return Ok(Exit::Done);
        }
        let mut table = Table::new(["key", "value", "source", "meaning"]);
        for line in lines {
            let look = if line.is_default { style::DIM } else { style::GOOD };
            let source = Cell::styled(line.source, look);
            table.row([line.key.into(), line.value.into(), source, line.meaning.into()]);
        }
        context.output.table(&table)?;
        Ok(Exit::Done)
    }
}
