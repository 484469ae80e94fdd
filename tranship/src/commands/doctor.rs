//! `tranship doctor`

use super::bench::probe;
use super::{Context, Error};
use crate::doctor::{Finding, Report, State};
use crate::exit::Exit;
use crate::output::{Cell, Table, style};
use crate::units::human;

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {}

impl Args {
    #[expect(clippy::unused_self, reason = "every command has the same shape")]
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Error> {
        let loaded = context.config_with(None)?;
        let report =
            Report::examine(&loaded.config, probe::shm().map_err(|error| error.to_string()));
        let exit = if report.can_serve() { Exit::Done } else { Exit::Failure };
        if context.output.is_json() {
            context.output.object("doctor", &report)?;
            return Ok(exit);
        }
        let host = &report.host;
        context.output.line(format_args!(
            "tranship {} · {} {} {} · {} cores · {}",
            host.version,
            host.system,
            host.kernel.split('-').next().unwrap_or_default(),
            host.arch,
            host.cores,
            host.memory.as_ref().map_or("memory unknown".to_owned(), |memory| {
                human::size(memory.total.bytes())
            }),
        ))?;
        context.output.table(&table("fabric", &report.fabrics))?;
        context.output.line("")?;
        context.output.table(&table("limit", &report.limits))?;
        Ok(exit)
    }
}

fn table(heading: &str, findings: &[Finding]) -> Table {
    let mut table = Table::new([heading, "state", "detail"]);
    for Finding { name, state, detail, remedy, .. } in findings {
        let look = match state {
            State::Ready => style::GOOD,
            State::Absent => style::DIM,
            State::Warning => style::WARNING,
        };
        let detail = match remedy {
            Some(remedy) => format!("{detail}; {remedy}"),
            None => detail.clone(),
        };
        table.row([Cell::from(*name), Cell::styled(state.to_string(), look), detail.into()]);
    }
    table
}
