//! `tranship bench cache`

use std::path::PathBuf;

use clap::ValueEnum;
use tranship_cache::tier::Tier;

use super::{Options, payload, report, tiers};
use crate::bench::cache::{Bench, Op};
use crate::bench::{self, Plan, RULE};
use crate::commands::server::{Server, Settings};
use crate::commands::target::{dial, token};
use crate::commands::{Context, Error, Target};
use crate::config::{Addresses, Polling};
use crate::doctor::host;
use crate::exit::Exit;
use crate::units::Size;

/// Blocks of one lease in the second line of `get`.
const GET_BATCH: u32 = 16;
/// Keys of one lookup in the second line of `lookup`.
const LOOKUP_BATCH: u32 = 1024;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Operation {
    /// Blocks into engine memory, one at a time and 16 at a time.
    Get,
    /// Blocks into the cache.
    Put,
    /// Prefix lookups among 32,768 resident keys, of --keys and of 1,024 keys.
    Lookup,
}

/// Arguments of `bench cache`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Operations, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "get,put,lookup")]
    ops: Vec<Operation>,
    /// Block sizes, separated by commas
    #[arg(
        long,
        value_name = "SIZE",
        value_delimiter = ',',
        value_parser = payload,
        default_value = "1MiB"
    )]
    sizes: Vec<Size>,
    /// Keys of one lookup
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    keys: u32,
    /// Instead of --ops: get from each of these tiers (dram, nvme, object), and find blocks again after a
    /// kill; daemons are started for it
    #[arg(long, value_name = "TIERS", value_delimiter = ',', conflicts_with_all = ["ops", "to"])]
    tiers: Vec<Tier>,
    /// Directory for the log and the bucket of --tiers [default: that of temporary files]
    #[arg(long, value_name = "DIRECTORY", requires = "tiers")]
    path: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
    /// Which daemon; without --connect, one is started for the measurement.
    #[command(flatten)]
    target: Target,
}

/// What `serve` would say of its own capacity, in terms of what was given here.
fn fits(capacity: Size) -> Result<(), Error> {
    match host::memory() {
        Some(memory) if capacity > memory.available => Err(Error::Bench(bench::Error::Room {
            arena_bytes: capacity.bytes(),
            free_bytes: memory.available.bytes(),
        })),
        _ => Ok(()),
    }
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Error> {
        let plan = self.options.plan();
        let sizes: Vec<u64> = self.sizes.iter().map(|size| size.bytes()).collect();
        if !self.tiers.is_empty() {
            let (tenant, tiers) = (self.target.tenant.as_str(), self.tiers.as_slice());
            let place = self.path.clone();
            return tiers::Run { context, plan, tenant, sizes: &sizes, tiers, place }.run();
        }
        let ops = self.operations(&sizes);
        match &self.target.to {
            Some(addresses) => self.measure(context, plan, &ops, addresses),
            None => {
                let polling = if plan.busy { Polling::Busy } else { Polling::Adaptive };
                let capacity = Size::new(Bench::capacity(&plan, &ops));
                fits(capacity)?;
                let settings = Settings {
                    capacity: Some(capacity),
                    polling: Some(polling),
                    ..Settings::default()
                };
                let daemon = Server::start(context, &settings)?;
                let exit =
                    self.measure(context, plan, &ops, &Addresses::one(daemon.address().clone()));
                daemon.stop()?;
                exit
            }
        }
    }

    fn measure(
        &self,
        context: &Context,
        plan: Plan,
        ops: &[Op],
        to: &Addresses,
    ) -> Result<Exit, Error> {
        let tenant = self.target.tenant.as_str();
        let config = context.config_with(None)?.config;
        let token = token(&config, tenant);
        let dial = dial(config, Some(to), self.target.token_file.as_deref())?;
        let client = dial.connect(|client| {
            client
                .name("tranship bench")
                .timeout(self.target.timeout.duration())
                .polling(plan.polling())
                .tenant(tenant, token.as_str())
        })?;
        let bench = Bench::new(plan, &client, tenant);
        report::print(context, RULE, ops.len(), ops.iter().map(|op| bench.measure(*op)))?;
        Ok(Exit::Done)
    }

    /// One for each line of the result.
    fn operations(&self, sizes: &[u64]) -> Vec<Op> {
        let mut ops = Vec::new();
        for op in &self.ops {
            match op {
                Operation::Get => ops.extend(
                    sizes
                        .iter()
                        .flat_map(|&size| [1, GET_BATCH].map(|batch| Op::Get { size, batch })),
                ),
                Operation::Put => ops.extend(sizes.iter().map(|&size| Op::Put { size })),
                Operation::Lookup => {
                    ops.extend([self.keys, LOOKUP_BATCH].map(|keys| Op::Lookup { keys }));
                }
            }
        }
        ops
    }
}
