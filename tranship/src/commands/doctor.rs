//! `tranship doctor`

mod peer;

use std::time::Duration;

use super::bench::probe;
use super::{Context, Error, tiers};
use crate::config::{Address, Config};
use crate::doctor::{Finding, Report, State};
use crate::exit::Exit;
use crate::output::{Cell, Table, style};
use crate::serve::admin::{self, pb};
use crate::units::human;

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

/// What else it can look at.
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show how a daemon is reached from here: fabric, rails, and how long an answer takes
    Peer(peer::Args),
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Error> {
        match &self.command {
            Some(Command::Peer(peer)) => peer.run(context),
            None => examine(context),
        }
    }
}

fn examine(context: &Context) -> Result<Exit, Error> {
    let loaded = context.config_with(None)?;
    let mut report =
        Report::examine(&loaded.config, probe::shm().map_err(|error| error.to_string()));
    add_tiers(&mut report, &loaded.config);
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
        host.memory
            .as_ref()
            .map_or("memory unknown".to_owned(), |memory| { human::size(memory.total.bytes()) }),
    ))?;
    context.output.table(&table("fabric", &report.fabrics))?;
    context.output.line("")?;
    context.output.table(&table("limit", &report.limits))?;
    if !report.tiers.is_empty() {
        context.output.line("")?;
        context.output.table(&table("tier", &report.tiers))?;
    }
    Ok(exit)
}

fn add_tiers(report: &mut Report, config: &Config) {
    for tier in running(config) {
        if let Ok(known) = tier.tier.parse() {
            report.tier(known, tiers::is_ready(&tier), detail(&tier));
        }
    }
}

/// How long a daemon may take to tell of its tiers.
const PATIENCE: Duration = Duration::from_secs(2);

/// The tiers below memory of the daemon that runs here; none where no daemon answers.
fn running(config: &Config) -> Vec<pb::Tier> {
    let Address::Unix(path) = &config.serve.admin else { return Vec::new() };
    let Ok(mut daemon) = admin::connect(path, PATIENCE) else { return Vec::new() };
    let stats = daemon.call(pb::StatsRequest::default(), async |admin, ask| admin.stats(ask).await);
    stats.map(|stats| stats.tiers).unwrap_or_default()
}

fn detail(tier: &pb::Tier) -> String {
    if !tiers::is_ready(tier) {
        return tiers::told(tier);
    }
    let blocks = human::count(tier.blocks);
    let (bytes, capacity) = (human::size(tier.bytes), human::size(tier.capacity_bytes));
    format!("{blocks} blocks, {bytes} of {capacity}")
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tranship_cache::tier::cold::Health;
    use tranship_tests::below::{Scripted, stack};

    use super::*;
    use crate::config::{Inputs, Loaded};
    use crate::serve::tests::Daemon;

    #[test]
    fn the_tiers_of_a_running_daemon_are_told() {
        let inputs = Inputs { file: None, environment: Vec::new(), flags: None, log: None };
        let mut config = Loaded::load(&inputs).unwrap().config;
        use tranship_cache::tier::Tier;
        let tiers = [Scripted::new(Tier::Nvme), Scripted::new(Tier::Object)];
        tiers[1].is(Health::Degraded("slow answers".to_owned()));
        let daemon = Daemon::over(stack(&tiers.each_ref().map(Arc::clone)), |_| {});
        config.serve.admin = Address::Unix(daemon.admin());
        let mut report = Report::examine(&config, Err("not measured".to_owned()));
        add_tiers(&mut report, &config);
        let states = report.tiers.iter().map(|tier| (tier.name, tier.state));
        assert_eq!(
            states.collect::<Vec<_>>(),
            [("nvme", State::Ready), ("object", State::Warning)]
        );
        assert_eq!(report.tiers[1].detail, "degraded: slow answers");
        drop(daemon);
        report.tiers.clear();
        add_tiers(&mut report, &config);
        assert!(report.tiers.is_empty(), "nobody answers");
    }
}
