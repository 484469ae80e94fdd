//! `tranship trace simulate`

mod lists;

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use self::lists::{capacities, contenders, tier};
use crate::commands::{Context, Error};
use crate::exit::Exit;
use crate::output::Table;
use crate::presets::Preset;
use crate::trace::Reader;
use crate::trace::simulate::tiers::{self, Costs, Spec};
use crate::trace::simulate::{Contender, Outcome, Requests, plot, run};
use crate::units::{Tokens, human};

/// Arguments of `trace simulate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Trace to simulate; - is standard input
    #[arg(long, value_name = "FILE")]
    trace: PathBuf,
    /// Capacities in tokens, separated by commas, such as 1.5M,3100000
    #[arg(long, value_name = "LIST", required_unless_present = "tier")]
    capacity_tokens: Option<String>,
    /// Policies, separated by commas, or all: lru, slru, s3fifo, wtinylfu, gdsf, lineage, and opt,
    /// the clairvoyant bound
    #[arg(long, value_name = "LIST", default_value = "all")]
    policy: String,
    /// Draw hit ratio against capacity
    #[arg(long, value_name = "FILE.svg", conflicts_with = "tier")]
    plot: Option<PathBuf>,
    /// Tiers, fastest first, in place of capacities: NAME=TOKENS[,BYTES a second[,LATENCY]], such as
    /// nvme=30M,5GB,100us
    #[arg(long, value_name = "TIER", conflicts_with = "capacity_tokens")]
    tier: Vec<String>,
    /// With --tier: model whose KV geometry gives the bytes of a token
    #[arg(long, value_name = "PRESET", default_value = "llama-3.1-8b", requires = "tier")]
    model: String,
    /// With --tier: microseconds to compute a token again
    #[arg(long, value_name = "US", default_value_t = 100.0, requires = "tier", value_parser = cost)]
    recompute_us: f64,
}

fn cost(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(cost) if cost.is_finite() && cost > 0.0 => Ok(cost),
        _ => Err(format!("{text:?}: expected a number above 0, such as 100")),
    }
}

/// One line for programs, with the file it is about.
#[derive(Serialize)]
struct Object<'a, T> {
    trace: String,
    #[serde(flatten)]
    outcome: &'a T,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Error> {
        // Everything that can be wrong on the command line is told before a long trace is read.
        let contenders = contenders(&self.policy).map_err(Error::Usage)?;
        let specs = self.tier.iter().map(|text| tier(text));
        let specs = specs.collect::<Result<Vec<Spec>, String>>().map_err(Error::Usage)?;
        if let Some(list) = &self.capacity_tokens {
            let capacities = capacities(list).map_err(Error::Usage)?;
            if let Some(path) = &self.plot {
                std::fs::File::create(path)
                    .map_err(|source| Error::Write { path: path.clone(), source })?;
            }
            return self.flat(context, &contenders, &capacities);
        }
        let all = self.policy.split(',').any(|name| name.trim() == lists::ALL);
        lists::together(&contenders, &specs, all).map_err(Error::Usage)?;
        self.tiers(context, &contenders, &specs)
    }

    fn read(&self, context: &Context) -> Result<Requests, Error> {
        let total = std::fs::metadata(&self.trace).map_or(0, |file| file.len());
        let mut progress = context.output.progress("reading", total);
        let mut reader = Reader::open(&self.trace)?;
        let mut requests = Requests::default();
        while let Some(request) = reader.next() {
            requests.push(&request?);
            progress.at(reader.bytes());
        }
        Ok(requests)
    }

    fn flat(
        &self,
        context: &Context,
        contenders: &[Contender],
        capacities: &[u64],
    ) -> Result<Exit, Error> {
        let requests = self.read(context)?;
        let future = requests.future();
        let mut outcomes = Vec::new();
        let total = (contenders.len() * capacities.len()) as u64;
        let mut progress = context.output.progress("simulating", total);
        for capacity in capacities {
            for contender in contenders {
                let outcome = run(*contender, *capacity, &requests, &future);
                self.object(context, "simulate", &outcome)?;
                outcomes.push(outcome);
                progress.at(outcomes.len() as u64);
            }
        }
        drop(progress);
        if !context.output.is_json() {
            context.output.table(&table(contenders, capacities, &outcomes))?;
        }
        if let Some(path) = &self.plot {
            std::fs::write(path, plot::svg(&outcomes))
                .map_err(|source| Error::Write { path: path.clone(), source })?;
        }
        Ok(Exit::Done)
    }

    fn tiers(
        &self,
        context: &Context,
        contenders: &[Contender],
        specs: &[Spec],
    ) -> Result<Exit, Error> {
        let preset = Preset::find(&self.model)?;
        let costs =
            Costs { token_bytes: preset.bytes_per_token(), recompute_us: self.recompute_us };
        let requests = self.read(context)?;
        let future = requests.future();
        let mut table = Table::new(["policy", "tier", "hits", "share", "loaded", "written a day"])
            .right(2)
            .right(3)
            .right(4)
            .right(5);
        for contender in contenders.iter().filter(|contender| **contender != Contender::Opt) {
            let outcome = tiers::run(*contender, specs, costs, &requests, &future);
            self.object(context, "simulate-tiers", &outcome)?;
            for tier in &outcome.tiers {
                table.row([
                    outcome.policy.to_owned(),
                    tier.tier.clone(),
                    human::count(tier.hits),
                    human::percent(tier.hits, outcome.lookups),
                    human::size(tier.loaded_bytes),
                    human::size(tier.written_bytes_per_day as u64),
                ]);
            }
            let saved = Duration::from_secs_f64(outcome.saved_seconds);
            let all = Duration::from_secs_f64(outcome.recompute_seconds);
            table.row([
                outcome.policy.to_owned(),
                "all".to_owned(),
                human::count(outcome.hits),
                human::percent(outcome.hits, outcome.lookups),
                format!("saves {} of {}", human::time(saved), human::time(all)),
                String::new(),
            ]);
        }
        if !context.output.is_json() {
            context.output.table(&table)?;
        }
        Ok(Exit::Done)
    }

    fn object<T: Serialize>(&self, context: &Context, name: &str, of: &T) -> Result<(), Error> {
        if context.output.is_json() {
            let trace = self.trace.display().to_string();
            context.output.object(name, &Object { trace, outcome: of })?;
        }
        Ok(())
    }
}

/// A row a policy, a column a capacity.
fn table(contenders: &[Contender], capacities: &[u64], outcomes: &[Outcome]) -> Table {
    let mut table = Table::pairs();
    let names = capacities.iter().map(|tokens| format!("{:>7}", Tokens::new(*tokens).rounded()));
    table.row(["tokens".to_owned(), names.collect::<Vec<_>>().join("  ") + "   ns/block"]);
    for contender in contenders {
        let mine: Vec<&Outcome> =
            outcomes.iter().filter(|outcome| outcome.policy == contender.name()).collect();
        let ratios = mine
            .iter()
            .map(|outcome| format!("{:>7}", human::percent(outcome.hits, outcome.lookups)));
        let nanos = mine.iter().map(|outcome| outcome.ns_per_block).fold(0.0, f64::max);
        let text = ratios.collect::<Vec<_>>().join("  ");
        table.row([contender.name().to_owned(), format!("{text}   {nanos:>8.0}")]);
    }
    table
}
