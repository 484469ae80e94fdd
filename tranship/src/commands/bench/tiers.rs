//! `tranship bench cache --tiers`: gets from each tier, and restarts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tranship_cache::client::Client;
use tranship_cache::tier::Tier;

use crate::bench::cache::tiers::{Blocks, Gets, RULE, Restart};
use crate::bench::{self, Plan};
use crate::commands::server::{Below, Server, Settings};
use crate::commands::target::{dial, token};
use crate::commands::{Context, Error};
use crate::config::Addresses;
use crate::exit::Exit;
use crate::output::Table;
use crate::serve::admin::{self, pb};
use crate::units::{Size, human};

/// How long a call of administration may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Times that everything is gotten from memory.
const DRAM_ROUNDS: u32 = 3;

/// One run.
pub(super) struct Run<'a> {
    pub(super) context: &'a Context,
    pub(super) plan: Plan,
    pub(super) tenant: &'a str,
    pub(super) sizes: &'a [u64],
    pub(super) tiers: &'a [Tier],
    /// Where logs and buckets are made.
    pub(super) place: Option<PathBuf>,
}

/// What was measured.
enum Result {
    Gets(Gets),
    Restart(Restart),
}

impl Run<'_> {
    pub(super) fn run(&self) -> std::result::Result<Exit, Error> {
        let output = &self.context.output;
        let mut table = Table::new([
            "tier",
            "size",
            "what",
            "n",
            "GB/s",
            "p50 µs",
            "p99 µs",
            "found again",
            "attach",
        ]);
        for column in 1..9 {
            table = table.right(column);
        }
        let (mut corrupt, mut missing) = (0, 0);
        for &size in self.sizes {
            for &tier in self.tiers {
                for result in self.measure(size, tier)? {
                    let gets = match &result {
                        Result::Gets(gets) => gets,
                        Result::Restart(restart) => &restart.after,
                    };
                    corrupt += gets.corrupt;
                    missing += gets.missing;
                    if !output.is_json() {
                        table.row(row(&result));
                        continue;
                    }
                    match &result {
                        Result::Gets(gets) => output.object("bench-tier", gets)?,
                        Result::Restart(restart) => output.object("bench-restart", restart)?,
                    }
                }
            }
        }
        if !output.is_json() {
            output.line(format_args!("counted: {RULE}"))?;
            output.table(&table)?;
            output.line(format_args!("missing={missing} corrupt={corrupt}"))?;
        } else {
            let sum = serde_json::json!({ "missing": missing, "corrupt": corrupt });
            output.object("bench-tiers", &sum)?;
        }
        if missing > 0 {
            return Err(Error::Bench(bench::Error::Missing { missing }));
        }
        Ok(if corrupt == 0 { Exit::Done } else { Exit::Corrupt })
    }

    fn measure(&self, size: u64, tier: Tier) -> std::result::Result<Vec<Result>, Error> {
        let failed = |source| Error::System { doing: "make a directory", source };
        let mut place = tempfile::Builder::new();
        let place = match &self.place {
            Some(path) => place.prefix("tranship-bench-").tempdir_in(path),
            None => place.prefix("tranship-bench-").tempdir(),
        };
        let place = place.map_err(failed)?;
        let below = self.below(size, tier, place.path());
        let daemon = self.start(below.clone())?;
        let mut blocks = Blocks::new(&self.plan, &self.client(&daemon)?, self.tenant, size);
        blocks.store()?;
        let mut results = Vec::new();
        if tier == Tier::Dram {
            for _ in 1..DRAM_ROUNDS {
                blocks.get(tier)?;
            }
            results.push(Result::Gets(blocks.get(tier)?));
            daemon.stop()?;
            return Ok(results);
        }
        let safe = blocks.persist()?;
        self.evict(&daemon)?;
        results.push(Result::Gets(blocks.get(tier)?));
        daemon.kill();

        let daemon = self.start(below)?;
        let (recovered, attach) = self.recovered(&daemon, tier)?;
        blocks.ask(&self.client(&daemon)?);
        let after = blocks.get(tier)?;
        daemon.stop()?;
        results.push(Result::Restart(Restart {
            tier,
            size,
            blocks: safe,
            recovered,
            attach_ms: attach.as_secs_f64() * 1e3,
            after,
        }));
        Ok(results)
    }

    /// The tier alone, twice as large as what it will hold.
    fn below(&self, size: u64, tier: Tier, place: &Path) -> Option<Below> {
        const SEGMENT: u64 = 64 << 20;
        let bytes = self.plan.working_set_for(size);
        let segments = (2 * bytes).div_ceil(SEGMENT).max(8);
        match tier {
            Tier::Nvme => Some(Below {
                at: Some(place.to_owned()),
                nvme: Some((Size::new(segments * SEGMENT), Size::new(SEGMENT))),
                pack: None,
            }),
            Tier::Object => Some(Below {
                at: Some(place.to_owned()),
                nvme: None,
                pack: Some(Size::new(SEGMENT)),
            }),
            _ => None,
        }
    }

    fn start(&self, below: Option<Below>) -> std::result::Result<Server, Error> {
        let largest = self.sizes.iter().map(|&size| self.plan.working_set_for(size)).max();
        let capacity = Size::new(2 * largest.unwrap_or(0) + (64 << 20));
        let settings = Settings { capacity: Some(capacity), below, ..Settings::default() };
        Server::start(self.context, &settings)
    }

    fn client(&self, daemon: &Server) -> std::result::Result<Client, Error> {
        let config = self.context.config_with(None)?.config;
        let token = token(&config, self.tenant);
        let to = Addresses::one(daemon.address().clone());
        let client = dial(config, Some(&to), None)?.connect(|client| {
            client.name("tranship bench").timeout(PATIENCE).tenant(self.tenant, token.as_str())
        })?;
        Ok(client)
    }

    /// Has everything leave memory.
    fn evict(&self, daemon: &Server) -> std::result::Result<(), Error> {
        let mut admin = admin::connect(&daemon.admin(), PATIENCE)?;
        let request = pb::EvictRequest { tenant: self.tenant.to_owned(), bytes: u64::MAX };
        admin.call(request, async |admin, request| admin.evict(request).await)?;
        Ok(())
    }

    /// Blocks that the tier found, and how long it took.
    fn recovered(
        &self,
        daemon: &Server,
        tier: Tier,
    ) -> std::result::Result<(u64, Duration), Error> {
        let mut admin = admin::connect(&daemon.admin(), PATIENCE)?;
        let stats = admin
            .call(pb::StatsRequest::default(), async |admin, request| admin.stats(request).await)?;
        let tier = stats.tiers.iter().find(|found| found.tier == tier.name());
        Ok(tier.map_or((0, Duration::ZERO), |tier| {
            (tier.recovered, Duration::from_micros(tier.recovery_us))
        }))
    }
}

fn row(result: &Result) -> [String; 9] {
    let (gets, what, again, attach) = match result {
        Result::Gets(gets) => (gets, "get", String::new(), String::new()),
        Result::Restart(restart) => (
            &restart.after,
            "get after kill",
            format!("{} of {}", human::count(restart.recovered), human::count(restart.blocks)),
            human::time(Duration::from_secs_f64(restart.attach_ms / 1e3)),
        ),
    };
    [
        gets.tier.to_string(),
        Size::new(gets.size).to_string(),
        what.to_owned(),
        human::count(gets.n),
        format!("{:.2}", gets.gb_per_s),
        format!("{:.1}", gets.p50_us),
        format!("{:.1}", gets.p99_us),
        again,
        attach,
    ]
}
