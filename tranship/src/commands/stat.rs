//! `tranship stat [KEY]`

use std::time::Duration;

use serde_json::{Map, Value, json};
use tranship_cache::Identity;
use tranship_cache::tier::Tiers;

use super::{AdminTarget, Context, Error, Namespace, ls, target, tiers};
use crate::exit::Exit;
use crate::output::Table;
use crate::serve::admin::pb;
use crate::units::human;

/// Arguments of `stat`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Block to describe [default: the daemon itself]
    pub key: Option<String>,
    /// Whose block
    #[arg(long, value_name = "NAME", default_value = Identity::TENANT_DEFAULT)]
    pub tenant: String,
    /// Whose block.
    #[command(flatten)]
    pub namespace: Namespace,
    /// Which daemon.
    #[command(flatten)]
    pub target: AdminTarget,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Error> {
        match &self.key {
            Some(name) => self.block(context, name),
            None => self.daemon(context),
        }
    }

    fn block(&self, context: &Context, name: &str) -> Result<Exit, Error> {
        let identity = self.namespace.identity(&self.tenant);
        let key = target::link(&identity, name).key;
        let request = pb::ListRequest {
            tenant: self.tenant.clone(),
            key_prefix: key.to_string(),
            tiers: ls::names(Tiers::ALL),
            ..Default::default()
        };
        let blocks = match self.target.client(context, &self.tenant)? {
            Some(client) => {
                let found = client.list_in(Tiers::ALL, &key.to_string(), SAME_KEY_MAX)?;
                found.iter().map(ls::block).collect()
            }
            None => {
                let mut client = self.target.connect(context)?;
                client.call(request, async |admin, request| admin.list(request).await)?.blocks
            }
        };
        let (id, by_digits) = (identity.id().to_string(), name.parse::<tranship_cache::Key>());
        // A key given by its digits may be of any identity.
        let mine = |block: &&pb::Block| by_digits.is_ok() || block.identity == id;
        // They come tier by tier, the fastest first.
        let Some(block) = blocks.iter().find(mine) else {
            return Err(Error::NoBlock { name: name.to_owned(), key });
        };
        let copies = blocks.iter().filter(|copy| copy.identity == block.identity);
        let mut object = ls::object(block);
        object["tiers"] = copies.map(|copy| copy.tier.as_str()).collect();
        if context.output.is_json() {
            context.output.object("block", &object)?;
        } else {
            context.output.table(&pairs(&object))?;
        }
        Ok(Exit::Done)
    }

    fn daemon(&self, context: &Context) -> Result<Exit, Error> {
        if let Some(client) = self.target.client(context, &self.tenant)? {
            return tenant(context, &client.stats()?);
        }
        let mut client = self.target.connect(context)?;
        let stats = client
            .call(pb::StatsRequest::default(), async |admin, request| admin.stats(request).await)?;
        if context.output.is_json() {
            context.output.object("stat", &object(&stats))?;
            return Ok(Exit::Done);
        }
        let sessions = stats.server.as_ref().map_or(0, |server| server.sessions);
        context.output.line(format_args!(
            "tranship {} · {} · up {} · {} clients",
            stats.version,
            state(&stats),
            human::time(Duration::from_millis(stats.uptime_ms)),
            human::count(sessions),
        ))?;
        let listen: Vec<_> = stats.listen.iter().map(|at| at.replacen("://", " ", 1)).collect();
        if !listen.is_empty() {
            context.output.line(format_args!("listening  {}", listen.join(", ")))?;
        }
        let mut table = Table::new([
            "tenant", "blocks", "used", "capacity", "lookups", "hits", "evicted", "refused",
        ]);
        for column in 1..8 {
            table = table.right(column);
        }
        for tenant in &stats.tenants {
            let (c, g) =
                (tenant.counters.clone().unwrap_or_default(), tenant.gauges.unwrap_or_default());
            let hits = c.hits.iter().map(|tier| tier.hits).sum();
            table.row([
                tenant.tenant.clone(),
                human::count(g.resident.unwrap_or_default().blocks),
                human::size(g.used_bytes),
                human::size(g.capacity_bytes),
                human::count(c.lookups),
                human::percent(hits, c.lookups),
                human::count(c.evicted),
                human::count(c.refused),
            ]);
        }
        context.output.table(&table)?;
        if !stats.tiers.is_empty() {
            context.output.line("")?;
            context.output.table(&tiers::table(&stats))?;
        }
        for warning in tiers::warnings(&stats.tiers) {
            context.output.line(warning)?;
        }
        Ok(Exit::Done)
    }
}

/// Entries of one key that are looked at, under different identities and in different tiers.
const SAME_KEY_MAX: usize = 1024;

/// What a client learns of its tenant.
fn tenant(context: &Context, json: &str) -> Result<Exit, Error> {
    let wrong = |error| Error::Sum(format!("the daemon's figures are no JSON: {error}"));
    let stats: Value = serde_json::from_str(json).map_err(wrong)?;
    if context.output.is_json() {
        context.output.object("tenant-stat", &stats)?;
        return Ok(Exit::Done);
    }
    let mut table = Table::pairs();
    table.row(["tenant", stats["tenant"].as_str().unwrap_or_default()]);
    for section in ["counters", "gauges"] {
        for (name, value) in stats[section].as_object().into_iter().flatten() {
            table.row([name.replace('_', " "), plain(value)]);
        }
    }
    context.output.table(&table)?;
    Ok(Exit::Done)
}

/// A figure for people: a number, those of each tier, or blocks and the space they take.
fn plain(value: &Value) -> String {
    match value {
        Value::Array(each) => each.iter().map(plain).collect::<Vec<_>>().join(" · "),
        Value::Object(amount) => {
            let number = |name: &str| amount.get(name).and_then(Value::as_u64).unwrap_or_default();
            let (blocks, bytes) = (human::count(number("blocks")), human::size(number("bytes")));
            format!("{blocks} blocks, {bytes}")
        }
        Value::Number(n) => n.as_u64().map_or_else(|| n.to_string(), human::count),
        other => other.to_string(),
    }
}

fn pairs(object: &Value) -> Table {
    let mut table = Table::pairs();
    for (name, value) in object.as_object().into_iter().flatten() {
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text.clone(),
            Value::Array(each) => {
                each.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
            }
            other => other.to_string(),
        };
        table.row([name.clone(), text]);
    }
    table
}

fn state(stats: &pb::StatsResponse) -> &'static str {
    match stats.state() {
        pb::State::Serving => "serving",
        pb::State::Draining => "draining",
        pb::State::Starting | pb::State::Unspecified => "starting",
    }
}

fn object(stats: &pb::StatsResponse) -> Value {
    let tenant = |tenant: &pb::TenantStats| {
        let c = tenant.counters.clone().unwrap_or_default();
        let g = tenant.gauges.unwrap_or_default();
        let hits: Map<String, Value> =
            c.hits.iter().map(|tier| (tier.tier.clone(), tier.hits.into())).collect();
        json!({
            "tenant": tenant.tenant,
            "policy": tenant.policy,
            "lookups": c.lookups,
            "hits": hits,
            "misses": c.misses,
            "committed": c.committed,
            "committed_bytes": c.committed_bytes,
            "refused": c.refused,
            "evicted": c.evicted,
            "corrupt": c.corrupt,
            "capacity_bytes": g.capacity_bytes,
            "used_bytes": g.used_bytes,
            "resident_blocks": g.resident.unwrap_or_default().blocks,
            "leases": g.leases,
            "promoted": c.promoted,
            "promoted_bytes": c.promoted_bytes,
            "moving_blocks": g.moving.unwrap_or_default().blocks,
        })
    };
    json!({
        "version": stats.version,
        "state": state(stats),
        "uptime_ms": stats.uptime_ms,
        "listen": stats.listen,
        "clients": stats.server.as_ref().map_or(0, |server| server.sessions),
        "tenants": stats.tenants.iter().map(tenant).collect::<Vec<_>>(),
        "tiers": stats.tiers.iter().map(tiers::object).collect::<Vec<_>>(),
    })
}
