//! Figures, in the words of the service.

use tonic::Status;
use tranship_cache::server::{RequestStats, ServerStats, SessionInfo};
use tranship_cache::stats::{Amount, Counters, Gauges, TenantStats};
use tranship_cache::tier::Tier;
use tranship_cache::{Millis, Scope};
use tranship_transport::Stats;

use super::pb;
use crate::serve::observe::{Below, Observe, State, TierState};

pub(super) fn version() -> pb::VersionResponse {
    pb::VersionResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        pid: std::process::id(),
    }
}

pub(super) fn stats(
    observe: &Observe,
    request: &pb::StatsRequest,
) -> Result<pb::StatsResponse, Status> {
    let tenants = match request.tenant.as_str() {
        "" => observe.store.stats(),
        name => vec![super::tenant(&observe.store, name)?.stats()],
    };
    let state = match observe.state() {
        State::Starting => pb::State::Starting,
        State::Serving => pb::State::Serving,
        State::Draining => pb::State::Draining,
    };
    Ok(pb::StatsResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_ms: u64::try_from(observe.since.elapsed().as_millis()).unwrap_or(u64::MAX),
        state: state.into(),
        tenants: tenants.into_iter().map(Into::into).collect(),
        engine: Some((observe.engine)().into()),
        server: Some((observe.server)().into()),
        tiers: observe.tiers().into_iter().map(Into::into).collect(),
        listen: observe.listen.iter().map(|(_, address)| address.clone()).collect(),
    })
}

pub(super) fn identities(
    observe: &Observe,
    request: &pb::IdentitiesRequest,
) -> Result<pb::IdentitiesResponse, Status> {
    let scopes = super::tenant(&observe.store, &request.tenant)?.scopes();
    Ok(pb::IdentitiesResponse { identities: scopes.iter().map(Into::into).collect() })
}

pub(super) fn sessions(observe: &Observe) -> pb::SessionsResponse {
    let now = (observe.clock)();
    let session = |session: SessionInfo| pb::Session {
        id: session.id,
        name: session.name,
        tenant: session.tenant,
        connected_ms: Millis::from(now.since(session.since)).0,
        leases: session.leases as u64,
        reservations: session.reservations as u64,
    };
    pb::SessionsResponse { sessions: (observe.sessions)().into_iter().map(session).collect() }
}

impl From<&Scope> for pb::Identity {
    fn from(scope: &Scope) -> Self {
        let identity = scope.identity();
        let geometry = &identity.geometry;
        Self {
            id: scope.id().to_string(),
            model: identity.model.clone(),
            revision: identity.revision.clone(),
            dtype: identity.dtype.clone(),
            layout: identity.layout.clone(),
            salted: !identity.salt.is_empty(),
            block_tokens: identity.block_tokens,
            layers: geometry.layers,
            kv_heads: geometry.kv_heads,
            head_dim: geometry.head_dim,
            tp_size: geometry.tp_size,
            tp_rank: geometry.tp_rank,
            pp_size: geometry.pp_size,
            pp_rank: geometry.pp_rank,
        }
    }
}

impl From<TenantStats> for pb::TenantStats {
    fn from(stats: TenantStats) -> Self {
        Self {
            tenant: stats.tenant,
            policy: stats.policy.to_owned(),
            counters: Some(stats.counters.into()),
            gauges: Some(stats.gauges.into()),
        }
    }
}

impl From<Below> for pb::Tier {
    fn from(below: Below) -> Self {
        let state = match below.state {
            TierState::Ready => pb::TierState::Ready,
            TierState::Degraded => pb::TierState::Degraded,
            TierState::ReadOnly => pb::TierState::ReadOnly,
            TierState::Off => pb::TierState::Off,
        };
        let f = below.figures;
        Self {
            tier: below.tier.to_string(),
            state: state.into(),
            reason: below.reason,
            blocks: f.blocks,
            bytes: f.bytes,
            capacity_bytes: f.capacity_bytes,
            index_bytes: f.index_bytes,
            stored: f.stored,
            stored_bytes: f.stored_bytes,
            loaded: f.loaded,
            loaded_bytes: f.loaded_bytes,
            failed: f.failed,
            corrupt: f.corrupt,
            evicted: f.evicted,
            reinserted: f.reinserted,
            device_written_bytes: f.device_written_bytes,
            device_read_bytes: f.device_read_bytes,
            recovered: f.recovered,
            recovery_us: f.recovery_us,
        }
    }
}

impl From<Counters> for pb::Counters {
    fn from(c: Counters) -> Self {
        let hits = Tier::ALL.iter().zip(c.hits);
        let below = Tier::ALL.into_iter().filter(|tier| *tier != Tier::Dram);
        let demotions = below.map(|tier| pb::TierDemotions {
            tier: tier.to_string(),
            taken: c.demoted[tier as usize],
            not_taken: c.undemoted[tier as usize],
        });
        Self {
            lookups: c.lookups,
            hits: hits.map(|(tier, hits)| pb::TierHits { tier: tier.to_string(), hits }).collect(),
            misses: c.misses,
            granted: c.granted,
            existing: c.existing,
            in_flight: c.in_flight,
            refused: c.refused,
            committed: c.committed,
            committed_bytes: c.committed_bytes,
            mismatched: c.mismatched,
            abandoned: c.abandoned,
            revoked: c.revoked,
            leased: c.leased,
            late: c.late,
            gone: c.gone,
            lapsed: c.lapsed,
            evicted: c.evicted,
            removed: c.removed,
            expired: c.expired,
            corrupt: c.corrupt,
            cleared: c.cleared,
            policy_faults: c.policy_faults,
            not_admitted: c.not_admitted,
            promotions: c.promotions,
            promoted: c.promoted,
            promoted_bytes: c.promoted_bytes,
            demotions: demotions.collect(),
        }
    }
}

impl From<Amount> for pb::Amount {
    fn from(amount: Amount) -> Self {
        Self { blocks: amount.blocks, bytes: amount.bytes }
    }
}

impl From<Gauges> for pb::Gauges {
    fn from(g: Gauges) -> Self {
        Self {
            capacity_bytes: g.capacity_bytes,
            quota_bytes: g.quota_bytes,
            used_bytes: g.used_bytes,
            largest_free_bytes: g.largest_free_bytes,
            free_runs: g.free_runs,
            filling: Some(g.filling.into()),
            revoking: Some(g.revoking.into()),
            resident: Some(g.resident.into()),
            doomed: Some(g.doomed.into()),
            held: Some(g.held.into()),
            pinned: Some(g.pinned.into()),
            leases: g.leases,
            identities: g.scopes,
            moving: Some(g.moving.into()),
        }
    }
}

impl From<Stats> for pb::EngineStats {
    fn from(s: Stats) -> Self {
        Self {
            submitted: s.submitted,
            done: s.done,
            rejected: s.rejected,
            fenced: s.fenced,
            lost: s.lost,
            recovered: s.recovered,
            written_bytes: s.written_bytes,
            read_bytes: s.read_bytes,
            messages_sent: s.messages_sent,
            messages_received: s.messages_received,
            immediates: s.immediates,
            stray_immediates: s.stray_immediates,
            parked: s.parked,
            connections: s.connections,
            disconnections: s.disconnections,
            windows_fenced: s.windows_fenced,
            fallbacks: s.fallbacks,
        }
    }
}

impl From<ServerStats> for pb::ServerStats {
    fn from(stats: ServerStats) -> Self {
        Self {
            sessions: stats.sessions,
            sessions_total: stats.sessions_total,
            requests: stats.requests.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<RequestStats> for pb::RequestStats {
    fn from(stats: RequestStats) -> Self {
        let bucket = |(seconds_max, count)| pb::Bucket { seconds_max, count };
        Self {
            name: stats.name.to_owned(),
            count: stats.count,
            errors: stats.errors,
            seconds_sum: stats.seconds_sum,
            buckets: stats.buckets.into_iter().map(bucket).collect(),
        }
    }
}
