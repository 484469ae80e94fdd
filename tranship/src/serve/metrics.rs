//! Figures for Prometheus, in the OpenMetrics text format; `docs/metrics.md` lists them.
//!
//! Nothing is counted twice: a scrape reads the figures of their owners. Those of one tenant are of
//! one moment, so the sums among them hold in every scrape.

mod tiers;

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use tranship_cache::server::{RequestStats, ServerStats};
use tranship_cache::stats::TenantStats;
use tranship_cache::tier::Tier;
use tranship_transport::{Rail, Stats};

use super::observe::{Observe, State};

/// Answers scrapes.
pub(super) struct Exporter(Registry);

impl Exporter {
    pub(super) fn new(observe: Observe) -> Self {
        let mut registry = Registry::with_prefix("tranship");
        registry.register_collector(Box::new(Figures(observe)));
        Self(registry)
    }

    /// All figures now.
    pub(super) fn scrape(&self) -> String {
        let mut page = String::new();
        text::encode(&mut page, &self.0).expect("writing to a string does not fail");
        page
    }
}

struct Figures(Observe);

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Figures")
    }
}

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        let observe = &self.0;
        daemon(&mut page, observe)?;
        let tenants = observe.store.stats();
        lookups(&mut page, &tenants)?;
        reservations(&mut page, &tenants)?;
        leases(&mut page, &tenants)?;
        blocks(&mut page, &tenants)?;
        space(&mut page, &tenants)?;
        moves(&mut page, &tenants)?;
        tiers::encode(&mut page, &observe.tiers())?;
        engine(&mut page, &(observe.engine)())?;
        rails(&mut page, &(observe.rails)())?;
        server(&mut page, &(observe.server)())
    }
}

/// A page of figures: one call a metric, with all its samples.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn counter<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        unit: Option<&Unit>,
        help: &str,
        samples: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, unit, MetricType::Counter)?;
        for (labels, value) in samples {
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    fn gauge<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        unit: Option<&Unit>,
        help: &str,
        samples: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (labels, value) in samples {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }
}

const BYTES: Option<&Unit> = Some(&Unit::Bytes);
const SECONDS: Option<&Unit> = Some(&Unit::Seconds);

type Label<'a> = (&'static str, &'a str);
/// Labels of a figure that is the only one of its metric.
const ALONE: [Label<'static>; 0] = [];
/// Where all figures of a tenant's arena are.
const DRAM: Label<'static> = ("tier", Tier::Dram.name());

/// One sample a tenant.
fn each<'a>(
    tenants: &'a [TenantStats],
    value: impl Fn(&TenantStats) -> u64 + 'a,
) -> impl Iterator<Item = ([Label<'a>; 1], u64)> {
    tenants.iter().map(move |tenant| ([("tenant", tenant.tenant.as_str())], value(tenant)))
}

/// Some samples a tenant, told apart by `label`.
fn split<'a, const N: usize>(
    tenants: &'a [TenantStats],
    label: &'static str,
    values: impl Fn(&TenantStats) -> [(&'static str, u64); N] + 'a,
) -> impl Iterator<Item = ([Label<'a>; 2], u64)> {
    tenants.iter().flat_map(move |tenant| {
        let name = ("tenant", tenant.tenant.as_str());
        values(tenant).map(|(kind, value)| ([name, (label, kind)], value))
    })
}

/// The samples, all of the DRAM tier.
fn in_dram<'a, const N: usize>(
    samples: impl Iterator<Item = ([Label<'a>; N], u64)>,
) -> impl Iterator<Item = (([Label<'a>; N], [Label<'a>; 1]), u64)> {
    samples.map(|(labels, value)| ((labels, [DRAM]), value))
}

fn daemon(page: &mut Page<'_>, observe: &Observe) -> fmt::Result {
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    page.gauge("build_info", None, "Version of the daemon", [(version, 1)])?;
    let fabrics = observe.listen.iter();
    let fabrics =
        fabrics.map(|(kind, at)| ([("fabric", kind.name()), ("address", at.as_str())], 1));
    page.gauge("fabric_info", None, "Fabrics that are open", fabrics)?;
    let uptime = observe.since.elapsed().as_secs();
    page.gauge("uptime", SECONDS, "Time since the daemon started", [(ALONE, uptime)])?;
    let state = observe.state();
    let states =
        [("starting", State::Starting), ("serving", State::Serving), ("draining", State::Draining)];
    let states = states.map(|(name, each)| ([("state", name)], u64::from(each == state)));
    page.gauge("state", None, "1 for the state the daemon is in, 0 for the others", states)
}

fn lookups(page: &mut Page<'_>, tenants: &[TenantStats]) -> fmt::Result {
    page.counter("lookups", None, "Keys looked up", each(tenants, |t| t.counters.lookups))?;
    let hits = split(tenants, "tier", |t| {
        std::array::from_fn::<_, { Tier::ALL.len() }, _>(|tier| {
            (Tier::ALL[tier].name(), t.counters.hits[tier])
        })
    });
    page.counter("hits", None, "Keys found in the unbroken prefix of their lookup", hits)?;
    page.counter("misses", None, "Keys that were no hit", each(tenants, |t| t.counters.misses))
}

fn reservations(page: &mut Page<'_>, tenants: &[TenantStats]) -> fmt::Result {
    let asked = split(tenants, "outcome", |t| {
        let c = &t.counters;
        [
            ("granted", c.granted),
            ("existing", c.existing),
            ("in_flight", c.in_flight),
            ("refused", c.refused),
        ]
    });
    page.counter("reservations", None, "Reservations asked for, by answer", asked)?;
    let ended = split(tenants, "outcome", |t| {
        [("committed", t.counters.committed), ("abandoned", t.counters.abandoned)]
    });
    page.counter("reservations_ended", None, "Reservations that ended", ended)?;
    let revoked = each(tenants, |t| t.counters.revoked);
    page.counter("reservations_revoked", None, "Reservations taken back", revoked)?;
    let bytes = each(tenants, |t| t.counters.committed_bytes);
    page.counter("committed", BYTES, "Payload committed", bytes)?;
    let mismatched = each(tenants, |t| t.counters.mismatched);
    page.counter("commit_mismatches", None, "Commits with a wrong checksum", mismatched)
}

fn leases(page: &mut Page<'_>, tenants: &[TenantStats]) -> fmt::Result {
    let leased = split(tenants, "outcome", |t| {
        let c = &t.counters;
        [("ready", c.leased), ("late", c.late), ("gone", c.gone)]
    });
    page.counter("leased_blocks", None, "Blocks asked for by leases, by answer", leased)?;
    let lapsed = each(tenants, |t| t.counters.lapsed);
    page.counter("leases_lapsed", None, "Leases that passed their deadline", lapsed)?;
    page.gauge("leases", None, "Leases not released", each(tenants, |t| t.gauges.leases))
}

fn blocks(page: &mut Page<'_>, tenants: &[TenantStats]) -> fmt::Result {
    let states = |t: &TenantStats| {
        let g = &t.gauges;
        [
            ("filling", g.filling),
            ("revoking", g.revoking),
            ("resident", g.resident),
            ("doomed", g.doomed),
        ]
    };
    let blocks = split(tenants, "state", move |t| states(t).map(|(s, amount)| (s, amount.blocks)));
    page.gauge("blocks", None, "Blocks, by state", in_dram(blocks))?;
    let bytes = split(tenants, "state", move |t| states(t).map(|(s, amount)| (s, amount.bytes)));
    page.gauge("block", BYTES, "Arena space of blocks, by state", in_dram(bytes))?;
    let kept =
        split(tenants, "by", |t| [("any", t.gauges.held.blocks), ("pin", t.gauges.pinned.blocks)]);
    page.gauge("held_blocks", None, "Resident blocks that cannot be evicted", in_dram(kept))?;
    let departed = split(tenants, "reason", |t| {
        let c = &t.counters;
        [
            ("evicted", c.evicted),
            ("removed", c.removed),
            ("expired", c.expired),
            ("corrupt", c.corrupt),
            ("cleared", c.cleared),
        ]
    });
    page.counter("departed_blocks", None, "Blocks that left, by reason", in_dram(departed))?;
    let faults = each(tenants, |t| t.counters.policy_faults);
    page.counter("policy_faults", None, "Held blocks that the policy proposed to evict", faults)?;
    let kept = each(tenants, |t| t.counters.not_admitted);
    let about = "Refused reservations of blocks that are worth less than what is there";
    page.counter("not_admitted_blocks", None, about, kept)?;
    let policies =
        tenants.iter().map(|t| ([("tenant", t.tenant.as_str()), ("policy", t.policy)], 1));
    page.gauge("policy_info", None, "Eviction policy", policies)?;
    page.gauge("identities", None, "Identities registered", each(tenants, |t| t.gauges.scopes))
}

fn space(page: &mut Page<'_>, tenants: &[TenantStats]) -> fmt::Result {
    let capacity = each(tenants, |t| t.gauges.capacity_bytes);
    page.gauge("capacity", BYTES, "Arena size", in_dram(capacity))?;
    let quota = each(tenants, |t| t.gauges.quota_bytes);
    page.gauge("quota", BYTES, "Most space the tenant may use", in_dram(quota))?;
    let used = each(tenants, |t| t.gauges.used_bytes);
    page.gauge("used", BYTES, "Space taken", in_dram(used))?;
    let largest = each(tenants, |t| t.gauges.largest_free_bytes);
    page.gauge("largest_free", BYTES, "Largest block that fits at once", in_dram(largest))?;
    let runs = each(tenants, |t| t.gauges.free_runs);
    page.gauge("free_runs", None, "Free runs of the arena", in_dram(runs))
}

/// What goes between memory and the tiers below.
fn moves(page: &mut Page<'_>, tenants: &[TenantStats]) -> fmt::Result {
    let began = each(tenants, |t| t.counters.promotions);
    page.counter("promotions", None, "Blocks that began to come up to memory", began)?;
    let came = each(tenants, |t| t.counters.promoted);
    page.counter("promoted_blocks", None, "Blocks that came up to memory", came)?;
    let bytes = each(tenants, |t| t.counters.promoted_bytes);
    page.counter("promoted", BYTES, "Payload that came up to memory", bytes)?;
    let demotions = tenants.iter().flat_map(|tenant| {
        let name = ("tenant", tenant.tenant.as_str());
        let c = &tenant.counters;
        let below = Tier::ALL.into_iter().filter(|tier| *tier != Tier::Dram);
        below.flat_map(move |tier| {
            let at = tier as usize;
            [("taken", c.demoted[at]), ("not_taken", c.undemoted[at])].map(|(outcome, value)| {
                ([name, ("tier", tier.name()), ("outcome", outcome)], value)
            })
        })
    });
    page.counter("demotions", None, "Blocks offered to a tier below, by answer", demotions)?;
    let moving = each(tenants, |t| t.gauges.moving.blocks);
    page.gauge("moving_blocks", None, "Blocks in memory on their way below", in_dram(moving))?;
    let moving = each(tenants, |t| t.gauges.moving.bytes);
    page.gauge("moving", BYTES, "Arena space of blocks on their way below", in_dram(moving))
}

fn engine(page: &mut Page<'_>, s: &Stats) -> fmt::Result {
    let submitted = [(ALONE, s.submitted)];
    page.counter("transfers_submitted", None, "Transfers taken on", submitted)?;
    let ended = [
        ([("outcome", "done")], s.done),
        ([("outcome", "rejected")], s.rejected),
        ([("outcome", "fenced")], s.fenced),
        ([("outcome", "lost")], s.lost),
    ];
    page.counter("transfers_ended", None, "Transfers that ended", ended)?;
    let recovered = [(ALONE, s.recovered)];
    page.counter("transfers_recovered", None, "Lost transfers proven ended since", recovered)?;
    let parked = [(ALONE, s.parked)];
    page.counter("transfers_parked", None, "Transfers that waited for a way", parked)?;
    let bytes =
        [([("direction", "write")], s.written_bytes), ([("direction", "read")], s.read_bytes)];
    page.counter("transferred", BYTES, "Payload of transfers that were done", bytes)?;
    let messages = [
        ([("direction", "sent")], s.messages_sent),
        ([("direction", "received")], s.messages_received),
    ];
    page.counter("messages", None, "Messages between engines", messages)?;
    let immediates =
        [([("outcome", "counted")], s.immediates), ([("outcome", "stray")], s.stray_immediates)];
    page.counter("immediates", None, "Immediates received", immediates)?;
    let up = [(ALONE, s.connections)];
    page.counter("connections_opened", None, "Connections of engines that came up", up)?;
    let down = [(ALONE, s.disconnections)];
    page.counter("connections_closed", None, "Connections of engines that went down", down)?;
    let fenced = [(ALONE, s.windows_fenced)];
    page.counter("windows_fenced", None, "Windows fenced", fenced)?;
    let fallbacks = [(ALONE, s.fallbacks)];
    page.counter("fallbacks", None, "Peers to whom a slower way was taken", fallbacks)
}

fn rails(page: &mut Page<'_>, rails: &[Rail]) -> fmt::Result {
    let rails = rails.iter().map(|rail| {
        let labels = [("fabric", rail.fabric.name()), ("rail", rail.name.as_str())];
        (labels, u64::from(rail.down.is_none()))
    });
    page.gauge("rail_up", None, "1 for a rail that is up, 0 for one that is down", rails)
}

fn server(page: &mut Page<'_>, stats: &ServerStats) -> fmt::Result {
    page.gauge("sessions", None, "Clients connected", [(ALONE, stats.sessions)])?;
    let total = [(ALONE, stats.sessions_total)];
    page.counter("sessions_opened", None, "Clients that connected", total)?;
    let requests = stats.requests.iter().flat_map(|request| {
        let ok = request.count.saturating_sub(request.errors);
        [("ok", ok), ("error", request.errors)]
            .map(|(outcome, count)| ([("request", request.name), ("outcome", outcome)], count))
    });
    page.counter("requests", None, "Requests answered, by kind", requests)?;
    let help = "Time from a request to its answer";
    let kind = MetricType::Histogram;
    let mut durations = page.0.encode_descriptor("request_duration", help, SECONDS, kind)?;
    for request in &stats.requests {
        let buckets = slices(request);
        durations.encode_family(&[("request", request.name)])?.encode_histogram::<NoLabelSet>(
            request.seconds_sum,
            request.count,
            &buckets,
            None,
        )?;
    }
    Ok(())
}

/// The buckets one by one, not summed up, with the open one that must come last.
fn slices(request: &RequestStats) -> Vec<(f64, u64)> {
    let open = (f64::INFINITY, request.count);
    let mut below = 0;
    let finite = request.buckets.iter().copied().filter(|(bound, _)| bound.is_finite());
    finite
        .chain([open])
        .map(|(bound, count)| {
            let slice = count.saturating_sub(below);
            below = below.max(count);
            (bound, slice)
        })
        .collect()
}
