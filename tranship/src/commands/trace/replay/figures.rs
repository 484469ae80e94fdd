//! The sums of a replay, and what is printed of them.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tranship_cache::tier::Tier;

use crate::output::Table;
use crate::units::human;

/// What became of the blocks of one request, or of all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Full blocks that were looked up.
    pub(crate) lookups: u64,
    /// Loaded into the engine's own memory and verified, by tier.
    pub(crate) hits: [u64; Tier::ALL.len()],
    /// Not used, by reason.
    pub(crate) misses: Misses,
    /// Hits that another engine was still storing when they were looked up.
    pub(crate) waited: u64,
    /// What became of the blocks that missed.
    pub(crate) stores: Stores,
    /// Payload bytes of the hits.
    pub(crate) loaded_bytes: u64,
    /// Payload bytes of the blocks stored.
    pub(crate) stored_bytes: u64,
}

/// What one request came to, as an engine tells it. Times are nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Played {
    /// Number of the request in the trace.
    pub(crate) index: u64,
    /// What became of its blocks.
    #[serde(flatten)]
    pub(crate) counts: Counts,
    /// Time of the lookup, if the daemon answered.
    pub(crate) lookup_ns: Option<u64>,
    /// Time from asking for a lease until the hits were in the engine's memory.
    pub(crate) load_ns: Option<u64>,
    /// Time to reserve, copy and commit.
    pub(crate) store_ns: Option<u64>,
}

/// Why blocks were not used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Misses {
    /// Not in the cache.
    pub(crate) absent: u64,
    /// Evicted between lookup and load, or behind such a block.
    pub(crate) gone: u64,
    /// Still being stored when the wait ended, or behind such a block.
    pub(crate) late: u64,
    /// Failed their checksum, or behind such a block: bytes that were never used.
    pub(crate) caught: u64,
    /// The daemon was not there.
    pub(crate) unavailable: u64,
    /// Passed their checksum with bytes that are not the block's. Must never happen.
    pub(crate) corrupt: u64,
}

/// What became of blocks that missed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stores {
    /// Stored.
    pub(crate) stored: u64,
    /// There by now.
    pub(crate) existing: u64,
    /// Being stored by another engine.
    pub(crate) in_flight: u64,
    /// Refused for want of room, or behind such a block.
    pub(crate) refused: u64,
    /// The daemon found other bytes than those of the checksum.
    pub(crate) mismatched: u64,
    /// The daemon was not there.
    pub(crate) unavailable: u64,
}

impl Counts {
    fn add(&mut self, more: &Self) {
        self.lookups += more.lookups;
        for (sum, hits) in self.hits.iter_mut().zip(more.hits) {
            *sum += hits;
        }
        self.misses.add(&more.misses);
        self.waited += more.waited;
        self.stores.add(&more.stores);
        self.loaded_bytes += more.loaded_bytes;
        self.stored_bytes += more.stored_bytes;
    }
}

impl Misses {
    fn add(&mut self, more: &Self) {
        self.absent += more.absent;
        self.gone += more.gone;
        self.late += more.late;
        self.caught += more.caught;
        self.unavailable += more.unavailable;
        self.corrupt += more.corrupt;
    }

    pub(crate) const fn sum(&self) -> u64 {
        self.absent + self.gone + self.late + self.caught + self.unavailable + self.corrupt
    }
}

impl Stores {
    fn add(&mut self, more: &Self) {
        self.stored += more.stored;
        self.existing += more.existing;
        self.in_flight += more.in_flight;
        self.refused += more.refused;
        self.mismatched += more.mismatched;
        self.unavailable += more.unavailable;
    }

    pub(crate) const fn sum(&self) -> u64 {
        self.stored
            + self.existing
            + self.in_flight
            + self.refused
            + self.mismatched
            + self.unavailable
    }
}

/// Memory of the processes, bytes, as `/proc/PID/status` tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Memory {
    /// The daemon's own, without the arena; `None` for a daemon that somebody else started.
    pub(crate) daemon_bytes: Option<u64>,
    /// The daemon's arena, as far as it is in memory.
    pub(crate) arena_bytes: Option<u64>,
    /// All engines' own, without the arena.
    pub(crate) engines_bytes: u64,
}

/// Sums over all engines.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) requests: u64,
    pub(crate) counts: Counts,
    pub(crate) engine_deaths: u64,
    pub(crate) memory: Memory,
    lookup: Latency,
    load: Latency,
    store: Latency,
}

impl Default for Figures {
    fn default() -> Self {
        let latency = Latency::new;
        Self {
            requests: 0,
            counts: Counts::default(),
            engine_deaths: 0,
            memory: Memory::default(),
            lookup: latency(),
            load: latency(),
            store: latency(),
        }
    }
}

impl Figures {
    pub(crate) fn add(&mut self, played: &Played) {
        self.requests += 1;
        self.counts.add(&played.counts);
        self.lookup.add(played.lookup_ns);
        self.load.add(played.load_ns);
        self.store.add(played.store_ns);
    }

    /// Checks the sums that must come out.
    ///
    /// # Errors
    /// Names the sum that is off, with its figures.
    pub(crate) fn check(&self) -> Result<(), String> {
        let hits: u64 = self.counts.hits.iter().sum();
        let misses = self.counts.misses.sum();
        let sums = [
            ("hits + misses == lookups", hits + misses, self.counts.lookups),
            ("stored + not stored == misses", self.counts.stores.sum(), misses),
        ];
        for (sum, left, right) in sums {
            if left != right {
                return Err(format!("{sum} is off: {left} != {right}"));
            }
        }
        Ok(())
    }

    /// For programs, as `tranship.replay/1` without what the caller knows itself.
    pub(crate) fn object(&self) -> Map<String, Value> {
        let tiers = Tier::ALL.iter().zip(self.counts.hits);
        let hits: Map<String, Value> =
            tiers.map(|(tier, hits)| (tier.to_string(), hits.into())).collect();
        let object = json!({
            "requests": self.requests,
            "lookups": self.counts.lookups,
            "hits": hits,
            "misses": self.counts.misses.sum(),
            "misses_by_reason": self.counts.misses,
            "waited": self.counts.waited,
            "stores": self.counts.stores,
            // Payload bytes, and the time that engines spent moving them, all engines together.
            "loaded_bytes": self.counts.loaded_bytes,
            "load_seconds": self.load.sum.as_secs_f64(),
            "loaded_gb_per_s": gb_per_s(self.counts.loaded_bytes, self.load.sum),
            "stored_bytes": self.counts.stored_bytes,
            "store_seconds": self.store.sum.as_secs_f64(),
            "stored_gb_per_s": gb_per_s(self.counts.stored_bytes, self.store.sum),
            "lookup_us": self.lookup.object(),
            "load_us": self.load.object(),
            "store_us": self.store.object(),
            "memory": self.memory,
            "engine_deaths": self.engine_deaths,
            "corrupt": self.counts.misses.corrupt,
        });
        match object {
            Value::Object(object) => object,
            _ => Map::new(),
        }
    }

    /// For people.
    pub(crate) fn table(&self, elapsed: Duration) -> Table {
        let count = human::count;
        let mut table = Table::pairs();
        let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
        row("requests", format!("{} in {}", count(self.requests), human::time(elapsed)));
        let tiers = Tier::ALL
            .iter()
            .zip(self.counts.hits)
            .filter(|(tier, n)| *n > 0 || **tier == Tier::Dram);
        let hits: Vec<String> = tiers.map(|(tier, n)| format!("{tier} {}", count(n))).collect();
        row(
            "lookups",
            format!(
                "{} blocks   hit {} ({})   miss {}   (sum checked)",
                count(self.counts.lookups),
                hits.join(" · "),
                human::percent(self.counts.hits.iter().sum(), self.counts.lookups),
                count(self.counts.misses.sum()),
            ),
        );
        row(
            "moved",
            format!(
                "loaded {} at {}   stored {} at {}   (payload, each engine)",
                human::size(self.counts.loaded_bytes),
                human::rate(self.counts.loaded_bytes, self.load.sum),
                human::size(self.counts.stored_bytes),
                human::rate(self.counts.stored_bytes, self.store.sum),
            ),
        );
        row(
            "latency",
            format!(
                "lookup {}   load {}   store {}   (p50 / p99 / p99.9 of a request)",
                self.lookup, self.load, self.store
            ),
        );
        row("memory", self.memory.text());
        if let Some(text) = self.asides() {
            row("aside", text);
        }
        table
    }

    /// What is not as usual.
    fn asides(&self) -> Option<String> {
        let (m, s) = (&self.counts.misses, &self.counts.stores);
        let asides = [
            (self.counts.waited, "hits waited for another engine"),
            (s.in_flight + s.existing, "stored by another engine meanwhile"),
            (s.refused, "stores refused for want of room"),
            (m.gone + m.late, "misses between lookup and load"),
            (m.caught + s.mismatched, "failed their checksum and were dropped"),
            (m.unavailable, "misses without a daemon"),
            (self.engine_deaths, "engine deaths"),
        ];
        let asides = asides.iter().filter(|(n, _)| *n > 0);
        let asides: Vec<_> =
            asides.map(|(n, what)| format!("{} {what}", human::count(*n))).collect();
        (!asides.is_empty()).then(|| asides.join(" · "))
    }
}

impl Memory {
    fn text(&self) -> String {
        let engines = human::size(self.engines_bytes);
        match (self.daemon_bytes, self.arena_bytes) {
            (Some(daemon), Some(arena)) => format!(
                "daemon {} and an arena of {} · engines {engines}",
                human::size(daemon),
                human::size(arena)
            ),
            _ => format!("engines {engines}"),
        }
    }
}

/// Payload rate in 10⁹ bytes a second, as far as time passed.
fn gb_per_s(bytes: u64, time: Duration) -> Option<f64> {
    (!time.is_zero()).then(|| bytes as f64 / 1e9 / time.as_secs_f64())
}

/// How long one kind of thing took.
#[derive(Debug)]
struct Latency {
    nanos: Histogram<u64>,
    sum: Duration,
}

impl Latency {
    const NANOS_MAX: u64 = 3_600_000_000_000;
    const DIGITS: u8 = 3;
    const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)];

    fn new() -> Self {
        let nanos = Histogram::new_with_bounds(1, Self::NANOS_MAX, Self::DIGITS);
        Self { nanos: nanos.expect("the bounds are constants"), sum: Duration::ZERO }
    }

    fn add(&mut self, nanos: Option<u64>) {
        if let Some(nanos) = nanos {
            self.nanos.saturating_record(nanos);
            self.sum += Duration::from_nanos(nanos);
        }
    }

    fn quantiles(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Self::QUANTILES.iter().map(|(name, q)| (*name, self.nanos.value_at_quantile(*q)))
    }

    fn object(&self) -> Value {
        let quantiles = self
            .quantiles()
            .map(|(name, nanos)| (name.to_owned(), Value::from(nanos as f64 / 1e3)));
        let count = ("n".to_owned(), Value::from(self.nanos.len()));
        Value::Object(quantiles.chain([count]).collect())
    }
}

impl std::fmt::Display for Latency {
    /// `6.1 / 14 / 31 µs`, all in the unit that fits the first.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nanos.is_empty() {
            return f.write_str("-");
        }
        let first = self.nanos.value_at_quantile(0.5);
        let (unit, scale) = if first < 100_000 { ("µs", 1e3) } else { ("ms", 1e6) };
        let texts: Vec<String> = self
            .quantiles()
            .map(|(_, nanos)| match nanos as f64 / scale {
                value if value < 10.0 => format!("{value:.2}"),
                value if value < 100.0 => format!("{value:.1}"),
                value => format!("{value:.0}"),
            })
            .collect();
        write!(f, "{} {unit}", texts.join(" / "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn played() -> Played {
        let mut counts = Counts {
            lookups: 5,
            misses: Misses { absent: 2, gone: 1, ..Misses::default() },
            stores: Stores { stored: 2, refused: 1, ..Stores::default() },
            ..Counts::default()
        };
        counts.hits[Tier::Dram as usize] = 2;
        Played { counts, lookup_ns: Some(6_000), ..Played::default() }
    }

    #[test]
    fn sums_are_checked() {
        let mut figures = Figures::default();
        figures.add(&played());
        figures.add(&played());
        assert_eq!(figures.check(), Ok(()));
        let mut more = played();
        more.counts.lookups += 1;
        figures.add(&more);
        assert_eq!(figures.check().unwrap_err(), "hits + misses == lookups is off: 15 != 16");
    }

    #[test]
    fn latencies_share_a_unit() {
        let mut latency = Latency::new();
        assert_eq!(latency.to_string(), "-");
        latency.add(Some(6_100));
        assert!(latency.to_string().ends_with(" µs"), "{latency}");
        let mut figures = Figures::default();
        figures.add(&played());
        assert!(figures.table(Duration::from_secs(2)).plain().contains("miss 3   (sum checked)"));
        assert_eq!(figures.object()["misses"], 3);
    }
}
