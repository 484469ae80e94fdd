//! Tiers below memory, as commands show them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::output::{Cell, Table, style};
use crate::serve::admin::pb;
use crate::units::human;

/// A tier's state: for programs, and for people.
fn state(tier: &pb::Tier) -> (&'static str, &'static str) {
    match tier.state() {
        pb::TierState::Ready => ("ready", "ready"),
        pb::TierState::Degraded => ("degraded", "degraded"),
        pb::TierState::ReadOnly => ("read_only", "read only"),
        pb::TierState::Off => ("off", "off"),
        pb::TierState::Unspecified => ("unknown", "unknown"),
    }
}

pub(super) fn is_ready(tier: &pb::Tier) -> bool {
    tier.state() == pb::TierState::Ready
}

/// State and reason, for people.
pub(super) fn told(tier: &pb::Tier) -> String {
    match (state(tier).1, tier.reason.as_str()) {
        (state, "") => state.to_owned(),
        (state, reason) => format!("{state}: {reason}"),
    }
}

/// What is to be said of the tiers that are not ready.
pub(super) fn warnings(tiers: &[pb::Tier]) -> impl Iterator<Item = String> {
    let (warning, not_ready) = (style::WARNING, tiers.iter().filter(|tier| !is_ready(tier)));
    not_ready
        .map(move |tier| format!("{warning}warning:{warning:#} {} is {}", tier.tier, told(tier)))
}

/// Bytes written to the device for each byte of payload stored.
fn write_amplification(tier: &pb::Tier) -> Option<f64> {
    let stored = Some(tier.stored_bytes).filter(|bytes| *bytes > 0)?;
    Some(tier.device_written_bytes as f64 / stored as f64)
}

/// One row a tier, memory included. `hits` and `lookups` are those of all tenants.
pub(super) fn table(stats: &pb::StatsResponse) -> Table {
    let mut table = Table::new([
        "tier",
        "state",
        "blocks",
        "bytes",
        "of",
        "hits",
        "stored",
        "loaded",
        "write amp.",
    ]);
    for column in 2..9 {
        table = table.right(column);
    }
    let (mut hits, mut lookups) = (BTreeMap::new(), 0);
    let (mut blocks, mut used, mut capacity, mut committed) = (0, 0, 0, 0);
    for tenant in &stats.tenants {
        let c = tenant.counters.clone().unwrap_or_default();
        let g = tenant.gauges.unwrap_or_default();
        lookups += c.lookups;
        for tier in &c.hits {
            *hits.entry(tier.tier.clone()).or_insert(0) += tier.hits;
        }
        blocks += g.resident.unwrap_or_default().blocks;
        (used, capacity) = (used + g.used_bytes, capacity + g.capacity_bytes);
        committed += c.committed_bytes;
    }
    let hits = |tier: &str| human::percent(hits.get(tier).copied().unwrap_or(0), lookups);
    table.row([
        Cell::from("dram"),
        Cell::styled("ready", style::GOOD),
        human::count(blocks).into(),
        human::size(used).into(),
        human::size(capacity).into(),
        hits("dram").into(),
        human::size(committed).into(),
        "".into(),
        "".into(),
    ]);
    for tier in &stats.tiers {
        let look = if is_ready(tier) { style::GOOD } else { style::WARNING };
        let amplification = write_amplification(tier).map(|times| format!("{times:.2}"));
        table.row([
            Cell::from(tier.tier.as_str()),
            Cell::styled(state(tier).1, look),
            human::count(tier.blocks).into(),
            human::size(tier.bytes).into(),
            human::size(tier.capacity_bytes).into(),
            hits(&tier.tier).into(),
            human::size(tier.stored_bytes).into(),
            human::size(tier.loaded_bytes).into(),
            amplification.unwrap_or_default().into(),
        ]);
    }
    table
}

/// A tier for programs.
pub(super) fn object(tier: &pb::Tier) -> Value {
    json!({
        "tier": tier.tier,
        "state": state(tier).0,
        "reason": Some(&tier.reason).filter(|reason| !reason.is_empty()),
        "blocks": tier.blocks,
        "bytes": tier.bytes,
        "capacity_bytes": tier.capacity_bytes,
        "index_bytes": tier.index_bytes,
        "stored": tier.stored,
        "stored_bytes": tier.stored_bytes,
        "loaded": tier.loaded,
        "loaded_bytes": tier.loaded_bytes,
        "failed": tier.failed,
        "corrupt": tier.corrupt,
        "evicted": tier.evicted,
        "reinserted": tier.reinserted,
        "device_written_bytes": tier.device_written_bytes,
        "device_read_bytes": tier.device_read_bytes,
        "recovered": tier.recovered,
        "recovery_us": tier.recovery_us,
        "write_amplification": write_amplification(tier),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats() -> pb::StatsResponse {
        let counters = pb::Counters {
            lookups: 200,
            hits: vec![
                pb::TierHits { tier: "dram".into(), hits: 100 },
                pb::TierHits { tier: "nvme".into(), hits: 50 },
            ],
            ..Default::default()
        };
        let nvme = pb::Tier {
            tier: "nvme".into(),
            state: pb::TierState::ReadOnly.into(),
            reason: "device full".into(),
            blocks: 1234,
            bytes: 3 << 20,
            capacity_bytes: 1 << 30,
            stored_bytes: 2 << 20,
            device_written_bytes: 5 << 19,
            ..Default::default()
        };
        let object =
            pb::Tier { tier: "object".into(), state: pb::TierState::Ready.into(), ..nvme.clone() };
        let object = pb::Tier { reason: String::new(), stored_bytes: 0, ..object };
        let tenants = vec![pb::TenantStats { counters: Some(counters), ..Default::default() }];
        pb::StatsResponse { tenants, tiers: vec![nvme, object], ..Default::default() }
    }

    #[test]
    fn a_tier_is_a_row() {
        let table = table(&stats()).plain();
        let rows: Vec<Vec<&str>> = table
            .lines()
            .map(|row| row.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect())
            .collect();
        assert_eq!(rows[0][5], "hits");
        assert_eq!((rows[1][0], rows[1][5]), ("dram", "50.0 %"));
        let nvme = [
            "nvme",
            "read only",
            "1,234",
            "3.0 MiB",
            "1.0 GiB",
            "25.0 %",
            "2.0 MiB",
            "0 B",
            "1.25",
        ];
        assert_eq!(rows[2], nvme);
        assert_eq!((rows[3][0], rows[3][5]), ("object", "0.0 %"));
        assert_eq!(rows[3].len(), 8, "nothing was stored, so nothing is amplified");
    }

    #[test]
    fn what_is_not_ready_is_loud() {
        let warnings: Vec<_> = warnings(&stats().tiers)
            .map(|line| anstream::adapter::strip_str(&line).to_string())
            .collect();
        assert_eq!(warnings, ["warning: nvme is read only: device full"]);
        let [nvme, object] = [0, 1].map(|at| object(&stats().tiers[at]));
        assert_eq!((&nvme["state"], &nvme["reason"]), (&"read_only".into(), &"device full".into()));
        assert_eq!(nvme["write_amplification"], 1.25);
        assert_eq!((&object["state"], &object["reason"]), (&"ready".into(), &Value::Null));
        assert_eq!(object["write_amplification"], Value::Null);
    }
}
